/* libgalley against a node made of the same sockets: connecting, refusals, pictures, and a feed that mends gaps, silence and restarts. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/json.h"
#include "proto/client.h"
#include "proto/limits.h"
#include "proto/mp.h"
#include "proto/sp.h"
#include "proto/wr.h"

enum { LIMIT_MS = 20000 };

/* The node: one thread answers; the test scripts what it says. */
static struct node {
    char folder[64];
    struct sp_rep *control;
    struct sp_pub *events, *previews;
    pthread_t thread;
    atomic_bool stop;
    atomic_llong seq; /* of the newest event */
    atomic_int snapshots, checks, hellos;
    atomic_llong running; /* the one item that runs, 0: none */
} node;

static void no_wake(void *arg) { (void)arg; }

static void url_of(const char *name, char ret[128]) { snprintf(ret, 128, "ipc://%s/%s", node.folder, name); }

static void answer_snapshot(struct wr *w)
{
    long long item = atomic_load(&node.running);
    wr_map(w, 3);
    wr_kint(w, "seq", atomic_load(&node.seq));
    wr_kstr(w, "boot_id", "b");
    wr_key(w, "items");
    wr_array(w, item ? 2 : 1);
    wr_map(w, 2);
    wr_kint(w, "item_id", 1000);
    wr_kstr(w, "status", "pending");
    wr_end(w);
    if (item) {
        wr_map(w, 7);
        wr_kint(w, "item_id", item);
        wr_kstr(w, "status", "in_progress");
        wr_kstr(w, "device", "cpu:0");
        wr_kint(w, "attempt", 1);
        wr_kstr(w, "phase", "denoise");
        wr_kint(w, "step", 3);
        wr_kint(w, "total", 20);
        wr_end(w);
    }
    wr_end(w);
    wr_end(w);
}

static void answer_events(struct wr *w, int64_t since)
{
    int64_t seq = atomic_load(&node.seq);
    atomic_fetch_add(&node.checks, 1);
    wr_map(w, 3);
    wr_key(w, "events");
    wr_array(w, since < seq ? 1 : 0);
    if (since < seq) {
        wr_map(w, 1);
        wr_kint(w, "seq", since + 1);
        wr_end(w);
    }
    wr_end(w);
    wr_kint(w, "next", seq);
    wr_kint(w, "lost", 0);
    wr_end(w);
}

static void answer_result(struct wr *w, const char *op, const json_t *args)
{
    if (!strcmp(op, "snapshot")) {
        atomic_fetch_add(&node.snapshots, 1);
        answer_snapshot(w);
    } else if (!strcmp(op, "events")) {
        answer_events(w, json_int(args, "since", 0));
    } else if (!strcmp(op, "image_get")) {
        wr_map(w, 2);
        wr_key(w, "image");
        wr_map(w, 1);
        wr_kstr(w, "image_name", json_str(args, "image_name", ""));
        wr_end(w);
        wr_key(w, "bytes");
        wr_bin(w, "\x89PNG\0\1", 6);
        wr_end(w);
    } else {
        atomic_fetch_add(&node.hellos, !strcmp(op, "hello"));
        wr_map(w, 2);
        wr_kstr(w, "op", op);
        wr_kjson(w, "args", args);
        wr_end(w);
    }
}

static void answer(const struct sp_request *q)
{
    AUTO_BUF out = BUF_INIT;
    struct wr w;
    struct mp c = mp_open(q->bytes, q->n);
    AUTO_JSON *request = NULL;
    assert_int_equal(mp_json(&c, &request, NULL), ST_OK);
    const char *op = json_str(request, "op", "");
    if (!strcmp(op, "silence"))
        return;
    wr_init(&w, &out, WR_MSGPACK);
    wr_map(&w, 2);
    wr_kbool(&w, "ok", strcmp(op, "refuse") != 0);
    if (!strcmp(op, "refuse")) {
        wr_key(&w, "error");
        wr_map(&w, 3);
        wr_kstr(&w, "code", "bad_graph");
        wr_kstr(&w, "message", "node 'x' has no type");
        wr_kstr(&w, "detail", "unknown to this client");
        wr_end(&w);
    } else {
        wr_key(&w, "result");
        answer_result(&w, op, json_object_get(request, "args"));
    }
    wr_end(&w);
    sp_rep_reply(node.control, q->token, out.data, out.len);
}

