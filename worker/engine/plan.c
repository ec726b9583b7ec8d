#include "worker/engine/plan.h"

#include <limits.h>
#include <stdlib.h>

/* A handle: number of the value (from 1) above HANDLE_SHIFT, bytes into the value below. */
enum { HANDLE_SHIFT = 40, OPERANDS_MAX = 16 };

struct value {
    size_t bytes, offset;
    int first, last;             /* op numbers over all segments, once finished */
    bool keep;
};

struct segment {
    struct op_desc *descs;
    struct bop **ops;
    int n, cap;
    void *sequence;
};

struct plan {
    struct backend *backend;
    struct value *values;
    size_t n_values, cap_values;
    struct segment segments[PLAN_SEGMENTS];
    struct bmem *arena, *workspace;
    size_t arena_bytes, workspace_bytes;
    const struct plan_room *room;
    size_t loads;                /* bytes of weights that the ops are expected to load */
    size_t loaded;
    bool out_of_memory, finished;
};

enum status plan_new(struct backend *backend, struct plan **ret, struct error *err)
{
    struct plan *p = calloc(1, sizeof *p);
    if (!p)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a plan");
    p->backend = backend;
    *ret = p;
    return ST_OK;
}

void plan_free(struct plan *p)
{
    if (!p)
        return;
    const struct backend_api *api = p->backend->api;
    for (int s = 0; s < PLAN_SEGMENTS; s++) {
        struct segment *seg = &p->segments[s];
        if (seg->sequence)
            api->sequence_free(p->backend, seg->sequence);
        if (seg->ops)
            for (int i = 0; i < seg->n; i++)
                api->op_free(p->backend, seg->ops[i]);
        free(seg->ops);
        free(seg->descs);
    }
    api->mem_free(p->backend, p->arena);
    api->mem_free(p->backend, p->workspace);
    free(p->values);
    free(p);
}

struct operand plan_value(struct plan *p, enum dtype t, int n, int h, int w, int c)
{
    struct operand x = {.dtype = t, .n = n, .h = h, .w = w, .c = c, .ld = c};
    if (p->n_values == p->cap_values) {
        size_t cap = p->cap_values ? 2 * p->cap_values : 256;
        struct value *more = realloc(p->values, cap * sizeof *more);
        if (!more) {
            p->out_of_memory = true;
            return x;
        }
        p->values = more;
        p->cap_values = cap;
    }
    p->values[p->n_values++] = (struct value){
        .bytes = (size_t)n * (size_t)h * (size_t)w * (size_t)c * dtype_bytes(t), .first = INT_MAX, .last = -1};
    x.offset = p->n_values << HANDLE_SHIFT;
    return x;
}

struct operand plan_view(struct operand x, int first, int count)
{
    x.offset += (size_t)first * dtype_bytes(x.dtype);
    x.c = count;
    return x;
}

static struct value *value_of(const struct plan *p, struct operand x)
{
    return &p->values[(x.offset >> HANDLE_SHIFT) - 1];
}

void plan_keep(struct plan *p, struct operand x)
{
    if (!p->out_of_memory)
        value_of(p, x)->keep = true;
}

void plan_op(struct plan *p, int segment, const struct op_desc *desc)
{
    struct segment *seg = &p->segments[segment];
    if (seg->n == seg->cap) {
        int cap = seg->cap ? 2 * seg->cap : 128;
        struct op_desc *more = realloc(seg->descs, (size_t)cap * sizeof *more);
        if (!more) {
            p->out_of_memory = true;
            return;
        }
        seg->descs = more;
        seg->cap = cap;
    }
    seg->descs[seg->n++] = *desc;
}

/* op_operands lists the operands of D that are set. */
static int op_operands(struct op_desc *d, struct operand *ret[OPERANDS_MAX])
{
    struct operand *all[OPERANDS_MAX] = {&d->x, &d->y, &d->residual};
    int n = 3, used = 0;
    switch (d->kind) {
    case OP_CONV2D: all[n++] = &d->conv.add; break;
    case OP_ATTENTION: all[n++] = &d->attention.key; all[n++] = &d->attention.value; all[n++] = &d->attention.mask; break;
    case OP_BINARY: all[n++] = &d->binary.z; break;
    case OP_CONCAT: all[n++] = &d->concat.z; break;
    case OP_GUIDANCE: all[n++] = &d->guidance.coef; break;
    case OP_LATENT_RGB: all[n++] = &d->rgb.coef; all[n++] = &d->rgb.smooth; break;
    case OP_LINCOMB:
        all[n++] = &d->lincomb.coef;
        for (int i = 0; i < d->lincomb.count; i++)
            all[n++] = &d->lincomb.in[i];
        break;
    default: break;
    }
    for (int i = 0; i < n; i++)
        if (all[i]->w)
            ret[used++] = all[i];
    return used;
}

/* measure_lives notes for each value the first and last op that touches it, and keeps those that two segments touch. */
static int measure_lives(struct plan *p)
{
    int at = 0;
    for (int s = 0; s < PLAN_SEGMENTS; s++) {
        int begin = at;
        for (int i = 0; i < p->segments[s].n; i++, at++) {
            struct operand *o[OPERANDS_MAX];
            int n = op_operands(&p->segments[s].descs[i], o);
            for (int k = 0; k < n; k++) {
                struct value *v = value_of(p, *o[k]);
                if (v->first < begin)
                    v->keep = true;
                if (at < v->first)
                    v->first = at;
                v->last = at;
            }
        }
    }
    return at;
}

