/* One row in memory, and the one way it changes its state. */
#include "supervisor/queue/internal.h"
#include <stdlib.h>
#include <string.h>

void session_id_of(const char *batch_id, int64_t item_id, char ret[UUID_TEXT]) { uuid_derived(batch_id, (uint64_t)item_id, ret); }

void item_read(sqlite3_stmt *st, struct item *ret)
{
    int i = 0;
    ret->retry_of = 0;
    ret->item_id = sqlite3_column_int64(st, i++);
    ret->batch = sqlite3_column_int64(st, i++);
    ret->ordinal = sqlite3_column_int64(st, i++);
    ret->state = (enum item_state)sqlite3_column_int(st, i++);
    ret->status_sequence = sqlite3_column_int64(st, i++);
    ret->priority = sqlite3_column_int(st, i++);
    ret->not_before = sqlite3_column_int64(st, i++);
    ret->attempt = sqlite3_column_int(st, i++);
    ret->uncounted = sqlite3_column_int(st, i++);
    ret->max_attempts = sqlite3_column_int(st, i++);
    ret->deaths = sqlite3_column_int(st, i++);
    ret->ooms = sqlite3_column_int(st, i++);
    ret->epoch = sqlite3_column_int64(st, i++);
    ret->slot = sqlite3_column_int(st, i++);
    ret->avoid_slot = sqlite3_column_int(st, i++);
    ret->retried_from = sqlite3_column_int64(st, i++);
    ret->created_at = sqlite3_column_int64(st, i++);
    ret->started_at = sqlite3_column_int64(st, i++);
    ret->completed_at = sqlite3_column_int64(st, i++);
    ret->crash1_at = sqlite3_column_int64(st, i++);
    ret->crash2_at = sqlite3_column_int64(st, i++);
    ret->cost_ms = sqlite3_column_int64(st, i++);
    sql_copy(st, i, ret->device, sizeof ret->device);
}

enum status item_load(struct queue *q, int64_t item_id, struct item *ret, struct error *err)
{
    bool row;
    AUTO_STMT *st = sql_start(&q->sql, W_ITEM_LOAD, "i", item_id);
    TRY(sql_row(&q->sql, st, &row, err));
    if (!row)
        return FAIL(err, NOT_FOUND, "there is no item %lld", (long long)item_id);
    item_read(st, ret);
    return ST_OK;
}

static enum status flush_one(struct queue *q, enum writer_sql sql, int64_t id, const int64_t d[ITEM_STATES], struct error *err)
{
    return sql_run(&q->sql, sql_start(&q->sql, sql, "iiiiiiiii", id, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]), err);
}

enum status counts_flush(struct queue *q, struct error *err)
{
    _Static_assert(ITEM_STATES == 8, "DELTA_TERMS, STATE_COUNTS and the tables have a column for each state");
    int n = q->n_deltas;
    q->n_deltas = 0;
    for (int i = 0; i < n; i++) {
        TRY(flush_one(q, W_BATCH_MOVE, q->deltas[i].batch, q->deltas[i].d, err));
        TRY(flush_one(q, W_COUNTER_MOVE, q->deltas[i].counter, q->deltas[i].d, err));
    }
    return ST_OK;
}

enum status counts_add(struct queue *q, int64_t batch, enum item_state from, enum item_state to, int64_t n, struct error *err)
{
    int i = 0;
    while (i < q->n_deltas && q->deltas[i].batch != batch)
        i++;
    if (i == DELTAS) {
        TRY(counts_flush(q, err));
        i = 0;
    }
    if (i == q->n_deltas) {
        struct batch_slot *head;
        TRY(batch_head(q, batch, &head, err));
        q->deltas[q->n_deltas++] = (struct delta){.batch = batch, .counter = head->counter};
    }
    if (from < ITEM_STATES)
        q->deltas[i].d[from] -= n;
    if (to < ITEM_STATES)
        q->deltas[i].d[to] += n;
    return ST_OK;
}

void change_list_reset(struct change_list *l)
{
    l->n = 0;
    if (l->arena)
        arena_reset(l->arena);
}

void change_list_fini(struct change_list *l)
{
    free(l->v);
    arena_free(l->arena);
    *l = (struct change_list){0};
}

