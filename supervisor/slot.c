/* A slot's process: start, frames, health, stop ladder, death. */
#include "supervisor/slot.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/subprocess.h"
#include "proto/limits.h"

enum { TAKE_MAX = 256 };    /* messages of one worker, at a frame's end, before the loop looks at other things again */

static const struct config *cfg(const struct slot *s)
{
    return s->pool->sup->config;
}

bool slot_event(struct slot *s, enum slot_event e)
{
    enum slot_state to;
    if (!slot_next(s->state, e, &to)) {
        LOGW("event refused", "slot=%d state=%s event=%s", s->index, slot_state_name(s->state), slot_event_name(e));
        return false;
    }
    if (to == s->state)
        return true;
    s->state = to;
    if (to == SLOT_READY || to == SLOT_BUSY)
        s->reason[0] = 0;
    char topic[32];
    snprintf(topic, sizeof topic, "ev/worker/%d ", s->index);
    const struct ev_field fields[] = {
        EV_I("slot", s->index), EV_S("device", s->device.name), EV_S("state", slot_state_name(to)), EV_S("reason", s->reason[0] ? s->reason : NULL),
        s->work.item && !s->settling ? EV_I("item_id", s->work.item) : (struct ev_field){.kind = EV_SKIP},
    };
    bool trivial = to == SLOT_BUSY || (to == SLOT_READY && e == SLOT_ON_FINISHED);
    if (!trivial)    /* an item's own events say when its device is busy */
        relay_event(s->pool->sup->relay, topic, "worker_state_changed", fields, sizeof fields / sizeof fields[0]);
    LOGD("worker", "slot=%d device=%s state=%s", s->index, s->device.name, slot_state_name(to));
    return true;
}

enum status slot_send(struct slot *s, const struct link_message *m, struct error *err)
{
    AUTO_BUF frame = BUF_INIT;
    link_encode(m, &frame);
    if (!buf_ok(&frame))
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a %s frame", link_name(m->kind));
    return sp_pair_send(s->link, frame.data, frame.len, err);
}

/* ---- durable record of processes, so that a later supervisor can end what this one leaves */

struct record_op { struct store_op op; struct worker_record record; bool forget; };

static enum status run_record(struct queue *q, struct store_op *op, struct error *err)
{
    struct record_op *r = (struct record_op *)op;
    return r->forget ? queue_worker_forget(q, r->record.launch, err) : queue_worker_record(q, &r->record, err);
}

static void record_done(struct store_op *op, enum status st, const struct error *err)
{
    if (st != ST_OK)
        LOGW("worker record not written", "error=%s", err->message);
    free(op);
}

static void record(struct slot *s, bool forget)
{
    struct record_op *r = calloc(1, sizeof *r);
    if (!r)
        return;
    r->op.run = run_record;
    r->op.done = record_done;
    r->forget = forget;
    r->record = (struct worker_record){s->index, (int64_t)s->launch, s->pid, s->start_time};
    store_submit(s->pool->sup->store, &r->op);
}

/* ---- start */

static void ring(void *arg)
{
    loop_wake_ring(arg);
}

/* cores_text writes "0,1,2". */
static void cores_text(const struct device *d, char *ret, size_t size)
{
    size_t at = 0;
    ret[0] = 0;
    for (int i = 0; i < d->n_cores && at < size - 8; i++)
        at += (size_t)snprintf(ret + at, size - at, i ? ",%d" : "%d", d->cores[i]);
}

/* default_cache: half of the device's memory, which the workers on CPUs share. */
static int64_t default_cache(const struct slot *s)
{
    int sharers = 0;
    for (int i = 0; i < s->pool->n; i++)
        sharers += !s->pool->slots[i].device.uuid[0];
    return s->device.memory_bytes / 2 / (s->device.uuid[0] ? 1 : sharers);
}

/* environment of a worker: nothing of systemd's, and of the GPUs its own alone, whatever their order is when it starts. A MIG instance that galleyd was given
 * is handed on: there is one in a process. */
