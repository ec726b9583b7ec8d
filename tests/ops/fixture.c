#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ops/ops.h"
#include "worker/backend/half.h"

static uint64_t seed_of(const char *name)
{
    uint64_t h = 1469598103934665603u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h | 1;
}

/* uniform returns the next number of xorshift64* in [-1, 1). */
static float uniform(uint64_t *s)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return (float)((int64_t)(*s * 2685821657736338717u) >> 40) * 0x1p-23f;
}

static void set(void *base, enum dtype t, size_t i, float v)
{
    switch (t) {
    case DT_F32: ((float *)base)[i] = v; break;
    case DT_F16: ((uint16_t *)base)[i] = float_to_half(v); break;
    case DT_BF16: ((uint16_t *)base)[i] = float_to_bf16(v); break;
    case DT_U8: ((unsigned char *)base)[i] = (unsigned char)(128 + 127 * v); break;
    case DT_I32: ((int32_t *)base)[i] = (int32_t)(40 * v); break;
    case DT_COUNT: break;
    }
}

static void place(struct operand *o, size_t *end)
{
    if (!operand_set(o))
        return;
    o->offset = *end;
    *end = (operand_end(o) + 63) / 64 * 64 + 64; /* a gap, to see writes past the end */
}

static int operands_of(struct op_desc *d, struct operand **ret)
{
    int n = 0;
    if (d->kind != OP_LINCOMB)
        ret[n++] = &d->x;
    ret[n++] = &d->y;
    switch (d->kind) {
    case OP_CONV2D:
        ret[n++] = &d->residual;
        ret[n++] = &d->conv.add;
        break;
    case OP_LINEAR: ret[n++] = &d->residual; break;
    case OP_ATTENTION:
        ret[n++] = &d->attention.key;
        ret[n++] = &d->attention.value;
        ret[n++] = &d->attention.mask;
        break;
    case OP_BINARY: ret[n++] = &d->binary.z; break;
    case OP_CONCAT: ret[n++] = &d->concat.z; break;
    case OP_GUIDANCE: ret[n++] = &d->guidance.coef; break;
    case OP_LATENT_RGB:
        ret[n++] = &d->rgb.coef;
        ret[n++] = &d->rgb.smooth;
        break;
    case OP_LINCOMB:
        ret[n++] = &d->lincomb.coef;
        for (int k = 0; k < d->lincomb.count; k++)
            ret[n++] = &d->lincomb.in[k];
        break;
    default: break;
    }
    return n;
}

static void fill_operand(unsigned char *arena, const struct operand *o, float scale, float shift, uint64_t *s)
{
    if (!operand_set(o))
        return;
    size_t n = (operand_end(o) - o->offset) / dtype_bytes(o->dtype);
    for (size_t i = 0; i < n; i++)
        set(arena + o->offset, o->dtype, i, scale * uniform(s) + shift);
}

/* fill_special gives the operands whose values mean something what they need. */
static void fill_special(unsigned char *arena, struct op_desc *d, uint64_t *s)
{
    if (d->kind == OP_TIME_EMBED)
        fill_operand(arena, &d->x, 500, 500, s);
    if (d->kind == OP_ATTENTION && operand_set(&d->attention.mask)) {
        float *m = (float *)(void *)(arena + d->attention.mask.offset);
        for (int64_t i = 0; i < operand_pixels(&d->attention.mask); i++)
            if (i % 3 == 1)
                m[i] = i % 2 ? -INFINITY : -10000;
    }
    if (d->kind == OP_GUIDANCE) {
        float coef[2] = {7.5f, (float)(d->x.h % 2) * 0.7f};
        memcpy(arena + d->guidance.coef.offset, coef, sizeof coef);
    }
}

