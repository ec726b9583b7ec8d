/* Which item runs where: claims, assignments, finishes, requeues. */
#include "supervisor/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/json.h"
#include "common/log.h"
#include "graph/batch.h"
#include "proto/limits.h"
#include "supervisor/slot.h"

enum { RETRY_BACKOFF_MS = 250, TICK_MS = 1000 };

static void claim(struct slot *s);

/* ---- claim */

struct claim_op {
    struct store_op op;
    struct slot *slot;
    struct claim_args args;
    struct claim_result result;
    struct change_list changes;
    char worker[64];
};

static bool other_slot_able(const struct slot *s)
{
    for (int i = 0; i < s->pool->n; i++) {
        const struct slot *o = &s->pool->slots[i];
        if (o != s && !o->paused && (o->state == SLOT_READY || o->state == SLOT_BUSY || o->state == SLOT_STARTING || o->state == SLOT_BACKOFF))
            return true;
    }
    return false;
}

static bool may_claim(const struct slot *s)
{
    return !s->paused && !s->pool->stopping && supervisor_may_claim(s->pool->sup);
}

static void fill_claim(struct slot *s, struct claim_args *a, char worker[64])
{
    snprintf(worker, 64, "%d-%llu", s->index, (unsigned long long)s->launch);
    *a = (struct claim_args){s->index, s->device.name, worker, (int64_t)s->launch, other_slot_able(s), supervisor_now_ms()};
}

static void later(struct pool *p, int64_t wall_ms)
{
    int64_t delay = wall_ms - supervisor_now_ms();
    loop_timer_set(p->later, delay > 1 ? delay : 1);
}

/* batch_data returns the parsed data of C's batch (borrowed); it is kept for the next items of the same batch. */
static enum status batch_data(struct pool *p, const struct claim_result *c, const json_t **ret, struct error *err)
{
    if (p->data_of != c->batch) {
        json_t *data;
        TRY(json_parse(c->batch->data, c->batch->data_len, GRAPH_MAX_BYTES, &data, err));
        json_decref(p->data);
        batch_text_unref(p->data_of);
        p->data = data;
        p->data_of = batch_text_ref(c->batch);
    }
    *ret = p->data;
    return ST_OK;
}

/* values_text writes the substituted values of an item as JSON text (caller frees), NULL when it has none. */
static enum status values_text(struct pool *p, const struct claim_result *c, char **ret, struct error *err)
{
    const json_t *data;
    *ret = NULL;
    if (!c->batch->data)
        return ST_OK;
    TRY(batch_data(p, c, &data, err));
    AUTO_JSON *values = batch_values(data, c->ordinal);
    if (!values || !(*ret = json_text(values)))
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the values of item %lld", (long long)c->item_id);
    return ST_OK;
}

/* random_seed is the same on every attempt of an item, and another for every item. */
static uint64_t random_seed(const struct claim_result *c)
{
    uint64_t seed;
    uint8_t sum[SHA256_BYTES];
    char text[64];
    snprintf(text, sizeof text, "%s %lld", c->session_id, (long long)c->item_id);
    sha256(text, strlen(text), sum);
    memcpy(&seed, sum, sizeof seed);
    return seed;
}

static enum status send_assign(struct slot *s, const struct claim_result *c, struct error *err)
{
    char staging[700];
    char *values;
    TRY(values_text(s->pool, c, &values, err));
    const struct batch_text *b = c->batch;
    outputs_staging(s->pool->sup->paths.outputs, c->item_id, c->epoch, staging, sizeof staging);
    enum status st = slot_send(s, &(struct link_message){LINK_ASSIGN, .ASSIGN = {
        .item = c->item_id, .epoch = c->epoch, .attempt = c->attempt, .session_id = view_of(c->session_id), .graph = {b->graph, b->graph_len},
        .values = view_of(values), .workflow = {b->workflow, b->workflow_len}, .user = view_of(b->user), .staging = view_of(staging),
        .want_previews = s->pool->sup->config->preview_rate, .graph_id = view_of(b->batch_id), .random_seed = random_seed(c)}}, err);
    free(values);
    return st;
}

/* assign gives a claimed item to the slot that claimed it, as soon as the claim is committed: the worker begins while the disk still writes,
 * for a power failure that undoes the claim ends the worker as well. If the slot has gone meanwhile, or the node stops, the item goes back, its
 * attempt not counted. */
