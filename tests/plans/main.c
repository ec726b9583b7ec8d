/* galley-plans: has cuDNN a plan for everything that the engine will ask it for? Needs no device: it makes the plans for the description of
 * one.
 *
 *   galley-plans FILE [--quick]     FILE: the description (h100.json). --quick: attention, which is compiled, for one size of each network
 * only.
 *
 * Prints every shape once, with its engine, and exits with 1 if one has no plan, 77 where cuDNN is too old to plan without a device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/plans/plans.h"
#include "worker/backend/cuda/dnn.h"

enum { DEVICELESS_VERSION = 90800, SKIPPED = 77, TEXT_MAX = 1 << 16 };

struct seen {
    struct seen *next;
    struct dnn_shape shape;
};
struct pieces {
    struct pieces *next;
    char text[160];
};
struct survey {
    struct dnn_where where;
    struct seen *seen;
    struct pieces *pieces;
    bool attention;                   /* now */
    int plans, lesser, missing, left; /* lesser: that leave something to a kernel of our own */
    size_t workspace;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static enum status plan_one(struct survey *s, const struct dnn_shape *wanted)
{
    struct dnn_shape less = *wanted, *shape = &less;
    struct dnn_plan p;
    struct error err = {.code = ST_OK};
    double start = now();
    enum status st = dnn_plan_new(s->where, shape, &p, &err);
    while (st != ST_OK && shape->kind == DNN_CONV && conv_shape_less(shape)) {
        s->lesser++;
        st = dnn_plan_new(s->where, shape, &p, &err);
    }
    if (st != ST_OK) {
        s->missing++;
        printf("MISSING %s: %s\n", dnn_shape_text(shape).s, err.message);
        return ST_OK;
    }
    s->plans++;
    s->workspace = p.workspace > s->workspace ? p.workspace : s->workspace;
    printf("%-130s engine %2lld%s, %zu bytes, %.0f ms\n", dnn_shape_text(shape).s, (long long)p.engine,
           p.behavior >> CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION & 1 ? " compiled" : "", p.workspace, 1e3 * (now() - start));
    fflush(stdout);
    dnn_plan_free(&p);
    return ST_OK;
}

/* in_pieces prints an attention that is not cuDNN's, once. */
static enum status in_pieces(struct survey *s, const struct op_desc *d, struct error *err)
{
    struct pieces *new = calloc(1, sizeof *new);
    if (!new)
        return FAIL(err, OUT_OF_MEMORY, "out of memory");
    snprintf(new->text, sizeof new->text, "attention %s %d x %d heads of %d, %d queries, %d keys", dtype_name(d->x.dtype), d->x.n,
             d->attention.heads, d->x.c / d->attention.heads, d->x.h * d->x.w, d->attention.key.h * d->attention.key.w);
    for (struct pieces *p = s->pieces; p; p = p->next)
        if (!strcmp(p->text, new->text)) {
            free(new);
            return ST_OK;
        }
    new->next = s->pieces;
    s->pieces = new;
    printf("%-130s in pieces, without cuDNN\n", new->text);
    return ST_OK;
}

static enum status visit(void *arg, const struct op_desc *d, struct error *err)
{
    struct survey *s = arg;
    struct dnn_shape shape;
    if (d->kind != OP_CONV2D && d->kind != OP_ATTENTION)
        return ST_OK;
    if (d->kind == OP_ATTENTION && !sdpa_shape_of(d, &shape))
        return in_pieces(s, d, err);
    if (d->kind == OP_CONV2D && !conv_shape_of(d, &shape))
        return FAIL(err, UNSUPPORTED, "a convolution between dtypes");
    if (d->kind == OP_ATTENTION && !s->attention) {
        s->left++;
        return ST_OK;
    }
    for (struct seen *e = s->seen; e; e = e->next)
        if (!memcmp(&e->shape, &shape, sizeof shape))
            return ST_OK;
    struct seen *new = calloc(1, sizeof *new);
    if (!new)
        return FAIL(err, OUT_OF_MEMORY, "out of memory");
    *new = (struct seen){s->seen, shape};
    s->seen = new;
    return plan_one(s, &shape);
}

static enum status describe_device(const char *path, cudnnBackendDescriptor_t *ret, struct error *err)
{
    static char text[TEXT_MAX];
    FILE *f = fopen(path, "r");
    if (!f)
        return FAIL_ERRNO(err, "%s", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    DNN(err, "device", cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, ret));
    DNN(err, "device", cudnnBackendSetAttribute(*ret, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)n, text));
    DNN(err, path, cudnnBackendFinalize(*ret));
    return ST_OK;
}

/* quick picks what is compiled in a quick run: the pair of guidance at the size that a network was made for. */
static bool quick_size(const struct network *w, enum dtype t)
{
    bool native = !strcmp(w->name, "sd-1 unet")   ? w->width == 512 || w->width == 520
                  : !strcmp(w->name, "sd-2 unet") ? w->width == 768
                                                  : w->width == 1024;
    return native && w->batch == 2 && t == (strcmp(w->name, "sdxl unet") ? DT_F16 : DT_BF16);
}

static enum status survey(struct survey *s, bool quick, struct error *err)
{
    int n;
    const struct network *all = network_all(&n);
    for (int i = 0; i < n; i++)
        for (enum dtype t = DT_F32; t <= DT_BF16; t++) {
            if (t == DT_F32 && !all[i].vae)
                continue;
            printf("--- %s %dx%d, batch %d, %s\n", all[i].name, all[i].width, all[i].height, all[i].batch, dtype_name(t));
            s->attention = !quick || quick_size(&all[i], t);
            TRY(network_ops(&all[i], t, visit, s, err));
        }
    return ST_OK;
}

static void drop(struct survey *s)
{
    while (s->seen) {
        struct seen *next = s->seen->next;
        free(s->seen);
        s->seen = next;
    }
    while (s->pieces) {
        struct pieces *next = s->pieces->next;
        free(s->pieces);
        s->pieces = next;
    }
    cudnnBackendDestroyDescriptor(s->where.properties);
}

int main(int argc, char **argv)
{
    struct survey s = {.plans = 0};
    struct error err = {.code = ST_OK};
    bool quick = argc == 3 && !strcmp(argv[2], "--quick");
    if (argc != 2 && !quick) {
        fprintf(stderr, "usage: galley-plans DEVICE.json [--quick]\n");
        return 2;
    }
    if (cudnnGetVersion() < DEVICELESS_VERSION) {
        printf("cuDNN %zu makes no plans without a device\n", cudnnGetVersion());
        return SKIPPED;
    }
    if (describe_device(argv[1], &s.where.properties, &err) != ST_OK || survey(&s, quick, &err) != ST_OK) {
        fprintf(stderr, "galley-plans: %s\n", err.message);
        return 1;
    }
    printf("cuDNN %zu: %d plans, %d of them without bias or residual, %d missing, at most %zu bytes of workspace", cudnnGetVersion(),
           s.plans, s.lesser, s.missing, s.workspace);
    printf(s.left ? "; %d attentions of other sizes left out\n" : "\n", s.left);
    drop(&s);
    return s.missing ? 1 : 0;
}
