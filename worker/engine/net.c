#include "worker/engine/net.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

struct net_name net_name(const char *fmt, ...)
{
    struct net_name r;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r.s, sizeof r.s, fmt, ap);
    va_end(ap);
    return r;
}

static struct operand value(struct net *n, enum dtype t, int batch, int h, int w, int c)
{
    if (n->plan && n->status == ST_OK)
        return plan_value(n->plan, t, batch, h, w, c);
    return (struct operand){.dtype = t, .n = batch, .h = h, .w = w, .c = c, .ld = c};
}

struct operand net_value(struct net *n, int batch, int h, int w, int c)
{
    return value(n, n->dtype, batch, h, w, c);
}

void net_op(struct net *n, const struct op_desc *d)
{
    if (n->plan && n->status == ST_OK)
        plan_op(n->plan, n->segment, d);
}

const struct bweight *net_weight(struct net *n, const char *name, int ndim, const int64_t *shape)
{
    const struct bweight *w = NULL;
    if (n->status != ST_OK)
        return NULL;
    if (n->plan)
        n->status = weights_get(n->weights, name, ndim, shape, &w, n->err);
    else
        n->status = weights_check(n->weights, name, ndim, shape, n->err);
    return w;
}

static const struct bweight *vector(struct net *n, const char *name, const char *member, int c)
{
    int64_t shape[1] = {c};
    return net_weight(n, NAME("%s.%s", name, member), 1, shape);
}

struct operand net_conv(struct net *n, struct operand x, int cout, struct net_conv how, const char *name)
{
    int k = how.kernel ? how.kernel : 3, stride = how.stride ? how.stride : 1, pad = k / 2;
    int64_t shape[4] = {cout, x.c, k, k};
    struct op_desc d = {.kind = OP_CONV2D, .x = x, .act = how.act, .residual = how.residual};
    d.weight = net_weight(n, NAME("%s.weight", name), 4, shape);
    d.bias = vector(n, name, "bias", cout);
    d.conv.stride = stride;
    d.conv.pad_top = d.conv.pad_left = d.conv.pad_bottom = d.conv.pad_right = pad;
    d.conv.add = how.add;
    d.y = how.y.w ? how.y : net_value(n, x.n, (x.h + 2 * pad - k) / stride + 1, (x.w + 2 * pad - k) / stride + 1, cout);
    net_op(n, &d);
    return d.y;
}

struct operand net_linear(struct net *n, struct operand x, int cout, struct net_linear how, const char *name)
{
    int rows = how.geglu ? 2 * cout : cout;
    int64_t shape[2] = {rows, x.c};
    struct op_desc d = {.kind = OP_LINEAR, .x = x, .act = how.act, .residual = how.residual};
    d.weight = net_weight(n, NAME("%s.weight", name), 2, shape);
    d.bias = how.no_bias ? NULL : vector(n, name, "bias", rows);
    d.linear.geglu = how.geglu;
    d.y = how.y.w ? how.y : net_value(n, x.n, x.h, x.w, cout);
    net_op(n, &d);
    return d.y;
}

struct operand net_group_norm(struct net *n, struct operand x, int groups, double eps, enum act act, const char *name)
{
    if (groups < 1 || x.c % groups)
        net_fail(n, BAD_MODEL, "%s: %d channels do not divide into %d groups", name, x.c, groups);
    struct op_desc d = {.kind = OP_GROUP_NORM, .x = x, .act = act};
    d.weight = vector(n, name, "weight", x.c);
    d.bias = vector(n, name, "bias", x.c);
    d.norm.groups = groups;
    d.norm.eps = (float)eps;
    d.y = net_value(n, x.n, x.h, x.w, x.c);
    net_op(n, &d);
    return d.y;
}

struct operand net_layer_norm(struct net *n, struct operand x, double eps, const char *name)
{
    struct op_desc d = {.kind = OP_LAYER_NORM, .x = x};
    d.weight = vector(n, name, "weight", x.c);
    d.bias = vector(n, name, "bias", x.c);
    d.norm.eps = (float)eps;
    d.y = net_value(n, x.n, x.h, x.w, x.c);
    net_op(n, &d);
    return d.y;
}

struct operand net_attention(struct net *n, struct operand q, struct operand k, struct operand v, struct operand mask, int heads, bool causal)
{
    if (heads < 1 || q.c % heads)
        net_fail(n, BAD_MODEL, "attention: width %d does not divide into %d heads", q.c, heads);
    struct op_desc d = {.kind = OP_ATTENTION, .x = q};
    d.attention.key = k;
    d.attention.value = v;
    d.attention.mask = mask;
    d.attention.heads = heads;
    d.attention.causal = causal;
    d.attention.scale = heads > 0 ? (float)(1 / sqrt((double)q.c / heads)) : 0;
    d.y = net_value(n, q.n, q.h, q.w, q.c);
    net_op(n, &d);
    return d.y;
}

struct operand net_upsample(struct net *n, struct operand x, int h, int w)
{
    struct op_desc d = {.kind = OP_UPSAMPLE, .x = x, .y = net_value(n, x.n, h, w, x.c)};
    net_op(n, &d);
    return d.y;
}

struct operand net_concat(struct net *n, struct operand x, struct operand z)
{
    struct op_desc d = {.kind = OP_CONCAT, .x = x, .y = net_value(n, x.n, x.h, x.w, x.c + z.c)};
    d.concat.z = z;
    net_op(n, &d);
    return d.y;
}

struct operand net_cast(struct net *n, struct operand x, enum dtype t)
{
    if (x.dtype == t)
        return x;
    struct op_desc d = {.kind = OP_CAST, .x = x, .y = value(n, t, x.n, x.h, x.w, x.c)};
    net_op(n, &d);
    return d.y;
}

struct operand net_tokens(struct operand x)
{
    x.w *= x.h;
    x.h = 1;
    return x;
}

struct operand net_pixels(struct operand x, int h, int w)
{
    x.h = h;
    x.w = w;
    return x;
}
