/* The store's threads: order, one transaction for what comes together, refusals apart from failures, and the end. */
#include "common/clock.h"
#include "queue_kit.h"
#include "supervisor/queue/store.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { LIMIT_MS = 20000 };

/* A loop in small: an eventfd that the store rings. */
struct rig {
    struct kit k;
    struct store *s;
    int bell;
    int commits;
};

static void ring(void *arg)
{
    uint64_t one = 1;
    assert_int_equal(write(((struct rig *)arg)->bell, &one, sizeof one), sizeof one);
}

static int count_commit(void *arg)
{
    ((struct rig *)arg)->commits++;
    return 0;
}

static int start(void **state, bool synchronous)
{
    struct rig *g = calloc(1, sizeof *g);
    g->k = (struct kit){.dir = temp_dir(), .now = 1700000000000};
    assert_ok(queue_open(g->k.dir, synchronous, &g->k.q, &g->k.err), g->k.err);
    assert_ok(queue_reader_open(g->k.dir, &g->k.r, &g->k.err), g->k.err);
    g->bell = eventfd(0, EFD_CLOEXEC);
    sqlite3_commit_hook(g->k.q->sql.db, count_commit, g);
    assert_ok(store_start(g->k.q, g->k.r, ring, g, &g->s, &g->k.err), g->k.err);
    *state = g;
    return 0;
}

static int setup(void **state) { return start(state, false); }
static int setup_synchronous(void **state) { return start(state, true); }

static void stop(struct rig *g)
{
    store_stop(g->s);
    g->s = NULL;
    g->k.q = NULL;
    g->k.r = NULL;
}

static int teardown(void **state)
{
    struct rig *g = *state;
    stop(g);
    kit_close(&g->k);
    close(g->bell);
    free(g);
    return 0;
}

/* pump drains until *COUNT has reached N. */
static void pump(struct rig *g, const int *count, int n)
{
    int64_t end = clock_real_ms() + LIMIT_MS;
    while (*count < n) {
        struct pollfd p = {.fd = g->bell, .events = POLLIN};
        uint64_t rings;
        if (clock_real_ms() > end)
            fail_msg("only %d of %d operations came back", *count, n);
        if (poll(&p, 1, 100) == 1)
            assert_int_equal(read(g->bell, &rings, sizeof rings), sizeof rings);
        store_drain(g->s);
    }
}

/* What was told in which order: an operation's number N when committed, -N when done. */
struct told {
    int v[64], n;
    pthread_t thread;
};

struct op {
    struct store_op base;
    struct rig *g;
    int number, *done, *order;
    enum status status, refuse;
    char message[sizeof(((struct error *)0)->message)];
    int64_t item, epoch, pending;
    bool found;
    pthread_barrier_t *gate;
    struct told *told;
};

static void tell(struct op *op, int what)
{
    if (!op->told)
        return;
    assert_true(pthread_equal(pthread_self(), op->told->thread));
    op->told->v[op->told->n++] = what;
}

static void committed(struct store_op *base) { tell((struct op *)base, ((struct op *)base)->number); }

static void done(struct store_op *base, enum status status, const struct error *err)
{
    struct op *op = (struct op *)base;
    op->status = status;
    tell(op, -op->number);
    snprintf(op->message, sizeof op->message, "%s", status == ST_OK ? "" : err->message);
    if (op->order)
        op->order[*op->done] = op->number;
    (*op->done)++;
}

static enum status add_one(struct queue *q, struct store_op *base, struct error *err)
{
    struct op *op = (struct op *)base;
    struct enqueue_args a = batch_of(&op->g->k, 1);
    struct enqueue_result r;
    TRY(queue_enqueue(q, &a, &r, err));
    op->item = r.first_item_id;
    return op->refuse == ST_OK ? ST_OK : FAIL(err, BAD_ARGUMENT, "refused on purpose");
}

static enum status add_and_wait(struct queue *q, struct store_op *base, struct error *err)
{
    TRY(add_one(q, base, err));
    pthread_barrier_wait(((struct op *)base)->gate); /* the other operations are being submitted ... */
    pthread_barrier_wait(((struct op *)base)->gate); /* ... and are all there now */
    return ST_OK;
}

static enum status count_pending(struct queue_reader *r, struct store_op *base, struct error *err)
{
    int64_t c[ITEM_STATES];
    TRY(reader_counts(r, NULL, c, err));
    ((struct op *)base)->pending = c[ITEM_PENDING];
    return ST_OK;
}

