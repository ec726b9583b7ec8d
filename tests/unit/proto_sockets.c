/* The four patterns over real ipc sockets, hostile peers included. Every wait has a limit and ends as soon as what it waits for is there.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "proto/limits.h"
#include "proto/sp.h"

enum { LIMIT_MS = 10000 };

static char folder[64], url[128];
static int sockets;

static int in_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/galley-sp-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int out_of_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

/* fresh_url makes the name of a socket that no test has used. */
static const char *fresh_url(void)
{
    snprintf(url, sizeof url, "ipc://%s/s%d", folder, ++sockets);
    return url;
}

struct bell {
    atomic_int rung;
};
static void ring(void *arg) { atomic_fetch_add(&((struct bell *)arg)->rung, 1); }

/* until waits for a condition of another thread or process, at most LIMIT_MS. */
#define until(condition)                                                                                                                   \
    do {                                                                                                                                   \
        bool met_;                                                                                                                         \
        int64_t end_ = clock_real_ms() + LIMIT_MS;                                                                                         \
        while (!(met_ = (condition)) && clock_real_ms() < end_)                                                                            \
            poll(NULL, 0, 1);                                                                                                              \
        if (!met_)                                                                                                                         \
            fail_msg("never came: %s", #condition);                                                                                        \
    } while (0)

/* ---- peers that speak by hand */

static int raw_connect(const char *u)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, u + 6);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static bool raw_send(int fd, const void *bytes, size_t n) { return send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n; }

static int raw_handshake(const char *u, uint8_t protocol)
{
    int fd = raw_connect(u);
    const uint8_t hello[8] = {0, 'S', 'P', 0, 0, protocol, 0, 0};
    uint8_t theirs[8];
    assert_true(raw_send(fd, hello, 8));
    assert_int_equal(recv(fd, theirs, 8, MSG_WAITALL), 8);
    return fd;
}

/* raw_closed waits until the other side has closed FD. */
static bool raw_closed(int fd)
{
    char c;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, LIMIT_MS) == 1 && recv(fd, &c, 1, 0) <= 0;
}

static void raw_request(int fd, uint64_t length, const void *body, size_t n)
{
    uint8_t frame[13] = {1};
    for (int i = 0; i < 8; i++)
        frame[1 + i] = (uint8_t)((length + 4) >> (56 - 8 * i));
    frame[9] = 0x80;
    frame[12] = 1;
    assert_true(raw_send(fd, frame, sizeof frame));
    if (n)
        raw_send(fd, body, n);
}

/* ---- an echoing node */

struct node {
    struct sp_rep *rep;
    struct bell bell;
};

/* serve answers everything that has arrived with its own bytes; returns how many. */
static int serve(struct node *n)
{
    struct sp_request q;
    int served = 0;
    while (sp_rep_take(n->rep, &q)) {
        sp_rep_reply(n->rep, q.token, q.bytes, q.n);
        free(q.bytes);
        served++;
    }
    return served;
}

static void node_start(struct node *n, int contexts, size_t max_bytes, int max_connections)
{
    struct error err = {0};
    if (sp_rep_listen(fresh_url(), contexts, max_bytes, max_connections, ring, &n->bell, &n->rep, &err) != ST_OK)
        fail_msg("%s", err.message);
}

struct asker {
    const char *url;
    int limit_ms;
    enum status status;
    char text[64];
    atomic_bool done;
};

/* ask_once asks on a connection of its own. */
static enum status ask_once(struct asker *a, int limit_ms)
{
    struct sp_req *r;
    struct error err;
    void *reply = NULL;
    size_t n = 0;
    enum status s = sp_req_dial(a->url, limit_ms, &r, &err);
    if (s == ST_OK) {
        s = sp_req_call(r, "hello", 5, limit_ms, &reply, &n, &err);
        sp_req_close(r);
    }
    snprintf(a->text, sizeof a->text, "%.*s", s == ST_OK ? (int)n : 50, s == ST_OK ? (char *)reply : err.message);
    if (s == ST_OK)
        free(reply);
    return s;
}

