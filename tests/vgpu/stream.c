/* Streams: a thread each, that does its work in order. Events are marks between them. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/vgpu/inside.h"

/* ---- work */

struct work *work_new(vgpu_fn *run, vgpu_fn *drop, const void *args, size_t bytes)
{
    struct work *w = malloc(sizeof *w + bytes);
    if (!w)
        return NULL;
    *w = (struct work){.run = run, .drop = drop};
    if (bytes)
        memcpy(w->args, args, bytes);
    return w;
}

void work_drop(struct work *w)
{
    if (w->drop)
        w->drop(w->args);
    free(w);
}

void queue_put(struct queue *q, struct work *w)
{
    if (!q->first)
        q->last = &q->first;
    *q->last = w;
    q->last = &w->next;
}

static struct work *queue_take(struct queue *q)
{
    struct work *w = q->first;
    if (w)
        q->first = w->next;
    return w;
}

void queue_drop(struct queue *q)
{
    for (struct work *w; (w = queue_take(q));)
        work_drop(w);
}

/* ---- marks */

static void mark_unref(struct mark *m)
{
    if (m && --m->refs == 0)
        free(m);
}

/* Done when dropped: after an error too, or who waits would wait for ever. */
static void mark_reach(const void *args)
{
    struct mark *m = *(struct mark *const *)args;
    m->done = true;
    pthread_cond_broadcast(&rig.changed);
    mark_unref(m);
}

/* mark_put puts a new mark into STREAM; the caller has a reference. */
static CUresult mark_put(CUstream stream, struct mark **ret)
{
    struct mark *m = malloc(sizeof *m);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *m = (struct mark){.refs = 2};
    CUresult r = stream_put(stream, NULL, mark_reach, &m, sizeof m);
    if (r)
        free(m);
    else
        *ret = m;
    return r;
}

static void mark_wait(struct mark *m)
{
    while (!m->done && !rig.gone)
        pthread_cond_wait(&rig.changed, &rig.lock);
}

static void mark_wait_run(const void *args)
{
    rig_lock();
    mark_wait(*(struct mark *const *)args);
    rig_unlock();
}

static void mark_wait_drop(const void *args) { mark_unref(*(struct mark *const *)args); }

/* ---- the thread */

uint64_t stream_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void be_late(CUstream stream)
{
    uint64_t us = (uint64_t)rig.late_us + (rig.seed ? stream_random(&stream->random) % 64 : 0);
    struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    if (us)
        nanosleep(&t, NULL);
}

static void work_run(CUstream stream, struct work *w)
{
    bool run = w->run && !stream->handle.context->error;
    stream->busy = true;
    rig_unlock();
    if (run) {
        be_late(stream);
        w->run(w->args);
    }
    rig_lock();
    stream->busy = false;
    work_drop(w);
    pthread_cond_broadcast(&rig.changed);
}

static void *stream_main(void *arg)
{
    CUstream stream = arg;
    context_here = stream->handle.context;
    rig_lock();
    for (;;) {
        while (!stream->queue.first && !stream->stop)
            pthread_cond_wait(&stream->arrived, &rig.lock);
        struct work *w = rig.gone ? NULL : queue_take(&stream->queue);
        if (!w)
            break;
        work_run(stream, w);
    }
    queue_drop(&stream->queue);
    rig_unlock();
    return NULL;
}

static CUresult stream_new(CUcontext context, unsigned flags, CUstream *ret)
{
    static uint64_t made;
    CUstream s = calloc(1, sizeof *s);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->flags = flags;
    s->random = ((uint64_t)rig.seed + 1) * 0x9e3779b97f4a7c15u + ++made;
    pthread_cond_init(&s->arrived, NULL);
    handle_add(s, HANDLE_STREAM, context);
    sigset_t all, before;
    sigfillset(&all); /* signals are the program's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&s->thread, NULL, stream_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        stream_free(s);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    *ret = s;
    return CUDA_SUCCESS;
}

void stream_stop(CUstream stream, bool discard)
{
    stream->stop = true;
    if (discard)
        rig.gone = true;
    pthread_cond_broadcast(&stream->arrived);
    pthread_cond_broadcast(&rig.changed);
    rig_unlock();
    pthread_join(stream->thread, NULL);
    rig_lock();
}

void stream_free(CUstream stream)
{
    handle_remove(stream);
    pthread_cond_destroy(&stream->arrived);
    if (stream->capture)
        graph_free(stream->capture);
    free(stream);
}

/* ---- use */

CUresult stream_find(CUstream *stream)
{
    CUcontext context = context_here;
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (*stream && *stream != CU_STREAM_LEGACY)
        return handle_live(*stream, HANDLE_STREAM) && (*stream)->handle.context == context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    CUresult r = capture_of_default(context);
    if (!r && !context->default_stream)
        r = stream_new(context, CU_STREAM_NON_BLOCKING, &context->default_stream);
    *stream = context->default_stream;
    return r;
}

CUresult stream_put(CUstream stream, vgpu_fn *run, vgpu_fn *drop, const void *args, size_t bytes)
{
    if (stream->capture && stream->capture->invalid)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->stop)
        return CUDA_ERROR_INVALID_HANDLE;
    struct work *w = work_new(run, drop, args, bytes);
    if (!w)
        return CUDA_ERROR_OUT_OF_MEMORY;
    queue_put(stream->capture ? &stream->capture->nodes->queue : &stream->queue, w);
    if (!stream->capture)
        pthread_cond_signal(&stream->arrived);
    return CUDA_SUCCESS;
}