static void assign(struct slot *s, struct claim_result *c)
{
    struct error err = {0};
    bool here = s->link && !s->pool->stopping && (s->state == SLOT_READY || s->state == SLOT_BUSY);
    enum status st = here ? slot_event(s, SLOT_ON_ASSIGNED) ? ST_OK : ST_BAD_STATE : FAIL(&err, BAD_STATE, "its worker ended, or the node stops");
    if (st == ST_OK) {
        s->work = (struct work){.item = c->item_id, .epoch = c->epoch, .attempt = c->attempt};
        progress_reset(s);
        snprintf(s->phase, sizeof s->phase, "start");
        s->moved_ms = clock_ms();
        st = send_assign(s, c, &err);
        if (st != ST_OK) {
            s->work = (struct work){0};
            slot_kill(s, false, END_STOP, err.message);
        }
    }
    if (st != ST_OK)
        pool_attempt_ended(s->pool, c->item_id, c->epoch, END_STOP, err.message);
    batch_text_unref(c->batch);
    c->batch = NULL;
}

static enum status run_claim(struct queue *q, struct store_op *op, struct error *err)
{
    struct claim_op *c = (struct claim_op *)op;
    return queue_claim(q, &c->args, &c->result, &c->changes, err);
}

static void claim_committed(struct store_op *op)
{
    struct claim_op *c = (struct claim_op *)op;
    if (c->result.found) {
        c->slot->settling = true;
        assign(c->slot, &c->result);
    }
}

static void claim_done(struct store_op *op, enum status st, const struct error *err)
{
    struct claim_op *c = (struct claim_op *)op;
    struct slot *s = c->slot;
    s->claiming = false;
    bool again = s->claim_again;
    s->claim_again = false;
    if (st != ST_OK) {
        LOGE("claim failed", "slot=%d error=%s", s->index, err->message);
        later(s->pool, supervisor_now_ms() + TICK_MS);
    } else {
        supervisor_changed(s->pool->sup, &c->changes, false);
        if (!c->result.found && c->result.next_ms)
            later(s->pool, c->result.next_ms);
        if (!c->result.found && again)
            claim(s);
    }
    slot_settled(s);
    batch_text_unref(c->result.batch);    /* what assign has not taken */
    change_list_fini(&c->changes);
    free(c);
}

static void claim(struct slot *s)
{
    if (s->state != SLOT_READY || s->work.item || s->finishing || s->leaving || !may_claim(s))
        return;
    if (s->claiming) {
        s->claim_again = true;
        return;
    }
    struct claim_op *c = calloc(1, sizeof *c);
    if (!c) {
        later(s->pool, supervisor_now_ms() + TICK_MS);
        return;
    }
    c->op.run = run_claim;
    c->op.committed = claim_committed;
    c->op.done = claim_done;
    c->slot = s;
    fill_claim(s, &c->args, c->worker);
    s->claiming = true;
    store_submit(s->pool->sup->store, &c->op);
}

void pool_dispatch(struct pool *p)
{
    for (int i = 0; i < p->n; i++)
        claim(&p->slots[i]);
}

void pool_slot_ready(struct slot *s)
{
    claim(s);
}

/* ---- finish: recorded, and the same device's next item claimed, in one transaction */

struct finish_op {
    struct store_op op;
    struct slot *slot;
    uint64_t launch;
    int64_t item, epoch;
    int attempt;
    enum { FINISH_RECORD, FINISH_REQUEUE } what;
    enum attempt_end why;            /* FINISH_REQUEUE */
    struct finish_args args;
    struct finish_image *images;
    json_t *files;                   /* holds the texts of IMAGES */
    char *session, *error_message, error_type[64];
    bool claim_next, went_on;        /* claim as well; what was claimed runs already, since the commit */
    enum status finish_status;
    struct error finish_error;
    struct claim_args claim_args;
    struct claim_result claim;
    struct change_list changes;      /* of the finish, then of the claim */
    size_t n_finish_changes;
    char worker[64];
};

static void finish_free(struct finish_op *f)
{
    batch_text_unref(f->claim.batch);
    change_list_fini(&f->changes);
    json_decref(f->files);
    free(f->images);
    free(f->session);
    free(f->error_message);
    free(f);
}

