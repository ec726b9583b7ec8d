/* PAIR: a worker link with queues of its own, so that neither side ever waits for the other. */
#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "proto/sp_internal.h"

enum { QUEUE_FRAMES = 10000 };
enum { LAST_WORDS_MS = 500 }; /* how long a closed link waits for its peer to go first, see close_when_quiet */
static const size_t QUEUE_BYTES = (size_t)64 << 20;

struct frame {
    struct frame *next;
    nng_msg *m;
};
struct queue {
    struct frame *first, **last;
    size_t frames, bytes;
};

struct sp_pair {
    nng_socket socket;
    struct sp_listener *listener; /* NULL on the dialling side */
    uint64_t refused;             /* second peers */
    sp_wake *wake;
    void *arg;
    nng_aio *recv_aio, *send_aio;
    pthread_mutex_t lock;
    pthread_cond_t moved; /* connected, lost, or a frame has left */
    struct queue in, out;
    bool receiving, sending, connected, lost, closed;
    uint32_t peer; /* pipe id of the one peer */
};

static bool push(struct queue *q, nng_msg *m)
{
    struct frame *f = malloc(sizeof *f);
    if (!f)
        return false;
    *f = (struct frame){NULL, m};
    *q->last = f;
    q->last = &f->next;
    q->frames++;
    q->bytes += nng_msg_len(m);
    return true;
}

/* pop returns the oldest frame of Q, NULL when it is empty. */
static nng_msg *pop(struct queue *q)
{
    struct frame *f = q->first;
    if (!f)
        return NULL;
    nng_msg *m = f->m;
    q->first = f->next;
    if (!q->first)
        q->last = &q->first;
    q->frames--;
    q->bytes -= nng_msg_len(m);
    free(f);
    return m;
}

static void drop_all(struct queue *q)
{
    nng_msg *m;
    while ((m = pop(q)))
        nng_msg_free(m);
}

static bool full(const struct queue *q) { return q->frames >= QUEUE_FRAMES || q->bytes >= QUEUE_BYTES; }

/* ring calls WAKE; with the lock held, so that none comes after sp_pair_close. */
static void ring(struct sp_pair *p)
{
    if (!p->closed)
        p->wake(p->arg);
}

/* start_recv asks for the next frame unless the caller is behind: then the peer's frames wait in its own queue. Lock held. */
static bool start_recv(struct sp_pair *p)
{
    if (p->receiving || (full(&p->in) && !p->closed))
        return false;
    return p->receiving = true;
}

static void received(void *arg)
{
    struct sp_pair *p = arg;
    int rv = nng_aio_result(p->recv_aio);
    pthread_mutex_lock(&p->lock);
    p->receiving = false;
    if (rv == 0) {
        nng_msg *m = nng_aio_get_msg(p->recv_aio);
        /* An empty frame is sp_pair_flush's: it has done its work by arriving. */
        if (p->closed || nng_msg_len(m) == 0 || !push(&p->in, m))
            nng_msg_free(m);
        else
            ring(p);
    }
    bool again = rv != NNG_ECLOSED && start_recv(p);
    pthread_mutex_unlock(&p->lock);
    if (again)
        nng_recv_aio(p->socket, p->recv_aio);
}

/* next_send puts the oldest queued frame on the send aio; false: nothing to send now. Lock held. */
static bool next_send(struct sp_pair *p)
{
    nng_msg *m = p->sending || p->closed ? NULL : pop(&p->out);
    if (!m)
        return false;
    nng_aio_set_msg(p->send_aio, m);
    return p->sending = true;
}

static void sent(void *arg)
{
    struct sp_pair *p = arg;
    int rv = nng_aio_result(p->send_aio);
    pthread_mutex_lock(&p->lock);
    if (rv)
        nng_msg_free(nng_aio_get_msg(p->send_aio));
    p->sending = false;
    bool again = rv != NNG_ECLOSED && next_send(p);
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->lock);
    if (again)
        nng_send_aio(p->socket, p->send_aio);
}

