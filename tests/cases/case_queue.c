/* Cases of kind queue: scripts over a queue. What galley does otherwise on purpose is skipped under its name, or held to the case's
 * `galley` entry; events belong to the supervisor and are not compared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "supervisor/queue/queue.h"
#include "tests/cases/cases.h"

enum { ITEMS_MAX = 200, DEFAULT_QUEUE_SIZE = 10000 };

struct script {
    char dir[64];
    struct queue *q;
    struct queue_reader *r;
    struct change_list changes; /* of the present operation */
    struct error err;
    int64_t now, max_queue_size, epoch[ITEMS_MAX];
    int stopped[ITEMS_MAX]; /* cancels of a running item: galley shows two changes of status, InvokeAI one */
    const json_t *c;
};

/* What an operation did: a result to compare, an InvokeAI error class, or the end of what can be compared. */
struct answer {
    json_t *result;
    const char *error;
    bool end;
    struct verdict verdict;
};

static struct answer answer_result(json_t *result) { return (struct answer){.result = result}; }
static struct answer answer_end(struct verdict v) { return (struct answer){.end = true, .verdict = v}; }

static struct answer answer_failed(struct script *s)
{
    if (s->err.code == ST_NOT_FOUND)
        return (struct answer){.error = "SessionQueueItemNotFoundError"};
    return answer_end(verdict_failed("%s", s->err.message));
}

static bool script_open(struct script *s)
{
    return queue_open(s->dir, false, &s->q, &s->err) == ST_OK && queue_reader_open(s->dir, &s->r, &s->err) == ST_OK &&
           queue_begin(s->q, &s->err) == ST_OK && queue_recover(s->q, s->now, &s->changes, &s->err) == ST_OK &&
           queue_commit(s->q, &s->err) == ST_OK;
}

static void script_close(struct script *s)
{
    queue_reader_close(s->r);
    queue_close(s->q);
    s->r = NULL;
    s->q = NULL;
}

static void script_fini(struct script *s)
{
    static const char *const names[] = {"galley.db", "galley.db-wal", "galley.db-shm", "lock"};
    script_close(s);
    change_list_fini(&s->changes);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", s->dir, names[i]);
        remove(path);
    }
    remove(s->dir);
}

static json_t *name_of(int64_t id) { return id ? json_sprintf("i%lld", (long long)id) : json_null(); }
static int64_t id_of(const char *name) { return name && name[0] == 'i' ? atoll(name + 1) : 0; }

static void put_text(json_t *row, const char *key, const char *value)
{
    if (value && value[0])
        json_object_set_new(row, key, json_string(value));
}

static void put_number(json_t *row, const char *key, int64_t value)
{
    if (value)
        json_object_set_new(row, key, json_integer(value));
}

/* batch_name: a case calls every batch "b" that it does not name; here they are UUIDs. */
static const char *batch_name(const char *batch_id) { return strlen(batch_id) == UUID_TEXT - 1 ? "b" : batch_id; }

/* row_json writes a row as the cases do: defaults left out. */
static json_t *row_json(const struct script *s, const struct item_row *w)
{
    json_t *row = json_object();
    json_object_set_new(row, "status", json_string(item_state_reader_name(w->state)));
    put_text(row, "user", w->user);
    put_text(row, "batch", batch_name(w->batch_id));
    put_text(row, "queue", strcmp(w->queue_id, "default") ? w->queue_id : NULL);
    put_text(row, "origin", w->origin);
    put_text(row, "destination", w->destination);
    put_text(row, "device", w->device);
    put_text(row, "error", w->error_type);
    put_number(row, "priority", w->priority);
    put_number(row, "sequence", w->status_sequence - (w->item_id < ITEMS_MAX ? s->stopped[w->item_id] : 0));
    if (w->retried_from)
        json_object_set_new(row, "retried_from", name_of(w->retried_from));
    if (w->started_at)
        json_object_set_new(row, "started", json_true());
    if (w->completed_at)
        json_object_set_new(row, "ended", json_true());
    return row;
}

static json_t *all_rows(struct script *s)
{
    struct item_page p;
    json_t *rows = json_object();
    if (reader_items(s->r, &(struct item_filter){.limit = 1000}, &p, &s->err) != ST_OK)
        return rows;
    for (int i = 0; i < p.n; i++) {
        char name[32];
        snprintf(name, sizeof name, "i%lld", (long long)p.rows[i].item_id);
        json_object_set_new(rows, name, row_json(s, &p.rows[i]));
    }
    item_page_fini(&p);
    return rows;
}

