/* A seeded random walk over all operations, compared step by step with a plain model of the queue; now and then the process "dies": the
 * database and its log are copied as they are and the walk goes on with the copy. GALLEY_TEST_SEED chooses another walk. */
#include "queue_kit.h"

enum { MODEL_MAX = 20000, SLOTS = 3 };

struct model_item {
    enum item_state state;
    int64_t batch, epoch, sequence, not_before;
    int priority, attempt, uncounted, deaths, ooms, avoid, slot, max_attempts;
    int64_t crash1, crash2;
};

struct walk {
    struct kit k;
    uint64_t rng;
    struct model_item *m; /* by item id; batch 0: never was or gone */
    int64_t last, batches;
    char batch_ids[2000][UUID_TEXT];
    long steps, moved[ITEM_STATES + 1][ITEM_STATES + 1];
};

static uint32_t dice(struct walk *w, uint32_t n)
{
    w->rng = w->rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->rng >> 33) % n;
}

static bool waiting(const struct model_item *i) { return i->batch && (i->state == ITEM_PENDING || i->state == ITEM_HELD); }
static bool running(const struct model_item *i) { return i->batch && (i->state == ITEM_IN_PROGRESS || i->state == ITEM_CANCELING); }

static int64_t model_count(const struct walk *w, enum item_state s)
{
    int64_t n = 0;
    for (int64_t id = 1; id <= w->last; id++)
        n += w->m[id].batch && w->m[id].state == s;
    return n;
}

/* model_move applies a change to the model and looks for it among the changes that the call reported. */
static void model_move(struct walk *w, int64_t id, enum item_state to)
{
    struct model_item *i = &w->m[id];
    const struct item_change *c = NULL;
    for (size_t n = 0; n < w->k.ch.n && !c; n++)
        if (w->k.ch.v[n].item_id == id)
            c = &w->k.ch.v[n];
    if (!c)
        fail_msg("item %lld: its change was not reported", (long long)id);
    w->moved[i->state][to]++;
    assert_int_equal(c->from, i->state);
    assert_int_equal(c->to, to);
    i->sequence++;
    i->state = to;
    assert_int_equal(c->status_sequence, i->sequence);
    assert_int_equal(c->attempt, i->attempt);
    assert_int_equal(c->epoch, i->epoch);
    assert_int_equal(c->deaths, i->deaths);
}

static void step_enqueue(struct walk *w)
{
    if (w->batches + 1 >= 2000)
        return;
    struct enqueue_args a = batch_of(&w->k, 1 + dice(w, 6));
    struct enqueue_result r;
    a.prepend = dice(w, 4) == 0;
    a.max_attempts = 1 + (int)dice(w, 4);
    a.max_queue_size = 60;
    int64_t room = 60 - model_count(w, ITEM_PENDING) - model_count(w, ITEM_HELD);
    int top = 0;
    for (int64_t id = 1; id <= w->last; id++)
        if (w->m[id].batch && w->m[id].state == ITEM_PENDING && w->m[id].priority > top)
            top = w->m[id].priority;
    enum status status = WRITE(&w->k, queue_enqueue(w->k.q, &a, &r, &w->k.err));
    assert_int_equal(status, a.count > room ? ST_QUEUE_FULL : ST_OK);
    if (status != ST_OK)
        return;
    assert_int_equal(r.first_item_id, w->last + 1);
    assert_int_equal(r.priority, a.prepend ? top + 1 : 0);
    memcpy(w->batch_ids[++w->batches], r.batch_id, UUID_TEXT);
    for (int i = 0; i < a.count; i++)
        w->m[++w->last] =
            (struct model_item){.batch = w->batches, .priority = r.priority, .max_attempts = a.max_attempts, .slot = -1, .avoid = -1};
}

