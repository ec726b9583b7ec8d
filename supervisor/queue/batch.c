/* Batches in memory: the names that go with every change, and the long texts that go with every claim. */
#include "supervisor/queue/internal.h"
#include <stdatomic.h>
#include <stdlib.h>

struct counted {
    struct batch_text text;
    atomic_int refs;
};

struct batch_text *batch_text_ref(struct batch_text *t)
{
    atomic_fetch_add(&((struct counted *)t)->refs, 1);
    return t;
}

void batch_text_unref(struct batch_text *t)
{
    if (!t || atomic_fetch_sub(&((struct counted *)t)->refs, 1) != 1)
        return;
    char *texts[] = {t->batch_id, t->queue_id, t->user, t->origin, t->destination, t->graph, t->workflow, t->data};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    free(t);
}

struct batch_text *batch_read(sqlite3_stmt *st, int column, bool whole)
{
    struct counted *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    atomic_init(&c->refs, 1);
    struct batch_text *t = &c->text;
    char **names[] = {&t->batch_id, &t->queue_id, &t->user, &t->origin, &t->destination};
    bool ok = true;
    for (int i = 0; i < 5; i++)
        ok = (*names[i] = sql_string(st, column + i, NULL)) && ok;
    t->runs = sqlite3_column_int64(st, column + 5);
    t->requested = sqlite3_column_int64(st, column + 6);
    if (whole) {
        ok = (t->graph = sql_string(st, column + 7, &t->graph_len)) && ok;
        t->workflow = sql_string(st, column + 8, &t->workflow_len);
        t->data = sql_string(st, column + 9, &t->data_len);
        ok = ok && (t->workflow || sqlite3_column_type(st, column + 8) == SQLITE_NULL) &&
             (t->data || sqlite3_column_type(st, column + 9) == SQLITE_NULL);
    }
    if (!ok) {
        batch_text_unref(t);
        return NULL;
    }
    return t;
}

static enum status load(struct queue *q, struct batch_slot *slot, int64_t rowid, bool whole, struct error *err)
{
    if (slot->text && slot->rowid == rowid)
        return ST_OK;
    bool row;
    AUTO_STMT *st = sql_start(&q->sql, whole ? W_BATCH_WHOLE : W_BATCH_HEAD, "i", rowid);
    TRY(sql_row(&q->sql, st, &row, err));
    if (!row)
        return FAIL(err, INTERNAL, "batch row %lld is missing", (long long)rowid);
    struct batch_text *t = batch_read(st, 1, whole);
    if (!t)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a batch's texts");
    batch_text_unref(slot->text);
    *slot = (struct batch_slot){.rowid = rowid, .counter = sqlite3_column_int64(st, 0), .text = t};
    return ST_OK;
}

enum status batch_head(struct queue *q, int64_t rowid, struct batch_slot **ret, struct error *err)
{
    struct batch_slot *slot = &q->heads[(uint64_t)rowid % HEAD_CACHE];
    TRY(load(q, slot, rowid, false, err));
    *ret = slot;
    return ST_OK;
}

enum status batch_whole(struct queue *q, int64_t rowid, struct batch_text **ret, struct error *err)
{
    struct batch_slot *slot = &q->texts[(uint64_t)rowid % TEXT_CACHE];
    TRY(load(q, slot, rowid, true, err));
    *ret = slot->text;
    return ST_OK;
}

void batch_cache_clear(struct queue *q)
{
    for (int i = 0; i < HEAD_CACHE; i++)
        batch_text_unref(q->heads[i].text), q->heads[i] = (struct batch_slot){0};
    for (int i = 0; i < TEXT_CACHE; i++)
        batch_text_unref(q->texts[i].text), q->texts[i] = (struct batch_slot){0};
}