static char **environment(const struct device *d)
{
    const char *given = getenv("CUDA_VISIBLE_DEVICES");
    char visible[80];
    const char *settings[5] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"};
    size_t n = 3;
    if (d->uuid[0] && !(given && strncmp(given, "MIG-", 4) == 0)) {
        snprintf(visible, sizeof visible, "CUDA_VISIBLE_DEVICES=%s", d->uuid);
        settings[n++] = visible;
        settings[n++] = "CUDA_DEVICE_ORDER=PCI_BUS_ID";
    }
    return env_with(settings, n);
}

static void on_exit_fd(void *arg, uint32_t events);

static enum status spawn(struct slot *s, const char *url, struct error *err)
{
    const struct supervisor *sup = s->pool->sup;
    char program[PATH_BYTES], launch[24], parent[24], beat[24], cache[24], cores[1500];
    TRY(subprocess_sibling("galley-worker", program, sizeof program, err));
    snprintf(launch, sizeof launch, "%llu", (unsigned long long)s->launch);
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    snprintf(beat, sizeof beat, "%lld", (long long)cfg(s)->heartbeat_ms);
    int64_t cache_bytes = (int64_t)(cfg(s)->max_cache_ram_gb * (1 << 30));
    snprintf(cache, sizeof cache, "%lld", (long long)(cache_bytes ? cache_bytes : default_cache(s)));
    cores_text(&s->device, cores, sizeof cores);
    char *argv[32] = {program, "--device", s->device.name, "--link", (char *)url, "--launch", launch, "--parent", parent, "--heartbeat-ms", beat,
                      "--outputs", (char *)sup->paths.outputs, "--models-dir", (char *)sup->models_dir, "--data", (char *)sup->paths.data,
                      "--precision", cfg(s)->precision, "--log-level", cfg(s)->log_level, "--log-format", cfg(s)->log_format, "--cache-bytes", cache};
    int n = 25;
    if (cores[0]) {
        argv[n++] = "--cores";
        argv[n++] = cores;
    }
    if (s->device.uuid[0])
        argv[n++] = "--only-gpu";
    if (cfg(s)->warm_start)
        argv[n++] = "--warm-start";
    char **env = environment(&s->device);
    if (!env)
        return FAIL(err, OUT_OF_MEMORY, "out of memory starting a worker");
    struct spawn_args a = {.file = program, .argv = argv, .env = env, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .new_session = true,
                           .keep_fds = {-1, -1, -1, -1}};
    enum status st = subprocess_spawn(&a, &s->pid, &s->pidfd, err);
    env_free(env);
    return st;
}

static enum status start(struct slot *s, struct error *err)
{
    struct supervisor *sup = s->pool->sup;
    char url[PATH_BYTES + 64];
    s->launch = s->pool->next_launch++;
    snprintf(url, sizeof url, "ipc://%s/worker/%d-%llu", sup->paths.run, s->index, (unsigned long long)s->launch);
    if (!s->wake)
        TRY(loop_wake_new(sup->loop, slot_on_wake, s, &s->wake, err));
    TRY(sp_pair_listen(url, LIMIT_LINK_BYTES, ring, s->wake, &s->link, err));
    enum status st = spawn(s, url, err);
    if (st == ST_OK)
        st = loop_fd_add(sup->loop, s->pidfd, EPOLLIN, on_exit_fd, s, err);
    if (st != ST_OK && s->pid) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
        close(s->pidfd);
    }
    return st;
}

static void delay_next_start(struct slot *s)
{
    int64_t delay = s->backoff_ms ? s->backoff_ms : cfg(s)->backoff_ms;
    s->start_at = clock_ms() + delay;
    s->backoff_ms = 2 * delay < cfg(s)->backoff_max_ms ? 2 * delay : cfg(s)->backoff_max_ms;
}

