#include "worker/session.h"

#include <fcntl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/json.h"
#include "graph/graph.h"
#include "worker/executor.h"
#include "worker/nodes/node.h"
#include "worker/output.h"

struct stored_tensor {
    struct stored_tensor *next;
    struct tensor *tensor;
    char name[64];
};
struct stored_picture {
    struct stored_picture *next;
    struct picture *picture;
    char name[64];
};

struct session {
    const struct session_env *env;
    const struct link_ASSIGN *assign;
    struct graph *graph;
    struct executor *executor;
    struct output *output;
    struct stored_tensor *tensors;
    struct stored_picture *pictures;
    const struct prepared *node;         /* that runs now */
    char *graph_text, *workflow_text;    /* for the picture's text chunks */
    const char *phase, *message;         /* of the progress now */
    int step, total;
    int64_t next_preview_us;
    uint64_t random;
    int64_t started_ms;
    struct buf waiting;                  /* messages that go with the next frame */
    enum status send_status;             /* first failure of a frame: the link is gone */
};

enum { WAITING_BYTES = 32 << 10, PICTURE_MAX_BYTES = 64 << 20, PICTURE_MAX_PIXELS = 1 << 28 };

static void send_waiting(struct session *s, bool must_arrive)
{
    struct error e;
    if (!buf_ok(&s->waiting))
        s->send_status = ST_OUT_OF_MEMORY;
    if (s->send_status == ST_OK && s->waiting.len)
        s->send_status = s->env->send(s->env->self, (struct view){s->waiting.data, s->waiting.len}, must_arrive, &e);
    buf_reset(&s->waiting);
}

/* send sends M, behind what waits. */
static void send(struct session *s, const struct link_message *m)
{
    link_encode(m, &s->waiting);
    send_waiting(s, m->kind == LINK_FINISH);
}

/* send_of_node sends M, which is about the node that runs now. A quick node's may wait for the next message: one frame carries many of them. */
static void send_of_node(struct session *s, const struct link_message *m)
{
    link_encode(m, &s->waiting);
    if (!s->node->type->quick || s->waiting.len > WAITING_BYTES)
        send_waiting(s, false);
}

static void move(struct session *s)
{
    atomic_fetch_add_explicit(&s->env->vitals->counter, 1, memory_order_relaxed);
}

/* ---- progress */

static void send_progress(struct session *s)
{
    send(s, &(struct link_message){LINK_PROGRESS, .PROGRESS = {
        .launch = s->env->launch, .item = s->assign->item, .epoch = s->assign->epoch, .invocation_id = view_of(s->node->id),
        .source_id = view_of(s->node->source_id), .type = view_of(s->node->type->type), .phase = view_of(s->phase),
        .message = view_of(s->message), .step = s->step, .total = s->total}});
}

static bool hook_tick(void *self)
{
    struct session *s = self;
    move(s);
    return !atomic_load_explicit(&s->env->vitals->cancel, memory_order_relaxed) && s->send_status == ST_OK;
}

static bool hook_want_preview(void *self)
{
    struct session *s = self;
    return s->assign->want_previews > 0 && clock_us() >= s->next_preview_us;
}

static void hook_step(void *self, int step, int total, const uint8_t *rgb, int width, int height)
{
    struct session *s = self;
    s->step = step;
    s->total = total;
    send_progress(s);
    if (!rgb || s->assign->want_previews <= 0)
        return;
    s->next_preview_us = clock_us() + (int64_t)(1e6 / s->assign->want_previews);
    send(s, &(struct link_message){LINK_PREVIEW, .PREVIEW = {
        .launch = s->env->launch, .item = s->assign->item, .epoch = s->assign->epoch, .step = step, .total = total, .width = width,
        .height = height, .image = {(const char *)rgb, (size_t)width * (size_t)height * 3}}});
}

static enum status service_phase(void *self, const char *phase, const char *message, struct error *err)
{
    struct session *s = self;
    if (!hook_tick(s))
        return FAIL(err, CANCELED, "canceled");
    atomic_store(&s->env->vitals->phase, phase);
    s->phase = phase;
    s->message = message;
    s->step = s->total = 0;
    send_progress(s);
    return ST_OK;
}

