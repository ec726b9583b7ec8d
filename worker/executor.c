#include "worker/executor_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/coerce.h"

static enum status no_memory(struct error *err) { return FAIL(err, OUT_OF_MEMORY, "out of memory running a graph"); }

/* ---- making and freeing */

/* Groups the edges by destination, in document order. */
static void list_edges(struct executor *x)
{
    const struct graph *g = x->g;
    for (int i = 0; i < g->n_edges; i++)
        x->sources[g->edges[i].destination].n_edges++;
    for (int i = 0, at = 0; i < g->n_nodes; i++) {
        x->sources[i].first_edge = at;
        at += x->sources[i].n_edges;
        x->sources[i].n_edges = 0;
    }
    for (int i = 0; i < g->n_edges; i++) {
        struct source *s = &x->sources[g->edges[i].destination];
        x->edges_into[s->first_edge + s->n_edges++] = i;
    }
}

static enum status executor_init(struct executor *x, const struct graph *g, const char *session_id, struct error *err)
{
    size_t n = (size_t)g->n_nodes + 1;
    x->g = g;
    x->active = -1;
    x->session_id = strdup(session_id);
    x->sources = calloc(n, sizeof *x->sources);
    x->rank = calloc(n, sizeof *x->rank);
    x->edges_into = calloc((size_t)g->n_edges + 1, sizeof *x->edges_into);
    x->executed = json_array();
    x->executed_history = json_array();
    x->errors = json_object();
    if (!x->session_id || !x->sources || !x->rank || !x->edges_into || !x->executed || !x->executed_history || !x->errors)
        return no_memory(err);
    uuid_new(x->graph_id);
    uuid_new(x->execution_graph_id);
    for (int i = 0; i < g->n_nodes; i++) {
        x->rank[g->order[i]] = i;
        x->sources[i].is_iterate = strcmp(g->nodes[i].type->type, "iterate") == 0;
        x->sources[i].is_collect = strcmp(g->nodes[i].type->type, "collect") == 0;
    }
    list_edges(x);
    return executor_axes(x, err);
}

enum status executor_new(const struct graph *g, const char *session_id, struct executor **ret, struct error *err)
{
    struct executor *x = calloc(1, sizeof *x);
    enum status s = x ? executor_init(x, g, session_id, err) : no_memory(err);
    if (s != ST_OK)
        executor_free(x);
    else
        *ret = x;
    return s;
}

void executor_free(struct executor *x)
{
    if (!x)
        return;
    for (int i = 0; i < x->n_copies; i++) {
        json_decref(x->copies[i]->inputs);
        json_decref(x->copies[i]->output);
        free(x->copies[i]);
    }
    for (int i = 0; i < x->n_ready; i++)
        free(x->ready[i].heap);
    free(x->ready);
    free(x->copies);
    free(x->links);
    free(x->children);
    free(x->sources);
    free(x->edges_into);
    free(x->rank);
    free(x->session_id);
    json_decref(x->executed);
    json_decref(x->executed_history);
    json_decref(x->errors);
    free(x);
}

/* ---- the ready queues */

/* The next index of C's path from place K on, -1 at its end; K moves past it. */
static int path_step(const struct executor *x, const struct copy *c, int *k)
{
    const struct axes *axes = &x->sources[c->source].axes;
    while (*k < axes->n && c->at[*k] < 0)
        ++*k;
    return *k < axes->n ? c->at[(*k)++] : -1;
}

int executor_compare(const struct executor *x, const struct copy *a, const struct copy *b)
{
    for (int i = 0, k = 0;;) {
        int p = path_step(x, a, &i), q = path_step(x, b, &k);
        if (p != q)
            return p < q ? -1 : 1;
        if (p < 0)
            return 0;
    }
}

static bool runs_before(const struct executor *x, int a, int b)
{
    int order = executor_compare(x, x->copies[a], x->copies[b]);
    return order ? order < 0 : a < b;
}

