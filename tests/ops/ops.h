/* galley-ops: runs ops of a backend beside the reference on random data. */
#pragma once
#include "worker/backend/backend.h"
#include "worker/backend/check.h"

/* One op to try: the runner gives operands their places and weights their data. */
struct trial {
    char name[160];
    struct op_desc desc;
    struct weight_source weight, bias, position; /* shapes only; ndim 0: none */
    double flops, bytes;                         /* of one run, for --bench; either may be 0 */
    bool alias_y;                                /* residual or lincomb's in[0] is y itself */
    bool fused_views;                            /* ATTENTION: x, key and value are views of one buffer of 3 c channels */
};

typedef void visit_fn(void *arg, const struct trial *t);

/* trials_visit calls VISIT for every case in dtype T: the small ones, with BIG those at the sizes of SD 1.5, 2.1 and XL. */
void trials_visit(enum dtype t, bool big, visit_fn *visit, void *arg);
/* bench_visit calls VISIT for the shapes worth timing: the emoji model's and those of SD 1.5 at 512 x 512. */
void bench_visit(visit_fn *visit, void *arg);

/* A trial laid out: description with offsets, the arena's bytes, weights with data. */
struct laid {
    struct op_desc desc;
    size_t bytes;
    unsigned char *arena;
    void *weights[3];
    struct weight_source sources[3];
};
/* trial_lay fills RET (caller: trial_free); random data depend on the trial's name alone. */
void trial_lay(const struct trial *t, struct laid *ret);
void trial_free(struct laid *l);

/* A backend with an op ready to run. */
struct rig {
    struct backend *backend;
    struct bweight *weights[3];
    struct bop *op;
    struct bmem *arena, *workspace;
};
/* rig_open makes the op of L on B (borrowed) and uploads the arena. Caller: rig_close, after a failure too. */
enum status rig_open(struct rig *r, struct backend *b, const struct laid *l, struct error *err);
enum status rig_run(struct rig *r, struct error *err);
void rig_close(struct rig *r);