/* ---- values of the item */

static enum status service_tensor_put(void *self, struct tensor *t, const char *kind, const char **ret_name, struct error *err)
{
    struct session *s = self;
    struct stored_tensor *st = calloc(1, sizeof *st);
    if (!st) {
        tensor_free(t);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a tensor of the item");
    }
    char uuid[UUID_TEXT];
    uuid_new(uuid);
    snprintf(st->name, sizeof st->name, "%s_%s", kind, uuid);
    st->tensor = t;
    st->next = s->tensors;
    s->tensors = st;
    *ret_name = st->name;
    return ST_OK;
}

static enum status service_tensor_get(void *self, const char *name, const struct tensor **ret, struct error *err)
{
    struct session *s = self;
    for (struct stored_tensor *st = s->tensors; st; st = st->next)
        if (strcmp(st->name, name) == 0) {
            *ret = st->tensor;
            return ST_OK;
        }
    return FAIL(err, NODE_FAILED, "no tensor '%s' in this item: latents and conditioning live for one item only", name);
}

static enum status picture_keep(struct session *s, const char *name, struct picture *p, struct error *err)
{
    struct stored_picture *sp = calloc(1, sizeof *sp);
    if (!sp) {
        picture_free(p);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a picture of the item");
    }
    snprintf(sp->name, sizeof sp->name, "%s", name);
    sp->picture = p;
    sp->next = s->pictures;
    s->pictures = sp;
    return ST_OK;
}

/* metadata_text is InvokeAI's invokeai_metadata chunk: the node's metadata without nulls, and who wrote it. */
static char *metadata_text(const json_t *metadata)
{
    AUTO_JSON *copy = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value)
        if (!json_is_null(value))
            json_object_set(copy, key, value);
    json_object_set_new(copy, "app_version", json_string("galley " GALLEY_VERSION));
    return json_text(copy);
}

static enum status service_image_put(void *self, const struct picture *p, const json_t *metadata, const char **ret_name, struct error *err)
{
    struct session *s = self;
    struct png_text texts[3];
    size_t n = 0;
    char *meta = metadata ? metadata_text(metadata) : NULL;
    if (meta)
        texts[n++] = (struct png_text){"invokeai_metadata", meta};
    if (s->workflow_text)
        texts[n++] = (struct png_text){"invokeai_workflow", s->workflow_text};
    if (!s->graph_text) {
        AUTO_JSON *graph = graph_json(s->graph, NULL);    /* without an id of its own: the same job gives the same bytes */
        s->graph_text = graph ? json_text(graph) : NULL;
    }
    if (s->graph_text)
        texts[n++] = (struct png_text){"invokeai_graph", s->graph_text};
    struct output_file file = {s->node->source_id, s->node->is_intermediate, texts, n};
    enum status st = output_put(s->output, p, &file, ret_name, err);
    free(meta);
    move(s);
    return st;
}

static enum status read_picture(const char *path, struct picture **ret, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot open picture '%s'", path);
    struct stat st;
    AUTO_BUF b = BUF_INIT;
    enum status s = ST_OK;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > PICTURE_MAX_BYTES)
        s = FAIL(err, TOO_LARGE, "picture '%s' is no regular file of at most %d bytes", path, (int)PICTURE_MAX_BYTES);
    else if (!buf_reserve(&b, (size_t)st.st_size))
        s = FAIL(err, OUT_OF_MEMORY, "out of memory reading picture '%s'", path);
    while (s == ST_OK && b.len < (size_t)st.st_size) {
        ssize_t n = read(fd, b.data + b.len, (size_t)st.st_size - b.len);
        if (n <= 0)
            s = FAIL_ERRNO(err, "cannot read picture '%s'", path);
        else
            b.len += (size_t)n;
    }
    close(fd);
    return s == ST_OK ? png_read(b.data, b.len, PICTURE_MAX_PIXELS, ret, err) : s;
}