static void *serve(void *arg)
{
    (void)arg;
    struct sp_request q;
    while (!atomic_load(&node.stop)) {
        if (!sp_rep_take(node.control, &q)) {
            poll(NULL, 0, 1);
            continue;
        }
        answer(&q);
        free(q.bytes);
    }
    return NULL;
}

static void node_start(void)
{
    char url[128];
    struct error err;
    int64_t end = clock_real_ms() + LIMIT_MS;
    atomic_store(&node.stop, false);
    url_of("events", url);
    while (sp_pub_listen(url, 8, &node.events, &err) == ST_BUSY && clock_real_ms() < end)
        poll(NULL, 0, 5); /* the former life's socket is still closing */
    url_of("previews", url);
    while (sp_pub_listen(url, 8, &node.previews, &err) == ST_BUSY && clock_real_ms() < end)
        poll(NULL, 0, 5);
    url_of("control", url);
    while (sp_rep_listen(url, 8, LIMIT_REQUEST_BYTES, 8, no_wake, NULL, &node.control, &err) == ST_BUSY && clock_real_ms() < end)
        poll(NULL, 0, 5);
    assert_int_equal(pthread_create(&node.thread, NULL, serve, NULL), 0);
}

static void node_stop(void)
{
    atomic_store(&node.stop, true);
    pthread_join(node.thread, NULL);
    sp_rep_close(node.control);
    sp_pub_close(node.events);
    sp_pub_close(node.previews);
}

static int before(void **state)
{
    (void)state;
    memset(&node, 0, sizeof node);
    strcpy(node.folder, "/tmp/galley-cl-XXXXXX");
    if (!mkdtemp(node.folder))
        return -1;
    atomic_store(&node.seq, 100);
    node_start();
    return 0;
}

static int after(void **state)
{
    (void)state;
    char command[128];
    node_stop();
    snprintf(command, sizeof command, "rm -rf %s", node.folder);
    return system(command);
}

static galley_client *connected(void)
{
    char url[128];
    galley_client *c;
    galley_error err;
    url_of("control", url);
    if (galley_connect(url, LIMIT_MS, &c, &err))
        fail_msg("%s: %s", err.code, err.message);
    assert_string_equal(galley_url(c), url);
    return c;
}

/* publish sends an event of ITEM with the given STATUS or, without one, step STEP of 20. */
static void publish(int64_t item, const char *status, int64_t step)
{
    AUTO_BUF b = BUF_INIT;
    struct wr w;
    buf_puts(&b, "\xd9\x20");
    buf_printf(&b, "ev/item/%-24lld", (long long)item);
    wr_init(&w, &b, WR_MSGPACK);
    wr_map(&w, 8);
    wr_kstr(&w, "event", status ? "queue_item_status_changed" : "invocation_progress");
    wr_kint(&w, "seq", atomic_fetch_add(&node.seq, 1) + 1);
    wr_kint(&w, "item_id", item);
    wr_kint(&w, "attempt", 1);
    wr_kstr(&w, "device", "cpu:0");
    wr_kstr(&w, status ? "status" : "phase", status ? status : "denoise");
    wr_kint(&w, "step", step);
    wr_kint(&w, "total", 20);
    wr_end(&w);
    sp_pub_send(node.events, b.data, b.len);
}

static void publish_preview(int64_t item, int64_t width, size_t bytes)
{
    AUTO_BUF b = BUF_INIT;
    struct wr w;
    static const uint8_t pixels[300] = {1, 2, 3};
    buf_puts(&b, "\xd9\x20");
    buf_printf(&b, "pv/item/%-24lld", (long long)item);
    wr_init(&w, &b, WR_MSGPACK);
    wr_map(&w, 4);
    wr_kint(&w, "item_id", item);
    wr_kint(&w, "width", width);
    wr_kint(&w, "height", 2);
    wr_key(&w, "image");
    wr_bin(&w, pixels, bytes);
    wr_end(&w);
    sp_pub_send(node.previews, b.data, b.len);
}

static galley_feed *opened(galley_client *c, int with_previews)
{
    galley_feed *f;
    galley_error err;
    if (galley_feed_open(c, with_previews, &f, &err))
        fail_msg("%s: %s", err.code, err.message);
    return f;
}

/* expect waits for the next thing of KIND; what comes between is let pass. */
static galley_feed_event expect(galley_feed *f, galley_feed_kind kind)
{
    galley_feed_event e = {0};
    galley_error err;
    int64_t end = clock_real_ms() + LIMIT_MS;
    while (clock_real_ms() < end) {
        int got = galley_feed_next(f, 500, &e, &err);
        if (got < 0)
            fail_msg("%s: %s", err.code, err.message);
        if (got == 1 && e.kind == kind)
            return e;
    }
    fail_msg("kind %d never came", (int)kind);
    return e;
}

