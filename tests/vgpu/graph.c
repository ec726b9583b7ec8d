/* Graphs: what a stream would have been given while it was captured, given as one. */
#include <stdlib.h>
#include <string.h>
#include "tests/vgpu/inside.h"

void nodes_unref(struct nodes *n)
{
    if (--n->refs)
        return;
    queue_drop(&n->queue);
    free(n);
}

void graph_free(CUgraph graph)
{
    if (handle_live(graph, HANDLE_GRAPH))
        handle_remove(graph);
    nodes_unref(graph->nodes);
    free(graph);
}

void exec_free(CUgraphExec exec)
{
    handle_remove(exec);
    nodes_unref(exec->nodes);
    free(exec->launched);
    free(exec);
}

/* ---- capture: the graph belongs to the stream until it is handed out */

CUresult capture_spoil(CUgraph graph, CUresult r)
{
    if (graph->invalid)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    graph->invalid = true;
    return r;
}

static CUgraph capture_next(struct handle **h)
{
    for (; *h; *h = (*h)->next)
        if ((*h)->kind == HANDLE_STREAM && ((CUstream)*h)->capture) {
            CUgraph graph = ((CUstream)*h)->capture;
            *h = (*h)->next;
            return graph;
        }
    return NULL;
}

CUresult capture_forbids(void)
{
    CUresult r = CUDA_SUCCESS;
    struct handle *h = rig.handles;
    for (CUgraph g; (g = capture_next(&h));) {
        bool mine = pthread_equal(g->thread, pthread_self());
        if (g->mode == CU_STREAM_CAPTURE_MODE_GLOBAL || (g->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && mine)) {
            (void)!capture_spoil(g, CUDA_SUCCESS);
            r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    return r;
}

CUresult capture_of_default(CUcontext context)
{
    CUresult r = CUDA_SUCCESS;
    for (struct handle *h = rig.handles; h; h = h->next) {
        CUstream s = (CUstream)h;
        if (h->kind != HANDLE_STREAM || h->context != context || !s->capture || (s->flags & CU_STREAM_NON_BLOCKING))
            continue;
        s->capture->invalid = true;
        r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    return r;
}

static CUresult capture_begin(CUstream stream, CUstreamCaptureMode mode)
{
    static uint64_t begun;
    if (stream == stream->handle.context->default_stream)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture)
        return capture_spoil(stream->capture, CUDA_ERROR_ILLEGAL_STATE);
    CUgraph g = calloc(1, sizeof *g);
    struct nodes *nodes = calloc(1, sizeof *nodes);
    if (!g || !nodes) {
        free(g);
        free(nodes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    nodes->refs = 1;
    *g = (struct CUgraph_st){.nodes = nodes, .id = ++begun, .mode = mode, .thread = pthread_self()};
    stream->capture = g;
    return CUDA_SUCCESS;
}

ENTRY CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode)
{
    CUresult r = enter("cuStreamBeginCapture", context_here, ENTER_CONTEXT);
    if (r || (unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    rig_lock();
    r = stream_find(&hStream);
    if (!r)
        r = capture_begin(hStream, mode);
    rig_unlock();
    return r;
}

static CUresult capture_end(CUstream stream, CUgraph *ret)
{
    CUgraph g = stream->capture;
    if (!g)
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    if (g->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(g->thread, pthread_self()))
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    stream->capture = NULL;
    if (g->invalid) {
        graph_free(g);
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    handle_add(g, HANDLE_GRAPH, stream->handle.context);
    *ret = g;
    return CUDA_SUCCESS;
}

ENTRY CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph)
{
    CUresult r = enter("cuStreamEndCapture", context_here, ENTER_CONTEXT);
    if (phGraph)
        *phGraph = NULL;
    if (r || !phGraph)
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    rig_lock();
    r = stream_find(&hStream);
    if (!r)
        r = capture_end(hStream, phGraph);
    rig_unlock();
    return r;
}

/* ---- graphs */

ENTRY CUresult cuGraphDestroy(CUgraph hGraph)
{
    CUresult r = enter("cuGraphDestroy", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    if (handle_live(hGraph, HANDLE_GRAPH))
        graph_free(hGraph);
    else
        r = CUDA_ERROR_INVALID_VALUE;
    rig_unlock();
    return r;
}

ENTRY CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags)
{
    CUresult r = enter("cuGraphInstantiateWithFlags", context_here, ENTER_CONTEXT);
    unsigned long long known = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
    if (r || !phGraphExec || (flags & ~known))
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    CUgraphExec exec = calloc(1, sizeof *exec);
    if (!exec)
        return CUDA_ERROR_OUT_OF_MEMORY;
    rig_lock();
    if (handle_live(hGraph, HANDLE_GRAPH)) {
        exec->nodes = hGraph->nodes;
        exec->nodes->refs++;
        handle_add(exec, HANDLE_EXEC, hGraph->handle.context);
        *phGraphExec = exec;
    } else {
        free(exec);
        r = CUDA_ERROR_INVALID_VALUE;
    }
    rig_unlock();
    return r;
}

ENTRY CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
    CUresult r = enter("cuGraphExecDestroy", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    if (handle_live(hGraphExec, HANDLE_EXEC))
        exec_free(hGraphExec);
    else
        r = CUDA_ERROR_INVALID_VALUE;
    rig_unlock();
    return r;
}

static bool context_failed(void)
{
    rig_lock();
    bool failed = context_here->error || rig.gone;
    rig_unlock();
    return failed;
}

static void graph_run(const void *args)
{
    const struct nodes *n = *(struct nodes *const *)args;
    for (const struct work *w = n->queue.first; w && !context_failed(); w = w->next)
        if (w->run)
            w->run(w->args);
}

static void graph_drop(const void *args) { nodes_unref(*(struct nodes *const *)args); }

/* graph_put puts the nodes of EXEC into STREAM: into a captured stream too, whose graph then has them as one node. */
static CUresult graph_put(CUgraphExec exec, CUstream stream)
{
    exec->nodes->refs++;
    CUresult r = stream_put(stream, graph_run, graph_drop, &exec->nodes, sizeof exec->nodes);
    if (r)
        nodes_unref(exec->nodes);
    else
        counts_launch(exec);
    return r;
}

ENTRY CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream)
{
    CUresult r = enter("cuGraphLaunch", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    r = stream_find(&hStream);
    if (!r && (!handle_live(hGraphExec, HANDLE_EXEC) || hGraphExec->handle.context != hStream->handle.context))
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        r = graph_put(hGraphExec, hStream);
    rig_unlock();
    return r;
}
