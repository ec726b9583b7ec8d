/* REQ and SUB: the client's side. Every wait has a limit, and a lost node is told apart from a silent one. */
#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "proto/sp_internal.h"

enum { SUB_QUEUE_FRAMES = 8192 };

/* What both have: a dialled socket that knows whether it is connected. */
struct dialled {
    nng_socket socket;
    nng_aio *aio;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int pipes;
    unsigned losses; /* connections that went */
    char url[160];
};

static void pipe_changed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct dialled *d = arg;
    (void)pipe;
    pthread_mutex_lock(&d->lock);
    bool lost = event == NNG_PIPE_EV_REM_POST;
    d->pipes += lost ? -1 : 1;
    d->losses += lost;
    pthread_cond_broadcast(&d->moved);
    pthread_mutex_unlock(&d->lock);
    if (lost)
        nng_aio_cancel(d->aio); /* whoever waits hears of it now */
}

static void dialled_init(struct dialled *d, const char *url)
{
    snprintf(d->url, sizeof d->url, "%s", url);
    pthread_mutex_init(&d->lock, NULL);
    sp_cond_init(&d->moved);
}

static void dialled_fini(void *arg)
{
    struct dialled *d = arg;
    nng_aio_free(d->aio);
    pthread_cond_destroy(&d->moved);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static bool wait_connected(struct dialled *d, int limit_ms)
{
    struct timespec end;
    sp_deadline(limit_ms, &end);
    pthread_mutex_lock(&d->lock);
    int rv = 0;
    while (!d->pipes && !rv)
        rv = pthread_cond_timedwait(&d->moved, &d->lock, &end);
    bool connected = d->pipes > 0;
    pthread_mutex_unlock(&d->lock);
    return connected;
}

/* connect_socket dials D's open socket and waits for the connection; on failure the socket is closed and D freed. */
static enum status connect_socket(struct dialled *d, int limit_ms, struct error *err)
{
    int64_t end = clock_real_ms() + limit_ms;
    int rv = nng_aio_alloc(&d->aio, NULL, NULL);
    if (!rv)
        rv = nng_socket_set_ms(d->socket, NNG_OPT_RECONNMINT, 20);
    if (!rv)
        rv = nng_socket_set_ms(d->socket, NNG_OPT_RECONNMAXT, 500);
    if (!rv)
        rv = nng_pipe_notify(d->socket, NNG_PIPE_EV_ADD_POST, pipe_changed, d);
    if (!rv)
        rv = nng_pipe_notify(d->socket, NNG_PIPE_EV_REM_POST, pipe_changed, d);
    enum status s = rv ? SP_FAIL(err, rv, "cannot set up a socket for", d->url) : sp_reachable(d->url, err);
    if (s == ST_OK && (rv = nng_dial(d->socket, d->url, NULL, NNG_FLAG_NONBLOCK)))
        s = SP_FAIL(err, rv, "cannot connect to", d->url);
    if (s == ST_OK) {
        int64_t left = end - clock_real_ms();
        if (!wait_connected(d, left > 0 ? (int)left : 0))
            s = FAIL(err, TIMEOUT, "the node at %s does not answer within %d ms", d->url, limit_ms);
    }
    if (s != ST_OK)
        sp_close_detached(d->socket, dialled_fini, d);
    return s;
}

/* ---- REQ */

struct sp_req {
    struct dialled d;
};

enum status sp_req_dial(const char *url, int limit_ms, struct sp_req **ret, struct error *err)
{
    struct sp_req *r = calloc(1, sizeof *r);
    if (!r)
        return FAIL(err, OUT_OF_MEMORY, "out of memory connecting to %s", url);
    dialled_init(&r->d, url);
    int rv = nng_req0_open(&r->d.socket);
    if (rv) {
        dialled_fini(r);
        return SP_FAIL(err, rv, "cannot open a socket for", url);
    }
    /* An answer that does not come is the caller's to judge: a request sent twice may be done twice. */
    rv = nng_socket_set_ms(r->d.socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    if (!rv)
        rv = nng_socket_set_size(r->d.socket, NNG_OPT_RECVMAXSZ, LIMIT_REPLY_BYTES);
    if (rv) {
        sp_close_detached(r->d.socket, dialled_fini, r);
        return SP_FAIL(err, rv, "cannot set up a socket for", url);
    }
    TRY(connect_socket(&r->d, limit_ms, err));
    *ret = r;
    return ST_OK;
}

/* run_aio waits for the operation just begun on D's aio. LOSSES: as counted before it. */
static enum status run_aio(struct dialled *d, unsigned losses, int limit_ms, struct error *err)
{
    nng_aio_wait(d->aio);
    int rv = nng_aio_result(d->aio);
    if (!rv)
        return ST_OK;
    pthread_mutex_lock(&d->lock);
    bool gone = !d->pipes || d->losses != losses;
    pthread_mutex_unlock(&d->lock);
    if (gone)
        return FAIL(err, UNREACHABLE, "the node at %s has gone", d->url);
    if (rv == NNG_ETIMEDOUT)
        return FAIL(err, TIMEOUT, "the node at %s did not answer within %d ms", d->url, limit_ms);
    return SP_FAIL(err, rv, "talking to", d->url);
}

enum status sp_req_call(struct sp_req *r, const void *bytes, size_t n, int limit_ms, void **ret_bytes, size_t *ret_n, struct error *err)
{
    struct dialled *d = &r->d;
    if (n > LIMIT_REQUEST_BYTES)
        return FAIL(err, TOO_LARGE, "a request of %zu bytes exceeds the limit of %d bytes (16 MiB)", n, LIMIT_REQUEST_BYTES);
    int64_t end = clock_real_ms() + limit_ms;
    if (!wait_connected(d, limit_ms))
        return FAIL(err, UNREACHABLE, "the node at %s has gone", d->url);
    nng_msg *m;
    if (nng_msg_alloc(&m, n))
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a request of %zu bytes", n);
    if (n)
        memcpy(nng_msg_body(m), bytes, n);
    pthread_mutex_lock(&d->lock);
    unsigned losses = d->losses;
    pthread_mutex_unlock(&d->lock);
    int64_t left = end - clock_real_ms();
    nng_aio_set_timeout(d->aio, left > 1 ? (nng_duration)left : 1);
    nng_aio_set_msg(d->aio, m);
    nng_send_aio(d->socket, d->aio);
    enum status s = run_aio(d, losses, limit_ms, err);
    if (s != ST_OK) {
        nng_msg_free(m);
        return s;
    }
    left = end - clock_real_ms();
    nng_aio_set_timeout(d->aio, left > 1 ? (nng_duration)left : 1);
    nng_recv_aio(d->socket, d->aio);
    TRY(run_aio(d, losses, limit_ms, err));
    *ret_bytes = sp_bytes(nng_aio_get_msg(d->aio), ret_n);
    return *ret_bytes ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory for a reply");
}

void sp_req_close(struct sp_req *r)
{
    if (r)
        sp_close_detached(r->d.socket, dialled_fini, r);
}

/* ---- SUB */

struct sp_sub {
    struct dialled d;
    unsigned losses_told;
};

enum status sp_sub_dial(const char *url, const char *const *prefixes, size_t n_prefixes, int limit_ms, struct sp_sub **ret,
                        struct error *err)
{
    struct sp_sub *s = calloc(1, sizeof *s);
    if (!s)
        return FAIL(err, OUT_OF_MEMORY, "out of memory connecting to %s", url);
    dialled_init(&s->d, url);
    int rv = nng_sub0_open(&s->d.socket);
    if (rv) {
        dialled_fini(s);
        return SP_FAIL(err, rv, "cannot open a socket for", url);
    }
    rv = nng_socket_set_size(s->d.socket, NNG_OPT_RECVMAXSZ, LIMIT_LINK_BYTES);
    if (!rv)
        rv = nng_socket_set_int(s->d.socket, NNG_OPT_RECVBUF, SUB_QUEUE_FRAMES);
    for (size_t i = 0; !rv && i < n_prefixes; i++)
        rv = nng_socket_set(s->d.socket, NNG_OPT_SUB_SUBSCRIBE, prefixes[i], strlen(prefixes[i]));
    if (rv) {
        sp_close_detached(s->d.socket, dialled_fini, s);
        return SP_FAIL(err, rv, "cannot set up a socket for", url);
    }
    TRY(connect_socket(&s->d, limit_ms, err));
    *ret = s;
    return ST_OK;
}

enum status sp_sub_also(struct sp_sub *s, const char *url, struct error *err)
{
    const char *path;
    TRY(sp_ipc_path(url, &path, err));
    int rv = nng_dial(s->d.socket, url, NULL, NNG_FLAG_NONBLOCK);
    return rv ? SP_FAIL(err, rv, "cannot connect to", url) : ST_OK;
}

/* told_loss says once for each connection that went that it has. */
static bool told_loss(struct sp_sub *s)
{
    pthread_mutex_lock(&s->d.lock);
    bool news = s->losses_told != s->d.losses;
    s->losses_told = s->d.losses;
    pthread_mutex_unlock(&s->d.lock);
    return news;
}

enum status sp_sub_next(struct sp_sub *s, int limit_ms, void **ret_bytes, size_t *ret_n, struct error *err)
{
    nng_msg *m;
    int rv = nng_recvmsg(s->d.socket, &m, NNG_FLAG_NONBLOCK);
    if (rv == NNG_EAGAIN) {
        if (told_loss(s))
            return FAIL(err, UNREACHABLE, "the node at %s has gone", s->d.url);
        nng_aio_set_timeout(s->d.aio, limit_ms > 0 ? limit_ms : 0);
        nng_recv_aio(s->d.socket, s->d.aio);
        nng_aio_wait(s->d.aio);
        rv = nng_aio_result(s->d.aio);
        m = rv ? NULL : nng_aio_get_msg(s->d.aio);
    }
    if (rv && told_loss(s))
        return FAIL(err, UNREACHABLE, "the node at %s has gone", s->d.url);
    if (rv == NNG_ETIMEDOUT || rv == NNG_ECANCELED)
        return FAIL(err, TIMEOUT, "no event within %d ms", limit_ms);
    if (rv)
        return SP_FAIL(err, rv, "listening to", s->d.url);
    *ret_bytes = sp_bytes(m, ret_n);
    return *ret_bytes ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory for an event");
}

void sp_sub_close(struct sp_sub *s)
{
    if (s)
        sp_close_detached(s->d.socket, dialled_fini, s);
}
