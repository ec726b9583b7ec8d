/* Lists and look-ups on a connection that cannot write. */
#include "common/json.h"
#include "graph/batch.h"
#include "supervisor/queue/internal.h"
#include <stdlib.h>
#include <string.h>

enum { PAGE_MAX = 1000, DATA_MAX_BYTES = 64 << 20 };

const struct sql_text reader_sql[R_COUNT] = {
#define SQL(name, kind, text) {#name, SQL_##kind, text},
#include "supervisor/queue/reader.def"
#undef SQL
};

struct queue_reader {
    struct sql sql;
    int64_t data_batch; /* row number of the batch whose parsed data is DATA */
    json_t *data;
};

enum status queue_reader_open(const char *dir, struct queue_reader **ret, struct error *err)
{
    char path[PATH_BYTES];
    sqlite3 *db = NULL;
    TRY(queue_db_path(dir, path, err));
    struct queue_reader *r = calloc(1, sizeof *r);
    if (!r)
        return FAIL(err, OUT_OF_MEMORY, "no memory for the queue's reader");
    enum status status = queue_connect(path, SQLITE_OPEN_READONLY, &db, err);
    if (status == ST_OK) {
        status = sql_prepare(&r->sql, db, reader_sql, R_COUNT, err);
        r->sql.db = db;
    }
    if (status != ST_OK) {
        queue_reader_close(r);
        return status;
    }
    *ret = r;
    return ST_OK;
}

void queue_reader_close(struct queue_reader *r)
{
    if (!r)
        return;
    json_decref(r->data);
    sql_fini(&r->sql);
    free(r);
}

void item_page_fini(struct item_page *p)
{
    for (int i = 0; i < p->n; i++)
        json_decref(p->rows[i].field_values);
    arena_free(p->arena);
    *p = (struct item_page){0};
}

void image_page_fini(struct image_page *p)
{
    arena_free(p->arena);
    *p = (struct image_page){0};
}

/* text keeps column I in ARENA; NULL for null (and, with EMPTY_IS_NULL, for ""). OK is cleared when out of memory. */
static const char *text(struct arena *arena, sqlite3_stmt *st, int i, bool empty_is_null, bool *ok)
{
    const char *s = (const char *)sqlite3_column_text(st, i);
    if (!s || (empty_is_null && !s[0]))
        return NULL;
    char *copy = arena_strdup(arena, s);
    *ok = *ok && copy;
    return copy;
}

/* data_of makes r->data the parsed substitutions of a batch; rows of one batch follow each other, so one is kept. */
static enum status data_of(struct queue_reader *r, int64_t batch, struct error *err)
{
    bool row;
    if (r->data_batch == batch)
        return ST_OK;
    json_decref(r->data);
    r->data = NULL;
    r->data_batch = 0;
    AUTO_STMT *st = sql_start(&r->sql, R_BATCH_DATA, "i", batch);
    TRY(sql_row(&r->sql, st, &row, err));
    const char *json = row ? (const char *)sqlite3_column_text(st, 0) : NULL;
    if (json)
        TRY(json_parse(json, (size_t)sqlite3_column_bytes(st, 0), DATA_MAX_BYTES, &r->data, err));
    r->data_batch = batch;
    return ST_OK;
}

static enum status row_read(struct queue_reader *r, sqlite3_stmt *st, struct arena *arena, struct item_row *w, struct error *err)
{
    bool ok = true;
    int64_t batch = sqlite3_column_int64(st, 1);
    *w = (struct item_row){
        .item_id = sqlite3_column_int64(st, 0),
        .ordinal = sqlite3_column_int64(st, 2),
        .state = (enum item_state)sqlite3_column_int(st, 3),
        .status_sequence = sqlite3_column_int64(st, 4),
        .priority = sqlite3_column_int(st, 5),
        .not_before = sqlite3_column_int64(st, 6),
        .attempt = sqlite3_column_int(st, 7),
        .max_attempts = sqlite3_column_int(st, 8),
        .deaths = sqlite3_column_int(st, 9),
        .epoch = sqlite3_column_int64(st, 10),
        .retried_from = sqlite3_column_int64(st, 11),
        .created_at = sqlite3_column_int64(st, 12),
        .updated_at = sqlite3_column_int64(st, 13),
        .started_at = sqlite3_column_int64(st, 14),
        .completed_at = sqlite3_column_int64(st, 15),
        .cost_ms = sqlite3_column_int64(st, 16),
        .device = text(arena, st, 17, false, &ok),
        .worker = text(arena, st, 18, false, &ok),
        .reason = text(arena, st, 19, false, &ok),
        .error_type = text(arena, st, 20, false, &ok),
        .error_message = text(arena, st, 21, false, &ok),
        .batch_id = text(arena, st, 22, false, &ok),
        .queue_id = text(arena, st, 23, false, &ok),
        .user = text(arena, st, 24, false, &ok),
        .origin = text(arena, st, 25, true, &ok),
        .destination = text(arena, st, 26, true, &ok),
    };
    if (!ok || !w->batch_id)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a page of items");
    session_id_of(w->batch_id, w->item_id, w->session_id);
    TRY(data_of(r, batch, err));
    w->field_values = batch_values(r->data, w->ordinal);
    return ST_OK;
}