static enum status run_finish(struct queue *q, struct store_op *op, struct error *err)
{
    struct finish_op *f = (struct finish_op *)op;
    if (f->what == FINISH_RECORD)
        f->finish_status = queue_finish(q, &f->args, &f->changes, &f->finish_error);
    else
        f->finish_status = queue_attempt_ended(q, f->item, f->epoch, f->why, f->error_message ? f->error_message : "", RETRY_BACKOFF_MS, f->args.now_ms,
                                               &f->changes, &f->finish_error);
    f->n_finish_changes = f->changes.n;
    if (f->finish_status != ST_OK && f->finish_status != ST_BAD_STATE && f->finish_status != ST_NOT_FOUND) {
        *err = f->finish_error;
        return f->finish_status;
    }
    return f->claim_next ? queue_claim(q, &f->claim_args, &f->claim, &f->changes, err) : ST_OK;
}

/* settle_files publishes the pictures of a completed item, or removes what nobody will see. */
static void settle_files(struct supervisor *sup, const struct finish_op *f)
{
    struct error err;
    bool completed = f->finish_status == ST_OK && f->n_finish_changes && f->changes.v[0].to == ITEM_COMPLETED;
    if (!completed)
        outputs_discard(sup->paths.outputs, f->item, f->epoch);
    else if (json_array_size(f->files) && outputs_publish(sup->paths.outputs, f->item, f->epoch, &err) != ST_OK)
        LOGE("pictures not published; the next start tries again", "item=%lld error=%s", (long long)f->item, err.message);
}

/* leave_work: the slot is done with its item. */
static void leave_work(struct slot *s)
{
    s->finishing = false;
    s->work = (struct work){0};
    progress_reset(s);
}

static bool same_process(const struct finish_op *f)
{
    return f->slot->launch == f->launch && f->slot->pid;
}

/* finish_committed starts the item that was claimed along with the finish. */
static void finish_committed(struct store_op *op)
{
    struct finish_op *f = (struct finish_op *)op;
    struct slot *s = f->slot;
    if (!f->claim.found || !same_process(f) || s->state != SLOT_BUSY || s->pool->stopping)
        return;
    f->went_on = s->settling = true;
    leave_work(s);
    assign(s, &f->claim);
}

/* free_slot ends the work of a slot that did not go on with the next item. */
static void free_slot(struct slot *s, struct finish_op *f, bool recorded)
{
    bool same = same_process(f);
    leave_work(s);
    if (same)
        slot_event(s, SLOT_ON_FINISHED);
    if (recorded)
        supervisor_changed(s->pool->sup, &f->changes, false);
    if (recorded && f->claim.found)
        pool_attempt_ended(s->pool, f->claim.item_id, f->claim.epoch, END_STOP, "its worker ended, or the node stops");
    else if (recorded && f->claim.next_ms)
        later(s->pool, f->claim.next_ms);
    pool_dispatch(s->pool);    /* what was requeued may suit another slot */
}

static void finish_done(struct store_op *op, enum status st, const struct error *err)
{
    struct finish_op *f = (struct finish_op *)op;
    struct slot *s = f->slot;
    struct supervisor *sup = s->pool->sup;
    if (st != ST_OK) {
        LOGE("finish not recorded; the item will run again", "item=%lld error=%s", (long long)f->item, err->message);
        if (!store_broken(sup->store, NULL))    /* else the next start sees what the disk has */
            outputs_discard(sup->paths.outputs, f->item, f->epoch);
        pool_attempt_ended(s->pool, f->item, f->epoch, END_STOP, err->message);
    } else {
        if (f->finish_status != ST_OK)
            LOGW("late finish refused", "item=%lld epoch=%lld error=%s", (long long)f->item, (long long)f->epoch, f->finish_error.message);
        settle_files(sup, f);
    }
    if (!f->went_on)
        free_slot(s, f, st == ST_OK);
    else if (st == ST_OK)
        supervisor_changed(sup, &f->changes, false);
    if (st == ST_OK && f->finish_status != ST_OK)
        relay_forget(sup->relay, f->item);    /* deleted meanwhile: its end is not told */
    if (f->went_on)
        slot_settled(s);
    finish_free(f);
}