/* ask asks again when the connection broke (the guard has listened anew), as a client may with a request that changes nothing. */
static void *ask(void *arg)
{
    struct asker *a = arg;
    int64_t end = clock_real_ms() + a->limit_ms, left;
    do {
        left = end - clock_real_ms();
        a->status = ask_once(a, left > 0 ? (int)left : 0);
    } while (a->status == ST_UNREACHABLE && clock_real_ms() < end);
    atomic_store(&a->done, true);
    return NULL;
}

/* answers_within asks the node as a client does while it serves; true when the answer came within MS. */
static bool answers_within(struct node *n, const char *u, int ms)
{
    struct asker a = {.url = u, .limit_ms = ms};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, ask, &a), 0);
    while (!atomic_load(&a.done)) {
        serve(n);
        poll(NULL, 0, 1);
    }
    pthread_join(t, NULL);
    return a.status == ST_OK && !strcmp(a.text, "hello");
}

static void requests_and_replies(void **state)
{
    (void)state;
    struct node n = {0};
    node_start(&n, 4, 1000, 256);
    struct stat st;
    assert_int_equal(stat(url + 6, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(answers_within(&n, url, LIMIT_MS));
    assert_true(atomic_load(&n.bell.rung) >= 1);
    for (int i = 0; i < 50; i++)
        assert_true(answers_within(&n, url, LIMIT_MS));
    struct sp_counts c;
    until((sp_rep_counts(n.rep, &c), c.connections == 0));
    sp_rep_close(n.rep);
}

static void many_requests_in_flight(void **state)
{
    (void)state;
    enum { ASKERS = 20 };
    struct node n = {0};
    node_start(&n, ASKERS, 1000, 64);
    struct asker a[ASKERS];
    pthread_t t[ASKERS];
    for (int i = 0; i < ASKERS; i++) {
        a[i] = (struct asker){.url = url, .limit_ms = LIMIT_MS};
        assert_int_equal(pthread_create(&t[i], NULL, ask, &a[i]), 0);
    }
    struct sp_request q[ASKERS];
    int have = 0;
    until(have == ASKERS || (have += sp_rep_take(n.rep, &q[have])) == ASKERS);
    for (int i = ASKERS - 1; i >= 0; i--) { /* any order, each once; a second reply and a made-up token change nothing */
        sp_rep_reply(n.rep, q[i].token, q[i].bytes, q[i].n);
        sp_rep_reply(n.rep, q[i].token, "no", 2);
        sp_rep_reply(n.rep, q[i].token + ((uint64_t)7 << 32), "no", 2);
        free(q[i].bytes);
    }
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(a[i].status, ST_OK);
        assert_string_equal(a[i].text, "hello");
    }
    sp_rep_close(n.rep);
}

static void a_node_that_is_not_there(void **state)
{
    (void)state;
    struct sp_req *r;
    struct error err;
    int64_t begin = clock_real_ms();
    assert_int_equal(sp_req_dial(fresh_url(), LIMIT_MS, &r, &err), ST_UNREACHABLE);
    assert_non_null(strstr(err.message, "there is no such socket"));
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, url + 6);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
    assert_int_equal(sp_alive(url + 6), 1);
    assert_int_equal(sp_req_dial(url, LIMIT_MS, &r, &err), ST_UNREACHABLE);
    assert_non_null(strstr(err.message, "left over"));
    assert_true(clock_real_ms() - begin < LIMIT_MS / 2);
    assert_int_equal(unlink(url + 6), 0);
    assert_int_equal(sp_alive(url + 6), 0);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    listen(fd, 4);
    assert_int_equal(sp_alive(url + 6), 2);
    assert_int_equal(sp_req_dial(url, 300, &r, &err), ST_TIMEOUT);
    struct bell bell = {0};
    struct sp_rep *rep;
    assert_int_equal(sp_rep_listen(url, 1, 100, 1, ring, &bell, &rep, &err), ST_BUSY);
    close(fd);
    /* stale now: a listener takes the place */
    struct node n = {0};
    assert_int_equal(sp_rep_listen(url, 1, 100, 1, ring, &n.bell, &n.rep, &err), ST_OK);
    assert_int_equal(sp_alive(url + 6), 2);
    assert_int_equal(sp_rep_listen(url, 1, 100, 1, ring, &bell, &rep, &err), ST_BUSY);
    assert_non_null(strstr(err.message, "another galleyd"));
    sp_rep_close(n.rep);
}

