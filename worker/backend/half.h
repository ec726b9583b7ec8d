/* Conversions between float32 and the 16-bit floats, in portable integer arithmetic, rounding to nearest even. */
#pragma once
#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float float_of_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float bf16_to_float(uint16_t h) { return float_of_bits((uint32_t)h << 16); }

static inline uint16_t float_to_bf16(float x)
{
    uint32_t u = float_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u); /* NaN stays NaN, quiet */
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    if (rest >= 0x0f800000u) /* infinity, NaN */
        return float_of_bits(sign | 0x7f800000u | rest);
    if (rest >= 0x00800000u)
        return float_of_bits(sign | (rest + 0x38000000u));
    return float_of_bits(sign | float_bits((float)(h & 0x7fffu) * 0x1p-24f)); /* subnormal: a multiple of 2^-24 */
}

static inline uint16_t float_to_half(float x)
{
    uint32_t u = float_bits(x), a = u & 0x7fffffffu;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) /* rounds past 65504 */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) /* below 2^-14: adding 2^-1 aligns the last bit to 2^-24 and rounds */
        return (uint16_t)(sign | (float_bits(float_of_bits(a) + 0.5f) - 0x3f000000u));
    a += 0xfffu + (a >> 13 & 1u);
    return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}
