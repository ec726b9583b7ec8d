/* The graph as InvokeAI writes it. */
#include "common/json.h"
#include "graph/internal.h"

json_t *graph_node_json(const struct node_type *type, const char *id, bool is_intermediate, bool use_cache, const json_t *fields)
{
    AUTO_JSON *node = json_object();
    int failed = json_object_set_new_nocheck(node, "id", json_string(id));
    failed |= json_object_set_new_nocheck(node, "is_intermediate", json_boolean(is_intermediate));
    failed |= json_object_set_new_nocheck(node, "use_cache", json_boolean(use_cache));
    for (size_t i = 0; i < type->n_inputs; i++)
        failed |= json_object_set_nocheck(node, type->inputs[i].name, json_object_get(fields, type->inputs[i].name));
    failed |= json_object_set_new_nocheck(node, "type", json_string(type->type));
    const char *key;
    json_t *value;
    if (json_object_size(fields) > type->n_inputs)
        json_object_foreach ((json_t *)fields, key, value)
            if (!node_input(type, key))
                failed |= json_object_set_nocheck(node, key, value);
    return failed ? NULL : json_incref(node);
}

static json_t *end_json(const char *node, const char *field)
{
    AUTO_JSON *end = json_object();
    if (json_object_set_new_nocheck(end, "node_id", json_string(node)) != 0 ||
        json_object_set_new_nocheck(end, "field", json_string(field)) != 0)
        return NULL;
    return json_incref(end);
}

json_t *graph_edge_json(const char *source, const char *source_field, const char *destination, const char *destination_field)
{
    AUTO_JSON *edge = json_object();
    if (json_object_set_new_nocheck(edge, "source", end_json(source, source_field)) != 0 ||
        json_object_set_new_nocheck(edge, "destination", end_json(destination, destination_field)) != 0)
        return NULL;
    return json_incref(edge);
}

json_t *graph_json(const struct graph *g, const char *id)
{
    AUTO_JSON *nodes = json_object();
    AUTO_JSON *edges = json_array();
    int failed = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        failed |= json_object_set_new_nocheck(nodes, n->id, graph_node_json(n->type, n->id, n->is_intermediate, n->use_cache, n->fields));
    }
    for (int i = 0; i < g->n_edges; i++) {
        const struct graph_edge *e = &g->edges[i];
        failed |= json_array_append_new(edges, graph_edge_json(e->source_id, e->source_field, e->destination_id, e->destination_field));
    }
    const char *own = json_str(g->document, "id", id);
    if (failed)
        return NULL;
    return own ? json_pack("{s:s, s:O, s:O}", "id", own, "nodes", nodes, "edges", edges)
               : json_pack("{s:O, s:O}", "nodes", nodes, "edges", edges);
}
