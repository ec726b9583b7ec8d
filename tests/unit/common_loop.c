#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>

#include "common/clock.h"
#include "common/loop.h"

static struct loop *new_loop(void)
{
    struct loop *l = NULL;
    struct error err = {0};
    assert_ok(loop_new(&l, &err), err);
    return l;
}

static void run(struct loop *l)
{
    struct error err = {0};
    assert_ok(loop_run(l, &err), err);
}

struct record {
    struct loop *loop;
    char order[16];
    size_t n, stop_at;
    struct loop_timer *self, *other;
    int fds[2];
};

static void mark(struct record *r, char c)
{
    r->order[r->n++] = c;
    if (r->n == r->stop_at)
        loop_stop(r->loop);
}

static void mark_a(void *arg) { mark(arg, 'a'); }
static void mark_b(void *arg) { mark(arg, 'b'); }
static void mark_c(void *arg) { mark(arg, 'c'); }

static void timers_fire_in_order_of_time(void **state)
{
    (void)state;
    clock_set_test(1000);
    struct record r = {.loop = new_loop(), .stop_at = 3};
    struct loop_timer *a = loop_timer_new(r.loop, mark_a, &r), *b = loop_timer_new(r.loop, mark_b, &r), *c = loop_timer_new(r.loop, mark_c, &r);
    loop_timer_set(a, 300);
    loop_timer_set(b, 100);
    loop_timer_set(c, 900);
    loop_timer_set(c, 200);     /* moved */
    assert_true(loop_timer_armed(c));
    clock_set_test(1400);
    run(r.loop);
    assert_memory_equal(r.order, "bca", 3);
    assert_false(loop_timer_armed(a));
    loop_timer_free(a);
    loop_timer_free(b);
    loop_timer_free(c);
    loop_timer_free(NULL);
    loop_free(r.loop);
    clock_set_test(-1);
}

static void stopped_timers_do_not_fire(void **state)
{
    (void)state;
    clock_set_test(0);
    struct record r = {.loop = new_loop(), .stop_at = 1};
    struct loop_timer *t[8];
    for (int i = 0; i < 8; i++) {
        t[i] = loop_timer_new(r.loop, i == 5 ? mark_b : mark_a, &r);
        loop_timer_set(t[i], 8 - i);
    }
    for (int i = 7; i >= 0; i--)
        if (i != 5)
            loop_timer_stop(t[i]);
    clock_set_test(100);
    run(r.loop);
    assert_memory_equal(r.order, "b", 1);
    for (int i = 0; i < 8; i++)
        loop_timer_free(t[i]);
    loop_free(r.loop);
    clock_set_test(-1);
}

/* A model of the heap: random sets, stops and a final run must fire in the order a sort gives. */
static void the_heap_sorts(void **state)
{
    (void)state;
    enum { N = 200 };
    static int64_t due[N];
    static struct record r;
    struct loop_timer *t[N];
    clock_set_test(0);
    r.loop = new_loop();
    unsigned seed = 12345;
    for (int i = 0; i < N; i++)
        t[i] = loop_timer_new(r.loop, mark_a, &r);
    for (int round = 0; round < 2000; round++) {
        seed = seed * 1103515245u + 12345u;
        int i = (int)(seed >> 16) % N;
        if ((seed >> 8) % 4 == 0) {
            loop_timer_stop(t[i]);
            due[i] = 0;
        } else {
            due[i] = 1 + (seed >> 20) % 5000;
            loop_timer_set(t[i], due[i]);
        }
    }
    size_t armed = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(loop_timer_armed(t[i]), due[i] != 0);
        armed += due[i] != 0;
    }
    /* At each time exactly those that are due have fired. */
    for (int64_t now = 1; now <= 5000; now += 499) {
        clock_set_test(now);
        struct loop_timer *end = loop_timer_new(r.loop, mark_c, &r);
        loop_timer_set(end, 0);
        r.n = 0;
        size_t expected = 1;
        for (int i = 0; i < N; i++)
            if (due[i] && due[i] <= now) {
                expected++;
                due[i] = 0;
            }
        armed -= expected - 1;
        r.stop_at = 1;
        size_t fired = 0;
        for (;;) {
            r.n = 0;
            run(r.loop);
            fired++;
            if (r.order[0] == 'c')
                break;
        }
        assert_int_equal(fired, expected);
        loop_timer_free(end);
    }
    for (int i = 0; i < N; i++)
        loop_timer_free(t[i]);
    loop_free(r.loop);
    clock_set_test(-1);
}

static void set_again(void *arg)
{
    struct record *r = arg;
    loop_timer_set(r->self, 0);
    mark(r, 's');
}

/* A timer that sets itself to 0 ms must not keep the others, or descriptors, from their turn. */
static void a_busy_timer_starves_nobody(void **state)
{
    (void)state;
    struct record r = {.loop = new_loop(), .stop_at = 6};
    struct loop_timer *other = loop_timer_new(r.loop, mark_a, &r);
    r.self = loop_timer_new(r.loop, set_again, &r);
    loop_timer_set(r.self, 0);
    loop_timer_set(other, 0);
    run(r.loop);
    assert_memory_equal(r.order, "sa", 2);
    loop_timer_free(other);
    loop_timer_free(r.self);
    loop_free(r.loop);
}