/* images_of reads the FINISH frame's list of files. */
static enum status images_of(struct finish_op *f, struct view files, struct error *err)
{
    if (!files.n)
        return ST_OK;
    TRY(json_parse(files.p, files.n, LIMIT_LINK_BYTES, &f->files, err));
    size_t n = json_array_size(f->files), i;
    json_t *row;
    if (!(f->images = calloc(n + 1, sizeof *f->images)))
        return FAIL(err, OUT_OF_MEMORY, "out of memory for %zu pictures", n);
    json_array_foreach(f->files, i, row) {
        struct finish_image *im = &f->images[i];
        *im = (struct finish_image){.name = json_str(row, "name", ""), .node_id = json_str(row, "node_id", ""), .width = (int)json_int(row, "width", 0),
                                    .height = (int)json_int(row, "height", 0), .bytes = json_int(row, "bytes", 0), .is_intermediate = json_flag(row, "is_intermediate", false)};
        const char *digits = json_str(row, "sha256", "");
        for (size_t b = 0; b < SHA256_BYTES && strlen(digits) == 2 * SHA256_BYTES; b++) {
            unsigned v = 0;
            if (sscanf(digits + 2 * b, "%2x", &v) == 1)
                im->sha256[b] = (uint8_t)v;
        }
    }
    f->args.images = f->images;
    f->args.n_images = (int)n;
    return ST_OK;
}

static enum status fill_finish(struct finish_op *f, const struct link_FINISH *m, struct error *err)
{
    struct slot *s = f->slot;
    view_text(m->error_type, f->error_type, sizeof f->error_type);
    f->error_message = m->error_message.n ? view_dup(m->error_message) : NULL;
    f->session = m->session.n ? view_dup(m->session) : NULL;
    f->args = (struct finish_args){.item_id = f->item, .epoch = f->epoch, .session = f->session, .cost_ms = m->busy_ms, .now_ms = supervisor_now_ms()};
    f->claim_next = s->state == SLOT_BUSY && may_claim(s);
    if (view_is(m->outcome, "completed")) {
        f->args.outcome = ITEM_COMPLETED;
    } else if (view_is(m->outcome, "canceled") && s->work.canceling) {
        f->args.outcome = ITEM_CANCELED;
    } else if (view_is(m->outcome, "canceled")) {
        f->what = FINISH_REQUEUE;    /* the worker was told to end, not the item */
        f->why = s->pool->stopping ? END_DRAIN : END_STOP;
    } else if (view_is(m->outcome, "out_of_memory") || view_is(m->outcome, "device_lost")) {
        f->what = FINISH_REQUEUE;
        f->why = view_is(m->outcome, "out_of_memory") ? END_OUT_OF_MEMORY : END_DEVICE_LOST;
        s->leaving = true;
        s->term_until = clock_ms() + s->pool->sup->config->term_grace_ms;    /* it goes by itself, or is made to */
        pool_wake_timer(s->pool);
        f->claim_next = false;
    } else {
        f->args.outcome = ITEM_FAILED;
        f->args.error_type = f->error_type;
        f->args.error_message = f->error_message ? f->error_message : "";
    }
    return images_of(f, m->files, err);
}

void pool_frame_finish(struct slot *s, const struct link_FINISH *m)
{
    struct error err;
    progress_flush(s, s->progress.total > 0);
    s->progress.waits = false;
    struct finish_op *f = calloc(1, sizeof *f);
    if (!f) {
        slot_kill(s, false, END_STOP, "galleyd is out of memory");
        return;
    }
    f->op.run = run_finish;
    f->op.committed = finish_committed;
    f->op.done = finish_done;
    f->slot = s;
    f->launch = s->launch;
    f->item = m->item;
    f->epoch = m->epoch;
    f->attempt = s->work.attempt;
    if (fill_finish(f, m, &err) != ST_OK) {
        LOGE("finish frame refused", "item=%lld error=%s", (long long)m->item, err.message);
        finish_free(f);
        slot_kill(s, false, END_CRASH, err.message);
        return;
    }
    fill_claim(s, &f->claim_args, f->worker);
    s->finishing = true;
    s->cancel_until = 0;
    s->pool->sup->items_finished++;
    store_submit(s->pool->sup->store, &f->op);
}

/* ---- an attempt that ended without a finish */

struct ended_op {
    struct store_op op;
    struct ended_op *next;           /* while it waits for the store to take writes again */
    struct pool *pool;
    int64_t item, epoch;
    enum attempt_end why;
    char reason[400];
    struct change_list changes;
};

static enum status run_ended(struct queue *q, struct store_op *op, struct error *err)
{
    struct ended_op *e = (struct ended_op *)op;
    enum status st = queue_attempt_ended(q, e->item, e->epoch, e->why, e->reason, RETRY_BACKOFF_MS, supervisor_now_ms(), &e->changes, err);
    return st == ST_BAD_STATE || st == ST_NOT_FOUND ? ST_OK : st;    /* finished or deleted meanwhile */
}

