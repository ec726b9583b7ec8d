#include "worker/backend/check.h"

enum { FLOATS = 1 << DT_F32 | 1 << DT_F16 | 1 << DT_BF16, F32 = 1 << DT_F32, I32 = 1 << DT_I32, U8 = 1 << DT_U8, ALIGN = 64 };

const struct weight_source *weight_source_of(const struct bweight *w) { return (const struct weight_source *)w; }

enum status weight_check(const struct weight_source *s, struct error *err)
{
    if (!s->data)
        return FAIL(err, INTERNAL, "weight: no data");
    if ((unsigned)s->dtype >= DT_COUNT || !(FLOATS & 1 << s->dtype))
        return FAIL(err, INTERNAL, "weight: dtype is %s, must be f32, f16 or bf16", dtype_name(s->dtype));
    if (s->ndim < 1 || s->ndim > 4)
        return FAIL(err, INTERNAL, "weight: %d dimensions, must be 1 to 4", s->ndim);
    int64_t total = 1;
    for (int i = 0; i < s->ndim; i++) {
        if (s->shape[i] < 1 || s->shape[i] > INT32_MAX || total > INT64_MAX / 4 / s->shape[i])
            return FAIL(err, INTERNAL, "weight: dimension %d is %lld", i, (long long)s->shape[i]);
        total *= s->shape[i];
    }
    return ST_OK;
}

size_t operand_end(const struct operand *o)
{
    size_t elements = ((size_t)operand_pixels(o) - 1) * (size_t)o->ld + (size_t)o->c;
    return o->offset + elements * dtype_bytes(o->dtype);
}

static enum status same(const struct op_desc *d, const char *member, int64_t have, int64_t want, struct error *err)
{
    if (have == want)
        return ST_OK;
    return FAIL(err, INTERNAL, "%s: %s is %lld, must be %lld", op_name(d->kind), member, (long long)have, (long long)want);
}

static enum status operand_check(const struct op_desc *d, const char *member, const struct operand *o, int dtypes, struct error *err)
{
    const char *op = op_name(d->kind);
    if ((unsigned)o->dtype >= DT_COUNT || !(dtypes & 1 << o->dtype))
        return FAIL(err, INTERNAL, "%s: %s.dtype %s is not one that the op takes", op, member, dtype_name(o->dtype));
    if (o->n < 1 || o->h < 1 || o->w < 1 || o->c < 1)
        return FAIL(err, INTERNAL, "%s: %s is %d x %d x %d x %d, every extent must be positive", op, member, o->n, o->h, o->w, o->c);
    if (o->ld < o->c)
        return FAIL(err, INTERNAL, "%s: %s.ld is %d, less than its %d channels", op, member, o->ld, o->c);
    if (o->offset % ALIGN)
        return FAIL(err, INTERNAL, "%s: %s.offset is %zu, not a multiple of %d", op, member, o->offset, ALIGN);
    int64_t plane = (int64_t)o->h * o->w;
    if (plane > INT64_MAX / 8 / o->n / o->ld || o->offset > SIZE_MAX / 2)
        return FAIL(err, INTERNAL, "%s: %s is %d x %d x %d x %d at %zu, out of range", op, member, o->n, o->h, o->w, o->ld, o->offset);
    return ST_OK;
}

static enum status same_pixels(const struct op_desc *d, const char *member, const struct operand *o, const struct operand *as,
                               struct error *err)
{
    if (o->n == as->n && o->h == as->h && o->w == as->w)
        return ST_OK;
    return FAIL(err, INTERNAL, "%s: %s is %d x %d x %d pixels, must be %d x %d x %d", op_name(d->kind), member, o->n, o->h, o->w, as->n,
                as->h, as->w);
}

static enum status same_shape(const struct op_desc *d, const char *member, const struct operand *o, const struct operand *as,
                              struct error *err)
{
    TRY(same_pixels(d, member, o, as, err));
    if (o->c != as->c)
        return FAIL(err, INTERNAL, "%s: %s.c is %d, must be %d", op_name(d->kind), member, o->c, as->c);
    return ST_OK;
}

