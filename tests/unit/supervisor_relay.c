/* Events: numbers, the ring, and long polls. */
#include "unit.h"

#include <jansson.h>

#include "common/clock.h"
#include "common/loop.h"
#include "proto/limits.h"
#include "supervisor/relay.h"

enum { FIRST_SEQ = 100, GUARD_MS = 10000 };

struct fixture {
    char *dir;
    struct loop *loop;
    struct loop_timer *guard;
    struct relay *relay;
    json_t *reply;                  /* result of the last answer */
    uint64_t token;                 /* of the last answer */
    int answers;
    bool waits;                     /* wait_answer is running */
};

static void on_answer(void *arg, uint64_t token, enum wr_form form, const struct buf *reply)
{
    struct fixture *f = arg;
    assert_int_equal(form, WR_JSON);
    assert_true(buf_ok(reply));
    json_t *j = json_loadb(reply->data, reply->len, 0, NULL);
    assert_true(json_is_true(json_object_get(j, "ok")));
    json_decref(f->reply);
    f->reply = json_incref(json_object_get(j, "result"));
    json_decref(j);
    f->token = token;
    f->answers++;
    if (f->waits)
        loop_stop(f->loop);
}

static void on_reserve(void *arg, int64_t upto)
{
    (void)arg;
    (void)upto;
}

static void on_guard(void *arg)
{
    (void)arg;
    fail_msg("no answer within %d ms", (int)GUARD_MS);
}

static int set_up(void **state)
{
    struct error err;
    struct fixture *f = calloc(1, sizeof *f);
    f->dir = temp_dir();
    assert_ok(loop_new(&f->loop, &err), err);
    f->guard = loop_timer_new(f->loop, on_guard, f);
    const struct relay_args args = {f->dir, FIRST_SEQ, on_reserve, on_answer, f};
    assert_ok(relay_new(f->loop, &args, &f->relay, &err), err);
    *state = f;
    return 0;
}

/* The relay and its loop live as long as a process does: each test leaves its own behind. */
static int tear_down(void **state)
{
    struct fixture *f = *state;
    json_decref(f->reply);
    temp_dir_remove(f->dir);
    return 0;
}

static void wait_answer(struct fixture *f)
{
    struct error err;
    loop_timer_set(f->guard, GUARD_MS);
    f->waits = true;
    assert_ok(loop_run(f->loop, &err), err);
    f->waits = false;
    loop_timer_stop(f->guard);
}

/* poll_now answers a poll that does not wait. */
static void poll_now(struct fixture *f, int64_t since, int64_t item, int64_t max)
{
    int before = f->answers;
    relay_poll(f->relay, 1, WR_JSON, &(struct relay_poll){since, item, max, 0});
    assert_int_equal(f->answers, before + 1);
}

static size_t events(const struct fixture *f)
{
    return json_array_size(json_object_get(f->reply, "events"));
}

static int64_t event_number(const struct fixture *f, size_t i, const char *key)
{
    return json_integer_value(json_object_get(json_array_get(json_object_get(f->reply, "events"), i), key));
}

static int64_t result(const struct fixture *f, const char *key)
{
    return json_integer_value(json_object_get(f->reply, key));
}

static void item_event(struct fixture *f, int64_t item, bool last)
{
    relay_item_event(f->relay, item, 1, "cpu:0", "invocation_started", NULL, 0, last);
}

static void numbers_rise_by_one(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(relay_seq(f->relay), FIRST_SEQ - 1);
    for (int i = 0; i < 10; i++)
        relay_event(f->relay, "ev/node ", "node_state_changed", (const struct ev_field[]){EV_S("reason", NULL), EV_I("i", i)}, 2);
    poll_now(f, 0, 0, 1000);
    assert_int_equal(events(f), 10);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(event_number(f, i, "seq"), FIRST_SEQ + (int64_t)i);
    assert_int_equal(result(f, "next"), FIRST_SEQ + 9);
    poll_now(f, FIRST_SEQ + 3, 0, 2);
    assert_int_equal(events(f), 2);
    assert_int_equal(event_number(f, 0, "seq"), FIRST_SEQ + 4);
    assert_int_equal(result(f, "next"), FIRST_SEQ + 5);
    assert_int_equal(result(f, "lost"), 0);
}

/* Each item's events are numbered 1, 2, ...; whatever ended or was forgotten among its neighbours in the table. */
static void items_have_numbers_of_their_own(void **state)
{
    struct fixture *f = *state;
    enum { ITEMS = 3000 };
    for (int round = 1; round <= 3; round++)
        for (int64_t item = 1; item <= ITEMS; item++) {
            if (round == 2 && item % 3 == 0)
                relay_forget(f->relay, item);
            item_event(f, item, round == 2 && item % 3 == 1);
        }
    relay_forget(f->relay, ITEMS + 7);    /* never heard of */
    for (int64_t item = 1; item <= ITEMS; item += 97) {
        const int64_t expected[3][3] = {{1, 1, 2}, {1, 2, 1}, {1, 2, 3}};    /* forgotten before round 2, ended in it, neither */
        poll_now(f, 0, item, 10);
        assert_int_equal(events(f), 3);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(event_number(f, i, "item_seq"), expected[item % 3][i]);
    }
}

