/* The tables, and how a database file is opened, recognised and brought up to date. */
#include "common/paths.h"
#include "supervisor/queue/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define APPLICATION_ID 1734438009 /* "galy" */
enum { CHECK_BYTES = 256 << 20 }; /* after an unclean end, databases up to this size are checked page by page */

/* Step N brings schema N to N + 1. Forward only; a step that is out is never changed. `items` is narrow, long texts live apart. A session
 * id is derived from batch_id and item_id, the substituted values from data and ordinal: neither is stored. items_state leaves out the two
 * states that most rows are in: pending ones are found by items_live, and each index page less is a page less to write and sync per item.
 */
static const char *const migrations[QUEUE_SCHEMA] = {
    "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, uid INTEGER, admin INTEGER NOT NULL DEFAULT 0, active INTEGER "
    "NOT NULL DEFAULT 1,"
    " max_running INTEGER, max_pending INTEGER, weight REAL NOT NULL DEFAULT 1, created_at INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE counts(id INTEGER PRIMARY KEY, queue_id TEXT NOT NULL, user INTEGER NOT NULL REFERENCES users(id),"
    " s0 INTEGER NOT NULL DEFAULT 0, s1 INTEGER NOT NULL DEFAULT 0, s2 INTEGER NOT NULL DEFAULT 0, s3 INTEGER NOT NULL DEFAULT 0,"
    " s4 INTEGER NOT NULL DEFAULT 0, s5 INTEGER NOT NULL DEFAULT 0, s6 INTEGER NOT NULL DEFAULT 0, s7 INTEGER NOT NULL DEFAULT 0, "
    "UNIQUE(queue_id, user));"
    "CREATE TABLE batches(id INTEGER PRIMARY KEY AUTOINCREMENT, batch_id TEXT NOT NULL UNIQUE, counter INTEGER NOT NULL REFERENCES "
    "counts(id),"
    " origin TEXT NOT NULL DEFAULT '', destination TEXT NOT NULL DEFAULT '', runs INTEGER NOT NULL, requested INTEGER NOT NULL, created_at "
    "INTEGER NOT NULL,"
    " model_keys TEXT, graph TEXT NOT NULL, workflow TEXT, data TEXT);"
    "CREATE TABLE batch_counts(batch INTEGER PRIMARY KEY REFERENCES batches(id) ON DELETE CASCADE,"
    " s0 INTEGER NOT NULL DEFAULT 0, s1 INTEGER NOT NULL DEFAULT 0, s2 INTEGER NOT NULL DEFAULT 0, s3 INTEGER NOT NULL DEFAULT 0,"
    " s4 INTEGER NOT NULL DEFAULT 0, s5 INTEGER NOT NULL DEFAULT 0, s6 INTEGER NOT NULL DEFAULT 0, s7 INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE keys(user INTEGER NOT NULL REFERENCES users(id), key TEXT NOT NULL, body_hash BLOB NOT NULL, batch_id TEXT NOT NULL, "
    "first_item INTEGER NOT NULL,"
    " count INTEGER NOT NULL, priority INTEGER NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY(user, key)) WITHOUT ROWID;"
    "CREATE INDEX keys_age ON keys(created_at);"
    "CREATE TABLE items(item_id INTEGER PRIMARY KEY AUTOINCREMENT, batch INTEGER NOT NULL REFERENCES batches(id), ordinal INTEGER NOT "
    "NULL, state INTEGER NOT NULL DEFAULT 0,"
    " status_sequence INTEGER NOT NULL DEFAULT 0, priority INTEGER NOT NULL DEFAULT 0, not_before INTEGER NOT NULL DEFAULT 0, deadline "
    "INTEGER NOT NULL DEFAULT 0,"
    " attempt INTEGER NOT NULL DEFAULT 0, uncounted INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL DEFAULT 3, deaths INTEGER "
    "NOT NULL DEFAULT 0,"
    " ooms INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0, slot INTEGER NOT NULL DEFAULT -1, avoid_slot INTEGER NOT NULL "
    "DEFAULT -1,"
    " launch INTEGER NOT NULL DEFAULT 0, retried_from INTEGER NOT NULL DEFAULT 0, parent INTEGER NOT NULL DEFAULT 0, root INTEGER NOT NULL "
    "DEFAULT 0,"
    " created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL DEFAULT 0, started_at INTEGER NOT NULL DEFAULT 0, completed_at INTEGER NOT "
    "NULL DEFAULT 0,"
    " crash1_at INTEGER NOT NULL DEFAULT 0, crash2_at INTEGER NOT NULL DEFAULT 0, cost_ms INTEGER NOT NULL DEFAULT 0, device TEXT, worker "
    "TEXT, reason TEXT);"
    "CREATE INDEX items_batch ON items(batch);"
    "CREATE INDEX items_state ON items(state) WHERE state NOT IN (0, 3);"
    "CREATE INDEX items_ready ON items(priority DESC, item_id) WHERE state = 0;"
    "CREATE INDEX items_later ON items(not_before) WHERE state = 0 AND not_before > 0;"
    "CREATE INDEX items_live ON items(item_id) WHERE state IN (0, 1, 2, 6, 7);"
    "CREATE TABLE item_results(item_id INTEGER PRIMARY KEY REFERENCES items(item_id) ON DELETE CASCADE, error_type TEXT, error_message "
    "TEXT, session TEXT);"
    "CREATE TABLE images(image_id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, item_id INTEGER NOT NULL, batch_id TEXT "
    "NOT NULL, node_id TEXT NOT NULL DEFAULT '',"
    " user INTEGER NOT NULL DEFAULT 0, width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL, is_intermediate INTEGER "
    "NOT NULL DEFAULT 0,"
    " created_at INTEGER NOT NULL, sha256 BLOB NOT NULL);"
    "CREATE INDEX images_item ON images(item_id);"
    "CREATE TABLE lanes(user INTEGER PRIMARY KEY REFERENCES users(id), virtual_time REAL NOT NULL DEFAULT 0, running INTEGER NOT NULL "
    "DEFAULT 0, pending INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE devices(uuid TEXT PRIMARY KEY, name TEXT, quarantined_at INTEGER NOT NULL DEFAULT 0, reason TEXT, faults TEXT);"
    "CREATE TABLE models(key TEXT PRIMARY KEY, path TEXT NOT NULL, facts TEXT, size INTEGER, mtime INTEGER);"
    "CREATE TABLE workers(launch INTEGER PRIMARY KEY, slot INTEGER NOT NULL, pid INTEGER NOT NULL, start_time INTEGER NOT NULL);"
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;",
};

