/* What the socket files share. nng is included here and in sp_*.c only. */
#pragma once
#include <nng/nng.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "proto/limits.h"
#include "proto/sp.h"

/* SP protocol numbers (RFC of nanomsg's "SP mappings"): what the peer of each socket calls itself in the handshake. */
enum sp_peer { SP_PEER_OF_REP = 0x30, SP_PEER_OF_PUB = 0x21, SP_PEER_OF_PAIR = 0x10 };

/* A listening socket: its connections are counted and limited, and the guard may listen anew on it. */
struct sp_listener {
    nng_socket socket;
    nng_listener id;
    char path[LIMIT_IPC_PATH + 1];
    enum sp_peer peer;
    int max_connections;
    atomic_int refs; /* owner and guard */
    atomic_bool closed;
    pthread_mutex_t lock;
    pthread_cond_t attached; /* own_pipe has changed */
    bool expects_own;        /* the guard is connecting */
    int own_pipe;            /* id of the guard's connection, 0: not attached */
    atomic_uint_fast64_t open, refused, relistened, oversize;
    struct sp_listener *next; /* the guard's list */
};

/* sp_fail turns an nng error number into a status; the message is "TEXT: nng's words". */
enum status sp_fail(struct error *err, int rv, const char *file, int line, const char *text, const char *url);
#define SP_FAIL(err, rv, text, url) sp_fail((err), (rv), __FILE__, __LINE__, (text), (url))

/* sp_listener_open listens with SOCKET (takes it: closed on failure) on URL and, if GUARDED, lets the guard probe it. MAX_CONNECTIONS 0:
 * the caller watches the connections itself. */
NODISCARD enum status sp_listener_open(nng_socket socket, const char *url, enum sp_peer peer, int max_connections, bool guarded,
                                       struct sp_listener **ret, struct error *err);
/* sp_listener_close takes it from the guard and closes the socket on a detached thread, which then calls DONE(ARG) (may be NULL). */
void sp_listener_close(struct sp_listener *l, void (*done)(void *arg), void *arg);
/* sp_listener_lets_go waits until the guard's connection to L, which it has closed, has ended for L's socket too. */
bool sp_listener_lets_go(struct sp_listener *l, int limit_ms);
void sp_listener_counts(struct sp_listener *l, struct sp_counts *ret);
/* sp_listener_relisten closes the old listener, removes its socket file and listens anew. Called by the guard. */
NODISCARD enum status sp_listener_relisten(struct sp_listener *l, struct error *err);
struct sp_listener *sp_listener_ref(struct sp_listener *l);
void sp_listener_unref(struct sp_listener *l);
/* sp_guard_add / sp_guard_del change the guard's list (sp_guard.c). */
void sp_guard_add(struct sp_listener *l);
void sp_guard_del(struct sp_listener *l);

/* sp_close_detached closes SOCKET on a thread of its own (nng_close of 1.5.2 may hang), which then calls DONE(ARG) (may be NULL). */
void sp_close_detached(nng_socket socket, void (*done)(void *arg), void *arg);
/* sp_detach runs RUN(ARG) on a thread of its own that nobody waits for; false when none can be had. */
bool sp_detach(void *(*run)(void *arg), void *arg);
/* sp_listener_accepts connects to L and waits until its socket has the connection: false when that does not come, or L cannot be reached.
 * The limits grow with the load of the machine: listening anew closes the connections that came through L, so a healthy one must not be
 * taken for dead. */
bool sp_listener_accepts(struct sp_listener *l);
/* sp_ipc_path returns the path of an ipc:// URL (inside URL), NULL when it is another transport; BAD_CONFIG when it is too long. */
NODISCARD enum status sp_ipc_path(const char *url, const char **ret_path, struct error *err);
/* sp_reachable is UNREACHABLE or FORBIDDEN when nobody serves the ipc socket of URL for this user. */
NODISCARD enum status sp_reachable(const char *url, struct error *err);
/* sp_deadline fills RET with now (CLOCK_MONOTONIC) + MS; condition variables made by sp_cond_init use that clock. */
void sp_deadline(int ms, struct timespec *ret);
void sp_cond_init(pthread_cond_t *c);
/* sp_bytes copies the body of M (never NULL unless out of memory) and frees M. */
void *sp_bytes(nng_msg *m, size_t *ret_n);
