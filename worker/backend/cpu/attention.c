/* Attention by blocks (Dao et al. 2022, algorithm 1): QUERIES rows of scores against KEYS keys at a time, with running maximum and sum, so
 * that the whole matrix of scores never exists. Keys and values are first packed in panels for the product kernel. */
#include <math.h>
#include <string.h>

#include "worker/backend/cpu/cpu.h"

/* QUERIES are whole tiles of every kernel; the scores of a block take 48 KiB. */
enum { QUERIES = 48, KEYS = 256, DIM_PART = 128, DIM_MAX = 1024 };

/* One head of one sample. */
struct head {
    const struct cpu_run *r;
    const struct attention *a;
    int n, first;         /* sample; first channel */
    float *keys, *values; /* its panels: keys [key_panels][dim][NR], values [value_panels][tk][NR] */
};

static struct head head_of(const struct cpu_run *r, int index)
{
    const struct attention *a = &r->op->attention;
    size_t nr = op_columns(r->b);
    float *workspace = (float *)(void *)r->workspace;
    int heads = r->op->desc.attention.heads;
    return (struct head){r,
                         a,
                         index / heads,
                         index % heads * (int)a->dim,
                         workspace + (size_t)index * a->key_panels * a->dim * nr,
                         workspace + a->values_at + (size_t)index * a->value_panels * a->tk * nr};
}

static const float *token(const struct head *h, const struct operand *o, size_t tokens, size_t t)
{
    return run_floats(h->r, o) + ((size_t)h->n * tokens + t) * (size_t)o->ld + (size_t)h->first;
}

/* pack_task packs KEYS keys and values of one head. */
static void pack_task(void *arg, int task)
{
    const struct cpu_run *r = arg;
    const struct attention *a = &r->op->attention;
    struct head h = head_of(r, task / a->pack_blocks);
    size_t nr = op_columns(r->b), from = (size_t)(task % a->pack_blocks) * KEYS, to = min_size(from + KEYS, a->tk);
    size_t padded = ceil_div(to, nr) * nr;
    for (size_t t = from; t < padded; t++) {
        float *panel = h.keys + t / nr * a->dim * nr + t % nr;
        const float *k = t < to ? token(&h, &r->op->desc.attention.key, a->tk, t) : NULL;
        for (size_t c = 0; c < a->dim; c++)
            panel[c * nr] = k ? k[c] : 0;
    }
    for (size_t t = from; t < to; t++) {
        const float *v = token(&h, &r->op->desc.attention.value, a->tk, t);
        for (size_t p = 0; p < a->value_panels; p++) {
            size_t n = min_size(nr, a->dim - p * nr);
            float *row = h.values + (p * a->tk + t) * nr;
            memcpy(row, v + p * nr, n * sizeof *row);
            memset(row + n, 0, (nr - n) * sizeof *row);
        }
    }
}

/* Running state of a block of queries. */
struct block {
    float scores[QUERIES * KEYS] __attribute__((aligned(64)));
    float out[QUERIES * (DIM_MAX + NR_MAX)] __attribute__((aligned(64))); /* rows of value_panels * NR */
    float max[QUERIES], sum[QUERIES];
};

/* score_keys fills scores[q][0 .. padded) for keys from FROM on: DIM_PART channels at a time, so that the queries' part stays in the L1
 * cache. */
static void score_keys(const struct head *h, struct block *b, const float *const *queries, int count, size_t from, size_t padded)
{
    const struct kernels *k = h->r->b->k;
    size_t nr = op_columns(h->r->b), dim = h->a->dim;
    for (size_t c = 0; c < dim; c += DIM_PART) {
        const float *rows[QUERIES];
        for (int i = 0; i < count; i++)
            rows[i] = queries[i] + c;
        for (size_t t = 0; t < padded; t += nr)
            for (int i = 0, mr; i < count; i += mr) {
                mr = count - i < k->mr ? count - i : k->mr;
                k->gemm(mr, rows + i, 0, 1, min_size(DIM_PART, dim - c), h->keys + (from + t) * dim + c * nr,
                        b->scores + (size_t)i * KEYS + t, KEYS, c == 0);
            }
    }
}

/* add_values adds the block's probabilities times values to out. */
static void add_values(const struct head *h, struct block *b, int count, size_t from, size_t keys)
{
    const struct kernels *k = h->r->b->k;
    size_t nr = op_columns(h->r->b), width = h->a->value_panels * nr;
    const float *rows[QUERIES];
    for (int i = 0; i < count; i++)
        rows[i] = b->scores + (size_t)i * KEYS;
    for (size_t p = 0; p < h->a->value_panels; p++)
        for (int i = 0; i < count; i += k->mr) {
            int mr = count - i < k->mr ? count - i : k->mr;
            k->gemm(mr, rows + i, 0, 1, keys, h->values + (p * h->a->tk + from) * nr, b->out + (size_t)i * width + p * nr, width,
                    from == 0);
        }
}

