#include "worker/backend/cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SPIN_NS = 4000 }; /* a helper that is asked again within this time answers without a system call */

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    atomic_uint round; /* changes with each loop and at the end: what idle helpers watch */
    atomic_int next;   /* first task that nobody has taken */
    atomic_int active; /* helpers inside the loop */
    bool open, stop;   /* under the lock: helpers may join; helpers shall end */
    int tasks;
    void (*run)(void *arg, int task);
    void *arg;
    int n; /* threads, the caller's included */
    int started;
    pthread_t helpers[];
};

static long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#endif
}

static void take_tasks(struct pool *p)
{
    for (;;) {
        int task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->tasks)
            return;
        p->run(p->arg, task);
    }
}

/* wait_round returns once the round differs from SEEN: a short spin, then sleep. Returns with the lock held. */
static void wait_round(struct pool *p, unsigned seen)
{
    for (long end = now_ns() + SPIN_NS; atomic_load_explicit(&p->round, memory_order_acquire) == seen && now_ns() < end;)
        relax();
    pthread_mutex_lock(&p->lock);
    while (atomic_load_explicit(&p->round, memory_order_relaxed) == seen)
        pthread_cond_wait(&p->work, &p->lock);
}

static void *helper(void *arg)
{
    struct pool *p = arg;
    for (unsigned seen = 0;;) {
        wait_round(p, seen);
        seen = atomic_load_explicit(&p->round, memory_order_relaxed);
        bool stop = p->stop, join = p->open && !stop;
        if (join)
            atomic_fetch_add(&p->active, 1);
        pthread_mutex_unlock(&p->lock);
        if (stop)
            return NULL;
        if (!join)
            continue;
        take_tasks(p);
        if (atomic_fetch_sub(&p->active, 1) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

void pool_run(struct pool *p, int tasks, void (*run)(void *arg, int task), void *arg)
{
    if (p->started == 0 || tasks <= 1) {
        for (int i = 0; i < tasks; i++)
            run(arg, i);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->tasks = tasks;
    p->run = run;
    p->arg = arg;
    p->open = true;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->round, 1, memory_order_release);
    if (tasks > p->started)
        pthread_cond_broadcast(&p->work);
    else
        for (int i = 1; i < tasks; i++)
            pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
    take_tasks(p);
    pthread_mutex_lock(&p->lock);
    p->open = false; /* who has not come by now finds nothing left to do */
    pthread_mutex_unlock(&p->lock);
    for (long end = now_ns() + SPIN_NS; atomic_load(&p->active) > 0 && now_ns() < end;)
        relax();
    if (atomic_load(&p->active) > 0) {
        pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->active) > 0)
            pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}

int pool_threads(const struct pool *p) { return p->n; }

enum status pool_new(int threads, struct pool **ret, struct error *err)
{
    struct pool *p = calloc(1, sizeof *p + (size_t)threads * sizeof p->helpers[0]);
    if (!p)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a pool of %d threads", threads);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->n = threads;
    for (; p->started < threads - 1; p->started++) {
        int rc = pthread_create(&p->helpers[p->started], NULL, helper, p);
        if (rc != 0) {
            pool_free(p);
            return FAIL(err, IO, "thread %d of %d: %s", p->started + 2, threads, strerror(rc));
        }
    }
    *ret = p;
    return ST_OK;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    atomic_fetch_add_explicit(&p->round, 1, memory_order_release);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->helpers[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