static int64_t pending(struct rig *g)
{
    int n = 0;
    struct op op = {.base = {.read = count_pending, .done = done}, .g = g, .done = &n};
    store_read(g->s, &op.base);
    pump(g, &n, 1);
    assert_int_equal(op.status, ST_OK);
    return op.pending;
}

/* Operations that arrive while a transaction runs are the next one, together; a refused one is undone alone; answers keep the order. */
static void batches(void **state)
{
    struct rig *g = *state;
    enum { N = 101 };
    static struct op ops[N];
    int n = 0, order[N];
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, 2);
    memset(ops, 0, sizeof ops);
    for (int i = 0; i < N; i++)
        ops[i] = (struct op){.base = {.run = i ? add_one : add_and_wait, .done = done},
                             .g = g,
                             .number = i,
                             .done = &n,
                             .order = order,
                             .refuse = i % 10 == 5 ? ST_BAD_ARGUMENT : ST_OK,
                             .gate = &gate};
    store_submit(g->s, &ops[0].base);
    pthread_barrier_wait(&gate);
    for (int i = 1; i < N; i++)
        store_submit(g->s, &ops[i].base);
    pthread_barrier_wait(&gate);
    pump(g, &n, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(order[i], i);
        assert_int_equal(ops[i].status, ops[i].refuse);
    }
    assert_says(ops[5].message, "on purpose");
    assert_int_equal(g->commits, 2);
    assert_int_equal(pending(g), N - 10);
    pthread_barrier_destroy(&gate);
}

/* COMMITTED is called on the draining thread, before DONE, in the order of submission; not for what was refused and not where there is
 * none. */
static void committed_then_done(void **state)
{
    struct rig *g = *state;
    enum { N = 12, REFUSED = 5, SILENT = 8 };
    struct op ops[N];
    struct told told = {.thread = pthread_self()};
    int n = 0;
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, 2);
    for (int i = 0; i < N; i++)
        ops[i] = (struct op){.base = {.run = i ? add_one : add_and_wait, .committed = i == SILENT ? NULL : committed, .done = done},
                             .g = g,
                             .number = i + 1,
                             .done = &n,
                             .refuse = i == REFUSED ? ST_BAD_ARGUMENT : ST_OK,
                             .gate = &gate,
                             .told = &told};
    store_submit(g->s, &ops[0].base);
    pthread_barrier_wait(&gate);
    for (int i = 1; i < N; i++)
        store_submit(g->s, &ops[i].base);
    pthread_barrier_wait(&gate);
    pump(g, &n, N);
    int at_commit[N + 1] = {0}, at_done[N + 1] = {0}, last_commit = 0, last_done = 0;
    assert_int_equal(told.n, N + N - 2);
    for (int i = 0; i < told.n; i++) {
        int number = abs(told.v[i]), *last = told.v[i] > 0 ? &last_commit : &last_done;
        (told.v[i] > 0 ? at_commit : at_done)[number] = i + 1;
        assert_true(number > *last);
        *last = number;
    }
    for (int i = 0; i < N; i++) {
        assert_true(at_done[i + 1] > at_commit[i + 1]);
        assert_int_equal(at_commit[i + 1] == 0, i == REFUSED || i == SILENT);
    }
    pthread_barrier_destroy(&gate);
}

static int refuse_commit(void *arg)
{
    (void)arg;
    return 1;
}

static enum status break_commits(struct queue *q, struct store_op *base, struct error *err)
{
    sqlite3_commit_hook(q->sql.db, refuse_commit, NULL);
    return add_one(q, base, err);
}

/* A commit that fails acknowledges nothing and is not told committed, and neither is anything after it. */
static void broken(void **state)
{
    struct rig *g = *state;
    struct told told = {.thread = pthread_self()};
    int n = 0;
    struct op a = {.base = {.run = break_commits, .committed = committed, .done = done}, .g = g, .number = 1, .done = &n, .told = &told},
              b = a;
    b.base.run = add_one;
    b.number = 2;
    assert_false(store_broken(g->s, NULL));
    store_submit(g->s, &a.base);
    pump(g, &n, 1);
    assert_int_equal(a.status, ST_IO);
    struct error err;
    assert_true(store_broken(g->s, &err));
    assert_says(err.message, "cannot be written any more");
    store_submit(g->s, &b.base);
    pump(g, &n, 2);
    assert_int_equal(b.status, ST_IO);
    assert_true(told.n == 2 && told.v[0] == -1 && told.v[1] == -2);
    struct op list = {.base = {.read = count_pending, .done = done}, .g = g, .done = &n};
    store_read(g->s, &list.base);
    pump(g, &n, 3);
    assert_int_equal(list.status, ST_IO);
    stop(g);
    kit_connect(&g->k);
    assert_int_equal(kit_count(&g->k, ITEM_PENDING), 0);
    kit_disconnect(&g->k);
}

