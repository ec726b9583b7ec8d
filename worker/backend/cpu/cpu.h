/* The CPU backend's own: float32, channels-last, kernels of kernels.h, loops shared over a pool. One file per family of ops. */
#pragma once
#include "worker/backend/backend.h"
#include "worker/backend/check.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/pool.h"
#include "worker/backend/host.h"

struct cpu_backend {
    struct host_backend host; /* first */
    const struct kernels *k;
    struct pool *pool;
    float *zeros; /* what the padding of a convolution reads */
    size_t n_zeros;
};

/* A convolution or linear layer as rows of A times packed panels of B. */
struct product {
    const float *panels; /* of the weight's layout */
    float *bias;         /* n_panels * NR, owned */
    int taps;
    size_t depth;                /* channels of x */
    size_t columns, step;        /* of y; of y per panel */
    size_t n_panels, block_taps; /* taps whose panel stays in the L2 cache */
    int rows, block_rows, row_blocks, panel_groups;
};

/* A 3x3 convolution of stride 1 by Winograd's F(2x2, 3x3): see winograd.c. */
struct winograd {
    const float *panels;
    float *bias;                   /* n_panels * NR, owned */
    size_t n_panels, tiles, batch; /* 2x2 tiles of y in all; how many at a time */
    int high, wide;                /* tiles of a sample */
    int panel_groups;
};

struct attention {
    size_t dim, tq, tk, key_panels, value_panels; /* panels of NR keys, panels of NR channels */
    size_t values_at;                             /* floats from the start of the workspace */
    int query_blocks, pack_blocks;
};

struct norm {
    float *scale, *shift;     /* per channel, owned */
    int blocks, block_pixels; /* per sample; fixed by the shape */
};

struct cpu_run;
typedef void cpu_fn(const struct cpu_run *r);

struct bop {
    struct op_desc desc;
    size_t extent, workspace;
    cpu_fn *run;
    union {
        struct product product;
        struct winograd winograd;
        struct attention attention;
        struct norm norm;
    };
};

struct cpu_run {
    const struct cpu_backend *b;
    const struct bop *op;
    unsigned char *arena, *workspace;
};

/* run_floats returns where operand O (float32) begins. */
static inline float *run_floats(const struct cpu_run *r, const struct operand *o) { return (float *)(void *)(r->arena + o->offset); }
static inline size_t op_columns(const struct cpu_backend *b) { return 2 * (size_t)b->k->width; } /* NR */
static inline size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
static inline int ceil_int(int64_t a, int64_t b) { return (int)((a + b - 1) / b); }

/* cpu_weight_floats writes the COUNT elements of W from FIRST on as float32. */
void cpu_weight_floats(const struct cpu_backend *b, const struct bweight *w, size_t first, size_t count, float *ret);
/* cpu_vector returns vector W in float32, PADDED elements, those past its end FILL; all FILL for NULL. Caller frees; NULL when out of memory. */
float *cpu_vector(const struct cpu_backend *b, const struct bweight *w, size_t padded, float fill);
enum packing {
    PACK_PLAIN,
    PACK_GEGLU,    /* a panel is half columns of the first half of the weight, half their partners in the second */
    PACK_WINOGRAD, /* 16 transformed taps instead of nine */
};
/* cpu_panels returns W packed for the product kernel in *RET, made on first use and kept with the weight. */
NODISCARD enum status cpu_panels(struct cpu_backend *b, const struct bweight *w, enum packing packing, const float **ret,
                                 struct error *err);
/* cpu_pad grows what the padding of a convolution reads to N floats. */
NODISCARD enum status cpu_pad(struct cpu_backend *b, size_t n, struct error *err);
void cpu_weight_free(struct backend *b, struct bweight *w);

/* Each prepares OP, whose desc has passed op_check, and picks its run function. */
/* cpu_winograd_fits says whether D is a convolution that cpu_winograd should take. */
bool cpu_winograd_fits(const struct op_desc *d);
typedef enum status cpu_prepare(struct cpu_backend *b, struct bop *op, struct error *err);
cpu_prepare cpu_product, cpu_winograd, cpu_attention, cpu_group_norm, cpu_layer_norm, cpu_map, cpu_embed, cpu_guidance, cpu_latent_rgb;
