/* The only user of nng: the four socket patterns we need, with nng 1.5.2's faults designed around. Callbacks WAKE are called on nng's
 * threads and must only ring a bell; frames are then taken from the caller's thread. Closing never blocks the caller: the socket is
 * closed by a detached thread, and processes end by _exit. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

typedef void sp_wake(void *arg);

/* ---- listeners that heal: one peer that connects and closes early stops an ipc listener of nng 1.5.2 for ever. */
/* connections: open now, the guard's own not counted; the others count up. oversize: frames past the limit by up to 1 MiB (on longer ones nng
 * closes the connection without a word). */
struct sp_counts { uint64_t connections, refused, relistened, oversize; };
/* sp_guard_start probes every open listener each PROBE_MS on a thread of its own and listens anew on failure; 0: never. */
NODISCARD enum status sp_guard_start(int probe_ms, struct error *err);
void sp_guard_stop(void);
/* sp_stuck tells whether nng's thread that ends connections has stopped, as the guard's last probe saw it. Version 1.5.2 may do that, rarely, when a connection is
 * closed while a part of a frame arrives. New connections are still served, but none ends any more: counts and descriptors only grow (the limit
 * on connections is then off). Only a new process mends it. */
bool sp_stuck(void);

/* ---- REP: requests in, one reply each */
struct sp_rep;
struct sp_request { uint64_t token; void *bytes; size_t n; };
/* sp_rep_listen serves URL (ipc://...; an old socket file is removed first) with CONTEXTS requests in flight. Socket file mode 0600, 0660 where the folder is open to its group. */
NODISCARD enum status sp_rep_listen(const char *url, int contexts, size_t max_bytes, int max_connections, sp_wake *wake, void *arg, struct sp_rep **ret, struct error *err);
/* sp_rep_take pops a request; false when there is none. Bytes are freed with free by the caller. */
bool sp_rep_take(struct sp_rep *r, struct sp_request *ret);
/* sp_rep_reply sends the reply of TOKEN (copies). A peer that is gone is no error; one that does not read its reply for 5 s
 * loses its connection. Each token exactly once. */
void sp_rep_reply(struct sp_rep *r, uint64_t token, const void *bytes, size_t n);
void sp_rep_counts(struct sp_rep *r, struct sp_counts *ret);
void sp_rep_close(struct sp_rep *r);

/* ---- PUB */
struct sp_pub;
NODISCARD enum status sp_pub_listen(const char *url, int max_connections, struct sp_pub **ret, struct error *err);
void sp_pub_send(struct sp_pub *p, const void *bytes, size_t n);   /* copies; drops for slow subscribers */
/* sp_pub_queue sets how many frames may wait for a slow subscriber that connects from now on (1024; 1 to 8192). */
void sp_pub_queue(struct sp_pub *p, int frames);
void sp_pub_counts(struct sp_pub *p, struct sp_counts *ret);
void sp_pub_close(struct sp_pub *p);

/* ---- PAIR: a worker link. One peer only: a second is closed and counted. */
struct sp_pair;
NODISCARD enum status sp_pair_listen(const char *url, size_t max_bytes, sp_wake *wake, void *arg, struct sp_pair **ret, struct error *err);
/* sp_pair_dial connects within LIMIT_MS, or UNREACHABLE. */
NODISCARD enum status sp_pair_dial(const char *url, size_t max_bytes, int limit_ms, sp_wake *wake, void *arg, struct sp_pair **ret, struct error *err);
/* sp_pair_take pops a frame (caller frees *ret_bytes). false: none now. */
bool sp_pair_take(struct sp_pair *p, void **ret_bytes, size_t *ret_n);
/* sp_pair_send queues a frame (copies). BUSY when more than 64 MiB or 10,000 frames wait. */
NODISCARD enum status sp_pair_send(struct sp_pair *p, const void *bytes, size_t n, struct error *err);
/* sp_pair_flush waits until everything queued has left, at most LIMIT_MS. */
bool sp_pair_flush(struct sp_pair *p, int limit_ms);
bool sp_pair_lost(struct sp_pair *p);   /* true once a connected peer has gone (wake is called then too) */
uint64_t sp_pair_refused(struct sp_pair *p);   /* second peers turned away */
void sp_pair_close(struct sp_pair *p);

/* ---- REQ and SUB, for clients */
struct sp_req;
NODISCARD enum status sp_req_dial(const char *url, int limit_ms, struct sp_req **ret, struct error *err);
/* sp_req_call sends and waits at most LIMIT_MS for the reply (caller frees). TIMEOUT, UNREACHABLE, TOO_LARGE (never sent). Never resends by itself. */
NODISCARD enum status sp_req_call(struct sp_req *r, const void *bytes, size_t n, int limit_ms, void **ret_bytes, size_t *ret_n, struct error *err);
void sp_req_close(struct sp_req *r);
struct sp_sub;
NODISCARD enum status sp_sub_dial(const char *url, const char *const *prefixes, size_t n_prefixes, int limit_ms, struct sp_sub **ret, struct error *err);
/* sp_sub_also hears a second publisher on the same subscription; it connects in the background. */
NODISCARD enum status sp_sub_also(struct sp_sub *s, const char *url, struct error *err);
/* sp_sub_next waits at most LIMIT_MS for a frame (caller frees): TIMEOUT otherwise, UNREACHABLE once the publisher has gone. */
NODISCARD enum status sp_sub_next(struct sp_sub *s, int limit_ms, void **ret_bytes, size_t *ret_n, struct error *err);
void sp_sub_close(struct sp_sub *s);

/* sp_alive tells whether a process serves a socket file: 0 there is no file, 1 nobody (left over), 2 somebody, 4 no permission. The listener
 * sees nothing of it: a connection that is made only to be closed again is what deafens nng 1.5.2. */
int sp_alive(const char *ipc_path);
