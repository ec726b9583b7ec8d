/* The durable queue: the store's contract, all SQL behind it. One connection writes (struct queue), one reads (struct queue_reader); each
 * belongs to one thread at a time. Times are wall-clock milliseconds, 0 for "none". Every change of state goes through states.def, bumps
 * the row's status_sequence and the counters in the same transaction, and is told by a struct item_change, to be published after the
 * commit.
 *
 * Every writing function wants an open transaction (queue_begin) and either does all or changes nothing: a refusal (NOT_FOUND, BAD_STATE,
 * CONFLICT, QUEUE_FULL, BAD_ARGUMENT) leaves the transaction usable. After DISK_FULL, IO or CORRUPT the caller rolls back. */
#pragma once
#include "common/arena.h"
#include "common/error.h"
#include "common/hash.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum item_state {
#define STATE(code, number, name, reader, terminal) ITEM_##code = number,
#define TRANSITION(from, to)
#include "supervisor/queue/states.def"
#undef STATE
#undef TRANSITION
    ITEM_STATES,
    ITEM_GONE = ITEM_STATES, /* before it was added, after it was deleted */
};
enum {
    QUEUE_ID_BYTES = 201, /* batch ids, device names, image names with the NUL */
    QUEUE_SCHEMA = 1,
    QUEUE_DEATHS_MAX = 2,           /* so many ended workers bury an item */
    QUEUE_CRASHES_MAX = 3,          /* in flight at so many supervisor crashes ... */
    QUEUE_CRASH_WINDOW_MS = 300000, /* ... within this time: held */
};

const char *item_state_name(enum item_state s);        /* "canceling" */
const char *item_state_reader_name(enum item_state s); /* what InvokeAI's clients know: held -> pending, canceling -> in_progress */
bool item_state_terminal(enum item_state s);
bool item_state_allowed(enum item_state from, enum item_state to);
/* item_state_from_name: false if NAME is no state. */
bool item_state_from_name(const char *name, enum item_state *ret);

struct queue;
struct queue_reader;

/* ---- open ---- */
/* queue_open opens or creates DIR/galley.db (DIR exists) and takes DIR/lock. SYNCHRONOUS false: fast, may lose the queue at power failure.
 * BUSY: another process has this state folder (the message has its pid); BAD_STATE: a schema of a newer galley; CORRUPT: no database of
 * ours. */
NODISCARD enum status queue_open(const char *dir, bool synchronous, struct queue **ret, struct error *err);
void queue_close(struct queue *q); /* accepts NULL; rolls back what is open; close readers first */
/* queue_begin opens a transaction; there is one at a time. */
NODISCARD enum status queue_begin(struct queue *q, struct error *err);
/* queue_commit: readers see it, and it survives the end of this process, but a power failure only after queue_sync. On any failure everything
 * since queue_begin is rolled back. DISK_FULL: go on; IO: nothing more may be acknowledged, exit. */
NODISCARD enum status queue_commit(struct queue *q, struct error *err);
/* queue_sync waits until the disk has what was committed; nothing to do: returns at once. On a failure (IO) nobody knows what the disk has:
 * nothing more may be acknowledged, exit. */
NODISCARD enum status queue_sync(struct queue *q, struct error *err);
void queue_rollback(struct queue *q); /* allowed when nothing is open */
/* queue_mark / queue_release / queue_revert: a savepoint inside the transaction (the store puts one around each operation). */
NODISCARD enum status queue_mark(struct queue *q, struct error *err);
NODISCARD enum status queue_release(struct queue *q, struct error *err);
/* queue_revert undoes everything since queue_mark; false if the database has ended the whole transaction by itself. */
bool queue_revert(struct queue *q);
bool queue_in_transaction(const struct queue *q);
/* queue_wal_bytes is the size of the log file; a checkpoint lets it be written anew from its start, but does not shrink it. */
int64_t queue_wal_bytes(const struct queue *q);
/* queue_checkpoint copies the WAL into the database as far as readers allow; only the writer ever does. Outside transactions. */
NODISCARD enum status queue_checkpoint(struct queue *q, struct error *err);

/* ---- what changed ---- */
struct item_change {
    int64_t item_id, epoch, status_sequence, at_ms, started_at, completed_at, created_at, retried_from;
    enum item_state from, to; /* from ITEM_GONE: added; to ITEM_GONE: deleted */
    int attempt, max_attempts, deaths;
    int slot;                                                      /* where it runs or ran last, -1: nowhere yet */
    int64_t not_before;                                            /* of a requeued one */
    int64_t retry_of;                                              /* of one that queue_retry added: which id it was asked to retry */
    const char *batch_id, *queue_id, *user, *origin, *destination; /* never NULL ("" for none); in the list's arena */
    const char *device, *error_type, *error_message;               /* NULL for none; in the list's arena */
    char session_id[UUID_TEXT];
};
/* Appended to by the functions below, also by one that then fails; reusable after change_list_reset. Zero-initialised is empty. */
struct change_list {
    struct item_change *v;
    size_t n, cap;
    struct arena *arena;
};
void change_list_reset(struct change_list *l);
void change_list_fini(struct change_list *l);

