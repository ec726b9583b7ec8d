#include "worker/backend/cuda/dnn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/backend/cuda/cuda.h"

enum { CONFIGS_MAX = 64 };

enum status dnn_fail(struct error *err, cudnnStatus_t s, const char *what)
{
    char words[256] = "";
    cudnnGetLastErrorString(words, sizeof words);
    const char *name = cudnnGetErrorString(s);
    switch (s) {
    case CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED:
    case CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED: return FAIL(err, OUT_OF_MEMORY, "cuDNN: %s: %s %s", what, name, words);
    default: break;
    }
    int category = CUDNN_STATUS_CATEGORY((int)s);
    if (category == CUDNN_STATUS_NOT_SUPPORTED)
        return FAIL(err, UNSUPPORTED, "cuDNN: %s: %s %s", what, name, words);
    if (category == 1000)
        return FAIL(err, NOT_AVAILABLE, "cuDNN: %s: %s %s; are all of its libraries there, of one version?", what, name, words);
    return FAIL(err, INTERNAL, "cuDNN: %s: %s %s", what, name, words);
}

struct dnn_shape dnn_shape_new(enum dnn_kind kind)
{
    struct dnn_shape s;
    memset(&s, 0, sizeof s);
    s.kind = (int32_t)kind;
    return s;
}

struct dnn_text dnn_shape_text(const struct dnn_shape *shape)
{
    struct dnn_text t;
    const struct conv_shape *c = &shape->conv;
    const struct sdpa_shape *s = &shape->sdpa;
    if (shape->kind == DNN_CONV)
        snprintf(t.s, sizeof t.s, "conv2d %s %dx%dx%dx%d (ld %d) -> %dx%dx%d (ld %d), kernel %dx%d, stride %d, padding %d %d %d %d%s",
                 dtype_name((enum dtype)c->dtype), c->n, c->h, c->w, c->cin, c->x_ld, c->y_h, c->y_w, c->cout, c->y_ld, c->kh, c->kw,
                 c->stride, c->pad_top, c->pad_left, c->pad_bottom, c->pad_right,
                 c->z_ld   ? ", bias, residual"
                 : c->bias ? ", bias"
                           : "");
    else
        snprintf(t.s, sizeof t.s, "attention %s %d x %d heads of %d, %d queries (ld %d), %d keys (ld %d %d), to ld %d",
                 dtype_name((enum dtype)s->dtype), s->n, s->heads, s->dim, s->tq, s->q_ld, s->tk, s->k_ld, s->v_ld, s->y_ld);
    return t;
}

/* ---- from a graph to a plan */

static void destroy(cudnnBackendDescriptor_t d)
{
    if (d)
        cudnnBackendDestroyDescriptor(d);
}

void dnn_plan_free(struct dnn_plan *p)
{
    destroy(p->plan);
    destroy(p->config);
    destroy(p->graph);
    *p = (struct dnn_plan){0};
}

struct configs {
    cudnnBackendDescriptor_t heuristic, at[CONFIGS_MAX];
    int64_t n;
};

static void configs_drop(struct configs *c)
{
    for (int64_t i = 0; i < CONFIGS_MAX; i++)
        destroy(c->at[i]);
    destroy(c->heuristic);
    *c = (struct configs){0};
}

/* fine tells whether S is success; WORST keeps the first failure that is not an engine's mere lack of support. */
static bool fine(cudnnStatus_t s, cudnnStatus_t *worst)
{
    if (CUDNN_STATUS_CATEGORY((int)s) >= CUDNN_STATUS_INTERNAL_ERROR && *worst == CUDNN_STATUS_SUCCESS)
        *worst = s;
    return s == CUDNN_STATUS_SUCCESS;
}

/* configs_get asks the heuristics of MODE for engine configurations of GRAPH, the best first. None is no failure. */
static void configs_get(struct dnn_where where, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode, struct configs *ret,
                        cudnnStatus_t *worst)
{
    const cudnnBackendAttributeType_t part = CUDNN_TYPE_BACKEND_DESCRIPTOR;
    struct configs c = {0};
    int64_t n = 0;
    bool ok = fine(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &c.heuristic), worst) &&
              fine(cudnnBackendSetAttribute(c.heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, part, 1, &graph), worst) &&
              fine(cudnnBackendSetAttribute(c.heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode), worst);
    if (ok && !where.handle)
        ok = fine(cudnnBackendSetAttribute(c.heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, part, 1, &where.properties), worst);
    ok = ok && fine(cudnnBackendFinalize(c.heuristic), worst) &&
         fine(cudnnBackendGetAttribute(c.heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, part, 0, &n, NULL), worst);
    n = n < CONFIGS_MAX ? n : CONFIGS_MAX;
    for (int64_t i = 0; ok && i < n; i++)
        ok = fine(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &c.at[i]), worst);
    if (ok && n > 0 && fine(cudnnBackendGetAttribute(c.heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, part, n, &n, c.at), worst))
        c.n = n;
    *ret = c;
}

