/* cuBLASLt wants its matrices column-major: a row-major matrix is its own transpose there. So each plan is D^T = op(B) A^T, with cuBLASLt's
 * A our B, and its rows our columns; that is also what its bias, one element per row, asks for. */
#include <cublasLt.h>
#include <stdlib.h>

#include "worker/backend/cuda/gemm.h"

enum { WORKSPACE_MAX = 32 << 20 };

struct gemm {
    struct cuda_backend *b;
    cublasLtHandle_t handle;
};

struct gemm_plan {
    struct gemm *g;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c, d; /* ours */
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
    float alpha, beta;
};

/* gemm_fail fills ERR for what cuBLASLt returned. A failed execution may be the device's: the driver knows. */
static enum status gemm_fail(struct error *err, cublasStatus_t r, const char *what)
{
    size_t free_bytes, total;
    if (r == CUBLAS_STATUS_EXECUTION_FAILED || r == CUBLAS_STATUS_INTERNAL_ERROR || r == CUBLAS_STATUS_NOT_INITIALIZED)
        CU(err, what, cu.memory_info(&free_bytes, &total));
    switch (r) {
    case CUBLAS_STATUS_ALLOC_FAILED: return FAIL(err, OUT_OF_MEMORY, "%s: cuBLASLt is out of memory", what);
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_ARCH_MISMATCH: return FAIL(err, UNSUPPORTED, "%s: cuBLASLt: %s", what, cublasLtGetStatusString(r));
    default: return FAIL(err, INTERNAL, "%s: cuBLASLt: %s (%d)", what, cublasLtGetStatusString(r), (int)r);
    }
}

#define LT(err, what, call)                                                                                                                \
    do {                                                                                                                                   \
        cublasStatus_t lt_ = (call);                                                                                                       \
        if (lt_ != CUBLAS_STATUS_SUCCESS)                                                                                                  \
            return gemm_fail(err, lt_, what);                                                                                              \
    } while (0)

enum status gemm_open(struct cuda_backend *b, struct gemm **ret, struct error *err)
{
    struct gemm *g = calloc(1, sizeof *g);
    if (!g)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for cuBLASLt");
    g->b = b;
    cublasStatus_t r = cublasLtCreate(&g->handle);
    if (r != CUBLAS_STATUS_SUCCESS) {
        free(g);
        return gemm_fail(err, r, "opening cuBLASLt");
    }
    *ret = g;
    return ST_OK;
}

void gemm_close(struct gemm *g)
{
    if (g)
        (void)cublasLtDestroy(g->handle);
    free(g);
}