/* collect appends the rows of ST to a page that has room for MAX. */
static enum status collect(struct queue_reader *r, sqlite3_stmt *st, struct item_page *p, int max, struct error *err)
{
    while (p->n < max) {
        bool row;
        TRY(sql_row(&r->sql, st, &row, err));
        if (!row)
            break;
        TRY(row_read(r, st, p->arena, &p->rows[p->n], err));
        p->n++;
    }
    return ST_OK;
}

static enum status page_init(struct item_page *p, int max, struct error *err)
{
    *p = (struct item_page){.arena = arena_new(0)};
    p->rows = p->arena ? arena_alloc(p->arena, (size_t)max * sizeof *p->rows) : NULL;
    if (p->rows)
        return ST_OK;
    item_page_fini(p);
    return FAIL(err, OUT_OF_MEMORY, "no memory for a page of %d items", max);
}

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const struct item_row *)a)->item_id, y = ((const struct item_row *)b)->item_id;
    return (x > y) - (x < y);
}

/* cut ends a page of which one row more than LIMIT was read, to know whether there is more. */
static void cut(struct item_page *p, int limit)
{
    p->more = p->n > limit;
    for (; p->n > limit; p->n--)
        json_decref(p->rows[p->n - 1].field_values);
}

/* What a status name means: one state, or two for a reader's name that stands for a pair. Pair is -1 for none. */
static enum status states_of(const char *name, int ret[2], struct error *err)
{
    enum item_state s;
    ret[0] = ret[1] = -1;
    if (!name)
        return ST_OK;
    if (!item_state_from_name(name, &s))
        return FAIL(err, BAD_ARGUMENT,
                    "status '%s' is unknown: pending, in_progress, waiting, completed, failed, canceled, held or canceling", name);
    ret[0] = (int)s;
    for (int i = 0; i < ITEM_STATES; i++)
        if (i != (int)s && strcmp(item_state_reader_name((enum item_state)i), name) == 0)
            ret[1] = i;
    return ST_OK;
}

static enum status batch_rowid(struct queue_reader *r, const char *batch_id, int64_t *ret, struct error *err)
{
    bool row;
    AUTO_STMT *st = sql_start(&r->sql, R_BATCH_ROWID, "t", batch_id);
    TRY(sql_row(&r->sql, st, &row, err));
    *ret = row ? sqlite3_column_int64(st, 0) : 0;
    return ST_OK;
}

/* state_sql: items_state has neither pending nor completed rows; nearly all live rows are the one, nearly all rows the other. */
static enum reader_sql state_sql(int state)
{
    return state == ITEM_PENDING ? R_ROWS_LIVE : state == ITEM_COMPLETED ? R_ROWS_ALL : R_ROWS_STATE;
}

static enum status rows_by_state(struct queue_reader *r, const struct item_filter *f, const int states[2], struct item_page *p,
                                 struct error *err)
{
    for (int i = 0; i < 2 && states[i] >= 0; i++) {
        AUTO_STMT *st = sql_start(&r->sql, state_sql(states[i]), "idttttd", f->after, f->limit + 1, f->origin, f->destination, f->device,
                                  f->queue_id, states[i]);
        TRY(collect(r, st, p, (i + 1) * (f->limit + 1), err));
    }
    if (p->n)
        qsort(p->rows, (size_t)p->n, sizeof *p->rows, by_id);
    return ST_OK;
}

