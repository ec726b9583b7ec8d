/* The shapes. Odd sizes on purpose: channels that are no multiple of a vector, single pixels, views of wider buffers. */
#include <stdarg.h>
#include <stdio.h>

#include "tests/ops/ops.h"

struct out { enum dtype t; visit_fn *visit; void *arg; };

static struct operand operand(enum dtype t, int n, int h, int w, int c, int extra)
{
    return (struct operand){.dtype = t, .n = n, .h = h, .w = w, .c = c, .ld = c + extra};
}

static struct weight_source matrix(enum dtype t, int64_t a, int64_t b)
{
    return (struct weight_source){.dtype = t, .ndim = b ? 2 : 1, .shape = {a, b}};
}

PRINTF_LIKE(3, 4) static void emit(const struct out *o, struct trial *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = snprintf(t->name, sizeof t->name, "%s %s ", op_name(t->desc.kind), dtype_name(o->t));
    vsnprintf(t->name + n, sizeof t->name - (size_t)n, fmt, ap);
    va_end(ap);
    o->visit(o->arg, t);
}

enum { ADD_ONE = 1, ADD_EACH = 2, RESIDUAL = 4, IN_PLACE = 8, NO_BIAS = 16, F16_WEIGHT = 32, BF16_WEIGHT = 64, ACT_SHIFT = 8 };
#define ACT(x) ((x) << ACT_SHIFT)

static enum dtype weight_dtype(int flags) { return flags & F16_WEIGHT ? DT_F16 : flags & BF16_WEIGHT ? DT_BF16 : DT_F32; }

struct conv { int n, h, w, cin, cout, k, stride, pad[4], x_extra, y_extra, flags; };

static void conv(const struct out *o, const struct conv *c)
{
    int oh = (c->h + c->pad[0] + c->pad[2] - c->k) / c->stride + 1, ow = (c->w + c->pad[1] + c->pad[3] - c->k) / c->stride + 1;
    struct trial t = {.desc = {.kind = OP_CONV2D, .act = (enum act)(c->flags >> ACT_SHIFT)}};
    enum dtype w = weight_dtype(c->flags);
    t.desc.x = operand(o->t, c->n, c->h, c->w, c->cin, c->x_extra);
    t.desc.y = operand(o->t, c->n, oh, ow, c->cout, c->y_extra);
    t.weight = (struct weight_source){.dtype = w, .ndim = 4, .shape = {c->cout, c->cin, c->k, c->k}};
    if (!(c->flags & NO_BIAS))
        t.bias = matrix(w, c->cout, 0);
    t.desc.conv.stride = c->stride;
    t.desc.conv.pad_top = c->pad[0];
    t.desc.conv.pad_left = c->pad[1];
    t.desc.conv.pad_bottom = c->pad[2];
    t.desc.conv.pad_right = c->pad[3];
    if (c->flags & (ADD_ONE | ADD_EACH))
        t.desc.conv.add = operand(o->t, 1, 1, c->flags & ADD_EACH ? c->n : 1, c->cout, 16);
    if (c->flags & RESIDUAL)
        t.desc.residual = operand(o->t, c->n, oh, ow, c->cout, 3);
    t.alias_y = c->flags & IN_PLACE;
    t.flops = 2.0 * c->n * oh * ow * c->cout * c->cin * c->k * c->k;
    emit(o, &t, "%dx%dx%dx%d -> %d k%d s%d p%d%d%d%d ld+%d,%d flags %x", c->n, c->h, c->w, c->cin, c->cout, c->k, c->stride, c->pad[0], c->pad[1],
         c->pad[2], c->pad[3], c->x_extra, c->y_extra, (unsigned)c->flags);
}

struct linear { int rows, in, out, x_extra, y_extra, geglu, flags; };