/* write_call runs one call of the queue in its own transaction. */
#define WRITE(s, call)                                                                                                                     \
    __extension__({                                                                                                                        \
        change_list_reset(&(s)->changes);                                                                                                  \
        enum status st_ = queue_begin((s)->q, &(s)->err);                                                                                  \
        if (st_ == ST_OK) {                                                                                                                \
            st_ = (call);                                                                                                                  \
            struct error commit_err_;                                                                                                      \
            enum status commit_ = queue_commit((s)->q, &commit_err_);                                                                      \
            if (st_ == ST_OK && commit_ != ST_OK)                                                                                          \
                (s)->err = commit_err_, st_ = commit_;                                                                                     \
        }                                                                                                                                  \
        st_;                                                                                                                               \
    })

/* let_stop plays the workers: each item that is canceling has stopped a moment later. */
static enum status let_stop(struct script *s)
{
    int64_t ids[ITEMS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < s->changes.n; i++)
        if (s->changes.v[i].to == ITEM_CANCELING && s->changes.v[i].item_id < ITEMS_MAX)
            ids[n++] = s->changes.v[i].item_id;
    for (size_t i = 0; i < n; i++) {
        struct finish_args f = {.item_id = ids[i], .epoch = s->epoch[ids[i]], .outcome = ITEM_CANCELED, .now_ms = s->now};
        s->stopped[ids[i]]++;
        if (WRITE(s, queue_finish(s->q, &f, &s->changes, &s->err)) != ST_OK)
            return s->err.code;
    }
    return ST_OK;
}

static json_t *status_of(struct script *s, int64_t id)
{
    AUTO_JSON *rows = all_rows(s);
    char name[32];
    snprintf(name, sizeof name, "i%lld", (long long)id);
    return json_pack("{s:s}", "status", json_str(json_object_get(rows, name), "status", "gone"));
}

static struct answer op_enqueue(struct script *s, const json_t *op)
{
    struct enqueue_args a = {
        .queue_id = json_str(op, "queue", NULL),
        .batch_id = json_str(op, "batch", NULL),
        .origin = json_str(op, "origin", NULL),
        .destination = json_str(op, "destination", NULL),
        .graph = "{}",
        .runs = json_int(op, "count", 1),
        .count = json_int(op, "count", 1),
        .prepend = json_flag(op, "prepend", false),
        .max_attempts = 3,
        .max_queue_size = s->max_queue_size,
        .now_ms = s->now,
    };
    struct enqueue_result r;
    enum status status = WRITE(s, queue_enqueue(s->q, &a, &r, &s->err));
    if (status == ST_QUEUE_FULL && json_flag(s->c, "upstream_truncates", false))
        return answer_end(verdict_passed()); /* refused whole */
    if (status == ST_CONFLICT)
        return answer_end(verdict_skipped("a batch_id used twice (refused)"));
    if (status != ST_OK)
        return answer_failed(s);
    json_t *items = json_array();
    for (int64_t i = 0; i < r.count; i++)
        json_array_append_new(items, name_of(r.first_item_id + i));
    return answer_result(json_pack("{s:I,s:I,s:i,s:o}", "enqueued", (json_int_t)r.count, "requested", (json_int_t)r.count, "priority",
                                   r.priority, "items", items));
}

static struct answer op_claim(struct script *s, const json_t *op)
{
    struct claim_args a = {.device = json_str(op, "device", NULL), .now_ms = s->now};
    struct claim_result r;
    if (WRITE(s, queue_claim(s->q, &a, &r, &s->changes, &s->err)) != ST_OK)
        return answer_failed(s);
    if (r.found && r.item_id < ITEMS_MAX)
        s->epoch[r.item_id] = r.epoch;
    batch_text_unref(r.batch);
    return answer_result(json_pack("{s:o}", "item", name_of(r.item_id)));
}

static struct answer op_finish(struct script *s, const json_t *op)
{
    int64_t id = id_of(json_str(op, "item", ""));
    bool fails = strcmp(json_str(op, "op", ""), "fail") == 0;
    AUTO_JSON *now = status_of(s, id);
    const char *status = json_str(now, "status", "");
    if (strcmp(status, "gone") == 0)
        return (struct answer){.error = "SessionQueueItemNotFoundError"};
    if (strcmp(status, "pending") == 0)
        return answer_end(verdict_skipped("a finish without a claim (refused)"));
    struct finish_args f = {.item_id = id,
                            .epoch = id < ITEMS_MAX ? s->epoch[id] : 0,
                            .outcome = fails ? ITEM_FAILED : ITEM_COMPLETED,
                            .error_type = json_str(op, "error", "E"),
                            .now_ms = s->now};
    enum status done = WRITE(s, queue_finish(s->q, &f, &s->changes, &s->err));
    if (done != ST_OK && done != ST_BAD_STATE) /* late: refused, nothing changes */
        return answer_failed(s);
    return answer_result(status_of(s, id));
}