void slot_start(struct slot *s)
{
    struct error err;
    int64_t now = clock_ms();
    s->pid = 0;
    s->start_at = 0;
    s->leaving = false;
    s->phase[0] = 0;
    if (start(s, &err) != ST_OK) {
        LOGE("worker does not start", "slot=%d device=%s error=%s", s->index, s->device.name, err.message);
        snprintf(s->reason, sizeof s->reason, "does not start: %.150s", err.message);
        if (s->link)
            sp_pair_close(s->link);
        s->link = NULL;
        s->pid = 0;
        slot_event(s, SLOT_ON_SPAWN_FAILED);
        delay_next_start(s);
        return;
    }
    s->start_time = subprocess_start_time(s->pid);
    s->started_ms = s->heard_ms = s->moved_ms = now;
    s->end_why = END_CRASH;
    s->end_reason[0] = 0;
    s->cancel_until = s->term_until = s->lost_at = 0;
    record(s, false);
    slot_event(s, SLOT_ON_SPAWNED);
    pool_wake_timer(s->pool);
}

/* ---- frames */

static void on_hello(struct slot *s, const struct link_HELLO *m)
{
    if (m->protocol != LINK_PROTOCOL) {
        char reason[160];
        snprintf(reason, sizeof reason, "speaks link protocol %llu, galleyd %d: install both from one build", (unsigned long long)m->protocol, LINK_PROTOCOL);
        slot_kill(s, false, END_CRASH, reason);
        return;
    }
    if (slot_event(s, SLOT_ON_HELLO)) {
        LOGI("worker ready", "slot=%d device=%s pid=%d ms=%lld", s->index, s->device.name, (int)s->pid, (long long)(clock_ms() - s->started_ms));
        pool_slot_ready(s);
    }
}

static void on_heartbeat(struct slot *s, const struct link_HEARTBEAT *m)
{
    if (m->counter != s->counter)
        s->moved_ms = clock_ms();
    s->counter = m->counter;
    s->rss_bytes = m->rss_bytes;
    s->device_bytes = m->device_bytes;
    view_text(m->phase, s->phase, sizeof s->phase);
}

/* current tells whether a frame is about the item that the slot works on now; others are late and dropped. */
static bool current(const struct slot *s, int64_t item, int64_t epoch)
{
    return s->work.item && s->work.item == item && s->work.epoch == epoch;
}

static void take(struct slot *s, const struct link_message *m)
{
    switch (m->kind) {
    case LINK_HELLO: on_hello(s, &m->HELLO); break;
    case LINK_HEARTBEAT: on_heartbeat(s, &m->HEARTBEAT); break;
    case LINK_MODELS:
        free(s->models);
        s->models = view_dup(m->MODELS.models);
        break;
    case LINK_STARTED:
        if (current(s, m->STARTED.item, m->STARTED.epoch))
            s->moved_ms = clock_ms(), progress_started(s, &m->STARTED);
        break;
    case LINK_PROGRESS:
        if (current(s, m->PROGRESS.item, m->PROGRESS.epoch))
            s->moved_ms = clock_ms(), progress_progress(s, &m->PROGRESS);
        break;
    case LINK_PREVIEW:
        if (current(s, m->PREVIEW.item, m->PREVIEW.epoch))
            progress_preview(s, &m->PREVIEW);
        break;
    case LINK_NODE_DONE:
        if (current(s, m->NODE_DONE.item, m->NODE_DONE.epoch))
            progress_node_done(s, &m->NODE_DONE);
        break;
    case LINK_FINISH:
        if (current(s, m->FINISH.item, m->FINISH.epoch) && !s->finishing && view_is(m->FINISH.outcome, "device_fault"))
            view_text(m->FINISH.error_message, s->end_reason, sizeof s->end_reason);    /* the exit that follows is the end of the attempt, a crash */
        else if (current(s, m->FINISH.item, m->FINISH.epoch) && !s->finishing)
            pool_frame_finish(s, &m->FINISH);
        else
            LOGW("late finish refused", "slot=%d item=%lld epoch=%lld", s->index, (long long)m->FINISH.item, (long long)m->FINISH.epoch);
        break;
    default: break;
    }
}