static void ended_done(struct store_op *op, enum status st, const struct error *err)
{
    struct ended_op *e = (struct ended_op *)op;
    if (st != ST_OK && !(e->pool->stopping && e->pool->sup->state == RUN_STOPPING)) {
        LOGE("end of an attempt not recorded, to be tried again", "item=%lld error=\"%s\"", (long long)e->item, err->message);
        change_list_reset(&e->changes);
        e->next = e->pool->unrecorded;
        e->pool->unrecorded = e;
        return;
    }
    if (st == ST_OK)
        supervisor_changed(e->pool->sup, &e->changes, false);
    else
        LOGE("end of an attempt not recorded; the next start recovers the item", "item=%lld error=\"%s\"", (long long)e->item, err->message);
    for (size_t i = 0; i < e->changes.n; i++)
        if (e->changes.v[i].not_before)
            later(e->pool, e->changes.v[i].not_before);
    if (!e->changes.n)
        relay_forget(e->pool->sup->relay, e->item);    /* deleted meanwhile: its end is not told */
    outputs_discard(e->pool->sup->paths.outputs, e->item, e->epoch);
    pool_dispatch(e->pool);
    change_list_fini(&e->changes);
    free(e);
}

void pool_attempt_ended(struct pool *p, int64_t item, int64_t epoch, enum attempt_end why, const char *reason)
{
    struct ended_op *e = calloc(1, sizeof *e);
    if (!e) {
        LOGE("out of memory; the next start recovers the item", "item=%lld", (long long)item);
        return;
    }
    *e = (struct ended_op){.op = {.run = run_ended, .done = ended_done}, .pool = p, .item = item, .epoch = epoch, .why = p->stopping && why == END_STOP ? END_DRAIN : why};
    snprintf(e->reason, sizeof e->reason, "%s", reason);
    store_submit(p->sup->store, &e->op);
}

/* ---- orders */

void pool_cancel(struct pool *p, int slot, int64_t item, int64_t epoch)
{
    struct error err;
    if (slot < 0 || slot >= p->n)
        return;
    struct slot *s = &p->slots[slot];
    if (s->work.item != item || s->work.epoch != epoch || s->finishing)
        return;
    s->work.canceling = true;
    if (slot_send(s, &(struct link_message){LINK_CANCEL, .CANCEL = {.item = item, .epoch = epoch}}, &err) != ST_OK)
        LOGW("cancel frame not sent", "slot=%d error=%s", slot, err.message);
    s->cancel_until = clock_ms() + p->sup->config->cancel_grace_ms;
    pool_wake_timer(p);
}

static struct slot *find(struct pool *p, const char *device, struct error *err)
{
    for (int i = 0; i < p->n; i++) {
        char number[12];
        snprintf(number, sizeof number, "%d", i);
        if (strcmp(p->slots[i].device.name, device) == 0 || strcmp(number, device) == 0)
            return &p->slots[i];
    }
    AUTO_BUF names = BUF_INIT;
    for (int i = 0; i < p->n; i++)
        buf_printf(&names, "%s%s", i ? ", " : "", p->slots[i].device.name);
    FAIL(err, NOT_FOUND, "argument 'device': no device '%s'; there are: %s", device, names.data ? names.data : "none");
    return NULL;
}

enum status pool_restart(struct pool *p, const char *device, struct error *err)
{
    struct slot *s = find(p, device, err);
    if (!s)
        return ST_NOT_FOUND;
    if (s->state == SLOT_LOST)
        return FAIL(err, BAD_STATE, "device '%s' is fenced: %s", s->device.name, s->reason);
    s->n_faults = 0;
    s->backoff_ms = 0;
    if (s->state == SLOT_QUARANTINED || s->state == SLOT_OFF) {
        s->reason[0] = 0;
        slot_event(s, SLOT_ON_RELEASE);
        s->start_at = clock_ms();
    } else if (s->state == SLOT_BACKOFF) {
        s->start_at = clock_ms();
    } else {
        slot_kill(s, true, END_STOP, "restarted on request");
    }
    pool_wake_timer(p);
    return ST_OK;
}

