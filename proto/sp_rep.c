/* REP: every context receives, waits for its reply, sends it, and receives again. */
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <stdlib.h>
#include <string.h>

#include "proto/sp_internal.h"

enum { REPLY_LIMIT_MS = 5000 }; /* a peer that does not read its reply for so long loses its connection */
enum { SLACK_BYTES = 1 << 20 }; /* frames past the limit by less are seen, and so counted; nng closes on longer ones by itself */

enum turn { RECEIVING, WITH_CALLER, SENDING, STOPPED };

struct slot {
    struct sp_rep *rep;
    nng_ctx ctx;
    nng_aio *aio;
    nng_pipe pipe; /* the asker's */
    enum turn turn;
    uint32_t generation; /* of the request: a token is used once */
    struct sp_request request;
    struct slot *next; /* arrived, not taken */
};

struct sp_rep {
    nng_socket socket;
    struct sp_listener *listener;
    sp_wake *wake;
    void *arg;
    size_t max_bytes;
    pthread_mutex_t lock;
    bool closed;
    struct slot *first, **last;
    int n_slots;
    struct slot slots[];
};

/* receive asks for the next request; TURN is RECEIVING already. */
static void receive(struct slot *s)
{
    nng_aio_set_timeout(s->aio, NNG_DURATION_INFINITE);
    nng_ctx_recv(s->ctx, s->aio);
}

/* arrived queues the request in S, or drops it and its connection when it is too long; called with the lock held. False: receive again. */
static bool arrived(struct slot *s, nng_msg *m)
{
    struct sp_rep *r = s->rep;
    s->pipe = nng_msg_get_pipe(m);
    if (nng_msg_len(m) > r->max_bytes) {
        atomic_fetch_add(&r->listener->oversize, 1);
        nng_msg_free(m);
        nng_pipe_close(s->pipe);
        return false;
    }
    s->request.bytes = sp_bytes(m, &s->request.n);
    if (!s->request.bytes)
        return false;
    s->generation++;
    s->request.token = (uint64_t)s->generation << 32 | (uint64_t)(s - r->slots);
    s->turn = WITH_CALLER;
    s->next = NULL;
    *r->last = s;
    r->last = &s->next;
    r->wake(r->arg);
    return true;
}

/* turned runs on nng's threads at the end of each receive and send. */
static void turned(void *arg)
{
    struct slot *s = arg;
    struct sp_rep *r = s->rep;
    int rv = nng_aio_result(s->aio);
    pthread_mutex_lock(&r->lock);
    bool again = !r->closed && rv != NNG_ECLOSED;
    if (s->turn == RECEIVING && rv == 0) {
        nng_msg *m = nng_aio_get_msg(s->aio);
        if (r->closed)
            nng_msg_free(m);
        else
            again = !arrived(s, m);
    } else if (s->turn == SENDING && rv != 0) {
        nng_msg_free(nng_aio_get_msg(s->aio));
        nng_pipe_close(s->pipe);
    }
    if (again)
        s->turn = RECEIVING;
    else if (s->turn != WITH_CALLER)
        s->turn = STOPPED;
    pthread_mutex_unlock(&r->lock);
    if (again)
        receive(s);
}

static void rep_free(void *arg)
{
    struct sp_rep *r = arg;
    for (int i = 0; i < r->n_slots; i++) {
        nng_aio_free(r->slots[i].aio);
        if (r->slots[i].turn == WITH_CALLER)
            free(r->slots[i].request.bytes);
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static int open_slots(struct sp_rep *r, int contexts)
{
    for (int i = 0; i < contexts; i++) {
        struct slot *s = &r->slots[i];
        s->rep = r;
        int rv = nng_ctx_open(&s->ctx, r->socket);
        if (!rv)
            rv = nng_aio_alloc(&s->aio, turned, s);
        if (rv)
            return rv;
        r->n_slots++;
    }
    return 0;
}

enum status sp_rep_listen(const char *url, int contexts, size_t max_bytes, int max_connections, sp_wake *wake, void *arg,
                          struct sp_rep **ret, struct error *err)
{
    struct sp_rep *r = calloc(1, sizeof *r + (size_t)contexts * sizeof r->slots[0]);
    if (!r)
        return FAIL(err, OUT_OF_MEMORY, "out of memory listening on %s", url);
    r->wake = wake;
    r->arg = arg;
    r->max_bytes = max_bytes;
    r->last = &r->first;
    pthread_mutex_init(&r->lock, NULL);
    int rv = nng_rep0_open(&r->socket);
    if (rv) {
        rep_free(r);
        return SP_FAIL(err, rv, "cannot open a socket for", url);
    }
    rv = nng_socket_set_size(r->socket, NNG_OPT_RECVMAXSZ, max_bytes + SLACK_BYTES);
    if (!rv)
        rv = open_slots(r, contexts);
    if (rv) {
        sp_close_detached(r->socket, rep_free, r);
        return SP_FAIL(err, rv, "cannot set up a socket for", url);
    }
    enum status s = sp_listener_open(r->socket, url, SP_PEER_OF_REP, max_connections, true, &r->listener, err);
    if (s != ST_OK) {
        rep_free(r); /* no receive has begun */
        return s;
    }
    for (int i = 0; i < contexts; i++)
        receive(&r->slots[i]);
    *ret = r;
    return ST_OK;
}

bool sp_rep_take(struct sp_rep *r, struct sp_request *ret)
{
    pthread_mutex_lock(&r->lock);
    struct slot *s = r->first;
    if (s) {
        r->first = s->next;
        if (!r->first)
            r->last = &r->first;
        *ret = s->request;
        s->request.bytes = NULL;
    }
    pthread_mutex_unlock(&r->lock);
    return s != NULL;
}

void sp_rep_reply(struct sp_rep *r, uint64_t token, const void *bytes, size_t n)
{
    struct slot *s = &r->slots[(uint32_t)token];
    pthread_mutex_lock(&r->lock);
    nng_msg *m = NULL;
    bool mine = s->turn == WITH_CALLER && s->generation == token >> 32 && !r->closed;
    if (mine)
        s->turn = nng_msg_alloc(&m, n) == 0 ? SENDING : RECEIVING;
    pthread_mutex_unlock(&r->lock);
    if (!mine)
        return;
    if (!m) {
        nng_pipe_close(s->pipe); /* no memory for a reply: the asker sees the connection end */
        receive(s);
        return;
    }
    if (n)
        memcpy(nng_msg_body(m), bytes, n);
    nng_aio_set_msg(s->aio, m);
    nng_aio_set_timeout(s->aio, REPLY_LIMIT_MS);
    nng_ctx_send(s->ctx, s->aio);
}

void sp_rep_counts(struct sp_rep *r, struct sp_counts *ret) { sp_listener_counts(r->listener, ret); }

void sp_rep_close(struct sp_rep *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->closed = true; /* WAKE is not called after this */
    pthread_mutex_unlock(&r->lock);
    sp_listener_close(r->listener, rep_free, r);
}
