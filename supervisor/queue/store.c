#include "supervisor/queue/store.h"
#include "common/clock.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { IDLE_CHECKPOINT_MS = 500 };

struct op_list {
    struct store_op *head, *tail;
};

/* One thread and what is waiting for it. */
struct lane {
    pthread_t thread;
    pthread_cond_t more;
    struct op_list waiting;
    atomic_llong since_ms; /* real time when what it does now began, 0: idle */
    bool started;
};

struct store {
    struct queue *q;
    struct queue_reader *r;
    void (*ring)(void *arg);
    void *arg;
    pthread_mutex_t lock; /* over the lists, UNSYNCED and STOPPING */
    struct lane writer, reader;
    bool unsynced;         /* readers may see a commit that the disk does not have */
    struct op_list unsure; /* reads that were done meanwhile: told with it */
    struct op_list done;
    struct store_op *committed, **last_committed; /* to be told so; each is in DONE later, never before */
    bool stopping;
    atomic_bool broken; /* set once, after BROKEN_ERR was filled */
    struct error broken_err;
};

static void push(struct op_list *l, struct store_op *op)
{
    op->next = NULL;
    if (l->tail)
        l->tail->next = op;
    else
        l->head = op;
    l->tail = op;
}

/* take cuts the first MAX operations off L. */
static struct store_op *take(struct op_list *l, int max)
{
    struct store_op *first = l->head, *last = first;
    if (!first)
        return NULL;
    for (int n = 1; n < max && last->next; n++)
        last = last->next;
    l->head = last->next;
    if (!l->head)
        l->tail = NULL;
    last->next = NULL;
    return first;
}

static void fail_op(struct store_op *op, const struct error *why)
{
    op->status = why->code;
    op->err = *why;
}

/* fail_batch: what would have been done is not. A refusal that an operation made itself stays what it is. */
static void fail_batch(struct store_op *batch, const struct error *why)
{
    for (struct store_op *op = batch; op; op = op->next)
        if (op->status == ST_OK)
            fail_op(op, why);
}

/* break_down: the disk did not take a commit. Nothing that follows may be acknowledged either. */
static void break_down(struct store *s, struct error *why)
{
    why->code = ST_IO;
    (void)error_prefix(why, "the queue's database cannot be written any more");
    if (!atomic_load(&s->broken)) {
        s->broken_err = *why;
        atomic_store(&s->broken, true);
    }
}

/* run_ops runs a batch inside the open transaction. False: the database ended the whole transaction, WHY says for what. */
static bool run_ops(struct store *s, struct store_op *batch, struct error *why)
{
    for (struct store_op *op = batch; op; op = op->next) {
        op->status = queue_mark(s->q, &op->err);
        bool marked = op->status == ST_OK;
        if (marked)
            op->status = op->run(s->q, op, &op->err);
        if (op->status == ST_OK)
            op->status = queue_release(s->q, &op->err);
        if (op->status != ST_OK && (!marked || !queue_revert(s->q))) {
            *why = op->err;
            return false;
        }
    }
    return true;
}

static void note_commit(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    s->unsynced = true;
    pthread_mutex_unlock(&s->lock);
}

/* tell_committed hands the operations that want to know it to the loop. */
static void tell_committed(struct store *s, struct store_op *batch)
{
    bool any = false;
    pthread_mutex_lock(&s->lock);
    for (struct store_op *op = batch; op; op = op->next)
        if (op->committed && op->status == ST_OK) {
            op->next_committed = NULL;
            *s->last_committed = op;
            s->last_committed = &op->next_committed;
            any = true;
        }
    pthread_mutex_unlock(&s->lock);
    if (any)
        s->ring(s->arg);
}

static void run_batch(struct store *s, struct store_op *batch)
{
    struct error why = {0};
    if (atomic_load(&s->broken)) {
        for (struct store_op *op = batch; op; op = op->next)
            fail_op(op, &s->broken_err);
        return;
    }
    for (struct store_op *op = batch; op; op = op->next)
        op->status = ST_OK;
    enum status status = queue_begin(s->q, &why);
    if (status == ST_OK && !run_ops(s, batch, &why)) {
        queue_rollback(s->q);
        status = why.code;
    } else if (status == ST_OK) {
        note_commit(s);
        status = queue_commit(s->q, &why);
        if (status == ST_OK) {
            tell_committed(s, batch);
            status = queue_sync(s->q, &why);
        }
    }
    if (status == ST_OK)
        return;
    if (status != ST_DISK_FULL && status != ST_OUT_OF_MEMORY && status != ST_BUSY)
        break_down(s, &why);
    fail_batch(batch, &why);
}

static void push_all(struct op_list *l, struct store_op *op)
{
    while (op) {
        struct store_op *next = op->next;
        push(l, op);
        op = next;
    }
}

/* wrote hands a batch to the loop, and behind it the reads that may have seen it. */
static void wrote(struct store *s, struct store_op *batch)
{
    atomic_store(&s->writer.since_ms, 0);
    pthread_mutex_lock(&s->lock);
    push_all(&s->done, batch);
    if (atomic_load(&s->broken))
        fail_batch(s->unsure.head, &s->broken_err);
    push_all(&s->done, s->unsure.head);
    s->unsure = (struct op_list){0};
    s->unsynced = false;
    pthread_mutex_unlock(&s->lock);
    s->ring(s->arg);
}

/* has_read hands a read to the loop, or lets it wait for the disk. */
static void has_read(struct store *s, struct store_op *op)
{
    atomic_store(&s->reader.since_ms, 0);
    pthread_mutex_lock(&s->lock);
    bool waits = s->unsynced;
    if (atomic_load(&s->broken) && op->status == ST_OK)
        fail_op(op, &s->broken_err);
    push(waits ? &s->unsure : &s->done, op);
    pthread_mutex_unlock(&s->lock);
    if (!waits)
        s->ring(s->arg);
}

