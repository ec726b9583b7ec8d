/* Power failures. A VFS under SQLite keeps, beside the real files, what a disk would have: per file the content of its last sync and the
 * changes since. At many moments of a random workload on the real store the power "fails": every change since the last sync is kept, lost
 * or torn, and the queue is opened on that. It must be, whole, what it was after one of the transactions: the last acknowledged one or a
 * later one. GALLEY_TEST_SEED chooses another workload. */
#include "common/clock.h"
#include "queue_kit.h"
#include "supervisor/queue/store.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>

/* ---- the disk */
enum { FILES = 3, SECTOR = 512, LIMIT_MS = 20000 };
enum { DATABASE, LOG, JOURNAL }; /* the files: galley.db and, named after it, the log and the journal that only the first start needs */
static const char *const suffixes[FILES] = {"", "-wal", "-journal"};

/* When the power may fail. Those of the disk are before what they name has happened. */
enum moment { PUT_DATABASE, PUT_LOG, PUT_JOURNAL, SYNC_DATABASE, SYNC_LOG, SYNC_JOURNAL, SHORTEN, REMOVE, COMMITTED, DONE, MOMENTS };
static const char *const moment_names[MOMENTS] = {
    "a write of the database", "a write of the log",       "a write of the journal", "a sync of the database",  "a sync of the log",
    "a sync of the journal",   "the shortening of a file", "a file's removal",       "between commit and sync", "after an acknowledgement"};

struct content {
    uint8_t *v;
    size_t n, cap;
};
/* A write, or with BYTES NULL: the file ends at AT from now on. */
struct change {
    size_t at, n;
    uint8_t *bytes;
};
/* Names change in order: a creation is durable at once, and every removal before it; a removal may be undone until then. */
struct disk_file {
    bool there, removed;
    struct content synced;
    struct change *since;
    size_t n, cap;
};
static struct disk {
    pthread_mutex_t lock;
    pthread_cond_t go;
    char database[PATH_BYTES];
    int life; /* files that were opened in an earlier life are not recorded any more */
    struct disk_file files[FILES];
    bool held, waits, fails; /* the store's next sync of the log waits; it does so now; it fails */
    void (*moment)(void *arg, enum moment m);
    void *arg;
    uint64_t rng;
    sqlite3_vfs vfs, *plain;
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER, .go = PTHREAD_COND_INITIALIZER};

static uint32_t dice(uint64_t *rng, uint32_t n)
{
    *rng = *rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*rng >> 33) % n;
}

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

static void content_size(struct content *c, size_t n)
{
    if (n > c->cap) {
        c->cap = n * 2;
        c->v = must(realloc(c->v, c->cap));
    }
    if (n > c->n)
        memset(c->v + c->n, 0, n - c->n);
    c->n = n;
}

static void content_put(struct content *c, size_t at, const uint8_t *bytes, size_t n)
{
    if (at + n > c->n)
        content_size(c, at + n);
    if (n)
        memcpy(c->v + at, bytes, n);
}

static void apply(struct content *c, const struct change *ch)
{
    if (ch->bytes)
        content_put(c, ch->at, ch->bytes, ch->n);
    else if (ch->at < c->n)
        c->n = ch->at;
}

/* apply_torn writes some of the sectors. What lies beside the written bytes in a sector stays. */
static void apply_torn(struct content *c, const struct change *ch, uint64_t *rng)
{
    for (size_t from = 0; ch->bytes && from < ch->n;) {
        size_t n = SECTOR - (ch->at + from) % SECTOR;
        n = n < ch->n - from ? n : ch->n - from;
        if (dice(rng, 2))
            content_put(c, ch->at + from, ch->bytes + from, n);
        from += n;
    }
}

static void changes_drop(struct disk_file *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->since[i].bytes);
    f->n = 0;
}

static void settle(struct disk_file *f)
{
    for (size_t i = 0; i < f->n; i++)
        apply(&f->synced, &f->since[i]);
    changes_drop(f);
}

static void file_reset(struct disk_file *f)
{
    changes_drop(f);
    f->synced.n = 0;
    f->there = f->removed = false;
}

static void settle_removals(void)
{
    for (int i = 0; i < FILES; i++)
        if (disk.files[i].removed)
            file_reset(&disk.files[i]);
}

static void record(int file, int life, size_t at, const void *bytes, size_t n)
{
    struct disk_file *f = &disk.files[file];
    pthread_mutex_lock(&disk.lock);
    if (life == disk.life) {
        if (f->n == f->cap) {
            f->cap = f->cap ? f->cap * 2 : 64;
            f->since = must(realloc(f->since, f->cap * sizeof *f->since));
        }
        f->since[f->n++] = (struct change){at, n, bytes ? memcpy(must(malloc(n)), bytes, n) : NULL};
    }
    pthread_mutex_unlock(&disk.lock);
}

static void moment(int life, enum moment m)
{
    pthread_mutex_lock(&disk.lock);
    bool tell = disk.moment && life == disk.life;
    pthread_mutex_unlock(&disk.lock);
    if (tell)
        disk.moment(disk.arg, m);
}

/* What the power failure leaves of the changes since the last sync. */
enum keep { KEEP_NONE, KEEP_ALL, KEEP_FIRST, KEEP_SOME, KEEPS };

static void survive(struct content *ret, const struct disk_file *f, enum keep keep, uint64_t *rng)
{
    size_t first = keep == KEEP_ALL ? f->n : keep == KEEP_FIRST ? dice(rng, (uint32_t)f->n + 1) : 0;
    ret->n = 0;
    content_put(ret, 0, f->synced.v, f->synced.n);
    for (size_t i = 0; i < f->n; i++) {
        uint32_t fate = keep == KEEP_SOME ? dice(rng, 4) : i >= first;
        if (fate == 0)
            apply(ret, &f->since[i]);
        else if (fate == 2)
            apply_torn(ret, &f->since[i], rng);
    }
}