static struct answer op_cancel(struct script *s, const json_t *op)
{
    int64_t id = id_of(json_str(op, "item", ""));
    if (WRITE(s, queue_cancel(s->q, id, -1, s->now, &s->changes, &s->err)) != ST_OK || let_stop(s) != ST_OK)
        return answer_failed(s);
    return answer_result(status_of(s, id));
}

static struct answer op_cancel_many(struct script *s, const json_t *op)
{
    const char *ids[ITEMS_MAX];
    const json_t *batches = json_object_get(op, "batches");
    size_t n = 0, i;
    json_t *name;
    json_array_foreach (batches, i, name)
        if (n < ITEMS_MAX)
            ids[n++] = json_string_value(name);
    enum status status = batches ? WRITE(s, queue_cancel_batches(s->q, ids, n, s->now, &s->changes, &s->err))
                                 : WRITE(s, queue_cancel_pending(s->q, s->now, &s->changes, &s->err));
    json_int_t canceled = (json_int_t)s->changes.n;
    if (status != ST_OK || let_stop(s) != ST_OK)
        return answer_failed(s);
    return answer_result(json_pack("{s:I}", "canceled", canceled));
}

static struct answer op_delete(struct script *s, const json_t *op)
{
    const char *name = json_str(op, "op", "");
    int64_t id = id_of(json_str(op, "item", ""));
    bool one = strcmp(name, "delete") == 0;
    enum status status = one                          ? WRITE(s, queue_delete(s->q, &id, 1, NULL, &s->changes, &s->err))
                         : strcmp(name, "prune") == 0 ? WRITE(s, queue_prune(s->q, 0, NULL, &s->changes, &s->err))
                                                      : WRITE(s, queue_clear(s->q, NULL, &s->changes, &s->err));
    if (status != ST_OK)
        return answer_failed(s);
    return answer_result(one ? json_object() : json_pack("{s:I}", "deleted", (json_int_t)s->changes.n));
}

static struct answer op_retry(struct script *s, const json_t *op)
{
    int64_t ids[ITEMS_MAX];
    size_t n = 0, i;
    json_t *name;
    json_array_foreach (json_object_get(op, "items"), i, name)
        if (n < ITEMS_MAX)
            ids[n++] = id_of(json_string_value(name));
    enum status status = WRITE(s, queue_retry(s->q, ids, n, false, s->max_queue_size, s->now, &s->changes, &s->err));
    if (status == ST_QUEUE_FULL)
        return answer_end(verdict_passed()); /* refused whole, where upstream drops what does not fit */
    if (status != ST_OK)
        return answer_failed(s);
    json_t *items = json_array(), *reported = json_array();
    for (i = 0; i < s->changes.n; i++) {
        json_array_append_new(items, name_of(s->changes.v[i].item_id));
        json_array_append_new(reported, name_of(s->changes.v[i].retry_of));
    }
    return answer_result(json_pack("{s:o,s:o}", "reported", reported, "items", items));
}

static json_t *counts_json(const int64_t n[ITEM_STATES])
{
    json_t *j = json_object();
    json_int_t total = 0;
    for (int i = 0; i < ITEM_STATES; i++) {
        const char *name = item_state_reader_name((enum item_state)i);
        json_object_set_new(j, name, json_integer(json_int(j, name, 0) + n[i]));
        total += n[i];
    }
    json_object_set_new(j, "total", json_integer(total));
    return j;
}

static struct answer op_status(struct script *s, const json_t *op)
{
    int64_t n[ITEM_STATES];
    struct item_page p;
    if (reader_counts(s->r, json_str(op, "queue", "default"), n, &s->err) != ST_OK || reader_current(s->r, &p, &s->err) != ST_OK)
        return answer_failed(s);
    json_t *j = counts_json(n);
    if (p.n > 0) { /* upstream names one of those that run */
        json_object_set_new(j, "item", name_of(p.rows[0].item_id));
        json_object_set_new(j, "batch_id", json_string(batch_name(p.rows[0].batch_id)));
    }
    item_page_fini(&p);
    return answer_result(j);
}

static struct answer op_batch_status(struct script *s, const json_t *op)
{
    const char *batch = json_str(op, "batch", "");
    struct batch_counts b = {0};
    enum status status = reader_batch(s->r, batch, &b, &s->err);
    if (status != ST_OK && status != ST_NOT_FOUND) /* upstream answers zeros for an unknown batch */
        return answer_failed(s);
    json_t *j = counts_json(b.count);
    json_object_set_new(j, "batch_id", json_string(batch));
    put_text(j, "origin", b.origin);
    put_text(j, "destination", b.destination);
    return answer_result(j);
}