static void rescale(const struct head *h, struct block *b, int i, float factor)
{
    size_t width = h->a->value_panels * op_columns(h->r->b);
    float *row = b->out + (size_t)i * width;
    if (factor != 1)
        h->r->b->k->scale(row, row, width, factor);
}

static void write_out(const struct head *h, const struct block *b, int first, int count)
{
    const struct operand *y = &h->r->op->desc.y;
    size_t width = h->a->value_panels * op_columns(h->r->b);
    for (int i = 0; i < count; i++) {
        float *to = run_floats(h->r, y) + ((size_t)h->n * h->a->tq + (size_t)(first + i)) * (size_t)y->ld + (size_t)h->first;
        float factor = b->sum[i] > 0 ? 1 / b->sum[i] : 0;
        h->r->b->k->scale(to, b->out + (size_t)i * width, h->a->dim, factor);
    }
}

static void query_task(void *arg, int task)
{
    const struct cpu_run *r = arg;
    const struct op_desc *d = &r->op->desc;
    const struct attention *a = &r->op->attention;
    struct head h = head_of(r, task / a->query_blocks);
    struct block b;
    const float *queries[QUERIES], *mask = NULL;
    int first = task % a->query_blocks * QUERIES, count = (int)min_size(QUERIES, a->tq - (size_t)first);
    for (int i = 0; i < count; i++) {
        queries[i] = token(&h, &d->x, a->tq, (size_t)(first + i));
        b.max[i] = -INFINITY;
        b.sum[i] = 0;
    }
    float masked[KEYS] = {0};
    size_t last = d->attention.causal ? min_size(a->tk, (size_t)(first + count)) : a->tk;
    for (size_t from = 0; from < last; from += KEYS) {
        size_t keys = min_size(KEYS, last - from);
        score_keys(&h, &b, queries, count, from, ceil_div(keys, op_columns(r->b)) * op_columns(r->b));
        if (operand_set(&d->attention.mask)) {
            const struct operand *m = &d->attention.mask;
            for (size_t j = 0; j < keys; j++)
                masked[j] = run_floats(r, m)[((size_t)h.n * a->tk + from + j) * (size_t)m->ld];
            mask = masked;
        }
        for (int i = 0; i < count; i++) {
            size_t visible = (size_t)(first + i) + 1 > from ? (size_t)(first + i) + 1 - from : 0,
                   seen = d->attention.causal ? min_size(visible, keys) : keys;
            float factor = r->b->k->softmax(b.scores + (size_t)i * KEYS, seen, keys, d->attention.scale, mask, &b.max[i], &b.sum[i]);
            if (from > 0)
                rescale(&h, &b, i, factor);
        }
        add_values(&h, &b, count, from, keys);
    }
    write_out(&h, &b, first, count);
}

static void attention_run(const struct cpu_run *r)
{
    const struct attention *a = &r->op->attention;
    int heads = r->op->desc.x.n * r->op->desc.attention.heads;
    pool_run(r->b->pool, heads * a->pack_blocks, pack_task, (void *)(uintptr_t)r);
    pool_run(r->b->pool, heads * a->query_blocks, query_task, (void *)(uintptr_t)r);
}

enum status cpu_attention(struct cpu_backend *b, struct bop *op, struct error *err)
{
    const struct op_desc *d = &op->desc;
    struct attention *a = &op->attention;
    size_t nr = op_columns(b), heads = (size_t)d->x.n * (size_t)d->attention.heads;
    a->dim = (size_t)(d->x.c / d->attention.heads);
    if (a->dim > DIM_MAX)
        return FAIL(err, UNSUPPORTED, "attention: heads of %zu channels, at most %d", a->dim, DIM_MAX);
    a->tq = (size_t)d->x.h * (size_t)d->x.w;
    a->tk = (size_t)d->attention.key.h * (size_t)d->attention.key.w;
    a->key_panels = ceil_div(a->tk, nr);
    a->value_panels = ceil_div(a->dim, nr);
    a->values_at = heads * a->key_panels * a->dim * nr;
    a->query_blocks = (int)ceil_div(a->tq, QUERIES);
    a->pack_blocks = (int)ceil_div(a->tk, KEYS);
    op->workspace = (a->values_at + heads * a->value_panels * a->tk * nr) * sizeof(float);
    op->run = attention_run;
    return ST_OK;
}
