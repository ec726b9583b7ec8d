/* Ops that touch each element once: y's pixels in blocks, a row of channels (or the whole block, where nothing lies between rows) at a
 * time. */
#include <math.h>
#include <string.h>

#include "worker/backend/cpu/cpu.h"

enum { BLOCK_FLOATS = 16384, INLINE_FLOATS = 65536 };

/* The pixels [from, to) of a sample, as rows of N floats; one row if the operands are dense. */
struct span {
    size_t from, rows, n;
};

static void unary_rows(const struct cpu_run *r, struct span s)
{
    const struct op_desc *d = &r->op->desc;
    for (size_t i = 0; i < s.rows; i++)
        r->b->k->act(run_floats(r, &d->y) + (s.from + i) * (size_t)d->y.ld, run_floats(r, &d->x) + (s.from + i) * (size_t)d->x.ld, s.n,
                     d->act);
}

static void binary_rows(const struct cpu_run *r, struct span s)
{
    const struct op_desc *d = &r->op->desc;
    const struct operand *z = &d->binary.z;
    size_t plane = (size_t)d->x.h * (size_t)d->x.w, z_plane = (size_t)z->h * (size_t)z->w;
    for (size_t i = 0; i < s.rows; i++) {
        size_t p = s.from + i, at = (z->n == 1 ? 0 : p / plane * z_plane) + (z_plane == 1 ? 0 : p % plane);
        r->b->k->binary(run_floats(r, &d->y) + p * (size_t)d->y.ld, run_floats(r, &d->x) + p * (size_t)d->x.ld,
                        run_floats(r, z) + at * (size_t)z->ld, s.n, d->binary.fn);
    }
}

static void upsample_rows(const struct cpu_run *r, struct span s)
{
    const struct op_desc *d = &r->op->desc;
    size_t w = (size_t)d->y.w, h = (size_t)d->y.h;
    for (size_t p = s.from; p < s.from + s.rows; p++) {
        size_t j = p % w * (size_t)d->x.w / w, i = p / w % h * (size_t)d->x.h / h, n = p / w / h;
        const float *from = run_floats(r, &d->x) + ((n * (size_t)d->x.h + i) * (size_t)d->x.w + j) * (size_t)d->x.ld;
        memcpy(run_floats(r, &d->y) + p * (size_t)d->y.ld, from, s.n * sizeof *from);
    }
}

static void concat_rows(const struct cpu_run *r, struct span s)
{
    const struct op_desc *d = &r->op->desc;
    size_t first = (size_t)d->x.c, second = (size_t)d->concat.z.c;
    for (size_t p = s.from; p < s.from + s.rows; p++) {
        float *to = run_floats(r, &d->y) + p * (size_t)d->y.ld;
        memmove(to, run_floats(r, &d->x) + p * (size_t)d->x.ld, first * sizeof *to);
        memmove(to + first, run_floats(r, &d->concat.z) + p * (size_t)d->concat.z.ld, second * sizeof *to);
    }
}

static void cast_row(const struct kernels *k, unsigned char *y, enum dtype to, const unsigned char *x, enum dtype from, size_t n)
{
    float chunk[1024];
    size_t done = 0;
    if (from == to) {
        memmove(y, x, n * dtype_bytes(to));
        return;
    }
    for (; done < n; done += sizeof chunk / sizeof *chunk) {
        size_t now = min_size(n - done, sizeof chunk / sizeof *chunk);
        const unsigned char *src = x + done * dtype_bytes(from);
        unsigned char *dst = y + done * dtype_bytes(to);
        float *middle = to == DT_F32 ? (float *)(void *)dst : chunk;
        const float *source = middle;
        if (from == DT_F32)
            source = (const float *)(const void *)src;
        else
            k->from_half(middle, (const uint16_t *)(const void *)src, now, from);
        if (to != DT_F32)
            k->to_half((uint16_t *)(void *)dst, source, now, to);
    }
}