bool pool_pause(struct pool *p, const char *device, bool paused)
{
    struct error ignored;
    struct slot *s = find(p, device, &ignored);
    bool was = s && s->paused;
    if (s)
        s->paused = paused;
    return was;
}

enum status pool_name(struct pool *p, const char *device, const char **ret_name, struct error *err)
{
    struct slot *s = find(p, device, err);
    if (!s)
        return ST_NOT_FOUND;
    *ret_name = s->device.name;
    return ST_OK;
}

void pool_stop(struct pool *p, bool keep_running)
{
    p->stopping = true;
    for (int i = 0; i < p->n; i++) {
        struct slot *s = &p->slots[i];
        s->keep_off = true;
        if (s->state == SLOT_BACKOFF || s->state == SLOT_QUARANTINED)
            slot_event(s, SLOT_ON_CLOSE);
        else if (s->work.item ? !keep_running : s->state != SLOT_STOPPING)    /* an idle one that was told to end keeps its grace */
            slot_kill(s, !s->work.item, END_DRAIN, "the node stops");
    }
}

bool pool_stopped(const struct pool *p)
{
    for (int i = 0; i < p->n; i++)
        if (p->slots[i].pid && p->slots[i].state != SLOT_LOST)
            return false;
    return true;
}

bool pool_idle(const struct pool *p)
{
    for (int i = 0; i < p->n; i++)
        if (p->slots[i].work.item || p->slots[i].claiming || p->slots[i].finishing)
            return false;
    return true;
}

bool pool_able(const struct pool *p)
{
    for (int i = 0; i < p->n; i++)
        if (!p->slots[i].paused && (p->slots[i].state == SLOT_READY || p->slots[i].state == SLOT_BUSY))
            return true;
    return false;
}

int pool_count(const struct pool *p)
{
    return p->n;
}

/* ---- views */

static double it_per_s(const struct work *w, const struct progress *p)
{
    int64_t ms = w->last_step_ms - w->first_step_ms;
    return ms > 0 && p->step > w->first_step ? 1000.0 * (double)(p->step - w->first_step) / (double)ms : 0;
}

bool pool_running(const struct pool *p, int64_t item, struct running *ret)
{
    for (int i = 0; i < p->n; i++) {
        const struct slot *s = &p->slots[i];
        if (s->work.item != item)
            continue;
        *ret = (struct running){s->phase, s->progress.message, s->device.name, s->progress.step, s->progress.total, it_per_s(&s->work, &s->progress)};
        return true;
    }
    return false;
}

static void write_row(const struct slot *s, struct wr *w)
{
    const struct work *k = &s->work;
    wr_map(w, 22);
    wr_kint(w, "slot", s->index);
    wr_kstr(w, "device", s->device.name);
    wr_kstr(w, "uuid", s->device.uuid[0] ? s->device.uuid : NULL);
    wr_kstr(w, "name", s->device.model);
    wr_kint(w, "memory_bytes", s->device.memory_bytes);
    wr_kstr(w, "state", slot_state_name(s->state));
    wr_kbool(w, "paused", s->paused);
    wr_kstr(w, "reason", s->reason[0] ? s->reason : NULL);
    wr_key(w, "pid");
    if (s->pid)
        wr_int(w, s->pid);
    else
        wr_null(w);
    wr_kint(w, "launch", (int64_t)s->launch);
    wr_key(w, "item_id");
    if (k->item)
        wr_int(w, k->item);
    else
        wr_null(w);
    wr_kint(w, "attempt", k->attempt);
    wr_kstr(w, "phase", s->phase[0] ? s->phase : NULL);
    wr_kstr(w, "message", s->progress.message);
    wr_kint(w, "step", s->progress.step);
    wr_kint(w, "total", s->progress.total);
    wr_kdouble(w, "it_per_s", it_per_s(k, &s->progress));
    wr_kint(w, "heartbeat_age_ms", s->pid ? clock_ms() - s->heard_ms : 0);
    wr_kint(w, "rss_bytes", (int64_t)s->rss_bytes);
    wr_kint(w, "device_bytes", (int64_t)s->device_bytes);
    wr_key(w, "models");
    json_t *models = NULL;
    struct error e;
    if (s->models && json_parse(s->models, strlen(s->models), 1 << 20, &models, &e) == ST_OK)
        wr_json(w, models);
    else
        wr_array(w, 0), wr_end(w);
    json_decref(models);
    wr_kint(w, "deaths", (int64_t)s->deaths);
    wr_end(w);
}

