#include "worker/image/picture.h"

#include <stdlib.h>

enum { SIDE_MAX = 16384 };
static const int64_t pixels_max = (int64_t)256 << 20;

enum status picture_size_check(int width, int height, struct error *err)
{
    if (width < 1 || height < 1 || width > SIDE_MAX || height > SIDE_MAX || (int64_t)width * height > pixels_max)
        return FAIL(err, TOO_LARGE, "a picture of %d x %d: each side must be 1 to %d, %lld pixels at most", width, height, (int)SIDE_MAX, (long long)pixels_max);
    return ST_OK;
}

enum status picture_new(int width, int height, int channels, struct picture **ret, struct error *err)
{
    TRY(picture_size_check(width, height, err));
    if (channels < 1 || channels > 4)
        return FAIL(err, BAD_ARGUMENT, "a picture of %d channels, must be 1 to 4", channels);
    struct picture *p = calloc(1, sizeof *p);
    uint8_t *pixels = calloc((size_t)width * (size_t)height, (size_t)channels);
    if (!p || !pixels) {
        free(p);
        free(pixels);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a picture of %d x %d", width, height);
    }
    *p = (struct picture){width, height, channels, pixels};
    *ret = p;
    return ST_OK;
}

void picture_free(struct picture *p)
{
    if (!p)
        return;
    free(p->pixels);
    free(p);
}
