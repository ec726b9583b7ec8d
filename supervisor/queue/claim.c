/* An attempt: how it starts and how it ends. */
#include "supervisor/queue/internal.h"
#include <stdio.h>
#include <string.h>

static enum status earliest(struct queue *q, int64_t now_ms, int64_t *ret, struct error *err)
{
    bool row;
    AUTO_STMT *st = sql_start(&q->sql, W_ITEM_LATER, "i", now_ms);
    TRY(sql_row(&q->sql, st, &row, err));
    *ret = row ? sqlite3_column_int64(st, 0) : 0;
    return ST_OK;
}

enum status queue_claim(struct queue *q, const struct claim_args *a, struct claim_result *ret, struct change_list *changes,
                        struct error *err)
{
    struct claim_result r = {0};
    struct batch_text *text;
    struct item it;
    AUTO_STMT *st =
        sql_start(&q->sql, W_ITEM_CLAIM, "dttiid", a->slot, a->device, a->worker, a->launch, a->now_ms, (int)a->other_slot_able);
    TRY(sql_row(&q->sql, st, &r.found, err));
    if (!r.found) {
        TRY(earliest(q, a->now_ms, &r.next_ms, err));
        *ret = r;
        return ST_OK;
    }
    item_read(st, &it);
    TRY(sql_run(&q->sql, st, err));
    TRY(item_note(q, &it, ITEM_PENDING, ITEM_IN_PROGRESS, a->now_ms, NULL, NULL, changes, err));
    TRY(counts_flush(q, err));
    TRY(batch_whole(q, it.batch, &text, err));
    r.item_id = it.item_id;
    r.epoch = it.epoch;
    r.ordinal = it.ordinal;
    r.status_sequence = it.status_sequence;
    r.created_at = it.created_at;
    r.attempt = it.attempt;
    r.max_attempts = it.max_attempts;
    r.deaths = it.deaths;
    r.priority = it.priority;
    r.alone = it.ooms > 0;
    session_id_of(text->batch_id, it.item_id, r.session_id);
    r.batch = batch_text_ref(text);
    *ret = r;
    return ST_OK;
}

/* running_load loads an item of which EPOCH is the running attempt; BAD_STATE for anything else: what comes late changes nothing. */
static enum status running_load(struct queue *q, int64_t item_id, int64_t epoch, struct item *ret, struct error *err)
{
    enum status status = item_load(q, item_id, ret, err);
    if (status == ST_NOT_FOUND)
        return FAIL(err, BAD_STATE, "item %lld was deleted while epoch %lld worked on it", (long long)item_id, (long long)epoch);
    if (status != ST_OK)
        return status;
    if (ret->state != ITEM_IN_PROGRESS && ret->state != ITEM_CANCELING)
        return FAIL(err, BAD_STATE, "item %lld is %s, not running: epoch %lld came late", (long long)item_id, item_state_name(ret->state),
                    (long long)epoch);
    if (ret->epoch != epoch)
        return FAIL(err, BAD_STATE, "item %lld runs with epoch %lld: epoch %lld came late", (long long)item_id, (long long)ret->epoch,
                    (long long)epoch);
    return ST_OK;
}

static enum status images_check(struct queue *q, const struct finish_args *a, struct error *err)
{
    for (int i = 0; i < a->n_images; i++) {
        bool row;
        AUTO_STMT *st = sql_start(&q->sql, W_IMAGE_FIND, "t", a->images[i].name);
        TRY(sql_row(&q->sql, st, &row, err));
        for (int k = 0; k < i && !row; k++)
            row = strcmp(a->images[i].name, a->images[k].name) == 0;
        if (row)
            return FAIL(err, CONFLICT, "item %lld: there is an image '%s' already", (long long)a->item_id, a->images[i].name);
    }
    return ST_OK;
}

static enum status images_add(struct queue *q, const struct finish_args *a, const struct item *it, struct error *err)
{
    struct batch_slot *head;
    TRY(batch_head(q, it->batch, &head, err));
    for (int i = 0; i < a->n_images; i++) {
        const struct finish_image *m = &a->images[i];
        TRY(sql_run(&q->sql,
                    sql_start(&q->sql, W_IMAGE_ADD, "tittddidib", m->name, a->item_id, head->text->batch_id, m->node_id ? m->node_id : "",
                              m->width, m->height, m->bytes, (int)m->is_intermediate, a->now_ms, m->sha256, (size_t)SHA256_BYTES),
                    err));
    }
    return ST_OK;
}

enum status queue_finish(struct queue *q, const struct finish_args *a, struct change_list *changes, struct error *err)
{
    struct item it;
    if (a->outcome != ITEM_COMPLETED && a->outcome != ITEM_FAILED && a->outcome != ITEM_CANCELED)
        return FAIL(err, BAD_ARGUMENT, "item %lld cannot finish as %s", (long long)a->item_id, item_state_name(a->outcome));
    TRY(running_load(q, a->item_id, a->epoch, &it, err));
    enum item_state to = it.state == ITEM_CANCELING ? ITEM_CANCELED : a->outcome;
    bool failed = to == ITEM_FAILED, completed = to == ITEM_COMPLETED;
    if (completed)
        TRY(images_check(q, a, err));
    it.cost_ms += a->cost_ms;
    struct store_note note = {.error_type = failed ? (a->error_type ? a->error_type : "node_failed") : NULL,
                              .error_message = failed ? a->error_message : NULL,
                              .session = a->session,
                              .now_ms = a->now_ms};
    TRY(item_store(q, &it, to, &note, changes, err));
    if (completed)
        TRY(images_add(q, a, &it, err));
    return counts_flush(q, err);
}

