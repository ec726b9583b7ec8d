/* The session as InvokeAI writes it. */
#include <string.h>

#include "common/json.h"
#include "worker/executor_state.h"

static json_t *without_nulls(const json_t *value);

static json_t *object_without_nulls(const json_t *object)
{
    AUTO_JSON *kept = json_object();
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value)
        if (!json_is_null(value) && json_object_set_new_nocheck(kept, key, without_nulls(value)) != 0)
            return NULL;
    return json_incref(kept);
}

/* A copy of VALUE without the members that are null; members of lists stay. NULL when out of memory. */
static json_t *without_nulls(const json_t *value)
{
    if (json_is_object(value))
        return object_without_nulls(value);
    if (!json_is_array(value))
        return json_incref((json_t *)value);
    AUTO_JSON *kept = json_array();
    size_t i;
    json_t *member;
    json_array_foreach (value, i, member)
        if (json_array_append_new(kept, without_nulls(member)) != 0)
            return NULL;
    return json_incref(kept);
}

size_t executor_text_bytes(const json_t *value, size_t limit)
{
    const char *key;
    json_t *member;
    size_t i, n = 2;
    if (json_is_string(value))
        return json_string_length(value) + 2;
    if (json_is_integer(value))
        return 8;
    if (json_is_real(value))
        return 20;
    if (!json_is_object(value) && !json_is_array(value))
        return 5;
    json_object_foreach ((json_t *)value, key, member) {
        if (n > limit)
            break;
        n += strlen(key) + 4 + executor_text_bytes(member, limit - n);
    }
    json_array_foreach (value, i, member) {
        if (n > limit)
            break;
        n += 1 + executor_text_bytes(member, limit - n);
    }
    return n;
}

static const json_t *copy_inputs(const struct executor *x, const struct copy *c)
{
    return c->inputs ? c->inputs : x->g->nodes[c->source].fields;
}

/* Whether the session would have more than EXECUTOR_MAX_SESSION bytes. */
static bool is_too_long(const struct executor *x)
{
    enum { PER_COPY = 500, PER_LINK = 190 };
    size_t n = (size_t)x->n_copies * PER_COPY + (size_t)x->n_links * PER_LINK;
    for (int i = 0; i < x->n_copies && n <= EXECUTOR_MAX_SESSION; i++) {
        n += executor_text_bytes(copy_inputs(x, x->copies[i]), EXECUTOR_MAX_SESSION);
        n += executor_text_bytes(x->copies[i]->output, EXECUTOR_MAX_SESSION);
    }
    return n > EXECUTOR_MAX_SESSION;
}

static json_t *copy_json(const struct executor *x, const struct copy *c)
{
    AUTO_JSON *node = graph_node_json(c->p.type, c->id, c->p.is_intermediate, c->use_cache, copy_inputs(x, c));
    return node ? without_nulls(node) : NULL;
}

json_t *executor_invocation(const struct prepared *p)
{
    const struct copy *c = (const struct copy *)p;
    AUTO_JSON *node = graph_node_json(p->type, p->id, p->is_intermediate, c->use_cache, p->inputs);
    bool is_control = p->type == node_type_find("iterate") || p->type == node_type_find("collect");
    if (!node || (is_control && json_object_set_new_nocheck(node, "collection", json_array()) != 0))
        return NULL;
    return json_incref(node);
}

static json_t *path_json(const struct executor *x, const struct copy *c)
{
    int path[EXECUTOR_MAX_NESTING], n = executor_path(x, &c->p, path);
    AUTO_JSON *list = json_array();
    for (int i = 0; i < n; i++)
        if (json_array_append_new(list, json_integer(path[i])) != 0)
            return NULL;
    return json_incref(list);
}

static json_t *execution_graph_json(const struct executor *x)
{
    AUTO_JSON *nodes = json_object();
    AUTO_JSON *edges = json_array();
    int failed = 0;
    for (int i = 0; i < x->n_copies; i++) {
        const struct copy *c = x->copies[i];
        failed |= json_object_set_new_nocheck(nodes, c->id, copy_json(x, c));
        for (int k = 0; k < c->n_links; k++) {
            const struct link *l = &x->links[c->first_link + k];
            const struct graph_edge *e = &x->g->edges[l->edge];
            failed |= json_array_append_new(edges, graph_edge_json(x->copies[l->from]->id, e->source_field, c->id, e->destination_field));
        }
    }
    return failed ? NULL : json_pack("{s:s, s:O, s:O}", "id", x->execution_graph_id, "nodes", nodes, "edges", edges);
}

/* The members with one entry per prepared node. */
static int put_copies(const struct executor *x, json_t *session)
{
    AUTO_JSON *results = json_object();
    AUTO_JSON *sources = json_object();
    AUTO_JSON *paths = json_object();
    AUTO_JSON *indegree = json_object();
    int failed = 0;
    for (int i = 0; i < x->n_copies; i++) {
        const struct copy *c = x->copies[i];
        if (c->output)
            failed |= json_object_set_new_nocheck(results, c->id, without_nulls(c->output));
        failed |= json_object_set_new_nocheck(sources, c->id, json_string(c->p.source_id));
        failed |= json_object_set_new_nocheck(paths, c->id, path_json(x, c));
        failed |= json_object_set_new_nocheck(indegree, c->id, json_integer(c->unmet));
    }
    failed |= json_object_set_nocheck(session, "results", results);
    failed |= json_object_set_nocheck(session, "prepared_source_mapping", sources);
    failed |= json_object_set_nocheck(session, "prepared_iteration_paths", paths);
    return failed | json_object_set_nocheck(session, "indegree", indegree);
}

static int put_sources(const struct executor *x, json_t *session)
{
    AUTO_JSON *prepared = json_object();
    int failed = 0;
    for (int i = 0; i < x->g->n_nodes; i++) {
        const struct source *s = &x->sources[i];
        if (!s->prepared)
            continue;
        json_t *ids = json_array();
        failed |= json_object_set_new_nocheck(prepared, x->g->nodes[i].id, ids);
        for (int k = 0; !failed && k < s->n_copies; k++)
            failed |= json_array_append_new(ids, json_string(x->copies[s->first_copy + k]->id));
    }
    return failed | json_object_set_nocheck(session, "source_prepared_mapping", prepared);
}

/* The graph without nulls; its edges have none. */
static json_t *source_graph_json(const struct executor *x)
{
    AUTO_JSON *graph = graph_json(x->g, x->graph_id);
    json_t *nodes = graph ? without_nulls(json_object_get(graph, "nodes")) : NULL;
    return json_object_set_new_nocheck(graph, "nodes", nodes) == 0 ? json_incref(graph) : NULL;
}

json_t *executor_session(const struct executor *x)
{
    AUTO_JSON *session = json_pack("{s:s, s:o, s:O, s:O, s:O, s:[], s:[], s:i, s:[]}", "id", x->session_id, "graph", source_graph_json(x),
                                   "executed", x->executed, "executed_history", x->executed_history, "errors", x->errors,
                                   "workflow_call_stack", "workflow_call_history", "max_workflow_call_depth", 4, "ready_order");
    int failed = !session;
    if (!failed && is_too_long(x)) {
        failed |= json_object_del(session, "executed");
        failed |= json_object_set_new_nocheck(session, "shortened", json_string("prepared nodes and results are left out: too long"));
    } else if (!failed) {
        failed |= json_object_set_new_nocheck(session, "execution_graph", execution_graph_json(x));
        failed |= put_copies(x, session) | put_sources(x, session);
    }
    return failed ? NULL : json_incref(session);
}
