/* How items come in: a batch, or a retry. */
#include "supervisor/queue/internal.h"
#include <stdlib.h>
#include <string.h>

static const int64_t KEY_LIFE_MS = 7 * 86400000LL;

/* row_id adds what is missing and reads its id: both statements take the same first parameters. */
static enum status row_id(struct queue *q, sqlite3_stmt *add, sqlite3_stmt *find, int64_t *ret, struct error *err)
{
    bool row;
    TRY(sql_run(&q->sql, add, err));
    TRY(sql_row(&q->sql, find, &row, err));
    *ret = row ? sqlite3_column_int64(find, 0) : 0;
    sqlite3_reset(find);
    return row ? ST_OK : FAIL(err, INTERNAL, "a row that was added is missing");
}

static enum status user_id(struct queue *q, const char *user, int64_t now_ms, int64_t *ret, struct error *err)
{
    return row_id(q, sql_start(&q->sql, W_USER_ADD, "ti", user, now_ms), sql_start(&q->sql, W_USER_ID, "t", user), ret, err);
}

/* key_replay answers a known key: the first result, or CONFLICT. */
static enum status key_replay(struct queue *q, const struct enqueue_args *a, int64_t user, struct enqueue_result *ret, struct error *err)
{
    bool row;
    AUTO_STMT *st = sql_start(&q->sql, W_KEY_FIND, "it", user, a->key);
    TRY(sql_row(&q->sql, st, &row, err));
    if (!row)
        return ST_OK;
    if (sqlite3_column_bytes(st, 0) != SHA256_BYTES || memcmp(sqlite3_column_blob(st, 0), a->body_hash, SHA256_BYTES) != 0)
        return FAIL(err, CONFLICT, "the key '%s' was used with another body: use a new key, or send the same body again", a->key);
    *ret = (struct enqueue_result){.replayed = true,
                                   .first_item_id = sqlite3_column_int64(st, 2),
                                   .count = sqlite3_column_int64(st, 3),
                                   .priority = sqlite3_column_int(st, 4)};
    sql_copy(st, 1, ret->batch_id, sizeof ret->batch_id);
    return ST_OK;
}

static enum status check_new_batch(struct queue *q, const char *batch_id, struct error *err)
{
    bool row;
    AUTO_STMT *st = sql_start(&q->sql, W_BATCH_ROWID, "t", batch_id);
    TRY(sql_row(&q->sql, st, &row, err));
    return row ? FAIL(err, CONFLICT, "there is a batch '%s' already: leave batch_id out, or choose another", batch_id) : ST_OK;
}

static enum status check_room(struct queue *q, const char *queue_id, int64_t asked, int64_t limit, struct error *err)
{
    bool row;
    AUTO_STMT *st = sql_start(&q->sql, W_COUNTER_PENDING, "t", queue_id);
    TRY(sql_row(&q->sql, st, &row, err));
    int64_t pending = row ? sqlite3_column_int64(st, 0) : 0;
    if (pending > limit || asked > limit - pending)
        return FAIL(err, QUEUE_FULL,
                    "the queue '%s' has %lld pending items and takes %lld (max_queue_size), %lld were asked for: wait, or raise the limit",
                    queue_id, (long long)pending, (long long)limit, (long long)asked);
    return ST_OK;
}

static enum status next_priority(struct queue *q, bool prepend, int *ret, struct error *err)
{
    bool row = false;
    AUTO_STMT *st = sql_start(&q->sql, W_PRIORITY_MAX, "");
    if (prepend)
        TRY(sql_row(&q->sql, st, &row, err));
    int highest = row ? sqlite3_column_int(st, 0) : 0;
    *ret = prepend ? (highest > 0 ? highest : 0) + 1 : 0;
    return ST_OK;
}

static enum status add_batch(struct queue *q, const struct enqueue_args *a, const char *queue_id, int64_t user, struct enqueue_result *r,
                             struct error *err)
{
    int64_t counter, batch;
    TRY(row_id(q, sql_start(&q->sql, W_COUNTER_ADD, "ti", queue_id, user), sql_start(&q->sql, W_COUNTER_ID, "ti", queue_id, user), &counter,
               err));
    TRY(sql_run(&q->sql,
                sql_start(&q->sql, W_BATCH_ADD,
                          "titt"
                          "iii"
                          "tttt",
                          r->batch_id, counter, a->origin ? a->origin : "", a->destination ? a->destination : "", a->runs, a->count,
                          a->now_ms, a->model_keys, a->graph, a->workflow, a->data),
                err));
    batch = sqlite3_last_insert_rowid(q->sql.db);
    TRY(sql_run(&q->sql, sql_start(&q->sql, W_BATCH_COUNTS_ADD, "i", batch), err));
    TRY(sql_run(&q->sql, sql_start(&q->sql, W_ITEMS_ADD, "iddii", batch, r->priority, a->max_attempts, a->now_ms, a->count), err));
    r->first_item_id = sqlite3_last_insert_rowid(q->sql.db) - a->count + 1;
    TRY(counts_add(q, batch, ITEM_GONE, ITEM_PENDING, a->count, err));
    return counts_flush(q, err);
}

