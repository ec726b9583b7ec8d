/* Opening, transactions, small facts. */
#include "supervisor/queue/internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct sql_text writer_sql[W_COUNT] = {
#define SQL(name, kind, text) {#name, SQL_##kind, text},
#include "supervisor/queue/writer.def"
#undef SQL
};

/* note_commit: SQLite has put a commit into the log. */
static int note_commit(void *arg, sqlite3 *db, const char *schema, int pages)
{
    (void)db, (void)schema, (void)pages;
    ((struct queue *)arg)->unsynced = true;
    return SQLITE_OK;
}

enum status queue_open(const char *dir, bool synchronous, struct queue **ret, struct error *err)
{
    struct queue *q = calloc(1, sizeof *q);
    sqlite3 *db = NULL;
    if (!q)
        return FAIL(err, OUT_OF_MEMORY, "no memory for the queue");
    q->lock_fd = -1;
    enum status status = queue_lock(dir, &q->lock_fd, err);
    if (status == ST_OK)
        status = queue_db_path(dir, q->path, err);
    if (status == ST_OK)
        status = queue_open_db(q->path, synchronous, &db, err);
    if (status == ST_OK) {
        status = sql_prepare(&q->sql, db, writer_sql, W_COUNT, err);
        q->sql.db = db;
    }
    if (status != ST_OK) {
        queue_close(q);
        return status;
    }
    q->durable = synchronous;
    sqlite3_wal_hook(q->sql.db, note_commit, q);
    *ret = q;
    return ST_OK;
}

