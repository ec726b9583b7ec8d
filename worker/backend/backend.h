/* The backend contract: arithmetic on a device that may have its own memory and asynchronous streams. `ref` (plain C, has every
 * op, the judge), `cpu` (own vector kernels) and `cuda` (a module) are one const struct backend_api each.
 *
 * Rules that hold for every backend:
 * - A struct bmem is device memory. Nobody but the backend dereferences it; the host sees data through upload and download only.
 * - Calls on one struct backend come from one thread. upload, copy, fill and op_run are ordered as issued and may return before they
 *   are done; download and sync wait. upload has read its host bytes when it returns.
 * - An op is made once (primitive picked, weights repacked) and run many times. Every number that changes between runs comes from an
 *   operand in memory, never from an argument, so that a device can record and replay a sequence of runs.
 * - Activations are channels-last. An operand is n x h x w pixels of c channels, LD elements apart (LD >= C: a view of some channels
 *   of a wider buffer). Tokens are h = 1, w = tokens. A plain matrix is n = 1, h = 1, w = rows.
 * - Norm statistics, softmax and accumulation are float32 or better. Results do not depend on the number of threads. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

enum dtype { DT_F32, DT_F16, DT_BF16, DT_U8, DT_I32, DT_COUNT };
/* dtype_bytes returns the size of one element; dtype_name its name ("f32"). */
size_t dtype_bytes(enum dtype t);
const char *dtype_name(enum dtype t);

enum op_kind {
#define OP(NAME, name, required, f32, f16, bf16) OP_##NAME,
#include "worker/backend/ops.def"
#undef OP
    OP_COUNT
};

enum act { FN_NONE, FN_SILU, FN_GELU, FN_QUICK_GELU }; /* x, x*sigmoid(x), exact erf gelu, x*sigmoid(1.702 x) */
enum binary_fn { BINARY_ADD, BINARY_MUL };

/* A region of the arena. unset: all zero (w == 0). */
struct operand {
    size_t offset;          /* bytes from the start of the arena, a multiple of 64 */
    enum dtype dtype;
    int32_t n, h, w, c;
    int32_t ld;             /* elements from one pixel to the next, >= c */
};

/* Host description of a weight; the bytes (a mapped file) must stay valid for the life of the struct bweight. */
struct weight_source {
    const void *data;
    enum dtype dtype;       /* DT_F32, DT_F16, DT_BF16 */
    int32_t ndim;
    int64_t shape[4];       /* as stored: conv [out, in, kh, kw], linear [out, in] (a 1x1 conv may serve as linear), vector [n] */
};

struct backend;
struct bmem;
struct bweight;
struct bop;

/* One op. Which members count depends on KIND; the others stay zero. Shapes: x and y are operands. */
struct op_desc {
    enum op_kind kind;
    struct operand x;               /* main input */
    struct operand y;               /* output */
    const struct bweight *weight, *bias;   /* bias may be NULL */
    enum act act;                   /* applied last, after bias, add and residual */
    struct operand residual;        /* CONV2D, LINEAR: optional, same pixels and channels as y, added before ACT; may equal y (in place) */
    union {
        /* CONV2D: y = act(conv(x) + bias + add[n or 0] + residual). weight [cout, cin, kh, kw]. ADD: optional 1 x 1 x (1 or n) pixels of cout. */
        struct { int32_t stride, pad_top, pad_left, pad_bottom, pad_right; struct operand add; } conv;
        /* LINEAR: y = act(x W^T + bias + residual) over all pixels; GEGLU: W is [2c, in], y = a * gelu(b) with (a, b) = halves of x W^T + bias. */
        struct { bool geglu; } linear;
        /* ATTENTION: x = queries [n, 1, tq, heads*d], key/value [n, 1, tk, heads*d], y like x. scores * SCALE (+ MASK [n, 1, tk, 1] f32, optional), causal
         * hides later keys. Softmax in float32. */
        struct { struct operand key, value, mask; int32_t heads; float scale; bool causal; } attention;
        /* GROUP_NORM: statistics per sample and group over pixels; weight, bias [c]; then ACT. LAYER_NORM: over channels of each pixel. */
        struct { int32_t groups; float eps; } norm;
        /* UNARY: y = act(x). BINARY: y = fn(x, z) elementwise; z may have n = 1 (repeated) and h = w = 1 (broadcast over pixels). */
        struct { enum binary_fn fn; struct operand z; } binary;
        /* UPSAMPLE: nearest; y pixel (i, j) is x pixel (floor(i h / y.h), floor(j w / y.w)); y is 2h x 2w, or one less after an odd-sized
         * downsample: anything from h x w to 2h x 2w. */
        /* CONCAT: y channels = x channels then z channels. */
        struct { struct operand z; } concat;
        /* CAST: y = x in y's dtype (f32, f16, bf16 in any pair; same shape). */
        /* EMBED: x = ids DT_I32 [n, 1, tokens, 1]; y[n, 1, t, c] = weight[id, c] + position[t, c]. Ids outside the table read row 0 (the tokenizer checks). */
        struct { const struct bweight *position; } embed;
        /* TIME_EMBED: x = timesteps f32 [1, 1, rows, 1]; y[row, c]: first half cos(t w_i), second half sin(t w_i), w_i = exp(-ln(10000) i / (c/2)). */
        /* LINCOMB: y = sum_k coef[k] * in[k]; COEF f32 [1, 1, k, 1] in the arena. in[k].n may divide y.n (repeated). y may be one of the inputs. */
        struct { int32_t count; struct operand in[8], coef; } lincomb;
        /* GUIDANCE: x = [2, h, w, c]: row 0 negative, row 1 positive. y [1, h, w, c] = neg + s (pos - neg); then, r = rescale > 0:
         * y = y * (r * std(pos)/std(y) + 1 - r), unbiased std over all elements (Lin et al. 2023, eq. 15, 16). COEF f32 [1, 1, 2, 1] = s, r. */
        struct { struct operand coef; } guidance;
        /* PACK_U8: y u8 = round(clamp(x / 2 + 0.5, 0, 1) * 255), ties to even. */
        /* LATENT_RGB: x latents [1, h, w, c], y u8 [1, h, w, 3] = trunc(clamp((x M + 1) / 2, 0, 1) * 255); M f32 [c][3] row major by COEF [1, 1, c, 3];
         * SMOOTH: 3x3 filter before the clamp, f32 [1, 3, 3, 1], optional (zero padded). */
        struct { struct operand coef, smooth; } rgb;
    };
};

