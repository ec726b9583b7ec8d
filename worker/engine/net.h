/* The layers that networks are written in. Each call checks its weights by name and shape and appends one op to a plan; without a plan
 * it only checks, so that one description of a network serves both. The first failure is kept in the net; later calls do nothing. */
#pragma once
#include "worker/engine/plan.h"
#include "worker/engine/weights.h"

struct net {
    struct plan *plan;           /* NULL: check only */
    int segment;                 /* where ops go */
    struct weights *weights;
    enum dtype dtype;            /* of activations */
    enum status status;
    struct error *err;
};

/* A weight name made on the spot: NAME("%s.conv1", block), valid to the end of the full expression. */
struct net_name { char s[200]; };
struct net_name net_name(const char *fmt, ...) PRINTF_LIKE(1, 2);
#define NAME(...) net_name(__VA_ARGS__).s

/* y set: written there (it may be the residual), else to a new value. Kernel and stride 0 are 3 and 1; padding keeps the size. */
struct net_conv { int kernel, stride; struct operand add, residual, y; enum act act; };
struct net_linear { bool no_bias, geglu; struct operand residual, y; enum act act; };

/* net_value returns a new value in the net's dtype. */
struct operand net_value(struct net *n, int batch, int h, int w, int c);
struct operand net_conv(struct net *n, struct operand x, int cout, struct net_conv how, const char *name);
struct operand net_linear(struct net *n, struct operand x, int cout, struct net_linear how, const char *name);
struct operand net_group_norm(struct net *n, struct operand x, int groups, double eps, enum act act, const char *name);
struct operand net_layer_norm(struct net *n, struct operand x, double eps, const char *name);
/* net_attention attends from Q to K, V (scale 1 / sqrt(head width)); MASK may be unset. */
struct operand net_attention(struct net *n, struct operand q, struct operand k, struct operand v, struct operand mask, int heads, bool causal);
/* net_upsample doubles X to H x W, which may be one less than twice (an odd level of the UNet). */
struct operand net_upsample(struct net *n, struct operand x, int h, int w);
struct operand net_concat(struct net *n, struct operand x, struct operand z);
/* net_cast returns X in dtype T: X itself if it is that already. */
struct operand net_cast(struct net *n, struct operand x, enum dtype t);
/* net_tokens reads X's pixels as one row of tokens, net_pixels the other way round. */
struct operand net_tokens(struct operand x);
struct operand net_pixels(struct operand x, int h, int w);
/* net_op appends any op. */
void net_op(struct net *n, const struct op_desc *d);
/* net_weight returns weight NAME of the net, NULL in a check or after a failure. */
const struct bweight *net_weight(struct net *n, const char *name, int ndim, const int64_t *shape);
/* net_fail keeps a failure of the network's own. */
#define net_fail(n, code, ...) ((n)->status = (n)->status == ST_OK ? FAIL((n)->err, code, __VA_ARGS__) : (n)->status)
