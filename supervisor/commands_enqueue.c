/* enqueue: the batch is checked, its models are resolved, it is stored; then it is acknowledged. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/batch.h"
#include "proto/limits.h"
#include "supervisor/control.h"
#include "supervisor/supervisor.h"

struct enqueue_op {
    struct store_op op;
    struct request *request;
    struct enqueue_args args;
    struct enqueue_result result;
    char *graph, *workflow, *data, *model_keys;
    int64_t count;
};

static void enqueue_free(struct enqueue_op *e)
{
    free(e->graph);
    free(e->workflow);
    free(e->data);
    free(e->model_keys);
    free(e);
}

static enum status run(struct queue *q, struct store_op *op, struct error *err)
{
    struct enqueue_op *e = (struct enqueue_op *)op;
    return queue_enqueue(q, &e->args, &e->result, err);
}

/* write_batch echoes the batch as InvokeAI does, with the id it was stored under. */
static void write_batch(struct wr *w, const struct enqueue_op *e)
{
    json_t *batch = json_copy(json_object_get(e->request->args, "batch"));
    json_object_set_new(batch, "batch_id", json_string(e->result.batch_id));
    wr_kjson(w, "batch", batch);
    json_decref(batch);
}

static void announce(struct supervisor *sup, const struct enqueue_op *e)
{
    const struct enqueue_args *a = &e->args;
    const struct enqueue_result *r = &e->result;
    sup->counts[ITEM_PENDING] += r->count;
    const struct ev_field fields[] = {
        EV_S("batch_id", r->batch_id), EV_I("enqueued", r->count), EV_I("requested", r->count), EV_I("priority", r->priority), EV_S("origin", a->origin),
        EV_S("destination", a->destination), EV_S("queue_id", a->queue_id ? a->queue_id : "default"), EV_S("user_id", "system"),
        EV_I("item_id_first", r->first_item_id), EV_I("item_id_last", r->first_item_id + r->count - 1),
    };
    if (r->count)
        relay_event(sup->relay, "ev/queue ", "batch_enqueued", fields, sizeof fields / sizeof fields[0]);
    pool_dispatch(sup->pool);
}

static void done(struct store_op *op, enum status st, const struct error *err)
{
    struct enqueue_op *e = (struct enqueue_op *)op;
    struct request *r = e->request;
    if (st != ST_OK) {
        request_fail(r, err);
        enqueue_free(e);
        return;
    }
    struct wr *w = request_result(r);
    wr_map(w, 7);
    wr_kstr(w, "queue_id", e->args.queue_id ? e->args.queue_id : "default");
    wr_kint(w, "requested", e->result.count);
    wr_kint(w, "enqueued", e->result.count);
    write_batch(w, e);
    wr_kint(w, "priority", e->result.priority);
    wr_key(w, "item_ids");
    wr_array(w, (uint32_t)e->result.count);
    for (int64_t i = e->result.count; i > 0; i--)
        wr_int(w, e->result.first_item_id + i - 1);
    wr_end(w);
    wr_kbool(w, "replayed", e->result.replayed);
    wr_end(w);
    if (!e->result.replayed)
        announce(r->sup, e);
    request_send(r);
    enqueue_free(e);
}

/* body_hash is over the request without its key, in a form that does not depend on the order of members. */
static enum status body_hash(const json_t *args, uint8_t ret[SHA256_BYTES], struct error *err)
{
    AUTO_JSON *copy = json_copy((json_t *)args);
    json_object_del(copy, "key");
    char *text = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text)
        return FAIL(err, OUT_OF_MEMORY, "the node is out of memory");
    sha256(text, strlen(text), ret);
    free(text);
    return ST_OK;
}

static const char *own_text(const json_t *j, char **ret, struct error *err)
{
    if (j && !json_is_null(j) && !(*ret = json_text(j)))
        FAIL(err, OUT_OF_MEMORY, "the node is out of memory");
    return *ret;
}