static void free_both(void *arg)
{
    struct record *r = arg;
    loop_timer_free(r->other);
    loop_timer_free(r->self);
    mark(r, 'f');
}

static void timers_may_be_freed_in_handlers(void **state)
{
    (void)state;
    struct record r = {.loop = new_loop(), .stop_at = 1};
    r.self = loop_timer_new(r.loop, free_both, &r);
    r.other = loop_timer_new(r.loop, mark_a, &r);
    loop_timer_set(r.self, 0);
    loop_timer_set(r.other, 0);
    run(r.loop);
    assert_memory_equal(r.order, "f", 1);
    loop_free(r.loop);
}

static void real_timers_are_never_early(void **state)
{
    (void)state;
    struct record r = {.loop = new_loop(), .stop_at = 1};
    struct loop_timer *t = loop_timer_new(r.loop, mark_a, &r);
    int64_t start = clock_us();
    loop_timer_set(t, 20);
    run(r.loop);
    assert_true(clock_us() - start >= 20000);
    loop_timer_free(t);
    loop_free(r.loop);
}

static void on_pipe(void *arg, uint32_t events)
{
    struct record *r = arg;
    assert_true(events & EPOLLIN);
    /* Both pipes are readable in this batch; the first handler removes both. */
    loop_fd_del(r->loop, r->fds[0]);
    loop_fd_del(r->loop, r->fds[1]);
    mark(r, 'p');
}

static void descriptors_may_be_removed_in_handlers(void **state)
{
    (void)state;
    struct record r = {.loop = new_loop(), .stop_at = 2};
    struct error err = {0};
    int one[2], two[2];
    assert_int_equal(pipe2(one, O_CLOEXEC), 0);
    assert_int_equal(pipe2(two, O_CLOEXEC), 0);
    r.fds[0] = one[0];
    r.fds[1] = two[0];
    assert_ok(loop_fd_add(r.loop, one[0], EPOLLIN, on_pipe, &r, &err), err);
    assert_ok(loop_fd_add(r.loop, two[0], EPOLLIN, on_pipe, &r, &err), err);
    assert_int_equal(loop_fd_add(r.loop, two[0], EPOLLIN, on_pipe, &r, &err), ST_IO);
    assert_int_equal(write(one[1], "x", 1), 1);
    assert_int_equal(write(two[1], "x", 1), 1);
    struct loop_timer *end = loop_timer_new(r.loop, mark_a, &r);
    loop_timer_set(end, 20);
    run(r.loop);
    assert_memory_equal(r.order, "pa", 2);
    loop_timer_free(end);
    loop_free(r.loop);
    for (int i = 0; i < 2; i++) {
        close(one[i]);
        close(two[i]);
    }
}

static void on_signal(void *arg, int signo)
{
    mark(arg, signo == SIGUSR1 ? '1' : '2');
}

static void signals_arrive_in_the_loop(void **state)
{
    (void)state;
    struct record r = {.loop = new_loop(), .stop_at = 2};
    struct error err = {0};
    const int sigs[] = {SIGUSR1, SIGUSR2, 0};
    assert_ok(loop_signals(r.loop, sigs, on_signal, &r, &err), err);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR2);
    run(r.loop);
    assert_memory_equal(r.order, "12", 2);
    loop_free(r.loop);
}

static void *ring(void *arg)
{
    for (int i = 0; i < 1000; i++)
        loop_wake_ring(arg);
    return NULL;
}

static void wakes_come_from_other_threads(void **state)
{
    (void)state;
    struct record r = {.loop = new_loop(), .stop_at = 1};
    struct error err = {0};
    struct loop_wake *w = NULL;
    assert_ok(loop_wake_new(r.loop, mark_a, &r, &w, &err), err);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ring, w), 0);
    run(r.loop);
    pthread_join(thread, NULL);
    assert_int_equal(r.n, 1);
    loop_wake_ring(w);
    loop_wake_ring(w);
    r.n = 0;
    run(r.loop);     /* any number of rings, one call */
    struct loop_timer *end = loop_timer_new(r.loop, mark_b, &r);
    loop_timer_set(end, 0);
    r.stop_at = 2;
    run(r.loop);
    assert_memory_equal(r.order, "ab", 2);
    loop_timer_free(end);
    loop_wake_free(w);
    loop_wake_free(NULL);
    loop_free(r.loop);
}

static void a_stop_before_the_run_ends_it(void **state)
{
    (void)state;
    struct loop *l = new_loop();
    loop_stop(l);
    run(l);
    loop_free(l);
    loop_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order_of_time),
        cmocka_unit_test(stopped_timers_do_not_fire),
        cmocka_unit_test(the_heap_sorts),
        cmocka_unit_test(a_busy_timer_starves_nobody),
        cmocka_unit_test(timers_may_be_freed_in_handlers),
        cmocka_unit_test(real_timers_are_never_early),
        cmocka_unit_test(descriptors_may_be_removed_in_handlers),
        cmocka_unit_test(signals_arrive_in_the_loop),
        cmocka_unit_test(wakes_come_from_other_threads),
        cmocka_unit_test(a_stop_before_the_run_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