void queue_close(struct queue *q)
{
    if (!q)
        return;
    if (q->sql.db)
        queue_rollback(q);
    batch_cache_clear(q);
    if (q->suspect) /* what a failed sync left is for the next start to judge by its checksums */
        sqlite3_db_config(q->sql.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sql_fini(&q->sql);
    if (q->lock_fd >= 0)
        close(q->lock_fd);
    free(q);
}

static enum status simple(struct queue *q, enum writer_sql id, struct error *err)
{
    return sql_run(&q->sql, sql_start(&q->sql, id, ""), err);
}

/* forget drops what memory holds of a transaction that is undone: a row number may be given out again. */
static void forget(struct queue *q)
{
    q->n_deltas = 0;
    batch_cache_clear(q);
}

bool queue_in_transaction(const struct queue *q) { return !sqlite3_get_autocommit(q->sql.db); }
enum status queue_begin(struct queue *q, struct error *err) { return simple(q, W_BEGIN, err); }
enum status queue_mark(struct queue *q, struct error *err) { return simple(q, W_MARK, err); }
enum status queue_release(struct queue *q, struct error *err) { return simple(q, W_RELEASE, err); }

enum status queue_commit(struct queue *q, struct error *err)
{
    enum status status = simple(q, W_COMMIT, err);
    if (status != ST_OK) {
        q->suspect = status != ST_DISK_FULL;
        queue_rollback(q);
    }
    return status;
}

/* SQLite itself would sync inside the commit (synchronous=FULL), before anybody could act on it; with NORMAL it leaves the log to us, and still
 * syncs it before it copies from it. */
enum status queue_sync(struct queue *q, struct error *err)
{
    sqlite3_file *wal = NULL;
    if (!q->durable || !q->unsynced)
        return ST_OK;
    sqlite3_file_control(q->sql.db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    int rc = wal && wal->pMethods ? wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY) : SQLITE_IOERR_FSYNC;
    if (rc != SQLITE_OK) {
        q->suspect = true;
        return FAIL(err, IO, "cannot sync '%s-wal': %s: mend the disk, then start again", q->path, strerror(errno));
    }
    q->unsynced = false;
    return ST_OK;
}

void queue_rollback(struct queue *q)
{
    forget(q);
    if (queue_in_transaction(q))
        (void)!simple(q, W_ROLLBACK, NULL);
}

bool queue_revert(struct queue *q)
{
    forget(q);
    return queue_in_transaction(q) && simple(q, W_REVERT, NULL) == ST_OK && simple(q, W_RELEASE, NULL) == ST_OK;
}

int64_t queue_wal_bytes(const struct queue *q)
{
    char wal[PATH_BYTES + 8];
    struct stat st;
    memcpy(wal, q->path, sizeof q->path);
    memcpy(wal + strlen(q->path), "-wal", 5);
    return stat(wal, &st) == 0 ? (int64_t)st.st_size : 0;
}

enum status queue_checkpoint(struct queue *q, struct error *err)
{
    int rc = sqlite3_wal_checkpoint_v2(q->sql.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (rc == SQLITE_OK || rc == SQLITE_BUSY)
        return ST_OK;
    enum status status = sql_error(q->sql.db, err, "checkpoint");
    q->suspect = q->suspect || status != ST_DISK_FULL;
    return status;
}

static enum status meta_start(struct queue *q, const char *key, sqlite3_stmt **ret, struct error *err)
{
    bool row;
    *ret = sql_start(&q->sql, W_META_GET, "t", key);
    TRY(sql_row(&q->sql, *ret, &row, err));
    return row ? ST_OK : FAIL(err, NOT_FOUND, "nothing is recorded under '%s'", key);
}

enum status queue_meta_get(struct queue *q, const char *key, char *ret, size_t size, struct error *err)
{
    AUTO_STMT *st = q->sql.stmts[W_META_GET];
    TRY(meta_start(q, key, &st, err));
    const char *text = (const char *)sqlite3_column_text(st, 0);
    if (!text || strlen(text) >= size)
        return FAIL(err, TOO_LARGE, "the fact '%s' has %d bytes, there is room for %zu", key, sqlite3_column_bytes(st, 0), size);
    memcpy(ret, text, strlen(text) + 1);
    return ST_OK;
}

enum status queue_meta_set(struct queue *q, const char *key, const char *value, struct error *err)
{
    if (!value)
        return sql_run(&q->sql, sql_start(&q->sql, W_META_DROP, "t", key), err);
    return sql_run(&q->sql, sql_start(&q->sql, W_META_SET, "tt", key, value), err);
}

enum status queue_meta_get_int(struct queue *q, const char *key, int64_t fallback, int64_t *ret, struct error *err)
{
    AUTO_STMT *st = q->sql.stmts[W_META_GET];
    enum status status = meta_start(q, key, &st, err);
    if (status != ST_OK && status != ST_NOT_FOUND)
        return status;
    *ret = status == ST_OK ? sqlite3_column_int64(st, 0) : fallback;
    return ST_OK;
}

enum status queue_meta_set_int(struct queue *q, const char *key, int64_t value, struct error *err)
{
    return sql_run(&q->sql, sql_start(&q->sql, W_META_SET, "ti", key, value), err);
}

enum status queue_worker_record(struct queue *q, const struct worker_record *w, struct error *err)
{
    return sql_run(&q->sql, sql_start(&q->sql, W_WORKER_SET, "iddi", w->launch, w->slot, w->pid, (int64_t)w->start_time), err);
}

enum status queue_worker_forget(struct queue *q, int64_t launch, struct error *err)
{
    return sql_run(&q->sql, sql_start(&q->sql, W_WORKER_DROP, "i", launch), err);
}

enum status queue_worker_list(struct queue *q, struct worker_record *ret, int max, int *ret_n, struct error *err)
{
    AUTO_STMT *st = sql_start(&q->sql, W_WORKERS, "");
    int n = 0;
    for (;;) {
        bool row;
        TRY(sql_row(&q->sql, st, &row, err));
        if (!row || n == max)
            break;
        ret[n++] = (struct worker_record){.slot = sqlite3_column_int(st, 0),
                                          .launch = sqlite3_column_int64(st, 1),
                                          .pid = sqlite3_column_int(st, 2),
                                          .start_time = (uint64_t)sqlite3_column_int64(st, 3)};
    }
    *ret_n = n;
    return ST_OK;
}