static uint64_t launch_of(const struct link_message *m)
{
    switch (m->kind) {
    case LINK_HELLO: return m->HELLO.launch;
    case LINK_HEARTBEAT: return m->HEARTBEAT.launch;
    case LINK_STARTED: return m->STARTED.launch;
    case LINK_PROGRESS: return m->PROGRESS.launch;
    case LINK_PREVIEW: return m->PREVIEW.launch;
    case LINK_NODE_DONE: return m->NODE_DONE.launch;
    case LINK_MODELS: return m->MODELS.launch;
    case LINK_FINISH: return m->FINISH.launch;
    default: return 0;
    }
}

/* check_frame reads a whole frame without acting on it: a worker that breaks the form has said nothing. */
static enum status check_frame(const struct slot *s, struct view frame, struct error *err)
{
    struct link_message m;
    do {
        TRY(link_next(&frame, true, &m, err));
        if (launch_of(&m) != s->launch)
            return FAIL(err, PROTOCOL, "frame %s of launch %llu on the link of launch %llu", link_name(m.kind), (unsigned long long)launch_of(&m), (unsigned long long)s->launch);
    } while (frame.n);
    return ST_OK;
}

/* take_frame acts on the messages of a frame and returns how many there were. */
static int take_frame(struct slot *s, struct view frame)
{
    struct error err;
    int n = 0;
    if (check_frame(s, frame, &err) != ST_OK) {
        LOGE("frame of a worker refused", "slot=%d error=%s", s->index, err.message);
        slot_kill(s, false, END_CRASH, "sent a frame that breaks the link protocol");
        return 1;
    }
    s->heard_ms = clock_ms();
    for (struct link_message m; frame.n && link_next(&frame, true, &m, &err) == ST_OK; n++)
        take(s, &m);
    return n;
}

/* take_frames acts on frames until they held MAX messages; false: none is left. */
static bool take_frames(struct slot *s, int max)
{
    void *frame;
    size_t n;
    for (int i = 0; i < max;) {
        if (!s->link || s->state == SLOT_LOST || !sp_pair_take(s->link, &frame, &n))
            return false;
        i += take_frame(s, (struct view){frame, n});
        free(frame);
    }
    return true;
}

void slot_on_wake(void *arg)
{
    struct slot *s = arg;
    if (!s->settling && take_frames(s, TAKE_MAX))
        loop_wake_ring(s->wake);    /* a flood of one worker must not keep the loop from the others */
}

/* ---- the end of a process */

void slot_kill(struct slot *s, bool term_first, enum attempt_end why, const char *reason)
{
    if (!s->pid || s->state == SLOT_LOST)
        return;
    if (s->state != SLOT_STOPPING) {
        s->end_why = why;
        snprintf(s->end_reason, sizeof s->end_reason, "%s", reason);
        snprintf(s->reason, sizeof s->reason, "%s", reason);
        if (!slot_event(s, SLOT_ON_STOP))
            return;
    }
    s->cancel_until = 0;
    if (term_first && !s->term_until) {
        s->term_until = clock_ms() + cfg(s)->term_grace_ms;
        kill(s->pid, SIGTERM);
    } else {
        s->term_until = 0;
        s->lost_at = clock_ms() + LOST_MS;
        kill(-s->pid, SIGKILL);    /* its whole session: grandchildren too */
        kill(s->pid, SIGKILL);
    }
    pool_wake_timer(s->pool);
}

/* note_fault counts a death that ITEM was running in; true when the device has failed FAULTS_MAX different items inside the window. */
static bool note_fault(struct slot *s, int64_t item)
{
    int64_t now = clock_ms();
    int n = 0;
    for (int i = 0; i < s->n_faults; i++)
        if (now - s->faults[i].at_ms < FAULT_WINDOW_MS && s->faults[i].item != item)
            s->faults[n++] = s->faults[i];
    if (n == FAULTS_MAX)
        memmove(s->faults, s->faults + 1, (size_t)--n * sizeof s->faults[0]);
    s->faults[n].item = item;
    s->faults[n].at_ms = now;
    s->n_faults = n + 1;
    return s->n_faults >= FAULTS_MAX;
}