void pool_write(const struct pool *p, struct wr *w)
{
    wr_array(w, (uint32_t)p->n);
    for (int i = 0; i < p->n; i++)
        write_row(&p->slots[i], w);
    wr_end(w);
}

void pool_metrics(const struct pool *p, struct buf *out)
{
    buf_puts(out, "# HELP galley_worker_up 1 while the worker is ready or busy\n# TYPE galley_worker_up gauge\n");
    for (int i = 0; i < p->n; i++)
        buf_printf(out, "galley_worker_up{device=\"%s\"} %d\n", p->slots[i].device.name, p->slots[i].state == SLOT_READY || p->slots[i].state == SLOT_BUSY);
    buf_puts(out, "# HELP galley_worker_busy 1 while the worker runs an item\n# TYPE galley_worker_busy gauge\n");
    for (int i = 0; i < p->n; i++)
        buf_printf(out, "galley_worker_busy{device=\"%s\"} %d\n", p->slots[i].device.name, p->slots[i].state == SLOT_BUSY);
    buf_puts(out, "# HELP galley_worker_deaths_total Ended worker processes\n# TYPE galley_worker_deaths_total counter\n");
    for (int i = 0; i < p->n; i++)
        buf_printf(out, "galley_worker_deaths_total{device=\"%s\"} %llu\n", p->slots[i].device.name, (unsigned long long)p->slots[i].deaths);
    buf_puts(out, "# HELP galley_worker_rss_bytes Resident memory\n# TYPE galley_worker_rss_bytes gauge\n");
    for (int i = 0; i < p->n; i++)
        buf_printf(out, "galley_worker_rss_bytes{device=\"%s\"} %llu\n", p->slots[i].device.name, (unsigned long long)p->slots[i].rss_bytes);
}

void pool_summary(const struct pool *p, char *ret, size_t size)
{
    ret[0] = 0;
    for (int i = 0; i < p->n; i++) {
        const struct slot *s = &p->slots[i];
        size_t at = strlen(ret);
        bool works = s->state == SLOT_READY || s->state == SLOT_BUSY;
        if (works && s->paused && at + 1 < size)
            snprintf(ret + at, size - at, "%s%s is paused: 'galley workers resume %s' goes on", at ? "; " : "", s->device.name, s->device.name);
        else if (!works && at + 1 < size)
            snprintf(ret + at, size - at, "%s%s is %s%s%s", at ? "; " : "", s->device.name, slot_state_name(s->state), s->reason[0] ? ": " : "", s->reason);
    }
}

/* ---- life */

/* record_again submits what a full disk kept out of the database. */
static void record_again(struct pool *p)
{
    while (p->unrecorded) {
        struct ended_op *e = p->unrecorded;
        p->unrecorded = e->next;
        store_submit(p->sup->store, &e->op);
    }
}

static void on_timer(void *arg)
{
    struct pool *p = arg;
    int64_t now = clock_ms(), next = now + TICK_MS;
    if (now >= p->record_at) {
        record_again(p);
        p->record_at = now + TICK_MS;
    }
    for (int i = 0; i < p->n; i++) {
        int64_t t = slot_check(&p->slots[i], now);
        next = t < next ? t : next;
    }
    loop_timer_set(p->timer, next > now ? next - now : 1);
}

void pool_wake_timer(struct pool *p)
{
    loop_timer_set(p->timer, 0);
}

static void on_later(void *arg)
{
    pool_dispatch(arg);
}

enum status pool_new(struct supervisor *sup, const struct device *devices, int n, struct pool **ret, struct error *err)
{
    struct pool *p = calloc(1, sizeof *p);
    if (!p || !(p->slots = calloc((size_t)n, sizeof *p->slots))) {
        free(p);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for %d worker slots", n);
    }
    p->sup = sup;
    p->n = n;
    p->next_launch = 1;
    p->timer = loop_timer_new(sup->loop, on_timer, p);
    p->later = loop_timer_new(sup->loop, on_later, p);
    for (int i = 0; i < n; i++)
        p->slots[i] = (struct slot){.pool = p, .index = i, .device = devices[i], .pidfd = -1};
    if (!p->timer || !p->later)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for %d worker slots", n);
    *ret = p;
    return ST_OK;
}

void pool_start(struct pool *p)
{
    for (int i = 0; i < p->n; i++)
        slot_start(&p->slots[i]);
}