static void paths_are_checked(void **state)
{
    (void)state;
    char longer[200] = "ipc:///tmp/";
    memset(longer + 11, 'x', 120);
    struct bell bell = {0};
    struct sp_rep *rep;
    struct sp_req *req;
    struct error err;
    assert_int_equal(sp_rep_listen(longer, 1, 100, 1, ring, &bell, &rep, &err), ST_BAD_CONFIG);
    assert_non_null(strstr(err.message, "107"));
    assert_int_equal(sp_req_dial(longer, 100, &req, &err), ST_BAD_CONFIG);
    FILE *f = fopen(fresh_url() + 6, "w");
    fclose(f);
    assert_int_equal(sp_rep_listen(url, 1, 100, 1, ring, &bell, &rep, &err), ST_CONFLICT);
    struct stat st;
    assert_int_equal(stat(url + 6, &st), 0); /* what is no socket stays */
}

static void a_silent_node_is_a_timeout_and_a_dead_one_is_not(void **state)
{
    (void)state;
    struct node n = {0};
    node_start(&n, 2, 1000, 8);
    struct sp_req *r;
    struct error err;
    void *bytes;
    size_t len;
    assert_int_equal(sp_req_dial(url, LIMIT_MS, &r, &err), ST_OK);
    assert_int_equal(sp_req_call(r, "a", 1, 100, &bytes, &len, &err), ST_TIMEOUT);
    char *big = calloc(1, LIMIT_REQUEST_BYTES + 1);
    assert_int_equal(sp_req_call(r, big, LIMIT_REQUEST_BYTES + 1, LIMIT_MS, &bytes, &len, &err), ST_TOO_LARGE);
    free(big);
    sp_rep_close(n.rep);
    int64_t begin = clock_real_ms();
    until(sp_req_call(r, "b", 1, 2000, &bytes, &len, &err) == ST_UNREACHABLE);
    assert_true(clock_real_ms() - begin < LIMIT_MS);
    sp_req_close(r);
}

/* ---- hostile peers */

/* bad_peer_does one bad thing to the listener at U and goes (or stays: the descriptor is returned, -1 otherwise). */
static int bad_peer_does(const char *u, int what)
{
    int fd = raw_connect(u);
    switch (what) {
    case 0: break;
    case 1: raw_send(fd, "\0SP", 3); break;
    case 2: raw_send(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27); break;
    case 3: raw_send(fd, "\0SP\0\0\x10\0\0", 8); break; /* PAIR0 */
    case 4: raw_send(fd, "\0SP\0\0\x30\0\0\1\xff\xff\xff\xff\xff\xff\xff\xff", 17); break;
    case 5: raw_send(fd, "\0SP\0\0\x30\0\0\1\0\0\0\0\0\0\0\0", 17); break; /* a request without an id */
    case 6: return fd;
    default: fail();
    }
    close(fd);
    return -1;
}