static enum status lay_out(struct plan *p, struct error *err)
{
    int n_ops = measure_lives(p);
    struct plan_interval *v = calloc(p->n_values + 1, sizeof *v);
    if (!v)
        return FAIL(err, OUT_OF_MEMORY, "out of memory laying out %zu values", p->n_values);
    for (size_t i = 0; i < p->n_values; i++) {
        const struct value *x = &p->values[i];
        v[i] = (struct plan_interval){.bytes = x->bytes, .first = x->keep ? 0 : x->first, .last = x->keep ? n_ops : x->last};
    }
    p->arena_bytes = plan_layout(v, p->n_values);
    for (size_t i = 0; i < p->n_values; i++)
        p->values[i].offset = v[i].offset;
    free(v);
    if (p->arena_bytes == SIZE_MAX)
        return FAIL(err, OUT_OF_MEMORY, "out of memory laying out %zu values", p->n_values);
    return ST_OK;
}

struct operand plan_operand(const struct plan *p, struct operand x)
{
    x.offset = value_of(p, x)->offset + (x.offset & (((size_t)1 << HANDLE_SHIFT) - 1));
    return x;
}

static bool go_on(const struct engine_hooks *hooks)
{
    return !hooks || !hooks->tick || hooks->tick(hooks->self);
}

static enum status make_ops(struct plan *p, struct segment *seg, const struct engine_hooks *hooks, struct error *err)
{
    struct backend *b = p->backend;
    seg->ops = calloc((size_t)seg->n + 1, sizeof(struct bop *));
    if (!seg->ops)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for %d ops", seg->n);
    for (int i = 0; i < seg->n; i++) {
        struct operand *o[OPERANDS_MAX];
        int n = op_operands(&seg->descs[i], o);
        for (int k = 0; k < n; k++)
            *o[k] = plan_operand(p, *o[k]);
        if (!go_on(hooks))
            return FAIL(err, CANCELED, "canceled");
        TRY(b->api->op_new(b, &seg->descs[i], &seg->ops[i], err));
        size_t need = b->api->op_workspace(seg->ops[i]);
        if (need > p->workspace_bytes)
            p->workspace_bytes = need;
    }
    return ST_OK;
}

void plan_ask_room(struct plan *p, const struct plan_room *room, size_t about)
{
    p->room = room;
    p->loads = about;
}

size_t plan_loaded(const struct plan *p)
{
    return p->loaded;
}

static size_t device_bytes(const struct plan *p)
{
    struct backend_memory now = {0};
    return p->room && p->backend->api->memory(p->backend, &now, NULL) == ST_OK ? now.used_bytes : 0;
}

static enum status make_segments(struct plan *p, const struct engine_hooks *hooks, struct error *err)
{
    size_t before = device_bytes(p);
    enum status st = ST_OK;
    for (int s = 0; s < PLAN_SEGMENTS && st == ST_OK; s++)
        st = make_ops(p, &p->segments[s], hooks, err);
    size_t after = device_bytes(p);
    p->loaded = after > before ? after - before : 0;
    return st;
}

static enum status have_room(const struct plan *p, size_t bytes, struct error *err)
{
    return p->room && bytes ? p->room->make(p->room->self, bytes, err) : ST_OK;
}

enum status plan_finish(struct plan *p, const struct engine_hooks *hooks, struct error *err)
{
    struct backend *b = p->backend;
    if (p->out_of_memory)
        return FAIL(err, OUT_OF_MEMORY, "out of memory building a plan");
    TRY(lay_out(p, err));
    TRY(have_room(p, p->arena_bytes + p->loads, err));
    TRY(b->api->mem_new(b, p->arena_bytes ? p->arena_bytes : 64, &p->arena, err));
    TRY(make_segments(p, hooks, err));
    TRY(have_room(p, p->workspace_bytes, err));
    if (p->workspace_bytes)
        TRY(b->api->mem_new(b, p->workspace_bytes, &p->workspace, err));
    for (int s = 0; s < PLAN_SEGMENTS && b->api->sequence_new; s++) {
        struct segment *seg = &p->segments[s];
        if (seg->n)
            TRY(b->api->sequence_new(b, seg->ops, seg->n, p->arena, p->workspace, &seg->sequence, err));
    }
    for (int s = 0; s < PLAN_SEGMENTS; s++) {
        free(p->segments[s].descs);
        p->segments[s].descs = NULL;
    }
    p->finished = true;
    return ST_OK;
}

struct bmem *plan_arena(const struct plan *p)
{
    return p->arena;
}

size_t plan_bytes(const struct plan *p)
{
    return p->arena_bytes + p->workspace_bytes;
}

enum status plan_run(struct plan *p, int segment, const struct engine_hooks *hooks, struct error *err)
{
    struct backend *b = p->backend;
    struct segment *seg = &p->segments[segment];
    if (!p->finished)
        return FAIL(err, INTERNAL, "an unfinished plan was run");
    if (seg->sequence) {
        if (!go_on(hooks))
            return FAIL(err, CANCELED, "canceled");
        return b->api->sequence_run(b, seg->sequence, err);
    }
    for (int i = 0; i < seg->n; i++) {
        if (!go_on(hooks))
            return FAIL(err, CANCELED, "canceled");
        TRY(b->api->op_run(b, seg->ops[i], p->arena, p->workspace, err));
    }
    return ST_OK;
}
