/* The contract of queue.h, function by function. */
#include "queue_kit.h"
#include <sys/stat.h>
#include <sys/wait.h>

static int setup(void **state)
{
    struct kit *k = malloc(sizeof *k);
    kit_open(k);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    kit_close(*state);
    free(*state);
    return 0;
}

static void states(void **state)
{
    (void)state;
    enum item_state s;
    assert_true(item_state_from_name("canceling", &s) && s == ITEM_CANCELING);
    assert_false(item_state_from_name("cancelling", &s));
    assert_string_equal(item_state_reader_name(ITEM_HELD), "pending");
    assert_string_equal(item_state_reader_name(ITEM_CANCELING), "in_progress");
    for (int from = 0; from < ITEM_STATES; from++)
        for (int to = 0; to < ITEM_STATES; to++)
            if (item_state_terminal((enum item_state)from))
                assert_false(item_state_allowed((enum item_state)from, (enum item_state)to));
    assert_true(item_state_allowed(ITEM_PENDING, ITEM_IN_PROGRESS));
    assert_false(item_state_allowed(ITEM_PENDING, ITEM_COMPLETED));
    assert_false(item_state_allowed(ITEM_CANCELING, ITEM_COMPLETED));
    assert_false(item_state_allowed(ITEM_GONE, ITEM_PENDING));
}

static void open_refuses(void **state)
{
    struct kit *k = *state;
    struct queue *second;
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    assert_int_equal(queue_open(k->dir, false, &second, &k->err), ST_BUSY);
    assert_says(k->err.message, pid);
    assert_says(k->err.message, k->dir);

    assert_ok(sql_exec(k->q->sql.db, "PRAGMA user_version=99", &k->err), k->err);
    kit_disconnect(k);
    assert_int_equal(queue_open(k->dir, false, &second, &k->err), ST_BAD_STATE);
    assert_says(k->err.message, "schema 99");
    assert_says(k->err.message, "newer galley");

    char *other = temp_dir();
    write_text(other, "galley.db",
               "this is no database, it is a letter to a friend; long enough to be read as a header of one hundred bytes, or so I think");
    assert_int_equal(queue_open(other, false, &second, &k->err), ST_CORRUPT);
    temp_dir_remove(other);
    assert_int_equal(queue_open("/nonexistent/folder", false, &second, &k->err), ST_NOT_FOUND);
}

static void open_refuses_foreign(void **state)
{
    struct kit *k = *state;
    char path[PATH_BYTES];
    sqlite3 *db;
    char *other = temp_dir();
    assert_ok(queue_db_path(other, path, &k->err), k->err);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_ok(sql_exec(db, "CREATE TABLE songs(name)", &k->err), k->err);
    sqlite3_close(db);
    struct queue *q;
    assert_int_equal(queue_open(other, false, &q, &k->err), ST_CORRUPT);
    assert_says(k->err.message, "not a database of galley");
    temp_dir_remove(other);
}

static void open_keeps(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 3);
    kit_disconnect(k);
    kit_connect(k);
    assert_int_equal(kit_count(k, ITEM_PENDING), 3);
    assert_int_equal(kit_state(k, id), ITEM_PENDING);
    int64_t v = 0;
    assert_ok(sql_pragma_int(k->q->sql.db, "PRAGMA foreign_keys", &v, &k->err), k->err);
    assert_int_equal(v, 1);
    assert_ok(sql_pragma_int(k->q->sql.db, "PRAGMA wal_autocheckpoint", &v, &k->err), k->err);
    assert_int_equal(v, 0);
    kit_disconnect(k);
    assert_ok(queue_open(k->dir, true, &k->q, &k->err), k->err);
    assert_ok(sql_pragma_int(k->q->sql.db, "PRAGMA synchronous", &v, &k->err), k->err);
    assert_int_equal(v, 1); /* NORMAL: the log is queue_sync's */
}

static void enqueue(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 5);
    struct enqueue_result r1, r2;
    WRITE_OK(k, queue_enqueue(k->q, &a, &r1, &k->err));
    assert_int_equal(r1.count, 5);
    assert_int_equal(r1.priority, 0);
    assert_false(r1.replayed);
    a.batch_id = "mine";
    a.prepend = true;
    WRITE_OK(k, queue_enqueue(k->q, &a, &r2, &k->err));
    assert_int_equal(r2.first_item_id, r1.first_item_id + 5);
    assert_int_equal(r2.priority, 1);
    assert_string_equal(r2.batch_id, "mine");
    assert_int_equal(WRITE(k, queue_enqueue(k->q, &a, &r2, &k->err)), ST_CONFLICT);
    assert_says(k->err.message, "'mine'");
    a.batch_id = NULL;
    WRITE_OK(k, queue_enqueue(k->q, &a, &r2, &k->err));
    assert_int_equal(r2.priority, 2);
    assert_int_equal(kit_claim(k, NULL), r2.first_item_id);
    a.count = 0;
    assert_int_equal(WRITE(k, queue_enqueue(k->q, &a, &r2, &k->err)), ST_BAD_ARGUMENT);
    assert_int_equal(kit_count(k, ITEM_PENDING), 14);
}