static void hostile_peers_do_not_stop_the_node(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(sp_guard_start(50, &err), ST_OK);
    for (int what = 0; what <= 6; what++) {
        struct node n = {0};
        node_start(&n, 4, 1000, 256);
        int held[20];
        for (int i = 0; i < 20; i++)
            held[i] = bad_peer_does(url, what);
        if (!answers_within(&n, url, LIMIT_MS))
            fail_msg("after bad peer %d the node no longer answers", what);
        for (int i = 0; i < 20; i++)
            if (held[i] >= 0)
                close(held[i]);
        sp_rep_close(n.rep);
    }
    sp_guard_stop();
}

static void asking_whether_a_node_lives_does_not_harm_it(void **state)
{
    (void)state;
    struct node n = {0};
    node_start(&n, 4, 1000, 256); /* without the guard */
    for (int i = 0; i < 500; i++)
        assert_int_equal(sp_alive(url + 6), 2);
    for (int i = 0; i < 20; i++)
        assert_true(answers_within(&n, url, LIMIT_MS));
    struct sp_counts c;
    sp_rep_counts(n.rep, &c);
    assert_int_equal(c.relistened, 0);
    sp_rep_close(n.rep);
}

/* The fault the guard is for. Where nng has it (before 1.6), a listener without the guard stays deaf; where it has not, there is nothing to
 * heal. */
static void connect_and_close_is_healed_by_the_guard(void **state)
{
    (void)state;
    struct node n = {0};
    struct error err;
    struct sp_counts c;
    node_start(&n, 4, 1000, 256);
    for (int i = 0; i < 20; i++)
        bad_peer_does(url, 0);
    bool deaf = !answers_within(&n, url, 1000);
    sp_rep_counts(n.rep, &c);
    assert_int_equal(c.relistened, 0);
    if (!deaf)
        print_message("this nng survives connect + close by itself\n");
    assert_int_equal(sp_guard_start(50, &err), ST_OK);
    assert_true(answers_within(&n, url, LIMIT_MS));
    sp_rep_counts(n.rep, &c);
    assert_true(!deaf || c.relistened >= 1);
    for (int round = 0; round < 10; round++) { /* again and again, and an old connection lives through it */
        bad_peer_does(url, 0);
        assert_true(answers_within(&n, url, LIMIT_MS));
    }
    sp_guard_stop();
    sp_rep_close(n.rep);
}

static void a_removed_socket_file_comes_back(void **state)
{
    (void)state;
    struct node n = {0};
    struct error err;
    node_start(&n, 4, 1000, 256);
    assert_int_equal(sp_guard_start(50, &err), ST_OK);
    assert_int_equal(unlink(url + 6), 0);
    until(sp_alive(url + 6) == 2);
    assert_true(answers_within(&n, url, LIMIT_MS));
    sp_guard_stop();
    sp_rep_close(n.rep);
}

static void connections_are_limited(void **state)
{
    (void)state;
    struct node n = {0};
    node_start(&n, 4, 1000, 5);
    int fd[8];
    struct sp_counts c;
    for (int i = 0; i < 8; i++) {
        fd[i] = raw_handshake(url, 0x30);
        until((sp_rep_counts(n.rep, &c), i < 5 ? (int)c.connections == i + 1 : (int)c.refused == i - 4));
    }
    for (int i = 5; i < 8; i++)
        assert_true(raw_closed(fd[i]));
    until((sp_rep_counts(n.rep, &c), c.connections == 5));
    assert_int_equal(c.refused, 3);
    for (int i = 0; i < 8; i++)
        close(fd[i]);
    until((sp_rep_counts(n.rep, &c), c.connections == 0));
    assert_true(answers_within(&n, url, LIMIT_MS));
    sp_rep_close(n.rep);
}

