/* The simulated libcublasLt: the entry points and attributes that worker/backend/cuda/gemm.c uses, for what the real library's table of
 * types allows. What it does not know it refuses, as the real one does. Sums run over k in ascending order in float32, whatever the shape.
 *
 * VGPU_CUBLASLT_REFUSE=bias,residual: no algorithm with a bias, or for a C that is laid out otherwise than D. */
#include <cublasLt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/vgpu.h"
#include "worker/backend/cpu/kernels.h"

struct cublasLtContext {
    int unused;
};

struct product {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int32_t transa, bias_type;
    uint32_t epilogue;
    const void *bias;
};

struct layout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld, stride;
    int32_t batch;
};

enum { A, B, C, D, MATRICES };

struct preference {
    size_t workspace;
    uint32_t reduction, align[MATRICES];
};

/* What cublasLtMatmulAlgo_t holds: the problem that it was picked for, and what it counts on. */
struct algorithm {
    uint64_t problem, workspace;
    uint32_t align[MATRICES];
};
_Static_assert(sizeof(struct algorithm) <= sizeof(cublasLtMatmulAlgo_t), "algorithm");

enum { SCRATCH = 4096, ROWS = 96, DEPTH_BLOCK = 64, PACKED_MAX = 16 << 20 };

static cublasStatus_t status_of(CUresult r)
{
    switch (r) {
    case CUDA_SUCCESS: return CUBLAS_STATUS_SUCCESS;
    case CUDA_ERROR_OUT_OF_MEMORY: return CUBLAS_STATUS_ALLOC_FAILED;
    case CUDA_ERROR_NOT_INITIALIZED:
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_INVALID_CONTEXT: return CUBLAS_STATUS_NOT_INITIALIZED;
    case CUDA_ERROR_NOT_SUPPORTED: return CUBLAS_STATUS_NOT_SUPPORTED;
    default: return CUBLAS_STATUS_EXECUTION_FAILED;
    }
}

#define ENTER(name)                                                                                                                        \
    do {                                                                                                                                   \
        CUresult enter_ = vgpu_enter(name);                                                                                                \
        if (enter_ != CUDA_SUCCESS)                                                                                                        \
            return status_of(enter_);                                                                                                      \
    } while (0)

/* ---- objects */

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "the operation completed successfully";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "the function failed to launch on the GPU";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality requested is not supported";
    default: return "an internal operation failed";
    }
}