static void step_claim(struct walk *w)
{
    int slot = (int)dice(w, SLOTS);
    bool other = dice(w, 2);
    int64_t best = 0, next = 0;
    for (int64_t id = 1; id <= w->last; id++) {
        const struct model_item *i = &w->m[id];
        if (!i->batch || i->state != ITEM_PENDING)
            continue;
        if (i->not_before > w->k.now) {
            next = !next || i->not_before < next ? i->not_before : next;
            continue;
        }
        if (i->avoid == slot && other)
            continue;
        if (!best || i->priority > w->m[best].priority)
            best = id;
    }
    struct claim_args a = {.slot = slot, .device = "cpu:0", .worker = "w", .other_slot_able = other, .now_ms = w->k.now};
    struct claim_result r;
    WRITE_OK(&w->k, queue_claim(w->k.q, &a, &r, &w->k.ch, &w->k.err));
    assert_int_equal(r.found, best != 0);
    if (!best) {
        assert_int_equal(r.next_ms, next);
        return;
    }
    assert_int_equal(r.item_id, best);
    w->m[best].attempt++;
    w->m[best].epoch++;
    w->m[best].slot = slot;
    assert_int_equal(r.epoch, w->m[best].epoch);
    assert_string_equal(r.batch->batch_id, w->batch_ids[w->m[best].batch]);
    batch_text_unref(r.batch);
    model_move(w, best, ITEM_IN_PROGRESS);
}

/* some_item picks an item that the predicate takes, mostly; sometimes any id at all. */
static int64_t some_item(struct walk *w, bool (*takes)(const struct model_item *))
{
    if (!w->last || dice(w, 20) == 0)
        return 1 + dice(w, (uint32_t)w->last + 3);
    int64_t from = 1 + dice(w, (uint32_t)w->last);
    for (int64_t n = 0; n < w->last; n++) {
        int64_t id = 1 + (from + n) % w->last;
        if (takes(&w->m[id]))
            return id;
    }
    return from;
}

static void step_finish(struct walk *w)
{
    static const enum item_state outcomes[] = {ITEM_COMPLETED, ITEM_COMPLETED, ITEM_FAILED, ITEM_CANCELED};
    int64_t id = some_item(w, running);
    struct model_item *i = &w->m[id];
    int64_t epoch = i->epoch - (dice(w, 8) == 0);
    enum item_state outcome = outcomes[dice(w, 4)];
    enum status status = kit_finish(&w->k, id, epoch, outcome);
    bool right = id <= w->last && running(i) && epoch == i->epoch;
    assert_int_equal(status, right ? ST_OK : ST_BAD_STATE);
    if (right)
        model_move(w, id, i->state == ITEM_CANCELING ? ITEM_CANCELED : outcome);
}

static void model_ended(struct walk *w, int64_t id, enum attempt_end why, int64_t backoff)
{
    struct model_item *i = &w->m[id];
    bool death = why == END_CRASH || why == END_HANG, oom = why == END_OUT_OF_MEMORY;
    i->deaths += death;
    i->ooms += oom;
    if (!death && !oom)
        i->uncounted++;
    if (death)
        i->avoid = i->slot;
    i->not_before = death ? w->k.now + backoff : 0;
    bool ends = (death && i->deaths >= 2) || (oom && i->ooms >= 2) || ((death || oom) && i->attempt - i->uncounted >= i->max_attempts);
    model_move(w, id, i->state == ITEM_CANCELING ? ITEM_CANCELED : ends ? ITEM_FAILED : ITEM_PENDING);
}

static void step_ended(struct walk *w)
{
    int64_t id = some_item(w, running);
    struct model_item *i = &w->m[id];
    enum attempt_end why = (enum attempt_end)dice(w, END_DEVICE_LOST + 1);
    int64_t epoch = i->epoch - (dice(w, 8) == 0), backoff = dice(w, 500);
    bool right = id <= w->last && running(i) && epoch == i->epoch;
    enum status status = WRITE(&w->k, queue_attempt_ended(w->k.q, id, epoch, why, "walk", backoff, w->k.now, &w->k.ch, &w->k.err));
    assert_int_equal(status, right ? ST_OK : ST_BAD_STATE);
    if (right)
        model_ended(w, id, why, backoff);
}

static void model_cancel(struct walk *w, int64_t id)
{
    if (waiting(&w->m[id]))
        model_move(w, id, ITEM_CANCELED);
    else if (w->m[id].batch && w->m[id].state == ITEM_IN_PROGRESS)
        model_move(w, id, ITEM_CANCELING);
}