static enum status service_image_get(void *self, const char *name, const struct picture **ret, struct error *err)
{
    struct session *s = self;
    for (struct stored_picture *sp = s->pictures; sp; sp = sp->next)
        if (strcmp(sp->name, name) == 0) {
            *ret = sp->picture;
            return ST_OK;
        }
    char path[1024];
    struct picture *p;
    if (!name[0] || name[0] == '.' || strchr(name, '/') || strlen(name) >= sizeof s->pictures->name)
        return FAIL(err, NODE_FAILED, "'%s' cannot be the name of a picture", name);
    if (!output_find(s->output, name, path, sizeof path))
        snprintf(path, sizeof path, "%s/images/%s", s->env->outputs, name);
    TRY(read_picture(path, &p, err));
    TRY(picture_keep(s, name, p, err));
    *ret = s->pictures->picture;
    return ST_OK;
}

static enum status service_model_get(void *self, const json_t *reference, struct model **ret, struct error *err)
{
    struct session *s = self;
    const char *key = json_str(reference, "key", "");
    const char *phase = s->phase, *message = s->message;
    TRY(service_phase(s, "load", "Loading model", err));
    enum status st = model_cache_get(s->env->models, key, ret, err);
    if (st == ST_OK && phase)
        TRY(service_phase(s, phase, message, err));
    return st;
}

