/* Shared by the files of supervisor/queue: the writer's statements, a row in memory, and the one way a row changes its state. */
#pragma once
#include "common/paths.h"
#include "supervisor/queue/queue.h"
#include "supervisor/queue/sql.h"

#define DELTA_TERMS "s0=s0+?2,s1=s1+?3,s2=s2+?4,s3=s3+?5,s4=s4+?6,s5=s5+?7,s6=s6+?8,s7=s7+?9"
#define STATE_COUNTS "s0,s1,s2,s3,s4,s5,s6,s7"
/* In the order of item_read. */
#define ITEM_COLUMNS                                                                                                                       \
    "item_id,batch,ordinal,state,status_sequence,priority,not_before,attempt,uncounted,max_attempts,deaths,ooms,epoch,slot,avoid_slot,"    \
    "retried_from,created_at,started_at,completed_at,crash1_at,crash2_at,cost_ms,device"

/* In the order of row_read. CROSS JOIN keeps the order of the loops: items drive. */
#define ITEM_ROW ITEM_ROW_BY("")
#define ITEM_ROW_BY(index)                                                                                                                 \
    "SELECT "                                                                                                                              \
    "i.item_id,i.batch,i.ordinal,i.state,i.status_sequence,i.priority,i.not_before,i.attempt,i.max_attempts,i.deaths,i.epoch,i.retried_"   \
    "from,"                                                                                                                                \
    "i.created_at,i.updated_at,i.started_at,i.completed_at,i.cost_ms,i.device,i.worker,i.reason,r.error_type,r.error_message,b.batch_id,"  \
    "c.queue_id,u.name,"                                                                                                                   \
    "b.origin,b.destination FROM items i " index                                                                                           \
    " CROSS JOIN batches b ON b.id=i.batch CROSS JOIN counts c ON c.id=b.counter CROSS JOIN users u ON u.id=c.user"                        \
    " LEFT JOIN item_results r ON r.item_id=i.item_id"
#define ROW_FILTER                                                                                                                         \
    "(?3 IS NULL OR b.origin=?3) AND (?4 IS NULL OR b.destination=?4) AND (?5 IS NULL OR i.device=?5) AND (?6 IS NULL OR c.queue_id=?6)"
#define BATCH_STATE_COUNTS "n.s0,n.s1,n.s2,n.s3,n.s4,n.s5,n.s6,n.s7"
#define IMAGE_COLUMNS "image_id,name,item_id,batch_id,node_id,width,height,bytes,is_intermediate,created_at,sha256"

enum writer_sql {
#define SQL(name, kind, text) W_##name,
#include "supervisor/queue/writer.def"
#undef SQL
    W_COUNT
};
enum reader_sql {
#define SQL(name, kind, text) R_##name,
#include "supervisor/queue/reader.def"
#undef SQL
    R_COUNT
};
extern const struct sql_text writer_sql[W_COUNT], reader_sql[R_COUNT];

struct item {
    int64_t item_id, batch, ordinal, status_sequence, not_before, epoch, retried_from, retry_of, created_at, started_at, completed_at,
        crash1_at, crash2_at, cost_ms;
    enum item_state state;
    int priority, attempt, uncounted, max_attempts, deaths, ooms, slot, avoid_slot;
    char device[QUEUE_ID_BYTES];
};

enum { HEAD_CACHE = 64, TEXT_CACHE = 8, DELTAS = 16 };
struct batch_slot {
    int64_t rowid, counter;
    struct batch_text *text;
};
struct delta {
    int64_t batch, counter, d[ITEM_STATES];
};

struct queue {
    struct sql sql;
    int lock_fd;
    char path[PATH_BYTES];
    struct batch_slot heads[HEAD_CACHE]; /* names of batches, without the long texts; by rowid modulo */
    struct batch_slot texts[TEXT_CACHE]; /* whole batches */
    struct delta deltas[DELTAS];         /* counters still to be written by counts_flush */
    int n_deltas;
    bool suspect; /* a commit failed otherwise than for room, or a sync */
    bool durable, unsynced; /* syncs are wanted; a commit has not been synced */
};

/* schema.c */
NODISCARD enum status queue_lock(const char *dir, int *ret_fd, struct error *err);
NODISCARD enum status queue_db_path(const char *dir, char ret[PATH_BYTES], struct error *err);
NODISCARD enum status queue_connect(const char *path, int flags, sqlite3 **ret, struct error *err);
/* queue_open_db connects for writing: recognises the file, sets the pragmas, migrates. */
NODISCARD enum status queue_open_db(const char *path, bool synchronous, sqlite3 **ret, struct error *err);

/* batch.c */
/* batch_read makes a text of a row (batch_id, queue_id, user, origin, destination, runs, requested[, graph, workflow, data]). NULL: out of
 * memory. */
struct batch_text *batch_read(sqlite3_stmt *st, int column, bool whole);
/* batch_head / batch_whole: the batch in row ROWID, borrowed from the cache until the next call. */
NODISCARD enum status batch_head(struct queue *q, int64_t rowid, struct batch_slot **ret, struct error *err);
NODISCARD enum status batch_whole(struct queue *q, int64_t rowid, struct batch_text **ret, struct error *err);
void batch_cache_clear(struct queue *q);

/* item.c */
void item_read(sqlite3_stmt *st, struct item *ret);
NODISCARD enum status item_load(struct queue *q, int64_t item_id, struct item *ret, struct error *err);
/* item_note counts a change FROM -> TO of a row that is written already (the state in IT does not matter) and appends it to CHANGES (may be
 * NULL). It refuses with INTERNAL what states.def does not have. ERROR_TYPE and ERROR_MESSAGE may be NULL. */
NODISCARD enum status item_note(struct queue *q, const struct item *it, enum item_state from, enum item_state to, int64_t now_ms,
                                const char *error_type, const char *error_message, struct change_list *changes, struct error *err);
/* What else an item_store writes. */
struct store_note {
    const char *error_type, *error_message, *session, *reason;
    int64_t now_ms;
};
/* item_store writes IT with the new state TO (bumping its status_sequence) and notes the change. */
NODISCARD enum status item_store(struct queue *q, struct item *it, enum item_state to, const struct store_note *note,
                                 struct change_list *changes, struct error *err);
/* counts_add / counts_flush: counters are summed per operation and written at its end; every public function flushes. */
NODISCARD enum status counts_add(struct queue *q, int64_t batch, enum item_state from, enum item_state to, int64_t n, struct error *err);
NODISCARD enum status counts_flush(struct queue *q, struct error *err);
void session_id_of(const char *batch_id, int64_t item_id, char ret[UUID_TEXT]);

/* bulk.c */
/* counts_sum adds up rows of STATE_COUNTS. */
NODISCARD enum status counts_sum(struct sql *s, sqlite3_stmt *st, int64_t ret[ITEM_STATES], struct error *err);

/* claim.c */
/* item_attempt_ended is queue_attempt_ended on a loaded row that is running; does not flush. */
NODISCARD enum status item_attempt_ended(struct queue *q, struct item *it, enum attempt_end why, const char *reason, int64_t backoff_ms,
                                         int64_t now_ms, struct change_list *changes, struct error *err);
