/* Text to number and back as InvokeAI's parser (pydantic, Python) does it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum lax { LAX_OK, LAX_SYNTAX, LAX_RANGE };

/* lax_integer reads " +1_000.0 " as 1000: blanks around, a sign, single underscores between digits, zeros after a point. */
enum lax lax_integer(const char *text, int64_t *ret);
/* lax_number reads a decimal number with blanks around and single underscores between digits. LAX_RANGE: not finite. */
enum lax lax_number(const char *text, double *ret);
/* lax_boolean reads 1 0 true false t f yes no y n on off in any case. */
bool lax_boolean(const char *text, bool *ret);
/* number_text writes D as Python's repr: the fewest digits that read back as D, "1.0", "1e+16", "1e-05". */
enum { NUMBER_TEXT = 32 };
void number_text(double d, char ret[NUMBER_TEXT]);
