/* Pillow's resampling, to the bit: weights in double, then 22-bit fixed point, rows before columns. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "worker/image/picture.h"

enum { PRECISION = 32 - 8 - 2 };    /* bits after the point: 8 for the value, 2 for overshoot and sign */

static double sinc(double x)
{
    return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI);
}

static double box(double x)
{
    return x > -0.5 && x <= 0.5;
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double hamming(double x)
{
    x = fabs(x);
    if (x == 0)
        return 1;
    return x >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * cos(x * M_PI));
}

static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static double lanczos(double x)
{
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

static const struct { double (*f)(double); double support; } filters[] = {
    [RESAMPLE_BOX] = {box, 0.5}, [RESAMPLE_BILINEAR] = {triangle, 1}, [RESAMPLE_HAMMING] = {hamming, 1},
    [RESAMPLE_BICUBIC] = {bicubic, 2}, [RESAMPLE_LANCZOS] = {lanczos, 3},
};

/* Weights of one direction: output I is the sum over K of weight[I * size + K] * input[first[I] + K]. */
struct weights { int size, *first, *count; int32_t *weight; };

static void weights_fini(struct weights *w)
{
    free(w->first);
    free(w->count);
    free(w->weight);
}

static void weigh_one(struct weights *w, int i, int in, double scale, enum resample how, double *row)
{
    double stretch = scale < 1 ? 1 : scale, support = filters[how].support * stretch, center = (i + 0.5) * scale, sum = 0;
    int first = (int)(center - support + 0.5), last = (int)(center + support + 0.5);
    first = first < 0 ? 0 : first;
    last = last > in ? in : last;
    for (int k = 0; k < last - first; k++)
        sum += row[k] = filters[how].f((k + first - center + 0.5) * (1 / stretch));
    for (int k = 0; k < last - first; k++) {
        double v = sum != 0 ? row[k] / sum : row[k];
        w->weight[(size_t)i * (size_t)w->size + (size_t)k] = (int32_t)((v < 0 ? -0.5 : 0.5) + v * (1 << PRECISION));
    }
    w->first[i] = first;
    w->count[i] = last - first;
}

static enum status weights_init(struct weights *w, int in, int out, enum resample how, struct error *err)
{
    double scale = (double)in / out, support = filters[how].support * (scale < 1 ? 1 : scale);
    *w = (struct weights){.size = (int)ceil(support) * 2 + 1};
    w->first = calloc((size_t)out, sizeof *w->first);
    w->count = calloc((size_t)out, sizeof *w->count);
    w->weight = calloc((size_t)out * (size_t)w->size, sizeof *w->weight);
    double *row = calloc((size_t)w->size, sizeof *row);
    if (!w->first || !w->count || !w->weight || !row) {
        weights_fini(w);
        free(row);
        return FAIL(err, OUT_OF_MEMORY, "out of memory resizing %d to %d", in, out);
    }
    for (int i = 0; i < out; i++)
        weigh_one(w, i, in, scale, how, row);
    free(row);
    return ST_OK;
}

static uint8_t clip8(int32_t v)
{
    v >>= PRECISION;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* pass resizes along one direction: STEP bytes lie between neighbours there, LINE between the lines across. */
static void pass(const struct weights *w, const uint8_t *in, size_t in_step, size_t in_line, uint8_t *out, size_t out_step, size_t out_line, int n_out,
                 int lines, int channels)
{
    for (int line = 0; line < lines; line++)
        for (int i = 0; i < n_out; i++)
            for (int c = 0; c < channels; c++) {
                const int32_t *weight = w->weight + (size_t)i * (size_t)w->size;
                const uint8_t *from = in + (size_t)line * in_line + (size_t)w->first[i] * in_step + (size_t)c;
                int32_t sum = 1 << (PRECISION - 1);
                for (int k = 0; k < w->count[i]; k++)
                    sum += from[(size_t)k * in_step] * weight[k];
                out[(size_t)line * out_line + (size_t)i * out_step + (size_t)c] = clip8(sum);
            }
}

static enum status resize_rows(const struct picture *p, int width, enum resample how, struct picture **ret, struct error *err)
{
    struct weights w;
    struct picture *out;
    size_t c = (size_t)p->channels;
    TRY(weights_init(&w, p->width, width, how, err));
    enum status s = picture_new(width, p->height, p->channels, &out, err);
    if (s == ST_OK) {
        pass(&w, p->pixels, c, c * (size_t)p->width, out->pixels, c, c * (size_t)width, width, p->height, p->channels);
        *ret = out;
    }
    weights_fini(&w);
    return s;
}

static enum status resize_columns(const struct picture *p, int height, enum resample how, struct picture **ret, struct error *err)
{
    struct weights w;
    struct picture *out;
    size_t c = (size_t)p->channels, row = c * (size_t)p->width;
    TRY(weights_init(&w, p->height, height, how, err));
    enum status s = picture_new(p->width, height, p->channels, &out, err);
    if (s == ST_OK) {
        pass(&w, p->pixels, row, c, out->pixels, row, c, height, p->width, p->channels);
        *ret = out;
    }
    weights_fini(&w);
    return s;
}

/* nearest_index fills which input each output takes: positions are summed up, as Pillow does, so that rounding agrees. */
static void nearest_index(int in, int out, int *ret)
{
    double step = (double)in / out, at = step * 0.5;
    for (int i = 0; i < out; i++, at += step)
        ret[i] = (int)at < in ? (int)at : in - 1;
}

static enum status resize_nearest(const struct picture *p, int width, int height, struct picture **ret, struct error *err)
{
    struct picture *out;
    TRY(picture_new(width, height, p->channels, &out, err));
    int *xs = calloc((size_t)width + (size_t)height, sizeof *xs), *ys = xs + width;
    if (!xs) {
        picture_free(out);
        return FAIL(err, OUT_OF_MEMORY, "out of memory resizing to %d x %d", width, height);
    }
    nearest_index(p->width, width, xs);
    nearest_index(p->height, height, ys);
    size_t c = (size_t)p->channels;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            memcpy(out->pixels + ((size_t)y * (size_t)width + (size_t)x) * c, p->pixels + ((size_t)ys[y] * (size_t)p->width + (size_t)xs[x]) * c, c);
    free(xs);
    *ret = out;
    return ST_OK;
}

static void premultiply(struct picture *p)
{
    int c = p->channels;
    size_t n = (size_t)p->width * (size_t)p->height;
    for (size_t i = 0; i < n; i++) {
        uint8_t *px = p->pixels + i * (size_t)c;
        for (int k = 0; k < c - 1; k++) {
            unsigned t = (unsigned)px[k] * px[c - 1] + 128;
            px[k] = (uint8_t)((t + (t >> 8)) >> 8);
        }
    }
}

static void unpremultiply(struct picture *p)
{
    int c = p->channels;
    size_t n = (size_t)p->width * (size_t)p->height;
    for (size_t i = 0; i < n; i++) {
        uint8_t *px = p->pixels + i * (size_t)c, alpha = px[c - 1];
        for (int k = 0; k < c - 1 && alpha != 0 && alpha != 255; k++) {
            unsigned v = 255u * px[k] / alpha;
            px[k] = (uint8_t)(v > 255 ? 255 : v);
        }
    }
}

static enum status copy_of(const struct picture *p, struct picture **ret, struct error *err)
{
    TRY(picture_new(p->width, p->height, p->channels, ret, err));
    memcpy((*ret)->pixels, p->pixels, (size_t)p->width * (size_t)p->height * (size_t)p->channels);
    return ST_OK;
}

enum status picture_resize(const struct picture *p, int width, int height, enum resample how, struct picture **ret, struct error *err)
{
    struct picture *now, *next;
    bool alpha = p->channels == 2 || p->channels == 4;
    TRY(picture_size_check(width, height, err));
    if (width == p->width && height == p->height)
        return copy_of(p, ret, err);
    if (how == RESAMPLE_NEAREST)
        return resize_nearest(p, width, height, ret, err);
    TRY(copy_of(p, &now, err));
    if (alpha)
        premultiply(now);
    enum status s = ST_OK;
    if (width != now->width && (s = resize_rows(now, width, how, &next, err)) == ST_OK) {
        picture_free(now);
        now = next;
    }
    if (s == ST_OK && height != now->height && (s = resize_columns(now, height, how, &next, err)) == ST_OK) {
        picture_free(now);
        now = next;
    }
    if (s != ST_OK) {
        picture_free(now);
        return s;
    }
    if (alpha)
        unpremultiply(now);
    *ret = now;
    return ST_OK;
}