static struct answer op_look(struct script *s, const json_t *op)
{
    struct item_page p;
    bool next = strcmp(json_str(op, "op", ""), "next") == 0;
    if ((next ? reader_next(s->r, s->now, &p, &s->err) : reader_current(s->r, &p, &s->err)) != ST_OK)
        return answer_failed(s);
    json_t *item = name_of(p.n ? p.rows[0].item_id : 0);
    item_page_fini(&p);
    return answer_result(json_pack("{s:o}", "item", item));
}

static struct answer op_list(struct script *s, const json_t *op)
{
    struct item_page p;
    struct item_filter f = {.limit = 1000, .destination = json_str(op, "destination", NULL)};
    if (reader_items(s->r, &f, &p, &s->err) != ST_OK)
        return answer_failed(s);
    json_t *items = json_array();
    for (int i = 0; i < p.n; i++)
        json_array_append_new(items, name_of(p.rows[i].item_id));
    item_page_fini(&p);
    return answer_result(json_pack("{s:o}", "items", items));
}

/* galley_rows holds the rows after a restart, and the claims from there, to the case's own entry. */
static struct verdict galley_rows(struct script *s, const json_t *rule)
{
    AUTO_JSON *rows = all_rows(s);
    const char *name;
    json_t *status, *claim;
    size_t i;
    json_object_foreach ((json_t *)json_object_get(rule, "rows"), name, status)
        if (strcmp(json_str(json_object_get(rows, name), "status", "gone"), json_string_value(status)) != 0)
            return verdict_failed("after the restart %s is %s, not %s", name, json_str(json_object_get(rows, name), "status", "gone"),
                                  json_string_value(status));
    json_array_foreach (json_object_get(rule, "claims"), i, claim) {
        struct answer a = op_claim(s, NULL);
        bool right = json_equal(json_object_get(a.result, "item"), claim);
        json_decref(a.result);
        if (!right && i + 1 < json_array_size(json_object_get(rule, "claims")))
            return verdict_failed("claim %zu after the restart is not %s", i + 1, json_string_value(claim));
    }
    return verdict_passed();
}

static struct answer op_restart(struct script *s, const json_t *op)
{
    const json_t *config = json_object_get(op, "config"), *rule = json_object_get(s->c, "galley");
    if (json_object_get(config, "max_queue_history"))
        return answer_end(verdict_skipped("max_queue_history"));
    script_close(s);
    change_list_reset(&s->changes);
    if (!script_open(s))
        return answer_failed(s);
    bool recovered = s->changes.n > 0;
    if (json_flag(config, "clear_queue_on_startup", false) && WRITE(s, queue_clear(s->q, NULL, &s->changes, &s->err)) != ST_OK)
        return answer_failed(s);
    if (recovered) /* upstream cancels what ran; here it is pending again */
        return answer_end(rule ? galley_rows(s, rule) : verdict_skipped("restart with running items (requeued)"));
    return answer_result(json_object());
}

static const struct {
    const char *name;
    struct answer (*run)(struct script *s, const json_t *op);
} ops[] = {
    {"enqueue", op_enqueue},
    {"claim", op_claim},
    {"complete", op_finish},
    {"fail", op_finish},
    {"cancel", op_cancel},
    {"cancel_by_batch_ids", op_cancel_many},
    {"cancel_all_except_current", op_cancel_many},
    {"delete", op_delete},
    {"prune", op_delete},
    {"clear", op_delete},
    {"retry", op_retry},
    {"status", op_status},
    {"batch_status", op_batch_status},
    {"next", op_look},
    {"current", op_look},
    {"list", op_list},
    {"restart", op_restart},
};

static int op_index(const json_t *op)
{
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (strcmp(ops[i].name, json_str(op, "op", "")) == 0)
            return (int)i;
    return -1;
}