/* ---- the VFS */
struct shim {
    sqlite3_file base;
    int file, life;
    sqlite3_file real[]; /* of the plain VFS */
};
#define REAL(f) (((struct shim *)(f))->real)
#define CALL(f, method, ...) (REAL(f)->pMethods->method(REAL(f) __VA_OPT__(, ) __VA_ARGS__))

static int shim_close(sqlite3_file *f) { return CALL(f, xClose); }
static int shim_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) { return CALL(f, xRead, to, n, at); }
static int shim_size(sqlite3_file *f, sqlite3_int64 *ret) { return CALL(f, xFileSize, ret); }
static int shim_lock(sqlite3_file *f, int level) { return CALL(f, xLock, level); }
static int shim_unlock(sqlite3_file *f, int level) { return CALL(f, xUnlock, level); }
static int shim_reserved(sqlite3_file *f, int *ret) { return CALL(f, xCheckReservedLock, ret); }
static int shim_control(sqlite3_file *f, int op, void *arg) { return CALL(f, xFileControl, op, arg); }
static int shim_sector(sqlite3_file *f) { return CALL(f, xSectorSize); }
static int shim_traits(sqlite3_file *f) { return CALL(f, xDeviceCharacteristics); }
static int shim_shm_map(sqlite3_file *f, int i, int n, int grow, void volatile **ret) { return CALL(f, xShmMap, i, n, grow, ret); }
static int shim_shm_lock(sqlite3_file *f, int at, int n, int flags) { return CALL(f, xShmLock, at, n, flags); }
static void shim_shm_barrier(sqlite3_file *f) { CALL(f, xShmBarrier); }
static int shim_shm_unmap(sqlite3_file *f, int gone) { return CALL(f, xShmUnmap, gone); }

static int shim_write(sqlite3_file *file, const void *from, int n, sqlite3_int64 at)
{
    struct shim *s = (struct shim *)file;
    moment(s->life, (enum moment)(PUT_DATABASE + s->file));
    int rc = CALL(file, xWrite, from, n, at);
    if (rc == SQLITE_OK)
        record(s->file, s->life, (size_t)at, from, (size_t)n);
    return rc;
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct shim *s = (struct shim *)file;
    moment(s->life, SHORTEN);
    int rc = CALL(file, xTruncate, size);
    if (rc == SQLITE_OK)
        record(s->file, s->life, (size_t)size, NULL, 0);
    return rc;
}

/* only_a_header: the log begins anew, which is a part of a commit. */
static bool only_a_header(const struct disk_file *f) { return f->n > 0 && f->since[f->n - 1].bytes && f->since[f->n - 1].at == 0; }

/* shim_sync does not bother the real disk. A sync that fails loses some of what it should have written, and the next does not bring it
 * back. */
static int shim_sync(sqlite3_file *file, int flags)
{
    struct shim *s = (struct shim *)file;
    struct disk_file *f = &disk.files[s->file];
    int rc = SQLITE_OK;
    (void)flags;
    moment(s->life, (enum moment)(SYNC_DATABASE + s->file));
    pthread_mutex_lock(&disk.lock);
    bool ours = s->file == LOG && !only_a_header(f);
    while (ours && disk.held) {
        disk.waits = true;
        pthread_cond_broadcast(&disk.go);
        pthread_cond_wait(&disk.go, &disk.lock);
    }
    disk.waits = false;
    if (s->life == disk.life && ours && disk.fails) {
        struct content left = {0};
        disk.fails = false;
        survive(&left, f, KEEP_SOME, &disk.rng);
        content_size(&f->synced, 0);
        content_put(&f->synced, 0, left.v, left.n);
        free(left.v);
        changes_drop(f);
        rc = SQLITE_IOERR_FSYNC;
    } else if (s->life == disk.life) {
        settle(f);
    }
    pthread_mutex_unlock(&disk.lock);
    return rc;
}

static const sqlite3_io_methods shim_methods = {2,           shim_close,   shim_read,     shim_write,       shim_truncate,  shim_sync,
                                                shim_size,   shim_lock,    shim_unlock,   shim_reserved,    shim_control,   shim_sector,
                                                shim_traits, shim_shm_map, shim_shm_lock, shim_shm_barrier, shim_shm_unmap, NULL,
                                                NULL};

/* file_of returns which of the disk's files PATH is, -1: none. */
static int file_of(const char *path)
{
    int found = -1;
    size_t n = strlen(disk.database);
    for (int i = 0; path && n && i < FILES; i++)
        if (strncmp(path, disk.database, n) == 0 && strcmp(path + n, suffixes[i]) == 0)
            found = i;
    return found;
}

static int shim_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *ret, int flags, int *ret_flags)
{
    struct shim *s = (struct shim *)ret;
    (void)vfs;
    pthread_mutex_lock(&disk.lock);
    int i = file_of(path), life = disk.life;
    pthread_mutex_unlock(&disk.lock);
    if (i < 0) /* another folder: no shim at all */
        return disk.plain->xOpen(disk.plain, path, ret, flags, ret_flags);
    memset(s, 0, (size_t)disk.vfs.szOsFile);
    s->file = i;
    s->life = life;
    int rc = disk.plain->xOpen(disk.plain, path, s->real, flags, ret_flags);
    if (rc != SQLITE_OK)
        return rc;
    s->base.pMethods = &shim_methods;
    pthread_mutex_lock(&disk.lock);
    if (!disk.files[i].there || disk.files[i].removed) {
        settle_removals();
        file_reset(&disk.files[i]);
        disk.files[i].there = true;
    }
    pthread_mutex_unlock(&disk.lock);
    return SQLITE_OK;
}

