/* The node's life: start, readiness, house-keeping, reload, drain, stop. */
#include "supervisor/supervisor.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "common/clock.h"
#include "common/log.h"
#include "common/subprocess.h"
#include "supervisor/control.h"

enum { HOUSE_MS = 1000, EXIT_LIMIT_MS = 15000, OLD_WORKER_MS = 5000 };

static void notify(const char *state)
{
#ifdef HAVE_SYSTEMD
    sd_notify(0, state);
#else
    (void)state;
#endif
}

int64_t supervisor_now_ms(void)
{
    return clock_wall_ms();
}

/* ---- readiness */

bool supervisor_may_claim(const struct supervisor *sup)
{
    return sup->state == RUN_SERVING && !sup->paused && !sup->disk_low && !store_broken(sup->store, NULL);
}

bool supervisor_ready(const struct supervisor *sup, char *why, size_t size)
{
    char slots[400];
    why[0] = 0;
    if (sup->state != RUN_SERVING)
        snprintf(why, size, "the node is %s", sup->state == RUN_STARTING ? "starting" : "draining");
    else if (store_broken(sup->store, NULL))
        snprintf(why, size, "the database does not take writes");
    else if (sup->disk_low)
        snprintf(why, size, "%s", sup->disk_text);
    else if (sup->paused)
        snprintf(why, size, "the queue is paused: 'galley queue resume' goes on");
    else if (!pool_able(sup->pool)) {
        pool_summary(sup->pool, slots, sizeof slots);
        snprintf(why, size, "no worker is ready: %s", slots);
    }
    return !why[0];
}

static void node_event(struct supervisor *sup, const char *state, const char *reason)
{
    const struct ev_field fields[] = {EV_S("boot_id", sup->boot_id), EV_S("state", state), EV_S("reason", reason)};
    relay_event(sup->relay, "ev/node ", "node_state_changed", fields, sizeof fields / sizeof fields[0]);
}

static bool below_floor(struct supervisor *sup, const char *dir, const char *what)
{
    struct statvfs v;
    double floor_gb = sup->config->min_free_disk_gb;
    if (floor_gb <= 0 || statvfs(dir, &v) != 0)
        return false;
    double free_gb = (double)v.f_bavail * (double)v.f_frsize / (1 << 30);
    if (free_gb >= floor_gb)
        return false;
    snprintf(sup->disk_text, sizeof sup->disk_text, "disk of %s has %.2f GiB free, min_free_disk_gb is %.2f: free some space", what, free_gb, floor_gb);
    return true;
}

static void check_disk(struct supervisor *sup)
{
    bool was = sup->disk_low;
    sup->disk_low = below_floor(sup, sup->paths.state, "the state folder") || below_floor(sup, sup->paths.outputs, "outputs_dir");
    if (sup->disk_low == was)
        return;
    if (sup->disk_low)
        LOGE("nothing is started", "reason=\"%s\"", sup->disk_text);
    if (sup->state == RUN_SERVING)
        node_event(sup, sup->disk_low ? "disk_low" : "serving", sup->disk_low ? sup->disk_text : NULL);
    pool_dispatch(sup->pool);
}

/* ---- what the store committed */

static void change_event(struct supervisor *sup, const struct item_change *c)
{
    bool first = c->to == ITEM_IN_PROGRESS;
    const char *reader = item_state_reader_name(c->to), *state = item_state_name(c->to);
    const struct ev_field fields[] = {
        EV_S("status", reader), EV_S("state", strcmp(reader, state) ? state : NULL), EV_I("status_sequence", c->status_sequence),
        EV_S("batch_id", first ? c->batch_id : NULL), EV_S("session_id", first ? c->session_id : NULL), EV_S("queue_id", first ? c->queue_id : NULL),
        EV_S("origin", first && c->origin[0] ? c->origin : NULL), EV_S("destination", first && c->destination[0] ? c->destination : NULL),
        EV_S("user_id", first ? c->user : NULL), EV_S("error_type", c->error_type), EV_S("error_message", c->error_message),
    };
    relay_item_event(sup->relay, c->item_id, c->attempt, c->device, "queue_item_status_changed", fields, sizeof fields / sizeof fields[0], item_state_terminal(c->to));
}