/* heard publishes progress until the feed tells of it: a subscription that has just been made may miss the first. */
static void heard(galley_feed *f, int64_t item)
{
    galley_feed_event e;
    galley_error err;
    int64_t end = clock_real_ms() + LIMIT_MS;
    do {
        publish(item, NULL, 4);
        if (galley_feed_next(f, 50, &e, &err) == 1 && e.kind == GALLEY_EVENT && e.item_id == item)
            return;
    } while (clock_real_ms() < end);
    fail_msg("no event is heard");
}

static void calls_and_refusals(void **state)
{
    (void)state;
    galley_client *c = connected();
    galley_error err;
    char *result = NULL;
    assert_int_equal(galley_call(c, "echo", "{\"a\": [1, 2.5, null, \"\\u00e9\"]}", LIMIT_MS, &result, &err), 0);
    assert_string_equal(result, "{\"op\":\"echo\",\"args\":{\"a\":[1,2.5,null,\"\xc3\xa9\"]}}");
    galley_free(result);
    assert_int_equal(galley_call(c, "refuse", NULL, LIMIT_MS, &result, &err), -1);
    assert_string_equal(err.code, "bad_graph");
    assert_string_equal(err.message, "node 'x' has no type");
    assert_int_equal(galley_call(c, "echo", "[1]", LIMIT_MS, &result, &err), -1);
    assert_string_equal(err.code, "bad_argument");
    assert_int_equal(galley_call(c, "echo", "{", LIMIT_MS, &result, &err), -1);
    assert_string_equal(err.code, "bad_request");
    assert_int_equal(galley_call(c, "silence", NULL, 100, &result, &err), -1);
    assert_string_equal(err.code, "timeout");
    assert_int_equal(galley_call(c, "echo", NULL, LIMIT_MS, &result, &err), 0); /* a late answer is not taken for this one's */
    galley_free(result);
    size_t big = LIMIT_REQUEST_BYTES + 100;
    char *args = malloc(big + 16);
    strcpy(args, "{\"a\":\"");
    memset(args + 6, 'x', big);
    strcpy(args + 6 + big, "\"}");
    assert_int_equal(galley_call(c, "echo", args, LIMIT_MS, &result, &err), -1);
    assert_string_equal(err.code, "too_large");
    free(args);
    void *bytes;
    size_t n;
    assert_int_equal(galley_image(c, "a.png", LIMIT_MS, &bytes, &n, &err), 0);
    assert_int_equal(n, 6);
    assert_memory_equal(bytes, "\x89PNG\0\1", 6);
    galley_free(bytes);
    galley_close(c);
}

static void nobody_there(void **state)
{
    (void)state;
    galley_client *c;
    galley_error err;
    assert_int_equal(galley_connect("ipc:///tmp/galley-no-such/control", LIMIT_MS, &c, &err), -1);
    assert_string_equal(err.code, "unreachable");
    assert_int_equal(setenv("GALLEY_HOME", "/tmp/galley-no-such", 1), 0);
    assert_int_equal(galley_connect(NULL, LIMIT_MS, &c, &err), -1);
    assert_string_equal(err.code, "unreachable");
    assert_non_null(strstr(err.message, "/tmp/galley-no-such/run/control"));
    assert_int_equal(unsetenv("GALLEY_HOME"), 0);
    galley_close(NULL);
    galley_feed_close(NULL);
}