static int shim_delete(sqlite3_vfs *vfs, const char *path, int sync)
{
    (void)vfs;
    pthread_mutex_lock(&disk.lock);
    int i = file_of(path), life = disk.life;
    pthread_mutex_unlock(&disk.lock);
    if (i >= 0)
        moment(life, REMOVE);
    int rc = disk.plain->xDelete(disk.plain, path, sync);
    if (i < 0 || rc != SQLITE_OK)
        return rc;
    pthread_mutex_lock(&disk.lock);
    disk.files[i].removed = disk.files[i].there;
    if (sync)
        settle_removals();
    pthread_mutex_unlock(&disk.lock);
    return SQLITE_OK;
}

static void disk_install(void)
{
    disk.plain = sqlite3_vfs_find(NULL);
    disk.vfs = *disk.plain;
    disk.vfs.zName = "power";
    disk.vfs.pNext = NULL;
    disk.vfs.szOsFile += (int)sizeof(struct shim);
    disk.vfs.xOpen = shim_open;
    disk.vfs.xDelete = shim_delete;
    assert_int_equal(sqlite3_vfs_register(&disk.vfs, 1), SQLITE_OK);
}

static void disk_remove(void)
{
    pthread_mutex_lock(&disk.lock);
    disk.moment = NULL;
    disk.held = disk.fails = false;
    pthread_mutex_unlock(&disk.lock);
    sqlite3_vfs_unregister(&disk.vfs);
    sqlite3_vfs_register(disk.plain, 1);
    for (int i = 0; i < FILES; i++) {
        file_reset(&disk.files[i]);
        free(disk.files[i].since);
        free(disk.files[i].synced.v);
        disk.files[i] = (struct disk_file){0};
    }
}

/* ---- pictures of the disk */
struct picture {
    bool there[FILES];
    struct content files[FILES];
};

static void picture_take(struct picture *p, enum keep keep, uint64_t *rng)
{
    pthread_mutex_lock(&disk.lock);
    for (int i = 0; i < FILES; i++) {
        const struct disk_file *f = &disk.files[i];
        p->there[i] = f->there && !(f->removed && (keep == KEEP_ALL || (keep != KEEP_NONE && dice(rng, 2))));
        survive(&p->files[i], f, keep, rng);
    }
    pthread_mutex_unlock(&disk.lock);
}

static void picture_fini(struct picture *p)
{
    for (int i = 0; i < FILES; i++)
        free(p->files[i].v);
    *p = (struct picture){0};
}

static void picture_write(const struct picture *p, const char *dir)
{
    for (int i = 0; i < FILES; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/galley.db%s", dir, suffixes[i]);
        int fd = p->there[i] ? open(path, O_WRONLY | O_CREAT | O_EXCL, 0600) : -1;
        if (p->there[i] && (fd < 0 || write(fd, p->files[i].v, p->files[i].n) != (ssize_t)p->files[i].n || close(fd) != 0))
            abort();
    }
}

/* disk_move: from now on the disk is the one in DIR, which has what is in P; with P NULL what it has changes only its place. */
static void disk_move(const char *dir, const struct picture *p)
{
    pthread_mutex_lock(&disk.lock);
    snprintf(disk.database, sizeof disk.database, "%s/galley.db", dir);
    disk.life++;
    for (int i = 0; p && i < FILES; i++) {
        file_reset(&disk.files[i]);
        disk.files[i].there = p->there[i];
        content_put(&disk.files[i].synced, 0, p->files[i].v, p->files[i].n);
    }
    pthread_mutex_unlock(&disk.lock);
}

/* ---- what the queue must be */
enum { ITEMS_MAX = 8000, GROUP = 6, CUT_EVERY = 60, GRAPH_BYTES = 9000 };

struct row {
    enum item_state state; /* ITEM_GONE: not there */
    int64_t epoch, sequence;
};
/* The transaction TX made ROW of ITEM. */
struct fact {
    int64_t tx, item;
    struct row row;
};
enum result { SAME, LATER, LOST, WRONG, RESULTS };
struct verdict {
    enum result result;
    int64_t tx; /* the last transaction that is there */
    char why[400];
};

struct power {
    struct kit k;
    struct store *s;
    int bell;
    bool durable, tolerant; /* the queue is opened with syncs; a loss is no failure */
    sem_t arrived, go;      /* the writer waits in an operation; it may go on */
    pthread_mutex_t lock;   /* over what follows: the writer's thread and the test's */
    uint64_t rng, seed;
    struct row now[ITEMS_MAX];
    int64_t last;
    struct fact *facts;
    size_t n, cap;
    int64_t tx, acked, told; /* the transaction under way or last ended; acknowledged; told committed */
    bool cutting, always;    /* at some moments, at every one */
    int countdown;
    long cuts, at[MOMENTS], results[RESULTS];
    char image[PATH_BYTES], failure[600];
    struct picture kept; /* of the last cut, where the next life may begin */
    int64_t kept_tx;
};

static void note(struct power *c, int64_t item, struct row row)
{
    if (item >= ITEMS_MAX)
        abort();
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 1024;
        c->facts = must(realloc(c->facts, c->cap * sizeof *c->facts));
    }
    c->facts[c->n++] = (struct fact){c->tx, item, row};
    c->now[item] = row;
    c->last = item > c->last ? item : c->last;
}

static void note_changes(struct power *c, const struct change_list *ch)
{
    for (size_t i = 0; i < ch->n; i++)
        note(c, ch->v[i].item_id, (struct row){ch->v[i].to, ch->v[i].epoch, ch->v[i].status_sequence});
}

/* rows_at fills the ITEMS_MAX rows as they were after TX and returns the last item's id. */
static int64_t rows_at(const struct power *c, int64_t tx, struct row *ret)
{
    int64_t last = 0;
    for (int64_t i = 0; i <= c->last; i++)
        ret[i] = (struct row){.state = ITEM_GONE};
    for (size_t i = 0; i < c->n && c->facts[i].tx <= tx; i++) {
        ret[c->facts[i].item] = c->facts[i].row;
        last = c->facts[i].item > last ? c->facts[i].item : last;
    }
    return last;
}

