/* Canceling, deleting, counting. */
#include "supervisor/queue/internal.h"
#include <string.h>

static enum status cancel_loaded(struct queue *q, struct item *it, int64_t now_ms, struct change_list *changes, struct error *err)
{
    struct store_note note = {.now_ms = now_ms};
    if (item_state_terminal(it->state) || it->state == ITEM_CANCELING)
        return ST_OK;
    return item_store(q, it, it->state == ITEM_IN_PROGRESS ? ITEM_CANCELING : ITEM_CANCELED, &note, changes, err);
}

enum status queue_cancel(struct queue *q, int64_t item_id, int attempt, int64_t now_ms, struct change_list *changes, struct error *err)
{
    struct item it;
    TRY(item_load(q, item_id, &it, err));
    if (attempt >= 0 && attempt != it.attempt)
        return FAIL(err, BAD_STATE, "item %lld is at attempt %d, not %d: nothing was canceled", (long long)item_id, it.attempt, attempt);
    TRY(cancel_loaded(q, &it, now_ms, changes, err));
    return counts_flush(q, err);
}

static enum status cancel_ids(struct queue *q, const struct id_list *ids, int64_t now_ms, struct change_list *changes, struct error *err)
{
    for (size_t i = 0; i < ids->n; i++) {
        struct item it;
        TRY(item_load(q, ids->v[i], &it, err));
        TRY(cancel_loaded(q, &it, now_ms, changes, err));
    }
    return counts_flush(q, err);
}

static enum status ids_of(struct queue *q, sqlite3_stmt *st, struct id_list *ret, struct error *err)
{
    enum status status = sql_ids(&q->sql, st, ret, err);
    sqlite3_reset(st);
    return status;
}

static enum status batch_rowid(struct queue *q, const char *batch_id, int64_t *ret, struct error *err)
{
    bool row;
    AUTO_STMT *st = sql_start(&q->sql, W_BATCH_ROWID, "t", batch_id);
    TRY(sql_row(&q->sql, st, &row, err));
    *ret = row ? sqlite3_column_int64(st, 0) : 0;
    return ST_OK;
}

enum status queue_cancel_batches(struct queue *q, const char *const *batch_ids, size_t n, int64_t now_ms, struct change_list *changes,
                                 struct error *err)
{
    AUTO_IDS ids = {0};
    for (size_t i = 0; i < n; i++) {
        int64_t batch;
        TRY(batch_rowid(q, batch_ids[i], &batch, err));
        if (batch)
            TRY(ids_of(q, sql_start(&q->sql, W_BATCH_LIVE, "i", batch), &ids, err));
    }
    return cancel_ids(q, &ids, now_ms, changes, err);
}

enum status queue_cancel_pending(struct queue *q, int64_t now_ms, struct change_list *changes, struct error *err)
{
    AUTO_IDS ids = {0};
    TRY(ids_of(q, sql_start(&q->sql, W_IDS_WAITING, ""), &ids, err));
    return cancel_ids(q, &ids, now_ms, changes, err);
}

static enum status images_take(struct queue *q, int64_t item_id, json_t *images, struct error *err)
{
    AUTO_STMT *st = sql_start(&q->sql, W_IMAGES_OF, "i", item_id);
    for (;;) {
        bool row;
        TRY(sql_row(&q->sql, st, &row, err));
        if (!row)
            break;
        if (json_array_append_new(images, json_string((const char *)sqlite3_column_text(st, 0))) != 0)
            return FAIL(err, OUT_OF_MEMORY, "no memory for the names of the pictures");
    }
    return sql_run(&q->sql, sql_start(&q->sql, W_IMAGES_DELETE, "i", item_id), err);
}

/* delete_ids: every id is there. A batch goes with its last item, at the latest when the next batch's turn comes. */
static enum status delete_ids(struct queue *q, const int64_t *ids, size_t n, json_t *images, struct change_list *changes, struct error *err)
{
    int64_t batch = 0;
    for (size_t i = 0; i < n; i++) {
        struct item it;
        TRY(item_load(q, ids[i], &it, err));
        if (images)
            TRY(images_take(q, it.item_id, images, err));
        if (batch && batch != it.batch) {
            TRY(counts_flush(q, err));
            TRY(sql_run(&q->sql, sql_start(&q->sql, W_BATCH_DROP, "i", batch), err));
        }
        batch = it.batch;
        TRY(item_note(q, &it, it.state, ITEM_GONE, 0, NULL, NULL, changes, err));
        TRY(sql_run(&q->sql, sql_start(&q->sql, W_ITEM_DELETE, "i", it.item_id), err));
    }
    TRY(counts_flush(q, err));
    return batch ? sql_run(&q->sql, sql_start(&q->sql, W_BATCH_DROP, "i", batch), err) : ST_OK;
}

enum status queue_delete(struct queue *q, const int64_t *ids, size_t n, json_t *images, struct change_list *changes, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        struct item it;
        TRY(item_load(q, ids[i], &it, err));
        for (size_t k = 0; k < i; k++)
            if (ids[k] == ids[i])
                return FAIL(err, BAD_ARGUMENT, "item %lld is named twice", (long long)ids[i]);
    }
    return delete_ids(q, ids, n, images, changes, err);
}

enum status queue_prune(struct queue *q, int64_t max, json_t *images, struct change_list *changes, struct error *err)
{
    AUTO_IDS ids = {0};
    TRY(ids_of(q, sql_start(&q->sql, W_IDS_ENDED, "i", max > 0 ? max : (int64_t)-1), &ids, err));
    return delete_ids(q, ids.v, ids.n, images, changes, err);
}

enum status queue_clear(struct queue *q, json_t *images, struct change_list *changes, struct error *err)
{
    AUTO_IDS ids = {0};
    TRY(ids_of(q, sql_start(&q->sql, W_IDS_ALL, ""), &ids, err));
    return delete_ids(q, ids.v, ids.n, images, changes, err);
}

enum status queue_image_delete(struct queue *q, const char *name, struct error *err)
{
    TRY(sql_run(&q->sql, sql_start(&q->sql, W_IMAGE_DELETE, "t", name), err));
    return sqlite3_changes(q->sql.db) > 0 ? ST_OK : FAIL(err, NOT_FOUND, "there is no image '%s'", name);
}

enum status counts_sum(struct sql *s, sqlite3_stmt *st, int64_t ret[ITEM_STATES], struct error *err)
{
    int64_t sum[ITEM_STATES] = {0};
    for (;;) {
        bool row;
        TRY(sql_row(s, st, &row, err));
        if (!row)
            break;
        for (int i = 0; i < ITEM_STATES; i++)
            sum[i] += sqlite3_column_int64(st, i);
    }
    memcpy(ret, sum, sizeof sum);
    return ST_OK;
}

enum status queue_counts(struct queue *q, const char *queue_id, int64_t ret[ITEM_STATES], struct error *err)
{
    AUTO_STMT *st = queue_id ? sql_start(&q->sql, W_COUNTS_OF, "t", queue_id) : sql_start(&q->sql, W_COUNTS_ALL, "");
    return counts_sum(&q->sql, st, ret, err);
}
