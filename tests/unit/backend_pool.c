/* The CPU backend's pool: every task once, whatever the number of threads, also when loops follow closely or helpers come late. */
#include <stdatomic.h>

#include "tests/unit/unit.h"
#include "worker/backend/cpu/pool.h"

enum { TASKS_MAX = 1000 };

struct count { atomic_int runs[TASKS_MAX]; };

static void count_task(void *arg, int task)
{
    struct count *c = arg;
    atomic_fetch_add(&c->runs[task], 1);
}

static void every_task_once(void **state)
{
    (void)state;
    static const int sizes[] = {0, 1, 2, 3, 7, 64, TASKS_MAX};
    for (int threads = 1; threads <= 5; threads++) {
        struct pool *p = NULL;
        struct error err = {0};
        assert_ok(pool_new(threads, &p, &err), err);
        assert_int_equal(pool_threads(p), threads);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct count c = {0};
            pool_run(p, sizes[i], count_task, &c);
            for (int t = 0; t < TASKS_MAX; t++)
                assert_int_equal(atomic_load(&c.runs[t]), t < sizes[i]);
        }
        pool_free(p);
    }
}

struct sum { long total; long parts[8]; };

/* Plain memory on purpose: what tasks write is visible after the loop, and a loop sees what was written before it. */
static void add_task(void *arg, int task)
{
    struct sum *s = arg;
    s->parts[task] = s->total + task;
}

static void loops_in_a_row(void **state)
{
    (void)state;
    struct pool *p = NULL;
    struct error err = {0};
    struct sum s = {0};
    assert_ok(pool_new(3, &p, &err), err);
    for (int round = 0; round < 2000; round++) {
        pool_run(p, 8, add_task, &s);
        long before = s.total;
        for (int i = 0; i < 8; i++)
            s.total += s.parts[i] - before;
    }
    assert_int_equal(s.total, 2000 * 28);
    pool_free(p);
}

static void unused(void **state)
{
    (void)state;
    struct pool *p = NULL;
    struct error err = {0};
    assert_ok(pool_new(4, &p, &err), err);
    pool_free(p);
    pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_task_once), cmocka_unit_test(loops_in_a_row), cmocka_unit_test(unused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
