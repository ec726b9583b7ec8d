/* Weights as the kernels want them: float32, packed in panels. */
#include <stdlib.h>
#include <string.h>

#include "worker/backend/cpu/cpu.h"

struct weight_layout {
    struct weight_layout *next;
    bool interleave;
    size_t bytes;
    float *data;
};

enum { PACK_CHUNK = 2048 };      /* elements of one output channel converted at a time */

void cpu_weight_floats(const struct cpu_backend *b, const struct bweight *w, size_t first, size_t count, float *ret)
{
    const struct weight_source *s = &w->source;
    if (s->dtype == DT_F32)
        memcpy(ret, (const float *)s->data + first, count * sizeof *ret);
    else
        b->k->from_half(ret, (const uint16_t *)s->data + first, count, s->dtype);
}

float *cpu_vector(const struct cpu_backend *b, const struct bweight *w, size_t padded, float fill)
{
    float *v = malloc(padded * sizeof *v);
    size_t have = v && w ? (size_t)w->source.shape[0] : 0;
    if (have)
        cpu_weight_floats(b, w, 0, have, v);
    for (size_t i = have; v && i < padded; i++)
        v[i] = fill;
    return v;
}

struct packing {
    const struct cpu_backend *b;
    const struct bweight *w;
    float *to;
    size_t columns, depth, taps, nr, half;   /* half: columns of the first half, 0 unless interleaved */
};

/* pack_column scatters output channel COLUMN, stored [depth][taps], to lane LANE of a panel [taps][depth][NR]. */
static void pack_column(const struct packing *p, size_t column, float *panel, size_t lane)
{
    float chunk[PACK_CHUNK];
    size_t per = PACK_CHUNK / p->taps, length = p->depth * p->taps;
    for (size_t k0 = 0; k0 < p->depth; k0 += per) {
        size_t n = min_size(per, p->depth - k0);
        cpu_weight_floats(p->b, p->w, column * length + k0 * p->taps, n * p->taps, chunk);
        for (size_t t = 0; t < p->taps; t++) {
            float *to = panel + (t * p->depth + k0) * p->nr + lane;
            for (size_t k = 0; k < n; k++)
                to[k * p->nr] = chunk[k * p->taps + t];
        }
    }
}

static void pack_panel(void *arg, int task)
{
    const struct packing *p = arg;
    float *panel = p->to + (size_t)task * p->nr * p->depth * p->taps;
    size_t lanes = p->half ? p->nr / 2 : p->nr, first = (size_t)task * lanes, limit = p->half ? p->half : p->columns;
    for (size_t lane = 0; lane < lanes && first + lane < limit; lane++) {
        pack_column(p, first + lane, panel, lane);
        if (p->half)
            pack_column(p, p->half + first + lane, panel, lanes + lane);
    }
}

enum status cpu_panels(struct cpu_backend *b, const struct bweight *w, bool interleave, const float **ret, struct error *err)
{
    /* The contract hands weights over as const: the layouts are a cache behind it. */
    struct bweight *cache = (struct bweight *)(uintptr_t)w;
    struct weight_layout *l = cache->layouts;
    while (l && l->interleave != interleave)
        l = l->next;
    if (!l) {
        const struct weight_source *s = &w->source;
        struct packing p = {b, w, NULL, (size_t)s->shape[0], (size_t)s->shape[1], 1, op_columns(b), interleave ? (size_t)s->shape[0] / 2 : 0};
        for (int i = 2; i < s->ndim; i++)
            p.taps *= (size_t)s->shape[i];
        if (p.taps > PACK_CHUNK)
            return FAIL(err, UNSUPPORTED, "a kernel of %zu taps, at most %d", p.taps, PACK_CHUNK);
        size_t panels = interleave ? ceil_div(p.half, p.nr / 2) : ceil_div(p.columns, p.nr), bytes = panels * p.nr * p.depth * p.taps * sizeof(float);
        struct backend_memory now;
        TRY(host_memory(&b->host.base, &now, err));
        l = bytes <= now.free_bytes ? calloc(1, sizeof *l) : NULL;
        p.to = l ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
        if (!p.to) {
            free(l);
            return FAIL(err, OUT_OF_MEMORY, "out of memory packing a weight: %zu bytes needed, %zu free", bytes, now.free_bytes);
        }
        if (interleave || p.columns % p.nr)
            memset(p.to, 0, bytes);
        pool_run(b->pool, (int)panels, pack_panel, &p);
        *l = (struct weight_layout){cache->layouts, interleave, bytes, p.to};
        cache->layouts = l;
        b->host.used_bytes += bytes;
    }
    *ret = l->data;
    return ST_OK;
}

void cpu_weight_free(struct backend *backend, struct bweight *w)
{
    struct cpu_backend *b = (struct cpu_backend *)backend;
    while (w && w->layouts) {
        struct weight_layout *l = w->layouts;
        w->layouts = l->next;
        b->host.used_bytes -= l->bytes;
        free(l->data);
        free(l);
    }
    free(w);
}