static struct ready *ready_queue(struct executor *x, const struct node_type *type)
{
    for (int i = 0; i < x->n_ready; i++)
        if (x->ready[i].type == type)
            return &x->ready[i];
    struct ready *more = realloc(x->ready, ((size_t)x->n_ready + 1) * sizeof *more);
    if (!more)
        return NULL;
    x->ready = more;
    more[x->n_ready] = (struct ready){.type = type};
    return &more[x->n_ready++];
}

enum status executor_ready(struct executor *x, struct copy *c, struct error *err)
{
    struct ready *q = ready_queue(x, c->p.type);
    if (!q || !executor_grow(&q->heap, q->n, &q->cap, sizeof *q->heap))
        return no_memory(err);
    int at = q->n++;
    for (int up; at > 0 && runs_before(x, c->index, q->heap[up = (at - 1) / 2]); at = up)
        q->heap[at] = q->heap[up];
    q->heap[at] = c->index;
    return ST_OK;
}

static int ready_pop(const struct executor *x, struct ready *q)
{
    int first = q->heap[0], last = q->heap[--q->n], at = 0;
    for (int down; (down = 2 * at + 1) < q->n; at = down) {
        if (down + 1 < q->n && runs_before(x, q->heap[down + 1], q->heap[down]))
            down++;
        if (runs_before(x, last, q->heap[down]))
            break;
        q->heap[at] = q->heap[down];
    }
    q->heap[at] = last;
    return first;
}

/* Takes the next ready copy, NULL when there is none. */
static struct copy *ready_next(struct executor *x)
{
    if (x->active < 0 || x->ready[x->active].n == 0) {
        x->active = -1;
        for (int i = 0; i < x->n_ready; i++)
            if (x->ready[i].n > 0 && (x->active < 0 || strcmp(x->ready[i].type->class_name, x->ready[x->active].type->class_name) < 0))
                x->active = i;
    }
    return x->active < 0 ? NULL : x->copies[ready_pop(x, &x->ready[x->active])];
}

/* ---- inputs */

static void record_error(struct executor *x, const struct copy *c, const char *type, const char *message)
{
    char text[1024];
    snprintf(text, sizeof text, "%s: %s", type, message);
    json_object_set_new(x->errors, c->id, json_string(text));
    x->failed = true;
}

bool executor_item_edge(const struct executor *x, int edge) { return strcmp(x->g->edges[edge].destination_field, "item") == 0; }

static const json_t *link_value(const struct executor *x, const struct link *l)
{
    return json_object_get(x->copies[l->from]->output, x->g->edges[l->edge].source_field);
}

/* Fails C's preparation: InvokeAI's class and words go to the session, ours to the caller; ERR already
 * speaks of the field. */
static enum status refuse_input(struct executor *x, const struct copy *c, const char *type, const char *message, struct error *err)
{
    record_error(x, c, type, message);
    if (err)
        err->code = ST_NODE_FAILED;
    error_prefix(err, "node '%.100s' (%s)", c->p.source_id, c->p.type->type);
    return ST_NODE_FAILED;
}

static void set_attribute(struct copy *c, const char *name, const json_t *value)
{
    if (strcmp(name, "use_cache") == 0)
        c->use_cache = json_is_true(value);
    else if (strcmp(name, "is_intermediate") == 0)
        c->p.is_intermediate = json_is_true(value);
}

/* A place inside a field as InvokeAI writes it: "collection[0].image_name". */
static void place_text(const char *field, const char *loc, char *ret, size_t size)
{
    size_t at = (size_t)snprintf(ret, size, "%s", field);
    while (*loc && at < size) {
        size_t n = strcspn(loc, ".");
        bool is_index = strspn(loc, "0123456789") == n;
        at += (size_t)snprintf(ret + at, size - at, is_index ? "[%.*s]" : ".%.*s", (int)n, loc);
        loc += n + (loc[n] == '.');
    }
}