/* The texts of a batch, shared by its items: counted, immutable, may cross threads. */
struct batch_text {
    char *batch_id, *queue_id, *user, *origin, *destination; /* "" for none */
    char *graph;
    size_t graph_len; /* JSON */
    char *workflow;
    size_t workflow_len; /* JSON or NULL */
    char *data;
    size_t data_len; /* JSON or NULL */
    int64_t runs, requested;
};
/* batch_text_ref returns T, counted once more. */
struct batch_text *batch_text_ref(struct batch_text *t);
void batch_text_unref(struct batch_text *t); /* accepts NULL */

/* ---- writing ---- */
struct enqueue_args {
    const char *queue_id;                /* NULL: "default" */
    const char *batch_id;                /* NULL: a new UUID */
    const char *user;                    /* NULL: "system" */
    const char *origin, *destination;    /* NULL: none */
    const char *graph, *workflow, *data; /* JSON texts; the last two may be NULL */
    const char *model_keys;              /* JSON list or NULL: what it needs, for affinity */
    int64_t runs, count;                 /* COUNT items, ordinals 0 .. COUNT - 1 */
    bool prepend;                        /* priority = highest pending + 1 */
    const char *key;                     /* idempotency key or NULL */
    uint8_t body_hash[SHA256_BYTES];     /* of the request, compared when KEY is known already */
    int max_attempts;
    int64_t max_queue_size; /* pending and held items of this queue, this batch included */
    int64_t now_ms;
};
struct enqueue_result {
    int64_t first_item_id, count;
    int priority;
    bool replayed;
    char batch_id[QUEUE_ID_BYTES];
};
/* queue_enqueue adds a batch; item ids are first_item_id .. + count - 1. QUEUE_FULL names pending, limit and asked. CONFLICT: the key was
 * used with another body, or the batch_id exists. A known key with the same body gives the first answer (replayed). Keys are kept for a
 * week. */
NODISCARD enum status queue_enqueue(struct queue *q, const struct enqueue_args *a, struct enqueue_result *ret, struct error *err);

struct claim_args {
    int slot;
    const char *device, *worker;
    int64_t launch;
    bool other_slot_able;
    int64_t now_ms;
};
struct claim_result {
    bool found;      /* false: nothing may start now */
    int64_t next_ms; /* not found: when the earliest postponed item becomes claimable, 0 if there is none */
    int64_t item_id, epoch, ordinal, status_sequence, created_at;
    int attempt, max_attempts, deaths, priority;
    bool alone; /* ran out of device memory before: other work should not share the device */
    char session_id[UUID_TEXT];
    struct batch_text *batch; /* the caller unrefs */
};
/* queue_claim starts the best pending item on a slot: priority high to low, then item id; not before its time; not one that ended a worker
 * on this slot while OTHER_SLOT_ABLE. CHANGES (may be NULL) gets the change. */
NODISCARD enum status queue_claim(struct queue *q, const struct claim_args *a, struct claim_result *ret, struct change_list *changes,
                                  struct error *err);

struct finish_image {
    const char *name, *node_id;
    int width, height;
    int64_t bytes;
    uint8_t sha256[SHA256_BYTES];
    bool is_intermediate;
};
struct finish_args {
    int64_t item_id, epoch;
    enum item_state outcome;                /* COMPLETED, FAILED or CANCELED */
    const char *error_type, *error_message; /* FAILED */
    const char *session;                    /* JSON with results, or NULL */
    const struct finish_image *images;
    int n_images;
    int64_t cost_ms, now_ms;
};
/* queue_finish records the end of the current attempt, once. BAD_STATE: late (another epoch, or not running any more), nothing changed. The
 * change tells what became of it: an item that is canceling ends as canceled whatever the outcome, and its images are not recorded. */
NODISCARD enum status queue_finish(struct queue *q, const struct finish_args *a, struct change_list *changes, struct error *err);

