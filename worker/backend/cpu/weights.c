/* Weights as the kernels want them: float32, packed in panels. */
#include <stdlib.h>
#include <string.h>

#include "worker/backend/cpu/cpu.h"

struct weight_layout {
    struct weight_layout *next;
    enum packing packing;
    struct bmem *memory;
};

enum { PACK_CHUNK = 2048 }; /* elements of one output channel converted at a time */

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

struct packer {
    const struct cpu_backend *b;
    const struct bweight *w;
    float *to;
    enum packing packing;
    size_t columns, depth, taps, packed_taps, nr;
};

/* winograd_taps makes G g G^T of a 3x3 kernel G (Lavin & Gray 2016, eq. 8), in float64. */
static void winograd_taps(const float g[9], float ret[16])
{
    double half[4][3];
    for (int j = 0; j < 3; j++) {
        double a = (double)g[j], b = (double)g[3 + j], c = (double)g[6 + j];
        half[0][j] = a;
        half[1][j] = (a + b + c) / 2;
        half[2][j] = (a - b + c) / 2;
        half[3][j] = c;
    }
    for (int i = 0; i < 4; i++) {
        double a = half[i][0], b = half[i][1], c = half[i][2];
        ret[4 * i] = (float)a;
        ret[4 * i + 1] = (float)((a + b + c) / 2);
        ret[4 * i + 2] = (float)((a - b + c) / 2);
        ret[4 * i + 3] = (float)c;
    }
}

/* pack_column scatters output channel COLUMN, stored [depth][taps], to lane LANE of a panel [packed_taps][depth][NR]. */
static void pack_column(const struct packer *p, size_t column, float *panel, size_t lane)
{
    float chunk[PACK_CHUNK];
    size_t per = PACK_CHUNK / p->taps, length = p->depth * p->taps;
    for (size_t k0 = 0; k0 < p->depth; k0 += per) {
        size_t n = min_size(per, p->depth - k0);
        cpu_weight_floats(p->b, p->w, column * length + k0 * p->taps, n * p->taps, chunk);
        if (p->packing == PACK_WINOGRAD) {
            for (size_t k = 0; k < n; k++) {
                float taps[16];
                winograd_taps(chunk + k * 9, taps);
                for (size_t t = 0; t < 16; t++)
                    panel[(t * p->depth + k0 + k) * p->nr + lane] = taps[t];
            }
            continue;
        }
        for (size_t t = 0; t < p->taps; t++) {
            float *to = panel + (t * p->depth + k0) * p->nr + lane;
            for (size_t k = 0; k < n; k++)
                to[k * p->nr] = chunk[k * p->taps + t];
        }
    }
}

static void pack_panel(void *arg, int task)
{
    const struct packer *p = arg;
    float *panel = p->to + (size_t)task * p->nr * p->depth * p->packed_taps;
    bool pairs = p->packing == PACK_GEGLU;
    size_t lanes = pairs ? p->nr / 2 : p->nr, first = (size_t)task * lanes;
    for (size_t lane = 0; lane < lanes && first + lane < p->columns; lane++) {
        pack_column(p, first + lane, panel, lane);
        if (pairs)
            pack_column(p, p->columns + first + lane, panel, lanes + lane);
    }
}

static enum status pack(struct cpu_backend *b, struct packer *p, struct weight_layout **ret, struct error *err)
{
    size_t lanes = p->packing == PACK_GEGLU ? p->nr / 2 : p->nr, panels = ceil_div(p->columns, lanes);
    struct bmem *memory = NULL;
    enum status st = host_mem_new(&b->host.base, panels * p->nr * p->depth * p->packed_taps * sizeof(float), &memory, err);
    if (st != ST_OK)
        return error_prefix(err, "packing a weight");
    struct weight_layout *l = calloc(1, sizeof *l);
    if (!l) {
        host_mem_free(&b->host.base, memory);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a weight");
    }
    p->to = (float *)(void *)memory->data;          /* zeroed: so are the lanes past the last column */
    pool_run(b->pool, (int)panels, pack_panel, p);
    *l = (struct weight_layout){.packing = p->packing, .memory = memory};
    *ret = l;
    return ST_OK;
}

enum status cpu_panels(struct cpu_backend *b, const struct bweight *w, enum packing packing, const float **ret, struct error *err)
{
    /* The contract hands weights over as const: the layouts are a cache behind it. */
    struct bweight *cache = (struct bweight *)(uintptr_t)w;
    struct weight_layout *l = cache->layouts;
    while (l && l->packing != packing)
        l = l->next;
    if (!l) {
        const struct weight_source *s = &w->source;
        struct packer p = {.b = b,
                           .w = w,
                           .packing = packing,
                           .columns = (size_t)s->shape[0],
                           .depth = (size_t)s->shape[1],
                           .taps = 1,
                           .nr = op_columns(b)};
        for (int i = 2; i < s->ndim; i++)
            p.taps *= (size_t)s->shape[i];
        p.packed_taps = packing == PACK_WINOGRAD ? 16 : p.taps;
        if (packing == PACK_GEGLU)
            p.columns /= 2;
        TRY(pack(b, &p, &l, err));
        l->next = cache->layouts;
        cache->layouts = l;
    }
    *ret = (const float *)(const void *)l->memory->data;
    return ST_OK;
}

void cpu_weight_free(struct backend *backend, struct bweight *w)
{
    while (w && w->layouts) {
        struct weight_layout *l = w->layouts;
        w->layouts = l->next;
        host_mem_free(backend, l->memory);
        free(l);
    }
    free(w);
}
