/* What kernels are written in: the common subset of C and CUDA C++, so that the same text runs on the device (nvcc) and, with
 * GALLEY_KERNELS_ON_HOST, as C on the host, where a block is one thread.
 *
 * A block has a multiple of 32 threads, at most THREADS_MAX. Threads of a block meet at barrier() and in the block_ functions, threads of a
 * warp in the warp_ functions: all of them must come there. */
#pragma once
#include "kernels/kernel_abi.h"
#include <math.h>

enum { THREADS_MAX = 512, BLOCKS_MIN = 2 };     /* BLOCKS_MIN: of THREADS_MAX, that a multiprocessor has registers for */

/* Count, mean and sum of squares about the mean: joined as in Chan et al. 1979, which loses nothing to a large mean. */
struct stat {
    float count, mean, square;
};

#ifdef GALLEY_KERNELS_ON_HOST
#include "worker/backend/half.h"

#define GALLEY_KERNEL(name, args) static void galley_##name(const struct args a)
#define DEVICE static inline
#define SHARED static _Thread_local
#define UNROLL
#define ROLLED

enum { WARP = 1 };
struct grid {
    int block, blocks;
};
static _Thread_local struct grid grid;

DEVICE int thread_id(void) { return 0; }
DEVICE int block_threads(void) { return 1; }
DEVICE int block_id(void) { return grid.block; }
DEVICE int grid_blocks(void) { return grid.blocks; }
DEVICE void barrier(void) {}

DEVICE float half_float(uint16_t h) { return half_to_float(h); }
DEVICE uint16_t float_half(float v) { return float_to_half(v); }
DEVICE float bfloat_float(uint16_t h) { return bf16_to_float(h); }
DEVICE uint16_t float_bfloat(float v) { return float_to_bf16(v); }

/* One rounding each, never contracted: for results that must be equal in every bit everywhere. */
DEVICE float mul_rn(float a, float b) { return a * b; }
DEVICE float add_rn(float a, float b) { return a + b; }

/* A / B to two units in the last place, of positive numbers that are neither huge nor tiny. */
DEVICE float ratio(float a, float b) { return a / b; }

DEVICE float cos_of_turns(float t) { return (float)cos(6.2831853071795864769 * (double)t); }
DEVICE float sin_of_turns(float t) { return (float)sin(6.2831853071795864769 * (double)t); }

DEVICE struct stat warp_stat(struct stat v) { return v; }
DEVICE float block_sum(float v) { return v; }
DEVICE float block_max(float v) { return v; }
DEVICE struct stat block_stat(struct stat v) { return v; }
#else
#define GALLEY_KERNEL(name, args)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS_MAX, BLOCKS_MIN) galley_##name(const __grid_constant__ struct args a)
#define DEVICE static __device__ __forceinline__
#define SHARED __shared__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1") /* else the compiler spends registers that warps could have */

enum { WARP = 32 };

DEVICE int thread_id(void) { return (int)threadIdx.x; }
DEVICE int block_threads(void) { return (int)blockDim.x; }
DEVICE int block_id(void) { return (int)blockIdx.x; }
DEVICE int grid_blocks(void) { return (int)gridDim.x; }
DEVICE void barrier(void) { __syncthreads(); }

DEVICE float half_float(uint16_t h)
{
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h));
    return v;
}

DEVICE uint16_t float_half(float v)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}

DEVICE float bfloat_float(uint16_t h) { return __uint_as_float((uint32_t)h << 16); }

DEVICE uint16_t float_bfloat(float v)
{
    uint16_t h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}