static void long_requests_close_the_connection(void **state)
{
    (void)state;
    struct node n = {0};
    struct sp_counts c;
    node_start(&n, 4, 1000, 256);
    char body[1001] = {0};
    int fd = raw_handshake(url, 0x30);
    raw_request(fd, 1000, body, 1000); /* at the limit: served */
    until(serve(&n) == 1);
    raw_request(fd, 1001, body, 1001);
    assert_true(recv(fd, body, 13, MSG_WAITALL) == 13);
    char rest[1000];
    assert_true(recv(fd, rest, 1000, MSG_WAITALL) == 1000);
    assert_true(raw_closed(fd));
    close(fd);
    sp_rep_counts(n.rep, &c);
    assert_int_equal(c.oversize, 1);
    fd = raw_handshake(url, 0x30);
    raw_request(fd, UINT64_MAX / 2, NULL, 0);
    assert_true(raw_closed(fd));
    close(fd);
    assert_true(answers_within(&n, url, LIMIT_MS));
    sp_rep_close(n.rep);
}

static void one_peer_does_not_take_the_place_of_all(void **state)
{
    (void)state;
    struct node n = {0};
    node_start(&n, 4, 1 << 20, 8);
    /* asks often and never reads its answers: each holds a context until the limit of its reply has passed */
    int fd = raw_handshake(url, 0x30);
    static char body[100000];
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    for (int i = 0; i < 40 && poll(&p, 1, 0) == 1; i++) {
        raw_request(fd, sizeof body, body, sizeof body);
        serve(&n);
        poll(NULL, 0, 1);
        int rcv = 1024;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcv, sizeof rcv);
        if (i > 8)
            break;
    }
    assert_true(answers_within(&n, url, LIMIT_MS));
    close(fd);
    sp_rep_close(n.rep);
}

/* ---- PAIR */

static void a_link_both_ways(void **state)
{
    (void)state;
    struct bell a_bell = {0}, b_bell = {0};
    struct sp_pair *a, *b;
    struct error err;
    assert_int_equal(sp_pair_listen(fresh_url(), 1 << 20, ring, &a_bell, &a, &err), ST_OK);
    assert_int_equal(sp_pair_send(a, "early", 5, &err), ST_OK); /* waits for the peer */
    assert_int_equal(sp_pair_dial(url, 1 << 20, LIMIT_MS, ring, &b_bell, &b, &err), ST_OK);
    void *bytes = NULL;
    size_t n = 0;
    until(sp_pair_take(b, &bytes, &n));
    assert_int_equal(n, 5);
    free(bytes);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(sp_pair_send(b, &i, sizeof i, &err), ST_OK);
    assert_true(sp_pair_flush(b, LIMIT_MS));
    for (int i = 0; i < 2000; i++) {
        until(sp_pair_take(a, &bytes, &n));
        assert_int_equal(n, sizeof i);
        assert_memory_equal(bytes, &i, sizeof i);
        free(bytes);
    }
    assert_false(sp_pair_take(a, &bytes, &n)); /* the flush itself is not seen */
    assert_int_equal(sp_pair_send(a, "", 0, &err), ST_PROTOCOL);
    assert_false(sp_pair_lost(a));
    sp_pair_close(b);
    until(sp_pair_lost(a));
    assert_int_equal(sp_pair_send(a, "late", 4, &err), ST_UNREACHABLE);
    assert_false(sp_pair_flush(a, 100));
    sp_pair_close(a);
}

static void a_second_peer_is_turned_away(void **state)
{
    (void)state;
    struct bell bell = {0};
    struct sp_pair *a, *b, *c;
    struct error err;
    assert_int_equal(sp_pair_listen(fresh_url(), 1000, ring, &bell, &a, &err), ST_OK);
    assert_int_equal(sp_pair_dial(url, 1000, LIMIT_MS, ring, &bell, &b, &err), ST_OK);
    until(sp_pair_send(b, "x", 1, &err) == ST_OK && sp_pair_flush(b, LIMIT_MS));
    int fd = raw_handshake(url, 0x10);
    assert_true(raw_closed(fd));
    close(fd);
    assert_true(sp_pair_refused(a) >= 1);
    void *bytes;
    size_t n;
    until(sp_pair_take(a, &bytes, &n));
    free(bytes);
    assert_false(sp_pair_lost(a));
    sp_pair_close(b);
    until(sp_pair_lost(a));
    /* Nor does anybody take the place of a peer that has gone: the new one is turned away, or (a deaf listener of nng 1.5.2) never heard. */
    if (sp_pair_dial(url, 1000, 500, ring, &bell, &c, &err) == ST_OK) {
        bool heard = sp_pair_send(c, "x", 1, &err) == ST_OK && sp_pair_flush(c, 300) && sp_pair_take(a, &bytes, &n);
        assert_false(heard);
        sp_pair_close(c);
    }
    sp_pair_close(a);
}