void supervisor_changed(struct supervisor *sup, const struct change_list *changes, bool bulk)
{
    for (size_t i = 0; i < changes->n; i++) {
        const struct item_change *c = &changes->v[i];
        if (c->from != ITEM_GONE)
            sup->counts[c->from]--;
        if (c->to != ITEM_GONE)
            sup->counts[c->to]++;
        bool told = bulk && c->to == ITEM_CANCELED && (c->from == ITEM_PENDING || c->from == ITEM_HELD);
        if (c->from != ITEM_GONE && c->to != ITEM_GONE && !told)
            change_event(sup, c);
        else if (c->from != ITEM_GONE)
            relay_forget(sup->relay, c->item_id);
    }
}

/* ---- event numbers, reserved in blocks */

struct seq_op { struct store_op op; struct supervisor *sup; int64_t upto; };

static enum status run_seq(struct queue *q, struct store_op *op, struct error *err)
{
    return queue_meta_set_int(q, "event_seq", ((struct seq_op *)op)->upto, err);
}

static void seq_done(struct store_op *op, enum status st, const struct error *err)
{
    struct seq_op *s = (struct seq_op *)op;
    if (st != ST_OK) {
        LOGW("event numbers not reserved, to be tried again", "error=\"%s\"", err->message);
        s->sup->seq_again = true;
    }
    free(op);
}

static void reserve_seq(void *arg, int64_t upto)
{
    struct supervisor *sup = arg;
    struct seq_op *s = calloc(1, sizeof *s);
    sup->seq_upto = upto;
    sup->seq_again = !s;
    if (!s)
        return;
    *s = (struct seq_op){{.run = run_seq, .done = seq_done}, sup, upto};
    store_submit(sup->store, &s->op);
}

/* ---- house-keeping */

static _Noreturn void leave(struct supervisor *sup, int code)
{
    if (sup->private_dir[0])
        tree_remove(sup->private_dir);
    _exit(code);
}

static void on_store(void *arg)
{
    struct supervisor *sup = arg;
    struct error err;
    store_drain(sup->store);
    if (store_broken(sup->store, &err)) {
        LOGE("the database does not take writes; nothing more can be acknowledged", "error=\"%s\"", err.message);
        leave(sup, 1);
    }
}

static void ring_store(void *arg)
{
    struct supervisor *sup = arg;
    loop_wake_ring(sup->store_wake);
}

/* check_sockets tells once when nng has lost the thread that ends connections: the node goes on serving, but closed ones pile up. */
static void check_sockets(struct supervisor *sup)
{
    if (sup->sockets_stuck || !sp_stuck())
        return;
    sup->sockets_stuck = true;
    LOGE("closed connections are not let go any more: restart galleyd when it suits", NULL);
}

static void on_house(void *arg)
{
    struct supervisor *sup = arg;
    int64_t stuck = store_stuck_ms(sup->store);
    check_disk(sup);
    check_sockets(sup);
    if (sup->seq_again)
        reserve_seq(sup, sup->seq_upto);
    pool_dispatch(sup->pool);    /* backstop: nothing claimable waits longer than this */
    if (stuck > sup->config->watchdog_ms) {
        LOGE("the store does not answer", "ms=%lld", (long long)stuck);
        leave(sup, 1);
    }
    if (stuck < sup->config->watchdog_ms / 2)
        notify("WATCHDOG=1");
    loop_timer_set(sup->house_timer, HOUSE_MS);
}

/* ---- stop */

static void finish_stop(struct supervisor *sup)
{
    if (sup->state != RUN_STOPPING)
        return;
    if (pool_stopped(sup->pool) && pool_idle(sup->pool))
        loop_stop(sup->loop);
    else
        loop_timer_set(sup->drain_timer, 20);
}

static void stop_now(struct supervisor *sup)
{
    if (sup->state == RUN_STOPPING)
        return;
    sup->state = RUN_STOPPING;
    notify("STOPPING=1");
    node_event(sup, "stopping", NULL);
    pool_stop(sup->pool, false);
    loop_timer_set(sup->exit_timer, EXIT_LIMIT_MS);
    finish_stop(sup);
}

static void on_exit_timer(void *arg)
{
    struct supervisor *sup = arg;
    LOGE("workers do not end; the next start looks after them", NULL);
    loop_stop(sup->loop);
}