/* forget_after: what was done after TX did not happen. */
static void forget_after(struct power *c, int64_t tx)
{
    while (c->n && c->facts[c->n - 1].tx > tx)
        c->n--;
    c->last = rows_at(c, tx, c->now);
    c->tx = c->acked = c->told = tx;
}

static struct row recovered(struct row r)
{
    if (r.state == ITEM_IN_PROGRESS || r.state == ITEM_CANCELING)
        return (struct row){r.state == ITEM_CANCELING ? ITEM_CANCELED : ITEM_PENDING, r.epoch, r.sequence + 1};
    return r;
}

#define WRONG_IF(v, condition, ...)                                                                                                        \
    do {                                                                                                                                   \
        if (condition) {                                                                                                                   \
            (v)->result = WRONG;                                                                                                           \
            snprintf((v)->why, sizeof(v)->why, __VA_ARGS__);                                                                               \
            return false;                                                                                                                  \
        }                                                                                                                                  \
    } while (0)

static bool rows_are(struct queue *q, const struct row *rows, int64_t last, struct verdict *v)
{
    sqlite3_stmt *st = NULL;
    int64_t id = 0, bad = 0;
    if (sqlite3_prepare_v2(q->sql.db, "SELECT item_id,state,epoch,status_sequence FROM items ORDER BY item_id", -1, &st, NULL) != SQLITE_OK)
        bad = -1;
    while (!bad && sqlite3_step(st) == SQLITE_ROW) {
        while (++id < sqlite3_column_int64(st, 0) && id <= last && !bad)
            bad = rows[id].state == ITEM_GONE ? 0 : id;
        if (!bad && (id > last || rows[id].state != (enum item_state)sqlite3_column_int(st, 1) ||
                     rows[id].epoch != sqlite3_column_int64(st, 2) || rows[id].sequence != sqlite3_column_int64(st, 3)))
            bad = id;
    }
    while (!bad && ++id <= last)
        bad = rows[id].state == ITEM_GONE ? 0 : id;
    sqlite3_finalize(st);
    WRONG_IF(v, bad, "item %lld is not what it was", (long long)bad);
    return true;
}

/* counters_fit holds the counters against the rows, and each completed item against its picture's row. */
static bool counters_fit(struct queue *q, struct verdict *v)
{
#define COUNTED                                                                                                                            \
    "SELECT total(state=0),total(state=1),total(state=2),total(state=3),total(state=4),total(state=5),total(state=6),total(state=7)"
    static const char *const texts[] = {
        "SELECT count(*) FROM batch_counts n WHERE (" STATE_COUNTS ")<>(" COUNTED " FROM items WHERE batch=n.batch)",
        "SELECT count(*) FROM counts n WHERE (" STATE_COUNTS ")<>(" COUNTED
        " FROM items i JOIN batches b ON b.id=i.batch WHERE b.counter=n.id)",
        "SELECT count(*) FROM items i WHERE (SELECT count(*) FROM images m WHERE m.name=i.item_id||'.'||i.epoch)<>(i.state=3)",
        "SELECT count(*) FROM pragma_foreign_key_check"};
#undef COUNTED
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error err = {0};
        int64_t n = 0;
        enum status status = sql_pragma_int(q->sql.db, texts[i], &n, &err);
        WRONG_IF(v, status != ST_OK || n != 0, "%s: %lld %s", texts[i], (long long)n, err.message);
    }
    return true;
}