static void peer_changed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct sp_pair *p = arg;
    uint32_t id = (uint32_t)nng_pipe_id(pipe);
    bool refuse = false;
    pthread_mutex_lock(&p->lock);
    if (event == NNG_PIPE_EV_ADD_PRE) {
        refuse = p->connected || p->lost; /* one launch, one peer */
        p->refused += refuse;
    } else if (event == NNG_PIPE_EV_ADD_POST) {
        p->connected = true;
        p->peer = id;
    } else if (p->connected && id == p->peer) {
        p->connected = false;
        p->lost = true;
        drop_all(&p->out);
        ring(p);
    }
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->lock);
    if (refuse)
        nng_pipe_close(pipe);
}

static void pair_free(void *arg)
{
    struct sp_pair *p = arg;
    nng_aio_free(p->recv_aio);
    nng_aio_free(p->send_aio);
    drop_all(&p->in);
    drop_all(&p->out);
    pthread_cond_destroy(&p->moved);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int set_up(struct sp_pair *p, size_t max_bytes)
{
    static const nng_pipe_ev events[] = {NNG_PIPE_EV_ADD_PRE, NNG_PIPE_EV_ADD_POST, NNG_PIPE_EV_REM_POST};
    int rv = nng_socket_set_size(p->socket, NNG_OPT_RECVMAXSZ, max_bytes);
    for (size_t i = 0; !rv && i < sizeof events / sizeof *events; i++)
        rv = nng_pipe_notify(p->socket, events[i], peer_changed, p);
    if (!rv)
        rv = nng_aio_alloc(&p->recv_aio, received, p);
    if (!rv)
        rv = nng_aio_alloc(&p->send_aio, sent, p);
    return rv;
}

/* pair_new opens the socket with its aios and notices; nothing is connected yet. */
static enum status pair_new(const char *url, size_t max_bytes, sp_wake *wake, void *arg, struct sp_pair **ret, struct error *err)
{
    struct sp_pair *p = calloc(1, sizeof *p);
    if (!p)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the link %s", url);
    p->wake = wake;
    p->arg = arg;
    p->in.last = &p->in.first;
    p->out.last = &p->out.first;
    pthread_mutex_init(&p->lock, NULL);
    sp_cond_init(&p->moved);
    int rv = nng_pair0_open(&p->socket);
    if (rv) {
        pair_free(p);
        return SP_FAIL(err, rv, "cannot open a socket for", url);
    }
    rv = set_up(p, max_bytes);
    if (rv) {
        sp_close_detached(p->socket, pair_free, p);
        return SP_FAIL(err, rv, "cannot set up a socket for", url);
    }
    *ret = p;
    return ST_OK;
}

static void begin_receiving(struct sp_pair *p)
{
    pthread_mutex_lock(&p->lock);
    bool start = start_recv(p);
    pthread_mutex_unlock(&p->lock);
    if (start)
        nng_recv_aio(p->socket, p->recv_aio);
}

enum status sp_pair_listen(const char *url, size_t max_bytes, sp_wake *wake, void *arg, struct sp_pair **ret, struct error *err)
{
    struct sp_pair *p;
    TRY(pair_new(url, max_bytes, wake, arg, &p, err));
    enum status s = sp_listener_open(p->socket, url, SP_PEER_OF_PAIR, 0, false, &p->listener, err);
    if (s != ST_OK) {
        pair_free(p);
        return s;
    }
    begin_receiving(p);
    *ret = p;
    return ST_OK;
}

enum status sp_pair_dial(const char *url, size_t max_bytes, int limit_ms, sp_wake *wake, void *arg, struct sp_pair **ret, struct error *err)
{
    const char *path;
    struct sp_pair *p;
    TRY(sp_ipc_path(url, &path, err));
    TRY(pair_new(url, max_bytes, wake, arg, &p, err));
    struct timespec end;
    sp_deadline(limit_ms, &end);
    int rv = nng_dial(p->socket, url, NULL, NNG_FLAG_NONBLOCK);
    pthread_mutex_lock(&p->lock);
    while (!rv && !p->connected && !p->lost && pthread_cond_timedwait(&p->moved, &p->lock, &end) != ETIMEDOUT)
        ;
    bool connected = p->connected || p->lost;
    pthread_mutex_unlock(&p->lock);
    if (rv || !connected) {
        sp_pair_close(p);
        return rv ? SP_FAIL(err, rv, "cannot connect to", url) : FAIL(err, UNREACHABLE, "nobody answers at %s within %d ms", url, limit_ms);
    }
    begin_receiving(p);
    *ret = p;
    return ST_OK;
}

bool sp_pair_take(struct sp_pair *p, void **ret_bytes, size_t *ret_n)
{
    pthread_mutex_lock(&p->lock);
    nng_msg *m = pop(&p->in);
    bool start = m && start_recv(p);
    pthread_mutex_unlock(&p->lock);
    if (start)
        nng_recv_aio(p->socket, p->recv_aio);
    if (!m)
        return false;
    *ret_bytes = sp_bytes(m, ret_n);
    return *ret_bytes != NULL;
}

static enum status enqueue(struct sp_pair *p, const void *bytes, size_t n, struct error *err)
{
    nng_msg *m;
    if (nng_msg_alloc(&m, n))
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a link frame of %zu bytes", n);
    if (n)
        memcpy(nng_msg_body(m), bytes, n);
    pthread_mutex_lock(&p->lock);
    enum status s = ST_OK;
    if (p->lost)
        s = FAIL(err, UNREACHABLE, "the peer of this link has gone");
    else if (full(&p->out))
        s = FAIL(err, BUSY, "%zu frames of %zu bytes wait on this link, the limit is %d frames or %zu bytes", p->out.frames, p->out.bytes,
                 QUEUE_FRAMES, QUEUE_BYTES);
    else if (!push(&p->out, m))
        s = FAIL(err, OUT_OF_MEMORY, "out of memory for a link frame of %zu bytes", n);
    bool start = s == ST_OK && next_send(p);
    pthread_mutex_unlock(&p->lock);
    if (s != ST_OK)
        nng_msg_free(m);
    if (start)
        nng_send_aio(p->socket, p->send_aio);
    return s;
}

enum status sp_pair_send(struct sp_pair *p, const void *bytes, size_t n, struct error *err)
{
    if (!n)
        return FAIL(err, PROTOCOL, "an empty link frame has no meaning");
    return enqueue(p, bytes, n, err);
}

bool sp_pair_flush(struct sp_pair *p, int limit_ms)
{
    /* nng reports a frame as sent once its transport has taken it; it takes the next one only when that is written. So an empty frame
     * behind the others, once sent, says that all of them are with the kernel and survive an _exit. */
    if (enqueue(p, NULL, 0, NULL) != ST_OK)
        return false;
    struct timespec end;
    sp_deadline(limit_ms, &end);
    pthread_mutex_lock(&p->lock);
    while ((p->out.frames || p->sending) && !p->lost && pthread_cond_timedwait(&p->moved, &p->lock, &end) != ETIMEDOUT)
        ;
    bool left = !p->out.frames && !p->sending && !p->lost;
    pthread_mutex_unlock(&p->lock);
    return left;
}

bool sp_pair_lost(struct sp_pair *p)
{
    pthread_mutex_lock(&p->lock);
    bool lost = p->lost;
    pthread_mutex_unlock(&p->lock);
    return lost;
}

uint64_t sp_pair_refused(struct sp_pair *p)
{
    pthread_mutex_lock(&p->lock);
    uint64_t n = p->refused;
    pthread_mutex_unlock(&p->lock);
    return n;
}

/* close_when_quiet lets the peer go first. nng 1.5.2 closes a connection badly while a part of a frame arrives: the thread that ends
 * connections then waits for ever, for every socket of the process. A worker that was killed has left parts of frames behind; they are read
 * to the end here (see received), and the end closes the connection from the reading side, which is safe. */
static void *close_when_quiet(void *arg)
{
    struct sp_pair *p = arg;
    struct timespec end;
    sp_deadline(LAST_WORDS_MS, &end);
    pthread_mutex_lock(&p->lock);
    int rv = 0;
    while (p->connected && !rv)
        rv = pthread_cond_timedwait(&p->moved, &p->lock, &end);
    struct sp_listener *l = p->listener;
    nng_socket socket = p->socket;
    pthread_mutex_unlock(&p->lock);
    if (l)
        sp_listener_close(l, pair_free, p);
    else
        sp_close_detached(socket, pair_free, p);
    return NULL;
}

void sp_pair_close(struct sp_pair *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->closed = true; /* WAKE is not called after this */
    drop_all(&p->out);
    drop_all(&p->in);
    bool start = start_recv(p);
    pthread_mutex_unlock(&p->lock);
    if (start)
        nng_recv_aio(p->socket, p->recv_aio);
    sp_detach(close_when_quiet, p);
}