/* on_drain_timer runs while draining: until nothing runs or time is up. */
static void on_drain_timer(void *arg)
{
    struct supervisor *sup = arg;
    if (sup->state == RUN_STOPPING) {
        finish_stop(sup);
        return;
    }
    bool late = clock_ms() >= sup->drain_until_ms;
    if (late || (sup->drain_told && pool_idle(sup->pool)))
        stop_now(sup);
    else
        loop_timer_set(sup->drain_timer, 20);
}

struct drain_op { struct store_op op; struct supervisor *sup; };

/* The word that the node drains follows what was claimed before and is not told yet. */
static enum status nothing_to_write(struct queue *q, struct store_op *op, struct error *err)
{
    (void)q, (void)op, (void)err;
    return ST_OK;
}

static void tell_draining(struct store_op *op, enum status st, const struct error *err)
{
    (void)st, (void)err;
    struct drain_op *d = (struct drain_op *)op;
    if (d->sup->state == RUN_DRAINING)
        node_event(d->sup, "draining", NULL);
    d->sup->drain_told = true;
    free(d);
}

static void announce_drain(struct supervisor *sup)
{
    struct drain_op *d = calloc(1, sizeof *d);
    sup->drain_told = !d;
    if (!d)
        return;
    *d = (struct drain_op){.op = {.run = nothing_to_write, .done = tell_draining}, .sup = sup};
    store_submit(sup->store, &d->op);
}

void supervisor_drain(struct supervisor *sup)
{
    if (sup->state == RUN_DRAINING || sup->state == RUN_STOPPING) {
        stop_now(sup);
        return;
    }
    LOGI("draining", "ms=%lld", (long long)sup->config->drain_ms);
    sup->state = RUN_DRAINING;
    sup->drain_until_ms = clock_ms() + sup->config->drain_ms;
    notify("STOPPING=1");
    announce_drain(sup);
    pool_stop(sup->pool, true);
    loop_timer_set(sup->drain_timer, 0);
}

void supervisor_shutdown(struct supervisor *sup)
{
    stop_now(sup);
}

/* ---- reload */

/* tell_notes logs what the probe found worth telling: folders that are no models, what this build lacks. */
static void tell_notes(const json_t *probe)
{
    size_t i;
    json_t *note;
    char text[400];
    json_array_foreach(json_object_get(probe, "notes"), i, note)
        LOGI("note", "text=%s", log_quote(json_string_value(note), text, sizeof text));
}

/* A rescan of the models: the probe runs on a thread of its own, so that loop and store go on however long it takes. */
struct rescan {
    struct supervisor *sup;
    pthread_t thread;
    struct loop_wake *wake;
    supervisor_rescan_fn *done;
    void *arg;
    json_t *probe;
    enum status status;
    struct error err;
};

static void *rescan_main(void *arg)
{
    struct rescan *r = arg;
    r->status = probe_run(r->sup->models_dir, r->sup->paths.data, &r->probe, &r->err);
    loop_wake_ring(r->wake);
    return NULL;
}

static void on_rescanned(void *arg)
{
    struct rescan *r = arg;
    struct models *fresh;
    pthread_join(r->thread, NULL);
    r->sup->rescanning = false;
    if (r->status == ST_OK)
        r->status = models_new(r->probe, &fresh, &r->err);
    if (r->status == ST_OK) {
        models_free(r->sup->models);
        r->sup->models = fresh;
        LOGI("configuration and models read again", "models=%zu", json_array_size(models_list(fresh)));
    } else {
        LOGE("models not read again, the old list stays", "error=\"%s\"", r->err.message);
    }
    json_decref(r->probe);
    if (r->done)
        r->done(r->arg, r->status, &r->err);
    loop_wake_free(r->wake);
    free(r);
}

static enum status rescan_start(struct supervisor *sup, supervisor_rescan_fn *done, void *arg, struct error *err)
{
    struct rescan *r = calloc(1, sizeof *r);
    if (!r)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a reload");
    *r = (struct rescan){.sup = sup, .done = done, .arg = arg};
    enum status s = loop_wake_new(sup->loop, on_rescanned, r, &r->wake, err);
    if (s == ST_OK && pthread_create(&r->thread, NULL, rescan_main, r) != 0)
        s = FAIL(err, OUT_OF_MEMORY, "cannot start a thread for a reload");
    if (s != ST_OK) {
        loop_wake_free(r->wake);
        free(r);
    }
    sup->rescanning = s == ST_OK;
    return s;
}

