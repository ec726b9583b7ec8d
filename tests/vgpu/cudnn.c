/* The simulated libcudnn: the entry points and descriptors that worker/backend/cuda/dnn.c uses, checked as the real library checks them.
 * Patterns: convolution (+ bias) of channels-last tensors, and attention. The heuristics also offer engines that a careful caller passes
 * over: one whose result is not the same in every run, one that refuses, one that wants too much memory. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/cudnn.h"

enum { ATTRIBUTES_MAX = 12, OPS_MAX = 3, IDS_MAX = 16 };
enum engine { ENGINE_UNSTEADY, ENGINE_REFUSES, ENGINE_GREEDY, ENGINE_GOOD, ENGINES };

struct attribute {
    cudnnBackendAttributeName_t name;
    int64_t n;
    void *data;
};
struct descriptor {
    int refs;
    cudnnBackendDescriptorType_t type;
    bool final;
    struct attribute attributes[ATTRIBUTES_MAX];
    int n;
    struct descriptor *graph; /* of a configuration or an engine: what it computes */
    enum engine engine;
};
struct cudnnContext {
    cudaStream_t stream;
};

static _Thread_local char last_words[200];

__attribute__((format(printf, 2, 3))) static cudnnStatus_t fail(cudnnStatus_t s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(last_words, sizeof last_words, fmt, ap);
    va_end(ap);
    return s;
}

#define CHECK(ok, status, ...)                                                                                                             \
    do {                                                                                                                                   \
        if (!(ok))                                                                                                                         \
            return fail(CUDNN_STATUS_##status, __VA_ARGS__);                                                                               \
    } while (0)
#define PASS(call)                                                                                                                         \
    do {                                                                                                                                   \
        cudnnStatus_t pass_ = (call);                                                                                                      \
        if (pass_ != CUDNN_STATUS_SUCCESS)                                                                                                 \
            return pass_;                                                                                                                  \
    } while (0)

static cudnnStatus_t driver_status(CUresult r)
{
    switch (r) {
    case CUDA_SUCCESS: return CUDNN_STATUS_SUCCESS;
    case CUDA_ERROR_OUT_OF_MEMORY: return fail(CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, "cudaErrorMemoryAllocation");
    case CUDA_ERROR_NOT_INITIALIZED:
    case CUDA_ERROR_INVALID_CONTEXT: return fail(CUDNN_STATUS_NOT_INITIALIZED, "cudaErrorInitializationError");
    default: return fail(CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER, "driver error %d", (int)r);
    }
}

/* ---- descriptors and their attributes */

/* Every attribute that is known: what it belongs to, its type, how many elements, and whether a descriptor needs it. */
static const struct rule {
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t least, most;
    bool needed;
} rules[] = {
#define RULE(of, name, type, least, most, needed)                                                                                          \
    {                                                                                                                                      \
        CUDNN_BACKEND_##of##_DESCRIPTOR, CUDNN_ATTR_##name, CUDNN_TYPE_##type, least, most, needed                                         \
    }
    RULE(TENSOR, TENSOR_DATA_TYPE, DATA_TYPE, 1, 1, true),
    RULE(TENSOR, TENSOR_DIMENSIONS, INT64, CUDNN_RANK, CUDNN_RANK, true),
    RULE(TENSOR, TENSOR_STRIDES, INT64, CUDNN_RANK, CUDNN_RANK, true),
    RULE(TENSOR, TENSOR_UNIQUE_ID, INT64, 1, 1, true),
    RULE(TENSOR, TENSOR_BYTE_ALIGNMENT, INT64, 1, 1, true),
    RULE(TENSOR, TENSOR_IS_VIRTUAL, BOOLEAN, 1, 1, false),
    RULE(TENSOR, TENSOR_IS_BY_VALUE, BOOLEAN, 1, 1, false),
    RULE(CONVOLUTION, CONVOLUTION_COMP_TYPE, DATA_TYPE, 1, 1, true),
    RULE(CONVOLUTION, CONVOLUTION_CONV_MODE, CONVOLUTION_MODE, 1, 1, true),
    RULE(CONVOLUTION, CONVOLUTION_SPATIAL_DIMS, INT64, 1, 1, true),
    RULE(CONVOLUTION, CONVOLUTION_DILATIONS, INT64, 2, 2, true),
    RULE(CONVOLUTION, CONVOLUTION_FILTER_STRIDES, INT64, 2, 2, true),
    RULE(CONVOLUTION, CONVOLUTION_PRE_PADDINGS, INT64, 2, 2, true),
    RULE(CONVOLUTION, CONVOLUTION_POST_PADDINGS, INT64, 2, 2, true),
    RULE(POINTWISE, POINTWISE_MODE, POINTWISE_MODE, 1, 1, true),
    RULE(POINTWISE, POINTWISE_MATH_PREC, DATA_TYPE, 1, 1, true),
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_CONV_DESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_X, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_W, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_Y, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_ALPHA, FLOAT, 1, 1, true),
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_BETA, FLOAT, 1, 1, true),
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_PW_DESCRIPTOR, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_XDESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_BDESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_YDESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_QDESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_KDESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_VDESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_ODESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_SCALEDESC, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(OPERATIONGRAPH, OPERATIONGRAPH_HANDLE, HANDLE, 1, 1, true),
    RULE(OPERATIONGRAPH, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, 1, OPS_MAX, true),
    RULE(ENGINEHEUR, ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(ENGINEHEUR, ENGINEHEUR_MODE, HEUR_MODE, 1, 1, true),
    RULE(EXECUTION_PLAN, EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, 1, 1, true),
    RULE(EXECUTION_PLAN, EXECUTION_PLAN_HANDLE, HANDLE, 1, 1, true),
    RULE(VARIANT_PACK, VARIANT_PACK_UNIQUE_IDS, INT64, 1, IDS_MAX, true),
    RULE(VARIANT_PACK, VARIANT_PACK_DATA_POINTERS, VOID_PTR, 1, IDS_MAX, true),
    RULE(VARIANT_PACK, VARIANT_PACK_WORKSPACE, VOID_PTR, 1, 1, false),
#undef RULE
};