/* The table "Retry and blame". Counts: the attempt is used up. Death: the item ended a worker. Avoid: another slot is preferred next time.
 */
static const struct {
    const char *error_type;
    bool counts, death, avoid, postponed;
} ends[] = {
    [END_CRASH] = {"worker_crashed", true, true, true, true},
    [END_HANG] = {"worker_hung", true, true, true, true},
    [END_OUT_OF_MEMORY] = {"out_of_memory", true, false, false, false},
    [END_DEVICE_LOST] = {"device_lost", false, false, false, false},
    [END_DRAIN] = {"drained", false, false, false, false},
    [END_STOP] = {"stopped", false, false, false, false},
    [END_SUPERVISOR_CRASH] = {"supervisor_crashed", false, false, false, false},
};

/* verdict: the error an item fails with after this end, NULL when another attempt is due. */
static const char *verdict(const struct item *it, enum attempt_end why)
{
    if (ends[why].death && it->deaths >= QUEUE_DEATHS_MAX)
        return "poison";
    if (why == END_OUT_OF_MEMORY && it->ooms >= 2)
        return "out_of_memory";
    if (ends[why].counts && it->attempt - it->uncounted >= it->max_attempts)
        return ends[why].error_type;
    return NULL;
}

enum status item_attempt_ended(struct queue *q, struct item *it, enum attempt_end why, const char *reason, int64_t backoff_ms,
                               int64_t now_ms, struct change_list *changes, struct error *err)
{
    char message[768];
    struct store_note note = {.reason = reason, .now_ms = now_ms};
    it->deaths += ends[why].death;
    it->ooms += why == END_OUT_OF_MEMORY;
    it->uncounted += !ends[why].counts;
    if (ends[why].avoid)
        it->avoid_slot = it->slot;
    it->not_before = ends[why].postponed ? now_ms + backoff_ms : 0;
    if (it->state == ITEM_CANCELING)
        return item_store(q, it, ITEM_CANCELED, &note, changes, err);
    const char *error_type = verdict(it, why);
    if (!error_type)
        return item_store(q, it, ITEM_PENDING, &note, changes, err);
    if (strcmp(error_type, "poison") == 0)
        snprintf(message, sizeof message, "ended %d workers and is buried (retry it by hand); the last: %s", it->deaths,
                 reason ? reason : ends[why].error_type);
    else
        snprintf(message, sizeof message, "attempt %d of %d: %s", it->attempt - it->uncounted, it->max_attempts,
                 reason ? reason : ends[why].error_type);
    note.error_type = error_type;
    note.error_message = message;
    return item_store(q, it, ITEM_FAILED, &note, changes, err);
}

enum status queue_attempt_ended(struct queue *q, int64_t item_id, int64_t epoch, enum attempt_end why, const char *reason,
                                int64_t backoff_ms, int64_t now_ms, struct change_list *changes, struct error *err)
{
    struct item it;
    TRY(running_load(q, item_id, epoch, &it, err));
    TRY(item_attempt_ended(q, &it, why, reason, backoff_ms, now_ms, changes, err));
    return counts_flush(q, err);
}

enum status queue_fail_pending(struct queue *q, int64_t item_id, const char *error_type, const char *error_message, int64_t now_ms,
                               struct change_list *changes, struct error *err)
{
    struct item it;
    TRY(item_load(q, item_id, &it, err));
    if (it.state != ITEM_PENDING)
        return FAIL(err, BAD_STATE, "item %lld is %s, not pending", (long long)item_id, item_state_name(it.state));
    struct store_note note = {.error_type = error_type, .error_message = error_message, .now_ms = now_ms};
    TRY(item_store(q, &it, ITEM_FAILED, &note, changes, err));
    return counts_flush(q, err);
}

/* recover_one requeues an item that an earlier supervisor left running, or holds it when that happened too often in a short time. */
static enum status recover_one(struct queue *q, struct item *it, int64_t now_ms, struct change_list *changes, struct error *err)
{
    _Static_assert(QUEUE_CRASHES_MAX == 3, "a row remembers the two crashes before this one");
    static const char reason[] = "the supervisor ended while it ran";
    bool often = it->crash2_at > 0 && now_ms - it->crash2_at <= QUEUE_CRASH_WINDOW_MS;
    it->crash2_at = it->crash1_at;
    it->crash1_at = now_ms;
    if (!often || it->state == ITEM_CANCELING)
        return item_attempt_ended(q, it, END_SUPERVISOR_CRASH, reason, 0, now_ms, changes, err);
    it->uncounted++;
    it->crash1_at = it->crash2_at = 0;
    struct store_note note = {.now_ms = now_ms, .reason = "held: it was running at three crashes of the supervisor within five minutes"};
    return item_store(q, it, ITEM_HELD, &note, changes, err);
}

enum status queue_recover(struct queue *q, int64_t now_ms, struct change_list *changes, struct error *err)
{
    AUTO_IDS ids = {0};
    {
        AUTO_STMT *st = sql_start(&q->sql, W_IDS_RUNNING, "");
        TRY(sql_ids(&q->sql, st, &ids, err));
    }
    for (size_t i = 0; i < ids.n; i++) {
        struct item it;
        TRY(item_load(q, ids.v[i], &it, err));
        TRY(recover_one(q, &it, now_ms, changes, err));
    }
    return counts_flush(q, err);
}

enum status queue_finished_epoch(struct queue *q, int64_t item_id, int64_t epoch, bool *ret, struct error *err)
{
    AUTO_STMT *st = sql_start(&q->sql, W_ITEM_EPOCH, "ii", item_id, epoch);
    return sql_row(&q->sql, st, ret, err);
}
