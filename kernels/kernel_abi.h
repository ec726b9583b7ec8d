/* What the host and the device code agree on: one argument struct per kernel, passed by value. Read by nvcc (C++), by the module (C) and by
 * the build that compiles the kernels for the host.
 *
 * Kernels are written as loops over their block's and grid's strides, so that they give the same result for any grid and block, down to one
 * block of one thread: that is how the simulated device runs them. What a block must share goes through block_sum and its like. */
#pragma once
#include <stdint.h>

#ifdef __cplusplus
#define ABI_ASSERT static_assert
#else
#define ABI_ASSERT _Static_assert
#endif

enum { K_F32, K_F16, K_BF16, K_U8, K_I32 };                 /* as enum dtype of worker/backend/backend.h */
enum { K_FN_NONE, K_FN_SILU, K_FN_GELU, K_FN_QUICK_GELU };  /* as enum act */
enum { K_ADD, K_MUL };                                      /* as enum binary_fn */
enum { K_LINCOMB_MAX = 8, K_NORM_CHUNKS_MAX = 256 };

/* An operand in device memory: n x h x w pixels of c elements, ld elements apart. at == 0: not there. */
struct k_operand {
    uint64_t at;
    int32_t dtype, n, h, w, c, ld;
};
ABI_ASSERT(sizeof(struct k_operand) == 32, "k_operand");

/* A vector or table of weights. at == 0: not there. */
struct k_weight {
    uint64_t at;
    int32_t dtype, rows;            /* rows: of a table */
};
ABI_ASSERT(sizeof(struct k_weight) == 16, "k_weight");

struct k_map { struct k_operand x, y; int32_t act, pad; };                     /* unary, cast: y = act(x) */
struct k_binary { struct k_operand x, z, y; int32_t fn, pad; };                /* z.n may be 1, z.h == z.w == 1 repeats over pixels */
struct k_concat { struct k_operand x, z, y; };
struct k_upsample { struct k_operand x, y; };
struct k_embed { struct k_operand x, y; struct k_weight table, position; };
struct k_time_embed { struct k_operand x, y; };
struct k_lincomb { struct k_operand in[K_LINCOMB_MAX], coef, y; int32_t count, pad; };
/* One block: means and deviations of both over all elements need each other. */
struct k_guidance { struct k_operand x, y, coef; };
struct k_pack_u8 { struct k_operand x, y; };
struct k_latent_rgb { struct k_operand x, y, coef, smooth; };
/* y = act(y + bias + add + residual), any of the three may be missing: what follows a product that could not take it along. */
struct k_epilogue { struct k_operand y, add, residual; struct k_weight bias; int32_t act, pad; };
/* y = (a + bias) * gelu(b + bias'), (a, b) the halves of x's channels. */
struct k_geglu { struct k_operand x, y; struct k_weight bias; };
/* Two kernels: galley_group_norm_sums writes (count, mean, squared deviation) as f32 [n][groups][chunks][3] at PARTS, galley_group_norm reads them. */
struct k_group_norm { struct k_operand x, y; struct k_weight weight, bias; uint64_t parts; int32_t groups, chunks, act; float eps; };
struct k_layer_norm { struct k_operand x, y; struct k_weight weight, bias; float eps; int32_t pad; };
/* Rows of scores, f32 [heads][rows][keys] at SCORES, in place to probabilities of DTYPE in the same rows (a row begins where its scores did): softmax(score * scale
 * + mask[key]); causal: row r (of the whole: FIRST + r) sees keys 0..r. mask: f32 keys, one each, of this sample. */
struct k_softmax { uint64_t scores, mask; int32_t heads, rows, keys, first, dtype, causal; float scale; int32_t pad; };
/* dst[o][s][i] = src[o][i][s]: convolution weights to channels last, in dst_dtype. inner = i, spatial = s; spatial == 1: a cast alone. */
struct k_repack { uint64_t src, dst; int32_t src_dtype, dst_dtype; int64_t outer, inner, spatial; };

/* Every kernel: KERNEL(function, argument struct). The functions are extern "C" and named galley_FUNCTION. */
#define GALLEY_KERNELS(KERNEL)                                                                                                             \
    KERNEL(map, k_map) KERNEL(binary, k_binary) KERNEL(concat, k_concat) KERNEL(upsample, k_upsample) KERNEL(embed, k_embed)               \
    KERNEL(time_embed, k_time_embed) KERNEL(lincomb, k_lincomb) KERNEL(guidance, k_guidance) KERNEL(pack_u8, k_pack_u8)                    \
    KERNEL(latent_rgb, k_latent_rgb) KERNEL(epilogue, k_epilogue) KERNEL(geglu, k_geglu) KERNEL(group_norm_sums, k_group_norm)             \
    KERNEL(group_norm, k_group_norm) KERNEL(layer_norm, k_layer_norm) KERNEL(softmax, k_softmax) KERNEL(repack, k_repack)

enum kernel_id {
#define KERNEL(name, args) KERNEL_##name,
    GALLEY_KERNELS(KERNEL)
#undef KERNEL
    KERNEL_COUNT
};
