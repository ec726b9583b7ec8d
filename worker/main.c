/* galley-worker: one device, one session at a time. The main thread keeps the link, the heartbeat and the cancel flag; the render thread runs
 * sessions. */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "proto/limits.h"
#include "proto/link.h"
#include "proto/sp.h"
#include "worker/backend/load.h"
#include "worker/options.h"
#include "worker/probe.h"
#include "worker/session.h"

enum exit_code { EXIT_DRAINED = 0, EXIT_LINK = 1, EXIT_CONFIG = 2, EXIT_DEVICE_LOST = 3, EXIT_NO_MEMORY = 4, EXIT_STICKY = 5 };
enum { DIAL_MS = 10000, FLUSH_MS = 5000 };

struct worker {
    struct worker_options options;
    struct loop *loop;
    struct loop_wake *wake;
    struct loop_timer *heartbeat;
    struct sp_pair *link;
    struct backend *backend;
    struct model_cache *models;
    struct vitals vitals;
    pthread_t render;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    void *assigned;              /* frame of an ASSIGN that waits for the render thread (owned) */
    size_t assigned_bytes;
    int64_t item, epoch;         /* that waits or runs; 0: none */
    bool draining;
    int exit_code;               /* why the render thread ended */
    bool render_ended;
    bool goes_on;                /* the last item was refused, which is no reason to end */
};

static _Noreturn void leave(struct worker *w, int code)
{
    if (w->link)
        sp_pair_flush(w->link, FLUSH_MS);
    _exit(code);
}

/* ---- render thread */

/* send_frame queues a frame for galleyd. When its queue is full, what MUST_ARRIVE waits for room; the rest is news that galleyd can do without,
 * and dropped. */
static enum status send_frame(void *self, struct view frame, bool must_arrive, struct error *err)
{
    struct worker *w = self;
    int64_t until = clock_ms() + FLUSH_MS;
    enum status st = sp_pair_send(w->link, frame.p, frame.n, err);
    while (st == ST_BUSY && must_arrive && clock_ms() < until) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        st = sp_pair_send(w->link, frame.p, frame.n, err);
    }
    return st == ST_BUSY && !must_arrive ? ST_OK : st;
}

static enum status send_message(struct worker *w, const struct link_message *m, struct error *err)
{
    AUTO_BUF frame = BUF_INIT;
    link_encode(m, &frame);
    if (!buf_ok(&frame))
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a %s frame", link_name(m->kind));
    return send_frame(w, (struct view){frame.data, frame.len}, m->kind == LINK_FINISH, err);
}

/* compute_dtype: a GPU multiplies 16-bit numbers many times as fast, a CPU paints the same picture everywhere in float32. */
static enum dtype compute_dtype(const struct worker_options *o)
{
    if (strcmp(o->precision, "auto") == 0)
        return strncmp(o->device, "cuda", 4) == 0 ? DT_F16 : DT_F32;
    if (strcmp(o->precision, "bfloat16") == 0)
        return DT_BF16;
    return strcmp(o->precision, "float16") == 0 ? DT_F16 : DT_F32;
}

static int64_t default_cache_bytes(void)
{
    return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE) / 2;
}

/* open_device opens the backend and the model cache: on the first job, so that an idle worker holds no device memory. */
static enum status open_device(struct worker *w, struct error *err)
{
    if (w->models)
        return ST_OK;
    const struct worker_options *o = &w->options;
    const struct backend_api *api = backend_find(o->device);
    if (!api)
        return FAIL(err, NO_DEVICE, "this build has no backend for device '%s'", o->device);
    struct backend_spec spec = {.device = o->only_gpu ? "cuda:0" : o->device, .cores = o->n_cores ? o->cores : NULL, .n_cores = o->n_cores, .compute = compute_dtype(o)};
    if (!w->backend && api->open(&spec, &w->backend, err) != ST_OK) {
        if (o->only_gpu && (err->code == ST_UNSUPPORTED || err->code == ST_INTERNAL || err->code == ST_NOT_AVAILABLE))
            err->code = ST_DEVICE_LOST;    /* it is the device that cannot, whatever the item */
        return err->code;
    }
    struct model_cache_args args = {w->backend, spec.compute, o->models_dir, o->data, o->cache_bytes ? o->cache_bytes : default_cache_bytes(),
                                    strncmp(o->device, "cuda", 4) == 0};
    return model_cache_new(&args, &w->models, err);
}

static void send_models(struct worker *w)
{
    struct error e;
    json_t *keys = model_cache_keys(w->models);
    char *text = json_text(keys);
    if (send_message(w, &(struct link_message){LINK_MODELS, .MODELS = {.launch = w->options.launch, .models = view_of(text)}}, &e) != ST_OK)
        LOGW("resident models not reported", "error=%s", e.message);
    free(text);
    json_decref(keys);
}

