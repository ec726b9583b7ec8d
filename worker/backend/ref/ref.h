/* The judge: every op in plain C, products and sums in float64, one rounding into the output's dtype. One file per family of ops. */
#pragma once
#include "worker/backend/backend.h"
#include "worker/backend/check.h"
#include "worker/backend/half.h"

/* load returns element I of an array of float dtype T at BASE; store rounds V to T. */
static inline double load(const void *base, enum dtype t, size_t i)
{
    if (t == DT_F32)
        return ((const float *)base)[i];
    uint16_t bits = ((const uint16_t *)base)[i];
    return t == DT_F16 ? half_to_float(bits) : bf16_to_float(bits);
}

static inline void store(void *base, enum dtype t, size_t i, double v)
{
    if (t == DT_F32)
        ((float *)base)[i] = (float)v;
    else
        ((uint16_t *)base)[i] = t == DT_F16 ? float_to_half((float)v) : float_to_bf16((float)v);
}

/* at returns the index of channel C of pixel P (counted over n, h, w) in operand O. */
static inline size_t at(const struct operand *o, int64_t p, int c) { return (size_t)p * (size_t)o->ld + (size_t)c; }

/* get and put read and write channel C of pixel P of operand O in the arena that starts at BASE. */
static inline double get(const unsigned char *base, const struct operand *o, int64_t p, int c)
{
    return load(base + o->offset, o->dtype, at(o, p, c));
}

static inline void put(unsigned char *base, const struct operand *o, int64_t p, int c, double v)
{
    store(base + o->offset, o->dtype, at(o, p, c), v);
}

/* ref_act returns ACT of V. */
double ref_act(enum act act, double v);
/* ref_weight and ref_operand return every element as float64, packed, NULL when out of memory. Caller frees. */
double *ref_weight(const struct bweight *w);
double *ref_operand(const unsigned char *base, const struct operand *o);

typedef enum status ref_fn(const struct op_desc *d, unsigned char *arena, struct error *err);
ref_fn ref_conv2d, ref_linear, ref_attention, ref_group_norm, ref_layer_norm, ref_unary, ref_binary, ref_upsample, ref_concat, ref_cast,
    ref_embed, ref_time_embed, ref_lincomb, ref_guidance, ref_pack_u8, ref_latent_rgb;