enum status queue_enqueue(struct queue *q, const struct enqueue_args *a, struct enqueue_result *ret, struct error *err)
{
    const char *queue_id = a->queue_id ? a->queue_id : "default";
    struct enqueue_result r = {.count = a->count};
    int64_t user;
    if (a->count < 1)
        return FAIL(err, BAD_ARGUMENT, "the batch has %lld items: it needs at least one", (long long)a->count);
    if (a->batch_id && (!a->batch_id[0] || strlen(a->batch_id) >= sizeof r.batch_id))
        return FAIL(err, BAD_ARGUMENT, "batch_id has %zu bytes, 1 to %zu are possible", strlen(a->batch_id), sizeof r.batch_id - 1);
    TRY(user_id(q, a->user ? a->user : "system", a->now_ms, &user, err));
    if (a->key)
        TRY(key_replay(q, a, user, &r, err));
    if (!r.replayed) {
        if (a->batch_id) {
            TRY(check_new_batch(q, a->batch_id, err));
            memcpy(r.batch_id, a->batch_id, strlen(a->batch_id) + 1);
        } else {
            uuid_new(r.batch_id);
        }
        TRY(check_room(q, queue_id, a->count, a->max_queue_size, err));
        TRY(next_priority(q, a->prepend, &r.priority, err));
        TRY(add_batch(q, a, queue_id, user, &r, err));
        if (a->key) {
            TRY(sql_run(&q->sql, sql_start(&q->sql, W_KEY_EXPIRE, "i", a->now_ms - KEY_LIFE_MS), err));
            TRY(sql_run(&q->sql,
                        sql_start(&q->sql, W_KEY_ADD, "itbtiidi", user, a->key, a->body_hash, (size_t)SHA256_BYTES, r.batch_id,
                                  r.first_item_id, r.count, r.priority, a->now_ms),
                        err));
        }
    }
    *ret = r;
    return ST_OK;
}

/* retry_choose loads those of IDS that can be retried into RET (room for N), each once. */
static enum status retry_choose(struct queue *q, const int64_t *ids, size_t n, bool again, struct item *ret, size_t *ret_n,
                                struct error *err)
{
    size_t chosen = 0;
    for (size_t i = 0; i < n; i++) {
        struct item *it = &ret[chosen];
        enum status status = item_load(q, ids[i], it, err);
        if (status != ST_OK && status != ST_NOT_FOUND)
            return status;
        bool wanted = status == ST_OK && (it->state == ITEM_FAILED || it->state == ITEM_CANCELED || (it->state == ITEM_COMPLETED && again));
        for (size_t k = 0; k < chosen && wanted; k++)
            wanted = ret[k].item_id != ids[i];
        chosen += wanted;
    }
    *ret_n = chosen;
    return ST_OK;
}

/* retry_room checks the queue of each item against the number of all: never past the limit, and exact where they are of one queue. */
static enum status retry_room(struct queue *q, const struct item *items, size_t n, int64_t limit, struct error *err)
{
    int64_t counter = 0;
    for (size_t i = 0; i < n; i++) {
        struct batch_slot *head;
        TRY(batch_head(q, items[i].batch, &head, err));
        if (head->counter != counter)
            TRY(check_room(q, head->text->queue_id, (int64_t)n, limit, err));
        counter = head->counter;
    }
    return ST_OK;
}

static enum status retry_add(struct queue *q, const struct item *old, int64_t now_ms, struct change_list *changes, struct error *err)
{
    int64_t first = old->retried_from ? old->retried_from : old->item_id;
    TRY(sql_run(&q->sql,
                sql_start(&q->sql, W_ITEM_RETRY, "iiddii", old->batch, old->ordinal, old->priority, old->max_attempts, now_ms, first),
                err));
    struct item it = {.item_id = sqlite3_last_insert_rowid(q->sql.db),
                      .batch = old->batch,
                      .ordinal = old->ordinal,
                      .priority = old->priority,
                      .max_attempts = old->max_attempts,
                      .slot = -1,
                      .avoid_slot = -1,
                      .retried_from = first,
                      .retry_of = old->item_id,
                      .created_at = now_ms};
    return item_note(q, &it, ITEM_GONE, ITEM_PENDING, now_ms, NULL, NULL, changes, err);
}

enum status queue_retry(struct queue *q, const int64_t *ids, size_t n, bool again, int64_t max_queue_size, int64_t now_ms,
                        struct change_list *changes, struct error *err)
{
    size_t chosen = 0;
    struct item *items = calloc(n + 1, sizeof *items);
    if (!items)
        return FAIL(err, OUT_OF_MEMORY, "no memory to retry %zu items", n);
    enum status status = retry_choose(q, ids, n, again, items, &chosen, err);
    if (status == ST_OK)
        status = retry_room(q, items, chosen, max_queue_size, err);
    for (size_t i = 0; i < chosen && status == ST_OK; i++)
        status = retry_add(q, &items[i], now_ms, changes, err);
    free(items);
    return status == ST_OK ? counts_flush(q, err) : status;
}