struct backend_spec {
    const char *device;      /* "cpu:0", "cuda:0", ... as configured */
    const int *cores;        /* CPU: logical processors to use, N_CORES of them; NULL: all in the affinity mask */
    int n_cores;
    enum dtype compute;      /* dtype of activations: DT_F32 on a CPU unless asked otherwise */
    size_t reserve_bytes;    /* device memory that stays free */
};

struct backend_memory { size_t free_bytes, total_bytes, used_bytes; };

struct backend_api {
    const char *name;
    NODISCARD enum status (*open)(const struct backend_spec *spec, struct backend **ret, struct error *err);
    void (*close)(struct backend *b);                                  /* accepts NULL */
    NODISCARD enum status (*memory)(struct backend *b, struct backend_memory *ret, struct error *err);

    NODISCARD enum status (*mem_new)(struct backend *b, size_t bytes, struct bmem **ret, struct error *err); /* OUT_OF_MEMORY says needed and free */
    void (*mem_free)(struct backend *b, struct bmem *m);               /* accepts NULL */
    NODISCARD enum status (*upload)(struct backend *b, struct bmem *dst, size_t offset, const void *src, size_t bytes, struct error *err);
    NODISCARD enum status (*download)(struct backend *b, const struct bmem *src, size_t offset, void *dst, size_t bytes, struct error *err);
    NODISCARD enum status (*copy)(struct backend *b, struct bmem *dst, size_t dst_offset, const struct bmem *src, size_t src_offset, size_t bytes, struct error *err);
    NODISCARD enum status (*fill)(struct backend *b, struct bmem *dst, size_t offset, int byte, size_t bytes, struct error *err);
    NODISCARD enum status (*sync)(struct backend *b, struct error *err);

    /* weight_new remembers the source; layouts that ops ask for are made on first use and kept with the weight. Freed after every op that uses it. */
    NODISCARD enum status (*weight_new)(struct backend *b, const struct weight_source *source, struct bweight **ret, struct error *err);
    void (*weight_free)(struct backend *b, struct bweight *w);         /* accepts NULL */

    /* op_new checks shapes (INTERNAL names the op and the member) and prepares. UNSUPPORTED: this backend has no such op or form. */
    NODISCARD enum status (*op_new)(struct backend *b, const struct op_desc *desc, struct bop **ret, struct error *err);
    void (*op_free)(struct backend *b, struct bop *op);                /* accepts NULL */
    size_t (*op_workspace)(const struct bop *op);                      /* bytes of WORKSPACE that a run needs, 0 often */
    NODISCARD enum status (*op_run)(struct backend *b, struct bop *op, struct bmem *arena, struct bmem *workspace, struct error *err);

    /* Optional (NULL: the caller runs the ops one by one): a sequence recorded once and submitted as one. */
    NODISCARD enum status (*sequence_new)(struct backend *b, struct bop *const *ops, int n, struct bmem *arena, struct bmem *workspace, void **ret, struct error *err);
    NODISCARD enum status (*sequence_run)(struct backend *b, void *sequence, struct error *err);
    void (*sequence_free)(struct backend *b, void *sequence);
};

/* Every struct backend begins with its api. */
struct backend { const struct backend_api *api; };

extern const struct backend_api backend_ref, backend_cpu;

/* backend_find returns the api that serves a device name ("cpu...", "cuda...", "ref" for tests), NULL if this build or machine has none:
 * see worker/backend/load.h for why there is no CUDA. */
const struct backend_api *backend_find(const char *device);
const char *op_name(enum op_kind k);
/* op_tolerance returns the relative L2 tolerance of the op list for results in dtype T. */
double op_tolerance(enum op_kind k, enum dtype t);