enum status supervisor_reload(struct supervisor *sup, struct strlist *ret_restart, supervisor_rescan_fn *done, void *arg, struct error *err)
{
    struct config *fresh;
    enum log_level level = LOG_INFO;
    if (sup->rescanning)
        return FAIL(err, BUSY, "a reload is under way: try again when it has ended");
    TRY(config_load(sup->config_file[0] ? sup->config_file : NULL, sup->paths.config, &fresh, err));
    enum status s = config_reload(sup->config, fresh, ret_restart, err);
    config_free(fresh);
    TRY(s);
    log_level_from_name(sup->config->log_level, &level);
    log_setup("galleyd", level, strcmp(sup->config->log_format, "json") == 0);
    return rescan_start(sup, done, arg, err);
}

static void on_signal(void *arg, int signo)
{
    struct supervisor *sup = arg;
    struct error err;
    struct strlist restart = {0};
    switch (signo) {
    case SIGTERM:
        supervisor_drain(sup);
        break;
    case SIGINT:
        stop_now(sup);
        break;
    case SIGHUP:
        notify("RELOADING=1");
        if (supervisor_reload(sup, &restart, NULL, NULL, &err) != ST_OK)
            LOGE("reload refused, the old configuration stays", "error=\"%s\"", err.message);
        strlist_free(&restart);
        notify("READY=1");
        break;
    default:
        break;
    }
}

static void on_private(void *arg, uint32_t events)
{
    struct supervisor *sup = arg;
    char c;
    (void)events;
    ssize_t n = read(sup->private_fd, &c, 1);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    loop_fd_del(sup->loop, sup->private_fd);
    stop_now(sup);
}

/* ---- start */

/* end_old_workers kills what an earlier galleyd left, by pid and start time. */
static enum status end_old_workers(struct queue *q, struct error *err)
{
    struct worker_record old[SLOT_MAX * 4];
    int n = 0;
    TRY(queue_worker_list(q, old, SLOT_MAX * 4, &n, err));
    for (int i = 0; i < n; i++) {
        bool alive = old[i].pid > 1 && subprocess_start_time(old[i].pid) == old[i].start_time && old[i].start_time;
        if (alive) {
            LOGW("worker of an earlier galleyd ended", "pid=%d", old[i].pid);
            kill(-old[i].pid, SIGKILL);
            kill(old[i].pid, SIGKILL);
            int64_t until = clock_ms() + OLD_WORKER_MS;
            while (subprocess_start_time(old[i].pid) == old[i].start_time && clock_ms() < until)
                usleep(2000);
        }
        TRY(queue_worker_forget(q, old[i].launch, err));
    }
    return ST_OK;
}

struct boot { int64_t first_seq; struct change_list recovered; bool paused_slots[SLOT_MAX]; };

/* recover does what must be true before anything is served, in one transaction. */
static enum status recover(struct supervisor *sup, struct queue *q, const struct device *devices, int n, struct boot *b, struct error *err)
{
    char text[16], key[100];
    struct error ignored;
    TRY(end_old_workers(q, err));
    TRY(queue_recover(q, supervisor_now_ms(), &b->recovered, err));
    if (sup->config->clear_queue_on_startup) {
        struct change_list cleared = {0};
        enum status s = queue_clear(q, NULL, &cleared, err);
        change_list_fini(&cleared);
        TRY(s);
    }
    TRY(queue_meta_get_int(q, "event_seq", 0, &b->first_seq, err));
    TRY(queue_meta_set_int(q, "event_seq", b->first_seq + SEQ_BLOCK, err));
    b->first_seq++;
    TRY(queue_meta_set(q, "boot_id", sup->boot_id, err));
    if (sup->config->start_paused)
        TRY(queue_meta_set(q, "paused", "1", err));
    sup->paused = queue_meta_get(q, "paused", text, sizeof text, &ignored) == ST_OK;
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "paused %s", devices[i].name);
        b->paused_slots[i] = queue_meta_get(q, key, text, sizeof text, &ignored) == ST_OK;
    }
    return queue_counts(q, NULL, sup->counts, err);
}

