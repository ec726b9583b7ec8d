/* From an op to a shape, from a shape to a graph of cuDNN operations. Nothing here needs a device. */
#include <string.h>

#include "worker/backend/check.h"
#include "worker/backend/cuda/dnn.h"

enum { PARTS_MAX = 16, RANK = 4, OPS_MAX = 3, PRODUCT = DNN_ADDRESSES_MAX, SUM };

/* A graph while it is built: every descriptor of it, destroyed together. The first failure is kept, later calls do nothing. */
struct build {
    cudnnBackendDescriptor_t part[PARTS_MAX], op[OPS_MAX];
    int n, n_ops;
    enum status status;
    struct error *err;
};

static void check(struct build *g, cudnnStatus_t s, const char *what)
{
    if (g->status == ST_OK && s != CUDNN_STATUS_SUCCESS)
        g->status = dnn_fail(g->err, s, what);
}

static cudnnBackendDescriptor_t part(struct build *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;
    if (g->status != ST_OK)
        return NULL;
    check(g, cudnnBackendCreateDescriptor(type, &d), "create a descriptor");
    if (d)
        g->part[g->n++] = d;
    return d;
}

static void set(struct build *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n,
                const void *v)
{
    if (g->status == ST_OK)
        check(g, cudnnBackendSetAttribute(d, name, type, n, v), "set an attribute");
}

static void set_int(struct build *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, int64_t v)
{
    set(g, d, name, CUDNN_TYPE_INT64, 1, &v);
}

static void set_part(struct build *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t v)
{
    set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v);
}

static void set_type(struct build *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnDataType_t v)
{
    set(g, d, name, CUDNN_TYPE_DATA_TYPE, 1, &v);
}

static void finalize(struct build *g, cudnnBackendDescriptor_t d, const char *what)
{
    if (g->status == ST_OK)
        check(g, cudnnBackendFinalize(d), what);
}

static cudnnDataType_t data_type(int32_t dtype)
{
    return dtype == DT_F16 ? CUDNN_DATA_HALF : dtype == DT_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* A tensor of the graph: cuDNN's order of dimensions is n, c, h, w, whatever the strides say. */
struct tensor_of {
    int64_t id, dim[RANK], stride[RANK];
    cudnnDataType_t type;
    int64_t align;
    bool between; /* two operations of the graph: not in memory */
    bool value;   /* on the host, read when the graph is enqueued */
};

static cudnnBackendDescriptor_t tensor(struct build *g, const struct tensor_of *t)
{
    cudnnBackendDescriptor_t d = part(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set_type(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, t->type);
    set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, RANK, t->dim);
    set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, RANK, t->stride);
    set_int(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, t->id);
    set_int(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, t->align);
    if (t->between)
        set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &t->between);
    if (t->value)
        set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &t->value);
    finalize(g, d, "tensor");
    return d;
}

/* picture returns a channels-last tensor of C channels, LD elements from pixel to pixel. */
static cudnnBackendDescriptor_t picture(struct build *g, int64_t id, cudnnDataType_t type, const int64_t dim[RANK], int64_t ld,
                                        bool between)
{
    struct tensor_of t = {.id = id, .type = type, .align = 16, .between = between};
    memcpy(t.dim, dim, sizeof t.dim);
    t.stride[0] = dim[2] * dim[3] * ld;
    t.stride[1] = 1;
    t.stride[2] = dim[3] * ld;
    t.stride[3] = ld;
    return tensor(g, &t);
}

static cudnnBackendDescriptor_t convolution(struct build *g, const struct conv_shape *c)
{
    int64_t dims = 2, one[2] = {1, 1}, stride[2] = {c->stride, c->stride};
    int64_t before[2] = {c->pad_top, c->pad_left}, after[2] = {c->pad_bottom, c->pad_right};
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    cudnnBackendDescriptor_t d = part(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set_type(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set_int(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, dims);
    set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, dims, one);
    set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, dims, stride);
    set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, dims, before);
    set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, dims, after);
    finalize(g, d, "convolution");
    return d;
}

