/* Text chunks of a PNG file: where pictures carry the graph they were made from. */
#pragma once
#include "common/error.h"
#include <stddef.h>

/* png_text_find copies the text under KEY of the PNG in BYTES (tEXt, or iTXt that is not compressed; caller frees). NOT_FOUND if there is
 * none, CORRUPT if the chunks do not add up, UNSUPPORTED for a compressed one. */
NODISCARD enum status png_text_find(const void *bytes, size_t n, const char *key, char **ret, struct error *err);
/* png_is is true if BYTES begin as a PNG file does. */
int png_is(const void *bytes, size_t n);
