/* Picture nodes on recorded PNG files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/json.h"
#include "golden/golden.h"
#include "worker/image/picture.h"

enum { PIXELS_MAX = 1 << 22 };

static enum golden_result read_picture(struct golden_case *c, const char *name, struct picture **ret)
{
    AUTO_BUF bytes = BUF_INIT;
    char chunk[16384];
    size_t n;
    const char *path = golden_path(c, name);
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (!f)
        return golden_fail(c, "cannot open %s", name);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_put(&bytes, chunk, n);
    fclose(f);
    struct error err;
    return golden_status(c, buf_ok(&bytes) ? png_read(bytes.data, bytes.len, PIXELS_MAX, ret, &err) : FAIL(&err, OUT_OF_MEMORY, "no memory for %s", name), &err);
}

static enum golden_result compare(struct golden_case *c, const struct picture *got, const struct picture *want, int tolerance)
{
    if (got->width != want->width || got->height != want->height || got->channels != want->channels)
        return golden_fail(c, "%d x %d x %d, expected %d x %d x %d", got->width, got->height, got->channels, want->width, want->height, want->channels);
    int worst = 0;
    for (size_t i = 0, n = (size_t)got->width * (size_t)got->height * (size_t)got->channels; i < n; i++) {
        int d = abs(got->pixels[i] - want->pixels[i]);
        worst = d > worst ? d : worst;
    }
    return worst <= tolerance ? GOLDEN_PASS : golden_fail(c, "max_abs %d, tolerance %d", worst, tolerance);
}

/* The result as it comes back from a file. */
static enum golden_result through_png(struct golden_case *c, const struct picture *p, struct picture **ret)
{
    AUTO_BUF bytes = BUF_INIT;
    struct error err;
    GOLDEN_TRY(golden_status(c, png_write(p, NULL, 0, &bytes, &err), &err));
    return golden_status(c, png_read(bytes.data, bytes.len, PIXELS_MAX, ret, &err), &err);
}

static enum golden_result resize(struct golden_case *c, const struct picture *in, struct picture **ret)
{
    static const char *const modes[] = { [RESAMPLE_NEAREST] = "nearest", [RESAMPLE_BOX] = "box", [RESAMPLE_BILINEAR] = "bilinear",
                                         [RESAMPLE_HAMMING] = "hamming", [RESAMPLE_BICUBIC] = "bicubic", [RESAMPLE_LANCZOS] = "lanczos" };
    const char *mode = json_str(c->inputs, "resample_mode", "bicubic");
    struct error err;
    for (int i = 0; i < (int)(sizeof modes / sizeof *modes); i++)
        if (strcmp(modes[i], mode) == 0)
            return golden_status(c, picture_resize(in, (int)json_int(c->inputs, "width", 0), (int)json_int(c->inputs, "height", 0), (enum resample)i, ret, &err), &err);
    return golden_fail(c, "resample_mode %s", mode);
}

/* Pillow's sums are integers, so the result has to be the same to the bit whatever the recorded tolerance. */
enum golden_result kind_images(struct golden_case *c)
{
    const char *node = json_str(c->inputs, "node", ""), *expect = json_str(c->json, "expect_png", NULL);
    struct picture *in = NULL, *made = NULL, *read = NULL, *want = NULL;
    if (json_object_get(c->json, "raises"))
        return golden_skip(c, "the reference raises");
    if (strcmp(node, "img_resize") != 0)
        return *node ? golden_skip(c, "node %s", node) : golden_skip(c, "control picture preparation");
    if (!expect)
        return golden_fail(c, "no expect_png");
    enum golden_result result = read_picture(c, json_str(c->inputs, "image", ""), &in);
    if (result == GOLDEN_PASS)
        result = read_picture(c, expect, &want);
    if (result == GOLDEN_PASS)
        result = resize(c, in, &made);
    if (result == GOLDEN_PASS)
        result = through_png(c, made, &read);
    if (result == GOLDEN_PASS)
        result = compare(c, read, want, 0);
    picture_free(in);
    picture_free(made);
    picture_free(read);
    picture_free(want);
    return result;
}