static void a_link_that_nobody_serves(void **state)
{
    (void)state;
    struct bell bell = {0};
    struct sp_pair *a;
    struct error err;
    assert_int_equal(sp_pair_dial(fresh_url(), 1000, 200, ring, &bell, &a, &err), ST_UNREACHABLE);
    assert_int_equal(sp_pair_listen(url, 1000, ring, &bell, &a, &err), ST_OK);
    enum status s = ST_OK; /* a full queue refuses by name and never grows */
    int sent = 0;
    while (s == ST_OK && sent < 20000) {
        s = sp_pair_send(a, "frame", 5, &err);
        sent += s == ST_OK;
    }
    assert_int_equal(s, ST_BUSY);
    assert_true(sent >= 10000 && sent <= 10002);
    sp_pair_close(a);
}

static void a_peer_that_is_behind_does_not_lose_frames(void **state)
{
    (void)state;
    enum { FRAMES = 100, BYTES = 1 << 20 };
    struct bell bell = {0};
    struct sp_pair *a, *b;
    struct error err;
    assert_int_equal(sp_pair_listen(fresh_url(), BYTES, ring, &bell, &a, &err), ST_OK);
    assert_int_equal(sp_pair_dial(url, BYTES, LIMIT_MS, ring, &bell, &b, &err), ST_OK);
    char *frame = calloc(1, BYTES);
    int taken = 0;
    void *bytes;
    size_t n;
    for (int i = 0; i < FRAMES; i++) {
        memcpy(frame, &i, sizeof i);
        while (sp_pair_send(b, frame, BYTES, &err) == ST_BUSY) /* both queues are full: take one */
            if (sp_pair_take(a, &bytes, &n)) {
                assert_memory_equal(bytes, &taken, sizeof taken);
                taken++;
                free(bytes);
            }
    }
    while (taken < FRAMES) {
        until(sp_pair_take(a, &bytes, &n));
        assert_memory_equal(bytes, &taken, sizeof taken);
        taken++;
        free(bytes);
    }
    free(frame);
    sp_pair_close(a);
    sp_pair_close(b);
}

/* ---- peers that are killed: processes of their own (this program again, see peer_main), as workers and clients are */

static pid_t spawn_peer(const char *what)
{
    char *argv[] = {(char *)(uintptr_t) "peer", (char *)(uintptr_t)what, url, NULL};
    pid_t pid;
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    return pid;
}