/* notes_of returns the notes of one kind that ENGINE has, a bit each; all bits if it does not tell. */
static uint32_t notes_of(cudnnBackendDescriptor_t engine, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type)
{
    int note[32] = {0}; /* both kinds are enums of int */
    int64_t n = 0;
    uint32_t bits = 0;
    if (cudnnBackendGetAttribute(engine, name, type, 32, &n, note))
        return UINT32_MAX;
    for (int64_t i = 0; i < n && i < 32; i++)
        bits |= 1u << (note[i] & 31);
    return bits;
}

static bool describe(struct dnn_plan *p, cudnnBackendDescriptor_t config)
{
    cudnnBackendDescriptor_t engine = NULL;
    int64_t n = 0;
    bool ok = !cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) &&
              !cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine) &&
              !cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &p->engine);
    if (ok) {
        p->numerics = notes_of(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE);
        p->behavior = notes_of(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE);
    }
    destroy(engine);
    return ok;
}

/* exact tells whether an engine with these notes computes in float32 (TF32 is less) and the same in every run. */
static bool exact(uint32_t numerics, enum dtype t)
{
    uint32_t bad = 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC | 1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS |
                   1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION | 1u << CUDNN_NUMERICAL_NOTE_FFT |
                   1u << CUDNN_NUMERICAL_NOTE_WINOGRAD | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4 |
                   1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6 | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13;
    if (t == DT_F32)
        bad |= 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    return !(numerics & bad);
}

/* finalize makes the plan of CONFIG: false if its engine cannot, or wants too much memory. */
static bool finalize(struct dnn_where where, cudnnBackendDescriptor_t config, struct dnn_plan *p, cudnnStatus_t *worst)
{
    const cudnnBackendAttributeType_t part = CUDNN_TYPE_BACKEND_DESCRIPTOR;
    int64_t n = 0, bytes = 0;
    cudnnBackendDescriptor_t d = NULL;
    bool ok = fine(cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &d), worst) &&
              fine(cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, part, 1, &config), worst);
    if (ok && where.handle)
        ok = fine(cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &where.handle), worst);
    else if (ok)
        ok = fine(cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, part, 1, &where.properties), worst);
    ok = ok && fine(cudnnBackendFinalize(d), worst) &&
         fine(cudnnBackendGetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &bytes), worst) &&
         bytes <= DNN_WORKSPACE_MAX;
    if (!ok) {
        destroy(d);
        return false;
    }
    p->plan = d;
    p->workspace = (size_t)bytes;
    return true;
}

/* first_plan takes the first configuration in C that serves; COMPILED: of those that compile at run time, else of those that do not. */
static bool first_plan(struct dnn_where where, enum dtype t, struct configs *c, bool compiled, struct dnn_plan *p, cudnnStatus_t *worst)
{
    for (int64_t i = 0; i < c->n; i++) {
        if (!describe(p, c->at[i]) || !exact(p->numerics, t))
            continue;
        if ((p->behavior >> CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION & 1) != compiled || !finalize(where, c->at[i], p, worst))
            continue;
        p->config = c->at[i];
        c->at[i] = NULL;
        return true;
    }
    return false;
}

enum status dnn_plan_new(struct dnn_where where, const struct dnn_shape *shape, struct dnn_plan *ret, struct error *err)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK};
    struct dnn_plan p = {0};
    enum dtype t = (enum dtype)(shape->kind == DNN_CONV ? shape->conv.dtype : shape->sdpa.dtype);
    p.addresses = shape->kind == DNN_SDPA ? DNN_SDPA_COUNT : shape->conv.z_ld ? DNN_Z + 1 : shape->conv.bias ? DNN_Z : DNN_BIAS;
    int passes = shape->kind == DNN_CONV && shape->conv.bias ? 3 : 6; /* what a kernel of our own can add is not worth compiling for */
    enum status s = dnn_graph_new(where, shape, &p.graph, err);
    if (s != ST_OK)
        return error_prefix(err, "%s", dnn_shape_text(shape).s);
    cudnnStatus_t worst = CUDNN_STATUS_SUCCESS;
    bool found = false;
    for (int pass = 0; pass < passes && !found; pass++) {
        struct configs c;
        configs_get(where, p.graph, modes[pass % 3], &c, &worst);
        found = first_plan(where, t, &c, pass >= 3, &p, &worst);
        configs_drop(&c);
    }
    if (!found) {
        dnn_plan_free(&p);
        if (worst != CUDNN_STATUS_SUCCESS)
            return dnn_fail(err, worst, dnn_shape_text(shape).s);
        return FAIL(err, UNSUPPORTED, "%s: no engine of cuDNN %zu has a plan", dnn_shape_text(shape).s, cudnnGetVersion());
    }
    *ret = p;
    return ST_OK;
}

