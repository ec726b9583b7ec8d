/* A thin hand on SQLite: statements prepared once from a list, typed binds, errors in our terms. Inside supervisor/queue only. */
#pragma once
#include "common/error.h"
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* HOT: runs on every item or request, must use an index (a test reads its query plan). BULK: walks what it is about. */
enum sql_kind { SQL_HOT, SQL_BULK };
struct sql_text {
    const char *name;
    enum sql_kind kind;
    const char *text;
};

struct sql {
    sqlite3 *db;
    sqlite3_stmt **stmts; /* one per text, owned */
    const struct sql_text *texts;
    int n;
};

/* A statement in use: reset when it leaves its scope. */
static inline void sql_done(sqlite3_stmt **st) { sqlite3_reset(*st); }
#define AUTO_STMT __attribute__((cleanup(sql_done))) sqlite3_stmt

/* sql_error fills ERR from the connection's last error: DISK_FULL, CORRUPT, OUT_OF_MEMORY, BUSY, FORBIDDEN, IO. */
enum status sql_error(sqlite3 *db, struct error *err, const char *what);
/* sql_exec runs TEXT (may be several statements) without results. */
NODISCARD enum status sql_exec(sqlite3 *db, const char *text, struct error *err);
/* sql_pragma_int reads one number. */
NODISCARD enum status sql_pragma_int(sqlite3 *db, const char *text, int64_t *ret, struct error *err);
/* sql_prepare prepares the whole list, so that a database whose tables do not fit is found at open. */
NODISCARD enum status sql_prepare(struct sql *s, sqlite3 *db, const struct sql_text *texts, int n, struct error *err);
void sql_fini(struct sql *s); /* finalizes and closes */

/* sql_start binds statement ID by FORMAT, one letter per parameter: i int64_t, d int, t text (NULL: null), z int64_t where 0 is null, b
 * blob (pointer, size_t). Memory is borrowed until the reset. */
sqlite3_stmt *sql_start(struct sql *s, int id, const char *format, ...);
/* sql_row steps once; RET_ROW tells whether there is a row. */
NODISCARD enum status sql_row(struct sql *s, sqlite3_stmt *st, bool *ret_row, struct error *err);
/* sql_run steps a statement that gives no rows to its end. */
NODISCARD enum status sql_run(struct sql *s, sqlite3_stmt *st, struct error *err);
/* sql_string copies column I (NULL for null or when out of memory), caller frees. */
char *sql_string(sqlite3_stmt *st, int i, size_t *ret_len);
/* sql_copy copies column I into RET, cut to SIZE. "" for null. */
void sql_copy(sqlite3_stmt *st, int i, char *ret, size_t size);

/* A list of ids read from a statement's first column. */
struct id_list {
    int64_t *v;
    size_t n, cap;
};
static inline void id_list_fini(struct id_list *l)
{
    free(l->v);
    *l = (struct id_list){0};
}
#define AUTO_IDS __attribute__((cleanup(id_list_fini))) struct id_list
NODISCARD enum status sql_ids(struct sql *s, sqlite3_stmt *st, struct id_list *ret, struct error *err);