static enum status rows(struct queue_reader *r, const struct item_filter *f, struct item_page *p, struct error *err)
{
    int states[2], one_more = f->limit + 1;
    TRY(states_of(f->status, states, err));
    if (f->batch_id) {
        int64_t batch;
        TRY(batch_rowid(r, f->batch_id, &batch, err));
        AUTO_STMT *st = sql_start(&r->sql, R_ROWS_BATCH, "idttttiddd", f->after, one_more, f->origin, f->destination, f->device,
                                  f->queue_id, batch, states[0], states[1], (int)f->live);
        return collect(r, st, p, one_more, err);
    }
    if (states[0] >= 0)
        return rows_by_state(r, f, states, p, err);
    AUTO_STMT *st = sql_start(&r->sql, f->live ? R_ROWS_LIVE : R_ROWS_ALL, "idttttd", f->after, one_more, f->origin, f->destination,
                              f->device, f->queue_id, -1);
    return collect(r, st, p, one_more, err);
}

enum status reader_items(struct queue_reader *r, const struct item_filter *f, struct item_page *ret, struct error *err)
{
    struct item_page p;
    if (f->limit < 1 || f->limit > PAGE_MAX)
        return FAIL(err, BAD_ARGUMENT, "limit is %d: 1 to %d are possible", f->limit, PAGE_MAX);
    TRY(page_init(&p, 2 * (f->limit + 1), err));
    enum status status = rows(r, f, &p, err);
    if (status != ST_OK) {
        item_page_fini(&p);
        return status;
    }
    cut(&p, f->limit);
    *ret = p;
    return ST_OK;
}

enum status reader_current(struct queue_reader *r, struct item_page *ret, struct error *err)
{
    return reader_items(r, &(struct item_filter){.limit = PAGE_MAX, .status = item_state_name(ITEM_IN_PROGRESS)}, ret, err);
}

/* single fills a page from a statement that gives at most one row. */
static enum status single(struct queue_reader *r, sqlite3_stmt *st, struct item_page *ret, struct error *err)
{
    struct item_page p;
    enum status status = page_init(&p, 1, err);
    if (status == ST_OK) {
        status = collect(r, st, &p, 1, err);
        if (status == ST_OK)
            *ret = p;
        else
            item_page_fini(&p);
    }
    sqlite3_reset(st);
    return status;
}

enum status reader_next(struct queue_reader *r, int64_t now_ms, struct item_page *ret, struct error *err)
{
    return single(r, sql_start(&r->sql, R_ROW_NEXT, "i", now_ms), ret, err);
}

void item_detail_fini(struct item_detail *d)
{
    item_page_fini(&d->page);
    batch_text_unref(d->batch);
    free(d->session);
    *d = (struct item_detail){0};
}

static enum status detail_texts(struct queue_reader *r, int64_t item_id, struct item_detail *d, struct error *err)
{
    bool row;
    int64_t batch;
    TRY(batch_rowid(r, d->page.rows[0].batch_id, &batch, err));
    {
        AUTO_STMT *st = sql_start(&r->sql, R_BATCH_WHOLE, "i", batch);
        TRY(sql_row(&r->sql, st, &row, err));
        d->batch = row ? batch_read(st, 0, true) : NULL;
    }
    AUTO_STMT *st = sql_start(&r->sql, R_SESSION, "i", item_id);
    TRY(sql_row(&r->sql, st, &row, err));
    bool has = row && sqlite3_column_type(st, 0) != SQLITE_NULL;
    if (has)
        d->session = sql_string(st, 0, &d->session_len);
    return d->batch && (d->session || !has) ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for the texts of item %lld", (long long)item_id);
}

enum status reader_item(struct queue_reader *r, int64_t item_id, struct item_detail *ret, struct error *err)
{
    struct item_detail d = {0};
    TRY(sql_exec(r->sql.db, "BEGIN", err)); /* one snapshot for the row and its texts */
    enum status status = single(r, sql_start(&r->sql, R_ROW_ONE, "i", item_id), &d.page, err);
    if (status == ST_OK && d.page.n == 0)
        status = FAIL(err, NOT_FOUND, "there is no item %lld", (long long)item_id);
    if (status == ST_OK)
        status = detail_texts(r, item_id, &d, err);
    sqlite3_exec(r->sql.db, "COMMIT", NULL, NULL, NULL);
    if (status == ST_OK)
        *ret = d;
    else
        item_detail_fini(&d);
    return status;
}