/* Why an attempt ended without a finish. What each means for the item is one table in claim.c. */
enum attempt_end { END_CRASH, END_HANG, END_DRAIN, END_STOP, END_SUPERVISOR_CRASH, END_OUT_OF_MEMORY, END_DEVICE_LOST };
/* queue_attempt_ended requeues (not before NOW_MS + BACKOFF_MS where the item is to blame) or ends the item by the table "Retry and blame":
 * failed `poison` at QUEUE_DEATHS_MAX deaths, failed with REASON when the counted attempts are used up, failed `out_of_memory` at the
 * second time. A canceling item becomes canceled. BAD_STATE when EPOCH is not the running one. */
NODISCARD enum status queue_attempt_ended(struct queue *q, int64_t item_id, int64_t epoch, enum attempt_end why, const char *reason,
                                          int64_t backoff_ms, int64_t now_ms, struct change_list *changes, struct error *err);
/* queue_fail_pending ends a pending item that nothing can run. */
NODISCARD enum status queue_fail_pending(struct queue *q, int64_t item_id, const char *error_type, const char *error_message,
                                         int64_t now_ms, struct change_list *changes, struct error *err);

/* queue_cancel: pending -> canceled, running -> canceling (the change has slot and epoch: signal that worker), ended or canceling: no
 * change. ATTEMPT >= 0: BAD_STATE unless it is the current one. NOT_FOUND. */
NODISCARD enum status queue_cancel(struct queue *q, int64_t item_id, int attempt, int64_t now_ms, struct change_list *changes,
                                   struct error *err);
/* queue_cancel_batches cancels what is not ended of the batches (unknown ids are skipped); queue_cancel_pending all pending and held
 * items. */
NODISCARD enum status queue_cancel_batches(struct queue *q, const char *const *batch_ids, size_t n, int64_t now_ms,
                                           struct change_list *changes, struct error *err);
NODISCARD enum status queue_cancel_pending(struct queue *q, int64_t now_ms, struct change_list *changes, struct error *err);

/* queue_retry adds a new pending item (same batch, ordinal and priority) for each failed or canceled one of IDS, with AGAIN also for
 * completed ones. Ids that are unknown, in another state or named before are skipped, as InvokeAI does. QUEUE_FULL when there is no room
 * for all: nothing is added then. CHANGES: the new items in the order of IDS; retry_of is the id named, retried_from the first of a chain
 * of retries. */
NODISCARD enum status queue_retry(struct queue *q, const int64_t *ids, size_t n, bool again, int64_t max_queue_size, int64_t now_ms,
                                  struct change_list *changes, struct error *err);
/* Deleting: CHANGES gets each deleted item (to ITEM_GONE; from IN_PROGRESS or CANCELING: its slot still works on it, stop it). IMAGES (may
 * be NULL: keep pictures and their rows) gets the names of the pictures whose rows went, to be unlinked after the commit; caller
 * json_decrefs. */
NODISCARD enum status queue_delete(struct queue *q, const int64_t *ids, size_t n, json_t *images, struct change_list *changes,
                                   struct error *err); /* unknown ids: NOT_FOUND */
NODISCARD enum status queue_prune(struct queue *q, int64_t max, json_t *images, struct change_list *changes,
                                  struct error *err); /* ended items, the oldest MAX; 0: all */
NODISCARD enum status queue_clear(struct queue *q, json_t *images, struct change_list *changes, struct error *err); /* every item */
/* queue_image_delete removes one picture's row. NOT_FOUND. */
NODISCARD enum status queue_image_delete(struct queue *q, const char *name, struct error *err);

/* queue_recover is called once after queue_open, in a transaction: what an earlier supervisor left running is pending again (attempt not
 * counted), canceled if it was canceling, or held with the reason when in flight at QUEUE_CRASHES_MAX crashes within the window. */
NODISCARD enum status queue_recover(struct queue *q, int64_t now_ms, struct change_list *changes, struct error *err);
/* queue_finished_epoch tells whether ITEM_ID is completed by the attempt EPOCH: its staged pictures are to be published, others removed. */
NODISCARD enum status queue_finished_epoch(struct queue *q, int64_t item_id, int64_t epoch, bool *ret, struct error *err);
/* queue_counts fills items per state of QUEUE_ID (NULL: all); constant time. */
NODISCARD enum status queue_counts(struct queue *q, const char *queue_id, int64_t ret[ITEM_STATES], struct error *err);

/* queue_meta_get and its kin keep small facts by name (paused, pauses of devices, event sequence blocks, boot id). NOT_FOUND; TOO_LARGE
 * when RET has no room (nothing is cut). queue_meta_set with VALUE NULL removes. Outside a transaction each set is one of its own. */
NODISCARD enum status queue_meta_get(struct queue *q, const char *key, char *ret, size_t size, struct error *err);
NODISCARD enum status queue_meta_set(struct queue *q, const char *key, const char *value, struct error *err);
NODISCARD enum status queue_meta_get_int(struct queue *q, const char *key, int64_t fallback, int64_t *ret, struct error *err);
NODISCARD enum status queue_meta_set_int(struct queue *q, const char *key, int64_t value, struct error *err);