static void describe_exit(const siginfo_t *info, char *ret, size_t size)
{
    static const char *const meaning[] = {"drained", "lost its link", "refused its configuration", "lost its device", "was out of memory", "had a sticky device error"};
    if (info->si_code == CLD_EXITED && info->si_status < (int)(sizeof meaning / sizeof meaning[0]))
        snprintf(ret, size, "exited with %d (%s)", info->si_status, meaning[info->si_status]);
    else if (info->si_code == CLD_EXITED)
        snprintf(ret, size, "exited with %d", info->si_status);
    else
        snprintf(ret, size, "ended by signal %d (%s)", info->si_status, strsignal(info->si_status));
}

/* account tells the queue what became of the item that the dead process worked on, and counts the fault against the device. */
static bool account(struct slot *s, const char *how)
{
    struct work w = s->work;
    s->work = (struct work){0};
    progress_reset(s);
    if (!w.item || s->finishing)
        return false;
    char reason[400];
    if (s->end_reason[0])
        snprintf(reason, sizeof reason, "worker on %s %s: %s", s->device.name, how, s->end_reason);
    else
        snprintf(reason, sizeof reason, "worker on %s %s", s->device.name, how);
    LOGW("attempt ended", "item=%lld epoch=%lld slot=%d reason=%s", (long long)w.item, (long long)w.epoch, s->index, reason);
    pool_attempt_ended(s->pool, w.item, w.epoch, s->end_why, reason);
    bool blamed = (s->end_why == END_CRASH || s->end_why == END_HANG) && !w.canceling;
    return blamed && note_fault(s, w.item);
}