static void enqueue_full(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 6);
    struct enqueue_result r;
    a.max_queue_size = 10;
    WRITE_OK(k, queue_enqueue(k->q, &a, &r, &k->err));
    a.count = 5;
    assert_int_equal(WRITE(k, queue_enqueue(k->q, &a, &r, &k->err)), ST_QUEUE_FULL);
    assert_says(k->err.message, "6 pending");
    assert_says(k->err.message, "takes 10");
    assert_says(k->err.message, "5 were asked");
    assert_int_equal(kit_count(k, ITEM_PENDING), 6);
    a.queue_id = "another";
    WRITE_OK(k, queue_enqueue(k->q, &a, &r, &k->err));
    int64_t c[ITEM_STATES];
    assert_ok(queue_counts(k->q, "another", c, &k->err), k->err);
    assert_int_equal(c[ITEM_PENDING], 5);
    assert_ok(reader_counts(k->r, "nobody's", c, &k->err), k->err);
    assert_int_equal(c[ITEM_PENDING], 0);
    a.queue_id = NULL;
    a.count = 4;
    WRITE_OK(k, queue_enqueue(k->q, &a, &r, &k->err));
}

static void idempotency(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 4);
    struct enqueue_result r1, r2;
    a.key = "k1";
    a.body_hash[0] = 1;
    a.prepend = true;
    a.max_queue_size = 4;
    WRITE_OK(k, queue_enqueue(k->q, &a, &r1, &k->err));
    WRITE_OK(k, queue_enqueue(k->q, &a, &r2, &k->err)); /* replayed although the queue is full */
    assert_true(r2.replayed);
    assert_int_equal(r1.first_item_id, r2.first_item_id);
    assert_int_equal(r1.count, r2.count);
    assert_int_equal(r1.priority, r2.priority);
    assert_string_equal(r1.batch_id, r2.batch_id);
    assert_int_equal(kit_count(k, ITEM_PENDING), 4);
    a.body_hash[0] = 2;
    assert_int_equal(WRITE(k, queue_enqueue(k->q, &a, &r2, &k->err)), ST_CONFLICT);
    assert_says(k->err.message, "'k1'");
    a.user = "another user";
    a.max_queue_size = 100;
    WRITE_OK(k, queue_enqueue(k->q, &a, &r2, &k->err));
    assert_false(r2.replayed);

    a.user = NULL;
    a.body_hash[0] = 1;
    WRITE_OK(k, queue_clear(k->q, NULL, &k->ch, &k->err));
    kit_disconnect(k);
    kit_connect(k);
    WRITE_OK(k, queue_enqueue(k->q, &a, &r2, &k->err)); /* after a restart and a clear too */
    assert_true(r2.replayed);
    a.now_ms += 8 * 86400000LL;
    a.key = "k2";
    WRITE_OK(k, queue_enqueue(k->q, &a, &r2, &k->err));
    a.key = "k1";
    WRITE_OK(k, queue_enqueue(k->q, &a, &r2, &k->err)); /* a week later it is a new one */
    assert_false(r2.replayed);
}

static void claim(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 2);
    struct enqueue_result e;
    a.batch_id = "b", a.origin = "o", a.user = "u", a.workflow = "{\"w\":1}";
    a.data = "[[{\"node_path\":\"n\",\"field_name\":\"f\",\"items\":[1,2]}]]";
    WRITE_OK(k, queue_enqueue(k->q, &a, &e, &k->err));
    struct claim_args c = {.slot = 3, .device = "cpu:3", .worker = "w3", .launch = 9, .now_ms = k->now + 5};
    struct claim_result r[3];
    for (int i = 0; i < 3; i++)
        WRITE_OK(k, queue_claim(k->q, &c, &r[i], &k->ch, &k->err));
    assert_true(r[0].found && r[1].found && !r[2].found);
    assert_int_equal(r[2].next_ms, 0);
    assert_int_equal(r[0].item_id, e.first_item_id);
    assert_int_equal(r[1].ordinal, 1);
    assert_int_equal(r[0].epoch, 1);
    assert_int_equal(r[0].attempt, 1);
    assert_int_equal(r[0].max_attempts, 3);
    assert_ptr_equal(r[0].batch, r[1].batch); /* read once */
    assert_string_equal(r[0].batch->graph, a.graph);
    assert_string_equal(r[0].batch->workflow, a.workflow);
    assert_string_equal(r[0].batch->data, a.data);
    assert_string_equal(r[0].batch->user, "u");
    assert_string_equal(r[0].batch->origin, "o");
    assert_string_equal(r[0].batch->destination, "");
    assert_string_not_equal(r[0].session_id, r[1].session_id);
    struct item_page p;
    assert_ok(reader_current(k->r, &p, &k->err), k->err);
    assert_int_equal(p.n, 2);
    assert_string_equal(p.rows[1].device, "cpu:3");
    assert_string_equal(p.rows[1].worker, "w3");
    assert_string_equal(p.rows[1].session_id, r[1].session_id);
    assert_int_equal(p.rows[1].started_at, k->now + 5);
    assert_int_equal(p.rows[1].status_sequence, 1);
    assert_int_equal(json_int(json_array_get(p.rows[1].field_values, 0), "value", 0), 2);
    assert_null(p.rows[1].destination);
    item_page_fini(&p);
    batch_text_unref(r[0].batch);
    batch_text_unref(r[1].batch);
}

static void claim_reports(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 1);
    struct enqueue_result e;
    a.batch_id = "b", a.origin = "o", a.destination = "d";
    WRITE_OK(k, queue_enqueue(k->q, &a, &e, &k->err));
    assert_int_equal(kit_claim_on(k, 1, false, NULL), e.first_item_id);
    assert_int_equal(k->ch.n, 1);
    const struct item_change *c = &k->ch.v[0];
    assert_int_equal(c->from, ITEM_PENDING);
    assert_int_equal(c->to, ITEM_IN_PROGRESS);
    assert_int_equal(c->slot, 1);
    assert_int_equal(c->attempt, 1);
    assert_int_equal(c->epoch, 1);
    assert_int_equal(c->status_sequence, 1);
    assert_string_equal(c->batch_id, "b");
    assert_string_equal(c->queue_id, "default");
    assert_string_equal(c->user, "system");
    assert_string_equal(c->destination, "d");
    assert_string_equal(c->device, "cpu:1");
    assert_null(c->error_type);
}