static void lay_weight(struct weight_source *s, void **data, float scale, float shift, uint64_t *seed)
{
    size_t n = 1;
    for (int i = 0; i < s->ndim; i++)
        n *= (size_t)s->shape[i];
    *data = malloc(n * dtype_bytes(s->dtype) + 64);
    if (!*data)
        abort();
    for (size_t i = 0; i < n; i++)
        set(*data, s->dtype, i, scale * uniform(seed) + shift);
    s->data = *data;
}

void trial_lay(const struct trial *t, struct laid *ret)
{
    struct operand *all[16];
    uint64_t seed = seed_of(t->name);
    *ret = (struct laid){.desc = t->desc, .sources = {t->weight, t->bias, t->position}};
    struct op_desc *d = &ret->desc;
    int n = operands_of(d, all);
    size_t end = 64;
    for (int i = 0; i < n; i++) {
        place(all[i], &end);
        if (t->fused_views && all[i] == &d->x)    /* key and value lie behind the queries of the last token */
            end += 2 * (size_t)d->x.c * dtype_bytes(d->x.dtype);
    }
    if (t->alias_y && d->kind == OP_LINCOMB)
        d->lincomb.in[0] = d->y;
    else if (t->alias_y)
        d->residual = d->y;
    if (t->fused_views) {
        d->attention.key.offset = d->x.offset + (size_t)d->x.c * dtype_bytes(d->x.dtype);
        d->attention.value.offset = d->x.offset + 2 * (size_t)d->x.c * dtype_bytes(d->x.dtype);
    }
    ret->bytes = end;
    ret->arena = calloc(1, end);
    if (!ret->arena)
        abort();
    memset(ret->arena, 0xa5, end);
    for (int i = 0; i < n; i++)
        fill_operand(ret->arena, all[i], d->kind == OP_GROUP_NORM || d->kind == OP_LAYER_NORM ? 2 : 1, d->kind == OP_GROUP_NORM ? 3 : 0,
                     &seed);
    fill_special(ret->arena, d, &seed);
    bool norm = d->kind == OP_GROUP_NORM || d->kind == OP_LAYER_NORM;
    double fan = 1;
    for (int i = 1; i < t->weight.ndim; i++)
        fan *= (double)t->weight.shape[i];
    for (int i = 0; i < 3; i++)
        if (ret->sources[i].ndim)
            lay_weight(&ret->sources[i], &ret->weights[i], i == 0 && !norm ? (float)(1.7 / sqrt(fan)) : 0.5f, i == 0 && norm ? 1 : 0,
                       &seed);
}

void trial_free(struct laid *l)
{
    free(l->arena);
    for (int i = 0; i < 3; i++)
        free(l->weights[i]);
    *l = (struct laid){0};
}

enum status rig_open(struct rig *r, struct backend *b, const struct laid *l, struct error *err)
{
    *r = (struct rig){.backend = b};
    struct op_desc d = l->desc;
    for (int i = 0; i < 3; i++)
        if (l->sources[i].ndim)
            TRY(b->api->weight_new(b, &l->sources[i], &r->weights[i], err));
    d.weight = r->weights[0];
    d.bias = r->weights[1];
    if (d.kind == OP_EMBED)
        d.embed.position = r->weights[2];
    TRY(b->api->op_new(b, &d, &r->op, err));
    TRY(b->api->mem_new(b, l->bytes, &r->arena, err));
    size_t need = b->api->op_workspace(r->op);
    if (need)
        TRY(b->api->mem_new(b, need, &r->workspace, err));
    return b->api->upload(b, r->arena, 0, l->arena, l->bytes, err);
}

enum status rig_run(struct rig *r, struct error *err)
{
    TRY(r->backend->api->op_run(r->backend, r->op, r->arena, r->workspace, err));
    return r->backend->api->sync(r->backend, err);
}

void rig_close(struct rig *r)
{
    const struct backend_api *api = r->backend->api;
    api->op_free(r->backend, r->op);
    for (int i = 0; i < 3; i++)
        api->weight_free(r->backend, r->weights[i]);
    api->mem_free(r->backend, r->arena);
    api->mem_free(r->backend, r->workspace);
}
