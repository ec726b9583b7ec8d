/* Commands on items: items item batch current next cancel... retry clear prune delete, and pictures. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "supervisor/control.h"
#include "supervisor/rows.h"
#include "supervisor/supervisor.h"

static void fail_memory(struct request *r)
{
    struct error err;
    FAIL(&err, OUT_OF_MEMORY, "the node is out of memory");
    request_fail(r, &err);
}

/* ---- reads */

struct read_op {
    struct store_op op;
    struct request *request;
    struct item_page page;
    struct item_detail detail;
    struct batch_counts counts;
    struct image_page images;
};

static void read_free(struct read_op *o)
{
    item_page_fini(&o->page);
    item_detail_fini(&o->detail);
    image_page_fini(&o->images);
    free(o);
}

static void submit_read(struct request *r, store_read_fn *read, store_done_fn *done)
{
    struct read_op *o = calloc(1, sizeof *o);
    if (!o) {
        fail_memory(r);
        return;
    }
    o->op.read = read;
    o->op.done = done;
    o->request = r;
    store_read(r->sup->store, &o->op);
}

/* answered fails the request of a read that failed; true: nothing is left to do. */
static bool answered(struct read_op *o, enum status st, const struct error *err)
{
    if (st == ST_OK)
        return false;
    request_fail(o->request, err);
    read_free(o);
    return true;
}

static enum status read_items(struct queue_reader *q, struct store_op *op, struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    const json_t *a = o->request->args;
    const struct item_filter f = {
        .after = json_int(a, "cursor", 0), .limit = (int)json_int(a, "limit", 100), .status = json_str(a, "status", NULL), .batch_id = json_str(a, "batch_id", NULL),
        .origin = json_str(a, "origin", NULL), .destination = json_str(a, "destination", NULL), .device = json_str(a, "device", NULL),
    };
    return reader_items(q, &f, &o->page, err);
}

static void write_page(struct request *r, const struct item_page *p, struct wr *w)
{
    wr_key(w, "items");
    wr_array(w, (uint32_t)p->n);
    for (int i = 0; i < p->n; i++)
        row_write(r->sup, &p->rows[i], w);
    wr_end(w);
}

static void write_cursor(struct wr *w, bool more, int64_t last)
{
    wr_key(w, "cursor");
    if (more)
        wr_int(w, last);
    else
        wr_null(w);
}

static void items_done(struct store_op *op, enum status st, const struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    if (answered(o, st, err))
        return;
    struct wr *w = request_result(o->request);
    wr_map(w, 2);
    write_page(o->request, &o->page, w);
    write_cursor(w, o->page.more, o->page.n ? o->page.rows[o->page.n - 1].item_id : 0);
    wr_end(w);
    request_send(o->request);
    read_free(o);
}

void command_items(struct request *r)
{
    submit_read(r, read_items, items_done);
}

static enum status read_item(struct queue_reader *q, struct store_op *op, struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    int64_t id = json_int(o->request->args, "item_id", 0);
    TRY(reader_item(q, id, &o->detail, err));
    return reader_images(q, 0, id, 1000, &o->images, err);
}

/* write_json_text writes stored JSON as a value, null if there is none. */
static void write_json_text(struct wr *w, const char *key, const char *text, size_t n)
{
    struct error e;
    json_t *j = NULL;
    wr_key(w, key);
    if (text && json_parse(text, n, 256 << 20, &j, &e) == ST_OK)
        wr_json(w, j);
    else
        wr_null(w);
    json_decref(j);
}

static void item_done(struct store_op *op, enum status st, const struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    if (answered(o, st, err))
        return;
    const struct batch_text *b = o->detail.batch;
    struct wr *w = request_result(o->request);
    wr_map(w, 5);
    wr_key(w, "item");
    row_write(o->request->sup, &o->detail.page.rows[0], w);
    write_json_text(w, "session", o->detail.session, o->detail.session_len);
    write_json_text(w, "graph", b ? b->graph : NULL, b ? b->graph_len : 0);
    write_json_text(w, "workflow", b ? b->workflow : NULL, b ? b->workflow_len : 0);
    wr_key(w, "images");
    wr_array(w, (uint32_t)o->images.n);
    for (int i = 0; i < o->images.n; i++)
        image_row_write(&o->images.rows[i], w);
    wr_end(w);
    wr_end(w);
    request_send(o->request);
    read_free(o);
}