static void cast_rows(const struct cpu_run *r, struct span s)
{
    const struct op_desc *d = &r->op->desc;
    for (size_t p = s.from; p < s.from + s.rows; p++)
        cast_row(r->b->k, r->arena + d->y.offset + p * (size_t)d->y.ld * dtype_bytes(d->y.dtype), d->y.dtype,
                 r->arena + d->x.offset + p * (size_t)d->x.ld * dtype_bytes(d->x.dtype), d->x.dtype, s.n);
}

static void lincomb_rows(const struct cpu_run *r, struct span s)
{
    const struct op_desc *d = &r->op->desc;
    size_t plane = (size_t)d->y.h * (size_t)d->y.w;
    int count = d->lincomb.count;
    float coef[8];
    for (int k = 0; k < count; k++)
        coef[k] = run_floats(r, &d->lincomb.coef)[(size_t)k * (size_t)d->lincomb.coef.ld];
    for (size_t p = s.from; p < s.from + s.rows; p++) {
        const float *in[8];
        for (int k = 0; k < count; k++) {
            const struct operand *o = &d->lincomb.in[k];
            in[k] = run_floats(r, o) + (p / plane % (size_t)o->n * plane + p % plane) * (size_t)o->ld;
        }
        r->b->k->lincomb(run_floats(r, &d->y) + p * (size_t)d->y.ld, in, coef, count, s.n);
    }
}

static void pack_rows(const struct cpu_run *r, struct span s)
{
    const struct op_desc *d = &r->op->desc;
    for (size_t p = s.from; p < s.from + s.rows; p++)
        r->b->k->pack_u8(r->arena + d->y.offset + p * (size_t)d->y.ld, run_floats(r, &d->x) + p * (size_t)d->x.ld, s.n);
}

static bool dense(const struct operand *o) { return o->ld == o->c; }

/* whole_rows says whether a run of pixels of every operand is one run of floats. */
static bool whole_rows(const struct op_desc *d)
{
    if (!dense(&d->y))
        return false;
    switch (d->kind) {
    case OP_UNARY:
    case OP_CAST:
    case OP_PACK_U8: return dense(&d->x);
    case OP_BINARY: {
        const struct operand *z = &d->binary.z;
        return dense(&d->x) && dense(z) && z->n == d->x.n && z->h == d->x.h && z->w == d->x.w;
    }
    case OP_LINCOMB:
        for (int k = 0; k < d->lincomb.count; k++)
            if (!dense(&d->lincomb.in[k]) || d->lincomb.in[k].n != d->y.n)
                return false;
        return true;
    default: return false;
    }
}

static void (*const rows_of[OP_COUNT])(const struct cpu_run *, struct span) = {
    [OP_UNARY] = unary_rows, [OP_BINARY] = binary_rows,   [OP_UPSAMPLE] = upsample_rows, [OP_CONCAT] = concat_rows,
    [OP_CAST] = cast_rows,   [OP_LINCOMB] = lincomb_rows, [OP_PACK_U8] = pack_rows,
};

static size_t pixels_per_task(const struct op_desc *d) { return d->y.c < BLOCK_FLOATS ? BLOCK_FLOATS / (size_t)d->y.c : 1; }

static void map_task(void *arg, int task)
{
    const struct cpu_run *r = arg;
    const struct op_desc *d = &r->op->desc;
    size_t per = pixels_per_task(d), from = (size_t)task * per, pixels = min_size(per, (size_t)operand_pixels(&d->y) - from);
    bool whole = whole_rows(d);
    rows_of[d->kind](r, (struct span){from, whole ? 1 : pixels, whole ? pixels * (size_t)d->y.c : (size_t)d->y.c});
}

static void map_run(const struct cpu_run *r)
{
    const struct op_desc *d = &r->op->desc;
    size_t pixels = (size_t)operand_pixels(&d->y);
    int tasks = (int)ceil_div(pixels, pixels_per_task(d));
    if (pixels * (size_t)d->y.c <= INLINE_FLOATS)
        for (int t = 0; t < tasks; t++)
            map_task((void *)(uintptr_t)r, t);
    else
        pool_run(r->b->pool, tasks, map_task, (void *)(uintptr_t)r);
}

enum status cpu_map(struct cpu_backend *b, struct bop *op, struct error *err)
{
    (void)b;
    (void)err;
    op->run = map_run;
    return ST_OK;
}