static void step_cancel(struct walk *w)
{
    int64_t id = some_item(w, dice(w, 2) ? running : waiting);
    struct model_item *i = &w->m[id];
    int attempt = dice(w, 2) ? -1 : i->attempt - (int)dice(w, 2);
    bool there = id <= w->last && i->batch, stale = attempt >= 0 && attempt != i->attempt;
    enum status status = WRITE(&w->k, queue_cancel(w->k.q, id, attempt, w->k.now, &w->k.ch, &w->k.err));
    assert_int_equal(status, !there ? ST_NOT_FOUND : stale ? ST_BAD_STATE : ST_OK);
    if (status == ST_OK)
        model_cancel(w, id);
}

static void step_cancel_many(struct walk *w)
{
    if (!w->batches)
        return;
    if (dice(w, 4)) {
        int64_t batch = 1 + dice(w, (uint32_t)w->batches);
        const char *name = w->batch_ids[batch];
        WRITE_OK(&w->k, queue_cancel_batches(w->k.q, &name, 1, w->k.now, &w->k.ch, &w->k.err));
        for (int64_t id = 1; id <= w->last; id++)
            if (w->m[id].batch == batch)
                model_cancel(w, id);
    } else if (dice(w, 4) == 0) {
        WRITE_OK(&w->k, queue_cancel_pending(w->k.q, w->k.now, &w->k.ch, &w->k.err));
        for (int64_t id = 1; id <= w->last; id++)
            if (waiting(&w->m[id]))
                model_cancel(w, id);
    }
}

static bool ended(const struct model_item *i) { return i->batch && item_state_terminal(i->state); }

static void step_retry(struct walk *w)
{
    int64_t id = some_item(w, ended);
    struct model_item *i = &w->m[id];
    bool again = dice(w, 2), there = id <= w->last && i->batch;
    bool added = there && ended(i) && (i->state != ITEM_COMPLETED || again);
    WRITE_OK(&w->k, queue_retry(w->k.q, &id, 1, again, 1000, w->k.now, &w->k.ch, &w->k.err));
    assert_int_equal(w->k.ch.n, added);
    if (!added)
        return;
    assert_int_equal(w->k.ch.v[0].item_id, w->last + 1);
    w->m[++w->last] =
        (struct model_item){.batch = i->batch, .priority = i->priority, .max_attempts = i->max_attempts, .slot = -1, .avoid = -1};
}

static bool anything(const struct model_item *i) { return i->batch; }

static void step_delete(struct walk *w)
{
    if (dice(w, 12) == 0) {
        WRITE_OK(&w->k, queue_prune(w->k.q, 0, NULL, &w->k.ch, &w->k.err));
        for (int64_t id = 1; id <= w->last; id++)
            if (ended(&w->m[id]))
                w->m[id].batch = 0;
    } else {
        int64_t id = some_item(w, anything);
        bool there = id <= w->last && w->m[id].batch;
        assert_int_equal(WRITE(&w->k, queue_delete(w->k.q, &id, 1, NULL, &w->k.ch, &w->k.err)), there ? ST_OK : ST_NOT_FOUND);
        if (there)
            w->m[id].batch = 0;
    }
}

/* step_crash goes on with a copy of the files as they are while the database is open: what a killed process leaves. */
static void step_crash(struct walk *w)
{
    char command[PATH_BYTES * 4];
    char *copy = temp_dir();
    snprintf(command, sizeof command, "cp %s/galley.db* %s/", w->k.dir, copy);
    assert_int_equal(system(command), 0);
    kit_disconnect(&w->k);
    temp_dir_remove(w->k.dir);
    w->k.dir = copy;
    kit_connect(&w->k);
    WRITE_OK(&w->k, queue_recover(w->k.q, w->k.now, &w->k.ch, &w->k.err));
    for (int64_t id = 1; id <= w->last; id++) {
        struct model_item *i = &w->m[id];
        if (!running(i))
            continue;
        bool often = i->crash2 > 0 && w->k.now - i->crash2 <= QUEUE_CRASH_WINDOW_MS && i->state != ITEM_CANCELING;
        i->crash2 = often ? 0 : i->crash1;
        i->crash1 = often ? 0 : w->k.now;
        if (often) {
            i->uncounted++;
            model_move(w, id, ITEM_HELD);
        } else {
            model_ended(w, id, END_SUPERVISOR_CRASH, 0);
        }
    }
}

