/* UTF-8 checks shared by reader and writer. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* utf8_step returns the length (1 to 4) of the code point that begins S, 0 when it is malformed: overlong, surrogate, past U+10FFFF, cut. N
 * >= 1. */
size_t utf8_step(const char *s, size_t n);
bool utf8_valid(const char *s, size_t n);
