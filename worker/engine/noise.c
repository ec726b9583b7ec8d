/* mt19937 (Matsumoto & Nishimura 1998) and Box-Muller in torch's order of draws. */
#include "worker/engine/noise.h"
#include <math.h>
#include "worker/backend/half.h"

enum { WORDS = 624, BLOCK = 16, HALF_BLOCK = BLOCK / 2 };

void rng_seed(struct rng *r, uint64_t seed)
{
    r->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < WORDS; i++) {
        uint32_t p = r->state[i - 1];
        r->state[i] = 1812433253u * (p ^ p >> 30) + i;
    }
    r->index = WORDS;
    r->has_next = 0;
    r->next_normal = 0;
}

static void refill(struct rng *r)
{
    for (int k = 0; k < WORDS; k++) {
        uint32_t y = (r->state[k] & 0x80000000u) | (r->state[(k + 1) % WORDS] & 0x7fffffffu);
        r->state[k] = r->state[(k + 397) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    r->index = 0;
}

uint32_t rng_u32(struct rng *r)
{
    if (r->index == WORDS)
        refill(r);
    uint32_t y = r->state[r->index++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static double uniform_f64(struct rng *r)
{
    uint64_t high = rng_u32(r), low = rng_u32(r);
    return (double)((high << 32 | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* The way for fewer than 16 numbers: in double, the second of a pair is kept for the next call. */
static double normal_single(struct rng *r)
{
    if (r->has_next) {
        r->has_next = 0;
        return r->next_normal;
    }
    double angle = 2 * M_PI * uniform_f64(r), radius = sqrt(-2 * log1p(-uniform_f64(r)));
    r->next_normal = radius * sin(angle);
    r->has_next = 1;
    return radius * cos(angle);
}

/* Cephes' single-precision log, sine and cosine with the fused multiply-adds of torch's AVX2 build: written out here so that every
 * machine and C library makes the same picture. Arguments: 2^-24 <= X <= 1; 0 <= X < 8. */
static float log_f32(float x)
{
    static const float p[] = { 7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                               -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f };
    int exponent = 0;
    float m = frexpf(x, &exponent);
    if (m < 0.707106781186547524f) {
        exponent -= 1;
        m = m - 1.0f + m;
    } else {
        m -= 1.0f;
    }
    float e = (float)exponent, z = m * m, y = p[0];
    for (int i = 1; i < 9; i++)
        y = fmaf(y, m, p[i]);
    y = fmaf(y * m, z, e * -2.12194440e-4f);
    m += y - z * 0.5f;
    return fmaf(e, 0.693359375f, m);
}

static void sincos_f32(float x, float *ret_sin, float *ret_cos)
{
    int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    float y = (float)octant;
    x = fmaf(y, -0.78515625f, x);
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
    c = fmaf(c * z, z, z * -0.5f) + 1.0f;
    float s = fmaf(fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
    s = fmaf(s * z, x, x);
    float sine = octant & 2 ? c : s, cosine = octant & 2 ? s : c;
    *ret_sin = octant & 4 ? -sine : sine;
    *ret_cos = (octant - 2) & 4 ? cosine : -cosine;
}

/* One block: radii from the first eight uniforms, angles from the others; cosines first, then sines. */
static void block_f32(float *x)
{
    for (int j = 0; j < HALF_BLOCK; j++) {
        float radius = sqrtf(-2.0f * log_f32(1.0f - x[j])), sine, cosine;
        sincos_f32((float)(2 * M_PI) * x[j + HALF_BLOCK], &sine, &cosine);
        x[j] = radius * cosine;
        x[j + HALF_BLOCK] = radius * sine;
    }
}

static float half(float x)
{
    return half_to_float(float_to_half(x));
}

static void block_f16(float *x)
{
    for (int j = 0; j < HALF_BLOCK; j++) {
        float radius = half(sqrtf(half(-2.0f * half(logf(half(1.0f - x[j]))))));
        float angle = half((float)(2 * M_PI * (double)x[j + HALF_BLOCK]));
        x[j] = half(radius * half(cosf(angle)));
        x[j + HALF_BLOCK] = half(radius * half(sinf(angle)));
    }
}

static void block_f64(double *x)
{
    for (int j = 0; j < HALF_BLOCK; j++) {
        double radius = sqrt(-2 * log(1 - x[j])), angle = 2 * M_PI * x[j + HALF_BLOCK];
        x[j] = radius * cos(angle);
        x[j + HALF_BLOCK] = radius * sin(angle);
    }
}

static float uniform_f32(struct rng *r)
{
    return (float)(rng_u32(r) & 0xffffff) * 0x1p-24f;
}

static float uniform_f16(struct rng *r)
{
    return (float)(rng_u32(r) & 0x7ff) * 0x1p-11f;
}

/* FILL: every uniform first, then block by block; a ragged end draws its last 16 anew. */
#define FILL(r, ret, n, uniform, block)                              \
    do {                                                             \
        for (size_t i_ = 0; i_ < (n); i_++)                          \
            (ret)[i_] = uniform(r);                                  \
        for (size_t i_ = 0; i_ + BLOCK <= (n); i_ += BLOCK)          \
            block((ret) + i_);                                       \
        if ((n) % BLOCK) {                                           \
            for (size_t i_ = (n) - BLOCK; i_ < (n); i_++)            \
                (ret)[i_] = uniform(r);                              \
            block((ret) + (n) - BLOCK);                              \
        }                                                            \
    } while (0)

void rng_normal_f32(struct rng *r, float *ret, size_t n)
{
    if (n >= BLOCK)
        FILL(r, ret, n, uniform_f32, block_f32);
    else
        for (size_t i = 0; i < n; i++)
            ret[i] = (float)normal_single(r);
}

void rng_normal_f16(struct rng *r, float *ret, size_t n)
{
    if (n >= BLOCK)
        FILL(r, ret, n, uniform_f16, block_f16);
    else
        for (size_t i = 0; i < n; i++)
            ret[i] = half((float)normal_single(r));
}

void rng_normal_f64(struct rng *r, double *ret, size_t n)
{
    if (n >= BLOCK)
        FILL(r, ret, n, uniform_f64, block_f64);
    else
        for (size_t i = 0; i < n; i++)
            ret[i] = normal_single(r);
}