enum status queue_lock(const char *dir, int *ret_fd, struct error *err)
{
    char path[PATH_BYTES], holder[32] = "";
    TRY(paths_join(path, sizeof path, dir, "lock", err));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot open '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int cause = errno;
        ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
        close(fd);
        errno = cause;
        if (cause != EWOULDBLOCK)
            return FAIL_ERRNO(err, "cannot lock '%s'", path);
        holder[n > 0 ? strcspn(holder, "\n") : 0] = 0;
        return FAIL(err, BUSY, "another galleyd (pid %s) has the state folder '%s': stop it, or use another folder",
                    holder[0] ? holder : "unknown", dir);
    }
    int n = snprintf(holder, sizeof holder, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, holder, (size_t)n, 0) != n) {
        enum status status = FAIL_ERRNO(err, "cannot write '%s'", path);
        close(fd);
        return status;
    }
    *ret_fd = fd;
    return ST_OK;
}

enum status queue_db_path(const char *dir, char ret[PATH_BYTES], struct error *err)
{
    return paths_join(ret, PATH_BYTES, dir, "galley.db", err);
}

enum status queue_connect(const char *path, int flags, sqlite3 **ret, struct error *err)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL) != SQLITE_OK) {
        enum status status = db ? sql_error(db, err, path) : FAIL(err, OUT_OF_MEMORY, "no memory for a database connection");
        sqlite3_close(db);
        return status;
    }
    sqlite3_busy_timeout(db, 5000);
    *ret = db;
    return ST_OK;
}

static enum status migrate(sqlite3 *db, int64_t from, struct error *err)
{
    for (int64_t v = from; v < QUEUE_SCHEMA; v++) {
        char stamp[96];
        snprintf(stamp, sizeof stamp, "PRAGMA application_id=%d; PRAGMA user_version=%d", APPLICATION_ID, (int)v + 1);
        enum status status = sql_exec(db, "BEGIN IMMEDIATE", err);
        if (status == ST_OK)
            status = sql_exec(db, migrations[v], err);
        if (status == ST_OK)
            status = sql_exec(db, stamp, err);
        if (status == ST_OK)
            status = sql_exec(db, "COMMIT", err);
        if (status != ST_OK) {
            sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
            return error_prefix(err, "bringing the database to schema %d", (int)v + 1);
        }
    }
    return ST_OK;
}

