/* PUB: sends never wait; a subscriber that is behind by its whole queue loses its oldest frames. */
#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <stdlib.h>
#include <string.h>

#include "proto/sp_internal.h"

enum { QUEUE_FRAMES = 1024 };
enum { SUBSCRIBER_BYTES = 1024 }; /* subscribers send nothing */

struct sp_pub {
    nng_socket socket;
    struct sp_listener *listener;
};

enum status sp_pub_listen(const char *url, int max_connections, struct sp_pub **ret, struct error *err)
{
    struct sp_pub *p = calloc(1, sizeof *p);
    if (!p)
        return FAIL(err, OUT_OF_MEMORY, "out of memory listening on %s", url);
    int rv = nng_pub0_open(&p->socket);
    if (rv) {
        free(p);
        return SP_FAIL(err, rv, "cannot open a socket for", url);
    }
    rv = nng_socket_set_size(p->socket, NNG_OPT_RECVMAXSZ, SUBSCRIBER_BYTES);
    if (!rv)
        rv = nng_socket_set_int(p->socket, NNG_OPT_SENDBUF, QUEUE_FRAMES);
    if (rv) {
        sp_close_detached(p->socket, free, p);
        return SP_FAIL(err, rv, "cannot set up a socket for", url);
    }
    enum status s = sp_listener_open(p->socket, url, SP_PEER_OF_PUB, max_connections, true, &p->listener, err);
    if (s != ST_OK) {
        free(p);
        return s;
    }
    *ret = p;
    return ST_OK;
}

void sp_pub_queue(struct sp_pub *p, int frames) { nng_socket_set_int(p->socket, NNG_OPT_SENDBUF, frames); }

void sp_pub_send(struct sp_pub *p, const void *bytes, size_t n)
{
    nng_msg *m;
    if (nng_msg_alloc(&m, n))
        return; /* a frame lost to a lack of memory is a gap like any other */
    memcpy(nng_msg_body(m), bytes, n);
    if (nng_sendmsg(p->socket, m, NNG_FLAG_NONBLOCK))
        nng_msg_free(m);
}

void sp_pub_counts(struct sp_pub *p, struct sp_counts *ret) { sp_listener_counts(p->listener, ret); }

void sp_pub_close(struct sp_pub *p)
{
    if (p)
        sp_listener_close(p->listener, free, p);
}