/* ---- on a device */

struct entry {
    struct entry *next;
    struct dnn_shape shape;
    struct dnn_plan plan; /* of no graph: there is none, and no use in looking again */
};
struct dnn {
    cudnnHandle_t handle; /* NULL until a plan is asked for: an idle device holds none of cuDNN's memory */
    struct entry *entries;
};

enum status dnn_open(struct cuda_backend *b, struct dnn **ret, struct error *err)
{
    (void)b;
    struct dnn *d = calloc(1, sizeof *d);
    if (!d)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for cuDNN's plans");
    *ret = d;
    return ST_OK;
}

void dnn_close(struct dnn *d)
{
    if (!d)
        return;
    while (d->entries) {
        struct entry *e = d->entries;
        d->entries = e->next;
        dnn_plan_free(&e->plan);
        free(e);
    }
    if (d->handle)
        cudnnDestroy(d->handle);
    free(d);
}

static enum status handle_open(struct cuda_backend *b, struct error *err)
{
    cudnnHandle_t handle = NULL;
    if (b->dnn->handle)
        return ST_OK;
    DNN(err, "open", cudnnCreate(&handle));
    cudnnStatus_t s = cudnnSetStream(handle, b->stream);
    if (s != CUDNN_STATUS_SUCCESS) {
        cudnnDestroy(handle);
        return dnn_fail(err, s, "stream");
    }
    b->dnn->handle = handle;
    return ST_OK;
}

/* entry_new makes the plan of SHAPE, or notes that there is none. */
static enum status entry_new(struct cuda_backend *b, const struct dnn_shape *shape, struct entry **ret, struct error *err)
{
    struct dnn *d = b->dnn;
    struct entry *e = calloc(1, sizeof *e);
    if (!e)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a plan of cuDNN");
    e->shape = *shape;
    enum status s = dnn_plan_new((struct dnn_where){.handle = d->handle}, shape, &e->plan, err);
    if (s != ST_OK && s != ST_UNSUPPORTED) {
        free(e);
        return s;
    }
    e->next = d->entries;
    d->entries = e;
    *ret = e;
    return ST_OK;
}

enum status dnn_plan_of(struct cuda_backend *b, const struct dnn_shape *shape, const struct dnn_plan **ret, struct error *err)
{
    TRY(handle_open(b, err));
    struct entry *e = b->dnn->entries;
    while (e && memcmp(&e->shape, shape, sizeof *shape))
        e = e->next;
    if (!e)
        TRY(entry_new(b, shape, &e, err));
    if (!e->plan.plan)
        return FAIL(err, UNSUPPORTED, "%s: no engine of cuDNN %zu has a plan", dnn_shape_text(shape).s, cudnnGetVersion());
    *ret = &e->plan;
    return ST_OK;
}

void dnn_pack_drop(struct dnn_pack *p)
{
    destroy(p->pack);
    *p = (struct dnn_pack){0};
}

static enum status pack_make(struct dnn_pack *p, const struct dnn_plan *plan, const void *const *at, const void *workspace,
                             struct error *err)
{
    static const int64_t ids[DNN_ADDRESSES_MAX] = {0, 1, 2, 3, 4};
    int64_t n = plan->addresses;
    dnn_pack_drop(p);
    DNN(err, "addresses", cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &p->pack));
    DNN(err, "addresses", cudnnBackendSetAttribute(p->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids));
    DNN(err, "addresses", cudnnBackendSetAttribute(p->pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, at));
    DNN(err, "addresses", cudnnBackendSetAttribute(p->pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace));
    DNN(err, "addresses", cudnnBackendFinalize(p->pack));
    memcpy(p->at, at, (size_t)n * sizeof *at);
    p->workspace = workspace;
    return ST_OK;
}

enum status dnn_run(struct cuda_backend *b, const struct dnn_plan *plan, struct dnn_pack *pack, const void *const *at,
                    const void *workspace, struct error *err)
{
    if (plan->workspace == 0)
        workspace = NULL;
    if (!pack->pack || pack->workspace != workspace || memcmp(pack->at, at, (size_t)plan->addresses * sizeof *at)) {
        enum status s = pack_make(pack, plan, at, workspace, err);
        if (s != ST_OK) {
            dnn_pack_drop(pack);
            return s;
        }
    }
    DNN(err, "run", cudnnBackendExecute(b->dnn->handle, plan->plan, pack->pack));
    return ST_OK;
}
