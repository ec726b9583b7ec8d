/* The state x event table of a worker slot, held against the rules that it must not break. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "supervisor/worker_fsm.h"

static enum slot_state must(enum slot_state s, enum slot_event e)
{
    enum slot_state to;
    assert_true(slot_next(s, e, &to));
    return to;
}

static void a_life(void **state)
{
    (void)state;
    enum slot_state s = SLOT_BACKOFF;
    s = must(s, SLOT_ON_SPAWNED);
    assert_int_equal(s, SLOT_STARTING);
    s = must(s, SLOT_ON_HELLO);
    s = must(s, SLOT_ON_ASSIGNED);
    assert_int_equal(s, SLOT_BUSY);
    s = must(s, SLOT_ON_ASSIGNED);
    assert_int_equal(s, SLOT_BUSY);
    s = must(s, SLOT_ON_FINISHED);
    assert_int_equal(s, SLOT_READY);
    s = must(s, SLOT_ON_STOP);
    s = must(s, SLOT_ON_UNKILLABLE);
    assert_int_equal(s, SLOT_LOST);
    s = must(s, SLOT_ON_EXITED);
    s = must(s, SLOT_ON_QUARANTINE);
    s = must(s, SLOT_ON_RELEASE);
    assert_int_equal(s, SLOT_BACKOFF);
}

static void work_goes_to_ready_workers_only(void **state)
{
    (void)state;
    for (int s = 0; s < SLOT_STATES; s++) {
        enum slot_state to = (enum slot_state)s;
        bool allowed = slot_next((enum slot_state)s, SLOT_ON_ASSIGNED, &to);
        assert_int_equal(allowed, s == SLOT_READY || s == SLOT_BUSY);
    }
}

static void every_live_process_may_exit(void **state)
{
    (void)state;
    const enum slot_state live[] = {SLOT_STARTING, SLOT_READY, SLOT_BUSY, SLOT_STOPPING, SLOT_LOST};
    for (size_t i = 0; i < sizeof live / sizeof live[0]; i++)
        assert_int_equal(must(live[i], SLOT_ON_EXITED), SLOT_BACKOFF);
}

static void a_refused_event_leaves_the_result_alone(void **state)
{
    (void)state;
    enum slot_state to = SLOT_LOST;
    assert_false(slot_next(SLOT_BACKOFF, SLOT_ON_HELLO, &to));
    assert_int_equal(to, SLOT_LOST);
}

static void every_state_is_reachable_and_named(void **state)
{
    (void)state;
    for (int s = 0; s < SLOT_STATES; s++) {
        bool reached = s == SLOT_BACKOFF;
        for (int from = 0; from < SLOT_STATES; from++)
            for (int e = 0; e < SLOT_EVENTS; e++) {
                enum slot_state to;
                reached |= from != s && slot_next((enum slot_state)from, (enum slot_event)e, &to) && (int)to == s;
            }
        assert_true(reached);
        assert_true(strlen(slot_state_name((enum slot_state)s)) > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_life), cmocka_unit_test(work_goes_to_ready_workers_only), cmocka_unit_test(every_live_process_may_exit),
        cmocka_unit_test(a_refused_event_leaves_the_result_alone), cmocka_unit_test(every_state_is_reachable_and_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