void command_item(struct request *r)
{
    submit_read(r, read_item, item_done);
}

static enum status read_batch(struct queue_reader *q, struct store_op *op, struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    return reader_batch(q, json_str(o->request->args, "batch_id", ""), &o->counts, err);
}

static void batch_done(struct store_op *op, enum status st, const struct error *err)
{
    static const char *const names[] = {"pending", "in_progress", "waiting", "completed", "failed", "canceled"};
    struct read_op *o = (struct read_op *)op;
    if (answered(o, st, err))
        return;
    const struct batch_counts *c = &o->counts;
    struct wr *w = request_result(o->request);
    wr_map(w, 11);
    wr_kstr(w, "queue_id", c->queue_id);
    wr_kstr(w, "batch_id", c->batch_id);
    wr_kstr(w, "origin", c->origin[0] ? c->origin : NULL);
    wr_kstr(w, "destination", c->destination[0] ? c->destination : NULL);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int64_t n = 0;
        for (int s = 0; s < ITEM_STATES; s++)
            n += strcmp(item_state_reader_name((enum item_state)s), names[i]) == 0 ? c->count[s] : 0;
        wr_kint(w, names[i], n);
    }
    wr_kint(w, "total", c->total);
    wr_end(w);
    request_send(o->request);
    read_free(o);
}

void command_batch(struct request *r)
{
    submit_read(r, read_batch, batch_done);
}

static enum status read_current(struct queue_reader *q, struct store_op *op, struct error *err)
{
    return reader_current(q, &((struct read_op *)op)->page, err);
}

static void current_done(struct store_op *op, enum status st, const struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    if (answered(o, st, err))
        return;
    struct wr *w = request_result(o->request);
    wr_map(w, 1);
    write_page(o->request, &o->page, w);
    wr_end(w);
    request_send(o->request);
    read_free(o);
}

void command_current(struct request *r)
{
    submit_read(r, read_current, current_done);
}

static enum status read_next(struct queue_reader *q, struct store_op *op, struct error *err)
{
    return reader_next(q, supervisor_now_ms(), &((struct read_op *)op)->page, err);
}

static void next_done(struct store_op *op, enum status st, const struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    if (answered(o, st, err))
        return;
    struct wr *w = request_result(o->request);
    wr_map(w, 1);
    wr_key(w, "item");
    if (o->page.n)
        row_write(o->request->sup, &o->page.rows[0], w);
    else
        wr_null(w);
    wr_end(w);
    request_send(o->request);
    read_free(o);
}

void command_next(struct request *r)
{
    submit_read(r, read_next, next_done);
}

static enum status read_images(struct queue_reader *q, struct store_op *op, struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    const json_t *a = o->request->args;
    return reader_images(q, json_int(a, "cursor", 0), json_int(a, "item_id", 0), (int)json_int(a, "limit", 100), &o->images, err);
}

static void images_done(struct store_op *op, enum status st, const struct error *err)
{
    struct read_op *o = (struct read_op *)op;
    if (answered(o, st, err))
        return;
    struct wr *w = request_result(o->request);
    wr_map(w, 2);
    wr_key(w, "images");
    wr_array(w, (uint32_t)o->images.n);
    for (int i = 0; i < o->images.n; i++)
        image_row_write(&o->images.rows[i], w);
    wr_end(w);
    write_cursor(w, o->images.more, o->images.n ? o->images.rows[o->images.n - 1].image_id : 0);
    wr_end(w);
    request_send(o->request);
    read_free(o);
}

void command_images(struct request *r)
{
    submit_read(r, read_images, images_done);
}