ENTRY CUresult vgpu_work(CUstream stream, vgpu_fn *fn, const void *args, size_t bytes)
{
    rig_lock();
    CUresult r = rig.gone ? CUDA_ERROR_DEINITIALIZED : stream_find(&stream);
    if (!r)
        r = stream->handle.context->error;
    if (!r)
        r = stream_put(stream, fn, NULL, args, bytes);
    rig_unlock();
    return r;
}

CUresult stream_wait(CUstream stream)
{
    CUcontext context = stream->handle.context;
    struct mark *m;
    CUresult r = mark_put(stream, &m);
    if (r)
        return r;
    mark_wait(m);
    mark_unref(m);
    return context->error;
}

static bool context_busy(CUcontext context)
{
    for (struct handle *h = rig.handles; h; h = h->next)
        if (h->kind == HANDLE_STREAM && h->context == context && (((CUstream)h)->busy || ((CUstream)h)->queue.first))
            return true;
    return false;
}

void stream_idle(CUcontext context)
{
    while (context_busy(context) && !rig.gone)
        pthread_cond_wait(&rig.changed, &rig.lock);
}

/* ---- calls */

ENTRY CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    CUresult r = enter("cuStreamCreate", context_here, ENTER_CONTEXT);
    if (r || !phStream || (Flags & ~(unsigned)CU_STREAM_NON_BLOCKING))
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    rig_lock();
    r = stream_new(context_here, Flags, phStream);
    rig_unlock();
    return r;
}

ENTRY CUresult cuStreamDestroy_v2(CUstream hStream)
{
    CUresult r = enter("cuStreamDestroy", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    if (!hStream || !handle_live(hStream, HANDLE_STREAM) || hStream == hStream->handle.context->default_stream || hStream->stop) {
        r = CUDA_ERROR_INVALID_HANDLE;
    } else {
        stream_stop(hStream, false);
        stream_free(hStream);
    }
    rig_unlock();
    return r;
}

ENTRY CUresult cuStreamSynchronize(CUstream hStream)
{
    CUresult r = enter("cuStreamSynchronize", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    r = stream_find(&hStream);
    if (!r)
        r = hStream->capture ? capture_spoil(hStream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) : stream_wait(hStream);
    rig_unlock();
    return r;
}

/* wait_put makes STREAM wait for EVENT, as it is recorded now. */
static CUresult wait_put(CUstream stream, CUevent event)
{
    CUgraph capture = stream->capture;
    if (capture && event->capture == capture->id)
        return CUDA_SUCCESS; /* what is captured runs in order */
    if (capture)
        return capture_spoil(capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    if (event->capture)
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    struct mark *m = event->mark;
    if (!m || m->done)
        return CUDA_SUCCESS;
    m->refs++;
    CUresult r = stream_put(stream, mark_wait_run, mark_wait_drop, &m, sizeof m);
    if (r)
        mark_unref(m);
    return r;
}

ENTRY CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
    CUresult r = enter("cuStreamWaitEvent", context_here, ENTER_CONTEXT);
    if (r || Flags)
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    rig_lock();
    r = stream_find(&hStream);
    if (!r)
        r = handle_live(hEvent, HANDLE_EVENT) ? wait_put(hStream, hEvent) : CUDA_ERROR_INVALID_HANDLE;
    rig_unlock();
    return r;
}

ENTRY CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
    CUresult r = enter("cuEventCreate", context_here, ENTER_CONTEXT);
    if (r || !phEvent || (Flags & ~(unsigned)(CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING)))
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    CUevent e = calloc(1, sizeof *e);
    if (!e)
        return CUDA_ERROR_OUT_OF_MEMORY;
    rig_lock();
    handle_add(e, HANDLE_EVENT, context_here);
    rig_unlock();
    *phEvent = e;
    return CUDA_SUCCESS;
}

void event_free(CUevent event)
{
    handle_remove(event);
    mark_unref(event->mark);
    free(event);
}

ENTRY CUresult cuEventDestroy_v2(CUevent hEvent)
{
    CUresult r = enter("cuEventDestroy", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    if (handle_live(hEvent, HANDLE_EVENT))
        event_free(hEvent);
    else
        r = CUDA_ERROR_INVALID_HANDLE;
    rig_unlock();
    return r;
}

static CUresult record_put(CUevent event, CUstream stream)
{
    struct mark *m = NULL;
    if (stream->capture && stream->capture->invalid)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    CUresult r = stream->capture ? CUDA_SUCCESS : mark_put(stream, &m);
    if (r)
        return r;
    mark_unref(event->mark);
    event->mark = m;
    event->capture = stream->capture ? stream->capture->id : 0;
    return CUDA_SUCCESS;
}

ENTRY CUresult cuEventRecord(CUevent hEvent, CUstream hStream)
{
    CUresult r = enter("cuEventRecord", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    r = stream_find(&hStream);
    if (!r && (!handle_live(hEvent, HANDLE_EVENT) || hEvent->handle.context != hStream->handle.context))
        r = CUDA_ERROR_INVALID_HANDLE;
    if (!r)
        r = record_put(hEvent, hStream);
    rig_unlock();
    return r;
}

ENTRY CUresult cuEventSynchronize(CUevent hEvent)
{
    CUresult r = enter("cuEventSynchronize", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    rig_lock();
    if (!handle_live(hEvent, HANDLE_EVENT)) {
        r = CUDA_ERROR_INVALID_HANDLE;
    } else if (hEvent->capture) {
        r = CUDA_ERROR_CAPTURED_EVENT;
    } else if (hEvent->mark) {
        struct mark *m = hEvent->mark;
        m->refs++;
        mark_wait(m);
        mark_unref(m);
        r = context_here->error;
    }
    rig_unlock();
    return r;
}