static void linear(const struct out *o, const struct linear *l)
{
    struct trial t = {.desc = {.kind = OP_LINEAR, .act = (enum act)(l->flags >> ACT_SHIFT)}};
    enum dtype w = weight_dtype(l->flags);
    int n = l->rows % 2 == 0 && l->rows > 2 ? 2 : 1, rows = l->geglu ? 2 * l->out : l->out;
    t.desc.x = operand(o->t, n, 1, l->rows / n, l->in, l->x_extra);
    t.desc.y = operand(o->t, n, 1, l->rows / n, l->out, l->y_extra);
    t.weight = l->rows % 5 == 0 ? (struct weight_source){.dtype = w, .ndim = 4, .shape = {rows, l->in, 1, 1}} : matrix(w, rows, l->in);
    if (!(l->flags & NO_BIAS))
        t.bias = matrix(w, rows, 0);
    t.desc.linear.geglu = l->geglu;
    if (l->flags & RESIDUAL)
        t.desc.residual = operand(o->t, n, 1, l->rows / n, l->out, 5);
    t.alias_y = l->flags & IN_PLACE;
    t.flops = 2.0 * l->rows * l->in * rows;
    emit(o, &t, "%dx%d -> %d%s ld+%d,%d flags %x", l->rows, l->in, l->out, l->geglu ? " geglu" : "", l->x_extra, l->y_extra, (unsigned)l->flags);
}

struct attention { int n, tq, tk, heads, dim, causal, mask, views; };

static void attention(const struct out *o, const struct attention *a)
{
    struct trial t = {.desc = {.kind = OP_ATTENTION}};
    int c = a->heads * a->dim, extra = a->views ? 2 * c : 0;
    t.desc.x = operand(o->t, a->n, 1, a->tq, c, extra);
    t.desc.y = operand(o->t, a->n, 1, a->tq, c, a->views ? 7 : 0);
    t.desc.attention.key = operand(o->t, a->n, 1, a->tk, c, extra);
    t.desc.attention.value = operand(o->t, a->n, 1, a->tk, c, extra);
    if (a->mask)
        t.desc.attention.mask = operand(DT_F32, a->n, 1, a->tk, 1, 0);
    t.desc.attention.heads = a->heads;
    t.desc.attention.scale = 4.0f / (float)a->dim;
    t.desc.attention.causal = a->causal;
    t.fused_views = a->views && a->tq == a->tk && (size_t)c * dtype_bytes(o->t) % 64 == 0;
    t.flops = 4.0 * a->n * a->heads * a->tq * a->tk * a->dim;
    emit(o, &t, "n%d %dx%d %d heads of %d%s%s%s", a->n, a->tq, a->tk, a->heads, a->dim, a->causal ? " causal" : "", a->mask ? " mask" : "",
         a->views ? " views" : "");
}

struct norm { int n, h, w, c, groups, extra, act; };

static void group_norm(const struct out *o, const struct norm *g)
{
    struct trial t = {.desc = {.kind = OP_GROUP_NORM, .act = (enum act)g->act}};
    t.desc.x = operand(o->t, g->n, g->h, g->w, g->c, g->extra);
    t.desc.y = operand(o->t, g->n, g->h, g->w, g->c, 2 * g->extra);
    t.weight = t.bias = matrix(g->c % 3 ? DT_F32 : DT_F16, g->c, 0);
    t.desc.norm.groups = g->groups;
    t.desc.norm.eps = 1e-6f;
    t.bytes = 2.0 * g->n * g->h * g->w * g->c * (double)dtype_bytes(o->t);
    emit(o, &t, "%dx%dx%dx%d groups %d ld+%d act %d", g->n, g->h, g->w, g->c, g->groups, g->extra, g->act);
}