/* vector_check wants an optional or required weight of COUNT elements in one dimension. */
static enum status vector_check(const struct op_desc *d, const char *member, const struct bweight *w, int64_t count, bool required,
                                struct error *err)
{
    if (!w && !required)
        return ST_OK;
    if (!w)
        return FAIL(err, INTERNAL, "%s: %s is missing", op_name(d->kind), member);
    const struct weight_source *s = weight_source_of(w);
    if (s->ndim != 1 || s->shape[0] != count)
        return FAIL(err, INTERNAL, "%s: %s has %d dimensions, the first %lld; must be one of %lld", op_name(d->kind), member, s->ndim,
                    (long long)s->shape[0], (long long)count);
    return ST_OK;
}

static enum status act_check(const struct op_desc *d, struct error *err)
{
    if ((unsigned)d->act > FN_QUICK_GELU)
        return FAIL(err, INTERNAL, "%s: act is %d, no such function", op_name(d->kind), (int)d->act);
    return ST_OK;
}

static enum status residual_check(const struct op_desc *d, struct error *err)
{
    if (!operand_set(&d->residual))
        return ST_OK;
    TRY(operand_check(d, "residual", &d->residual, FLOATS, err));
    return same_shape(d, "residual", &d->residual, &d->y, err);
}

static enum status conv_check(const struct op_desc *d, struct error *err)
{
    if (!d->weight)
        return FAIL(err, INTERNAL, "conv2d: weight is missing");
    const struct weight_source *s = weight_source_of(d->weight);
    TRY(same(d, "weight.ndim", s->ndim, 4, err));
    TRY(same(d, "weight.shape[1]", s->shape[1], d->x.c, err));
    TRY(same(d, "y.c", d->y.c, s->shape[0], err));
    TRY(same(d, "y.n", d->y.n, d->x.n, err));
    if (d->conv.stride < 1)
        return FAIL(err, INTERNAL, "conv2d: stride is %d, must be positive", d->conv.stride);
    if (d->conv.pad_top < 0 || d->conv.pad_left < 0 || d->conv.pad_bottom < 0 || d->conv.pad_right < 0)
        return FAIL(err, INTERNAL, "conv2d: a padding is negative");
    int64_t high = (int64_t)d->x.h + d->conv.pad_top + d->conv.pad_bottom - s->shape[2];
    int64_t wide = (int64_t)d->x.w + d->conv.pad_left + d->conv.pad_right - s->shape[3];
    if (high < 0 || wide < 0)
        return FAIL(err, INTERNAL, "conv2d: x is smaller than the %lld x %lld kernel", (long long)s->shape[2], (long long)s->shape[3]);
    TRY(same(d, "y.h", d->y.h, high / d->conv.stride + 1, err));
    TRY(same(d, "y.w", d->y.w, wide / d->conv.stride + 1, err));
    TRY(vector_check(d, "bias", d->bias, d->y.c, false, err));
    TRY(act_check(d, err));
    if (operand_set(&d->conv.add)) {
        TRY(operand_check(d, "add", &d->conv.add, FLOATS, err));
        TRY(same(d, "add.c", d->conv.add.c, d->y.c, err));
        if (operand_pixels(&d->conv.add) != 1)
            TRY(same(d, "pixels of add", operand_pixels(&d->conv.add), d->y.n, err));
    }
    return residual_check(d, err);
}

static enum status linear_check(const struct op_desc *d, struct error *err)
{
    if (!d->weight)
        return FAIL(err, INTERNAL, "linear: weight is missing");
    const struct weight_source *s = weight_source_of(d->weight);
    bool pointwise = s->ndim == 4 && s->shape[2] == 1 && s->shape[3] == 1;
    if (s->ndim != 2 && !pointwise)
        return FAIL(err, INTERNAL, "linear: weight has %d dimensions, must be [out, in] or a 1x1 convolution's", s->ndim);
    TRY(same(d, "weight.shape[1]", s->shape[1], d->x.c, err));
    TRY(same(d, "weight.shape[0]", s->shape[0], d->linear.geglu ? 2 * (int64_t)d->y.c : d->y.c, err));
    TRY(same_pixels(d, "y", &d->y, &d->x, err));
    TRY(vector_check(d, "bias", d->bias, s->shape[0], false, err));
    TRY(act_check(d, err));
    if (d->linear.geglu && (d->act != FN_NONE || operand_set(&d->residual)))
        return FAIL(err, INTERNAL, "linear: act or residual given with geglu");
    return residual_check(d, err);
}