static void fail_assignment(struct worker *w, const struct link_ASSIGN *a, const struct error *err)
{
    struct error e;
    if (send_message(w, &(struct link_message){LINK_FINISH, .FINISH = {.launch = w->options.launch, .item = a->item, .epoch = a->epoch,
                   .outcome = view_of(session_outcome(err->code)), .error_type = view_of(status_name(err->code)), .error_message = view_of(err->message)}}, &e) != ST_OK)
        LOGW("finish not sent", "item=%lld error=%s", (long long)a->item, e.message);
}

static void note_memory(struct worker *w)
{
    struct backend_memory now;
    if (strncmp(w->options.device, "cuda", 4) == 0 && w->backend->api->memory(w->backend, &now, NULL) == ST_OK)
        atomic_store(&w->vitals.device_bytes, now.used_bytes);
}

static enum status run_assignment(struct worker *w, const struct link_ASSIGN *a, struct error *err)
{
    w->goes_on = false;
    enum status st = open_device(w, err);
    if (st != ST_OK) {
        fail_assignment(w, a, err);
        return st;
    }
    struct session_env env = {w->options.launch, w->options.outputs, w->models, &w->vitals, send_frame, w};
    st = session_run(&env, a, err);
    w->goes_on = st == ST_OUT_OF_MEMORY && model_cache_refused(w->models);
    if (model_cache_unpin(w->models))
        send_models(w);
    note_memory(w);
    return st;
}

/* exit_code_of returns why the worker must end after an item that ended with ST, -1 when it goes on. */
static int exit_code_of(enum status st)
{
    switch (st) {
    case ST_OUT_OF_MEMORY: return EXIT_NO_MEMORY;
    case ST_DEVICE_LOST:
    case ST_NO_DEVICE: return EXIT_DEVICE_LOST;    /* it was there when galleyd looked */
    case ST_DEVICE_FAULT: return EXIT_STICKY;
    case ST_UNREACHABLE: return EXIT_LINK;
    default: return -1;
    }
}

static bool next_assignment(struct worker *w, void **ret_frame, size_t *ret_bytes)
{
    pthread_mutex_lock(&w->lock);
    while (!w->assigned && !w->draining)
        pthread_cond_wait(&w->changed, &w->lock);
    *ret_frame = w->assigned;
    *ret_bytes = w->assigned_bytes;
    w->assigned = NULL;
    pthread_mutex_unlock(&w->lock);
    return *ret_frame != NULL;
}

static void render_end(struct worker *w, int code)
{
    pthread_mutex_lock(&w->lock);
    w->exit_code = code;
    w->render_ended = true;
    pthread_mutex_unlock(&w->lock);
    loop_wake_ring(w->wake);
}

static void *render_main(void *arg)
{
    struct worker *w = arg;
    struct error err;
    void *frame;
    size_t bytes;
    int code = -1;
    if (w->options.warm_start && open_device(w, &err) != ST_OK)
        LOGE("device does not open", "device=%s error=%s", w->options.device, err.message);
    while (code < 0 && next_assignment(w, &frame, &bytes)) {
        struct link_message m;
        if (link_decode(frame, bytes, false, &m, &err) == ST_OK) {
            enum status st = run_assignment(w, &m.ASSIGN, &err);
            if (st != ST_OK && st != ST_CANCELED)
                LOGI("item failed", "item=%lld epoch=%lld code=%s error=%s", (long long)m.ASSIGN.item, (long long)m.ASSIGN.epoch, status_name(st), err.message);
            code = w->goes_on ? -1 : exit_code_of(st);
        }
        free(frame);
        atomic_store(&w->vitals.phase, "idle");
        pthread_mutex_lock(&w->lock);
        if (!w->assigned)    /* else it is the next one, which came since the finish */
            w->item = 0;
        pthread_mutex_unlock(&w->lock);
    }
    render_end(w, code < 0 ? EXIT_DRAINED : code);
    return NULL;
}

/* ---- main thread */

static uint64_t resident_bytes(void)
{
    unsigned long long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%llu %llu", &total, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    return resident * (uint64_t)sysconf(_SC_PAGE_SIZE);
}

static void beat(void *arg)
{
    struct worker *w = arg;
    struct error e;
    const char *phase = atomic_load(&w->vitals.phase);
    struct link_message m = {LINK_HEARTBEAT, .HEARTBEAT = {.launch = w->options.launch, .counter = atomic_load(&w->vitals.counter),
                             .phase = view_of(phase), .rss_bytes = resident_bytes(),
                             .device_bytes = atomic_load(&w->vitals.device_bytes)}};
    if (send_message(w, &m, &e) != ST_OK)
        LOGW("heartbeat not sent", "error=%s", e.message);
    loop_timer_set(w->heartbeat, w->options.heartbeat_ms);
}

