/* PNG: any bytes. What is decoded is written again, read back, and must be the same picture. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/image/picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIXELS_MAX = 1 << 20 };

static void check(const struct picture *p)
{
    struct buf bytes = BUF_INIT;
    struct picture *again = NULL;
    if (png_write(p, NULL, 0, &bytes, NULL) != ST_OK || png_read(bytes.data, bytes.len, PIXELS_MAX, &again, NULL) != ST_OK)
        abort();
    if (again->width != p->width || again->height != p->height || again->channels != p->channels
        || memcmp(again->pixels, p->pixels, (size_t)p->width * (size_t)p->height * (size_t)p->channels) != 0)
        abort();
    picture_free(again);
    buf_fini(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct picture *p = NULL;
    struct error err = {0};
    enum status status = png_read(data, size, PIXELS_MAX, &p, &err);
    if (status != ST_OK && !err.message[0])
        abort();
    if (status == ST_OK) {
        check(p);
        picture_free(p);
    }
    free(png_text_get(data, size, "invokeai_graph"));
    return 0;
}