static enum status check_pages(sqlite3 *db, const char *path, struct error *err)
{
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW) {
        enum status status = sql_error(db, err, path);
        sqlite3_finalize(st);
        return status;
    }
    const char *verdict = (const char *)sqlite3_column_text(st, 0);
    enum status status = verdict && strcmp(verdict, "ok") == 0
                             ? ST_OK
                             : FAIL(err, CORRUPT, "'%s' is damaged: %s: move it away, or restore a copy", path, verdict ? verdict : "?");
    sqlite3_finalize(st);
    return status;
}

/* left_unclean: a WAL with content means that the last owner did not close. */
static bool left_unclean(const char *path)
{
    char wal[PATH_BYTES + 8];
    struct stat db, st;
    snprintf(wal, sizeof wal, "%s-wal", path);
    return stat(wal, &st) == 0 && st.st_size > 0 && stat(path, &db) == 0 && db.st_size > 0 && db.st_size <= CHECK_BYTES;
}

/* log_rewrite writes the log over itself and syncs it. After a sync that failed, the system's cache may hold commits that the disk does not
 * have and that no later sync would write, as they count as written: what is read from here on must be what the disk has. */
static enum status log_rewrite(const char *path, struct error *err)
{
    char wal[PATH_BYTES + 8], block[65536];
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    sqlite3_int64 size = 0;
    snprintf(wal, sizeof wal, "%s-wal", path);
    if (access(wal, F_OK) != 0)
        return ST_OK;
    sqlite3_file *f = calloc(1, (size_t)vfs->szOsFile);
    if (!f)
        return FAIL(err, OUT_OF_MEMORY, "no memory for '%s'", wal);
    int rc = vfs->xOpen(vfs, wal, f, SQLITE_OPEN_READWRITE | SQLITE_OPEN_WAL, NULL);
    if (rc == SQLITE_OK)
        rc = f->pMethods->xFileSize(f, &size);
    for (sqlite3_int64 at = 0; at < size && rc == SQLITE_OK; at += (sqlite3_int64)sizeof block) {
        int n = size - at < (sqlite3_int64)sizeof block ? (int)(size - at) : (int)sizeof block;
        rc = f->pMethods->xRead(f, block, n, at);
        if (rc == SQLITE_OK)
            rc = f->pMethods->xWrite(f, block, n, at);
    }
    if (rc == SQLITE_OK)
        rc = f->pMethods->xSync(f, SQLITE_SYNC_NORMAL);
    if (f->pMethods)
        f->pMethods->xClose(f);
    free(f);
    return rc == SQLITE_OK ? ST_OK : FAIL(err, IO, "cannot write '%s' again: %s: mend the disk or its permissions, then start again", wal, strerror(errno));
}

enum status queue_open_db(const char *path, bool synchronous, sqlite3 **ret, struct error *err)
{
    int64_t app = 0, version = 0, tables = 0;
    bool unclean = left_unclean(path);
    sqlite3 *db = NULL;
    if (synchronous)
        TRY(log_rewrite(path, err));
    TRY(queue_connect(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db, err));
    enum status status = sql_pragma_int(db, "PRAGMA application_id", &app, err);
    if (status == ST_OK)
        status = sql_pragma_int(db, "PRAGMA user_version", &version, err);
    if (status == ST_OK)
        status = sql_pragma_int(db, "SELECT count(*) FROM sqlite_schema", &tables, err);
    if (status == ST_OK && (tables > 0 || app != 0) && app != APPLICATION_ID)
        status = FAIL(err, CORRUPT, "'%s' is not a database of galley (application id %lld): move it away", path, (long long)app);
    if (status == ST_OK && version > QUEUE_SCHEMA)
        status =
            FAIL(err, BAD_STATE,
                 "'%s' has schema %lld, this galley knows up to %d: it was written by a newer galley; use that, or another state folder",
                 path, (long long)version, QUEUE_SCHEMA);
    if (status == ST_OK && unclean)
        status = check_pages(db, path, err);
    if (status == ST_OK)
        status = sql_exec(
            db, synchronous ? "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL" : "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF", err);
    if (status == ST_OK)
        status =
            sql_exec(db,
                     "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=67108864; PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF;"
                     "PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16000",
                     err);
    if (status == ST_OK)
        status = migrate(db, version, err);
    if (status != ST_OK) {
        sqlite3_close(db);
        return error_prefix(err, "queue");
    }
    *ret = db;
    return ST_OK;
}