static size_t element_bytes(cudnnBackendAttributeType_t t)
{
    switch (t) {
    case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
    case CUDNN_TYPE_INT64: return sizeof(int64_t);
    case CUDNN_TYPE_FLOAT: return sizeof(float);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return sizeof(void *);
    default: return sizeof(int); /* the enums */
    }
}

static const struct attribute *find(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    for (int i = 0; i < d->n; i++)
        if (d->attributes[i].name == name)
            return &d->attributes[i];
    return NULL;
}

static const void *value(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    const struct attribute *a = find(d, name);
    return a ? a->data : NULL;
}

static int64_t int_of(const struct descriptor *d, cudnnBackendAttributeName_t name) { return *(const int64_t *)value(d, name); }

static int enum_of(const struct descriptor *d, cudnnBackendAttributeName_t name) { return *(const int *)value(d, name); }

static struct descriptor *part(const struct descriptor *d, cudnnBackendAttributeName_t name)
{
    return *(struct descriptor *const *)value(d, name);
}

static void unref(struct descriptor *d)
{
    if (!d || __atomic_sub_fetch(&d->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (int i = 0; i < d->n; i++) {
        for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
            if (rules[r].of == d->type && rules[r].name == d->attributes[i].name && rules[r].type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
                for (int64_t k = 0; k < d->attributes[i].n; k++)
                    unref(((struct descriptor **)d->attributes[i].data)[k]);
        free(d->attributes[i].data);
    }
    unref(d->graph);
    free(d);
}

static struct descriptor *ref(struct descriptor *d)
{
    if (d)
        __atomic_add_fetch(&d->refs, 1, __ATOMIC_RELAXED);
    return d;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *ret)
{
    bool known = type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR || type == CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    PASS(driver_status(vgpu_enter("cudnnBackendCreateDescriptor")));
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
        known = known || rules[r].of == type;
    CHECK(known, NOT_SUPPORTED, "descriptor type %d is not simulated", (int)type);
    struct descriptor *d = calloc(1, sizeof *d);
    CHECK(d, INTERNAL_ERROR_HOST_ALLOCATION_FAILED, "out of memory");
    d->refs = 1;
    d->type = type;
    *ret = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    CHECK(d, BAD_PARAM_NULL_POINTER, "destroy: no descriptor");
    unref(d);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n, const void *data)
{
    struct descriptor *d = descriptor;
    const struct rule *rule = NULL;
    CHECK(d && data, BAD_PARAM_NULL_POINTER, "set attribute %d: no descriptor or no data", (int)name);
    CHECK(!d->final, BAD_PARAM, "set attribute %d: the descriptor is finalised", (int)name);
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
        if (rules[r].of == d->type && rules[r].name == name)
            rule = &rules[r];
    CHECK(rule, NOT_SUPPORTED, "descriptor type %d has no attribute %d here", (int)d->type, (int)name);
    CHECK(rule->type == type, BAD_PARAM_ATTRIBUTE_TYPE, "attribute %d has another type than %d", (int)name, (int)type);
    CHECK(n >= rule->least && n <= rule->most, BAD_PARAM, "attribute %d with %lld elements", (int)name, (long long)n);
    CHECK(!find(d, name), BAD_PARAM, "attribute %d is set already", (int)name);
    size_t bytes = (size_t)n * element_bytes(type);
    void *copy = malloc(bytes);
    CHECK(copy, INTERNAL_ERROR_HOST_ALLOCATION_FAILED, "out of memory");
    memcpy(copy, data, bytes);
    bool parts = type == CUDNN_TYPE_BACKEND_DESCRIPTOR, whole = true;
    for (int64_t k = 0; parts && k < n; k++)
        whole = whole && ((struct descriptor **)copy)[k] &&
                (((struct descriptor **)copy)[k]->final || ((struct descriptor **)copy)[k]->type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (!whole) {
        free(copy);
        return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "attribute %d: a descriptor that is not finalised", (int)name);
    }
    for (int64_t k = 0; parts && k < n; k++)
        ref(((struct descriptor **)copy)[k]);
    d->attributes[d->n++] = (struct attribute){name, n, copy};
    return CUDNN_STATUS_SUCCESS;
}

/* ---- what a graph computes */

static struct cudnn_tensor tensor_of(const struct descriptor *d)
{
    struct cudnn_tensor t = {.id = int_of(d, CUDNN_ATTR_TENSOR_UNIQUE_ID),
                             .align = int_of(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT),
                             .type = (cudnnDataType_t)enum_of(d, CUDNN_ATTR_TENSOR_DATA_TYPE)};
    const bool *between = value(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL), *by_value = value(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
    memcpy(t.dim, value(d, CUDNN_ATTR_TENSOR_DIMENSIONS), sizeof t.dim);
    memcpy(t.stride, value(d, CUDNN_ATTR_TENSOR_STRIDES), sizeof t.stride);
    t.between = between && *between;
    t.by_value = by_value && *by_value;
    return t;
}

static bool is_float(cudnnDataType_t t) { return t == CUDNN_DATA_FLOAT || t == CUDNN_DATA_HALF || t == CUDNN_DATA_BFLOAT16; }

static cudnnStatus_t tensor_check(const struct descriptor *d)
{
    struct cudnn_tensor t = tensor_of(d);
    CHECK(is_float(t.type), NOT_SUPPORTED_DATA_TYPE, "tensor of data type %d", (int)t.type);
    CHECK(t.align > 0 && !(t.align & (t.align - 1)), BAD_PARAM, "tensor: alignment of %lld", (long long)t.align);
    for (int i = 0; i < CUDNN_RANK; i++)
        CHECK(t.dim[i] > 0 && t.stride[i] > 0, BAD_PARAM, "tensor: dimension %d is %lld, %lld apart", i, (long long)t.dim[i],
              (long long)t.stride[i]);
    return CUDNN_STATUS_SUCCESS;
}

/* conv_of reads a convolution's operation; its result may be between two. */
static struct cudnn_conv conv_of(const struct descriptor *op)
{
    const struct descriptor *how = part(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
    struct cudnn_conv c = {.x = tensor_of(part(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X)),
                           .w = tensor_of(part(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W)),
                           .y = tensor_of(part(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y))};
    memcpy(c.stride, value(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES), sizeof c.stride);
    memcpy(c.before, value(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS), sizeof c.before);
    memcpy(c.after, value(how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS), sizeof c.after);
    return c;
}

static cudnnStatus_t conv_check(const struct descriptor *op)
{
    const struct descriptor *how = part(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
    const int64_t *dilation = value(how, CUDNN_ATTR_CONVOLUTION_DILATIONS);
    struct cudnn_conv c = conv_of(op);
    CHECK(dilation[0] == 1 && dilation[1] == 1, NOT_SUPPORTED, "convolution: dilated");
    CHECK(enum_of(how, CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CROSS_CORRELATION, NOT_SUPPORTED, "convolution: not a cross correlation");
    CHECK(enum_of(how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE) == CUDNN_DATA_FLOAT, NOT_SUPPORTED, "convolution: not in float");
    CHECK(*(const float *)value(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA) == 1 &&
              *(const float *)value(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA) == 0,
          NOT_SUPPORTED, "convolution: alpha is not 1 or beta not 0");
    CHECK(c.x.dim[0] == c.y.dim[0] && c.x.dim[1] == c.w.dim[1] && c.y.dim[1] == c.w.dim[0], BAD_PARAM_SHAPE_MISMATCH,
          "convolution: samples or channels do not match");
    for (int i = 0; i < 2; i++) {
        int64_t room = c.x.dim[2 + i] + c.before[i] + c.after[i] - c.w.dim[2 + i];
        CHECK(c.stride[i] > 0 && c.before[i] >= 0 && c.after[i] >= 0 && room >= 0, BAD_PARAM, "convolution: stride or padding");
        CHECK(c.y.dim[2 + i] == room / c.stride[i] + 1, BAD_PARAM_SHAPE_MISMATCH, "convolution: y has %lld pixels, should have %lld",
              (long long)c.y.dim[2 + i], (long long)(room / c.stride[i] + 1));
    }
    return CUDNN_STATUS_SUCCESS;
}

static struct cudnn_sdpa sdpa_of(const struct descriptor *op)
{
    return (struct cudnn_sdpa){.q = tensor_of(part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC)),
                               .k = tensor_of(part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC)),
                               .v = tensor_of(part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC)),
                               .o = tensor_of(part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC))};
}

static cudnnStatus_t sdpa_check(const struct descriptor *op)
{
    struct cudnn_sdpa s = sdpa_of(op);
    struct cudnn_tensor scale = tensor_of(part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC));
    CHECK(scale.by_value && scale.type == CUDNN_DATA_FLOAT, NOT_SUPPORTED, "attention: the scale is not a float on the host");
    for (int i = 0; i < CUDNN_RANK; i++) {
        CHECK(s.q.dim[i] == s.o.dim[i] && s.k.dim[i] == s.v.dim[i], BAD_PARAM_SHAPE_MISMATCH, "attention: dimension %d", i);
        CHECK(i == 2 || s.q.dim[i] == s.k.dim[i], BAD_PARAM_SHAPE_MISMATCH, "attention: dimension %d of the keys", i);
    }
    return CUDNN_STATUS_SUCCESS;
}

static struct descriptor *const *ops_of(const struct descriptor *graph, int64_t *n)
{
    const struct attribute *a = find(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    *n = a->n;
    return a->data;
}

/* graph_sum reads one sum behind C: with a residual, or with a bias that ends the graph. */
static bool graph_sum(const struct descriptor *op, bool last, struct cudnn_conv *c)
{
    if (op->type != CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR ||
        enum_of(part(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR), CUDNN_ATTR_POINTWISE_MODE) != CUDNN_POINTWISE_ADD)
        return false;
    struct cudnn_tensor from = tensor_of(part(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    struct cudnn_tensor with = tensor_of(part(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
    struct cudnn_tensor to = tensor_of(part(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    int64_t one[CUDNN_RANK] = {1, to.dim[1], 1, 1};
    if (!c->y.between || from.id != c->y.id || with.between || with.type != c->x.type || memcmp(to.dim, from.dim, sizeof to.dim) ||
        memcmp(with.dim, last ? one : to.dim, sizeof with.dim) || with.stride[1] != 1)
        return false;
    *(last ? &c->bias : &c->z) = with;
    c->y = to;
    return true;
}

/* graph_conv reads a graph of a convolution, with or without a residual and a bias; false: it is something else. */
static bool graph_conv(const struct descriptor *graph, struct cudnn_conv *ret)
{
    int64_t n;
    struct descriptor *const *op = ops_of(graph, &n);
    if (op[0]->type != CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
        return false;
    struct cudnn_conv c = conv_of(op[0]);
    for (int64_t i = 1; i < n; i++)
        if (!graph_sum(op[i], i == n - 1, &c))
            return false;
    bool memory = !c.x.between && !c.w.between && !c.y.between, one_type = c.x.type == c.w.type && c.x.type == c.y.type;
    *ret = c;
    return memory && one_type && c.x.stride[1] == 1 && c.w.stride[1] == 1 && c.y.stride[1] == 1;
}

static bool graph_sdpa(const struct descriptor *graph, struct cudnn_sdpa *ret)
{
    enum { STEP = 8, DIM_MAX = 512 };
    int64_t n;
    struct descriptor *const *op = ops_of(graph, &n);
    if (n != 1 || op[0]->type != CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR)
        return false;
    struct cudnn_sdpa s = sdpa_of(op[0]);
    const struct cudnn_tensor *all[] = {&s.q, &s.k, &s.v, &s.o};
    *ret = s;
    for (int i = 0; i < 4; i++)
        if (all[i]->type != s.q.type || all[i]->between || all[i]->stride[3] != 1 || all[i]->stride[2] % STEP || all[i]->stride[1] % STEP)
            return false;
    return s.q.type != CUDNN_DATA_FLOAT && s.q.dim[3] % STEP == 0 && s.q.dim[3] <= DIM_MAX;
}

static bool is_conv(const struct descriptor *graph)
{
    struct cudnn_conv c;
    return graph_conv(graph, &c);
}

static bool supported(const struct descriptor *graph)
{
    struct cudnn_sdpa s;
    return is_conv(graph) || graph_sdpa(graph, &s);
}

/* ---- finalising */

static cudnnStatus_t plan_check(const struct descriptor *d)
{
    const struct descriptor *config = part(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    CHECK(config->graph, BAD_PARAM_NOT_FINALIZED, "plan: the configuration is empty");
    CHECK(config->engine != ENGINE_REFUSES, NOT_SUPPORTED, "plan: this engine does not support the graph");
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t pack_check(const struct descriptor *d)
{
    const struct attribute *ids = find(d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS), *at = find(d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    CHECK(ids->n == at->n, BAD_PARAM, "addresses: %lld of %lld ids", (long long)at->n, (long long)ids->n);
    for (int64_t i = 0; i < at->n; i++)
        CHECK(((void *const *)at->data)[i], BAD_PARAM_NULL_POINTER, "addresses: number %lld is NULL", (long long)i);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    struct descriptor *d = descriptor;
    PASS(driver_status(vgpu_enter("cudnnBackendFinalize")));
    CHECK(d, BAD_PARAM_NULL_POINTER, "finalize: no descriptor");
    CHECK(!d->final, BAD_PARAM, "finalize: finalised already");
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
        CHECK(rules[r].of != d->type || !rules[r].needed || find(d, rules[r].name), BAD_PARAM, "finalize: attribute %d is not set",
              (int)rules[r].name);
    switch (d->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR: PASS(tensor_check(d)); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: PASS(conv_check(d)); break;
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR: PASS(sdpa_check(d)); break;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: PASS(plan_check(d)); break;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR: PASS(pack_check(d)); break;
    default: break;
    }
    d->final = true;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- heuristics, engines, plans */

/* offered lists the engines of a mode: what serves comes at once for a convolution, and late for attention. */
static int64_t offered(const struct descriptor *heuristic, enum engine ret[ENGINES])
{
    const struct descriptor *graph = part(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    int mode = enum_of(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE);
    int64_t n = 0;
    if (!supported(graph) || mode == CUDNN_HEUR_MODE_B)
        return 0;
    if (mode == CUDNN_HEUR_MODE_A)
        for (enum engine e = ENGINE_UNSTEADY; e <= ENGINE_GREEDY; e++)
            ret[n++] = e;
    if (mode == CUDNN_HEUR_MODE_FALLBACK || is_conv(graph))
        ret[n++] = ENGINE_GOOD;
    return n;
}

static int64_t workspace_of(const struct descriptor *plan)
{
    const struct descriptor *config = part(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    if (config->engine == ENGINE_GREEDY)
        return (int64_t)64 << 30;
    return is_conv(config->graph) ? 131 : 256;
}

static cudnnStatus_t get_results(const struct descriptor *d, int64_t room, int64_t *n, cudnnBackendDescriptor_t *to)
{
    enum engine engines[ENGINES];
    int64_t count = offered(d, engines);
    for (int64_t i = 0; i < room && i < count; i++) {
        struct descriptor *config = to[i];
        CHECK(config && config->type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, BAD_PARAM_DESCRIPTOR_TYPE, "results: not a configuration");
        unref(config->graph);
        config->graph = ref(part(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
        config->engine = engines[i];
        config->final = true;
    }
    *n = room ? (room < count ? room : count) : count;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t get_engine(const struct descriptor *config, cudnnBackendDescriptor_t *to, int64_t *n)
{
    struct descriptor *engine = *to;
    CHECK(config->graph && engine && engine->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR, BAD_PARAM_DESCRIPTOR_TYPE, "engine: not an engine");
    unref(engine->graph);
    engine->graph = ref(config->graph);
    engine->engine = config->engine;
    engine->final = true;
    *n = 1;
    return CUDNN_STATUS_SUCCESS;
}

static int64_t get_notes(const struct descriptor *engine, int64_t room, int *to)
{
    struct cudnn_conv c;
    int64_t n = 0;
    bool sixteen = !graph_conv(engine->graph, &c) || c.x.type != CUDNN_DATA_FLOAT;
    if (room > n && (sixteen || engine->engine == ENGINE_GREEDY))
        to[n++] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    if (room > n && engine->engine == ENGINE_UNSTEADY)
        to[n++] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    return n;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room, int64_t *n, void *to)
{
    const struct descriptor *d = descriptor;
    CHECK(d && n, BAD_PARAM_NULL_POINTER, "get attribute %d: no descriptor or no count", (int)name);
    CHECK(d->final, BAD_PARAM_NOT_FINALIZED, "get attribute %d: not finalised", (int)name);
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR && d->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
        return get_results(d, room, n, to);
    CHECK(room >= 1 && to, BAD_PARAM, "get attribute %d: no room", (int)name);
    if (name == CUDNN_ATTR_ENGINECFG_ENGINE && type == CUDNN_TYPE_BACKEND_DESCRIPTOR && d->type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
        return get_engine(d, to, n);
    *n = 1;
    if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX && type == CUDNN_TYPE_INT64 && d->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR)
        *(int64_t *)to = (int64_t)d->engine;
    else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && type == CUDNN_TYPE_NUMERICAL_NOTE && d->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR)
        *n = get_notes(d, room, to);
    else if (name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE && type == CUDNN_TYPE_BEHAVIOR_NOTE && d->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR) {
        *n = is_conv(d->graph) ? 0 : 1;
        *(int *)to = CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64 &&
               d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        *(int64_t *)to = workspace_of(d);
    else
        return fail(CUDNN_STATUS_NOT_SUPPORTED, "descriptor type %d has no attribute %d here", (int)d->type, (int)name);
    return CUDNN_STATUS_SUCCESS;
}

/* ---- running */

/* place looks T's address up in PACK. */
static cudnnStatus_t place(struct cudnn_tensor *t, const struct descriptor *pack)
{
    const struct attribute *ids = find(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    void *const *at = value(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    for (int64_t i = 0; i < ids->n; i++)
        if (((const int64_t *)ids->data)[i] == t->id)
            t->at = at[i];
    CHECK(t->at, BAD_PARAM_NULL_POINTER, "run: tensor %lld has no address", (long long)t->id);
    CHECK((uintptr_t)t->at % (uintptr_t)t->align == 0, BAD_PARAM_MISALIGNED_POINTER, "run: tensor %lld is not aligned to %lld bytes",
          (long long)t->id, (long long)t->align);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t run_conv(cudnnHandle_t handle, struct cudnn_conv *c, const struct descriptor *pack)
{
    PASS(place(&c->x, pack));
    PASS(place(&c->w, pack));
    PASS(place(&c->y, pack));
    if (c->bias.dim[0])
        PASS(place(&c->bias, pack));
    if (c->z.dim[0])
        PASS(place(&c->z, pack));
    return driver_status(vgpu_work(handle->stream, cudnn_run_conv, c, sizeof *c));
}

static cudnnStatus_t run_sdpa(cudnnHandle_t handle, const struct descriptor *op, struct cudnn_sdpa *s, const struct descriptor *pack)
{
    struct cudnn_tensor scale = tensor_of(part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC));
    PASS(place(&s->q, pack));
    PASS(place(&s->k, pack));
    PASS(place(&s->v, pack));
    PASS(place(&s->o, pack));
    PASS(place(&scale, pack));
    s->scale = *(const float *)scale.at;
    return driver_status(vgpu_work(handle->stream, cudnn_run_sdpa, s, sizeof *s));
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t variant_pack)
{
    const struct descriptor *p = plan, *pack = variant_pack;
    PASS(driver_status(vgpu_enter("cudnnBackendExecute")));
    CHECK(handle && p && pack, BAD_PARAM_NULL_POINTER, "run: no handle, plan or addresses");
    CHECK(p->final && pack->final && p->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR &&
              pack->type == CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
          BAD_PARAM_NOT_FINALIZED, "run: not a finalised plan and finalised addresses");
    const struct descriptor *config = part(p, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    CHECK(config->engine == ENGINE_GOOD, INTERNAL_ERROR, "run: an engine that should not have been taken");
    const void *const *workspace = value(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    CHECK(workspace && *workspace, BAD_PARAM_NULL_POINTER, "run: the plan needs a workspace");
    struct cudnn_conv c = {0};
    struct cudnn_sdpa s = {0};
    int64_t n;
    if (graph_conv(config->graph, &c)) {
        c.workspace = *workspace;
        c.workspace_bytes = workspace_of(p);
        return run_conv(handle, &c, pack);
    }
    CHECK(graph_sdpa(config->graph, &s), NOT_SUPPORTED_GRAPH_PATTERN, "run: unknown graph");
    s.workspace = *workspace;
    s.workspace_bytes = workspace_of(p);
    return run_sdpa(handle, ops_of(config->graph, &n)[0], &s, pack);
}

/* ---- the library */

size_t cudnnGetVersion(void) { return CUDNN_VERSION; }

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    static _Thread_local char text[40];
    snprintf(text, sizeof text, "CUDNN_STATUS %d (simulated)", (int)status);
    return text;
}

void cudnnGetLastErrorString(char *message, size_t max_size) { snprintf(message, max_size, "%s", last_words); }

cudnnStatus_t cudnnCreate(cudnnHandle_t *ret)
{
    PASS(driver_status(vgpu_enter("cudnnCreate")));
    CHECK(ret, BAD_PARAM_NULL_POINTER, "create: no place for the handle");
    struct cudnnContext *c = calloc(1, sizeof *c);
    CHECK(c, INTERNAL_ERROR_HOST_ALLOCATION_FAILED, "out of memory");
    *ret = c;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    PASS(driver_status(vgpu_enter("cudnnSetStream")));
    CHECK(handle, BAD_PARAM_NULL_POINTER, "stream: no handle");
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}