static sqlite3_io_methods log_methods; /* the log's own, but for the sync */
static int syncs;

static int refuse_sync(sqlite3_file *file, int flags)
{
    (void)file, (void)flags;
    syncs++;
    errno = EIO;
    return SQLITE_IOERR_FSYNC;
}

static enum status break_syncs(struct queue *q, struct store_op *base, struct error *err)
{
    sqlite3_file *log = NULL;
    sqlite3_file_control(q->sql.db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    log_methods = *log->pMethods;
    log_methods.xSync = refuse_sync;
    log->pMethods = &log_methods;
    return add_one(q, base, err);
}

/* A sync that fails after the commit: the operation was told committed, but it is not acknowledged, and nothing after it is even begun. The
 * log is not touched again, so that the next start finds what there is. */
static void sync_fails(void **state)
{
    struct rig *g = *state;
    struct told told = {.thread = pthread_self()};
    int n = 0;
    struct op before = {.base = {.run = add_one, .committed = committed, .done = done}, .g = g, .number = 1, .done = &n, .told = &told},
              failing = before, after = before;
    failing.base.run = break_syncs;
    failing.number = 2;
    after.number = 3;
    syncs = 0;
    store_submit(g->s, &before.base);
    pump(g, &n, 1);
    assert_int_equal(before.status, ST_OK);
    store_submit(g->s, &failing.base);
    pump(g, &n, 2);
    assert_int_equal(failing.status, ST_IO);
    assert_says(failing.message, "cannot sync");
    struct error err;
    assert_true(store_broken(g->s, &err));
    assert_int_equal(err.code, ST_IO);
    assert_says(err.message, "cannot be written any more");
    store_submit(g->s, &after.base);
    pump(g, &n, 3);
    assert_int_equal(after.status, ST_IO);
    assert_int_equal(after.item, 0);
    static const int order[] = {1, -1, 2, -2, -3};
    assert_int_equal(told.n, sizeof order / sizeof *order);
    assert_memory_equal(told.v, order, sizeof order);
    stop(g);
    assert_int_equal(syncs, 1);
    char log[PATH_BYTES];
    struct stat st;
    snprintf(log, sizeof log, "%s/galley.db-wal", g->k.dir);
    assert_int_equal(stat(log, &st), 0);
    assert_true(st.st_size > 0);
    kit_connect(&g->k);
    assert_int_equal(kit_count(&g->k, ITEM_PENDING), 2);
    kit_disconnect(&g->k);
}

static enum status fill_up(struct queue *q, struct store_op *base, struct error *err)
{
    struct op *op = (struct op *)base;
    struct enqueue_args a = batch_of(&op->g->k, 50000);
    struct enqueue_result r;
    TRY(sql_exec(q->sql.db, "PRAGMA max_page_count=60", err));
    return queue_enqueue(q, &a, &r, err);
}

static enum status make_room(struct queue *q, struct store_op *base, struct error *err)
{
    TRY(sql_exec(q->sql.db, "PRAGMA max_page_count=1000000", err));
    return add_one(q, base, err);
}

/* A full disk refuses, and the store goes on when there is room. */
static void full(void **state)
{
    struct rig *g = *state;
    int n = 0;
    struct op a = {.base = {.run = fill_up, .done = done}, .g = g, .done = &n},
              b = {.base = {.run = make_room, .done = done}, .g = g, .done = &n};
    store_submit(g->s, &a.base);
    pump(g, &n, 1);
    assert_int_equal(a.status, ST_DISK_FULL);
    assert_false(store_broken(g->s, NULL));
    store_submit(g->s, &b.base);
    pump(g, &n, 2);
    assert_int_equal(b.status, ST_OK);
    assert_int_equal(pending(g), 1);
}

static enum status sit(struct queue *q, struct store_op *base, struct error *err)
{
    (void)q;
    (void)err;
    pthread_barrier_wait(((struct op *)base)->gate);
    pthread_barrier_wait(((struct op *)base)->gate);
    return ST_OK;
}

static enum status add_many(struct queue *q, struct store_op *base, struct error *err)
{
    struct enqueue_args a = batch_of(&((struct op *)base)->g->k, 5000);
    struct enqueue_result r;
    return queue_enqueue(q, &a, &r, err);
}

/* A write that the system refuses (here: the limit on a file's size) breaks the store; what was committed before is there at the next
 * start. */
static void write_refused(void **state)
{
    struct rig *g = *state;
    int n = 0;
    struct op a = {.base = {.run = add_one, .done = done}, .g = g, .done = &n},
              b = {.base = {.run = add_many, .done = done}, .g = g, .done = &n};
    store_submit(g->s, &a.base);
    pump(g, &n, 1);
    assert_int_equal(a.status, ST_OK);
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 300000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    store_submit(g->s, &b.base);
    pump(g, &n, 2);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(b.status, ST_IO);
    assert_true(store_broken(g->s, NULL));
    stop(g);
    kit_connect(&g->k);
    assert_int_equal(kit_count(&g->k, ITEM_PENDING), 1);
    kit_disconnect(&g->k);
}

/* The same as `full` with a real disk that is full: a small tmpfs, for which one must be root. */
static void disk_full(void **state)
{
    (void)state;
    struct rig *g = calloc(1, sizeof *g);
    g->k = (struct kit){.dir = temp_dir(), .now = 1};
    if (geteuid() != 0 || mount("tmpfs", g->k.dir, "tmpfs", 0, "size=2m") != 0) {
        kit_close(&g->k);
        free(g);
        skip();
    }
    static char ballast[700000];
    ballast[0] = 1;
    FILE *f = fopen(write_text(g->k.dir, "ballast", ""), "w");
    assert_int_equal(fwrite(ballast, 1, sizeof ballast, f), sizeof ballast);
    assert_int_equal(fclose(f), 0);
    g->bell = eventfd(0, EFD_CLOEXEC);
    kit_connect(&g->k);
    assert_ok(store_start(g->k.q, g->k.r, ring, g, &g->s, &g->k.err), g->k.err);
    struct op op = {.base = {.run = add_many, .done = done}, .g = g};
    int64_t added = 0;
    for (op.status = ST_OK; op.status == ST_OK && added < 1000000; added += op.status == ST_OK ? 5000 : 0) {
        int n = 0;
        op.done = &n;
        store_submit(g->s, &op.base);
        pump(g, &n, 1);
    }
    assert_int_equal(op.status, ST_DISK_FULL);
    assert_says(op.message, "free disk space");
    assert_false(store_broken(g->s, NULL));
    assert_int_equal(pending(g), added);
    char path[300];
    snprintf(path, sizeof path, "%s/ballast", g->k.dir);
    assert_int_equal(unlink(path), 0);
    int n = 0;
    op.done = &n;
    op.base.run = add_one;
    store_submit(g->s, &op.base);
    pump(g, &n, 1);
    assert_int_equal(op.status, ST_OK);
    assert_int_equal(pending(g), added + 1);
    stop(g);
    assert_int_equal(umount(g->k.dir), 0);
    kit_close(&g->k);
    close(g->bell);
    free(g);
}

/* The watchdog's number moves while an operation does not come back, and reads go on meanwhile. */
static void stuck(void **state)
{
    struct rig *g = *state;
    int n = 0;
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, 2);
    struct op op = {.base = {.run = sit, .done = done}, .g = g, .done = &n, .gate = &gate};
    assert_int_equal(pending(g), 0);
    store_submit(g->s, &op.base);
    pthread_barrier_wait(&gate);
    int64_t end = clock_real_ms() + LIMIT_MS;
    while (store_stuck_ms(g->s) < 20)
        assert_true(clock_real_ms() < end);
    assert_int_equal(pending(g), 0);
    pthread_barrier_wait(&gate);
    pump(g, &n, 1);
    while (store_stuck_ms(g->s) != 0) /* a checkpoint may run now */
        assert_true(clock_real_ms() < end);
    pthread_barrier_destroy(&gate);
}

