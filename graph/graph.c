#include "graph/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/internal.h"

enum status graph_refuse(struct report *r, enum status code, const char *stage, const char *class, const char *kind, const char *loc,
                         const char *fmt, ...)
{
    char message[sizeof((struct error *)0)->message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    if (r->detail) {
        r->detail->stage = stage;
        r->detail->class = class;
        snprintf(r->detail->kind, sizeof r->detail->kind, "%s", kind);
        snprintf(r->detail->loc, sizeof r->detail->loc, "%s", loc);
    }
    return error_set(r->err, code, __FILE__, __LINE__, "%s", message);
}

/* A fault of shape or literal. */
#define graph_malformed(r, kind, loc, ...) graph_refuse((r), ST_BAD_GRAPH, "parse", "ValidationError", (kind), (loc), __VA_ARGS__)

enum status graph_no_memory(struct report *r)
{
    return graph_refuse(r, ST_OUT_OF_MEMORY, "parse", "MemoryError", "", "", "out of memory reading a graph");
}

static const char *json_kind(const json_t *j)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list", [JSON_STRING] = "a text", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "true",    [JSON_FALSE] = "false",   [JSON_NULL] = "null",
    };
    return j ? names[json_typeof(j)] : "nothing";
}

/* Coerces VALUE for FIELD of the node at KEY, with the node in the message and the place. */
static enum status node_value(const char *key, const struct node_type *type, const struct node_field *field, const json_t *value,
                              json_t **ret, struct report *r)
{
    struct coerce_fault fault = {"", ""};
    struct error err = {0};
    enum status s = coerce_field(field, value, ret, &fault, &err);
    if (s == ST_OK)
        return ST_OK;
    char loc[256];
    snprintf(loc, sizeof loc, "nodes.%.60s.%s.%s%s%.80s", key, type->type, field->name, *fault.loc ? "." : "", fault.loc);
    return graph_refuse(r, s, "parse", "ValidationError", fault.kind, loc, "node '%.100s' (%s): %s", key, type->type, err.message);
}