/* compare holds every counter and every row against the model. */
static void compare(struct walk *w)
{
    for (int s = 0; s < ITEM_STATES; s++)
        assert_int_equal(kit_count(&w->k, (enum item_state)s), model_count(w, (enum item_state)s));
    struct item_filter f = {.limit = 1000};
    int64_t id = 0;
    for (bool more = true; more;) {
        struct item_page p;
        assert_ok(reader_items(w->k.r, &f, &p, &w->k.err), w->k.err);
        for (int n = 0; n < p.n; n++) {
            while (++id < p.rows[n].item_id)
                assert_int_equal(w->m[id].batch, 0);
            const struct model_item *i = &w->m[id];
            assert_true(id == p.rows[n].item_id && i->batch);
            assert_int_equal(p.rows[n].state, i->state);
            assert_int_equal(p.rows[n].status_sequence, i->sequence);
            assert_int_equal(p.rows[n].attempt, i->attempt);
            assert_int_equal(p.rows[n].epoch, i->epoch);
            assert_int_equal(p.rows[n].deaths, i->deaths);
            assert_int_equal(p.rows[n].priority, i->priority);
            assert_int_equal(p.rows[n].not_before, i->not_before);
            f.after = id;
        }
        more = p.more;
        item_page_fini(&p);
    }
    while (++id <= w->last)
        assert_int_equal(w->m[id].batch, 0);
    for (int64_t b = 1; b <= w->batches; b++) {
        int64_t count[ITEM_STATES] = {0}, total = 0;
        struct batch_counts c;
        for (int64_t n = 1; n <= w->last; n++)
            if (w->m[n].batch == b)
                count[w->m[n].state]++, total++;
        enum status status = reader_batch(w->k.r, w->batch_ids[b], &c, &w->k.err);
        assert_int_equal(status, total ? ST_OK : ST_NOT_FOUND);
        if (total)
            assert_memory_equal(c.count, count, sizeof count);
    }
}

static void step(struct walk *w)
{
    w->k.now += dice(w, 100);
    uint32_t d = dice(w, 200);
    if (d < 30)
        step_enqueue(w);
    else if (d < 95)
        step_claim(w);
    else if (d < 135)
        step_finish(w);
    else if (d < 155)
        step_ended(w);
    else if (d < 170)
        step_cancel(w);
    else if (d < 174)
        step_cancel_many(w);
    else if (d < 185)
        step_retry(w);
    else if (d < 197)
        step_delete(w);
    else
        step_crash(w);
    w->steps++;
}

static void walk(void **state)
{
    (void)state;
    struct walk *w = calloc(1, sizeof *w);
    const char *seed = getenv("GALLEY_TEST_SEED"), *steps = getenv("GALLEY_TEST_STEPS");
    w->rng = seed ? strtoull(seed, NULL, 10) : 20260131;
    w->m = calloc(MODEL_MAX, sizeof *w->m);
    kit_open(&w->k);
    for (long n = steps ? atol(steps) : 4000; n > 0 && w->last < MODEL_MAX - 100; n--) {
        step(w);
        if (n % 200 == 0)
            compare(w);
    }
    compare(w);
    int64_t broken = -1;
    assert_ok(sql_pragma_int(w->k.q->sql.db, "SELECT count(*) FROM pragma_foreign_key_check", &broken, &w->k.err), w->k.err);
    assert_int_equal(broken, 0);
    static const enum item_state seen[][2] = {
        {ITEM_PENDING, ITEM_IN_PROGRESS},   {ITEM_PENDING, ITEM_CANCELED},    {ITEM_IN_PROGRESS, ITEM_COMPLETED},
        {ITEM_IN_PROGRESS, ITEM_FAILED},    {ITEM_IN_PROGRESS, ITEM_HELD},    {ITEM_IN_PROGRESS, ITEM_CANCELED},
        {ITEM_IN_PROGRESS, ITEM_CANCELING}, {ITEM_IN_PROGRESS, ITEM_PENDING}, {ITEM_CANCELING, ITEM_CANCELED}};
    for (size_t i = 0; !seed && i < sizeof seen / sizeof *seen; i++)
        if (!w->moved[seen[i][0]][seen[i][1]])
            fail_msg("the walk never went from %s to %s", item_state_name(seen[i][0]), item_state_name(seen[i][1]));
    kit_close(&w->k);
    free(w->m);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(walk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