/* The log is copied into the database when nothing is to do. */
static void checkpoint_when_idle(void **state)
{
    struct rig *g = *state;
    int n = 0;
    char path[PATH_BYTES];
    struct op op = {.base = {.run = add_one, .done = done}, .g = g, .done = &n};
    store_submit(g->s, &op.base);
    pump(g, &n, 1);
    assert_ok(queue_db_path(g->k.dir, path, &g->k.err), g->k.err);
    int64_t end = clock_real_ms() + LIMIT_MS, rows = 0;
    while (rows == 0) { /* immutable: reads the database file alone, without the log */
        char uri[PATH_BYTES + 32];
        sqlite3 *db;
        snprintf(uri, sizeof uri, "file:%s?immutable=1", path);
        assert_int_equal(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL), SQLITE_OK);
        if (sql_pragma_int(db, "SELECT count(*) FROM items", &rows, NULL) != ST_OK)
            rows = 0; /* read in the middle of a copy */
        sqlite3_close(db);
        assert_true(clock_real_ms() < end);
    }
}

/* Stopping runs and delivers what was submitted. */
static void stop_finishes(void **state)
{
    struct rig *g = *state;
    enum { N = 700 };
    static struct op ops[N];
    int n = 0;
    for (int i = 0; i < N; i++) {
        ops[i] = (struct op){.base = {.run = add_one, .done = done}, .g = g, .done = &n};
        store_submit(g->s, &ops[i].base);
    }
    stop(g);
    assert_int_equal(n, N);
    kit_connect(&g->k);
    assert_int_equal(kit_count(&g->k, ITEM_PENDING), N);
    kit_disconnect(&g->k);
}