static int64_t tokens(const struct operand *o) { return (int64_t)o->h * o->w; }

static enum status attention_check(const struct op_desc *d, struct error *err)
{
    const struct operand *k = &d->attention.key, *v = &d->attention.value, *mask = &d->attention.mask;
    TRY(operand_check(d, "key", k, FLOATS, err));
    TRY(operand_check(d, "value", v, FLOATS, err));
    TRY(same_shape(d, "y", &d->y, &d->x, err));
    TRY(same(d, "key.n", k->n, d->x.n, err));
    TRY(same(d, "key.c", k->c, d->x.c, err));
    TRY(same_shape(d, "value", v, k, err));
    if (d->attention.heads < 1 || d->x.c % d->attention.heads)
        return FAIL(err, INTERNAL, "attention: heads is %d, must divide the %d channels", d->attention.heads, d->x.c);
    if (!(d->attention.scale > 0))
        return FAIL(err, INTERNAL, "attention: scale is %g, must be positive", (double)d->attention.scale);
    if (operand_set(mask)) {
        TRY(operand_check(d, "mask", mask, F32, err));
        TRY(same(d, "mask.n", mask->n, d->x.n, err));
        TRY(same(d, "tokens of mask", tokens(mask), tokens(k), err));
        TRY(same(d, "mask.c", mask->c, 1, err));
    }
    return ST_OK;
}

static enum status norm_check(const struct op_desc *d, struct error *err)
{
    TRY(same_shape(d, "y", &d->y, &d->x, err));
    TRY(vector_check(d, "weight", d->weight, d->x.c, true, err));
    TRY(vector_check(d, "bias", d->bias, d->x.c, false, err));
    TRY(act_check(d, err));
    if (d->kind == OP_GROUP_NORM && (d->norm.groups < 1 || d->x.c % d->norm.groups))
        return FAIL(err, INTERNAL, "group_norm: groups is %d, must divide the %d channels", d->norm.groups, d->x.c);
    if (!(d->norm.eps > 0))
        return FAIL(err, INTERNAL, "%s: eps is %g, must be positive", op_name(d->kind), (double)d->norm.eps);
    return ST_OK;
}

static enum status binary_check(const struct op_desc *d, struct error *err)
{
    const struct operand *z = &d->binary.z;
    TRY(same_shape(d, "y", &d->y, &d->x, err));
    TRY(operand_check(d, "z", z, FLOATS, err));
    if (d->binary.fn != BINARY_ADD && d->binary.fn != BINARY_MUL)
        return FAIL(err, INTERNAL, "binary: fn is %d, no such function", (int)d->binary.fn);
    TRY(same(d, "z.c", z->c, d->x.c, err));
    if (z->n != 1)
        TRY(same(d, "z.n", z->n, d->x.n, err));
    if (z->h != 1 || z->w != 1) {
        TRY(same(d, "z.h", z->h, d->x.h, err));
        TRY(same(d, "z.w", z->w, d->x.w, err));
    }
    return ST_OK;
}

static enum status concat_check(const struct op_desc *d, struct error *err)
{
    TRY(operand_check(d, "z", &d->concat.z, FLOATS, err));
    TRY(same_pixels(d, "z", &d->concat.z, &d->x, err));
    TRY(same_pixels(d, "y", &d->y, &d->x, err));
    return same(d, "y.c", d->y.c, (int64_t)d->x.c + d->concat.z.c, err);
}

