/* Errors, listening, probing and closing: common to all sockets. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/sp_internal.h"

enum status sp_fail(struct error *err, int rv, const char *file, int line, const char *text, const char *url)
{
    enum status code = ST_IO;
    switch (rv) {
    case NNG_ETIMEDOUT: code = ST_TIMEOUT; break;
    case NNG_ECONNREFUSED:
    case NNG_ECONNRESET:
    case NNG_ECLOSED:
    case NNG_ENOENT: code = ST_UNREACHABLE; break;
    case NNG_ENOMEM: code = ST_OUT_OF_MEMORY; break;
    case NNG_EPERM: code = ST_FORBIDDEN; break;
    case NNG_EADDRINUSE: code = ST_BUSY; break;
    case NNG_EADDRINVAL: code = ST_BAD_CONFIG; break;
    case NNG_EMSGSIZE: code = ST_TOO_LARGE; break;
    default: break;
    }
    return error_set(err, code, file, line, "%s %s: %s", text, url, nng_strerror(rv));
}

enum status sp_ipc_path(const char *url, const char **ret_path, struct error *err)
{
    if (strncmp(url, "ipc://", 6)) {
        *ret_path = NULL;
        return ST_OK;
    }
    if (strlen(url + 6) > LIMIT_IPC_PATH)
        return FAIL(err, BAD_CONFIG, "socket path '%s' has %zu bytes, the system allows %d: use a shorter runtime folder", url + 6,
                    strlen(url + 6), LIMIT_IPC_PATH);
    *ret_path = url + 6;
    return ST_OK;
}

void *sp_bytes(nng_msg *m, size_t *ret_n)
{
    size_t n = nng_msg_len(m);
    void *bytes = malloc(n + 1);
    if (bytes)
        memcpy(bytes, nng_msg_body(m), n);
    nng_msg_free(m);
    *ret_n = bytes ? n : 0;
    return bytes;
}

void sp_deadline(int ms, struct timespec *ret)
{
    clock_gettime(CLOCK_MONOTONIC, ret);
    ret->tv_sec += ms / 1000;
    ret->tv_nsec += (long)(ms % 1000) * 1000000;
    if (ret->tv_nsec >= 1000000000) {
        ret->tv_sec++;
        ret->tv_nsec -= 1000000000;
    }
}

void sp_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
}

/* ---- closing */

/* What has just arrived is still being handled by nng's threads: a close in that moment is the one that version 1.5.2 gets wrong (see
 * sp_stuck). */
enum { QUIET_MS = 200 };

struct closing {
    nng_socket socket;
    void (*done)(void *arg);
    void *arg;
};

static void *close_thread(void *arg)
{
    struct closing c = *(struct closing *)arg;
    free(arg);
    poll(NULL, 0, QUIET_MS);
    nng_close(c.socket);
    if (c.done)
        c.done(c.arg);
    return NULL;
}

bool sp_detach(void *(*run)(void *arg), void *arg)
{
    pthread_attr_t a;
    pthread_t t;
    pthread_attr_init(&a);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    bool runs = pthread_create(&t, &a, run, arg) == 0;
    pthread_attr_destroy(&a);
    return runs;
}

void sp_close_detached(nng_socket socket, void (*done)(void *arg), void *arg)
{
    struct closing *c = malloc(sizeof *c);
    if (!c)
        return; /* out of memory: the socket stays open until the process ends */
    *c = (struct closing){socket, done, arg};
    if (!sp_detach(close_thread, c))
        free(c);
}

/* ---- probing */

/* wait_for waits until FD is ready for EVENTS or END (clock_real_ms) has come. */
static bool wait_for(int fd, short events, int64_t end)
{
    for (;;) {
        int64_t left = end - clock_real_ms();
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n > 0)
            return true;
        if (n == 0 || errno != EINTR)
            return false;
    }
}

/* connect_until connects FD; a full backlog is tried again until END. */
static bool connect_until(int fd, const char *path, int64_t end)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, path, strlen(path));
    while (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        if (errno == EAGAIN && clock_real_ms() < end)
            poll(NULL, 0, 5);
        else if (errno != EINTR)
            return false;
    }
    return true;
}

/* exchange_hellos sends ours and reads theirs, eight bytes each. */
static bool exchange_hellos(int fd, enum sp_peer peer, int64_t end)
{
    const uint8_t hello[8] = {0, 'S', 'P', 0, 0, (uint8_t)peer, 0, 0};
    uint8_t theirs[8];
    size_t got = 0;
    if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != (ssize_t)sizeof hello)
        return false;
    while (got < sizeof theirs && wait_for(fd, POLLIN, end)) {
        ssize_t n = recv(fd, theirs + got, sizeof theirs - got, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return got == sizeof theirs && !memcmp(theirs, hello, 4);
}

/* shake_hands returns a connection to PATH after its handshake as PEER, -1 when that does not come. */
static int shake_hands(const char *path, enum sp_peer peer, int limit_ms)
{
    int64_t end = clock_real_ms() + limit_ms;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect_until(fd, path, end) && exchange_hellos(fd, peer, end))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int sp_alive(const char *ipc_path)
{
    if (strlen(ipc_path) > LIMIT_IPC_PATH)
        return 0;
    /* A datagram socket cannot connect to a stream socket. How the system says so tells whether one is bound to the file (unix(7)). */
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, ipc_path, strlen(ipc_path));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 2; /* no descriptor to find out with: the connection itself will tell */
    int answer = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EPROTOTYPE ? 2
                 : errno == ENOENT || errno == ENOTDIR                                    ? 0
                 : errno == EACCES || errno == EPERM                                      ? 4
                                                                                          : 1;
    close(fd);
    return answer;
}