static enum status finish_and_claim(struct queue *q, struct store_op *base, struct error *err)
{
    struct op *op = (struct op *)base;
    struct claim_args a = {.slot = op->number, .device = "cpu:0", .worker = "w", .now_ms = 1};
    struct claim_result r;
    if (op->found) {
        struct finish_args f = {.item_id = op->item, .epoch = op->epoch, .outcome = ITEM_COMPLETED, .session = "{}", .now_ms = 1};
        TRY(queue_finish(q, &f, NULL, err));
    }
    TRY(queue_claim(q, &a, &r, NULL, err));
    op->found = r.found;
    op->item = r.item_id;
    op->epoch = r.epoch;
    batch_text_unref(r.batch);
    return ST_OK;
}

static void again(struct store_op *base, enum status status, const struct error *err)
{
    struct op *op = (struct op *)base;
    if (status != ST_OK)
        fail_msg("%s", err->message);
    if (op->found) {
        op->pending++;
        store_submit(op->g->s, base);
    } else {
        (*op->done)++;
    }
}

static void fill(struct rig *g, int items)
{
    int n = 0;
    static struct op ops[2000];
    for (int i = 0; i < items; i++) {
        ops[i] = (struct op){.base = {.run = add_one, .done = done}, .g = g, .done = &n};
        store_submit(g->s, &ops[i].base);
    }
    pump(g, &n, items);
}

/* Four slots work the queue off while lists are read: every item is done once. */
static void slots(void **state)
{
    struct rig *g = *state;
    enum { ITEMS = 2000, SLOTS = 4 };
    int finished = 0;
    struct op ops[SLOTS];
    fill(g, ITEMS);
    int64_t start = clock_real_ms(), done_items = 0;
    for (int i = 0; i < SLOTS; i++) {
        ops[i] = (struct op){.base = {.run = finish_and_claim, .done = again}, .g = g, .number = i, .done = &finished};
        store_submit(g->s, &ops[i].base);
    }
    while (finished < SLOTS) {
        assert_true(pending(g) <= ITEMS);
        assert_true(clock_real_ms() - start < LIMIT_MS);
    }
    for (int i = 0; i < SLOTS; i++)
        done_items += ops[i].pending;
    print_message("%d items over %d slots, lists read beside: %lld ms\n", ITEMS, SLOTS, (long long)(clock_real_ms() - start));
    assert_int_equal(done_items, ITEMS);
    assert_int_equal(pending(g), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {T(batches),
                                       T(committed_then_done),
                                       T(broken),
                                       cmocka_unit_test_setup_teardown(sync_fails, setup_synchronous, teardown),
                                       T(full),
                                       T(write_refused),
                                       cmocka_unit_test(disk_full),
                                       T(stuck),
                                       T(checkpoint_when_idle),
                                       T(stop_finishes),
                                       T(slots)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