static enum status open_queue(struct supervisor *sup, const struct device *devices, int n, struct boot *b, struct error *err)
{
    struct queue *q;
    struct queue_reader *reader;
    TRY(queue_open(sup->paths.state, strcmp(sup->config->db_synchronous, "OFF") != 0, &q, err));
    TRY(queue_begin(q, err));
    TRY(recover(sup, q, devices, n, b, err));
    TRY(queue_commit(q, err));
    TRY(queue_sync(q, err));
    TRY(outputs_prepare(sup->paths.outputs, q, err));
    TRY(queue_reader_open(sup->paths.state, &reader, err));
    return store_start(q, reader, ring_store, sup, &sup->store, err);
}

static void answer_poll(void *arg, uint64_t token, enum wr_form form, const struct buf *reply)
{
    struct supervisor *sup = arg;
    (void)form;
    control_answer(sup->control, token, reply);
}

static enum status make_timers(struct supervisor *sup, struct error *err)
{
    sup->drain_timer = loop_timer_new(sup->loop, on_drain_timer, sup);
    sup->house_timer = loop_timer_new(sup->loop, on_house, sup);
    sup->exit_timer = loop_timer_new(sup->loop, on_exit_timer, sup);
    return sup->drain_timer && sup->house_timer && sup->exit_timer ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory for timers");
}

static enum status make_folders(struct supervisor *sup, struct error *err)
{
    char dir[PATH_BYTES + 16];
    TRY(paths_make_private(sup->paths.state, err));
    TRY(paths_make_private(sup->paths.run, err));
    snprintf(dir, sizeof dir, "%s/worker", sup->paths.run);
    return paths_make_private(dir, err);
}

static enum status start(struct supervisor *sup, struct error *err)
{
    struct device devices[SLOT_MAX];
    struct boot boot = {0};
    int n;
    json_t *probe;
    TRY(loop_new(&sup->loop, err));
    TRY(loop_signals(sup->loop, (int[]){SIGTERM, SIGINT, SIGHUP, 0}, on_signal, sup, err));
    TRY(make_timers(sup, err));
    TRY(probe_run(sup->models_dir, sup->paths.data, &probe, err));
    tell_notes(probe);
    enum status s = devices_resolve(&sup->config->generation_devices, probe, devices, &n, err);
    if (s == ST_OK)
        s = models_new(probe, &sup->models, err);
    json_decref(probe);
    TRY(s);
    TRY(make_folders(sup, err));
    TRY(loop_wake_new(sup->loop, on_store, sup, &sup->store_wake, err));
    uuid_new(sup->boot_id);
    TRY(open_queue(sup, devices, n, &boot, err));
    struct relay_args relay = {sup->paths.run, boot.first_seq, reserve_seq, answer_poll, sup};
    TRY(relay_new(sup->loop, &relay, &sup->relay, err));
    TRY(pool_new(sup, devices, n, &sup->pool, err));
    for (int i = 0; i < n; i++)
        pool_pause(sup->pool, devices[i].name, boot.paused_slots[i]);
    TRY(control_new(sup, &sup->control, err));
    TRY(sp_guard_start((int)sup->config->listener_probe_ms, err));
    if (sup->private_fd >= 0)
        TRY(loop_fd_add(sup->loop, sup->private_fd, EPOLLIN, on_private, sup, err));
    sup->state = RUN_SERVING;
    node_event(sup, "serving", NULL);
    for (size_t i = 0; i < boot.recovered.n; i++)
        change_event(sup, &boot.recovered.v[i]);
    change_list_fini(&boot.recovered);
    check_disk(sup);
    pool_start(sup->pool);
    loop_timer_set(sup->house_timer, HOUSE_MS);
    return ST_OK;
}

int supervisor_run(struct supervisor *sup, struct error *err)
{
    sup->started_ms = clock_ms();
    enum status s = start(sup, err);
    if (s != ST_OK) {
        if (sup->pool)
            pool_stop(sup->pool, false);
        return s == ST_BAD_CONFIG || s == ST_NO_DEVICE ? 2 : 1;
    }
    LOGI("serving", "version=%s workers=%d control=%s/control state=%s outputs=%s ms=%lld", GALLEY_VERSION, pool_count(sup->pool), sup->paths.run, sup->paths.state,
         sup->paths.outputs, (long long)(clock_ms() - sup->started_ms));
    notify("READY=1");
    if (sup->ready_fd >= 0 && write(sup->ready_fd, "ready\n", 6) == 6)
        close(sup->ready_fd);
    s = loop_run(sup->loop, err);
    store_stop(sup->store);
    LOGI("stopped", NULL);
    return s == ST_OK ? 0 : 1;
}
