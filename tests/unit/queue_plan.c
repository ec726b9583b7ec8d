/* The queue's costs: query plans of every statement, size of a big batch, and time per operation with a long history. Times are taken on
 * the thread's own CPU clock, with generous limits: they catch a lost index, not a slow machine. */
#include "queue_kit.h"
#include <sys/stat.h>
#include <time.h>

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* check_plan: a hot statement searches, and sorts nothing. Constants and co-routines over them are no scans of a table. */
static int check_plan(sqlite3 *db, const struct sql_text *s)
{
    char *text = sqlite3_mprintf("EXPLAIN QUERY PLAN %s", s->text);
    sqlite3_stmt *st = NULL;
    int bad = 0;
    assert_int_equal(sqlite3_prepare_v2(db, text, -1, &st, NULL), SQLITE_OK);
    while (sqlite3_step(st) == SQLITE_ROW) {
        const char *line = (const char *)sqlite3_column_text(st, 3);
        bool constant = strstr(line, "CONSTANT ROW") || strcmp(line, "SCAN c") == 0 || strcmp(line, "SCAN n") == 0;
        bool ready = strcmp(line, "SCAN items USING INDEX items_ready") == 0 ||
                     strcmp(line, "SCAN items USING COVERING INDEX items_ready") == 0 ||
                     strcmp(line, "SCAN i USING INDEX items_ready") == 0; /* in claim order, ended by LIMIT 1 */
        if ((strstr(line, "SCAN") && !constant && !ready) || strstr(line, "TEMP B-TREE") || strstr(line, "AUTOMATIC")) {
            print_error("%s: %s\n", s->name, line);
            bad++;
        }
    }
    sqlite3_finalize(st);
    sqlite3_free(text);
    return bad;
}

static void plans(void **state)
{
    (void)state;
    struct kit k;
    int bad = 0;
    kit_open(&k);
    for (int i = 0; i < W_COUNT; i++)
        if (writer_sql[i].kind == SQL_HOT && strstr("BEGIN COMMIT ROLLBACK MARK RELEASE REVERT", writer_sql[i].name) == NULL)
            bad += check_plan(k.q->sql.db, &writer_sql[i]);
    for (int i = 0; i < R_COUNT; i++)
        if (reader_sql[i].kind == SQL_HOT)
            bad += check_plan(k.q->sql.db, &reader_sql[i]);
    assert_int_equal(bad, 0);
    kit_close(&k);
}

static int64_t database_bytes(struct kit *k)
{
    struct stat st;
    assert_ok(queue_checkpoint(k->q, &k->err), k->err);
    assert_int_equal(stat(k->q->path, &st), 0);
    return (int64_t)st.st_size;
}

static void big_batch(void **state)
{
    (void)state;
    struct kit k;
    kit_open(&k);
    kit_enqueue(&k, 1);
    int64_t before = database_bytes(&k);
    double start = cpu_ms();
    kit_enqueue(&k, 10000);
    double took = cpu_ms() - start;
    int64_t grown = database_bytes(&k) - before;
    print_message("10000 items: %.1f ms of CPU, %lld bytes\n", took, (long long)grown);
    assert_true(grown <= 3000000);
    assert_true(took < 1500);
    kit_close(&k);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Finish and next claim in one transaction, the way the supervisor works, over a long history and a deep queue. */
static void deep_queue(void **state)
{
    (void)state;
    enum { ROUNDS = 2000 };
    static double took[ROUNDS];
    struct kit k;
    const char *history = getenv("GALLEY_TEST_HISTORY");
    int64_t n = history ? atoll(history) : 20000, epoch = 0, item = 0;
    kit_open(&k);
    kit_enqueue(&k, n);
    assert_ok(sql_exec(k.q->sql.db, "UPDATE items SET state=3", &k.err), k.err);
    for (int64_t i = 0; i < n / 10; i += 100)
        kit_enqueue(&k, 100);
    struct finish_args f = {.outcome = ITEM_COMPLETED, .session = "{\"id\":\"s\",\"results\":{}}", .now_ms = k.now};
    struct claim_args c = {.slot = 0, .device = "cpu:0", .worker = "w", .other_slot_able = true, .now_ms = k.now};
    for (int i = 0; i < ROUNDS; i++) {
        struct claim_result r;
        double start = cpu_ms();
        assert_ok(queue_begin(k.q, &k.err), k.err);
        f.item_id = item, f.epoch = epoch;
        if (item)
            assert_ok(queue_finish(k.q, &f, NULL, &k.err), k.err);
        assert_ok(queue_claim(k.q, &c, &r, NULL, &k.err), k.err);
        assert_ok(queue_commit(k.q, &k.err), k.err);
        took[i] = cpu_ms() - start;
        assert_true(r.found);
        item = r.item_id, epoch = r.epoch;
        batch_text_unref(r.batch);
    }
    qsort(took, ROUNDS, sizeof *took, by_value);
    print_message("finish + claim + commit without sync, %lld ended, %lld pending: median %.0f us, p99 %.0f us of CPU\n", (long long)n,
                  (long long)n / 10, took[ROUNDS / 2] * 1e3, took[ROUNDS * 99 / 100] * 1e3);
    assert_true(took[ROUNDS / 2] < 5);
    double start = cpu_ms();
    int64_t counts[ITEM_STATES];
    for (int i = 0; i < 100; i++)
        assert_ok(reader_counts(k.r, "default", counts, &k.err), k.err);
    print_message("counts: %.1f us of CPU\n", (cpu_ms() - start) * 10);
    assert_true(cpu_ms() - start < 500);
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plans), cmocka_unit_test(big_batch), cmocka_unit_test(deep_queue)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