static void kill_peer(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* peer_main floods the socket at U in the role WHAT until it is killed. */
static int peer_main(const char *what, const char *u)
{
    struct bell bell = {0};
    struct error err;
    void *bytes;
    size_t n;
    static char frame[20000];
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlives the test */
    if (!strcmp(what, "pair")) {
        struct sp_pair *p;
        if (sp_pair_dial(u, 1 << 20, LIMIT_MS, ring, &bell, &p, &err) != ST_OK)
            return 1;
        for (;;) /* sends as fast as it can and reads nothing */
            if (sp_pair_send(p, frame, sizeof frame, &err) == ST_BUSY)
                poll(NULL, 0, 1);
    }
    if (!strcmp(what, "req")) {
        struct sp_req *r;
        if (sp_req_dial(u, LIMIT_MS, &r, &err) != ST_OK)
            return 1;
        while (sp_req_call(r, frame, sizeof frame, LIMIT_MS, &bytes, &n, &err) == ST_OK)
            free(bytes);
        return 1;
    }
    const char *all[] = {""};
    struct sp_sub *s;
    if (sp_sub_dial(u, all, 1, LIMIT_MS, &s, &err) != ST_OK)
        return 1;
    for (;;)
        poll(NULL, 0, 1000); /* a subscriber that reads nothing */
}

enum { LAUNCHES = 60 };

/* Killed in the middle of the frames that it sends as fast as it can: the rest of them must not harm the sockets of the others. */
static void links_of_many_killed_workers(void **state)
{
    (void)state;
    struct error err;
    struct node n = {0};
    node_start(&n, 4, 1000, 256);
    char control[128];
    strcpy(control, url);
    assert_int_equal(sp_guard_start(50, &err), ST_OK);
    for (int i = 0; i < LAUNCHES; i++) {
        struct bell bell = {0};
        struct sp_pair *p;
        void *bytes;
        size_t len;
        assert_int_equal(sp_pair_listen(fresh_url(), 1 << 20, ring, &bell, &p, &err), ST_OK);
        assert_int_equal(sp_pair_send(p, "go", 2, &err), ST_OK);
        pid_t pid = spawn_peer("pair");
        until(sp_pair_take(p, &bytes, &len));
        free(bytes);
        kill_peer(pid);
        if (i % 2)
            until(sp_pair_lost(p));
        sp_pair_close(p); /* as often as not before the end has been read */
        assert_false(sp_stuck());
    }
    struct sp_counts c;
    assert_true(answers_within(&n, control, LIMIT_MS));
    until((sp_rep_counts(n.rep, &c), c.connections == 0)); /* connections still end */
    sp_guard_stop();
    sp_rep_close(n.rep);
}

static void many_killed_clients(void **state)
{
    (void)state;
    struct node n = {0};
    struct sp_counts c;
    node_start(&n, 4, 1 << 20, 64);
    for (int i = 0; i < LAUNCHES; i++) {
        pid_t pid = spawn_peer("req");
        int served = 0;
        until((served += serve(&n)) > 3);
        kill_peer(pid);
    }
    assert_true(answers_within(&n, url, LIMIT_MS));
    until((serve(&n), sp_rep_counts(n.rep, &c), c.connections == 0));
    sp_rep_close(n.rep);
}

static void many_killed_subscribers(void **state)
{
    (void)state;
    struct sp_pub *pub;
    struct error err;
    struct sp_counts c;
    static char frame[20000];
    assert_int_equal(sp_pub_listen(fresh_url(), 64, &pub, &err), ST_OK);
    for (int i = 0; i < LAUNCHES; i++) {
        pid_t pid = spawn_peer("sub");
        until((sp_pub_counts(pub, &c), c.connections == 1));
        for (int k = 0; k < 200; k++)
            sp_pub_send(pub, frame, sizeof frame);
        kill_peer(pid);
        until((sp_pub_counts(pub, &c), c.connections == 0));
    }
    sp_pub_close(pub);
}

/* ---- PUB and SUB. Last: closing a SUB of nng 1.5.2 may stop the thread that ends connections, for the whole process. */

static void events_by_prefix_and_the_loss_of_the_publisher(void **state)
{
    (void)state;
    struct sp_pub *pub;
    struct sp_sub *sub;
    struct error err;
    assert_int_equal(sp_pub_listen(fresh_url(), 4, &pub, &err), ST_OK);
    const char *prefixes[] = {"ev/item/", "ev/worker/"};
    assert_int_equal(sp_sub_dial(url, prefixes, 2, LIMIT_MS, &sub, &err), ST_OK);
    void *bytes;
    size_t n;
    assert_int_equal(sp_sub_next(sub, 50, &bytes, &n, &err), ST_TIMEOUT);
    sp_pub_send(pub, "ev/other/1", 10);
    for (int i = 0; i < 500; i++)
        sp_pub_send(pub, "ev/item/1", 9);
    sp_pub_send(pub, "ev/worker/1", 11);
    for (int i = 0; i < 501; i++) {
        if (sp_sub_next(sub, LIMIT_MS, &bytes, &n, &err) != ST_OK)
            fail_msg("event %d: %s", i, err.message);
        assert_int_equal(n, i < 500 ? 9 : 11);
        free(bytes);
    }
    struct sp_counts c;
    sp_pub_counts(pub, &c);
    assert_int_equal(c.connections, 1);
    sp_pub_close(pub);
    enum status s;
    until((s = sp_sub_next(sub, 1000, &bytes, &n, &err)) == ST_UNREACHABLE);
    struct sp_pub *again;
    until(sp_pub_listen(url, 4, &again, &err) == ST_OK);
    bool heard = false; /* the subscription comes back by itself */
    int64_t end = clock_real_ms() + LIMIT_MS;
    while (!heard && clock_real_ms() < end) {
        sp_pub_send(again, "ev/item/2", 9);
        s = sp_sub_next(sub, 20, &bytes, &n, &err);
        heard = s == ST_OK;
    }
    assert_true(heard);
    free(bytes);
    sp_sub_close(sub);
    sp_pub_close(again);
}

static void a_stopped_subscriber_does_not_stop_the_publisher(void **state)
{
    (void)state;
    struct sp_pub *pub;
    struct sp_sub *sub;
    struct error err;
    const char *all[] = {""};
    assert_int_equal(sp_pub_listen(fresh_url(), 4, &pub, &err), ST_OK);
    int stopped = raw_handshake(url, 0x21);
    assert_int_equal(sp_sub_dial(url, all, 1, LIMIT_MS, &sub, &err), ST_OK);
    char frame[1000] = "x";
    int64_t begin = clock_real_ms();
    for (int i = 0; i < 20000; i++)
        sp_pub_send(pub, frame, sizeof frame);
    assert_true(clock_real_ms() - begin < LIMIT_MS);
    void *bytes;
    size_t n;
    assert_int_equal(sp_sub_next(sub, LIMIT_MS, &bytes, &n, &err), ST_OK);
    free(bytes);
    close(stopped);
    sp_sub_close(sub);
    sp_pub_close(pub);
}

int main(int argc, char **argv)
{
    if (argc == 3)
        _exit(peer_main(argv[1], argv[2]));
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_and_replies),
        cmocka_unit_test(many_requests_in_flight),
        cmocka_unit_test(a_node_that_is_not_there),
        cmocka_unit_test(paths_are_checked),
        cmocka_unit_test(a_silent_node_is_a_timeout_and_a_dead_one_is_not),
        cmocka_unit_test(asking_whether_a_node_lives_does_not_harm_it),
        cmocka_unit_test(hostile_peers_do_not_stop_the_node),
        cmocka_unit_test(connect_and_close_is_healed_by_the_guard),
        cmocka_unit_test(a_removed_socket_file_comes_back),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(long_requests_close_the_connection),
        cmocka_unit_test(one_peer_does_not_take_the_place_of_all),
        cmocka_unit_test(a_link_both_ways),
        cmocka_unit_test(a_second_peer_is_turned_away),
        cmocka_unit_test(a_link_that_nobody_serves),
        cmocka_unit_test(a_peer_that_is_behind_does_not_lose_frames),
        cmocka_unit_test(links_of_many_killed_workers),
        cmocka_unit_test(many_killed_clients),
        cmocka_unit_test(many_killed_subscribers),
        cmocka_unit_test(events_by_prefix_and_the_loss_of_the_publisher),
        cmocka_unit_test(a_stopped_subscriber_does_not_stop_the_publisher),
    };
    int failed = cmocka_run_group_tests(tests, in_folder, out_of_folder);
    _exit(failed ? 1 : 0); /* nng_close may hang: nothing waits for it */
}
