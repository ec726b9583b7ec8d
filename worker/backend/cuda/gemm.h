/* Products on cuBLASLt. Matrices are row-major, as everywhere here: D[m][n] = ALPHA A[m][k] B + BETA C[m][n] + bias[n], in float32 (no
 * TF32), rounded once into D's dtype. */
#pragma once
#include "worker/backend/cuda/cuda.h"

/* A matrix's place in its buffer, not the buffer: pointers come with each run. */
struct gemm_matrix {
    enum dtype dtype;
    int64_t ld, stride; /* elements from one row, one matrix of the batch, to the next */
    size_t align;       /* what every pointer of a run is a multiple of, in bytes: gemm_align. 0: 256 or more */
};

struct gemm_spec {
    int64_t m, n, k;
    int batch;                     /* 0 counts as 1 */
    bool b_transposed;             /* B is stored [n][k], as weights are, else [k][n] */
    struct gemm_matrix a, b, c, d; /* A and B of one dtype; D of theirs or f32; C, used if BETA is not 0, of D's */
    float alpha, beta;
    CUdeviceptr bias; /* N elements of D's dtype; 0: none. Must outlive the plan. */
};

struct gemm_plan;

/* gemm_align returns the power of two, 256 at most, that divides BYTES: the bitwise or of the offsets and steps that a run's pointers are
 * made of. */
static inline size_t gemm_align(size_t bytes) { return (bytes | 256) & -(bytes | 256); }

/* gemm_plan_new picks an algorithm for SPEC, once. UNSUPPORTED: there is none in the form asked for; without bias or C there may be.
 * Caller: gemm_plan_free. */
NODISCARD enum status gemm_plan_new(struct gemm *g, const struct gemm_spec *spec, struct gemm_plan **ret, struct error *err);
void gemm_plan_free(struct gemm_plan *p); /* accepts NULL */
/* gemm_plan_workspace returns the bytes of device memory, at a multiple of 256, that a run needs to itself. */
size_t gemm_plan_workspace(const struct gemm_plan *p);
/* gemm_run enqueues the product. C is read if the plan's BETA is not 0; it may be D itself, if their layouts are the same. */
NODISCARD enum status gemm_run(const struct gemm_plan *p, CUdeviceptr a, CUdeviceptr b, CUdeviceptr c, CUdeviceptr d, CUdeviceptr workspace,
                               struct error *err);