static void op_convolution(struct build *g, cudnnBackendDescriptor_t conv, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w,
                           cudnnBackendDescriptor_t y)
{
    float alpha = 1, beta = 0;
    cudnnBackendDescriptor_t d = part(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set_part(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv);
    set_part(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    set_part(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    set_part(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    set(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &alpha);
    set(g, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &beta);
    finalize(g, d, "operation convolution");
    g->op[g->n_ops++] = d;
}

static void op_add(struct build *g, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y)
{
    cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    cudnnBackendDescriptor_t how = part(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    finalize(g, how, "sum");
    cudnnBackendDescriptor_t d = part(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_part(g, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    finalize(g, d, "operation sum");
    g->op[g->n_ops++] = d;
}

static void build_conv(struct build *g, const struct conv_shape *c)
{
    cudnnDataType_t type = data_type(c->dtype);
    int64_t xs[RANK] = {c->n, c->cin, c->h, c->w}, ws[RANK] = {c->cout, c->cin, c->kh, c->kw}, ys[RANK] = {c->n, c->cout, c->y_h, c->y_w};
    int64_t bs[RANK] = {1, c->cout, 1, 1};
    cudnnBackendDescriptor_t x = picture(g, DNN_X, type, xs, c->x_ld, false), w = picture(g, DNN_W, type, ws, c->cin, false);
    cudnnBackendDescriptor_t y = picture(g, DNN_Y, type, ys, c->y_ld, false), conv = convolution(g, c);
    if (!c->bias) {
        op_convolution(g, conv, x, w, y);
        return;
    }
    cudnnBackendDescriptor_t product = picture(g, PRODUCT, CUDNN_DATA_FLOAT, ys, c->y_ld, true);
    op_convolution(g, conv, x, w, product);
    if (c->z_ld) { /* before the bias: this order needs no compiler */
        cudnnBackendDescriptor_t sum = picture(g, SUM, CUDNN_DATA_FLOAT, ys, c->y_ld, true);
        op_add(g, product, picture(g, DNN_Z, type, ys, c->z_ld, false), sum);
        product = sum;
    }
    op_add(g, product, picture(g, DNN_BIAS, type, bs, c->cout, false), y);
}

/* heads_of returns tokens LD elements apart as a [n, heads, tokens, dim] tensor. */
static cudnnBackendDescriptor_t heads_of(struct build *g, int64_t id, const struct sdpa_shape *s, int64_t tokens, int64_t ld)
{
    struct tensor_of t = {
        .id = id,
        .type = data_type(s->dtype),
        .align = 16,
        .dim = {s->n, s->heads, tokens, s->dim},
        .stride = {tokens * ld, s->dim, ld, 1},
    };
    return tensor(g, &t);
}

static void build_sdpa(struct build *g, const struct sdpa_shape *s)
{
    struct tensor_of scale = {
        .id = DNN_SCALE, .type = CUDNN_DATA_FLOAT, .align = 4, .dim = {1, 1, 1, 1}, .stride = {1, 1, 1, 1}, .value = true};
    cudnnBackendDescriptor_t q = heads_of(g, DNN_Q, s, s->tq, s->q_ld), k = heads_of(g, DNN_K, s, s->tk, s->k_ld);
    cudnnBackendDescriptor_t v = heads_of(g, DNN_V, s, s->tk, s->v_ld), o = heads_of(g, DNN_O, s, s->tq, s->y_ld);
    cudnnBackendDescriptor_t factor = tensor(g, &scale), d = part(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    set_part(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, q);
    set_part(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, k);
    set_part(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, v);
    set_part(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, o);
    set_part(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, factor);
    finalize(g, d, "operation attention");
    g->op[g->n_ops++] = d;
}

enum status dnn_graph_new(struct dnn_where where, const struct dnn_shape *shape, cudnnBackendDescriptor_t *ret, struct error *err)
{
    struct build g = {.status = ST_OK, .err = err};
    if (shape->kind == DNN_CONV)
        build_conv(&g, &shape->conv);
    else
        build_sdpa(&g, &shape->sdpa);
    cudnnBackendDescriptor_t graph = part(&g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (where.handle)
        set(&g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &where.handle);
    set(&g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g.n_ops, g.op);
    finalize(&g, graph, "graph");
    for (int i = 0; i < g.n; i++)
        if (g.part[i] != graph || g.status != ST_OK)
            cudnnBackendDestroyDescriptor(g.part[i]);
    if (g.status == ST_OK)
        *ret = graph;
    return g.status;
}

/* ---- what an op asks for */

static bool is_float(enum dtype t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16; }

bool conv_in_place(const struct op_desc *d)
{
    const struct operand *r = &d->residual, *y = &d->y;
    return operand_set(r) && r->offset < operand_end(y) && y->offset < operand_end(r);
}

bool conv_shape_less(struct dnn_shape *shape)
{
    int32_t *last = shape->conv.z_ld ? &shape->conv.z_ld : &shape->conv.bias;
    bool less = *last != 0;
    *last = 0;
    return less;
}

bool conv_shape_of(const struct op_desc *d, struct dnn_shape *ret)
{
    const int64_t *filter = weight_source_of(d->weight)->shape;
    if (d->x.dtype != d->y.dtype || !is_float(d->x.dtype))
        return false;
    *ret = dnn_shape_new(DNN_CONV);
    ret->conv = (struct conv_shape){
        .dtype = (int32_t)d->x.dtype,
        .n = d->x.n,
        .h = d->x.h,
        .w = d->x.w,
        .cin = d->x.c,
        .x_ld = d->x.ld,
        .kh = (int32_t)filter[2],
        .kw = (int32_t)filter[3],
        .stride = d->conv.stride,
        .pad_top = d->conv.pad_top,
        .pad_left = d->conv.pad_left,
        .pad_bottom = d->conv.pad_bottom,
        .pad_right = d->conv.pad_right,
        .y_h = d->y.h,
        .y_w = d->y.w,
        .cout = d->y.c,
        .y_ld = d->y.ld,
        .bias = d->bias != NULL,
    };
    if (conv_in_place(d))
        ret->conv.y_ld = d->y.c;
    else if (operand_set(&d->residual) && d->bias && d->residual.dtype == d->y.dtype)
        ret->conv.z_ld = d->residual.ld;
    return true;
}

bool sdpa_shape_of(const struct op_desc *d, struct dnn_shape *ret)
{
    enum { STEP = 8, DIM_MAX = 256 }; /* elements of 16 bytes; the widest head that cuDNN documents */
    const struct operand *k = &d->attention.key, *v = &d->attention.value;
    int32_t dim = d->x.c / d->attention.heads;
    enum dtype t = d->x.dtype;
    if ((t != DT_F16 && t != DT_BF16) || d->y.dtype != t || k->dtype != t || v->dtype != t)
        return false;
    if (d->attention.causal || operand_set(&d->attention.mask) || dim % STEP || dim > DIM_MAX)
        return false;
    if (d->x.ld % STEP || d->y.ld % STEP || k->ld % STEP || v->ld % STEP)
        return false;
    *ret = dnn_shape_new(DNN_SDPA);
    ret->sdpa = (struct sdpa_shape){
        .dtype = (int32_t)t,
        .n = d->x.n,
        .heads = d->attention.heads,
        .dim = dim,
        .tq = d->x.h * d->x.w,
        .tk = k->h * k->w,
        .q_ld = d->x.ld,
        .k_ld = k->ld,
        .v_ld = v->ld,
        .y_ld = d->y.ld,
    };
    return true;
}
