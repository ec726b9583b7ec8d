/* The guard: finds ipc listeners that have stopped accepting and listens anew. One for the process. */
#include <errno.h>

#include "proto/sp_internal.h"

enum { STUCK_MS = 5000 }; /* a closed connection that is not gone by then never goes */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t stop_asked;
    bool ready;
    unsigned round; /* moves at every start and stop: a thread of another round ends */
    int probe_ms;   /* 0: stopped */
    struct sp_listener *list;
} guard = {.lock = PTHREAD_MUTEX_INITIALIZER};

void sp_guard_add(struct sp_listener *l)
{
    pthread_mutex_lock(&guard.lock);
    l->next = guard.list;
    guard.list = sp_listener_ref(l);
    pthread_mutex_unlock(&guard.lock);
}

void sp_guard_del(struct sp_listener *l)
{
    pthread_mutex_lock(&guard.lock);
    struct sp_listener **at = &guard.list;
    while (*at && *at != l)
        at = &(*at)->next;
    bool found = *at;
    if (found)
        *at = l->next;
    pthread_mutex_unlock(&guard.lock);
    if (found)
        sp_listener_unref(l);
}

/* nth returns a reference to the listener at place I, NULL past the end. */
static struct sp_listener *nth(int i)
{
    pthread_mutex_lock(&guard.lock);
    struct sp_listener *l = guard.list;
    while (l && i-- > 0)
        l = l->next;
    if (l)
        sp_listener_ref(l);
    pthread_mutex_unlock(&guard.lock);
    return l;
}

static atomic_bool stuck;

bool sp_stuck(void) { return atomic_load(&stuck); }

static void mend(struct sp_listener *l)
{
    if (sp_listener_accepts(l)) {
        atomic_store(&stuck, !sp_listener_lets_go(l, STUCK_MS));
        return;
    }
    struct error err;
    if (atomic_load(&l->closed) || sp_listener_relisten(l, &err) != ST_OK)
        return; /* failed (the folder is gone, no descriptors): the next round tries again */
}

/* go_on waits for the next probing; false: ROUND is over. */
static bool go_on(unsigned round)
{
    struct timespec end;
    pthread_mutex_lock(&guard.lock);
    sp_deadline(guard.probe_ms, &end);
    while (guard.round == round && pthread_cond_timedwait(&guard.stop_asked, &guard.lock, &end) != ETIMEDOUT)
        ;
    bool mine = guard.round == round;
    pthread_mutex_unlock(&guard.lock);
    return mine;
}

static void *guard_thread(void *arg)
{
    unsigned round = (unsigned)(uintptr_t)arg;
    while (go_on(round)) {
        struct sp_listener *l;
        for (int i = 0; (l = nth(i)); i++) {
            mend(l);
            sp_listener_unref(l);
        }
    }
    return NULL;
}

enum status sp_guard_start(int probe_ms, struct error *err)
{
    if (probe_ms <= 0 || guard.probe_ms)
        return ST_OK;
    if (!guard.ready)
        sp_cond_init(&guard.stop_asked);
    guard.ready = true;
    pthread_mutex_lock(&guard.lock);
    guard.probe_ms = probe_ms;
    unsigned round = ++guard.round;
    pthread_mutex_unlock(&guard.lock);
    pthread_t thread;
    if (pthread_create(&thread, NULL, guard_thread, (void *)(uintptr_t)round)) {
        guard.probe_ms = 0;
        return FAIL(err, IO, "cannot start the thread that watches the sockets");
    }
    pthread_detach(thread); /* it may be inside a probe when it is stopped: nobody waits for it */
    return ST_OK;
}

void sp_guard_stop(void)
{
    if (!guard.probe_ms)
        return;
    pthread_mutex_lock(&guard.lock);
    guard.probe_ms = 0;
    guard.round++;
    pthread_cond_broadcast(&guard.stop_asked);
    pthread_mutex_unlock(&guard.lock);
}
