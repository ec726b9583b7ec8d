#include "supervisor/queue/sql.h"
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

enum status sql_error(sqlite3 *db, struct error *err, const char *what)
{
    int code = sqlite3_errcode(db) & 0xff, os = sqlite3_system_errno(db);
    const char *text = sqlite3_errmsg(db);
    if (code == SQLITE_FULL || (code == SQLITE_IOERR && (os == ENOSPC || os == EDQUOT)))
        return FAIL(err, DISK_FULL, "%s: %s: free disk space under the state folder", what, text);
    switch (code) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return FAIL(err, CORRUPT, "%s: %s", what, text);
    case SQLITE_NOMEM: return FAIL(err, OUT_OF_MEMORY, "%s: %s", what, text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return FAIL(err, BUSY, "%s: %s: another program holds the database", what, text);
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH: return FAIL(err, FORBIDDEN, "%s: %s", what, text);
    case SQLITE_CONSTRAINT:
    case SQLITE_MISUSE:
    case SQLITE_ERROR:
    case SQLITE_RANGE: return FAIL(err, INTERNAL, "%s: %s", what, text);
    default: return FAIL(err, IO, "%s: %s (code %d, errno %d)", what, text, sqlite3_extended_errcode(db), os);
    }
}

enum status sql_exec(sqlite3 *db, const char *text, struct error *err)
{
    return sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK ? ST_OK : sql_error(db, err, "database");
}

enum status sql_pragma_int(sqlite3 *db, const char *text, int64_t *ret, struct error *err)
{
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(db, text, -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW) {
        enum status status = sql_error(db, err, text);
        sqlite3_finalize(st);
        return status;
    }
    *ret = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return ST_OK;
}

enum status sql_prepare(struct sql *s, sqlite3 *db, const struct sql_text *texts, int n, struct error *err)
{
    *s = (struct sql){.db = db, .texts = texts, .n = n, .stmts = calloc((size_t)n, sizeof *s->stmts)};
    if (!s->stmts)
        return FAIL(err, OUT_OF_MEMORY, "no memory for %d statements", n);
    for (int i = 0; i < n; i++)
        if (sqlite3_prepare_v3(db, texts[i].text, -1, SQLITE_PREPARE_PERSISTENT, &s->stmts[i], NULL) != SQLITE_OK)
            return FAIL(err, CORRUPT, "the database does not have the expected tables: %s: %s", texts[i].name, sqlite3_errmsg(db));
    return ST_OK;
}

void sql_fini(struct sql *s)
{
    for (int i = 0; s->stmts && i < s->n; i++)
        sqlite3_finalize(s->stmts[i]);
    free(s->stmts);
    sqlite3_close(s->db);
    *s = (struct sql){0};
}

sqlite3_stmt *sql_start(struct sql *s, int id, const char *format, ...)
{
    sqlite3_stmt *st = s->stmts[id];
    va_list args;
    assert((int)strlen(format) == sqlite3_bind_parameter_count(st));
    va_start(args, format);
    for (int i = 1; *format; format++, i++) {
        const void *p;
        int64_t v;
        switch (*format) {
        case 'i': sqlite3_bind_int64(st, i, va_arg(args, int64_t)); break;
        case 'd': sqlite3_bind_int(st, i, va_arg(args, int)); break;
        case 't':
            p = va_arg(args, const char *);
            sqlite3_bind_text(st, i, p, -1, SQLITE_STATIC);
            break;
        case 'b':
            p = va_arg(args, const void *);
            sqlite3_bind_blob64(st, i, p, va_arg(args, size_t), SQLITE_STATIC);
            break;
        case 'z':
            v = va_arg(args, int64_t);
            if (v)
                sqlite3_bind_int64(st, i, v);
            else
                sqlite3_bind_null(st, i);
            break;
        }
    }
    va_end(args);
    return st;
}

enum status sql_row(struct sql *s, sqlite3_stmt *st, bool *ret_row, struct error *err)
{
    int rc = sqlite3_step(st);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return sql_error(s->db, err, "database");
    *ret_row = rc == SQLITE_ROW;
    return ST_OK;
}

enum status sql_run(struct sql *s, sqlite3_stmt *st, struct error *err)
{
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
    }
    enum status status = rc == SQLITE_DONE ? ST_OK : sql_error(s->db, err, "database");
    sqlite3_reset(st);
    return status;
}

char *sql_string(sqlite3_stmt *st, int i, size_t *ret_len)
{
    const void *text = sqlite3_column_text(st, i);
    size_t n = (size_t)sqlite3_column_bytes(st, i);
    char *copy = text ? malloc(n + 1) : NULL;
    if (copy) {
        memcpy(copy, text, n);
        copy[n] = 0;
    }
    if (ret_len)
        *ret_len = copy ? n : 0;
    return copy;
}

void sql_copy(sqlite3_stmt *st, int i, char *ret, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(st, i);
    size_t n = text ? strnlen(text, size - 1) : 0;
    if (n)
        memcpy(ret, text, n);
    ret[n] = 0;
}

enum status sql_ids(struct sql *s, sqlite3_stmt *st, struct id_list *ret, struct error *err)
{
    for (;;) {
        bool row = false;
        TRY(sql_row(s, st, &row, err));
        if (!row)
            return ST_OK;
        if (ret->n == ret->cap) {
            size_t cap = ret->cap ? ret->cap * 2 : 64;
            int64_t *v = realloc(ret->v, cap * sizeof *v);
            if (!v)
                return FAIL(err, OUT_OF_MEMORY, "no memory for %zu item ids", cap);
            ret->v = v;
            ret->cap = cap;
        }
        ret->v[ret->n++] = sqlite3_column_int64(st, 0);
    }
}