static void layer_norm(const struct out *o, int rows, int c, int extra)
{
    struct trial t = {.desc = {.kind = OP_LAYER_NORM}};
    t.desc.x = operand(o->t, 1, 1, rows, c, extra);
    t.desc.y = operand(o->t, 1, 1, rows, c, 2 * extra);
    t.weight = matrix(DT_F16, c, 0);
    if (rows % 2)
        t.bias = matrix(DT_F32, c, 0);
    t.desc.norm.eps = 1e-5f;
    t.bytes = 2.0 * rows * c * (double)dtype_bytes(o->t);
    emit(o, &t, "%dx%d ld+%d", rows, c, extra);
}

static void unary(const struct out *o, int n, int h, int w, int c, int extra, int act)
{
    struct trial t = {.desc = {.kind = OP_UNARY, .act = (enum act)act}};
    t.desc.x = operand(o->t, n, h, w, c, extra);
    t.desc.y = operand(o->t, n, h, w, c, extra / 2);
    t.bytes = 2.0 * n * h * w * c * (double)dtype_bytes(o->t);
    emit(o, &t, "%dx%dx%dx%d ld+%d act %d", n, h, w, c, extra, act);
}

static void binary(const struct out *o, int n, int h, int w, int c, int extra, int fn, int repeat, int broadcast)
{
    struct trial t = {.desc = {.kind = OP_BINARY}};
    t.desc.x = operand(o->t, n, h, w, c, extra);
    t.desc.y = operand(o->t, n, h, w, c, 0);
    t.desc.binary.z = operand(o->t, repeat ? 1 : n, broadcast ? 1 : h, broadcast ? 1 : w, c, extra);
    t.desc.binary.fn = (enum binary_fn)fn;
    t.bytes = 3.0 * n * h * w * c * (double)dtype_bytes(o->t);
    emit(o, &t, "%dx%dx%dx%d ld+%d fn %d%s%s", n, h, w, c, extra, fn, repeat ? " repeat" : "", broadcast ? " broadcast" : "");
}

static void upsample(const struct out *o, int n, int h, int w, int c, int extra, int less)
{
    struct trial t = {.desc = {.kind = OP_UPSAMPLE}};
    t.desc.x = operand(o->t, n, h, w, c, extra);
    t.desc.y = operand(o->t, n, 2 * h - less, 2 * w - less, c, extra / 2);
    t.bytes = 5.0 * n * h * w * c * (double)dtype_bytes(o->t);
    emit(o, &t, "%dx%dx%dx%d ld+%d -%d", n, h, w, c, extra, less);
}

static void concat(const struct out *o, int n, int h, int w, int c, int c2, int extra)
{
    struct trial t = {.desc = {.kind = OP_CONCAT}};
    t.desc.x = operand(o->t, n, h, w, c, extra);
    t.desc.y = operand(o->t, n, h, w, c + c2, extra / 3);
    t.desc.concat.z = operand(o->t, n, h, w, c2, extra / 2);
    t.bytes = 2.0 * n * h * w * (c + c2) * (double)dtype_bytes(o->t);
    emit(o, &t, "%dx%dx%dx%d+%d ld+%d", n, h, w, c, c2, extra);
}

static void casts(const struct out *o)
{
    for (int to = DT_F32; to <= DT_BF16; to++)
        for (int size = 0; size < 3; size++) {
            struct trial t = {.desc = {.kind = OP_CAST}};
            t.desc.x = operand(o->t, 1 + size, 3, 5, size == 1 ? 1301 : 7 + size, size);
            t.desc.y = operand((enum dtype)to, 1 + size, 3, 5, size == 1 ? 1301 : 7 + size, 2 * size);
            emit(o, &t, "to %s size %d", dtype_name((enum dtype)to), size);
        }
}

static void embed(const struct out *o, int n, int tokens, int c, bool position)
{
    struct trial t = {.desc = {.kind = OP_EMBED}};
    t.desc.x = operand(DT_I32, n, 1, tokens, 1, 0);
    t.desc.y = operand(o->t, n, 1, tokens, c, 0);
    t.weight = matrix(DT_F16, 31, c);                   /* ids reach from -40 to 40: both ends outside the table */
    if (position)
        t.position = matrix(DT_F32, tokens + 3, c);
    emit(o, &t, "n%d %d tokens of %d%s", n, tokens, c, position ? " position" : "");
}