/* queue_worker_record keeps a process of ours by LAUNCH, so that the next supervisor can end what this one leaves. START_TIME: field 22 of
 * /proc/PID/stat. */
struct worker_record {
    int slot;
    int64_t launch;
    int pid;
    uint64_t start_time;
};
NODISCARD enum status queue_worker_record(struct queue *q, const struct worker_record *w, struct error *err);
NODISCARD enum status queue_worker_forget(struct queue *q, int64_t launch, struct error *err);
NODISCARD enum status queue_worker_list(struct queue *q, struct worker_record *ret, int max, int *ret_n, struct error *err);

/* ---- reading (another connection, sees what is committed) ---- */
struct item_row {
    int64_t item_id, created_at, updated_at, started_at, completed_at, retried_from, epoch, status_sequence, ordinal, not_before, cost_ms;
    enum item_state state;
    int priority, attempt, max_attempts, deaths;
    char session_id[UUID_TEXT];
    const char *batch_id, *queue_id, *user, *origin, *destination; /* origin, destination NULL for none */
    const char *device, *worker, *error_type, *error_message;      /* NULL for none */
    const char *reason;                                            /* why it is held, or its last attempt ended; NULL for none */
    json_t *field_values;                                          /* [{node_path, field_name, value}] */
};
struct item_page {
    struct item_row *rows;
    int n;
    bool more;
    struct arena *arena; /* holds the rows and their texts */
};
void item_page_fini(struct item_page *p);
struct item_filter {
    int64_t after;      /* item ids above this (the cursor) */
    int limit;          /* 1 .. 1000 */
    const char *status; /* a state name, galley's or a reader's ("pending" takes held too, "in_progress" canceling); NULL: all */
    const char *batch_id, *origin, *destination, *device, *queue_id; /* NULL: all */
    bool live;                                                       /* only what is not ended */
};
NODISCARD enum status queue_reader_open(const char *dir, struct queue_reader **ret, struct error *err); /* after queue_open */
void queue_reader_close(struct queue_reader *r);
/* reader_items: ascending by item id. BAD_ARGUMENT: unknown status. */
NODISCARD enum status reader_items(struct queue_reader *r, const struct item_filter *f, struct item_page *ret, struct error *err);
/* reader_item: one row, and its texts: graph, workflow, data of the batch and the finished session (NULL while there is none).
 * NOT_FOUND. */
struct item_detail {
    struct item_page page;
    struct batch_text *batch;
    char *session;
    size_t session_len;
};
void item_detail_fini(struct item_detail *d);
NODISCARD enum status reader_item(struct queue_reader *r, int64_t item_id, struct item_detail *ret, struct error *err);
/* reader_current: rows in progress or canceling. reader_next: the row that would be claimed next at NOW_MS, if any (n = 0). */
NODISCARD enum status reader_current(struct queue_reader *r, struct item_page *ret, struct error *err);
NODISCARD enum status reader_next(struct queue_reader *r, int64_t now_ms, struct item_page *ret, struct error *err);
/* reader_batch: counts of one batch. NOT_FOUND when there is none (any more). */
struct batch_counts {
    int64_t count[ITEM_STATES], total;
    char batch_id[QUEUE_ID_BYTES], queue_id[QUEUE_ID_BYTES], origin[QUEUE_ID_BYTES], destination[QUEUE_ID_BYTES];
};
NODISCARD enum status reader_batch(struct queue_reader *r, const char *batch_id, struct batch_counts *ret, struct error *err);
/* reader_counts is queue_counts on what is committed. */
NODISCARD enum status reader_counts(struct queue_reader *r, const char *queue_id, int64_t ret[ITEM_STATES], struct error *err);

struct image_row {
    int64_t image_id, item_id, bytes, created_at;
    int width, height;
    bool is_intermediate;
    uint8_t sha256[SHA256_BYTES];
    const char *name, *node_id, *session_id, *batch_id;
};
struct image_page {
    struct image_row *rows;
    int n;
    bool more;
    struct arena *arena;
};
void image_page_fini(struct image_page *p);
/* reader_images: newest first, image ids below BEFORE (0: from the newest), of ITEM_ID or of all (0). reader_image: by name; NOT_FOUND. */
NODISCARD enum status reader_images(struct queue_reader *r, int64_t before, int64_t item_id, int limit, struct image_page *ret,
                                    struct error *err);
NODISCARD enum status reader_image(struct queue_reader *r, const char *name, struct image_page *ret, struct error *err);