static cudaDataType_t type_of(enum dtype t) { return t == DT_F16 ? CUDA_R_16F : t == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

/* layout_new describes our ROWS x COLS matrix M. */
static enum status layout_new(const struct gemm_matrix *m, int64_t rows, int64_t cols, int batch, cublasLtMatrixLayout_t *ret,
                              struct error *err)
{
    LT(err, "matrix", cublasLtMatrixLayoutCreate(ret, type_of(m->dtype), (uint64_t)cols, (uint64_t)rows, m->ld));
    if (batch <= 1)
        return ST_OK;
    int32_t count = batch;
    LT(err, "matrices", cublasLtMatrixLayoutSetAttribute(*ret, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    LT(err, "matrices", cublasLtMatrixLayoutSetAttribute(*ret, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &m->stride, sizeof m->stride));
    return ST_OK;
}

static enum status bias_set(cublasLtMatmulDesc_t product, const struct gemm_spec *s, struct error *err)
{
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const void *at = (const void *)(uintptr_t)s->bias;
    int32_t type = type_of(s->d.dtype);
    LT(err, "bias", cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    LT(err, "bias", cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &at, sizeof at));
    LT(err, "bias", cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
    return ST_OK;
}

static enum status describe(struct gemm_plan *p, const struct gemm_spec *s, struct error *err)
{
    LT(err, "product", cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    int32_t transposed = s->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT(err, "product", cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    if (s->bias)
        TRY(bias_set(p->product, s, err));
    TRY(layout_new(&s->a, s->m, s->k, s->batch, &p->a, err));
    TRY(layout_new(&s->b, s->b_transposed ? s->n : s->k, s->b_transposed ? s->k : s->n, s->batch, &p->b, err));
    TRY(layout_new(&s->d, s->m, s->n, s->batch, &p->d, err));
    return layout_new(s->beta != 0 ? &s->c : &s->d, s->m, s->n, s->batch, &p->c, err);
}

static enum status prefer(cublasLtMatmulPreference_t wish, const struct gemm_spec *s, struct error *err)
{
    size_t workspace = WORKSPACE_MAX;
    LT(err, "workspace",
       cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    /* parts of a sum are added up in float32 and in one order */
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    LT(err, "reduction",
       cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction));
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        size_t bytes;
    } aligns[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, s->b.align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, s->a.align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, s->beta != 0 ? s->c.align : s->d.align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, s->d.align},
    };
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        uint32_t bytes = aligns[i].bytes ? (uint32_t)aligns[i].bytes : 256;
        LT(err, "alignment", cublasLtMatmulPreferenceSetAttribute(wish, aligns[i].name, &bytes, sizeof bytes));
    }
    return ST_OK;
}

static enum status pick(struct gemm_plan *p, cublasLtMatmulPreference_t wish, const struct gemm_spec *s, struct error *err)
{
    cublasLtMatmulHeuristicResult_t found = {0};
    int count = 0;
    TRY(prefer(wish, s, err));
    cublasStatus_t r = cublasLtMatmulAlgoGetHeuristic(p->g->handle, p->product, p->b, p->a, p->c, p->d, wish, 1, &found, &count);
    if (r == CUBLAS_STATUS_SUCCESS)
        r = count ? found.state : CUBLAS_STATUS_NOT_SUPPORTED;
    if (r == CUBLAS_STATUS_NOT_SUPPORTED)
        return FAIL(err, UNSUPPORTED, "cuBLASLt has no product of %lld x %lld x %lld, %d of them, %s into %s%s%s", (long long)s->m,
                    (long long)s->n, (long long)s->k, s->batch > 1 ? s->batch : 1, dtype_name(s->a.dtype), dtype_name(s->d.dtype),
                    s->bias ? ", with a bias" : "", s->beta != 0 ? ", added to a matrix" : "");
    LT(err, "picking an algorithm", r);
    p->algorithm = found.algo;
    p->workspace = found.workspaceSize;
    return ST_OK;
}

static enum status plan_make(struct gemm_plan *p, const struct gemm_spec *s, struct error *err)
{
    cublasLtMatmulPreference_t wish;
    TRY(describe(p, s, err));
    LT(err, "preference", cublasLtMatmulPreferenceCreate(&wish));
    enum status st = pick(p, wish, s, err);
    (void)cublasLtMatmulPreferenceDestroy(wish);
    return st;
}

enum status gemm_plan_new(struct gemm *g, const struct gemm_spec *s, struct gemm_plan **ret, struct error *err)
{
    struct gemm_plan *p = calloc(1, sizeof *p);
    if (!p)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the plan of a product");
    p->g = g;
    p->alpha = s->alpha;
    p->beta = s->beta;
    enum status st = plan_make(p, s, err);
    if (st != ST_OK) {
        gemm_plan_free(p);
        return st;
    }
    *ret = p;
    return ST_OK;
}

void gemm_plan_free(struct gemm_plan *p)
{
    if (!p)
        return;
    cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->c, p->d};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i])
            (void)cublasLtMatrixLayoutDestroy(layouts[i]);
    if (p->product)
        (void)cublasLtMatmulDescDestroy(p->product);
    free(p);
}

size_t gemm_plan_workspace(const struct gemm_plan *p) { return p->workspace; }

enum status gemm_run(const struct gemm_plan *p, CUdeviceptr a, CUdeviceptr b, CUdeviceptr c, CUdeviceptr d, CUdeviceptr workspace,
                     struct error *err)
{
    const void *from = (const void *)(uintptr_t)(p->beta != 0 ? c : d);
    LT(err, "product",
       cublasLtMatmul(p->g->handle, p->product, &p->alpha, (const void *)(uintptr_t)b, p->b, (const void *)(uintptr_t)a, p->a, &p->beta,
                      from, p->c, (void *)(uintptr_t)d, p->d, &p->algorithm, (void *)(uintptr_t)(p->workspace ? workspace : 0),
                      p->workspace, p->g->b->stream));
    return ST_OK;
}