static enum status embed_check(const struct op_desc *d, struct error *err)
{
    TRY(same(d, "x.c", d->x.c, 1, err));
    TRY(same_pixels(d, "y", &d->y, &d->x, err));
    if (!d->weight)
        return FAIL(err, INTERNAL, "embed: weight is missing");
    TRY(same(d, "weight.ndim", weight_source_of(d->weight)->ndim, 2, err));
    TRY(same(d, "weight.shape[1]", weight_source_of(d->weight)->shape[1], d->y.c, err));
    if (!d->embed.position)
        return ST_OK;
    const struct weight_source *s = weight_source_of(d->embed.position);
    TRY(same(d, "position.ndim", s->ndim, 2, err));
    TRY(same(d, "position.shape[1]", s->shape[1], d->y.c, err));
    if (s->shape[0] < tokens(&d->y))
        return FAIL(err, INTERNAL, "embed: position has %lld rows, fewer than the %lld tokens", (long long)s->shape[0],
                    (long long)tokens(&d->y));
    return ST_OK;
}

static enum status lincomb_check(const struct op_desc *d, struct error *err)
{
    int count = d->lincomb.count;
    if (count < 1 || count > 8)
        return FAIL(err, INTERNAL, "lincomb: count is %d, must be 1 to 8", count);
    TRY(operand_check(d, "coef", &d->lincomb.coef, F32, err));
    TRY(same(d, "pixels of coef", operand_pixels(&d->lincomb.coef), count, err));
    for (int k = 0; k < count; k++) {
        const struct operand *in = &d->lincomb.in[k];
        TRY(operand_check(d, "in", in, FLOATS, err));
        if (d->y.n % in->n)
            return FAIL(err, INTERNAL, "lincomb: in[%d].n is %d, must divide y.n = %d", k, in->n, d->y.n);
        TRY(same(d, "in.h", in->h, d->y.h, err));
        TRY(same(d, "in.w", in->w, d->y.w, err));
        TRY(same(d, "in.c", in->c, d->y.c, err));
    }
    return ST_OK;
}

static enum status guidance_check(const struct op_desc *d, struct error *err)
{
    TRY(same(d, "x.n", d->x.n, 2, err));
    TRY(same(d, "y.n", d->y.n, 1, err));
    TRY(same(d, "y.h", d->y.h, d->x.h, err));
    TRY(same(d, "y.w", d->y.w, d->x.w, err));
    TRY(same(d, "y.c", d->y.c, d->x.c, err));
    TRY(operand_check(d, "coef", &d->guidance.coef, F32, err));
    return same(d, "pixels of coef", operand_pixels(&d->guidance.coef), 2, err);
}

static enum status rgb_check(const struct op_desc *d, struct error *err)
{
    TRY(same(d, "x.n", d->x.n, 1, err));
    TRY(same_pixels(d, "y", &d->y, &d->x, err));
    TRY(same(d, "y.c", d->y.c, 3, err));
    TRY(operand_check(d, "coef", &d->rgb.coef, F32, err));
    TRY(same(d, "pixels of coef", operand_pixels(&d->rgb.coef), d->x.c, err));
    TRY(same(d, "coef.c", d->rgb.coef.c, 3, err));
    if (!operand_set(&d->rgb.smooth))
        return ST_OK;
    TRY(operand_check(d, "smooth", &d->rgb.smooth, F32, err));
    TRY(same(d, "pixels of smooth", operand_pixels(&d->rgb.smooth), 9, err));
    return same(d, "smooth.c", d->rgb.smooth.c, 1, err);
}

static enum status upsample_check(const struct op_desc *d, struct error *err)
{
    TRY(same(d, "y.n", d->y.n, d->x.n, err));
    if (d->y.h < d->x.h || d->y.h > 2 * (int64_t)d->x.h || d->y.w < d->x.w || d->y.w > 2 * (int64_t)d->x.w)
        return FAIL(err, INTERNAL, "upsample: y is %d x %d pixels, must be one to two times the %d x %d of x", d->y.h, d->y.w, d->x.h,
                    d->x.w);
    return same(d, "y.c", d->y.c, d->x.c, err);
}

static enum status plain_check(const struct op_desc *d, struct error *err)
{
    TRY(act_check(d, err));
    return same_shape(d, "y", &d->y, &d->x, err);
}