/* cannot tells what a case needs that is not there, under the name to skip it by. */
static bool cannot(const json_t *c, struct verdict *ret)
{
    const json_t *config = json_object_get(c, "config");
    bool other_queue = false, over_all = false;
    size_t i;
    json_t *op;
    if (json_flag(config, "multiuser", false) || strcmp(json_str(config, "session_queue_mode", "FIFO"), "FIFO") != 0)
        return *ret = verdict_skipped("multi-user mode"), true;
    json_array_foreach (json_object_get(c, "ops"), i, op) {
        const char *name = json_str(op, "op", "");
        if (op_index(op) < 0)
            return *ret = verdict_skipped("queue operation '%s'", name), true;
        if (json_object_get(op, "user") || json_object_get(op, "admin"))
            return *ret = verdict_skipped("multi-user mode"), true;
        if (json_object_get(op, "models"))
            return *ret = verdict_skipped("model affinity"), true;
        if (json_object_get(op, "data"))
            return *ret = verdict_skipped("values that are refused when they come in"), true;
        other_queue = other_queue || json_object_get(op, "queue");
        over_all = over_all || !strcmp(name, "prune") || !strcmp(name, "clear") || !strcmp(name, "cancel_all_except_current") ||
                   (!strcmp(name, "enqueue") && json_flag(op, "prepend", false));
    }
    if (other_queue && over_all)
        return *ret = verdict_skipped("bulk operations on one queue name (they act on all)"), true;
    return false;
}

/* changed_rows: rows of AFTER that differ from BEFORE, and the names that are gone. */
static json_t *changed_rows(const json_t *before, const json_t *after, json_t *gone)
{
    json_t *rows = json_object(), *row;
    const char *name;
    json_object_foreach ((json_t *)after, name, row)
        if (!json_equal(json_object_get(before, name), row))
            json_object_set(rows, name, row);
    json_object_foreach ((json_t *)before, name, row)
        if (!json_object_get(after, name))
            json_array_append_new(gone, json_string(name));
    return rows;
}

static bool same(const json_t *expected, const json_t *actual, bool empty_is_absent)
{
    if (!expected && empty_is_absent)
        return json_is_object(actual) ? json_object_size(actual) == 0 : json_array_size(actual) == 0;
    return cases_equal(expected, actual);
}

static struct verdict compare_step(size_t index, const json_t *op, const json_t *step, const struct answer *a, const json_t *rows,
                                   const json_t *gone)
{
    const char *name = json_str(op, "op", ""), *error = json_str(json_object_get(step, "error"), "class", NULL);
    if (error || a->error)
        return error && a->error && strcmp(error, a->error) == 0 ? verdict_passed()
                                                                 : verdict_failed("step %zu (%s): error %s, expected %s", index + 1, name,
                                                                                  a->error ? a->error : "none", error ? error : "none");
    AUTO_JSON *result = json_copy(json_object_get(step, "result"));
    if (strcmp(name, "enqueue") == 0) /* upstream reports by batch name, also rows of an earlier batch of that name */
        json_object_del(result, "reported");
    bool right = strcmp(name, "list") == 0 ? cases_equal_multiset(json_object_get(result, "items"), json_object_get(a->result, "items"))
                                           : same(result, a->result, true);
    const json_t *got = a->result, *want = result;
    if (right && !(right = same(json_object_get(step, "rows"), rows, true)))
        got = rows, want = json_object_get(step, "rows");
    if (right && !(right = same(json_object_get(step, "gone"), gone, true)))
        got = gone, want = json_object_get(step, "gone");
    if (right)
        return verdict_passed();
    char *got_text = json_text(got), *want_text = want ? json_text(want) : NULL;
    struct verdict v =
        verdict_failed("step %zu (%s): %.160s, expected %.160s", index + 1, name, got_text, want_text ? want_text : "nothing");
    free(got_text);
    free(want_text);
    return v;
}

static struct verdict run_steps(struct script *s)
{
    const json_t *steps = json_object_get(json_object_get(s->c, "expect"), "steps");
    size_t i;
    json_t *op;
    json_array_foreach (json_object_get(s->c, "ops"), i, op) {
        AUTO_JSON *before = all_rows(s);
        s->now += 1000;
        struct answer a = ops[op_index(op)].run(s, op);
        if (a.end)
            return a.verdict;
        AUTO_JSON *after = all_rows(s), *gone = json_array();
        AUTO_JSON *rows = changed_rows(before, after, gone);
        struct verdict v = compare_step(i, op, json_array_get(steps, i), &a, rows, gone);
        json_decref(a.result);
        if (v.outcome != PASSED)
            return v;
    }
    return verdict_passed();
}

struct verdict case_queue(const json_t *c)
{
    struct verdict v;
    if (cannot(c, &v))
        return v;
    struct script s = {.dir = "/tmp/galley-case-XXXXXX",
                       .now = 1700000000000,
                       .max_queue_size = json_int(json_object_get(c, "config"), "max_queue_size", DEFAULT_QUEUE_SIZE),
                       .c = c};
    if (!mkdtemp(s.dir))
        return verdict_failed("no temporary folder");
    v = script_open(&s) ? run_steps(&s) : verdict_failed("%s", s.err.message);
    script_fini(&s);
    return v;
}