static enum status refuse_type(const char *key, const json_t *value, struct report *r)
{
    char loc[256];
    snprintf(loc, sizeof loc, "nodes.%.200s", key);
    const char *type = json_string_value(value);
    if (!value)
        return graph_malformed(r, "union_tag_not_found", loc, "node '%.100s' has no type: each node needs a \"type\"", key);
    if (!type)
        return graph_malformed(r, "union_tag_invalid", loc, "node '%.100s': its type must be a text, not %s", key, json_kind(value));
    if (node_type_known(type))
        return graph_refuse(r, ST_NOT_AVAILABLE, "parse", "ValidationError", "union_tag_invalid", loc,
                            "node '%.100s': InvokeAI's node type '%s' is not available in this build", key, type);
    const char *nearest = node_type_nearest(type);
    return graph_malformed(r, "union_tag_invalid", loc, "node '%.100s': there is no node type '%.100s'%s%s%s", key, type,
                           nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
}

/* Reads the id and the two flags every node has. The id of a node that has none is "": no key but "" equals it. */
static enum status parse_attributes(const char *key, json_t *object, struct graph_node *n, struct report *r)
{
    static const char *const names[] = {"id", "is_intermediate", "use_cache"};
    n->use_cache = n->type->use_cache;
    for (size_t i = 0; i < 3; i++) {
        const json_t *value = json_object_get(object, names[i]);
        json_t *taken;
        if (!value)
            continue;
        TRY(node_value(key, n->type, node_attribute(names[i]), value, &taken, r));
        if (i == 0)
            n->owned_id = taken;
        else
            *(i == 1 ? &n->is_intermediate : &n->use_cache) = json_is_true(taken);
        if (i > 0)
            json_decref(taken);
    }
    n->id = n->owned_id ? json_string_value(n->owned_id) : "";
    if (strlen(n->id) > GRAPH_MAX_ID)
        return graph_refuse(r, ST_TOO_LARGE, "parse", "ValidationError", "string_too_long", "nodes",
                            "node id '%.40s...' has %zu bytes, the limit is %d", n->id, strlen(n->id), GRAPH_MAX_ID);
    return ST_OK;
}

static bool keeps_extra(const char *key, const struct node_type *type) { return !node_attribute(key) && !node_input(type, key); }

static enum status node_check_over(const struct graph_node *n, const struct node_field *f, const json_t *value, struct report *r)
{
    struct error err = {0};
    if (field_check_over(f, value, n->fields, &err) == ST_OK)
        return ST_OK;
    char loc[256];
    snprintf(loc, sizeof loc, "nodes.%.60s.%s.%s", n->key, n->type->type, f->name);
    return graph_malformed(r, "value_error", loc, "node '%.100s' (%s): %s", n->key, n->type->type, err.message);
}

static enum status parse_fields(const char *key, const json_t *object, struct graph_node *n, struct report *r)
{
    n->fields = json_object();
    for (size_t i = 0; i < n->type->n_inputs; i++) {
        const struct node_field *f = &n->type->inputs[i];
        const json_t *value = json_object_get(object, f->name);
        json_t *taken = NULL;
        if (value)
            TRY(node_value(key, n->type, f, value, &taken, r));
        else
            taken = field_default(f);
        if (json_object_set_new_nocheck(n->fields, f->name, taken) != 0)
            return graph_no_memory(r);
        if (value)
            TRY(node_check_over(n, f, taken, r));
    }
    if (!n->type->extra_inputs)
        return ST_OK;
    const char *name;
    json_t *value;
    json_object_foreach ((json_t *)object, name, value)
        if (keeps_extra(name, n->type) && json_object_set_nocheck(n->fields, name, value) != 0)
            return graph_no_memory(r);
    return ST_OK;
}

static enum status parse_node(const char *key, json_t *object, struct graph_node *n, struct report *r)
{
    if (!json_is_object(object)) {
        char loc[256];
        snprintf(loc, sizeof loc, "nodes.%.200s", key);
        return graph_malformed(r, "model_attributes_type", loc, "node '%.100s' must be an object, not %s", key, json_kind(object));
    }
    const json_t *type = json_object_get(object, "type");
    n->type = json_is_string(type) ? node_type_find(json_string_value(type)) : NULL;
    if (!n->type)
        return refuse_type(key, type, r);
    n->key = key;
    n->object = object;
    TRY(parse_attributes(key, object, n, r));
    return parse_fields(key, object, n, r);
}

static enum status parse_nodes(struct graph *g, struct report *r)
{
    json_t *nodes = json_object_get(g->document, "nodes");
    if (!nodes)
        return ST_OK;
    if (!json_is_object(nodes))
        return graph_malformed(r, "dict_type", "nodes", "\"nodes\" must be an object from node id to node, not %s", json_kind(nodes));
    size_t n = json_object_size(nodes);
    if (n > GRAPH_MAX_NODES)
        return graph_refuse(r, ST_TOO_LARGE, "parse", "ValidationError", "too_long", "nodes", "the graph has %zu nodes, the limit is %d", n,
                            GRAPH_MAX_NODES);
    if (!(g->nodes = calloc(n ? n : 1, sizeof *g->nodes)))
        return graph_no_memory(r);
    const char *key;
    json_t *object;
    json_object_foreach (nodes, key, object)
        TRY(parse_node(key, object, &g->nodes[g->n_nodes++], r));
    return ST_OK;
}

/* Reads one end ("source" or "destination") of edge INDEX. */
static enum status parse_end(const json_t *edge, size_t index, const char *end, const char **ret_node, const char **ret_field,
                             struct report *r)
{
    char loc[64];
    snprintf(loc, sizeof loc, "edges.%zu.%s", index, end);
    const json_t *object = json_object_get(edge, end);
    if (!object)
        return graph_malformed(r, "missing", loc, "edge %zu has no \"%s\"", index, end);
    if (!json_is_object(object))
        return graph_malformed(r, "model_type", loc, "edge %zu: \"%s\" must be an object {node_id, field}, not %s", index, end,
                               json_kind(object));
    static const char *const keys[] = {"node_id", "field"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(object, keys[i]);
        snprintf(loc, sizeof loc, "edges.%zu.%s.%s", index, end, keys[i]);
        if (!json_is_string(value))
            return graph_malformed(r, value ? "string_type" : "missing", loc, "edge %zu: \"%s.%s\" must be a text, not %s", index, end,
                                   keys[i], json_kind(value));
        *(i == 0 ? ret_node : ret_field) = json_string_value(value);
    }
    return ST_OK;
}

static enum status parse_edges(struct graph *g, struct report *r)
{
    const json_t *edges = json_object_get(g->document, "edges");
    if (!edges)
        return ST_OK;
    if (!json_is_array(edges))
        return graph_malformed(r, "list_type", "edges", "\"edges\" must be a list of edges, not %s", json_kind(edges));
    size_t n = json_array_size(edges), i;
    if (n > GRAPH_MAX_EDGES)
        return graph_refuse(r, ST_TOO_LARGE, "parse", "ValidationError", "too_long", "edges", "the graph has %zu edges, the limit is %d", n,
                            GRAPH_MAX_EDGES);
    if (!(g->edges = calloc(n ? n : 1, sizeof *g->edges)))
        return graph_no_memory(r);
    json_t *edge;
    json_array_foreach (edges, i, edge) {
        struct graph_edge *e = &g->edges[g->n_edges++];
        char loc[64];
        snprintf(loc, sizeof loc, "edges.%zu", i);
        if (!json_is_object(edge))
            return graph_malformed(r, "model_type", loc, "edge %zu must be an object {source, destination}, not %s", i, json_kind(edge));
        TRY(parse_end(edge, i, "source", &e->source_id, &e->source_field, r));
        TRY(parse_end(edge, i, "destination", &e->destination_id, &e->destination_field, r));
    }
    return ST_OK;
}

static enum status parse_all(struct graph *g, struct report *r)
{
    if (!json_is_object(g->document))
        return graph_malformed(r, "model_type", "", "a graph must be an object {nodes, edges}, not %s", json_kind(g->document));
    const json_t *id = json_object_get(g->document, "id");
    if (id && !json_is_string(id))
        return graph_malformed(r, "string_type", "id", "the graph's \"id\" must be a text, not %s", json_kind(id));
    TRY(parse_nodes(g, r));
    TRY(parse_edges(g, r));
    TRY(graph_index(g, r));
    TRY(graph_edges(g, r));
    TRY(graph_sort(g, r));
    TRY(graph_edge_types(g, r));
    return graph_wiring(g, r);
}

enum status graph_parse(json_t *document, struct graph **ret, struct graph_error *detail, struct error *err)
{
    struct report r = {detail, err};
    struct graph *g = calloc(1, sizeof *g);
    if (!g)
        return graph_no_memory(&r);
    g->document = json_incref(document);
    enum status s = parse_all(g, &r);
    if (s != ST_OK) {
        graph_free(g);
        return s;
    }
    *ret = g;
    return ST_OK;
}

void graph_free(struct graph *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_nodes; i++) {
        json_decref(g->nodes[i].fields);
        json_decref(g->nodes[i].owned_id);
    }
    free(g->nodes);
    free(g->edges);
    free(g->order);
    free(g->by_id);
    json_decref(g->document);
    free(g);
}

