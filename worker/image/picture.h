/* 8-bit pictures, PNG in and out, resizing as Pillow does it. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/error.h"

struct picture { int width, height, channels; /* 1 L, 2 LA, 3 RGB, 4 RGBA */ uint8_t *pixels; };
struct png_text { const char *key, *text; };   /* UTF-8; Latin-1 texts are written as tEXt, others as iTXt */

/* picture_size_check refuses what picture_new would (TOO_LARGE). */
NODISCARD enum status picture_size_check(int width, int height, struct error *err);
NODISCARD enum status picture_new(int width, int height, int channels, struct picture **ret, struct error *err); /* at most 16384 a side, 256 Mpixel */
void picture_free(struct picture *p);
/* png_write encodes P with N text chunks; the same picture and texts give the same bytes always. */
NODISCARD enum status png_write(const struct picture *p, const struct png_text *texts, size_t n, struct buf *out, struct error *err);
/* png_read decodes at most MAX_PIXELS; 16-bit and palettes become 8-bit L, LA, RGB or RGBA. CORRUPT or TOO_LARGE names what. */
NODISCARD enum status png_read(const void *bytes, size_t n, int64_t max_pixels, struct picture **ret, struct error *err);
/* png_text_get returns the text chunk KEY of PNG bytes (caller frees), NULL if there is none. */
char *png_text_get(const void *bytes, size_t n, const char *key);
enum resample { RESAMPLE_NEAREST, RESAMPLE_BOX, RESAMPLE_BILINEAR, RESAMPLE_HAMMING, RESAMPLE_BICUBIC, RESAMPLE_LANCZOS };
/* picture_resize is Pillow's Image.resize, bit-exact: 8-bit fixed-point convolution, RGBA premultiplied except for nearest. */
NODISCARD enum status picture_resize(const struct picture *p, int width, int height, enum resample how, struct picture **ret, struct error *err);