struct image_op { struct read_op read; struct buf bytes; };

static enum status read_image(struct queue_reader *q, struct store_op *op, struct error *err)
{
    struct image_op *o = (struct image_op *)op;
    const char *name = json_str(o->read.request->args, "image_name", "");
    TRY(reader_image(q, name, &o->read.images, err));
    return outputs_read(o->read.request->sup->paths.outputs, name, &o->bytes, err);    /* on the reader's thread: the disk may be slow */
}

static void image_done(struct store_op *op, enum status st, const struct error *err)
{
    struct image_op *o = (struct image_op *)op;
    struct request *r = o->read.request;
    if (st != ST_OK) {
        request_fail(r, err);
    } else {
        struct wr *w = request_result(r);
        wr_map(w, 2);
        wr_key(w, "image");
        image_row_write(&o->read.images.rows[0], w);
        wr_key(w, "bytes");
        wr_bin(w, o->bytes.data, o->bytes.len);
        wr_end(w);
        request_send(r);
    }
    buf_fini(&o->bytes);
    read_free(&o->read);
}

void command_image_get(struct request *r)
{
    struct image_op *o = calloc(1, sizeof *o);
    if (!o) {
        fail_memory(r);
        return;
    }
    o->read.op.read = read_image;
    o->read.op.done = image_done;
    o->read.request = r;
    store_read(r->sup->store, &o->read.op);
}

/* ---- changes: every one of them reports the ids it really changed */

struct change_op {
    struct store_op op;
    struct request *request;
    struct change_list changes;
    json_t *images;                 /* names of pictures to unlink after the commit, NULL: keep them */
    const char *event;              /* of the whole, NULL: none */
    int64_t *ids;
    size_t n_ids;
    const char **texts;
    int64_t max_queue_size;         /* as configured when the request came */
};

static void change_free(struct change_op *c)
{
    change_list_fini(&c->changes);
    json_decref(c->images);
    free(c->ids);
    free(c->texts);
    free(c);
}

/* stop_running signals the workers of items that are canceling or were deleted under them. */
static void stop_running(struct supervisor *sup, const struct change_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct item_change *c = &l->v[i];
        bool deleted = c->to == ITEM_GONE && (c->from == ITEM_IN_PROGRESS || c->from == ITEM_CANCELING);
        if (c->to == ITEM_CANCELING || deleted)
            pool_cancel(sup->pool, c->slot, c->item_id, c->epoch);
    }
}

static json_t *changed_ids(const struct change_list *l)
{
    json_t *ids = json_array();
    for (size_t i = 0; i < l->n; i++)
        json_array_append_new(ids, json_integer(l->v[i].item_id));
    return ids;
}

static void change_done(struct store_op *op, enum status st, const struct error *err)
{
    struct change_op *c = (struct change_op *)op;
    struct request *r = c->request;
    struct supervisor *sup = r->sup;
    if (st != ST_OK) {
        request_fail(r, err);
        change_free(c);
        return;
    }
    json_t *ids = changed_ids(&c->changes), *name;
    size_t i;
    supervisor_changed(sup, &c->changes, c->event != NULL);
    stop_running(sup, &c->changes);
    json_array_foreach(c->images, i, name)
        outputs_delete(sup->paths.outputs, json_string_value(name));
    if (c->event && c->changes.n) {
        const struct ev_field fields[] = {EV_J("item_ids", ids)};
        relay_event(sup->relay, "ev/queue ", c->event, fields, 1);
    }
    struct wr *w = request_result(r);
    wr_map(w, 2);
    wr_kjson(w, "item_ids", ids);
    wr_kint(w, "images_deleted", (int64_t)json_array_size(c->images));
    wr_end(w);
    request_send(r);
    json_decref(ids);
    change_free(c);
    pool_dispatch(sup->pool);
}