enum status reader_batch(struct queue_reader *r, const char *batch_id, struct batch_counts *ret, struct error *err)
{
    bool row;
    AUTO_STMT *st = sql_start(&r->sql, R_BATCH_COUNTS, "t", batch_id);
    TRY(sql_row(&r->sql, st, &row, err));
    if (!row)
        return FAIL(err, NOT_FOUND, "there is no batch '%s'", batch_id);
    struct batch_counts c = {0};
    sql_copy(st, 0, c.batch_id, sizeof c.batch_id);
    sql_copy(st, 1, c.queue_id, sizeof c.queue_id);
    sql_copy(st, 2, c.origin, sizeof c.origin);
    sql_copy(st, 3, c.destination, sizeof c.destination);
    for (int i = 0; i < ITEM_STATES; i++)
        c.total += c.count[i] = sqlite3_column_int64(st, 4 + i);
    *ret = c;
    return ST_OK;
}

enum status reader_counts(struct queue_reader *r, const char *queue_id, int64_t ret[ITEM_STATES], struct error *err)
{
    AUTO_STMT *st = queue_id ? sql_start(&r->sql, R_COUNTS_OF, "t", queue_id) : sql_start(&r->sql, R_COUNTS_ALL, "");
    return counts_sum(&r->sql, st, ret, err);
}

static enum status images(struct queue_reader *r, sqlite3_stmt *st, int limit, struct image_page *ret, struct error *err)
{
    bool ok = ret->arena != NULL;
    while (ok) {
        bool row;
        TRY(sql_row(&r->sql, st, &row, err));
        if (!row)
            return ST_OK;
        if (ret->n == limit) {
            ret->more = true;
            return ST_OK;
        }
        struct image_row *m = &ret->rows[ret->n];
        *m = (struct image_row){
            .image_id = sqlite3_column_int64(st, 0),
            .name = text(ret->arena, st, 1, false, &ok),
            .item_id = sqlite3_column_int64(st, 2),
            .batch_id = text(ret->arena, st, 3, false, &ok),
            .node_id = text(ret->arena, st, 4, false, &ok),
            .width = sqlite3_column_int(st, 5),
            .height = sqlite3_column_int(st, 6),
            .bytes = sqlite3_column_int64(st, 7),
            .is_intermediate = sqlite3_column_int(st, 8) != 0,
            .created_at = sqlite3_column_int64(st, 9),
        };
        if (sqlite3_column_bytes(st, 10) == SHA256_BYTES)
            memcpy(m->sha256, sqlite3_column_blob(st, 10), SHA256_BYTES);
        char *session = arena_alloc(ret->arena, UUID_TEXT);
        ok = ok && session && m->batch_id;
        if (ok)
            session_id_of(m->batch_id, m->item_id, session);
        m->session_id = session;
        ret->n++;
    }
    return FAIL(err, OUT_OF_MEMORY, "no memory for a page of images");
}

static enum status image_rows(struct queue_reader *r, sqlite3_stmt *st, int limit, struct image_page *ret, struct error *err)
{
    struct image_page p = {.arena = arena_new(0)};
    p.rows = p.arena ? arena_alloc(p.arena, (size_t)limit * sizeof *p.rows) : NULL;
    enum status status = p.rows ? images(r, st, limit, &p, err) : FAIL(err, OUT_OF_MEMORY, "no memory for a page of images");
    sqlite3_reset(st);
    if (status == ST_OK)
        *ret = p;
    else
        image_page_fini(&p);
    return status;
}

enum status reader_images(struct queue_reader *r, int64_t before, int64_t item_id, int limit, struct image_page *ret, struct error *err)
{
    if (limit < 1 || limit > PAGE_MAX)
        return FAIL(err, BAD_ARGUMENT, "limit is %d: 1 to %d are possible", limit, PAGE_MAX);
    int64_t below = before > 0 ? before : INT64_MAX;
    sqlite3_stmt *st = item_id > 0 ? sql_start(&r->sql, R_IMAGES_OF, "idi", below, limit + 1, item_id)
                                   : sql_start(&r->sql, R_IMAGES, "id", below, limit + 1);
    return image_rows(r, st, limit, ret, err);
}

enum status reader_image(struct queue_reader *r, const char *name, struct image_page *ret, struct error *err)
{
    struct image_page p;
    TRY(image_rows(r, sql_start(&r->sql, R_IMAGE, "t", name), 1, &p, err));
    if (p.n == 0) {
        image_page_fini(&p);
        return FAIL(err, NOT_FOUND, "there is no image '%s'", name);
    }
    *ret = p;
    return ST_OK;
}