/* object_new fills *RET with a copy of FROM. */
static cublasStatus_t object_new(void **ret, const void *from, size_t bytes)
{
    if (!ret)
        return CUBLAS_STATUS_INVALID_VALUE;
    *ret = malloc(bytes);
    if (!*ret)
        return CUBLAS_STATUS_ALLOC_FAILED;
    memcpy(*ret, from, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t object_free(void *object)
{
    free(object);
    return CUBLAS_STATUS_SUCCESS;
}

/* A member that an attribute sets. bytes == 0: not one that is known here. */
struct member {
    void *at;
    size_t bytes;
};

static cublasStatus_t member_set(struct member m, const void *buf, size_t bytes)
{
    if (!m.bytes)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!buf || bytes != m.bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(m.at, buf, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

#define MEMBER(m) ((struct member){&(m), sizeof(m)})

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    ENTER("cublasLtCreate");
    struct cublasLtContext h = {0};
    void *made = NULL;
    cublasStatus_t r = handle ? object_new(&made, &h, sizeof h) : CUBLAS_STATUS_INVALID_VALUE;
    if (r == CUBLAS_STATUS_SUCCESS)
        *handle = made;
    return r;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return object_free(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *ret, cublasComputeType_t compute, cudaDataType_t scale)
{
    ENTER("cublasLtMatmulDescCreate");
    struct product p = {.compute = compute, .scale = scale, .transa = CUBLAS_OP_N, .bias_type = -1, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    return object_new((void **)ret, &p, sizeof p);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) { return object_free(product); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t name, const void *buf,
                                              size_t bytes)
{
    ENTER("cublasLtMatmulDescSetAttribute");
    struct product *p = (struct product *)product;
    switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return member_set(MEMBER(p->transa), buf, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return member_set(MEMBER(p->epilogue), buf, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return member_set(MEMBER(p->bias), buf, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return member_set(MEMBER(p->bias_type), buf, bytes);
    default: return member_set((struct member){0}, buf, bytes);
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *ret, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld)
{
    ENTER("cublasLtMatrixLayoutCreate");
    struct layout l = {.type = type, .rows = rows, .cols = cols, .ld = ld, .batch = 1};
    return object_new((void **)ret, &l, sizeof l);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return object_free(layout); }

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name, const void *buf,
                                                size_t bytes)
{
    ENTER("cublasLtMatrixLayoutSetAttribute");
    struct layout *l = (struct layout *)layout;
    switch (name) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return member_set(MEMBER(l->batch), buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return member_set(MEMBER(l->stride), buf, bytes);
    default: return member_set((struct member){0}, buf, bytes);
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *ret)
{
    ENTER("cublasLtMatmulPreferenceCreate");
    struct preference p = {.reduction = CUBLASLT_REDUCTION_SCHEME_MASK, .align = {256, 256, 256, 256}};
    return object_new((void **)ret, &p, sizeof p);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return object_free(preference); }

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *buf, size_t bytes)
{
    ENTER("cublasLtMatmulPreferenceSetAttribute");
    struct preference *p = (struct preference *)preference;
    switch (name) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return member_set(MEMBER(p->workspace), buf, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return member_set(MEMBER(p->reduction), buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return member_set(MEMBER(p->align[A]), buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return member_set(MEMBER(p->align[B]), buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return member_set(MEMBER(p->align[C]), buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return member_set(MEMBER(p->align[D]), buf, bytes);
    default: return member_set((struct member){0}, buf, bytes);
    }
}

/* ---- the problem */

static enum dtype dtype_of(cudaDataType_t t)
{
    return t == CUDA_R_32F ? DT_F32 : t == CUDA_R_16F ? DT_F16 : t == CUDA_R_16BF ? DT_BF16 : DT_COUNT;
}

static bool layout_whole(const struct layout *l)
{
    return dtype_of(l->type) != DT_COUNT && l->rows > 0 && l->cols > 0 && l->rows <= INT32_MAX && l->cols <= INT32_MAX &&
           l->ld >= (int64_t)l->rows && l->batch > 0 && l->stride >= 0;
}

/* problem_check returns INVALID_VALUE for what contradicts itself, NOT_SUPPORTED for what the real library's table of types lacks (as far
 * as float32 sums go). */
static cublasStatus_t problem_check(const struct product *p, const struct layout *const m[MATRICES])
{
    for (int i = 0; i < MATRICES; i++)
        if (!layout_whole(m[i]) || m[i]->batch != m[D]->batch)
            return CUBLAS_STATUS_INVALID_VALUE;
    bool transposed = p->transa == CUBLAS_OP_T;
    uint64_t rows = transposed ? m[A]->cols : m[A]->rows, depth = transposed ? m[A]->rows : m[A]->cols;
    if (rows != m[D]->rows || depth != m[B]->rows || m[B]->cols != m[D]->cols || m[C]->rows != m[D]->rows || m[C]->cols != m[D]->cols)
        return CUBLAS_STATUS_INVALID_VALUE;
    bool types = m[A]->type == m[B]->type && m[C]->type == m[D]->type && (m[D]->type == m[A]->type || m[D]->type == CUDA_R_32F);
    if (p->compute != CUBLAS_COMPUTE_32F || p->scale != CUDA_R_32F || !types || (!transposed && p->transa != CUBLAS_OP_N))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p->epilogue == CUBLASLT_EPILOGUE_DEFAULT)
        return CUBLAS_STATUS_SUCCESS;
    bool bias = p->epilogue == CUBLASLT_EPILOGUE_BIAS && p->bias && (p->bias_type == -1 || p->bias_type == (int32_t)m[D]->type);
    return bias && m[D]->batch == 1 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* problem_hash tells one problem from another: an algorithm serves only the one that it was picked for. */
static uint64_t problem_hash(const struct product *p, const struct layout *const m[MATRICES])
{
    uint64_t h = 1469598103934665603u;
    uint64_t words[2 + MATRICES * 6] = {(uint64_t)p->transa, p->epilogue};
    for (int i = 0, n = 2; i < MATRICES; i++) {
        uint64_t of[] = {(uint64_t)m[i]->type, m[i]->rows, m[i]->cols, (uint64_t)m[i]->ld, (uint64_t)m[i]->stride, (uint64_t)m[i]->batch};
        memcpy(words + n, of, sizeof of);
        n += 6;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        h = (h ^ words[i]) * 1099511628211u;
    return h;
}

/* refused tells whether the environment wants WHAT refused. */
static bool refused(const char *what)
{
    const char *list = getenv("VGPU_CUBLASLT_REFUSE");
    return list && strstr(list, what);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t found[],
                                              int *count)
{
    ENTER("cublasLtMatmulAlgoGetHeuristic");
    const struct product *p = (const struct product *)product;
    const struct preference *wish = (const struct preference *)preference;
    const struct layout *m[MATRICES] = {(struct layout *)a, (struct layout *)b, (struct layout *)c, (struct layout *)d};
    if (!handle || !p || !a || !b || !c || !d || !wish || wanted < 1 || !found || !count)
        return CUBLAS_STATUS_INVALID_VALUE;
    *count = 0;
    cublasStatus_t r = problem_check(p, m);
    if (r != CUBLAS_STATUS_SUCCESS)
        return r;
    if ((p->epilogue == CUBLASLT_EPILOGUE_BIAS && refused("bias")) || (m[C]->ld != m[D]->ld && refused("residual")))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    struct algorithm made = {.problem = problem_hash(p, m), .workspace = wish->workspace < SCRATCH ? 0 : SCRATCH};
    memcpy(made.align, wish->align, sizeof made.align);
    found[0] = (cublasLtMatmulHeuristicResult_t){.workspaceSize = made.workspace, .state = CUBLAS_STATUS_SUCCESS, .wavesCount = 1};
    memcpy(&found[0].algo, &made, sizeof made);
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the work */

struct matrix {
    CUdeviceptr at;
    enum dtype dtype;
    size_t rows, cols, ld, stride;
};

struct job {
    struct matrix m[MATRICES];
    CUdeviceptr bias, workspace;
    size_t batch, scratch;
    float alpha, beta;
    bool transposed, has_bias;
};

static const struct kernels *kernels_here(void)
{
#if defined __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &kernels_avx2;
#endif
    return &kernels_plain;
}

static const char *element(const struct matrix *m, size_t i) { return (const char *)(uintptr_t)m->at + i * dtype_bytes(m->dtype); }

/* widen copies N elements of M from I on to float. */
static void widen(const struct kernels *k, const struct matrix *m, size_t i, float *to, size_t n)
{
    if (m->dtype == DT_F32)
        memcpy(to, element(m, i), n * sizeof *to);
    else
        k->from_half(to, (const uint16_t *)(const void *)element(m, i), n, m->dtype);
}

/* pack fills TO with columns [FIRST, FIRST + NR) of op(A)^T, [k][NR], zeros past the end. */
static void pack(const struct kernels *k, const struct job *j, const struct matrix *a, size_t first, size_t depth, float *to)
{
    size_t nr = 2 * (size_t)k->width, left = j->m[D].rows - first, n = left < nr ? left : nr;
    if (n < nr)
        memset(to, 0, depth * nr * sizeof *to);
    if (!j->transposed) {
        for (size_t t = 0; t < depth; t++)
            widen(k, a, first + t * a->ld, to + t * nr, n);
        return;
    }
    float line[DEPTH_BLOCK];
    for (size_t t = 0; t < depth; t += DEPTH_BLOCK) {
        size_t deep = depth - t < DEPTH_BLOCK ? depth - t : DEPTH_BLOCK;
        for (size_t i = 0; i < n; i++) {
            widen(k, a, (first + i) * a->ld + t, line, deep);
            for (size_t s = 0; s < deep; s++)
                to[(t + s) * nr + i] = line[s];
        }
    }
}

/* finish stores N sums of column COL of D, from row FIRST on. */
static void finish(const struct kernels *k, const struct job *j, const struct matrix *c, const struct matrix *d, size_t first, size_t col,
                   float *sum, size_t n)
{
    float more[NR_MAX];
    if (j->alpha != 1)
        for (size_t i = 0; i < n; i++)
            sum[i] *= j->alpha;
    if (j->beta != 0) {
        widen(k, c, col * c->ld + first, more, n);
        for (size_t i = 0; i < n; i++)
            sum[i] += j->beta * more[i];
    }
    if (j->has_bias) {
        struct matrix bias = {.at = j->bias, .dtype = d->dtype};
        widen(k, &bias, first, more, n);
        for (size_t i = 0; i < n; i++)
            sum[i] += more[i];
    }
    void *to = (void *)(uintptr_t)element(d, col * d->ld + first);
    if (d->dtype == DT_F32)
        memcpy(to, sum, n * sizeof *sum);
    else
        k->to_half(to, sum, n, d->dtype);
}

/* block makes the columns [FROM, FROM + COUNT) of D, COUNT <= ROWS, for PANELS panels of op(A) from row FIRST on; WIDE has room for so many
 * columns of B. */
static void block(const struct kernels *k, const struct job *j, const struct matrix m[MATRICES], size_t from, size_t count, size_t first,
                  size_t panels, const float *packed, float *wide)
{
    size_t depth = m[B].rows, nr = 2 * (size_t)k->width, mr = (size_t)k->mr;
    const float *rows[ROWS];
    float c[MR_MAX * NR_MAX] __attribute__((aligned(64)));
    for (size_t r = 0; r < count; r++) {
        rows[r] = (const float *)(const void *)element(&m[B], (from + r) * m[B].ld);
        if (m[B].dtype != DT_F32) {
            widen(k, &m[B], (from + r) * m[B].ld, wide + r * depth, depth);
            rows[r] = wide + r * depth;
        }
    }
    for (size_t p = 0; p < panels; p++) {
        size_t row = first + p * nr, n = m[D].rows - row < nr ? m[D].rows - row : nr;
        for (size_t r = 0; r < count; r += mr) {
            size_t high = count - r < mr ? count - r : mr;
            k->gemm((int)high, rows + r, count, 1, depth, packed + p * depth * nr, c, nr, true);
            for (size_t i = 0; i < high; i++)
                finish(k, j, &m[C], &m[D], row, from + r + i, c + i * nr, n);
        }
    }
}

/* multiply makes one matrix of the batch. PACKED has room for ROOM panels. */
static void multiply(const struct kernels *k, const struct job *j, const struct matrix m[MATRICES], float *packed, size_t room, float *wide)
{
    size_t depth = m[B].rows, nr = 2 * (size_t)k->width, total = (m[D].rows + nr - 1) / nr;
    for (size_t p = 0; p < total; p += room) {
        size_t panels = total - p < room ? total - p : room;
        for (size_t i = 0; i < panels; i++)
            pack(k, j, &m[A], (p + i) * nr, depth, packed + i * depth * nr);
        for (size_t from = 0; from < m[D].cols; from += ROWS)
            block(k, j, m, from, m[D].cols - from < ROWS ? m[D].cols - from : ROWS, p * nr, panels, packed, wide);
    }
}

/* held tells whether all of M is the device's. */
static bool held(const struct matrix *m, size_t batch)
{
    return vgpu_holds(m->at, ((batch - 1) * m->stride + (m->cols - 1) * m->ld + m->rows) * dtype_bytes(m->dtype));
}

static bool job_held(const struct job *j)
{
    static const char name[] = "ABCD";
    char what[80];
    for (int i = 0; i < MATRICES; i++)
        if ((i != C || j->beta != 0) && !held(&j->m[i], j->batch)) {
            snprintf(what, sizeof what, "cublasLtMatmul: matrix %c is not in memory of the device", name[i]);
            vgpu_fail(CUDA_ERROR_ILLEGAL_ADDRESS, what);
            return false;
        }
    bool bias = !j->has_bias || vgpu_holds(j->bias, j->m[D].rows * dtype_bytes(j->m[D].dtype));
    if (bias && (!j->scratch || vgpu_holds(j->workspace, j->scratch)))
        return true;
    vgpu_fail(CUDA_ERROR_ILLEGAL_ADDRESS, bias ? "cublasLtMatmul: the workspace is not in memory of the device"
                                               : "cublasLtMatmul: the bias is not in memory of the device");
    return false;
}

static void job_run(const void *args)
{
    const struct job *j = args;
    if (!job_held(j))
        return;
    if (j->scratch)
        memset((void *)(uintptr_t)j->workspace, 0xff, j->scratch); /* NaN for whoever keeps something there */
    const struct kernels *k = kernels_here();
    size_t depth = j->m[B].rows, nr = 2 * (size_t)k->width, total = (j->m[D].rows + nr - 1) / nr,
           room = PACKED_MAX / (depth * nr * sizeof(float));
    room = room < 1 ? 1 : room > total ? total : room;
    float *packed = aligned_alloc(64, (room * depth * nr * sizeof *packed + 63) / 64 * 64), *wide = malloc(ROWS * depth * sizeof *wide);
    if (!packed || !wide)
        vgpu_fail(CUDA_ERROR_UNKNOWN, "cublasLtMatmul: the simulated device has no memory left for a product");
    for (size_t i = 0; packed && wide && i < j->batch; i++) {
        struct matrix m[MATRICES];
        for (int x = 0; x < MATRICES; x++) {
            m[x] = j->m[x];
            m[x].at += i * m[x].stride * dtype_bytes(m[x].dtype);
        }
        multiply(k, j, m, packed, room, wide);
    }
    free(packed);
    free(wide);
}

/* job_check returns INVALID_VALUE for pointers that break what the algorithm counts on. */
static cublasStatus_t job_check(const struct algorithm *algorithm, const struct job *j, const struct layout *const m[MATRICES],
                                size_t workspace_bytes)
{
    for (int i = 0; i < MATRICES; i++)
        if (!j->m[i].at || !algorithm->align[i] || j->m[i].at % algorithm->align[i])
            return CUBLAS_STATUS_INVALID_VALUE;
    if (workspace_bytes < algorithm->workspace || (algorithm->workspace && (!j->workspace || j->workspace % 16)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (j->m[C].at == j->m[D].at && (m[C]->ld != m[D]->ld || m[C]->stride != m[D]->stride))
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

static struct matrix matrix_of(const struct layout *l, const void *at)
{
    return (struct matrix){(CUdeviceptr)(uintptr_t)at, dtype_of(l->type), l->rows, l->cols, (size_t)l->ld, (size_t)l->stride};
}

/* algorithm_read fills RET, if ALGO was picked for this problem. */
static cublasStatus_t algorithm_read(const cublasLtMatmulAlgo_t *algo, const struct product *p, const struct layout *const m[MATRICES],
                                     struct algorithm *ret)
{
    cublasStatus_t r = problem_check(p, m);
    if (r != CUBLAS_STATUS_SUCCESS)
        return r;
    if (!algo)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    memcpy(ret, algo, sizeof *ret);
    return ret->problem == problem_hash(p, m) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                              cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    ENTER("cublasLtMatmul");
    const struct product *p = (const struct product *)product;
    const struct layout *m[MATRICES] = {(struct layout *)la, (struct layout *)lb, (struct layout *)lc, (struct layout *)ld};
    if (!handle || !p || !alpha || !beta || !la || !lb || !lc || !ld)
        return CUBLAS_STATUS_INVALID_VALUE;
    struct algorithm algorithm;
    cublasStatus_t r = algorithm_read(algo, p, m, &algorithm);
    if (r != CUBLAS_STATUS_SUCCESS)
        return r;
    struct job j = {
        .m = {matrix_of(m[A], a), matrix_of(m[B], b), matrix_of(m[C], c), matrix_of(m[D], d)},
        .bias = (CUdeviceptr)(uintptr_t)p->bias,
        .workspace = (CUdeviceptr)(uintptr_t)workspace,
        .batch = (size_t)m[D]->batch,
        .scratch = algorithm.workspace,
        .transposed = p->transa == CUBLAS_OP_T,
        .has_bias = p->epilogue == CUBLASLT_EPILOGUE_BIAS,
    };
    memcpy(&j.alpha, alpha, sizeof j.alpha);
    memcpy(&j.beta, beta, sizeof j.beta);
    r = job_check(&algorithm, &j, m, workspace_bytes);
    return r == CUBLAS_STATUS_SUCCESS ? status_of(vgpu_work(stream, job_run, &j, sizeof j)) : r;
}