static void finish(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 2), epoch;
    assert_int_equal(kit_finish(k, id, 0, ITEM_COMPLETED), ST_BAD_STATE); /* not running */
    assert_int_equal(kit_claim(k, &epoch), id);
    assert_int_equal(kit_finish(k, id, epoch + 1, ITEM_COMPLETED), ST_BAD_STATE);
    assert_int_equal(kit_finish(k, id, epoch - 1, ITEM_COMPLETED), ST_BAD_STATE);
    assert_int_equal(kit_finish(k, id, epoch, ITEM_HELD), ST_BAD_ARGUMENT);
    assert_int_equal(kit_state(k, id), ITEM_IN_PROGRESS);
    bool done;
    assert_ok(queue_finished_epoch(k->q, id, epoch, &done, &k->err), k->err);
    assert_false(done);
    assert_int_equal(kit_finish(k, id, epoch, ITEM_COMPLETED), ST_OK);
    assert_int_equal(k->ch.n, 1);
    assert_int_equal(k->ch.v[0].completed_at, k->now);
    assert_ok(queue_finished_epoch(k->q, id, epoch, &done, &k->err), k->err);
    assert_true(done);
    assert_int_equal(kit_finish(k, id, epoch, ITEM_FAILED), ST_BAD_STATE); /* once */
    assert_says(k->err.message, "completed");
    struct item_detail d;
    assert_ok(reader_item(k->r, id, &d, &k->err), k->err);
    assert_string_equal(d.session, "{\"id\":\"s\"}");
    assert_int_equal(d.page.rows[0].cost_ms, 7);
    assert_int_equal(d.page.rows[0].status_sequence, 2);
    assert_null(d.page.rows[0].error_type);
    item_detail_fini(&d);
    assert_int_equal(kit_claim(k, &epoch), id + 1);
    assert_int_equal(kit_finish(k, id + 1, epoch, ITEM_FAILED), ST_OK);
    assert_ok(reader_item(k->r, id + 1, &d, &k->err), k->err);
    assert_string_equal(d.page.rows[0].error_type, "node_failed");
    assert_string_equal(d.page.rows[0].error_message, "no");
    item_detail_fini(&d);
    assert_int_equal(reader_item(k->r, 999, &d, &k->err), ST_NOT_FOUND);
    assert_int_equal(kit_finish(k, 999, 1, ITEM_COMPLETED), ST_BAD_STATE);
}

static void images(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 2), epoch;
    kit_claim(k, &epoch);
    struct finish_image m[2] = {{.name = "a.png", .node_id = "l2i", .width = 64, .height = 32, .bytes = 100, .sha256 = {7}},
                                {.name = "b.png", .is_intermediate = true}};
    struct finish_args f = {.item_id = id, .epoch = epoch, .outcome = ITEM_COMPLETED, .images = m, .n_images = 2, .now_ms = k->now};
    WRITE_OK(k, queue_finish(k->q, &f, &k->ch, &k->err));
    struct image_page p;
    assert_ok(reader_images(k->r, 0, 0, 1, &p, &k->err), k->err);
    assert_int_equal(p.n, 1);
    assert_true(p.more);
    assert_string_equal(p.rows[0].name, "b.png");
    assert_true(p.rows[0].is_intermediate);
    int64_t before = p.rows[0].image_id;
    image_page_fini(&p);
    assert_ok(reader_images(k->r, before, id, 10, &p, &k->err), k->err);
    assert_int_equal(p.n, 1);
    assert_false(p.more);
    assert_int_equal(p.rows[0].width, 64);
    assert_int_equal(p.rows[0].sha256[0], 7);
    assert_string_equal(p.rows[0].node_id, "l2i");
    image_page_fini(&p);
    assert_ok(reader_images(k->r, 0, id + 1, 10, &p, &k->err), k->err);
    assert_int_equal(p.n, 0);
    image_page_fini(&p);
    assert_ok(reader_image(k->r, "a.png", &p, &k->err), k->err);
    assert_int_equal(p.rows[0].item_id, id);
    image_page_fini(&p);
    assert_int_equal(reader_image(k->r, "z.png", &p, &k->err), ST_NOT_FOUND);

    kit_claim(k, &epoch);
    f.item_id = id + 1, f.epoch = epoch, f.n_images = 1;
    assert_int_equal(WRITE(k, queue_finish(k->q, &f, &k->ch, &k->err)), ST_CONFLICT); /* a name twice */
    assert_int_equal(kit_state(k, id + 1), ITEM_IN_PROGRESS);
    m[0].name = "c.png", m[1].name = "c.png", f.n_images = 2;
    assert_int_equal(WRITE(k, queue_finish(k->q, &f, &k->ch, &k->err)), ST_CONFLICT);
    WRITE_OK(k, queue_image_delete(k->q, "b.png", &k->err));
    assert_int_equal(WRITE(k, queue_image_delete(k->q, "b.png", &k->err)), ST_NOT_FOUND);
}