/* assign hands the frame over to the render thread; galleyd sends one item at a time. */
static bool assign(struct worker *w, void *frame, size_t n, const struct link_ASSIGN *a)
{
    pthread_mutex_lock(&w->lock);
    bool free_now = !w->assigned && !w->draining;
    if (free_now) {
        w->assigned = frame;
        w->assigned_bytes = n;
        w->item = a->item;
        w->epoch = a->epoch;
        atomic_store(&w->vitals.cancel, false);
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return free_now;
}

static void cancel(struct worker *w, const struct link_CANCEL *c)
{
    pthread_mutex_lock(&w->lock);
    if (w->item == c->item && w->epoch == c->epoch)
        atomic_store(&w->vitals.cancel, true);
    pthread_mutex_unlock(&w->lock);
}

static void drain(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    w->draining = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

/* take_frame acts on one frame; true if it keeps the memory. */
static bool take_frame(struct worker *w, void *frame, size_t n)
{
    struct link_message m;
    struct error err;
    if (link_decode(frame, n, false, &m, &err) != ST_OK) {
        LOGE("frame from galleyd refused", "error=%s", err.message);
        return false;
    }
    switch (m.kind) {
    case LINK_ASSIGN:
        return assign(w, frame, n, &m.ASSIGN);
    case LINK_CANCEL:
        cancel(w, &m.CANCEL);
        return false;
    default:
        return false;
    }
}

static void on_wake(void *arg)
{
    struct worker *w = arg;
    void *frame;
    size_t n;
    while (sp_pair_take(w->link, &frame, &n))
        if (!take_frame(w, frame, n))
            free(frame);
    pthread_mutex_lock(&w->lock);
    bool ended = w->render_ended;
    int code = w->exit_code;
    pthread_mutex_unlock(&w->lock);
    if (ended)
        leave(w, code);
    if (sp_pair_lost(w->link)) {
        LOGE("link to galleyd is gone", NULL);
        _exit(EXIT_LINK);
    }
}

static void on_signal(void *arg, int signo)
{
    struct worker *w = arg;
    (void)signo;
    atomic_store(&w->vitals.cancel, true);
    drain(w);
}

static void ring(void *arg)
{
    loop_wake_ring(arg);
}

static enum status say_hello(struct worker *w, struct error *err)
{
    const struct worker_options *o = &w->options;
    char facts[256];
    snprintf(facts, sizeof facts, "{\"backend\":\"%s\",\"threads\":%d}", backend_find(o->device) ? backend_find(o->device)->name : "none",
             o->n_cores ? o->n_cores : 0);
    struct link_message m = {LINK_HELLO, .HELLO = {.protocol = LINK_PROTOCOL, .launch = o->launch, .pid = (uint64_t)getpid(),
                             .device = view_of(o->device), .facts = view_of(facts), .families = view_of("[\"sd-1\"]")}};
    return send_message(w, &m, err);
}

static enum status serve(struct worker *w, struct error *err)
{
    TRY(loop_new(&w->loop, err));
    TRY(loop_signals(w->loop, (int[]){SIGTERM, 0}, on_signal, w, err));
    TRY(loop_wake_new(w->loop, on_wake, w, &w->wake, err));
    TRY(sp_pair_dial(w->options.link, LIMIT_LINK_BYTES, DIAL_MS, ring, w->wake, &w->link, err));
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    atomic_store(&w->vitals.phase, "idle");
    TRY(say_hello(w, err));
    if (pthread_create(&w->render, NULL, render_main, w) != 0)
        return FAIL(err, OUT_OF_MEMORY, "cannot start the render thread");
    w->heartbeat = loop_timer_new(w->loop, beat, w);
    if (!w->heartbeat)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the heartbeat");
    beat(w);
    return loop_run(w->loop, err);
}

/* watch_parent makes the kernel end this process when galleyd's main thread ends, and checks that it has not already. */
static void watch_parent(int64_t parent)
{
    if (!parent)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != (pid_t)parent)
        _exit(EXIT_LINK);
}

int main(int argc, char **argv)
{
    static struct worker w;
    struct error err;
    enum log_level level = LOG_INFO;
    signal(SIGPIPE, SIG_IGN);
    log_setup("galley-worker", level, false);
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return puts("galley-worker " GALLEY_VERSION) == EOF;
    if (worker_options_read(argc, argv, &w.options, &err) != ST_OK) {
        LOGE("bad command line", "error=%s", err.message);
        return EXIT_CONFIG;
    }
    log_level_from_name(w.options.log_level, &level);
    log_setup("galley-worker", level, strcmp(w.options.log_format, "json") == 0);
    if (w.options.probe) {
        if (probe_print(&w.options, &err) == ST_OK)
            _exit(0);
        LOGE("probe failed", "error=%s", err.message);
        return EXIT_CONFIG;
    }
    watch_parent(w.options.parent);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    if (!backend_find(w.options.device)) {
        const struct cuda_module *module;
        bool cuda = strncmp(w.options.device, "cuda", 4) == 0 && backend_module(&module, &err) != ST_OK;
        LOGE("no backend", "device=%s error=%s", w.options.device, cuda ? err.message : "no device of that name");
        return EXIT_CONFIG;
    }
    if (!w.options.link[0]) {
        LOGE("no link", "device=%s", w.options.device);
        return EXIT_CONFIG;
    }
    enum status st = serve(&w, &err);
    LOGE("worker ends", "error=%s", st == ST_OK ? "loop stopped" : err.message);
    _exit(EXIT_LINK);
}