/* Puts what comes over link L into the inputs of C, coerced like a literal. */
static enum status set_input(struct executor *x, struct copy *c, const struct link *l, struct error *err)
{
    const char *name = x->g->edges[l->edge].destination_field;
    const struct node_field *input = node_input(c->p.type, name), *f = input ? input : node_attribute(name);
    const json_t *value = link_value(x, l);
    AUTO_JSON *taken = NULL;
    struct coerce_fault fault = {"", ""};
    char message[300];
    if (strcmp(name, "id") == 0) {
        (void)FAIL(err, NODE_FAILED, "field 'id' cannot be set by an edge");
        snprintf(message, sizeof message, "'%.200s'", json_is_string(value) ? json_string_value(value) : "id");
        return refuse_input(x, c, "KeyError", message, err);
    }
    enum status s = coerce_field(f, value ? value : json_null(), &taken, &fault, err);
    if (s == ST_OK)
        s = field_check_over(f, taken, c->inputs, err);
    if (s != ST_OK) {
        char place[256];
        place_text(name, fault.loc, place, sizeof place);
        snprintf(message, sizeof message, "Node %s has invalid incoming input for %.200s", c->id, place);
        return refuse_input(x, c, "NodeInputError", message, err);
    }
    if (!input)
        set_attribute(c, name, taken);
    else if (json_object_set_nocheck(c->inputs, name, taken) != 0)
        return no_memory(err);
    return ST_OK;
}

/* An iterate gets the whole list, unchecked, and its index. */
static enum status set_iterate(const struct executor *x, struct copy *c, struct error *err)
{
    for (int i = 0; i < c->n_links; i++) {
        const struct link *l = &x->links[c->first_link + i];
        if (strcmp(x->g->edges[l->edge].destination_field, "collection") == 0 &&
            json_object_set_nocheck(c->inputs, "collection", (json_t *)link_value(x, l)) != 0)
            return no_memory(err);
    }
    int index = c->at[x->sources[c->source].axes.n - 1];
    return json_object_set_new_nocheck(c->inputs, "index", json_integer(index)) == 0 ? ST_OK : no_memory(err);
}

/* A collect gets the members of the lists and then the items, as its links are ordered. */
static enum status set_collect(const struct executor *x, struct copy *c, struct error *err)
{
    AUTO_JSON *list = json_array();
    for (int i = 0; i < c->n_links; i++) {
        const struct link *l = &x->links[c->first_link + i];
        json_t *value = (json_t *)link_value(x, l);
        const char *field = x->g->edges[l->edge].destination_field;
        bool is_collection = strcmp(field, "collection") == 0;
        if (!is_collection && strcmp(field, "item") != 0)
            continue;
        int failed =
            is_collection && json_is_array(value) ? json_array_extend(list, value) : json_array_append(list, value ? value : json_null());
        if (failed)
            return no_memory(err);
    }
    return json_object_set_nocheck(c->inputs, "collection", list) == 0 ? ST_OK : no_memory(err);
}

/* Every required input must have a value by now. */
static enum status check_required(struct executor *x, struct copy *c, struct error *err)
{
    for (size_t i = 0; i < c->p.type->n_inputs; i++) {
        const struct node_field *f = &c->p.type->inputs[i];
        if (!f->required || !json_is_null(json_object_get(c->inputs, f->name)))
            continue;
        bool needs_edge = f->input == INPUT_CONNECTION;
        (void)FAIL(err, NODE_FAILED, "required field '%s' has no value%s", f->name, needs_edge ? " and needs an edge" : " and no edge");
        char message[300];
        snprintf(message, sizeof message, "Node %s missing %s for field %s", c->p.type->type,
                 needs_edge ? "connections" : "value or connection", f->name);
        return refuse_input(x, c, needs_edge ? "RequiredConnectionException" : "MissingInputException", message, err);
    }
    return ST_OK;
}

static enum status set_inputs(struct executor *x, struct copy *c, struct error *err)
{
    const struct source *s = &x->sources[c->source];
    if (!(c->inputs = json_copy(x->g->nodes[c->source].fields)))
        return no_memory(err);
    c->p.inputs = c->inputs;
    if (s->is_iterate)
        return set_iterate(x, c, err);
    if (s->is_collect)
        return set_collect(x, c, err);
    for (int i = 0; i < c->n_links; i++)
        TRY(set_input(x, c, &x->links[c->first_link + i], err));
    return check_required(x, c, err);
}