static void time_embed(const struct out *o, int rows, int c)
{
    struct trial t = {.desc = {.kind = OP_TIME_EMBED}};
    t.desc.x = operand(DT_F32, 1, 1, rows, 1, 0);
    t.desc.y = operand(o->t, 1, 1, rows, c, 0);
    emit(o, &t, "%dx%d", rows, c);
}

static void lincomb(const struct out *o, int count, int n, int h, int w, int c, int extra, bool repeat, bool in_place)
{
    struct trial t = {.desc = {.kind = OP_LINCOMB}};
    t.desc.y = operand(o->t, n, h, w, c, extra);
    t.desc.lincomb.count = count;
    t.desc.lincomb.coef = operand(DT_F32, 1, 1, count, 1, 0);
    for (int k = 0; k < count; k++)
        t.desc.lincomb.in[k] = operand(o->t, repeat && k % 2 ? 1 : n, h, w, c, k == 0 && in_place ? extra : 0);
    t.alias_y = in_place;
    t.bytes = (1.0 + count) * n * h * w * c * (double)dtype_bytes(o->t);
    emit(o, &t, "%d of %dx%dx%dx%d ld+%d%s%s", count, n, h, w, c, extra, repeat ? " repeat" : "", in_place ? " in place" : "");
}

static void guidance(const struct out *o, int h, int w, int c)
{
    struct trial t = {.desc = {.kind = OP_GUIDANCE}};
    t.desc.x = operand(o->t, 2, h, w, c, 0);
    t.desc.y = operand(o->t, 1, h, w, c, 4);
    t.desc.guidance.coef = operand(DT_F32, 1, 1, 2, 1, 0);
    emit(o, &t, "%dx%dx%d", h, w, c);                   /* rescale where h is odd: see fill_special */
}

static void pack_u8(const struct out *o, int n, int h, int w, int c, int extra)
{
    struct trial t = {.desc = {.kind = OP_PACK_U8}};
    t.desc.x = operand(o->t, n, h, w, c, extra);
    t.desc.y = operand(DT_U8, n, h, w, c, 0);
    t.bytes = 5.0 * n * h * w * c;
    emit(o, &t, "%dx%dx%dx%d ld+%d", n, h, w, c, extra);
}

static void latent_rgb(const struct out *o, int h, int w, int c, bool smooth)
{
    struct trial t = {.desc = {.kind = OP_LATENT_RGB}};
    t.desc.x = operand(o->t, 1, h, w, c, 0);
    t.desc.y = operand(DT_U8, 1, h, w, 3, 0);
    t.desc.rgb.coef = operand(DT_F32, 1, 1, c, 3, 0);
    if (smooth)
        t.desc.rgb.smooth = operand(DT_F32, 1, 3, 3, 1, 0);
    emit(o, &t, "%dx%dx%d%s", h, w, c, smooth ? " smooth" : "");
}

#define EACH(list, call) for (size_t i_ = 0; i_ < sizeof list / sizeof *list; i_++) call(o, &list[i_])

