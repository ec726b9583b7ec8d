/* A sequence of ops recorded as one graph of the device. */
#include <stdlib.h>
#include <string.h>

#include "worker/backend/check.h"
#include "worker/backend/cuda/core.h"

struct sequence {
    CUgraphExec graph; /* NULL: some op cannot be recorded, the ops run one by one */
    bool tried_again;
    struct bmem *arena, *workspace;
    int n;
    struct bop *ops[];
};

static enum status run_ops(struct cuda_backend *b, const struct sequence *s, struct error *err)
{
    for (int i = 0; i < s->n; i++)
        TRY(cuda_op_enqueue(b, s->ops[i], s->arena, s->workspace, err));
    return ST_OK;
}

/* end_recording returns what was recorded in *RET, NULL if nothing was. The stream records no more. */
static CUresult end_recording(struct cuda_backend *b, CUgraph *ret)
{
    CUgraph late = NULL;
    *ret = NULL;
    CUresult r = cu.capture_end(b->stream, ret);
    if (r == CUDA_SUCCESS)
        return r;
    *ret = NULL;
    if (cu.capture_end(b->stream, &late) == CUDA_SUCCESS && late) /* an end that is refused may leave the stream recording */
        (void)cu.graph_free(late);
    return r;
}

static enum status record(struct cuda_backend *b, struct sequence *s, struct error *err)
{
    CUgraph graph;
    CU(err, "recording a sequence", cu.capture_begin(b->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    enum status st = run_ops(b, s, err);
    CUresult r = end_recording(b, &graph);
    if (st == ST_OK && r != CUDA_SUCCESS)
        st = driver_fail(err, r, "recording a sequence");
    if (st == ST_OK && (r = cu.graph_instantiate(&s->graph, graph, 0)) != CUDA_SUCCESS) {
        s->graph = NULL;
        st = driver_fail(err, r, "making a graph of a sequence");
    }
    if (graph)
        (void)cu.graph_free(graph);
    return st;
}

/* fits makes sure that the fallback is not for what is simply wrong. */
static enum status fits(const struct sequence *s, struct error *err)
{
    size_t workspace = s->workspace ? s->workspace->bytes : 0;
    for (int i = 0; i < s->n; i++)
        TRY(op_extent_check(s->ops[i]->desc.kind, s->ops[i]->extent, s->arena->bytes, s->ops[i]->workspace, workspace, err));
    return ST_OK;
}

enum status cuda_sequence_new(struct backend *backend, struct bop *const *ops, int n, struct bmem *arena, struct bmem *workspace,
                              void **ret, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    struct sequence *s = calloc(1, sizeof *s + (size_t)n * sizeof *ops);
    if (!s)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a sequence of %d ops", n);
    *s = (struct sequence){.arena = arena, .workspace = workspace, .n = n};
    if (n)
        memcpy(s->ops, ops, (size_t)n * sizeof *ops);
    enum status st = fits(s, err);
    struct error refused = {0};
    if (st == ST_OK)
        (void)cuda_settle(b, record(b, s, &refused), &refused);
    if (b->lost != ST_OK) {
        st = b->lost;
        if (err)
            *err = refused;
    }
    if (st != ST_OK) {
        free(s);
        return st;
    }
    *ret = s;
    return ST_OK;
}

static enum status run(struct cuda_backend *b, struct sequence *s, struct error *err)
{
    if (!s->graph) {
        TRY(run_ops(b, s, err));
        if (s->tried_again)
            return ST_OK;
        s->tried_again = true; /* what a library has to load for its first run, it has now: that may have been in the way */
        struct error refused = {0};
        (void)cuda_settle(b, record(b, s, &refused), &refused);
        return ST_OK; /* a device that broke meanwhile is told by the next call */
    }
    CU(err, "running a sequence", cu.graph_launch(s->graph, b->stream));
    return ST_OK;
}

enum status cuda_sequence_run(struct backend *backend, void *sequence, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    return cuda_settle(b, run(b, sequence, err), err);
}

void cuda_sequence_free(struct backend *backend, void *sequence)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    struct sequence *s = sequence;
    if (!s)
        return;
    if (b->lost == ST_OK)
        (void)cu.stream_sync(b->stream);
    if (s->graph)
        (void)cu.graph_exec_free(s->graph);
    free(s);
}