static void on_exit_fd(void *arg, uint32_t events)
{
    struct slot *s = arg;
    siginfo_t info = {0};
    char how[120];
    (void)events;
    if (s->settling) {
        s->exit_waits = true;
        s->cancel_until = s->term_until = s->lost_at = 0;    /* it has ended */
        loop_fd_del(s->pool->sup->loop, s->pidfd);
        return;
    }
    if (waitid(P_PID, (id_t)s->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
        return;
    take_frames(s, INT_MAX);    /* what it said before it died counts */
    describe_exit(&info, how, sizeof how);
    int code = info.si_code == CLD_EXITED ? info.si_status : -1;
    bool expected = s->pool->stopping || (s->state == SLOT_STOPPING && s->end_why != END_CRASH && s->end_why != END_HANG);
    kill(-s->pid, SIGKILL);    /* before the reaping: until then the session is surely the worker's */
    waitid(P_PID, (id_t)s->pid, &info, WEXITED);
    loop_fd_del(s->pool->sup->loop, s->pidfd);
    close(s->pidfd);
    sp_pair_close(s->link);
    s->link = NULL;
    record(s, true);
    bool healthy = clock_ms() - s->started_ms >= cfg(s)->backoff_reset_ms;
    if (healthy || expected)
        s->backoff_ms = 0;
    s->deaths++;
    if (!expected)
        LOGW("worker died", "slot=%d device=%s pid=%d how=%s", s->index, s->device.name, (int)s->pid, how);
    s->pid = 0;
    s->cancel_until = s->term_until = s->lost_at = 0;
    if (code == 3)
        s->end_why = END_DEVICE_LOST;
    else if (code == 4 && s->end_why == END_CRASH)
        s->end_why = END_OUT_OF_MEMORY;
    bool quarantine = account(s, how);
    if (!s->end_reason[0])
        snprintf(s->reason, sizeof s->reason, "%s", how);
    slot_event(s, SLOT_ON_EXITED);
    free(s->models);
    s->models = NULL;
    delay_next_start(s);
    if (quarantine || code == 3) {
        snprintf(s->reason, sizeof s->reason, "%s; 'galley workers restart %s' brings it back", code == 3 ? "device lost" : "failed different items three times in 10 minutes",
                 s->device.name);
        slot_event(s, SLOT_ON_QUARANTINE);
    } else if (s->keep_off || code == 2) {
        slot_event(s, SLOT_ON_CLOSE);
    }
    pool_wake_timer(s->pool);
}

void slot_settled(struct slot *s)
{
    if (!s->settling)
        return;
    s->settling = false;
    if (store_broken(s->pool->sup->store, NULL))
        return;    /* nothing more is told */
    s->heard_ms = s->moved_ms = clock_ms();    /* the disk was slow, not the worker */
    slot_on_wake(s);
    if (s->exit_waits) {
        s->exit_waits = false;
        on_exit_fd(s, EPOLLIN);
    }
}

/* ---- limits */

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* check_health kills a worker that is silent or whose work stands still. Returns when to look again. */
static int64_t check_health(struct slot *s, int64_t now)
{
    char reason[160];
    if (s->state == SLOT_STARTING) {
        if (now - s->started_ms < cfg(s)->start_limit_ms)
            return s->started_ms + cfg(s)->start_limit_ms;
        slot_kill(s, false, END_HANG, "did not report for duty in time");
        return INT64_MAX;
    }
    if ((s->state != SLOT_READY && s->state != SLOT_BUSY) || s->settling)
        return INT64_MAX;
    if (now - s->heard_ms >= cfg(s)->heartbeat_dead_ms) {
        snprintf(reason, sizeof reason, "silent for %lld ms", (long long)(now - s->heard_ms));
        slot_kill(s, false, END_HANG, reason);
        return INT64_MAX;
    }
    int64_t next = s->heard_ms + cfg(s)->heartbeat_dead_ms;
    if (s->state == SLOT_READY || s->finishing)
        return next;
    int64_t limit = strcmp(s->phase, "load") == 0 ? cfg(s)->load_limit_ms : cfg(s)->phase_limit_ms;
    if (now - s->moved_ms >= limit) {
        snprintf(reason, sizeof reason, "no movement in phase '%s' for %lld ms", s->phase, (long long)(now - s->moved_ms));
        slot_kill(s, false, END_HANG, reason);
        return INT64_MAX;
    }
    return sooner(next, s->moved_ms + limit);
}

static int64_t check_ladder(struct slot *s, int64_t now)
{
    int64_t next = INT64_MAX;
    if (s->cancel_until && now >= s->cancel_until)
        slot_kill(s, true, END_STOP, "did not react to a cancel in time");
    if (s->term_until && now >= s->term_until)
        slot_kill(s, false, END_STOP, s->end_reason);
    if (s->lost_at && now >= s->lost_at && s->state == SLOT_STOPPING) {
        s->lost_at = 0;
        snprintf(s->reason, sizeof s->reason, "does not end after KILL: the device is fenced until process %d is gone", (int)s->pid);
        LOGE("worker cannot be killed", "slot=%d device=%s pid=%d", s->index, s->device.name, (int)s->pid);
        slot_event(s, SLOT_ON_UNKILLABLE);
        account(s, "cannot be killed");
    }
    if (s->cancel_until)
        next = sooner(next, s->cancel_until);
    if (s->term_until)
        next = sooner(next, s->term_until);
    if (s->lost_at)
        next = sooner(next, s->lost_at);
    return next;
}

int64_t slot_check(struct slot *s, int64_t now)
{
    if (s->state == SLOT_BACKOFF && !s->keep_off && now >= s->start_at)
        slot_start(s);
    int64_t next = check_health(s, now);    /* first: it may set the ladder up */
    next = sooner(next, check_ladder(s, now));
    if (s->work.item)
        next = sooner(next, progress_flush(s, false));
    return s->state == SLOT_BACKOFF && !s->keep_off ? sooner(next, s->start_at) : next;
}