enum status graph_set(struct graph *g, const char *node, const char *field, const json_t *value, struct error *err)
{
    int i = graph_find(g, node);
    if (i < 0)
        return FAIL(err, BAD_GRAPH, "the graph has no node '%.100s'", node);
    struct graph_node *n = &g->nodes[i];
    const struct node_field *f = node_input(n->type, field);
    bool is_attribute = !f && (strcmp(field, "use_cache") == 0 || strcmp(field, "is_intermediate") == 0);
    if (is_attribute)
        f = node_attribute(field);
    if (!f)
        return FAIL(err, BAD_GRAPH, "node '%.100s' (%s) has no field '%.100s' to set", node, n->type->type, field);
    struct report r = {NULL, err};
    AUTO_JSON *taken = NULL;
    TRY(node_value(node, n->type, f, value, &taken, &r));
    TRY(node_check_over(n, f, taken, &r));
    if (is_attribute)
        *(strcmp(field, "use_cache") == 0 ? &n->use_cache : &n->is_intermediate) = json_is_true(taken);
    else if (json_object_set_nocheck(n->fields, field, taken) != 0)
        return graph_no_memory(&r);
    return json_object_set_nocheck(n->object, field, taken) == 0 ? ST_OK : graph_no_memory(&r);
}

int graph_find(const struct graph *g, const char *id)
{
    int low = 0, high = g->n_nodes - 1;
    while (low <= high) {
        int middle = low + (high - low) / 2, index = g->by_id[middle];
        int order = strcmp(id, g->nodes[index].id);
        if (order == 0)
            return index;
        if (order < 0)
            high = middle - 1;
        else
            low = middle + 1;
    }
    return -1;
}