/* ---- running */

enum status executor_source_done(struct executor *x, int source, struct error *err)
{
    x->sources[source].executed = true;
    const char *id = x->g->nodes[source].id;
    if (json_array_append_new(x->executed, json_string(id)) != 0 || json_array_append_new(x->executed_history, json_string(id)) != 0)
        return no_memory(err);
    return ST_OK;
}

static enum status check_complete(const struct executor *x, struct error *err)
{
    for (int i = 0; i < x->g->n_nodes; i++)
        if (!x->sources[i].executed)
            return FAIL(err, INTERNAL, "node '%.100s' never became ready", x->g->nodes[i].id);
    return ST_OK;
}

enum status executor_next(struct executor *x, const struct prepared **ret, struct error *err)
{
    *ret = NULL;
    if (x->failed)
        return ST_OK;
    struct copy *c = ready_next(x);
    if (!c) {
        TRY(executor_expand(x, err));
        c = ready_next(x);
    }
    if (!c)
        return check_complete(x, err);
    *ret = &c->p;
    return set_inputs(x, c, err);
}

/* What an iterate or collect worked on is in its results too, so the session does without it. */
static int forget_list(const struct executor *x, struct copy *c)
{
    const struct source *s = &x->sources[c->source];
    return s->is_iterate || s->is_collect ? json_object_set_new_nocheck(c->inputs, "collection", json_array()) : 0;
}

/* Counts the output, so that no graph can grow its values without end. */
static enum status count_output(struct executor *x, const struct prepared *p, const json_t *output, struct error *err)
{
    x->value_bytes += executor_text_bytes(output, EXECUTOR_MAX_VALUES);
    if (x->value_bytes <= EXECUTOR_MAX_VALUES)
        return ST_OK;
    return FAIL(err, TOO_LARGE, "the outputs of the session's nodes exceed %d bytes (at node '%.100s')", (int)EXECUTOR_MAX_VALUES,
                p->source_id);
}

enum status executor_complete(struct executor *x, const struct prepared *p, json_t *output, struct error *err)
{
    struct copy *c = (struct copy *)p;
    struct source *s = &x->sources[c->source];
    if (!json_is_object(output) || !json_is_string(json_object_get(output, "type")))
        return FAIL(err, INTERNAL, "node '%.100s' (%s): its output is no object with a type", p->source_id, p->type->type);
    TRY(count_output(x, p, output, err));
    c->output = json_incref(output);
    c->done = true;
    x->n_done++;
    if (json_array_append_new(x->executed, json_string(c->id)) != 0 || forget_list(x, c) != 0)
        return no_memory(err);
    if (++s->n_done == s->n_copies)
        TRY(executor_source_done(x, c->source, err));
    for (int i = c->first_child; i >= 0; i = x->children[i].next) {
        struct copy *child = x->copies[x->children[i].copy];
        if (--child->unmet == 0)
            TRY(executor_ready(x, child, err));
    }
    return ST_OK;
}

void executor_fail(struct executor *x, const struct prepared *p, const char *error_type, const char *message)
{
    record_error(x, (const struct copy *)p, error_type, message);
}

bool executor_failed(const struct executor *x) { return x->failed; }

int executor_path(const struct executor *x, const struct prepared *p, int ret[EXECUTOR_MAX_NESTING])
{
    int n = 0, k = 0;
    while ((ret[n < EXECUTOR_MAX_NESTING ? n : 0] = path_step(x, (const struct copy *)p, &k)) >= 0 && n < EXECUTOR_MAX_NESTING)
        n++;
    return n;
}

void executor_progress(const struct executor *x, int *ret_done, int *ret_total)
{
    *ret_done = x->n_done;
    *ret_total = x->g->n_nodes;
}