static void the_ring_tells_what_is_lost(void **state)
{
    struct fixture *f = *state;
    enum { MORE = 10 };
    for (int i = 0; i < LIMIT_EVENTS_RING + MORE; i++)
        relay_event(f->relay, "ev/queue ", "queue_paused", NULL, 0);
    poll_now(f, FIRST_SEQ + 2, 0, 5);
    assert_int_equal(result(f, "lost"), MORE - 3);
    assert_int_equal(event_number(f, 0, "seq"), FIRST_SEQ + MORE);
    poll_now(f, FIRST_SEQ + MORE - 1, 0, 5);
    assert_int_equal(result(f, "lost"), 0);
    assert_int_equal(event_number(f, 0, "seq"), FIRST_SEQ + MORE);
    poll_now(f, 1, 0, 5);    /* of an earlier boot */
    assert_true(result(f, "lost") > 0);
    poll_now(f, relay_seq(f->relay) + 1, 0, 5);    /* of the future */
    assert_true(result(f, "lost") > 0);
    assert_int_equal(events(f), 0);
    assert_int_equal(result(f, "next"), relay_seq(f->relay));
    poll_now(f, relay_seq(f->relay), 0, 5);
    assert_int_equal(result(f, "lost"), 0);
}

static void a_poll_wakes_for_its_item_only(void **state)
{
    struct fixture *f = *state;
    relay_poll(f->relay, 7, WR_JSON, &(struct relay_poll){0, 5, 100, GUARD_MS});
    assert_int_equal(relay_polls_waiting(f->relay), 1);
    item_event(f, 4, false);
    item_event(f, 5, false);
    wait_answer(f);
    assert_int_equal(f->token, 7);
    assert_int_equal(events(f), 1);
    assert_int_equal(event_number(f, 0, "item_id"), 5);
    assert_int_equal(result(f, "next"), FIRST_SEQ + 1);
    assert_int_equal(relay_polls_waiting(f->relay), 0);
}

/* More of other items than the ring holds goes by while a poll waits for one: it has seen all of it, so nothing was lost. */
static void a_waiting_poll_loses_nothing(void **state)
{
    struct fixture *f = *state;
    item_event(f, 4, false);
    relay_poll(f->relay, 7, WR_JSON, &(struct relay_poll){FIRST_SEQ, 5, 100, GUARD_MS});
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < LIMIT_EVENTS_RING / 3; k++)
            item_event(f, 4, false);
        relay_poll(f->relay, 8, WR_JSON, &(struct relay_poll){relay_seq(f->relay), 0, 1, 1});    /* its timer has the others looked at, too */
        wait_answer(f);
        assert_int_equal(f->token, 8);
    }
    item_event(f, 5, false);
    wait_answer(f);
    assert_int_equal(f->token, 7);
    assert_int_equal(events(f), 1);
    assert_int_equal(result(f, "lost"), 0);
}

static void a_poll_ends_at_its_time(void **state)
{
    struct fixture *f = *state;
    int64_t begin = clock_ms();
    relay_poll(f->relay, 7, WR_JSON, &(struct relay_poll){FIRST_SEQ - 1, 0, 100, 30});
    wait_answer(f);
    assert_true(clock_ms() - begin >= 30);
    assert_int_equal(events(f), 0);
    assert_int_equal(result(f, "next"), FIRST_SEQ - 1);
}

static void half_of_the_contexts_may_wait(void **state)
{
    struct fixture *f = *state;
    const struct relay_poll p = {FIRST_SEQ - 1, 0, 100, GUARD_MS};
    for (uint64_t i = 0; i < LIMIT_POLLS; i++)
        relay_poll(f->relay, i, WR_JSON, &p);
    assert_int_equal(f->answers, 0);
    relay_poll(f->relay, 1000, WR_JSON, &p);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->token, 1000);
    item_event(f, 1, true);
    wait_answer(f);
    assert_int_equal(f->answers, 1 + LIMIT_POLLS);
    assert_int_equal(relay_polls_waiting(f->relay), 0);
}

int main(void)
{
#define RELAY_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        RELAY_TEST(numbers_rise_by_one), RELAY_TEST(items_have_numbers_of_their_own), RELAY_TEST(the_ring_tells_what_is_lost),
        RELAY_TEST(a_poll_wakes_for_its_item_only), RELAY_TEST(a_waiting_poll_loses_nothing), RELAY_TEST(a_poll_ends_at_its_time),
        RELAY_TEST(half_of_the_contexts_may_wait),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fflush(NULL);
    _exit(failed);    /* as every program with nng in it */
}