static void start_clock(struct lane *lane) { atomic_store(&lane->since_ms, clock_real_ms() + 1); }

static void checkpoint(struct store *s)
{
    start_clock(&s->writer);
    struct error why;
    enum status status = queue_checkpoint(s->q, &why);
    if (status != ST_OK && status != ST_DISK_FULL)
        break_down(s, &why);
    atomic_store(&s->writer.since_ms, 0);
}

/* wait_for returns the next batch, NULL when there is nothing: at the end, or (with IDLE_MS >= 0) after so long. */
static struct store_op *wait_for(struct store *s, struct lane *lane, int max, int idle_ms, bool *ret_stop)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(idle_ms > 0 ? idle_ms : 0) * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    while (!lane->waiting.head && !s->stopping && rc == 0)
        rc = idle_ms < 0 ? pthread_cond_wait(&lane->more, &s->lock) : pthread_cond_timedwait(&lane->more, &s->lock, &until);
    struct store_op *batch = take(&lane->waiting, max);
    *ret_stop = !batch && s->stopping;
    pthread_mutex_unlock(&s->lock);
    return batch;
}

static void *writer_main(void *arg)
{
    struct store *s = arg;
    bool stop = false, dirty = true;
    while (!stop) {
        struct store_op *batch = wait_for(s, &s->writer, STORE_BATCH, dirty ? IDLE_CHECKPOINT_MS : -1, &stop);
        if (batch) {
            start_clock(&s->writer);
            run_batch(s, batch);
            wrote(s, batch);
        }
        bool broken = atomic_load(&s->broken);
        if (!stop && !broken && (batch ? queue_wal_bytes(s->q) > STORE_WAL_BYTES : dirty))
            checkpoint(s);
        dirty = batch && !broken;
    }
    return NULL;
}

static void *reader_main(void *arg)
{
    struct store *s = arg;
    bool stop = false;
    while (!stop) {
        struct store_op *op = wait_for(s, &s->reader, 1, -1, &stop);
        if (!op)
            continue;
        start_clock(&s->reader);
        op->status = op->read(s->r, op, &op->err);
        has_read(s, op);
    }
    return NULL;
}

static enum status lane_start(struct lane *lane, void *(*fn)(void *), struct store *s, const char *name, struct error *err)
{
    int rc = pthread_create(&lane->thread, NULL, fn, s);
    if (rc != 0)
        return error_errno(err, rc, __FILE__, __LINE__, "cannot start the thread '%s'", name);
    lane->started = true;
    pthread_setname_np(lane->thread, name);
    return ST_OK;
}

enum status store_start(struct queue *q, struct queue_reader *r, void (*ring)(void *arg), void *arg, struct store **ret, struct error *err)
{
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        return FAIL(err, OUT_OF_MEMORY, "no memory for the store");
    s->ring = ring;
    s->last_committed = &s->committed;
    s->arg = arg;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->writer.more, &monotonic);
    pthread_cond_init(&s->reader.more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    s->q = q;
    s->r = r;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    enum status status = lane_start(&s->writer, writer_main, s, "store-write", err);
    if (status == ST_OK)
        status = lane_start(&s->reader, reader_main, s, "store-read", err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != ST_OK) {
        store_stop(s);
        return status;
    }
    *ret = s;
    return ST_OK;
}

void store_stop(struct store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->writer.more);
    pthread_cond_signal(&s->reader.more);
    pthread_mutex_unlock(&s->lock);
    if (s->writer.started)
        pthread_join(s->writer.thread, NULL);
    if (s->reader.started)
        pthread_join(s->reader.thread, NULL);
    while (store_drain(s) > 0) {
    }
    queue_reader_close(s->r);
    queue_close(s->q);
    pthread_cond_destroy(&s->writer.more);
    pthread_cond_destroy(&s->reader.more);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void submit(struct store *s, struct lane *lane, struct store_op *op)
{
    pthread_mutex_lock(&s->lock);
    push(s->stopping ? &s->done : &lane->waiting, op);
    if (s->stopping)
        op->status = FAIL(&op->err, BAD_STATE, "the store is stopping");
    pthread_cond_signal(&lane->more);
    pthread_mutex_unlock(&s->lock);
}

void store_submit(struct store *s, struct store_op *op) { submit(s, &s->writer, op); }
void store_read(struct store *s, struct store_op *op) { submit(s, &s->reader, op); }

int store_drain(struct store *s)
{
    int n = 0;
    pthread_mutex_lock(&s->lock);
    struct store_op *op = s->done.head, *committed = s->committed;
    s->done = (struct op_list){0};
    s->committed = NULL;
    s->last_committed = &s->committed;
    pthread_mutex_unlock(&s->lock);
    while (committed) {
        struct store_op *next = committed->next_committed;
        committed->committed(committed);
        committed = next;
    }
    while (op) {
        struct store_op *next = op->next;
        op->done(op, op->status, &op->err);
        op = next;
        n++;
    }
    return n;
}

bool store_broken(const struct store *s, struct error *err)
{
    bool broken = atomic_load(&s->broken);
    if (broken && err)
        *err = s->broken_err;
    return broken;
}

int64_t store_stuck_ms(const struct store *s)
{
    int64_t now = clock_real_ms() + 1, longest = 0;
    const struct lane *lanes[] = {&s->writer, &s->reader};
    for (int i = 0; i < 2; i++) {
        int64_t since = atomic_load(&lanes[i]->since_ms);
        if (since && now - since > longest)
            longest = now - since;
    }
    return longest;
}