DEVICE float mul_rn(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add_rn(float a, float b) { return __fadd_rn(a, b); }

DEVICE float ratio(float a, float b) { return __fdividef(a, b); }

DEVICE float cos_of_turns(float t) { return cospif(2 * t); }
DEVICE float sin_of_turns(float t) { return sinpif(2 * t); }
#endif

DEVICE struct stat stat_join(struct stat a, struct stat b)
{
    float total = a.count + b.count, share = total > 0 ? ratio(b.count, total) : 0, off = b.mean - a.mean;
    struct stat all = {total, a.mean + off * share, a.square + b.square + off * off * a.count * share};
    return all;
}

DEVICE struct stat stat_of_four(float a, float b, float c, float d)
{
    float mean = ((a + b) + (c + d)) * 0.25f;
    a -= mean;
    b -= mean;
    c -= mean;
    d -= mean;
    struct stat s = {4, mean, (a * a + b * b) + (c * c + d * d)};
    return s;
}

DEVICE struct stat stat_of_one(float v)
{
    struct stat s = {1, v, 0};
    return s;
}

#ifndef GALLEY_KERNELS_ON_HOST
enum { ALL_LANES = -1, WARPS_MAX = THREADS_MAX / WARP };

/* The order of a pair is that of its lanes: every lane gets the same bits. */
DEVICE struct stat warp_stat(struct stat v)
{
    for (int o = 1; o < WARP; o *= 2) {
        struct stat w;
        w.count = __shfl_xor_sync((unsigned)ALL_LANES, v.count, o);
        w.mean = __shfl_xor_sync((unsigned)ALL_LANES, v.mean, o);
        w.square = __shfl_xor_sync((unsigned)ALL_LANES, v.square, o);
        v = threadIdx.x & o ? stat_join(w, v) : stat_join(v, w);
    }
    return v;
}

DEVICE float warp_sum(float v)
{
    for (int o = 1; o < WARP; o *= 2)
        v += __shfl_xor_sync((unsigned)ALL_LANES, v, o);
    return v;
}

DEVICE float warp_max(float v)
{
    for (int o = 1; o < WARP; o *= 2)
        v = fmaxf(v, __shfl_xor_sync((unsigned)ALL_LANES, v, o));
    return v;
}

/* Each warp reduces its own, then every warp all of the warps': no broadcast. The first barrier ends the use that came before. */
DEVICE float block_sum(float v)
{
    __shared__ float part[WARPS_MAX];
    int lane = thread_id() % WARP, warps = block_threads() / WARP;
    v = warp_sum(v);
    barrier();
    if (lane == 0)
        part[thread_id() / WARP] = v;
    barrier();
    return warp_sum(lane < warps ? part[lane] : 0);
}

DEVICE float block_max(float v)
{
    __shared__ float part[WARPS_MAX];
    int lane = thread_id() % WARP, warps = block_threads() / WARP;
    v = warp_max(v);
    barrier();
    if (lane == 0)
        part[thread_id() / WARP] = v;
    barrier();
    return warp_max(part[lane < warps ? lane : 0]);
}

DEVICE struct stat block_stat(struct stat v)
{
    __shared__ struct stat part[WARPS_MAX];
    int lane = thread_id() % WARP, warps = block_threads() / WARP;
    struct stat none = {0, 0, 0};
    v = warp_stat(v);
    barrier();
    if (lane == 0)
        part[thread_id() / WARP] = v;
    barrier();
    return warp_stat(lane < warps ? part[lane] : none);
}
#endif

/* load and store: element I of an array of float dtype at AT. */
DEVICE float load(uint64_t at, int dtype, int64_t i)
{
    if (dtype == K_F32)
        return ((const float *)(uintptr_t)at)[i];
    uint16_t bits = ((const uint16_t *)(uintptr_t)at)[i];
    return dtype == K_F16 ? half_float(bits) : bfloat_float(bits);
}

DEVICE void store(uint64_t at, int dtype, int64_t i, float v)
{
    if (dtype == K_F32)
        ((float *)(uintptr_t)at)[i] = v;
    else
        ((uint16_t *)(uintptr_t)at)[i] = dtype == K_F16 ? float_half(v) : float_bfloat(v);
}

/* get and put: channel C of pixel P. weight_get: element I, IF_NONE of a weight that is not there. */
DEVICE float get(const struct k_operand *o, int64_t p, int64_t c) { return load(o->at, o->dtype, p * o->ld + c); }
DEVICE void put(const struct k_operand *o, int64_t p, int64_t c, float v) { store(o->at, o->dtype, p * o->ld + c, v); }
DEVICE float weight_get(const struct k_weight *w, int64_t i, float if_none) { return w->at ? load(w->at, w->dtype, i) : if_none; }

DEVICE int64_t plane_of(const struct k_operand *o) { return (int64_t)o->h * o->w; }
DEVICE int64_t pixels_of(const struct k_operand *o) { return plane_of(o) * o->n; }

/* divide: A / B of numbers that are not negative; devices divide 32 bits much faster. */
DEVICE int64_t divide(int64_t a, int64_t b) { return ((uint64_t)a | (uint64_t)b) >> 32 ? a / b : (int64_t)((uint32_t)a / (uint32_t)b); }

/* The elements of ROWS x WIDTH, flat, that fall to this thread of the whole grid; consecutive threads get consecutive elements. Divides at
 * the start only. */
struct walk {
    int64_t row, c, row_step, c_step, rows, width;
};

DEVICE struct walk walk_begin(int64_t rows, int64_t width)
{
    int64_t first = (int64_t)block_id() * block_threads() + thread_id(), step = (int64_t)grid_blocks() * block_threads();
    struct walk w;
    w.row = divide(first, width);
    w.c = first - w.row * width;
    w.row_step = divide(step, width);
    w.c_step = step - w.row_step * width;
    w.rows = rows;
    w.width = width;
    return w;
}

DEVICE int walk_on(const struct walk *w) { return w->row < w->rows; }

DEVICE void walk_next(struct walk *w)
{
    w->row += w->row_step;
    w->c += w->c_step;
    if (w->c >= w->width) {
        w->c -= w->width;
        w->row++;
    }
}

/* FOR_EACH walks over the pixels and channels of operand O. */
#define FOR_EACH(i, o) for (struct walk i = walk_begin(pixels_of(o), (o)->c); walk_on(&i); walk_next(&i))

DEVICE float gelu(float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f)); }

DEVICE float act_of(int act, float v)
{
    switch (act) {
    case K_FN_SILU: return v / (1.0f + expf(-v));
    case K_FN_GELU: return gelu(v);
    case K_FN_QUICK_GELU: return v / (1.0f + expf(-1.702f * v));
    default: return v;
    }
}