enum status sp_reachable(const char *url, struct error *err)
{
    const char *path;
    TRY(sp_ipc_path(url, &path, err));
    switch (path ? sp_alive(path) : 2) {
    case 0: return FAIL(err, UNREACHABLE, "no node listens at %s (there is no such socket): is galleyd running?", url);
    case 1: return FAIL(err, UNREACHABLE, "no node listens at %s (the socket is left over from one that ended): is galleyd running?", url);
    case 4: return FAIL(err, FORBIDDEN, "no permission to use %s: the node belongs to another user", url);
    default: return ST_OK;
    }
}

/* ---- listening */

struct sp_listener *sp_listener_ref(struct sp_listener *l)
{
    atomic_fetch_add(&l->refs, 1);
    return l;
}

static void listener_free(void *arg)
{
    struct sp_listener *l = arg;
    pthread_cond_destroy(&l->attached);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void sp_listener_unref(struct sp_listener *l)
{
    if (atomic_fetch_sub(&l->refs, 1) == 1)
        listener_free(l);
}

/* attach_own takes P for the guard's connection if that is expected and P comes from this process. */
static bool attach_own(struct sp_listener *l, nng_pipe p)
{
    uint64_t pid = 0;
    bool same = nng_pipe_get_uint64(p, NNG_OPT_IPC_PEER_PID, &pid) == 0 && pid == (uint64_t)getpid();
    pthread_mutex_lock(&l->lock);
    bool own = same && l->expects_own;
    if (own) {
        l->expects_own = false;
        l->own_pipe = nng_pipe_id(p);
        pthread_cond_signal(&l->attached);
    }
    pthread_mutex_unlock(&l->lock);
    return own;
}

/* detach_own tells whether P was the guard's. */
static bool detach_own(struct sp_listener *l, nng_pipe p)
{
    pthread_mutex_lock(&l->lock);
    bool own = l->own_pipe == nng_pipe_id(p);
    if (own)
        l->own_pipe = 0;
    pthread_cond_signal(&l->attached);
    pthread_mutex_unlock(&l->lock);
    return own;
}

enum { SHAKE_LIMIT_MS = 3000, TAKE_LIMIT_MS = 1000, TAKE_PER_SHAKE = 10 };

bool sp_listener_accepts(struct sp_listener *l)
{
    /* The handshake alone proves nothing: a deaf listener of 1.5.2 still shakes hands, but its socket never sees the connection. */
    struct timespec end;
    int64_t begin = clock_real_ms();
    pthread_mutex_lock(&l->lock);
    l->expects_own = true;
    l->own_pipe = 0;
    pthread_mutex_unlock(&l->lock);
    int fd = shake_hands(l->path, l->peer, SHAKE_LIMIT_MS);
    if (fd < 0)
        return false;
    /* The same threads of nng take the connection that shook hands: a few switches later, however slow these are just now. */
    sp_deadline(TAKE_LIMIT_MS + TAKE_PER_SHAKE * (int)(clock_real_ms() - begin), &end);
    pthread_mutex_lock(&l->lock);
    int rv = 0;
    while (l->expects_own && !rv)
        rv = pthread_cond_timedwait(&l->attached, &l->lock, &end);
    bool accepted = !l->expects_own;
    l->expects_own = false;
    pthread_mutex_unlock(&l->lock);
    close(fd);
    return accepted;
}

bool sp_listener_lets_go(struct sp_listener *l, int limit_ms)
{
    struct timespec end;
    sp_deadline(limit_ms, &end);
    pthread_mutex_lock(&l->lock);
    int rv = 0;
    while (l->own_pipe && !rv)
        rv = pthread_cond_timedwait(&l->attached, &l->lock, &end);
    bool gone = !l->own_pipe;
    pthread_mutex_unlock(&l->lock);
    return gone;
}

static void limit_connections(nng_pipe p, nng_pipe_ev event, void *arg)
{
    struct sp_listener *l = arg;
    if (event == NNG_PIPE_EV_REM_POST) {
        if (!detach_own(l, p))
            atomic_fetch_sub(&l->open, 1);
    } else if (!attach_own(l, p) && atomic_fetch_add(&l->open, 1) >= (uint64_t)l->max_connections && !sp_stuck()) {
        atomic_fetch_add(&l->refused, 1);
        nng_pipe_close(p);
    }
}

/* clear_stale removes a socket file that nobody serves; BUSY when somebody does, CONFLICT when it is another kind of file. */
static enum status clear_stale(const struct sp_listener *l, struct error *err)
{
    struct stat st;
    if (lstat(l->path, &st))
        return errno == ENOENT ? ST_OK : FAIL_ERRNO(err, "cannot look at socket '%s'", l->path);
    if (!S_ISSOCK(st.st_mode))
        return FAIL(err, CONFLICT, "'%s' is in the way of a socket and is no socket: remove it", l->path);
    if (sp_alive(l->path) >= 2)
        return FAIL(err, BUSY, "socket '%s' is in use: another galleyd runs in this folder", l->path);
    if (unlink(l->path) && errno != ENOENT)
        return FAIL_ERRNO(err, "cannot remove the stale socket '%s'", l->path);
    return ST_OK;
}

/* socket_mode opens the socket to the group exactly where the folder is open to it (the service's folder is 0750). */
static int socket_mode(const char *path)
{
    char dir[LIMIT_IPC_PATH + 1];
    struct stat st;
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (!slash)
        return 0600;
    *slash = 0;
    return stat(dir, &st) == 0 && (st.st_mode & S_IXGRP) ? 0660 : 0600;
}

static enum status listen_now(struct sp_listener *l, const char *url, struct error *err)
{
    nng_listener id;
    int rv = nng_listener_create(&id, l->socket, url);
    if (rv)
        return SP_FAIL(err, rv, "cannot listen on", url);
    rv = l->path[0] ? nng_listener_set_int(id, NNG_OPT_IPC_PERMISSIONS, socket_mode(l->path)) : 0;
    if (!rv)
        rv = nng_listener_start(id, 0);
    if (rv) {
        nng_listener_close(id);
        return SP_FAIL(err, rv, "cannot listen on", url);
    }
    l->id = id;
    return ST_OK;
}

enum status sp_listener_relisten(struct sp_listener *l, struct error *err)
{
    char url[LIMIT_IPC_PATH + 8];
    snprintf(url, sizeof url, "ipc://%s", l->path);
    nng_listener_close(l->id);
    unlink(l->path);
    TRY(listen_now(l, url, err));
    atomic_fetch_add(&l->relistened, 1);
    return ST_OK;
}

/* set_up gives L its path, its notices and its listener. */
static enum status set_up(struct sp_listener *l, const char *url, struct error *err)
{
    const char *path;
    TRY(sp_ipc_path(url, &path, err));
    if (path) {
        memcpy(l->path, path, strlen(path) + 1);
        TRY(clear_stale(l, err));
    }
    int rv = l->max_connections ? nng_pipe_notify(l->socket, NNG_PIPE_EV_ADD_PRE, limit_connections, l) : 0;
    if (!rv && l->max_connections)
        rv = nng_pipe_notify(l->socket, NNG_PIPE_EV_REM_POST, limit_connections, l);
    if (rv)
        return SP_FAIL(err, rv, "cannot watch the connections of", url);
    return listen_now(l, url, err);
}

enum status sp_listener_open(nng_socket socket, const char *url, enum sp_peer peer, int max_connections, bool guarded,
                             struct sp_listener **ret, struct error *err)
{
    struct sp_listener *l = calloc(1, sizeof *l);
    enum status s = ST_OK;
    if (!l)
        s = FAIL(err, OUT_OF_MEMORY, "out of memory listening on %s", url);
    if (s == ST_OK) {
        l->socket = socket;
        l->peer = peer;
        l->max_connections = max_connections;
        atomic_init(&l->refs, 1);
        pthread_mutex_init(&l->lock, NULL);
        sp_cond_init(&l->attached);
        s = set_up(l, url, err);
    }
    if (s != ST_OK) {
        sp_close_detached(socket, l ? listener_free : NULL, l);
        return s;
    }
    if (guarded && l->path[0])
        sp_guard_add(l);
    *ret = l;
    return ST_OK;
}

struct listener_closing {
    struct sp_listener *listener;
    void (*done)(void *arg);
    void *arg;
};

static void listener_closed(void *arg)
{
    struct listener_closing c = *(struct listener_closing *)arg;
    free(arg);
    if (c.done)
        c.done(c.arg);
    sp_listener_unref(c.listener);
}

void sp_listener_close(struct sp_listener *l, void (*done)(void *arg), void *arg)
{
    atomic_store(&l->closed, true);
    sp_guard_del(l);
    struct listener_closing *c = malloc(sizeof *c);
    if (!c)
        return; /* out of memory: stays open until the process ends */
    *c = (struct listener_closing){l, done, arg};
    sp_close_detached(l->socket, listener_closed, c);
}

void sp_listener_counts(struct sp_listener *l, struct sp_counts *ret)
{
    *ret = (struct sp_counts){atomic_load(&l->open), atomic_load(&l->refused), atomic_load(&l->relistened), atomic_load(&l->oversize)};
}