static uint64_t service_random(void *self)
{
    struct session *s = self;
    uint64_t z = s->random += 0x9e3779b97f4a7c15u;   /* splitmix64 (Steele et al. 2014) */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---- the run */

static enum status set_values(struct session *s, struct error *err)
{
    json_t *values, *v;
    size_t i;
    if (!s->assign->values.n)
        return ST_OK;
    TRY(json_parse(s->assign->values.p, s->assign->values.n, GRAPH_MAX_BYTES, &values, err));
    enum status st = ST_OK;
    json_array_foreach(values, i, v)
        if (st == ST_OK)
            st = graph_set(s->graph, json_str(v, "node_path", ""), json_str(v, "field_name", ""), json_object_get(v, "value"), err);
    json_decref(values);
    return st;
}

static enum status prepare(struct session *s, struct error *err)
{
    json_t *document;
    char session_id[80], staging[600];
    TRY(json_parse(s->assign->graph.p, s->assign->graph.n, GRAPH_MAX_BYTES, &document, err));
    enum status st = graph_parse(document, &s->graph, NULL, err);
    json_decref(document);
    TRY(st);
    TRY(set_values(s, err));
    view_text(s->assign->session_id, session_id, sizeof session_id);
    view_text(s->assign->staging, staging, sizeof staging);
    TRY(output_new(staging, &s->output, err));
    s->workflow_text = s->assign->workflow.n ? view_dup(s->assign->workflow) : NULL;
    return executor_new(s->graph, session_id, &s->executor, err);
}

static void node_done(struct session *s, const char *error_type, const char *message, const char *result)
{
    send_of_node(s, &(struct link_message){LINK_NODE_DONE, .NODE_DONE = {
        .launch = s->env->launch, .item = s->assign->item, .epoch = s->assign->epoch, .invocation_id = view_of(s->node->id),
        .source_id = view_of(s->node->source_id), .type = view_of(s->node->type->type), .error = view_of(message),
        .error_type = view_of(error_type), .result = view_of(result)}});
}

static enum status run_node(struct session *s, const struct node_services *services, struct error *err)
{
    node_fn *fn = node_fn_find(s->node->type->type);
    json_t *output = NULL;
    s->phase = s->message = NULL;
    send_of_node(s, &(struct link_message){LINK_STARTED, .STARTED = {
        .launch = s->env->launch, .item = s->assign->item, .epoch = s->assign->epoch, .invocation_id = view_of(s->node->id),
        .source_id = view_of(s->node->source_id), .type = view_of(s->node->type->type)}});
    if (!hook_tick(s))
        return FAIL(err, CANCELED, "canceled");
    enum status st = fn ? fn(services, s->node->inputs, &output, err)
                        : FAIL(err, INTERNAL, "node type '%s' has no implementation", s->node->type->type);
    if (st == ST_CANCELED)
        return st;
    if (st == ST_OK)
        st = executor_complete(s->executor, s->node, output, err);
    if (st == ST_OK) {
        char *result = json_text(output);
        node_done(s, NULL, NULL, result);
        free(result);
    } else {
        error_prefix(err, "node '%s' (%s)", s->node->source_id, s->node->type->type);
        node_done(s, status_name(st), err->message, NULL);
        executor_fail(s->executor, s->node, status_name(st), err->message);
    }
    json_decref(output);
    return st;
}

static enum status run_graph(struct session *s, struct error *err)
{
    const struct engine_hooks hooks = {s, hook_tick, hook_step, hook_want_preview};
    const struct node_services services = {s, service_phase, &hooks, service_tensor_put, service_tensor_get, service_image_put,
                                           service_image_get, service_model_get, service_random};
    for (;;) {
        enum status st = executor_next(s->executor, &s->node, err);
        if (st != ST_OK && s->node)
            node_done(s, status_name(st), err->message, NULL);
        TRY(st);
        if (!s->node)
            return ST_OK;
        TRY(run_node(s, &services, err));
    }
}

const char *session_outcome(enum status st)
{
    switch (st) {
    case ST_OK: return "completed";
    case ST_CANCELED: return "canceled";
    case ST_OUT_OF_MEMORY: return "out_of_memory";
    case ST_DEVICE_LOST:
    case ST_NO_DEVICE: return "device_lost";
    case ST_DEVICE_FAULT: return "device_fault";
    default: return "failed";
    }
}

/* outcome_of: an item that cannot fit has failed and no more, a memory that is full against all figures ends the worker. */
static const char *outcome_of(const struct session *s, enum status st)
{
    return session_outcome(st == ST_OUT_OF_MEMORY && model_cache_refused(s->env->models) ? ST_NODE_FAILED : st);
}

static void send_finish(struct session *s, enum status st, const struct error *err)
{
    json_t *session = s->executor ? executor_session(s->executor) : NULL;
    char *session_text = session ? json_text(session) : NULL;
    char *files = s->output ? json_text(output_files(s->output)) : NULL;
    send(s, &(struct link_message){LINK_FINISH, .FINISH = {
        .launch = s->env->launch, .item = s->assign->item, .epoch = s->assign->epoch, .outcome = view_of(outcome_of(s, st)),
        .error_type = view_of(st == ST_OK ? NULL : status_name(st)), .error_message = view_of(st == ST_OK ? NULL : err->message),
        .session = view_of(session_text), .files = view_of(files), .busy_ms = clock_ms() - s->started_ms}});
    json_decref(session);
    free(session_text);
    free(files);
}

static void session_fini(struct session *s)
{
    executor_free(s->executor);
    graph_free(s->graph);
    output_free(s->output);
    while (s->tensors) {
        struct stored_tensor *t = s->tensors;
        s->tensors = t->next;
        tensor_free(t->tensor);
        free(t);
    }
    while (s->pictures) {
        struct stored_picture *p = s->pictures;
        s->pictures = p->next;
        picture_free(p->picture);
        free(p);
    }
    free(s->graph_text);
    free(s->workflow_text);
    buf_fini(&s->waiting);
}

enum status session_run(const struct session_env *env, const struct link_ASSIGN *a, struct error *err)
{
    struct session s = {.env = env, .assign = a, .random = a->random_seed, .started_ms = clock_ms(), .waiting = BUF_INIT};
    atomic_store(&env->vitals->phase, "start");
    enum status st = prepare(&s, err);
    if (st == ST_OK)
        st = run_graph(&s, err);
    if (st == ST_OK && s.output) {
        atomic_store(&env->vitals->phase, "save");
        st = output_seal(s.output, err);
    }
    send_finish(&s, st, err);
    session_fini(&s);
    if (s.send_status == ST_OK)
        return st;
    return s.send_status == ST_OUT_OF_MEMORY ? FAIL(err, OUT_OF_MEMORY, "out of memory for a frame") : FAIL(err, UNREACHABLE, "the link takes no frames");
}
