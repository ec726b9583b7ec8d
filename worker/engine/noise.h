/* torch's CPU random numbers: mt19937 and its two ways to make normals, bit-exact. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct rng { uint32_t state[624]; int index; double next_normal; int has_next; };

/* rng_seed is torch.Generator("cpu").manual_seed(SEED). */
void rng_seed(struct rng *r, uint64_t seed);
uint32_t rng_u32(struct rng *r);
/* rng_normal_f32 is torch.randn(n, generator): 16 or more in blocks (all uniforms first), fewer one by one. */
void rng_normal_f32(struct rng *r, float *ret, size_t n);
/* rng_normal_f16 draws as torch does for float16 (11-bit uniforms, rounding after every operation), widened to float32. */
void rng_normal_f16(struct rng *r, float *ret, size_t n);
void rng_normal_f64(struct rng *r, double *ret, size_t n);