static enum status time_embed_check(const struct op_desc *d, struct error *err)
{
    TRY(same(d, "x.c", d->x.c, 1, err));
    TRY(same_pixels(d, "y", &d->y, &d->x, err));
    return same(d, "y.c modulo 2", d->y.c % 2, 0, err);
}

static const struct {
    int x, y;
    enum status (*check)(const struct op_desc *, struct error *);
} rules[OP_COUNT] = {
    [OP_CONV2D] = {FLOATS, FLOATS, conv_check},
    [OP_LINEAR] = {FLOATS, FLOATS, linear_check},
    [OP_ATTENTION] = {FLOATS, FLOATS, attention_check},
    [OP_GROUP_NORM] = {FLOATS, FLOATS, norm_check},
    [OP_LAYER_NORM] = {FLOATS, FLOATS, norm_check},
    [OP_UNARY] = {FLOATS, FLOATS, plain_check},
    [OP_BINARY] = {FLOATS, FLOATS, binary_check},
    [OP_UPSAMPLE] = {FLOATS, FLOATS, upsample_check},
    [OP_CONCAT] = {FLOATS, FLOATS, concat_check},
    [OP_CAST] = {FLOATS, FLOATS, plain_check},
    [OP_EMBED] = {I32, FLOATS, embed_check},
    [OP_TIME_EMBED] = {F32, FLOATS, time_embed_check},
    [OP_LINCOMB] = {0, FLOATS, lincomb_check},
    [OP_GUIDANCE] = {FLOATS, FLOATS, guidance_check},
    [OP_PACK_U8] = {FLOATS, U8, plain_check},
    [OP_LATENT_RGB] = {FLOATS, U8, rgb_check},
};

enum status op_check(const struct op_desc *d, struct error *err)
{
    if ((unsigned)d->kind >= OP_COUNT)
        return FAIL(err, INTERNAL, "unknown op %d", (int)d->kind);
    if (rules[d->kind].x)
        TRY(operand_check(d, "x", &d->x, rules[d->kind].x, err));
    TRY(operand_check(d, "y", &d->y, rules[d->kind].y, err));
    return rules[d->kind].check(d, err);
}

static void extend(size_t *end, const struct operand *o)
{
    if (operand_set(o) && operand_end(o) > *end)
        *end = operand_end(o);
}

size_t op_extent(const struct op_desc *d)
{
    size_t end = 0;
    if (rules[d->kind].x)
        extend(&end, &d->x);
    extend(&end, &d->y);
    switch (d->kind) {
    case OP_CONV2D:
        extend(&end, &d->residual);
        extend(&end, &d->conv.add);
        break;
    case OP_LINEAR: extend(&end, &d->residual); break;
    case OP_ATTENTION:
        extend(&end, &d->attention.key);
        extend(&end, &d->attention.value);
        extend(&end, &d->attention.mask);
        break;
    case OP_BINARY: extend(&end, &d->binary.z); break;
    case OP_CONCAT: extend(&end, &d->concat.z); break;
    case OP_GUIDANCE: extend(&end, &d->guidance.coef); break;
    case OP_LATENT_RGB:
        extend(&end, &d->rgb.coef);
        extend(&end, &d->rgb.smooth);
        break;
    case OP_LINCOMB:
        extend(&end, &d->lincomb.coef);
        for (int k = 0; k < d->lincomb.count; k++)
            extend(&end, &d->lincomb.in[k]);
        break;
    default: break;
    }
    return end;
}

enum status op_extent_check(enum op_kind kind, size_t extent, size_t arena_bytes, size_t need, size_t workspace_bytes, struct error *err)
{
    if (extent > arena_bytes)
        return FAIL(err, INTERNAL, "%s: the operands reach to byte %zu, the arena has %zu", op_name(kind), extent, arena_bytes);
    if (need > workspace_bytes)
        return FAIL(err, INTERNAL, "%s: the workspace has %zu bytes, the op needs %zu", op_name(kind), workspace_bytes, need);
    return ST_OK;
}