static const char *keep(struct change_list *l, const char *s, bool *ok)
{
    const char *copy = s ? arena_strdup(l->arena, s) : NULL;
    *ok = *ok && (copy || !s);
    return copy;
}

static bool change_append(struct change_list *l, struct item_change c, const struct batch_text *b)
{
    if (!l->arena && !(l->arena = arena_new(0)))
        return false;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        struct item_change *v = realloc(l->v, cap * sizeof *v);
        if (!v)
            return false;
        l->v = v;
        l->cap = cap;
    }
    bool ok = true;
    const struct item_change *last = l->n ? &l->v[l->n - 1] : NULL;
    if (last && strcmp(last->batch_id, b->batch_id) == 0) { /* a bulk change: one copy for the whole batch */
        c.batch_id = last->batch_id;
        c.queue_id = last->queue_id;
        c.user = last->user;
        c.origin = last->origin;
        c.destination = last->destination;
    } else {
        c.batch_id = keep(l, b->batch_id, &ok);
        c.queue_id = keep(l, b->queue_id, &ok);
        c.user = keep(l, b->user, &ok);
        c.origin = keep(l, b->origin, &ok);
        c.destination = keep(l, b->destination, &ok);
    }
    c.device = keep(l, c.device, &ok);
    c.error_type = keep(l, c.error_type, &ok);
    c.error_message = keep(l, c.error_message, &ok);
    if (ok)
        l->v[l->n++] = c;
    return ok;
}

enum status item_note(struct queue *q, const struct item *it, enum item_state from, enum item_state to, int64_t now_ms,
                      const char *error_type, const char *error_message, struct change_list *changes, struct error *err)
{
    if (from != ITEM_GONE && to != ITEM_GONE && !item_state_allowed(from, to))
        return FAIL(err, INTERNAL, "item %lld: no transition from %s to %s", (long long)it->item_id, item_state_name(from),
                    item_state_name(to));
    TRY(counts_add(q, it->batch, from, to, 1, err));
    if (!changes)
        return ST_OK;
    struct batch_slot *head;
    TRY(batch_head(q, it->batch, &head, err));
    struct item_change c = {
        .item_id = it->item_id,
        .epoch = it->epoch,
        .status_sequence = it->status_sequence,
        .at_ms = now_ms,
        .started_at = it->started_at,
        .completed_at = it->completed_at,
        .created_at = it->created_at,
        .retried_from = it->retried_from,
        .from = from,
        .to = to,
        .attempt = it->attempt,
        .max_attempts = it->max_attempts,
        .deaths = it->deaths,
        .slot = it->slot,
        .not_before = it->not_before,
        .retry_of = it->retry_of,
        .device = it->device[0] ? it->device : NULL,
        .error_type = error_type,
        .error_message = error_message,
    };
    session_id_of(head->text->batch_id, it->item_id, c.session_id);
    return change_append(changes, c, head->text) ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for the list of changes");
}

enum status item_store(struct queue *q, struct item *it, enum item_state to, const struct store_note *note, struct change_list *changes,
                       struct error *err)
{
    enum item_state from = it->state;
    if (!item_state_allowed(from, to))
        return FAIL(err, BAD_STATE, "item %lld is %s: it cannot become %s", (long long)it->item_id, item_state_name(from),
                    item_state_name(to));
    it->state = to;
    it->status_sequence++;
    if (item_state_terminal(to))
        it->completed_at = note->now_ms;
    TRY(sql_run(&q->sql,
                sql_start(&q->sql, W_ITEM_STORE, "idiiddddiiiiit", it->item_id, (int)to, it->status_sequence, it->not_before, it->uncounted,
                          it->deaths, it->ooms, it->avoid_slot, it->completed_at, it->crash1_at, it->crash2_at, it->cost_ms, note->now_ms,
                          note->reason),
                err));
    if (note->error_type || note->session)
        TRY(sql_run(&q->sql, sql_start(&q->sql, W_RESULT_PUT, "ittt", it->item_id, note->error_type, note->error_message, note->session),
                    err));
    return item_note(q, it, from, to, note->now_ms, note->error_type, note->error_message, changes, err);
}