static void cancel(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 3), epoch;
    kit_claim(k, &epoch);
    assert_int_equal(WRITE(k, queue_cancel(k->q, id, 0, k->now, &k->ch, &k->err)), ST_BAD_STATE); /* a stale attempt */
    assert_int_equal(kit_state(k, id), ITEM_IN_PROGRESS);
    WRITE_OK(k, queue_cancel(k->q, id, 1, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 1);
    assert_int_equal(k->ch.v[0].to, ITEM_CANCELING);
    assert_int_equal(k->ch.v[0].epoch, epoch);
    WRITE_OK(k, queue_cancel(k->q, id, -1, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 0);
    struct finish_image m = {.name = "late.png"};
    struct finish_args f = {.item_id = id, .epoch = epoch, .outcome = ITEM_COMPLETED, .images = &m, .n_images = 1, .now_ms = k->now};
    WRITE_OK(k, queue_finish(k->q, &f, &k->ch, &k->err));
    assert_int_equal(k->ch.v[0].to, ITEM_CANCELED); /* the cancel was acknowledged */
    struct image_page p;
    assert_int_equal(reader_image(k->r, "late.png", &p, &k->err), ST_NOT_FOUND);
    WRITE_OK(k, queue_cancel(k->q, id + 1, -1, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.v[0].to, ITEM_CANCELED);
    WRITE_OK(k, queue_cancel(k->q, id + 1, -1, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 0);
    assert_int_equal(WRITE(k, queue_cancel(k->q, 77, -1, k->now, &k->ch, &k->err)), ST_NOT_FOUND);
    assert_int_equal(kit_claim(k, NULL), id + 2);
    assert_int_equal(kit_count(k, ITEM_CANCELED), 2);
}

static void cancel_many(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 3);
    struct enqueue_result e[3];
    const char *names[] = {"x", "y", "z"};
    for (int i = 0; i < 3; i++) {
        a.batch_id = names[i];
        WRITE_OK(k, queue_enqueue(k->q, &a, &e[i], &k->err));
    }
    int64_t epoch, id = kit_claim(k, &epoch);
    assert_int_equal(kit_finish(k, id, epoch, ITEM_COMPLETED), ST_OK);
    kit_claim(k, &epoch);
    const char *ids[] = {"x", "no such", "z", "x"};
    WRITE_OK(k, queue_cancel_batches(k->q, ids, 4, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 5);
    assert_int_equal(kit_count(k, ITEM_CANCELED), 4);
    assert_int_equal(kit_count(k, ITEM_CANCELING), 1);
    struct batch_counts b;
    assert_ok(reader_batch(k->r, "x", &b, &k->err), k->err);
    assert_int_equal(b.total, 3);
    assert_int_equal(b.count[ITEM_COMPLETED], 1);
    assert_int_equal(b.count[ITEM_CANCELING], 1);
    assert_int_equal(b.count[ITEM_CANCELED], 1);
    assert_int_equal(reader_batch(k->r, "no such", &b, &k->err), ST_NOT_FOUND);
    WRITE_OK(k, queue_cancel_pending(k->q, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 3);
    assert_int_equal(k->ch.v[0].item_id, e[1].first_item_id);
    assert_int_equal(kit_count(k, ITEM_CANCELING), 1);
}

static void blame(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 1), epoch;
    assert_int_equal(kit_claim(k, &epoch), id);
    WRITE_OK(k, queue_attempt_ended(k->q, id, epoch, END_CRASH, "worker died: signal 9", 250, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.v[0].to, ITEM_PENDING);
    assert_int_equal(k->ch.v[0].not_before, k->now + 250);
    assert_int_equal(WRITE(k, queue_attempt_ended(k->q, id, epoch, END_CRASH, NULL, 0, k->now, &k->ch, &k->err)), ST_BAD_STATE);

    struct claim_args a = {.slot = 0, .device = "cpu:0", .worker = "w", .now_ms = k->now};
    struct claim_result r;
    WRITE_OK(k, queue_claim(k->q, &a, &r, &k->ch, &k->err));
    assert_false(r.found);
    assert_int_equal(r.next_ms, k->now + 250);
    k->now += 250;
    assert_int_equal(kit_claim_on(k, 0, true, &epoch), 0); /* it ended a worker here, and another slot can run it */
    assert_int_equal(kit_claim_on(k, 1, true, &epoch), id);
    assert_int_equal(epoch, 2);
    WRITE_OK(k, queue_attempt_ended(k->q, id, epoch, END_HANG, "no movement for 60 s", 500, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.v[0].to, ITEM_FAILED);
    assert_string_equal(k->ch.v[0].error_type, "poison");
    assert_says(k->ch.v[0].error_message, "ended 2 workers");
    assert_says(k->ch.v[0].error_message, "no movement for 60 s");

    id = kit_enqueue(k, 1);
    kit_claim(k, &epoch);
    WRITE_OK(k, queue_attempt_ended(k->q, id, epoch, END_CRASH, "died", 0, k->now, &k->ch, &k->err));
    assert_int_equal(kit_claim_on(k, 0, false, &epoch), id); /* alone: this slot must do */
}

static void blame_limits(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 1);
    struct enqueue_result e;
    int64_t epoch;
    a.max_attempts = 1;
    WRITE_OK(k, queue_enqueue(k->q, &a, &e, &k->err));
    for (int i = 0; i < 5; i++) { /* what is not the item's fault does not count */
        enum attempt_end not_counted[] = {END_DRAIN, END_STOP, END_SUPERVISOR_CRASH, END_DEVICE_LOST, END_DRAIN};
        assert_int_equal(kit_claim(k, &epoch), e.first_item_id);
        WRITE_OK(k, queue_attempt_ended(k->q, e.first_item_id, epoch, not_counted[i], "bad luck", 1000, k->now, &k->ch, &k->err));
        assert_int_equal(k->ch.v[0].to, ITEM_PENDING);
        assert_int_equal(k->ch.v[0].attempt, i + 1); /* yet each attempt has its own number */
        assert_int_equal(k->ch.v[0].not_before, 0);
    }
    kit_claim(k, &epoch);
    WRITE_OK(k, queue_attempt_ended(k->q, e.first_item_id, epoch, END_HANG, "stood still", 0, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.v[0].to, ITEM_FAILED);
    assert_string_equal(k->ch.v[0].error_type, "worker_hung");
    assert_says(k->ch.v[0].error_message, "attempt 1 of 1");

    int64_t id = kit_enqueue(k, 1);
    kit_claim(k, &epoch);
    WRITE_OK(k, queue_attempt_ended(k->q, id, epoch, END_OUT_OF_MEMORY, "needs 9 GiB, 4 free", 0, k->now, &k->ch, &k->err));
    struct claim_args c = {.slot = 0, .device = "cpu:0", .worker = "w", .now_ms = k->now};
    struct claim_result r;
    WRITE_OK(k, queue_claim(k->q, &c, &r, &k->ch, &k->err));
    assert_true(r.found && r.alone);
    batch_text_unref(r.batch);
    WRITE_OK(k, queue_attempt_ended(k->q, id, r.epoch, END_OUT_OF_MEMORY, "needs 9 GiB, 5 free", 0, k->now, &k->ch, &k->err));
    assert_string_equal(k->ch.v[0].error_type, "out_of_memory");
    assert_says(k->ch.v[0].error_message, "5 free");

    id = kit_enqueue(k, 1);
    kit_claim(k, &epoch);
    WRITE_OK(k, queue_cancel(k->q, id, -1, k->now, &k->ch, &k->err));
    WRITE_OK(k, queue_attempt_ended(k->q, id, epoch, END_CRASH, "killed", 0, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.v[0].to, ITEM_CANCELED);
}

static void fail_pending(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 1);
    WRITE_OK(k, queue_fail_pending(k->q, id, "no_device", "nothing can run it", k->now, &k->ch, &k->err));
    assert_int_equal(kit_state(k, id), ITEM_FAILED);
    assert_int_equal(WRITE(k, queue_fail_pending(k->q, id, "x", "y", k->now, &k->ch, &k->err)), ST_BAD_STATE);
}

static void retry(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 4);
    struct enqueue_result e;
    int64_t epoch[3], first;
    a.prepend = true;
    WRITE_OK(k, queue_enqueue(k->q, &a, &e, &k->err));
    first = e.first_item_id;
    for (int i = 0; i < 3; i++)
        assert_int_equal(kit_claim(k, &epoch[i]), first + i);
    assert_int_equal(kit_finish(k, first, epoch[0], ITEM_COMPLETED), ST_OK);
    assert_int_equal(kit_finish(k, first + 1, epoch[1], ITEM_FAILED), ST_OK);
    int64_t ids[] = {first + 1, first, first + 1, 999, first + 2}; /* failed, completed, twice, unknown, running */
    assert_int_equal(WRITE(k, queue_retry(k->q, ids, 5, true, 2, k->now, &k->ch, &k->err)), ST_QUEUE_FULL);
    assert_int_equal(kit_count(k, ITEM_PENDING), 1); /* all or nothing */
    WRITE_OK(k, queue_retry(k->q, ids, 5, true, 3, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 2);
    assert_int_equal(k->ch.v[0].retried_from, first + 1);
    assert_int_equal(k->ch.v[0].retry_of, first + 1);
    assert_int_equal(k->ch.v[0].from, ITEM_GONE);
    assert_int_equal(k->ch.v[1].retry_of, first);
    assert_true(k->ch.v[1].item_id > first + 3);
    struct item_detail d;
    int64_t fresh = k->ch.v[0].item_id;
    assert_ok(reader_item(k->r, fresh, &d, &k->err), k->err);
    assert_int_equal(d.page.rows[0].retried_from, first + 1);
    assert_int_equal(d.page.rows[0].ordinal, 1);
    assert_int_equal(d.page.rows[0].priority, 1);
    assert_int_equal(d.page.rows[0].attempt, 0);
    assert_string_equal(d.page.rows[0].batch_id, e.batch_id);
    item_detail_fini(&d);
    WRITE_OK(k, queue_retry(k->q, &ids[1], 1, false, 100, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 0); /* completed: only with again */
    WRITE_OK(k, queue_cancel(k->q, fresh, -1, k->now, &k->ch, &k->err));
    WRITE_OK(k, queue_retry(k->q, &fresh, 1, false, 100, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.v[0].retried_from, first + 1); /* the first of the chain */
    assert_int_equal(k->ch.v[0].retry_of, fresh);
}

static int64_t one_number(struct kit *k, const char *sql)
{
    int64_t v = -1;
    assert_ok(sql_pragma_int(k->q->sql.db, sql, &v, &k->err), k->err);
    return v;
}

static int64_t completed_with_image(struct kit *k, const char *name)
{
    int64_t id = kit_enqueue(k, 1), epoch;
    assert_int_equal(kit_claim(k, &epoch), id);
    struct finish_image m = {.name = name};
    struct finish_args f = {
        .item_id = id, .epoch = epoch, .outcome = ITEM_COMPLETED, .images = &m, .n_images = 1, .session = "{}", .now_ms = k->now};
    WRITE_OK(k, queue_finish(k->q, &f, &k->ch, &k->err));
    return id;
}

static void deleting(void **state)
{
    struct kit *k = *state;
    int64_t a = completed_with_image(k, "a.png"), b = completed_with_image(k, "b.png"), epoch;
    int64_t c = kit_enqueue(k, 2);
    assert_int_equal(kit_claim(k, &epoch), c);
    AUTO_JSON *names = json_array();
    int64_t ids[] = {a, 999};
    assert_int_equal(WRITE(k, queue_delete(k->q, ids, 2, names, &k->ch, &k->err)), ST_NOT_FOUND);
    assert_int_equal(kit_state(k, a), ITEM_COMPLETED);
    ids[1] = a;
    assert_int_equal(WRITE(k, queue_delete(k->q, ids, 2, names, &k->ch, &k->err)), ST_BAD_ARGUMENT);
    ids[1] = c;
    WRITE_OK(k, queue_delete(k->q, ids, 2, names, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 2);
    assert_int_equal(k->ch.v[1].from, ITEM_IN_PROGRESS);
    assert_int_equal(k->ch.v[1].to, ITEM_GONE);
    assert_int_equal(k->ch.v[1].slot, 0);
    assert_int_equal(json_array_size(names), 1);
    assert_string_equal(json_string_value(json_array_get(names, 0)), "a.png");
    assert_int_equal(kit_finish(k, c, epoch, ITEM_COMPLETED), ST_BAD_STATE); /* its worker comes late */
    assert_says(k->err.message, "deleted");
    WRITE_OK(k, queue_prune(k->q, 0, NULL, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 1);
    assert_int_equal(k->ch.v[0].item_id, b);
    struct image_page p;
    assert_ok(reader_image(k->r, "b.png", &p, &k->err), k->err); /* pictures are kept unless asked for */
    image_page_fini(&p);
    assert_int_equal(one_number(k, "SELECT count(*) FROM batches"), 1);
    assert_int_equal(one_number(k, "SELECT count(*) FROM item_results"), 0);
    WRITE_OK(k, queue_clear(k->q, names, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 1);
    assert_int_equal(one_number(k, "SELECT count(*) FROM batches"), 0);
    assert_int_equal(one_number(k, "SELECT count(*) FROM batch_counts"), 0);
    for (int s = 0; s < ITEM_STATES; s++)
        assert_int_equal(kit_count(k, (enum item_state)s), 0);
    assert_true(kit_enqueue(k, 1) > c + 1); /* ids are never given out again */
}

static void prune_in_parts(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 5);
    WRITE_OK(k, queue_cancel_pending(k->q, k->now, &k->ch, &k->err));
    WRITE_OK(k, queue_prune(k->q, 2, NULL, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 2);
    assert_int_equal(k->ch.v[1].item_id, id + 1);
    WRITE_OK(k, queue_prune(k->q, 100, NULL, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 3);
}

static void recovery(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 3), epoch;
    kit_claim(k, NULL);
    assert_int_equal(kit_claim_on(k, 1, false, NULL), id + 1);
    WRITE_OK(k, queue_cancel(k->q, id + 1, -1, k->now, &k->ch, &k->err));
    for (int crash = 1; crash <= 3; crash++) {
        kit_disconnect(k);
        kit_connect(k);
        k->now += 100000;
        WRITE_OK(k, queue_recover(k->q, k->now, &k->ch, &k->err));
        assert_int_equal(k->ch.n, crash == 1 ? 2 : 1);
        assert_int_equal(k->ch.v[0].to, crash == 3 ? ITEM_HELD : ITEM_PENDING);
        if (crash == 1)
            assert_int_equal(k->ch.v[1].to, ITEM_CANCELED);
        if (crash < 3)
            assert_int_equal(kit_claim(k, &epoch), id);
    }
    struct item_detail d;
    assert_ok(reader_item(k->r, id, &d, &k->err), k->err);
    assert_says(d.page.rows[0].reason, "three crashes");
    assert_int_equal(d.page.rows[0].attempt, 3);
    item_detail_fini(&d);
    assert_int_equal(kit_claim(k, &epoch), id + 2); /* the queue goes on */
    WRITE_OK(k, queue_cancel(k->q, id, -1, k->now, &k->ch, &k->err));
    assert_int_equal(kit_state(k, id), ITEM_CANCELED);
}

static void recovery_far_apart(void **state)
{
    struct kit *k = *state;
    int64_t id = kit_enqueue(k, 1);
    for (int crash = 0; crash < 6; crash++) {
        assert_int_equal(kit_claim(k, NULL), id);
        k->now += 151000;
        WRITE_OK(k, queue_recover(k->q, k->now, &k->ch, &k->err));
        assert_int_equal(k->ch.v[0].to, ITEM_PENDING);
    }
}

static void facts(void **state)
{
    struct kit *k = *state;
    char text[8];
    int64_t v;
    assert_int_equal(queue_meta_get(k->q, "boot", text, sizeof text, &k->err), ST_NOT_FOUND);
    WRITE_OK(k, queue_meta_set(k->q, "boot", "abc", &k->err));
    assert_ok(queue_meta_get(k->q, "boot", text, sizeof text, &k->err), k->err);
    assert_string_equal(text, "abc");
    WRITE_OK(k, queue_meta_set(k->q, "boot", "longer than that", &k->err));
    assert_int_equal(queue_meta_get(k->q, "boot", text, sizeof text, &k->err), ST_TOO_LARGE);
    WRITE_OK(k, queue_meta_set(k->q, "boot", NULL, &k->err));
    assert_ok(queue_meta_get_int(k->q, "seq", 5, &v, &k->err), k->err);
    assert_int_equal(v, 5);
    WRITE_OK(k, queue_meta_set_int(k->q, "seq", 65536, &k->err));
    assert_ok(queue_meta_get_int(k->q, "seq", 5, &v, &k->err), k->err);
    assert_int_equal(v, 65536);

    struct worker_record w = {.slot = 1, .launch = 7, .pid = 4242, .start_time = 99}, list[4];
    int n;
    WRITE_OK(k, queue_worker_record(k->q, &w, &k->err));
    w.launch = 8;
    WRITE_OK(k, queue_worker_record(k->q, &w, &k->err));
    WRITE_OK(k, queue_worker_forget(k->q, 7, &k->err));
    assert_ok(queue_worker_list(k->q, list, 4, &n, &k->err), k->err);
    assert_int_equal(n, 1);
    assert_int_equal(list[0].launch, 8);
    assert_int_equal(list[0].pid, 4242);
    assert_int_equal(list[0].start_time, 99);
}

static int ids_of(struct kit *k, struct item_filter f, int64_t *ids, bool *more)
{
    struct item_page p;
    assert_ok(reader_items(k->r, &f, &p, &k->err), k->err);
    for (int i = 0; i < p.n; i++)
        ids[i] = p.rows[i].item_id;
    *more = p.more;
    int n = p.n;
    item_page_fini(&p);
    return n;
}

static void lists(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 4);
    struct enqueue_result e;
    int64_t ids[64], epoch;
    bool more;
    a.batch_id = "x", a.origin = "ui", a.destination = "gallery";
    WRITE_OK(k, queue_enqueue(k->q, &a, &e, &k->err));
    a.batch_id = "y", a.origin = NULL, a.destination = NULL, a.queue_id = "other";
    WRITE_OK(k, queue_enqueue(k->q, &a, &e, &k->err)); /* ids 1 .. 8 */
    kit_claim(k, &epoch);
    kit_finish(k, 1, epoch, ITEM_COMPLETED);
    kit_claim(k, NULL);
    kit_claim(k, NULL);
    WRITE_OK(k, queue_cancel(k->q, 2, -1, k->now, &k->ch, &k->err)); /* 1 completed, 2 canceling, 3 running, 4 .. 8 pending */
    struct item_filter f = {.limit = 3};
    assert_int_equal(ids_of(k, f, ids, &more), 3);
    assert_true(more && ids[0] == 1 && ids[2] == 3);
    f.after = 6;
    assert_int_equal(ids_of(k, f, ids, &more), 2);
    assert_false(more);
    f = (struct item_filter){.limit = 10, .status = "in_progress"};
    assert_int_equal(ids_of(k, f, ids, &more), 2);
    assert_true(ids[0] == 2 && ids[1] == 3);
    f.status = "canceling";
    assert_int_equal(ids_of(k, f, ids, &more), 1);
    f.status = "pending", f.batch_id = "x";
    assert_int_equal(ids_of(k, f, ids, &more), 1);
    assert_int_equal(ids[0], 4);
    f = (struct item_filter){.limit = 10, .batch_id = "x"};
    assert_int_equal(ids_of(k, f, ids, &more), 4);
    f.live = true;
    assert_int_equal(ids_of(k, f, ids, &more), 3);
    f.batch_id = NULL;
    assert_int_equal(ids_of(k, f, ids, &more), 7);
    f = (struct item_filter){.limit = 10, .origin = "ui"};
    assert_int_equal(ids_of(k, f, ids, &more), 4);
    f = (struct item_filter){.limit = 10, .destination = "gallery", .device = "cpu:0"};
    assert_int_equal(ids_of(k, f, ids, &more), 3);
    f = (struct item_filter){.limit = 10, .queue_id = "other"};
    assert_int_equal(ids_of(k, f, ids, &more), 4);
    f = (struct item_filter){.limit = 10, .batch_id = "none"};
    assert_int_equal(ids_of(k, f, ids, &more), 0);
    struct item_page p;
    f.status = "bogus";
    assert_int_equal(reader_items(k->r, &f, &p, &k->err), ST_BAD_ARGUMENT);
    assert_says(k->err.message, "bogus");
    f = (struct item_filter){.limit = 1001};
    assert_int_equal(reader_items(k->r, &f, &p, &k->err), ST_BAD_ARGUMENT);
    assert_ok(reader_next(k->r, k->now, &p, &k->err), k->err);
    assert_int_equal(p.rows[0].item_id, 4);
    assert_string_equal(p.rows[0].queue_id, "default");
    item_page_fini(&p);
}

/* A held row among pending ones comes in its place. */
static void held_reads_as_pending(void **state)
{
    struct kit *k = *state;
    kit_enqueue(k, 3);
    int64_t ids[8];
    bool more;
    assert_ok(sql_exec(k->q->sql.db, "UPDATE items SET state=6 WHERE item_id=2", &k->err), k->err);
    assert_int_equal(ids_of(k, (struct item_filter){.limit = 2, .status = "pending"}, ids, &more), 2);
    assert_true(more && ids[0] == 1 && ids[1] == 2);
    assert_int_equal(ids_of(k, (struct item_filter){.limit = 8, .status = "held"}, ids, &more), 1);
    assert_int_equal(ids_of(k, (struct item_filter){.limit = 8, .status = "pending", .after = 2}, ids, &more), 1);
}

/* A process that is killed between commits, and one inside a transaction: what was committed is there, the rest is not. */
static void crash(void **state)
{
    struct kit *k = *state;
    kit_disconnect(k);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct queue *q;
        struct error err;
        struct enqueue_args a = batch_of(k, 10);
        struct enqueue_result e;
        struct claim_args c = {.device = "cpu:0", .worker = "w", .now_ms = 1};
        struct claim_result r;
        if (queue_open(k->dir, true, &q, &err) != ST_OK || queue_begin(q, &err) != ST_OK || queue_enqueue(q, &a, &e, &err) != ST_OK ||
            queue_claim(q, &c, &r, NULL, &err) != ST_OK || queue_commit(q, &err) != ST_OK || queue_begin(q, &err) != ST_OK ||
            queue_enqueue(q, &a, &e, &err) != ST_OK || write(pipes[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char c;
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &c, 1), 1);
    close(pipes[0]);
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    kit_connect(k); /* finds a log that was not closed: pages are checked, the lock is free */
    assert_int_equal(kit_count(k, ITEM_PENDING), 9);
    assert_int_equal(kit_count(k, ITEM_IN_PROGRESS), 1);
    WRITE_OK(k, queue_recover(k->q, k->now, &k->ch, &k->err));
    assert_int_equal(k->ch.n, 1);
    assert_int_equal(kit_count(k, ITEM_PENDING), 10);
    assert_int_equal(kit_claim(k, NULL), 1);
}

/* A damaged page is found at the open after an unclean end. */
static void damaged(void **state)
{
    struct kit *k = *state;
    kit_enqueue(k, 3000);
    assert_ok(queue_checkpoint(k->q, &k->err), k->err);
    char command[PATH_BYTES * 3], db[PATH_BYTES];
    char *other = temp_dir();
    kit_enqueue(k, 1);
    snprintf(command, sizeof command, "cp %s/galley.db* %s/", k->dir, other);
    assert_int_equal(system(command), 0);
    assert_ok(queue_db_path(other, db, &k->err), k->err);
    struct stat st;
    assert_int_equal(stat(db, &st), 0);
    FILE *f = fopen(db, "r+");
    assert_non_null(f);
    for (long at = st.st_size / 4096 / 2 * 4096, i = 0; i < 64; i++) {
        assert_int_equal(fseek(f, at + i, SEEK_SET), 0);
        fputc(0xee, f);
    }
    fclose(f);
    struct queue *q;
    assert_int_equal(queue_open(other, false, &q, &k->err), ST_CORRUPT);
    assert_says(k->err.message, "damaged");
    temp_dir_remove(other);
}

/* No room: the operation is refused, everything of its transaction is undone, and with room again the queue goes on. */
static void full(void **state)
{
    struct kit *k = *state;
    kit_enqueue(k, 10);
    char pragma[64];
    snprintf(pragma, sizeof pragma, "PRAGMA max_page_count=%lld", (long long)one_number(k, "PRAGMA page_count") + 2);
    assert_ok(sql_exec(k->q->sql.db, pragma, &k->err), k->err);
    struct enqueue_args a = batch_of(k, 50000);
    struct enqueue_result r;
    assert_ok(queue_begin(k->q, &k->err), k->err);
    assert_ok(queue_mark(k->q, &k->err), k->err);
    assert_int_equal(queue_enqueue(k->q, &a, &r, &k->err), ST_DISK_FULL);
    assert_says(k->err.message, "free disk space");
    (void)queue_revert(k->q);
    queue_rollback(k->q);
    assert_int_equal(kit_count(k, ITEM_PENDING), 10);
    assert_ok(sql_exec(k->q->sql.db, "PRAGMA max_page_count=1000000", &k->err), k->err);
    WRITE_OK(k, queue_enqueue(k->q, &a, &r, &k->err));
    assert_int_equal(kit_count(k, ITEM_PENDING), 50010);
}

/* A savepoint undoes one operation, with its counters and names in memory, and only that. */
static void revert(void **state)
{
    struct kit *k = *state;
    struct enqueue_args a = batch_of(k, 2);
    struct enqueue_result r;
    struct claim_args c = {.device = "cpu:0", .worker = "w", .now_ms = k->now};
    struct claim_result cr;
    a.origin = "first";
    assert_ok(queue_begin(k->q, &k->err), k->err);
    assert_ok(queue_mark(k->q, &k->err), k->err);
    assert_ok(queue_enqueue(k->q, &a, &r, &k->err), k->err);
    assert_ok(queue_claim(k->q, &c, &cr, NULL, &k->err), k->err);
    assert_string_equal(cr.batch->origin, "first");
    batch_text_unref(cr.batch);
    assert_true(queue_revert(k->q));
    assert_ok(queue_mark(k->q, &k->err), k->err);
    a.origin = "second";
    assert_ok(queue_enqueue(k->q, &a, &r, &k->err), k->err);
    assert_ok(queue_claim(k->q, &c, &cr, NULL, &k->err), k->err);
    assert_string_equal(cr.batch->origin, "second");
    batch_text_unref(cr.batch);
    assert_ok(queue_release(k->q, &k->err), k->err);
    assert_ok(queue_commit(k->q, &k->err), k->err);
    assert_int_equal(kit_count(k, ITEM_PENDING), 1);
    assert_int_equal(kit_count(k, ITEM_IN_PROGRESS), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states),
        T(open_refuses),
        T(open_refuses_foreign),
        T(open_keeps),
        T(enqueue),
        T(enqueue_full),
        T(idempotency),
        T(claim),
        T(claim_reports),
        T(finish),
        T(images),
        T(cancel),
        T(cancel_many),
        T(blame),
        T(blame_limits),
        T(fail_pending),
        T(retry),
        T(deleting),
        T(prune_in_parts),
        T(recovery),
        T(recovery_far_apart),
        T(facts),
        T(lists),
        T(held_reads_as_pending),
        T(crash),
        T(damaged),
        T(full),
        T(revert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