static void submit_change(struct request *r, store_write_fn *run, const char *event)
{
    struct change_op *c = calloc(1, sizeof *c);
    const json_t *ids = json_object_get(r->args, "item_ids"), *batches = json_object_get(r->args, "batch_ids"), *v;
    size_t i;
    if (!c) {
        fail_memory(r);
        return;
    }
    *c = (struct change_op){.op = {.run = run, .done = change_done}, .request = r, .event = event, .max_queue_size = r->sup->config->max_queue_size};
    c->n_ids = ids ? json_array_size(ids) : json_array_size(batches);
    c->ids = calloc(c->n_ids + 1, sizeof *c->ids);
    c->texts = calloc(c->n_ids + 1, sizeof *c->texts);
    if (json_flag(r->args, "images", false))
        c->images = json_array();
    if (!c->ids || !c->texts) {
        fail_memory(r);
        change_free(c);
        return;
    }
    json_array_foreach(ids, i, v)
        c->ids[i] = json_integer_value(v);
    json_array_foreach(batches, i, v)
        c->texts[i] = json_string_value(v);
    store_submit(r->sup->store, &c->op);
}

static enum status run_cancel(struct queue *q, struct store_op *op, struct error *err)
{
    struct change_op *c = (struct change_op *)op;
    const json_t *a = c->request->args;
    return queue_cancel(q, json_int(a, "item_id", 0), (int)json_int(a, "attempt", -1), supervisor_now_ms(), &c->changes, err);
}

void command_cancel(struct request *r)
{
    submit_change(r, run_cancel, NULL);
}

static enum status run_cancel_batches(struct queue *q, struct store_op *op, struct error *err)
{
    struct change_op *c = (struct change_op *)op;
    return queue_cancel_batches(q, c->texts, c->n_ids, supervisor_now_ms(), &c->changes, err);
}

void command_cancel_by_batch_ids(struct request *r)
{
    submit_change(r, run_cancel_batches, "queue_items_canceled");
}

static enum status run_cancel_pending(struct queue *q, struct store_op *op, struct error *err)
{
    return queue_cancel_pending(q, supervisor_now_ms(), &((struct change_op *)op)->changes, err);
}

void command_cancel_all_except_current(struct request *r)
{
    submit_change(r, run_cancel_pending, "queue_items_canceled");
}

static enum status run_retry(struct queue *q, struct store_op *op, struct error *err)
{
    struct change_op *c = (struct change_op *)op;
    return queue_retry(q, c->ids, c->n_ids, json_flag(c->request->args, "again", false), c->max_queue_size, supervisor_now_ms(), &c->changes, err);
}

void command_retry(struct request *r)
{
    submit_change(r, run_retry, "queue_items_retried");
}

static enum status run_delete(struct queue *q, struct store_op *op, struct error *err)
{
    struct change_op *c = (struct change_op *)op;
    return queue_delete(q, c->ids, c->n_ids, c->images, &c->changes, err);
}

void command_delete(struct request *r)
{
    submit_change(r, run_delete, "queue_items_deleted");
}

static enum status run_prune(struct queue *q, struct store_op *op, struct error *err)
{
    struct change_op *c = (struct change_op *)op;
    return queue_prune(q, 0, c->images, &c->changes, err);
}

void command_prune(struct request *r)
{
    submit_change(r, run_prune, "queue_items_deleted");
}

static enum status run_clear(struct queue *q, struct store_op *op, struct error *err)
{
    struct change_op *c = (struct change_op *)op;
    return queue_clear(q, c->images, &c->changes, err);
}

void command_clear(struct request *r)
{
    submit_change(r, run_clear, "queue_cleared");
}

static enum status run_image_delete(struct queue *q, struct store_op *op, struct error *err)
{
    struct change_op *c = (struct change_op *)op;
    const char *name = json_str(c->request->args, "image_name", "");
    TRY(queue_image_delete(q, name, err));
    c->images = json_array();
    json_array_append_new(c->images, json_string(name));
    return ST_OK;
}

void command_image_delete(struct request *r)
{
    submit_change(r, run_image_delete, NULL);
}
