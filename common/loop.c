#include "common/loop.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"

enum { EVENTS_PER_WAIT = 64 };

/* A watch lives until the batch of events that may still name it has been dispatched: loop_fd_del only marks it. */
struct watch {
    struct watch *next;
    int fd;
    bool dead;
    loop_fd_fn *fn;
    void *arg;
};

struct signal_source {
    struct signal_source *next;
    int fd;
    loop_signal_fn *fn;
    void *arg;
};

struct loop_timer {
    struct loop *loop;
    loop_fn *fn;
    void *arg;
    int64_t due_us;
    uint64_t order;     /* of setting: breaks ties, and keeps a timer that is set in its own handler for the next round */
    size_t place;       /* in the heap, NOWHERE when not armed */
};

struct loop_wake {
    struct loop *loop;
    int fd;
    loop_fn *fn;
    void *arg;
};

static const size_t NOWHERE = SIZE_MAX;

struct loop {
    int epoll_fd;
    bool stop;
    bool have_dead;
    struct watch *watches;
    struct signal_source *signals;
    struct loop_timer **heap;     /* binary heap, earliest first */
    size_t n_armed, n_timers, heap_cap;
    uint64_t order;
};

/* ---- timers ---- */

static bool earlier(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void heap_put(struct loop *l, size_t place, struct loop_timer *t)
{
    l->heap[place] = t;
    t->place = place;
}

static void sift(struct loop *l, size_t place, struct loop_timer *t)
{
    while (place > 0 && earlier(t, l->heap[(place - 1) / 2])) {
        heap_put(l, place, l->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    for (size_t child; (child = 2 * place + 1) < l->n_armed; place = child) {
        if (child + 1 < l->n_armed && earlier(l->heap[child + 1], l->heap[child]))
            child++;
        if (!earlier(l->heap[child], t))
            break;
        heap_put(l, place, l->heap[child]);
    }
    heap_put(l, place, t);
}

struct loop_timer *loop_timer_new(struct loop *l, loop_fn *fn, void *arg)
{
    /* The heap is made large enough here, so that setting a timer cannot fail. */
    if (l->n_timers == l->heap_cap) {
        size_t cap = l->heap_cap ? 2 * l->heap_cap : 16;
        struct loop_timer **heap = realloc(l->heap, cap * sizeof *heap);
        if (!heap)
            return NULL;
        l->heap = heap;
        l->heap_cap = cap;
    }
    struct loop_timer *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    *t = (struct loop_timer){.loop = l, .fn = fn, .arg = arg, .place = NOWHERE};
    l->n_timers++;
    return t;
}

void loop_timer_stop(struct loop_timer *t)
{
    if (t->place == NOWHERE)
        return;
    struct loop *l = t->loop;
    size_t place = t->place;
    struct loop_timer *last = l->heap[--l->n_armed];
    if (last != t)
        sift(l, place, last);
    t->place = NOWHERE;
}

void loop_timer_set(struct loop_timer *t, int64_t delay_ms)
{
    loop_timer_stop(t);
    struct loop *l = t->loop;
    int64_t longest_ms = (int64_t)1 << 50;
    int64_t delay = delay_ms < 0 ? 0 : delay_ms > longest_ms ? longest_ms : delay_ms;
    t->due_us = clock_us() + delay * 1000;
    t->order = ++l->order;
    l->n_armed++;
    sift(l, l->n_armed - 1, t);
}

bool loop_timer_armed(const struct loop_timer *t)
{
    return t->place != NOWHERE;
}

void loop_timer_free(struct loop_timer *t)
{
    if (!t)
        return;
    loop_timer_stop(t);
    t->loop->n_timers--;
    free(t);
}

static void run_timers(struct loop *l)
{
    int64_t now_us = clock_us();
    uint64_t newest = l->order;
    while (l->n_armed && !l->stop) {
        struct loop_timer *t = l->heap[0];
        if (t->due_us > now_us || t->order > newest)
            break;
        loop_timer_stop(t);
        t->fn(t->arg);     /* may free T */
    }
}

/* wait_ms returns how long epoll may sleep, rounded up so that no timer fires early; -1: for ever. */
static int wait_ms(const struct loop *l)
{
    if (!l->n_armed)
        return -1;
    int64_t left_us = l->heap[0]->due_us - clock_us();
    if (left_us <= 0)
        return 0;
    int64_t ms = (left_us + 999) / 1000;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* ---- descriptors ---- */

enum status loop_fd_add(struct loop *l, int fd, uint32_t events, loop_fd_fn *fn, void *arg, struct error *err)
{
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        return FAIL(err, OUT_OF_MEMORY, "out of memory watching descriptor %d", fd);
    *w = (struct watch){.next = l->watches, .fd = fd, .fn = fn, .arg = arg};
    struct epoll_event e = {.events = events, .data.ptr = w};
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0) {
        free(w);
        return FAIL_ERRNO(err, "cannot watch descriptor %d", fd);
    }
    l->watches = w;
    return ST_OK;
}

void loop_fd_del(struct loop *l, int fd)
{
    for (struct watch *w = l->watches; w; w = w->next)
        if (w->fd == fd && !w->dead) {
            epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
            w->dead = true;
            l->have_dead = true;
            return;
        }
}

static void bury_dead(struct loop *l)
{
    if (!l->have_dead)
        return;
    for (struct watch **at = &l->watches; *at;) {
        struct watch *w = *at;
        if (w->dead) {
            *at = w->next;
            free(w);
        } else {
            at = &w->next;
        }
    }
    l->have_dead = false;
}

/* ---- signals ---- */

static void on_signal_fd(void *arg, uint32_t events)
{
    (void)events;
    struct signal_source *s = arg;
    struct signalfd_siginfo info;
    while (read(s->fd, &info, sizeof info) == (ssize_t)sizeof info)
        s->fn(s->arg, (int)info.ssi_signo);
}

enum status loop_signals(struct loop *l, const int *sigs, loop_signal_fn *fn, void *arg, struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    for (; *sigs; sigs++)
        sigaddset(&set, *sigs);
    if ((errno = pthread_sigmask(SIG_BLOCK, &set, NULL)) != 0)
        return FAIL_ERRNO(err, "cannot block signals");
    struct signal_source *s = calloc(1, sizeof *s);
    if (!s)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a signal source");
    *s = (struct signal_source){.next = l->signals, .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .fn = fn, .arg = arg};
    enum status status = s->fd < 0 ? FAIL_ERRNO(err, "cannot make a signal descriptor") : loop_fd_add(l, s->fd, EPOLLIN, on_signal_fd, s, err);
    if (status != ST_OK) {
        if (s->fd >= 0)
            close(s->fd);
        free(s);
        return status;
    }
    l->signals = s;
    return ST_OK;
}

/* ---- wakes ---- */

static void on_wake_fd(void *arg, uint32_t events)
{
    (void)events;
    struct loop_wake *w = arg;
    uint64_t rings;
    if (read(w->fd, &rings, sizeof rings) == (ssize_t)sizeof rings)
        w->fn(w->arg);     /* may free W */
}

enum status loop_wake_new(struct loop *l, loop_fn *fn, void *arg, struct loop_wake **ret, struct error *err)
{
    struct loop_wake *w = calloc(1, sizeof *w);
    if (!w)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a wake");
    *w = (struct loop_wake){.loop = l, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = fn, .arg = arg};
    enum status s = w->fd < 0 ? FAIL_ERRNO(err, "cannot make an event descriptor") : loop_fd_add(l, w->fd, EPOLLIN, on_wake_fd, w, err);
    if (s != ST_OK) {
        if (w->fd >= 0)
            close(w->fd);
        free(w);
        return s;
    }
    *ret = w;
    return ST_OK;
}

void loop_wake_ring(struct loop_wake *w)
{
    int saved_errno = errno;
    uint64_t one = 1;
    /* A full counter (EAGAIN) already wakes the loop. */
    ssize_t n = write(w->fd, &one, sizeof one);
    (void)n;
    errno = saved_errno;
}

void loop_wake_free(struct loop_wake *w)
{
    if (!w)
        return;
    loop_fd_del(w->loop, w->fd);
    close(w->fd);
    free(w);
}

/* ---- the loop ---- */

enum status loop_new(struct loop **ret, struct error *err)
{
    struct loop *l = calloc(1, sizeof *l);
    if (!l)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for an event loop");
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0) {
        free(l);
        return FAIL_ERRNO(err, "cannot make an epoll descriptor");
    }
    *ret = l;
    return ST_OK;
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    for (struct watch *w = l->watches, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    for (struct signal_source *s = l->signals, *next; s; s = next) {
        next = s->next;
        close(s->fd);
        free(s);
    }
    close(l->epoll_fd);
    free(l->heap);
    free(l);
}

void loop_stop(struct loop *l)
{
    l->stop = true;
}

enum status loop_run(struct loop *l, struct error *err)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    while (!l->stop) {
        int n = epoll_wait(l->epoll_fd, events, EVENTS_PER_WAIT, wait_ms(l));
        if (n < 0 && errno != EINTR)
            return FAIL_ERRNO(err, "cannot wait for events");
        for (int i = 0; i < n && !l->stop; i++) {
            struct watch *w = events[i].data.ptr;
            if (!w->dead)
                w->fn(w->arg, events[i].events);
        }
        run_timers(l);
        bury_dead(l);
    }
    bury_dead(l);
    l->stop = false;
    return ST_OK;
}