static void small_dense(const struct out *o)
{
    static const struct conv convs[] = {
        {1, 1, 1, 1, 1, 1, 1, {0, 0, 0, 0}, 0, 0, 0},
        {1, 1, 1, 5, 7, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
        {2, 5, 7, 4, 96, 3, 1, {1, 1, 1, 1}, 0, 0, F16_WEIGHT},
        {2, 6, 5, 96, 4, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
        {1, 9, 8, 33, 3, 3, 1, {1, 1, 1, 1}, 0, 0, BF16_WEIGHT},
        {3, 4, 4, 40, 24, 3, 1, {1, 1, 1, 1}, 0, 0, ADD_EACH | ACT(FN_SILU)},
        {2, 8, 8, 17, 19, 3, 1, {1, 1, 1, 1}, 3, 5, ADD_ONE | RESIDUAL},
        {2, 8, 8, 32, 32, 3, 1, {1, 1, 1, 1}, 16, 16, IN_PLACE | ADD_EACH | ACT(FN_SILU)},
        {1, 16, 16, 64, 64, 3, 1, {1, 1, 1, 1}, 0, 0, IN_PLACE},
        {2, 9, 9, 16, 32, 3, 2, {1, 1, 1, 1}, 0, 0, 0},
        {1, 8, 8, 16, 20, 3, 2, {0, 0, 1, 1}, 0, 0, F16_WEIGHT},
        {1, 7, 9, 8, 8, 3, 2, {0, 1, 1, 0}, 4, 0, NO_BIAS},
        {2, 4, 5, 24, 48, 1, 1, {0, 0, 0, 0}, 0, 0, RESIDUAL | ACT(FN_GELU)},
        {1, 11, 3, 6, 9, 5, 1, {2, 2, 2, 2}, 0, 0, ACT(FN_QUICK_GELU)},
        {1, 10, 10, 3, 8, 7, 3, {3, 2, 1, 0}, 0, 0, 0},
        {1, 20, 21, 5, 65, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
        {2, 4, 4, 320, 160, 3, 1, {1, 1, 1, 1}, 0, 0, F16_WEIGHT},
        {1, 3, 3, 2100, 16, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
        {1, 32, 32, 32, 3, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
        {2, 7, 9, 40, 33, 3, 1, {1, 1, 1, 1}, 2, 1, ADD_EACH | RESIDUAL | ACT(FN_GELU)},
        {1, 5, 1, 32, 64, 3, 1, {1, 1, 1, 1}, 0, 0, NO_BIAS},
        {3, 1, 6, 29, 31, 3, 1, {1, 1, 1, 1}, 0, 0, ADD_ONE | ACT(FN_SILU)},
        {1, 12, 10, 24, 24, 3, 1, {0, 0, 0, 0}, 0, 0, 0},
        {1, 6, 8, 48, 32, 3, 1, {2, 0, 1, 3}, 0, 0, BF16_WEIGHT},
        {2, 33, 35, 64, 48, 3, 1, {1, 1, 1, 1}, 0, 16, IN_PLACE | ADD_EACH},
        {1, 100, 90, 24, 40, 3, 1, {1, 1, 1, 1}, 0, 0, F16_WEIGHT},
        {1, 6, 6, 300, 700, 3, 1, {1, 1, 1, 1}, 0, 0, F16_WEIGHT},
    };
    static const struct linear linears[] = {
        {1, 1, 1, 0, 0, 0, 0}, {1, 320, 1280, 0, 0, 0, ACT(FN_SILU)}, {2, 7, 5, 0, 0, 0, NO_BIAS}, {3, 96, 17, 0, 0, 0, F16_WEIGHT},
        {7, 40, 31, 8, 1, 0, RESIDUAL}, {77, 64, 96, 0, 0, 0, ACT(FN_QUICK_GELU) | F16_WEIGHT}, {154, 768, 96, 0, 96, 0, BF16_WEIGHT},
        {128, 128, 128, 0, 0, 0, IN_PLACE}, {65, 80, 320, 240, 0, 0, IN_PLACE | ACT(FN_GELU)}, {512, 96, 288, 0, 0, 0, NO_BIAS},
        {130, 100, 33, 0, 0, 1, 0}, {64, 96, 384, 0, 0, 1, F16_WEIGHT}, {5, 24, 4, 4, 4, 1, NO_BIAS | F16_WEIGHT}, {1000, 24, 40, 0, 0, 0, 0}, {13, 5120, 20, 0, 0, 0, 0},
    };
    static const struct attention attentions[] = {
        {1, 1, 1, 1, 8, 0, 0, 0}, {2, 16, 16, 4, 24, 0, 0, 0}, {2, 64, 64, 4, 32, 0, 0, 1}, {2, 256, 256, 4, 24, 0, 0, 1}, {2, 256, 77, 4, 24, 0, 0, 0},
        {3, 50, 77, 8, 40, 0, 0, 0}, {1, 77, 77, 12, 64, 1, 0, 1}, {2, 77, 77, 2, 64, 1, 1, 0}, {1, 33, 300, 2, 80, 0, 1, 0}, {1, 20, 600, 1, 160, 0, 1, 0},
        {1, 49, 530, 1, 512, 0, 0, 0}, {1, 300, 300, 2, 8, 1, 0, 0}, {1, 5, 9, 3, 7, 0, 0, 1}, {2, 100, 257, 1, 33, 0, 0, 0}, {1, 700, 700, 1, 5, 1, 0, 0},
    };
    EACH(convs, conv);
    EACH(linears, linear);
    EACH(attentions, attention);
}

static void small_rest(const struct out *o)
{
    static const struct norm norms[] = {
        {1, 1, 1, 32, 8, 0, FN_NONE}, {2, 16, 16, 96, 32, 0, FN_SILU}, {1, 5, 5, 33, 3, 7, FN_SILU}, {3, 8, 8, 40, 1, 0, FN_NONE}, {2, 4, 4, 320, 32, 0, FN_SILU},
        {1, 65, 67, 12, 4, 4, FN_GELU}, {2, 70, 70, 32, 32, 0, FN_SILU}, {1, 1, 300, 17, 17, 0, FN_QUICK_GELU},
    };
    EACH(norms, group_norm);
    layer_norm(o, 1, 1, 0), layer_norm(o, 77, 768, 0), layer_norm(o, 128, 96, 16), layer_norm(o, 33, 41, 3), layer_norm(o, 500, 320, 0);
    for (int act = FN_NONE; act <= FN_QUICK_GELU; act++)
        unary(o, 1, 3, 5, 7, 0, act), unary(o, 2, 8, 9, 33, 6, act), unary(o, 2, 32, 32, 64, 0, act);
    for (int fn = BINARY_ADD; fn <= BINARY_MUL; fn++)
        for (int k = 0; k < 4; k++)
            binary(o, 3, 4, 5, 19, k, fn, k & 1, k & 2), binary(o, 2, 16, 17, 64, 0, fn, k & 1, k & 2);
    upsample(o, 1, 1, 1, 3, 0, 0), upsample(o, 2, 4, 5, 33, 8, 0), upsample(o, 2, 5, 5, 16, 0, 1), upsample(o, 1, 32, 32, 32, 0, 0);
    concat(o, 1, 1, 1, 1, 1, 0), concat(o, 2, 4, 4, 160, 128, 0), concat(o, 2, 5, 3, 7, 9, 6), concat(o, 1, 32, 32, 64, 32, 0);
    casts(o);
    embed(o, 2, 77, 40, true), embed(o, 1, 9, 770, true), embed(o, 3, 5, 8, false);
    time_embed(o, 20, 96), time_embed(o, 1, 2), time_embed(o, 7, 320);
    for (int count = 1; count <= 8; count++)
        lincomb(o, count, 2, 5, 3, 4, 0, count % 2, count > 4);
    lincomb(o, 3, 2, 64, 64, 16, 0, false, true), lincomb(o, 2, 4, 3, 3, 5, 3, true, true);
    guidance(o, 16, 16, 4), guidance(o, 17, 16, 4), guidance(o, 1, 3, 5);
    pack_u8(o, 1, 16, 16, 3, 0), pack_u8(o, 2, 3, 5, 3, 4), pack_u8(o, 1, 200, 200, 3, 0);
    latent_rgb(o, 16, 16, 4, false), latent_rgb(o, 9, 7, 4, true), latent_rgb(o, 3, 3, 16, true);
}

static void big(const struct out *o)
{
    static const struct conv convs[] = {
        {1, 64, 64, 320, 320, 3, 1, {1, 1, 1, 1}, 0, 0, ADD_EACH | F16_WEIGHT}, {2, 16, 16, 1280, 1280, 3, 1, {1, 1, 1, 1}, 0, 0, IN_PLACE | F16_WEIGHT},
        {2, 8, 8, 2560, 1280, 3, 1, {1, 1, 1, 1}, 0, 0, F16_WEIGHT}, {1, 32, 32, 640, 640, 3, 2, {1, 1, 1, 1}, 0, 0, F16_WEIGHT},
        {1, 64, 64, 4, 320, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 64, 64, 320, 4, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 64, 64, 512, 512, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
        {1, 128, 128, 128, 128, 3, 2, {0, 0, 1, 1}, 0, 0, 0}, {1, 256, 256, 128, 3, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 96, 96, 320, 320, 1, 1, {0, 0, 0, 0}, 0, 0, 0},
    };
    static const struct linear linears[] = {
        {4096, 320, 320, 0, 0, 0, IN_PLACE}, {1024, 640, 2560, 0, 0, 1, F16_WEIGHT}, {256, 5120, 1280, 0, 0, 0, RESIDUAL}, {154, 2048, 1280, 0, 0, 0, NO_BIAS},
        {77, 1280, 5120, 0, 0, 0, ACT(FN_GELU)}, {2, 2816, 1280, 0, 0, 0, ACT(FN_SILU)}, {2304, 1280, 1280, 0, 0, 0, 0},
    };
    static const struct attention attentions[] = {
        {1, 4096, 4096, 1, 40, 0, 0, 0}, {1, 1024, 1024, 4, 80, 0, 0, 1}, {2, 256, 256, 8, 160, 0, 0, 0}, {2, 4096, 77, 8, 40, 0, 0, 0},
        {1, 4096, 4096, 1, 64, 0, 0, 0}, {1, 1024, 1024, 1, 512, 0, 0, 0}, {2, 77, 77, 20, 64, 1, 0, 0},
    };
    static const struct norm norms[] = {{2, 64, 64, 320, 32, 0, FN_SILU}, {2, 8, 8, 2560, 32, 0, FN_SILU}, {1, 256, 256, 128, 32, 0, FN_SILU}, {1, 64, 64, 512, 32, 0, FN_NONE}};
    EACH(convs, conv);
    EACH(linears, linear);
    EACH(attentions, attention);
    EACH(norms, group_norm);
    layer_norm(o, 4096, 320, 0), layer_norm(o, 1024, 1280, 0);
    upsample(o, 2, 32, 32, 640, 0, 0);
    concat(o, 2, 32, 32, 640, 320, 0);
}

void trials_visit(enum dtype t, bool with_big, visit_fn *visit, void *arg)
{
    struct out o = {t, visit, arg};
    small_dense(&o);
    small_rest(&o);
    if (with_big)
        big(&o);
}

static void bench_emoji(const struct out *o)
{
    static const struct conv convs[] = {
        {2, 16, 16, 4, 96, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {2, 16, 16, 96, 96, 3, 1, {1, 1, 1, 1}, 0, 0, ADD_EACH}, {2, 8, 8, 128, 128, 3, 1, {1, 1, 1, 1}, 0, 0, IN_PLACE},
        {2, 4, 4, 160, 160, 3, 1, {1, 1, 1, 1}, 0, 0, IN_PLACE}, {2, 4, 4, 320, 160, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {2, 16, 16, 96, 96, 3, 2, {1, 1, 1, 1}, 0, 0, 0},
        {2, 16, 16, 96, 4, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 16, 16, 96, 96, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 32, 32, 96, 96, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
        {1, 64, 64, 64, 64, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 128, 128, 32, 32, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 128, 128, 32, 3, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
    };
    static const struct linear linears[] = {
        {512, 96, 96, 0, 0, 0, IN_PLACE}, {512, 96, 288, 0, 0, 0, NO_BIAS}, {512, 96, 384, 0, 0, 1, 0}, {128, 128, 512, 0, 0, 1, 0}, {128, 512, 128, 0, 0, 0, IN_PLACE},
        {154, 768, 96, 0, 0, 0, NO_BIAS}, {32, 160, 160, 0, 0, 0, 0}, {77, 768, 3072, 0, 0, 0, ACT(FN_QUICK_GELU)}, {20, 96, 384, 0, 0, 0, ACT(FN_SILU)},
    };
    static const struct attention attentions[] = {{2, 256, 256, 4, 24, 0, 0, 1}, {2, 256, 77, 4, 24, 0, 0, 0}, {2, 64, 64, 4, 32, 0, 0, 1}, {1, 256, 256, 1, 96, 0, 0, 0}};
    static const struct norm norms[] = {{2, 16, 16, 96, 32, 0, FN_SILU}, {2, 4, 4, 320, 32, 0, FN_SILU}, {1, 128, 128, 32, 32, 0, FN_SILU}};
    EACH(convs, conv);
    EACH(linears, linear);
    EACH(attentions, attention);
    EACH(norms, group_norm);
    layer_norm(o, 512, 96, 0);
}

static void bench_sd15(const struct out *o)
{
    static const struct conv convs[] = {
        {2, 64, 64, 320, 320, 3, 1, {1, 1, 1, 1}, 0, 0, ADD_EACH}, {2, 64, 64, 960, 320, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {2, 32, 32, 640, 640, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
        {2, 16, 16, 1280, 1280, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {2, 8, 8, 1280, 1280, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {2, 64, 64, 320, 320, 1, 1, {0, 0, 0, 0}, 0, 0, 0},
        {1, 64, 64, 512, 512, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 256, 256, 256, 256, 3, 1, {1, 1, 1, 1}, 0, 0, 0}, {1, 512, 512, 128, 128, 3, 1, {1, 1, 1, 1}, 0, 0, 0},
    };
    static const struct linear linears[] = {
        {8192, 320, 320, 0, 0, 0, IN_PLACE}, {8192, 320, 1280, 0, 0, 1, 0}, {8192, 1280, 320, 0, 0, 0, IN_PLACE}, {2048, 640, 2560, 0, 0, 1, 0}, {512, 1280, 5120, 0, 0, 1, 0},
        {512, 1280, 1280, 0, 0, 0, 0}, {154, 768, 640, 0, 0, 0, NO_BIAS},
    };
    static const struct attention attentions[] = {{2, 4096, 4096, 8, 40, 0, 0, 0}, {2, 1024, 1024, 8, 80, 0, 0, 0}, {2, 256, 256, 8, 160, 0, 0, 0}, {2, 4096, 77, 8, 40, 0, 0, 0}, {1, 4096, 4096, 1, 512, 0, 0, 0}};
    static const struct norm norms[] = {{2, 64, 64, 320, 32, 0, FN_SILU}, {2, 16, 16, 1280, 32, 0, FN_SILU}, {1, 512, 512, 128, 32, 0, FN_SILU}};
    EACH(convs, conv);
    EACH(linears, linear);
    EACH(attentions, attention);
    EACH(norms, group_norm);
    layer_norm(o, 8192, 320, 0);
    unary(o, 2, 64, 64, 320, 0, FN_SILU);
    binary(o, 2, 64, 64, 320, 0, BINARY_ADD, 0, 0);
    upsample(o, 2, 32, 32, 640, 0, 0);
    concat(o, 2, 64, 64, 640, 320, 0);
    lincomb(o, 3, 1, 128, 128, 4, 0, false, false);
    pack_u8(o, 1, 512, 512, 3, 0);
}

void bench_visit(visit_fn *visit, void *arg)
{
    struct out o = {DT_F32, visit, arg};
    bench_emoji(&o);
    bench_sd15(&o);
}