static bool database_sound(struct queue *q, struct verdict *v)
{
    sqlite3_stmt *st = NULL;
    bool row = sqlite3_prepare_v2(q->sql.db, "PRAGMA integrity_check", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW;
    char text[200];
    snprintf(text, sizeof text, "%s", row ? (const char *)sqlite3_column_text(st, 0) : "no answer");
    sqlite3_finalize(st);
    WRONG_IF(v, strcmp(text, "ok") != 0, "integrity_check: %s", text);
    return true;
}

static enum status recover(struct power *c, struct queue *q, struct change_list *ch, int64_t tx, struct error *err)
{
    TRY(queue_begin(q, err));
    TRY(queue_recover(q, c->k.now + 2 * QUEUE_CRASH_WINDOW_MS, ch, err));
    TRY(queue_meta_set_int(q, "tx", tx, err));
    return queue_commit(q, err);
}

/* add_next: an item that is added now gets an id that was not given to one that is there or was. */
static bool add_next(struct power *c, struct queue *q, int64_t last, struct verdict *v)
{
    struct enqueue_args a = batch_of(&c->k, 1);
    struct enqueue_result r;
    struct error err;
    bool ok = queue_begin(q, &err) == ST_OK && queue_enqueue(q, &a, &r, &err) == ST_OK && queue_commit(q, &err) == ST_OK;
    WRONG_IF(v, !ok, "the next item is refused: %s", err.message);
    WRONG_IF(v, r.first_item_id != last + 1, "the next item is %lld, not %lld", (long long)r.first_item_id, (long long)last + 1);
    return true;
}

static bool queue_fits(struct power *c, struct queue *q, struct verdict *v)
{
    static struct row rows[ITEMS_MAX]; /* under c->lock */
    struct change_list ch = {0};
    struct error err = {0};
    WRONG_IF(v, queue_meta_get_int(q, "tx", 0, &v->tx, &err) != ST_OK, "%s", err.message);
    WRONG_IF(v, v->tx > c->tx, "transaction %lld of %lld is there", (long long)v->tx, (long long)c->tx);
    v->result = v->tx < c->acked ? LOST : v->tx > c->acked ? LATER : SAME;
    snprintf(v->why, sizeof v->why, "transaction %lld is there, %lld was acknowledged", (long long)v->tx, (long long)c->acked);
    int64_t last = rows_at(c, v->tx, rows);
    if (!rows_are(q, rows, last, v) || !counters_fit(q, v))
        return false;
    enum status status = recover(c, q, &ch, v->tx, &err);
    change_list_fini(&ch);
    WRONG_IF(v, status != ST_OK, "recovery: %s", err.message);
    for (int64_t i = 1; i <= last; i++)
        rows[i] = recovered(rows[i]);
    return rows_are(q, rows, last, v) && counters_fit(q, v) && database_sound(q, v) && add_next(c, q, last, v);
}

static void folder_remove(const char *dir)
{
    static const char *const names[] = {"galley.db", "galley.db-wal", "galley.db-shm", "galley.db-journal", "lock"};
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* judge opens the queue as galleyd does after the power came back with P on the disk. */
static void judge(struct power *c, const struct picture *p, struct verdict *v)
{
    struct queue *q = NULL;
    struct error err;
    if (mkdir(c->image, 0700) != 0)
        abort();
    picture_write(p, c->image);
    *v = (struct verdict){0};
    if (queue_open(c->image, false, &q, &err) != ST_OK) {
        v->result = WRONG;
        snprintf(v->why, sizeof v->why, "it does not open: %s", err.message);
    } else {
        queue_fits(c, q, v);
    }
    queue_close(q);
    folder_remove(c->image);
}

/* cut_locked lets the power fail; on any thread, under c->lock. */
static void cut_locked(struct power *c, enum moment m)
{
    struct picture p = {0};
    struct verdict v;
    enum keep keep = (enum keep)dice(&c->rng, KEEPS);
    picture_take(&p, keep, &c->rng);
    judge(c, &p, &v);
    c->cuts++;
    c->at[m]++;
    c->results[v.result]++;
    if (v.result == LOST || v.result == WRONG) {
        if (!c->tolerant && !c->failure[0])
            snprintf(c->failure, sizeof c->failure, "seed %llu, power failure %ld, %s, kept %d: %s", (unsigned long long)c->seed, c->cuts,
                     moment_names[m], keep, v.why);
        picture_fini(&p);
    } else {
        picture_fini(&c->kept);
        c->kept = p;
        c->kept_tx = v.tx;
    }
}

static void cut(struct power *c, enum moment m)
{
    pthread_mutex_lock(&c->lock);
    cut_locked(c, m);
    pthread_mutex_unlock(&c->lock);
}

/* disk_moment: syncs and removals are rarer than writes and fail more often. */
static void disk_moment(void *arg, enum moment m)
{
    struct power *c = arg;
    pthread_mutex_lock(&c->lock);
    bool now = c->always;
    if (c->cutting && !now)
        now = m >= SYNC_DATABASE ? dice(&c->rng, 3) == 0 : --c->countdown <= 0;
    if (now)
        cut_locked(c, m);
    if (c->countdown <= 0)
        c->countdown = 1 + (int)dice(&c->rng, CUT_EVERY);
    pthread_mutex_unlock(&c->lock);
}

/* ---- the workload */
enum kind { ADD, CLAIM, FINISH, CANCEL, DELETE, PRUNE, REFUSE, MARK, KINDS };
struct op {
    struct store_op base;
    struct power *c;
    enum kind kind;
    uint32_t pick;
    int *back;
    bool cut_committed, cut_done, fails;
};

static bool running(struct row r) { return r.state == ITEM_IN_PROGRESS || r.state == ITEM_CANCELING; }
static bool live(struct row r) { return r.state == ITEM_PENDING || running(r); }
static bool there(struct row r) { return r.state != ITEM_GONE; }

/* pick returns an item that TAKES takes, 0: none. */
static int64_t pick(struct op *op, bool (*takes)(struct row r), struct row *ret)
{
    struct power *c = op->c;
    int64_t found = 0;
    pthread_mutex_lock(&c->lock);
    for (int64_t n = 0; n < c->last && !found; n++) {
        int64_t id = 1 + (op->pick + n) % c->last;
        found = takes(c->now[id]) ? id : 0;
    }
    *ret = c->now[found];
    pthread_mutex_unlock(&c->lock);
    return found;
}

static enum status add(struct queue *q, struct op *op, struct change_list *ch, struct error *err)
{
    static const char blank[] = "                                                                ";
    char graph[GRAPH_BYTES] = "";
    struct enqueue_args a = batch_of(&op->c->k, 1 + op->pick % 3);
    struct enqueue_result r;
    (void)ch;
    for (uint32_t n = 0; n < op->pick % (GRAPH_BYTES / sizeof blank); n++)
        memcpy(graph + n * (sizeof blank - 1), blank, sizeof blank);
    memcpy(graph + strlen(graph), "{}", 3);
    a.graph = graph;
    a.prepend = op->pick % 5 == 0;
    TRY(queue_enqueue(q, &a, &r, err));
    if (op->kind == REFUSE)
        return FAIL(err, BAD_ARGUMENT, "refused on purpose");
    pthread_mutex_lock(&op->c->lock);
    for (int64_t i = 0; i < r.count; i++)
        note(op->c, r.first_item_id + i, (struct row){.state = ITEM_PENDING});
    pthread_mutex_unlock(&op->c->lock);
    return ST_OK;
}

static enum status claim(struct queue *q, struct op *op, struct change_list *ch, struct error *err)
{
    struct claim_args a = {.slot = (int)(op->pick % 4), .device = "cpu:0", .worker = "w", .now_ms = op->c->k.now};
    struct claim_result r;
    TRY(queue_claim(q, &a, &r, ch, err));
    batch_text_unref(r.batch);
    return ST_OK;
}

static enum status finish(struct queue *q, struct op *op, struct change_list *ch, struct error *err)
{
    struct row row;
    char name[64];
    int64_t id = pick(op, running, &row);
    if (!id)
        return claim(q, op, ch, err);
    snprintf(name, sizeof name, "%lld.%lld", (long long)id, (long long)row.epoch);
    struct finish_image image = {.name = name, .width = 8, .height = 8, .bytes = 100};
    struct finish_args a = {.item_id = id,
                            .epoch = row.epoch,
                            .outcome = op->pick % 5 ? ITEM_COMPLETED : ITEM_FAILED,
                            .session = "{}",
                            .images = &image,
                            .n_images = 1,
                            .now_ms = op->c->k.now};
    TRY(queue_finish(q, &a, ch, err));
    return claim(q, op, ch, err);
}

static enum status cancel(struct queue *q, struct op *op, struct change_list *ch, struct error *err)
{
    struct row row;
    int64_t id = pick(op, live, &row);
    return id ? queue_cancel(q, id, -1, op->c->k.now, ch, err) : ST_OK;
}

static enum status drop(struct queue *q, struct op *op, struct change_list *ch, struct error *err)
{
    struct row row;
    int64_t id = pick(op, there, &row);
    return id ? queue_delete(q, &id, 1, NULL, ch, err) : ST_OK;
}

static enum status prune(struct queue *q, struct op *op, struct change_list *ch, struct error *err)
{
    return queue_prune(q, 1 + op->pick % 5, NULL, ch, err);
}

/* mark is the last of each transaction and says which one it is. The store's next sync of the log is that of this transaction. */
static enum status mark(struct queue *q, struct op *op, struct change_list *ch, struct error *err)
{
    (void)ch;
    pthread_mutex_lock(&disk.lock);
    disk.held = op->cut_committed;
    disk.fails = op->fails;
    pthread_mutex_unlock(&disk.lock);
    return queue_meta_set_int(q, "tx", op->c->tx, err);
}

static enum status run(struct queue *q, struct store_op *base, struct error *err)
{
    static enum status (*const kinds[KINDS])(struct queue *, struct op *, struct change_list *,
                                             struct error *) = {[ADD] = add,     [CLAIM] = claim, [FINISH] = finish, [CANCEL] = cancel,
                                                                [DELETE] = drop, [PRUNE] = prune, [REFUSE] = add,    [MARK] = mark};
    struct op *op = (struct op *)base;
    struct change_list ch = {0};
    enum status status = kinds[op->kind](q, op, &ch, err);
    pthread_mutex_lock(&op->c->lock);
    if (status == ST_OK)
        note_changes(op->c, &ch);
    pthread_mutex_unlock(&op->c->lock);
    change_list_fini(&ch);
    return status;
}

static enum status wait_here(struct queue *q, struct store_op *base, struct error *err)
{
    struct power *c = ((struct op *)base)->c;
    (void)q, (void)err;
    sem_post(&c->arrived);
    while (sem_wait(&c->go) != 0) {
    }
    return ST_OK;
}

/* committed: with CUT_COMMITTED the writer stands before the sync, and the power fails there. */
static void committed(struct store_op *base)
{
    struct op *op = (struct op *)base;
    struct power *c = op->c;
    pthread_mutex_lock(&c->lock);
    c->told = c->tx;
    pthread_mutex_unlock(&c->lock);
    if (!op->cut_committed)
        return;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LIMIT_MS / 1000;
    int rc = 0;
    pthread_mutex_lock(&disk.lock);
    while (!disk.waits && rc == 0)
        rc = pthread_cond_timedwait(&disk.go, &disk.lock, &until);
    pthread_mutex_unlock(&disk.lock);
    if (rc != 0)
        fail_msg("seed %llu: a commit is not synced", (unsigned long long)c->seed);
    cut(c, COMMITTED);
    pthread_mutex_lock(&disk.lock);
    disk.held = false;
    pthread_cond_broadcast(&disk.go);
    pthread_mutex_unlock(&disk.lock);
}

static void done(struct store_op *base, enum status status, const struct error *err)
{
    struct op *op = (struct op *)base;
    struct power *c = op->c;
    enum status expected = op->kind == REFUSE ? ST_BAD_ARGUMENT : op->fails ? ST_IO : ST_OK;
    if (status != expected)
        fail_msg("seed %llu: %s", (unsigned long long)c->seed, status == ST_OK ? "a failure was acknowledged" : err->message);
    (*op->back)++;
    if (op->kind != MARK)
        return;
    pthread_mutex_lock(&c->lock);
    assert_int_equal(c->told, c->tx);
    c->acked = op->fails ? c->acked : c->tx;
    pthread_mutex_unlock(&c->lock);
    if (op->cut_done)
        cut(c, DONE);
}

static void ring(void *arg)
{
    uint64_t one = 1;
    if (write(((struct power *)arg)->bell, &one, sizeof one) != sizeof one)
        abort();
}

static void pump(struct power *c, const int *count, int n)
{
    int64_t end = clock_real_ms() + LIMIT_MS;
    while (*count < n) {
        struct pollfd p = {.fd = c->bell, .events = POLLIN};
        uint64_t rings;
        if (clock_real_ms() > end)
            fail_msg("seed %llu: only %d of %d operations came back", (unsigned long long)c->seed, *count, n);
        if (poll(&p, 1, 100) == 1)
            assert_int_equal(read(c->bell, &rings, sizeof rings), sizeof rings);
        store_drain(c->s);
    }
}

/* writer_waits returns when the writer has ended all that it had to do and waits in GATE for c->go. */
static void writer_waits(struct power *c, struct op *gate, int *back)
{
    *gate = (struct op){.base = {.run = wait_here, .done = done}, .c = c, .back = back};
    store_submit(c->s, &gate->base);
    while (sem_wait(&c->arrived) != 0) {
    }
}

/* What is special about a transaction. */
enum special { PLAIN, AT_COMMIT, LOG_FULL, SYNC_FAILS, ANY };

/* transaction submits a group of operations while the writer waits, so that they are one transaction. */
static void transaction(struct power *c, enum special special)
{
    static const enum kind often[] = {ADD, ADD, ADD, CLAIM, CLAIM, FINISH, FINISH, FINISH, FINISH, FINISH, CANCEL, DELETE, PRUNE, REFUSE};
    struct op ops[GROUP + 1], gate;
    char log[PATH_BYTES + 8];
    int back = 0, n = 0;
    writer_waits(c, &gate, &back);
    uint32_t d = dice(&c->rng, 6);
    if (special == ANY)
        special = d == 0 ? LOG_FULL : d < 3 ? AT_COMMIT : PLAIN;
    c->tx++;
    c->k.now += 10;
    for (int members = (int)dice(&c->rng, GROUP); n < members; n++)
        ops[n] = (struct op){.kind = often[dice(&c->rng, sizeof often / sizeof *often)]};
    ops[n++] = (struct op){.kind = MARK, .cut_committed = special == AT_COMMIT, .cut_done = special != LOG_FULL && dice(&c->rng, 2)};
    for (int i = 0; i < n; i++) {
        ops[i].base = (struct store_op){.run = run, .done = done, .committed = committed};
        ops[i].c = c;
        ops[i].pick = dice(&c->rng, 100000);
        ops[i].back = &back;
        ops[i].fails = special == SYNC_FAILS;
    }
    snprintf(log, sizeof log, "%s-wal", disk.database);
    if (special == LOG_FULL) /* as far as the store can see; the end that was never written reads as zeros */
        assert_int_equal(truncate(log, STORE_WAL_BYTES + 4096), 0);
    for (int i = 0; i < n; i++)
        store_submit(c->s, &ops[i].base);
    sem_post(&c->go);
    pump(c, &back, n + 1);
}

static void check(struct power *c)
{
    pthread_mutex_lock(&c->lock);
    bool failed = c->failure[0];
    pthread_mutex_unlock(&c->lock);
    if (failed)
        fail_msg("%s", c->failure);
}

static void start(struct power *c)
{
    struct change_list ch = {0};
    pthread_mutex_lock(&c->lock);
    c->cutting = true;
    c->k.now += 2 * QUEUE_CRASH_WINDOW_MS;
    bool copy = dice(&c->rng, 2);
    pthread_mutex_unlock(&c->lock);
    assert_ok(queue_open(c->k.dir, c->durable, &c->k.q, &c->k.err), c->k.err);
    pthread_mutex_lock(&c->lock);
    int64_t tx = ++c->tx;
    for (int64_t i = 1; i <= c->last; i++) /* known before it can be seen on the disk */
        if (running(c->now[i]))
            note(c, i, recovered(c->now[i]));
    pthread_mutex_unlock(&c->lock);
    assert_ok(recover(c, c->k.q, &ch, tx, &c->k.err), c->k.err);
    change_list_fini(&ch);
    if (copy)
        assert_ok(queue_checkpoint(c->k.q, &c->k.err), c->k.err);
    assert_ok(queue_reader_open(c->k.dir, &c->k.r, &c->k.err), c->k.err);
    assert_ok(store_start(c->k.q, c->k.r, ring, c, &c->s, &c->k.err), c->k.err);
}

static void stop(struct power *c)
{
    store_stop(c->s);
    c->s = NULL;
    c->k.q = NULL;
    c->k.r = NULL;
}

/* go_on_with ends the life as it is; the next one begins in a folder of its own. With P the power failed and P is what it left. Without,
 * the process was killed: files have what was written, the disk what was synced of it. */
static void go_on_with(struct power *c, const struct picture *p)
{
    struct picture files = {0};
    struct op gate;
    char *old = c->k.dir;
    int back = 0;
    uint64_t none = 0;
    if (c->s)
        writer_waits(c, &gate, &back);
    pthread_mutex_lock(&c->lock);
    c->cutting = false;
    pthread_mutex_unlock(&c->lock);
    c->k.dir = temp_dir();
    picture_take(&files, KEEP_ALL, &none);
    picture_write(p ? p : &files, c->k.dir);
    picture_fini(&files);
    disk_move(c->k.dir, p);
    if (c->s) {
        sem_post(&c->go);
        stop(c);
    }
    temp_dir_remove(old);
}

/* power_back: the next life begins with what the last cut left. */
static void power_back(struct power *c)
{
    go_on_with(c, &c->kept);
    forget_after(c, c->kept_tx);
}

static struct power *power_new(uint64_t seed)
{
    struct power *c = must(calloc(1, sizeof *c));
    const char *other = getenv("GALLEY_TEST_SEED");
    c->k = (struct kit){.dir = temp_dir(), .now = 1700000000000};
    c->seed = c->rng = other ? strtoull(other, NULL, 10) : seed;
    disk.rng = c->seed;
    c->durable = true;
    c->countdown = 1;
    c->bell = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&c->lock, NULL);
    sem_init(&c->arrived, 0, 0);
    sem_init(&c->go, 0, 0);
    snprintf(c->image, sizeof c->image, "%s-cut", c->k.dir);
    disk_install();
    disk_move(c->k.dir, NULL);
    disk.moment = disk_moment;
    disk.arg = c;
    return c;
}

static void power_free(struct power *c)
{
    disk_remove();
    temp_dir_remove(c->k.dir);
    close(c->bell);
    sem_destroy(&c->arrived);
    sem_destroy(&c->go);
    pthread_mutex_destroy(&c->lock);
    picture_fini(&c->kept);
    free(c->facts);
    free(c);
}

/* ---- tests */
/* end_life ends a life in one of three ways. */
static void end_life(struct power *c, int way)
{
    if (way == 0)
        stop(c);
    else if (way == 1)
        power_back(c);
    else
        go_on_with(c, NULL);
    check(c);
}

static void tell(const struct power *c, int64_t begin)
{
    print_message("%ld power failures in %lld ms: %ld as acknowledged, %ld with more, %ld with less, %ld damaged\n", c->cuts,
                  (long long)(clock_real_ms() - begin), c->results[SAME], c->results[LATER], c->results[LOST], c->results[WRONG]);
}

/* What was acknowledged is there after every power failure, over many lives of the node: some end in order, some by a kill, some by a power
 * failure, and the next one goes on with what that left. */
static void acknowledged_survives(void **state)
{
    enum { LIVES = 12, TRANSACTIONS = 8 };
    struct power *c = *state;
    int64_t begin = clock_real_ms();
    for (int life = 0; life < LIVES; life++) {
        start(c);
        for (int i = 0; i < TRANSACTIONS; i++) {
            transaction(c, ANY);
            check(c);
        }
        end_life(c, life % 3);
    }
    tell(c, begin);
    for (int m = 0; m < MOMENTS; m++)
        if (!getenv("GALLEY_TEST_SEED") && c->at[m] == 0 && m != PUT_JOURNAL && m != SYNC_JOURNAL)
            fail_msg("the power never failed at %s", moment_names[m]);
    assert_true(getenv("GALLEY_TEST_SEED") || (c->results[SAME] > 0 && c->results[LATER] > 0));
}

/* The first start makes the database: it may fail anywhere, the next start makes it then. */
static void first_start(void **state)
{
    struct power *c = *state;
    int64_t begin = clock_real_ms();
    for (int i = 0; i < 2; i++) {
        static const struct picture empty;
        c->always = true;
        start(c);
        pthread_mutex_lock(&c->lock);
        c->always = false;
        pthread_mutex_unlock(&c->lock);
        check(c);
        go_on_with(c, &empty);
        forget_after(c, 0);
    }
    tell(c, begin);
    for (int m = 0; m < SHORTEN; m++)
        if (c->at[m] == 0)
            fail_msg("the power never failed at %s", moment_names[m]);
}

/* The same without syncs loses what was acknowledged: the test can fail. */
static void without_syncs_it_is_lost(void **state)
{
    struct power *c = *state;
    int64_t begin = clock_real_ms();
    c->durable = false;
    c->tolerant = true;
    start(c);
    for (int i = 0; i < 8; i++)
        transaction(c, PLAIN);
    stop(c);
    tell(c, begin);
    assert_true(c->results[LOST] > 0);
}

/* A sync that fails acknowledges nothing and ends the store; what was acknowledged before survives the power failure that follows. */
static void failed_sync(void **state)
{
    struct power *c = *state;
    int64_t begin = clock_real_ms();
    for (int life = 0; life < 6; life++) {
        start(c);
        for (int i = 0; i < 3; i++)
            transaction(c, i == 1 ? LOG_FULL : PLAIN);
        transaction(c, SYNC_FAILS);
        assert_true(store_broken(c->s, NULL));
        stop(c);
        for (int i = 0; i < 3; i++)
            cut(c, DONE);
        check(c);
        power_back(c);
    }
    tell(c, begin);
}

/* restart begins a new life with the files as the system has them, whatever the
 * disk has. */
static void restart(struct power *c)
{
    char command[PATH_BYTES * 4], *old = c->k.dir;
    c->k.dir = temp_dir();
    snprintf(command, sizeof command, "cp %s/galley.db* %s/", old, c->k.dir);
    assert_int_equal(system(command), 0);
    disk_move(c->k.dir, NULL);
    temp_dir_remove(old);
}

/* After a sync that failed the system's cache has commits that the disk does
 * not have and that count as written. A process that begins again without a
 * restart of the system sees them: what it acknowledges on top must survive
 * too. */
static void restart_after_failed_sync(void **state)
{
    struct power *c = *state;
    int64_t begin = clock_real_ms();
    for (int round = 0; round < 4; round++) {
        start(c);
        for (int i = 0; i < 3; i++)
            transaction(c, PLAIN);
        transaction(c, SYNC_FAILS);
        stop(c);
        restart(c);
        start(c);
        for (int i = 0; i < 3; i++)
            transaction(c, AT_COMMIT);
        stop(c);
        check(c);
    }
    tell(c, begin);
}

/* A checkpoint that cannot sync the log: the queue's end must not copy from it
 * what the disk may not have. */
static void checkpoint_cannot_sync(void **state)
{
    struct power *c = *state;
    struct change_list ch = {0};
    int64_t begin = clock_real_ms();
    for (int round = 0; round < 3; round++) {
        start(c);
        for (int i = 0; i < 5; i++)
            transaction(c, PLAIN);
        stop(c); /* the log is empty, items are running */
        assert_ok(queue_open(c->k.dir, true, &c->k.q, &c->k.err), c->k.err);
        int64_t tx = ++c->tx;
        for (int64_t i = 1; i <= c->last; i++)
            if (running(c->now[i]))
                note(c, i, recovered(c->now[i]));
        assert_ok(recover(c, c->k.q, &ch, tx, &c->k.err), c->k.err);
        change_list_fini(&ch);
        disk.fails = true;
        assert_int_equal(queue_checkpoint(c->k.q, &c->k.err), ST_IO);
        c->always = true;
        queue_close(c->k.q);
        c->always = false;
        c->k.q = NULL;
        cut(c, DONE);
        check(c);
        power_back(c);
    }
    tell(c, begin);
}

static int setup(void **state)
{
    *state = power_new(20260131);
    return 0;
}

static int teardown(void **state)
{
    power_free(*state);
    return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {T(acknowledged_survives),     T(first_start),           T(without_syncs_it_is_lost), T(failed_sync),
                                       T(restart_after_failed_sync), T(checkpoint_cannot_sync)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