/* check_bytes: all of an item has to fit into one frame of a worker's link. */
static enum status check_bytes(const char *name, const char *text, struct error *err)
{
    _Static_assert(3 * GRAPH_MAX_BYTES < LIMIT_LINK_BYTES, "graph, data and workflow travel together");
    size_t n = text ? strlen(text) : 0;
    if (n > GRAPH_MAX_BYTES)
        return FAIL(err, TOO_LARGE, "batch: '%s' is JSON of %zu bytes, the limit is %d; split the batch", name, n, (int)GRAPH_MAX_BYTES);
    return ST_OK;
}

static enum status fill(struct enqueue_op *e, const struct batch *b, const json_t *keys, struct error *err)
{
    const json_t *args = e->request->args, *batch = json_object_get(args, "batch");
    const struct config *cfg = e->request->sup->config;
    const json_t *workflow = json_object_get(batch, "workflow");
    err->code = ST_OK;
    e->args = (struct enqueue_args){
        .queue_id = json_str(args, "queue_id", NULL), .batch_id = json_str(batch, "batch_id", NULL), .origin = json_str(batch, "origin", NULL),
        .destination = json_str(batch, "destination", NULL), .graph = own_text(b->graph->document, &e->graph, err), .data = own_text(b->data, &e->data, err),
        .model_keys = own_text(keys, &e->model_keys, err), .runs = b->runs, .count = b->count, .prepend = json_flag(args, "prepend", false),
        .key = json_str(args, "key", NULL), .max_attempts = (int)json_int(args, "max_attempts", cfg->max_attempts), .max_queue_size = cfg->max_queue_size,
        .now_ms = supervisor_now_ms(),
    };
    if (json_is_string(workflow)) {
        e->args.workflow = e->workflow = strdup(json_string_value(workflow));
        if (!e->workflow)
            FAIL(err, OUT_OF_MEMORY, "the node is out of memory");
    } else {
        e->args.workflow = own_text(workflow, &e->workflow, err);
    }
    if (err->code)
        return err->code;
    TRY(check_bytes("graph", e->graph, err));
    TRY(check_bytes("data", e->data, err));
    TRY(check_bytes("workflow", e->workflow, err));
    return body_hash(args, e->args.body_hash, err);
}

static enum status check_length(const json_t *batch, const char *key, struct error *err)
{
    const json_t *v = json_object_get(batch, key);
    if (v && !json_is_string(v) && !json_is_null(v))
        return FAIL(err, BAD_BATCH, "batch: '%s' must be a text", key);
    if (json_string_length(v) >= QUEUE_ID_BYTES || (v && json_is_string(v) && strcmp(key, "batch_id") == 0 && !json_string_length(v)))
        return FAIL(err, BAD_BATCH, "batch: '%s' has %zu bytes, must have 1 to %d", key, json_string_length(v), QUEUE_ID_BYTES - 1);
    return ST_OK;
}

static enum status prepare(struct enqueue_op *e, struct error *err)
{
    struct request *r = e->request;
    json_t *body = json_object_get(r->args, "batch"), *keys = NULL;
    struct batch *b = NULL;
    TRY(check_length(body, "batch_id", err));
    TRY(check_length(body, "origin", err));
    TRY(check_length(body, "destination", err));
    TRY(batch_parse(body, LIMIT_BATCH_ITEMS, &b, NULL, err));
    enum status st = models_resolve(r->sup->models, b->graph, &keys, err);    /* first: a loader without a model gets the default one */
    if (st == ST_OK)
        st = graph_check_runnable(b->graph, err);
    if (st == ST_OK)
        st = fill(e, b, keys, err);
    json_decref(keys);
    batch_free(b);
    return st;
}

void command_enqueue(struct request *r)
{
    struct error err;
    struct enqueue_op *e = calloc(1, sizeof *e);
    if (!e) {
        FAIL(&err, OUT_OF_MEMORY, "the node is out of memory");
        request_fail(r, &err);
        return;
    }
    e->op.run = run;
    e->op.done = done;
    e->request = r;
    if (r->sup->state != RUN_SERVING)
        FAIL(&err, BAD_STATE, "the node is draining and takes no new work");
    else if (prepare(e, &err) == ST_OK) {
        store_submit(r->sup->store, &e->op);
        return;
    }
    request_fail(r, &err);
    enqueue_free(e);
}
