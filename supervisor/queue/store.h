/* Two threads around the queue, so that the loop never waits for a disk: one owns the writing connection, one the reading one. What arrives
 * while a transaction runs is the next transaction (at most STORE_BATCH operations). An operation is told done when
 * the disk has it, and so is a read of what it found, on the
 * loop's thread. */
#pragma once
#include "supervisor/queue/queue.h"

enum { STORE_BATCH = 512, STORE_WAL_BYTES = 64 << 20 };

struct store;
struct store_op;
/* Runs on the writer's thread inside the transaction and its own savepoint: a status other than OK undoes what it wrote, and only that. */
typedef enum status store_write_fn(struct queue *q, struct store_op *op, struct error *err);
typedef enum status store_read_fn(struct queue_reader *r, struct store_op *op, struct error *err);
/* Runs in store_drain, before DONE, as soon as the transaction is committed: what OP did is seen by everyone and survives the end of this process,
 * not yet a power failure. For what a power failure would undo as well, such as giving work to a process on this machine. */
typedef void store_committed_fn(struct store_op *op);
/* Runs in store_drain, in the order of submission (writes and reads apart). OP is the caller's again: may be freed or submitted anew. */
typedef void store_done_fn(struct store_op *op, enum status status, const struct error *err);

/* Embed it first in a struct of yours; zero it, set the function(s). It belongs to the store from store_submit or store_read to DONE. */
struct store_op {
    store_write_fn *run; /* for store_submit */
    store_read_fn *read; /* for store_read */
    store_committed_fn *committed; /* may be NULL; not called when RUN was refused or the commit failed */
    store_done_fn *done;
    /* the store's */
    struct store_op *next, *next_committed;
    enum status status;
    struct error err;
};

/* store_start takes over Q and R (closed by store_stop, or here when it fails) and starts the threads (all signals blocked in them).
 * RING(ARG) is called from them whenever something is ready for store_drain. */
NODISCARD enum status store_start(struct queue *q, struct queue_reader *r, void (*ring)(void *arg), void *arg, struct store **ret,
                                  struct error *err);
/* store_stop runs what was submitted, delivers it (DONE is called from here), ends the threads, checkpoints and closes. Accepts NULL. */
void store_stop(struct store *s);
/* store_submit hands OP to the writer (OP->run), store_read to the reader (OP->read). While the store stops: done with BAD_STATE, not run.
 */
void store_submit(struct store *s, struct store_op *op);
void store_read(struct store *s, struct store_op *op);
/* store_drain calls COMMITTED and DONE of what is ready; on the loop's thread. Returns how many were done. */
int store_drain(struct store *s);
/* store_broken: a commit or a sync failed for good (ERR, may be NULL, says why); every later operation fails with IO. The process should exit. */
bool store_broken(const struct store *s, struct error *err);
/* store_stuck_ms: how long the oldest operation under way has been running, 0 when idle: for the watchdog. */
int64_t store_stuck_ms(const struct store *s);