static void a_feed_keeps_the_table(void **state)
{
    (void)state;
    galley_client *c = connected();
    const galley_item *items;
    atomic_store(&node.running, 7);
    galley_feed *f = opened(c, 1);
    galley_feed_event e = expect(f, GALLEY_RESYNC);
    assert_non_null(strstr(e.json, "\"boot_id\""));
    assert_int_equal(galley_feed_items(f, &items), 1); /* pending items are not in progress */
    assert_int_equal(items[0].item_id, 7);
    assert_int_equal(items[0].step, 3);
    assert_string_equal(items[0].phase, "denoise");
    heard(f, 7);
    publish(5, "in_progress", 0);
    do
        e = expect(f, GALLEY_EVENT);
    while (e.item_id != 5);
    assert_non_null(strstr(e.json, "\"queue_item_status_changed\""));
    assert_int_equal(galley_feed_items(f, &items), 2);
    assert_int_equal(items[0].item_id, 5); /* ascending */
    assert_string_equal(items[0].device, "cpu:0");
    for (int64_t step = 5; step <= 9; step++)
        publish(7, NULL, step);
    do
        expect(f, GALLEY_EVENT);
    while (galley_feed_items(f, &items) == 2 && items[1].step != 9);
    assert_int_equal(items[1].total, 20);
    publish_preview(7, 3, 17);  /* of the wrong size: dropped */
    publish_preview(99, 3, 18); /* of no item in progress: dropped */
    publish_preview(7, 3, 18);
    e = expect(f, GALLEY_PREVIEW);
    assert_int_equal(e.item_id, 7);
    galley_feed_items(f, &items);
    assert_int_equal(items[1].preview_width, 3);
    assert_int_equal(items[1].preview_height, 2);
    assert_memory_equal(items[1].preview, "\1\2\3", 3);
    publish(7, "completed", 0);
    do
        e = expect(f, GALLEY_EVENT);
    while (e.item_id != 7);
    assert_int_equal(galley_feed_items(f, &items), 1);
    assert_int_equal(items[0].item_id, 5);
    galley_feed_close(f);
    galley_close(c);
}

static void a_gap_is_mended_by_a_snapshot(void **state)
{
    (void)state;
    galley_client *c = connected();
    const galley_item *items;
    galley_feed *f = opened(c, 0);
    expect(f, GALLEY_RESYNC);
    atomic_store(&node.running, 7);
    heard(f, 1);
    int before_gap = atomic_load(&node.snapshots);
    atomic_fetch_add(&node.seq, 3); /* three events that never came */
    publish(1, NULL, 2);
    expect(f, GALLEY_RESYNC);
    assert_int_equal(atomic_load(&node.snapshots), before_gap + 1);
    assert_int_equal(galley_feed_items(f, &items), 1);
    assert_int_equal(items[0].item_id, 7);
    publish(7, NULL, 11);
    expect(f, GALLEY_EVENT);
    galley_feed_items(f, &items);
    assert_int_equal(items[0].step, 11);
    galley_feed_close(f);
    galley_close(c);
}

static void a_lost_last_event_is_found_out(void **state)
{
    (void)state;
    galley_client *c = connected();
    const galley_item *items;
    atomic_store(&node.running, 7);
    galley_feed *f = opened(c, 0);
    expect(f, GALLEY_RESYNC);
    heard(f, 7);
    assert_int_equal(galley_feed_items(f, &items), 1);
    atomic_store(&node.running, 0);
    atomic_fetch_add(&node.seq, 1); /* the end of item 7, dropped; nothing follows it */
    expect(f, GALLEY_RESYNC);
    assert_true(atomic_load(&node.checks) >= 1);
    assert_int_equal(galley_feed_items(f, &items), 0);
    galley_feed_close(f);
    galley_close(c);
}

static void a_restarted_node_is_followed(void **state)
{
    (void)state;
    galley_client *c = connected();
    const galley_item *items;
    galley_feed *f = opened(c, 0);
    expect(f, GALLEY_RESYNC);
    node_stop();
    expect(f, GALLEY_LOST);
    galley_feed_event e;
    galley_error err;
    assert_int_equal(galley_feed_next(f, 300, &e, &err), 0); /* told once */
    atomic_store(&node.running, 8);
    atomic_store(&node.seq, 5000);
    node_start();
    expect(f, GALLEY_RESYNC);
    assert_int_equal(galley_feed_items(f, &items), 1);
    assert_int_equal(items[0].item_id, 8);
    char *result;
    assert_int_equal(galley_call(c, "echo", NULL, LIMIT_MS, &result, &err), 0);
    galley_free(result);
    galley_feed_close(f);
    galley_close(c);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calls_and_refusals, before, after),
        cmocka_unit_test_setup_teardown(nobody_there, before, after),
        cmocka_unit_test_setup_teardown(a_feed_keeps_the_table, before, after),
        cmocka_unit_test_setup_teardown(a_gap_is_mended_by_a_snapshot, before, after),
        cmocka_unit_test_setup_teardown(a_lost_last_event_is_found_out, before, after),
        cmocka_unit_test_setup_teardown(a_restarted_node_is_followed, before, after),
    };
    _exit(cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0); /* nng_close may hang: nothing waits for it */
}
