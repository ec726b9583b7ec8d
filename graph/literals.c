/* What the literals of a graph leave open, and the model references among them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/internal.h"
#include "graph/types.h"

/* Bit i of a node's mask: its input i has an edge. A node type has at most 64 inputs (tested). Caller frees; NULL when out of memory. */
static uint64_t *connected_inputs(const struct graph *g)
{
    uint64_t *masks = calloc((size_t)g->n_nodes + 1, sizeof *masks);
    for (int i = 0; masks && i < g->n_edges; i++) {
        const struct graph_edge *e = &g->edges[i];
        const struct node_type *type = g->nodes[e->destination].type;
        const struct node_field *f = node_input(type, e->destination_field);
        if (f)
            masks[e->destination] |= (uint64_t)1 << (f - type->inputs);
    }
    return masks;
}

static enum status check_node(const struct graph_node *n, uint64_t connected, struct error *err)
{
    for (size_t i = 0; i < n->type->n_inputs; i++) {
        const struct node_field *f = &n->type->inputs[i];
        if (f->required && !(connected >> i & 1) && json_is_null(json_object_get(n->fields, f->name)))
            return FAIL(err, BAD_GRAPH, "node '%.100s' (%s): field '%s' has no edge and no value; give it %s", n->id, n->type->type,
                        f->name, f->input == INPUT_CONNECTION ? "an edge" : "one of them");
    }
    return ST_OK;
}

enum status graph_check_runnable(const struct graph *g, struct error *err)
{
    uint64_t *connected = connected_inputs(g);
    enum status s = connected ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory checking a graph");
    for (int i = 0; s == ST_OK && i < g->n_nodes; i++)
        s = check_node(&g->nodes[i], connected[i], err);
    free(connected);
    return s;
}

/* The walk of graph_each_model over one field. */
struct model_walk {
    graph_model_fn *fn;
    void *arg;
    const struct graph_node *node;
    const char *field;
    struct error *err;
};

static enum status walk_value(const struct model_walk *w, struct type_view type, json_t *value, json_t **ret);

/* A list with the replaced members, or NULL in RET when none was. Values may be shared, so they are never changed in place. */
static enum status walk_list(const struct model_walk *w, struct type_view item, json_t *list, json_t **ret)
{
    AUTO_JSON *changed = NULL;
    size_t i;
    json_t *value;
    json_array_foreach (list, i, value) {
        json_t *replacement = NULL;
        TRY(walk_value(w, item, value, &replacement));
        if (!replacement)
            continue;
        if (!changed)
            changed = json_copy(list);
        if (json_array_set_new(changed, i, replacement) != 0)
            return FAIL(w->err, OUT_OF_MEMORY, "out of memory replacing a model reference");
    }
    *ret = json_incref(changed);
    return ST_OK;
}

static enum status walk_struct(const struct model_walk *w, const struct node_struct *s, json_t *object, json_t **ret)
{
    AUTO_JSON *changed = NULL;
    for (size_t i = 0; i < s->n_members; i++) {
        const struct node_field *m = &s->members[i];
        json_t *replacement = NULL;
        TRY(walk_value(w, type_view(m->type, false), json_object_get(object, m->name), &replacement));
        if (!replacement)
            continue;
        if (!changed)
            changed = json_copy(object);
        if (json_object_set_new(changed, m->name, replacement) != 0)
            return FAIL(w->err, OUT_OF_MEMORY, "out of memory replacing a model reference");
    }
    *ret = json_incref(changed);
    return ST_OK;
}

/* Calls the function for each reference in VALUE; RET is the changed value, NULL when nothing changed. */
static enum status walk_value(const struct model_walk *w, struct type_view type, json_t *value, json_t **ret)
{
    struct type_view inner, members[TYPE_MAX_MEMBERS];
    if (type_is(type, "ModelIdentifierField"))
        return json_is_object(value) ? w->fn(w->arg, w->node->id, w->node->type->type, w->field, value, ret, w->err) : ST_OK;
    if (type_inner(type, "union", &inner)) {
        size_t n = type_members(type, members);
        for (size_t i = 0; i < n; i++)
            if (json_is_array(value) == type_is_list(members[i]))
                return walk_value(w, members[i], value, ret);
        return ST_OK;
    }
    if (type_inner(type, "list", &inner))
        return json_is_array(value) ? walk_list(w, inner, value, ret) : ST_OK;
    const struct node_struct *s = node_struct_find(type.text, type.len);
    return s && json_is_object(value) ? walk_struct(w, s, value, ret) : ST_OK;
}

static enum status walk_field(const struct model_walk *w, const struct node_field *f)
{
    json_t *value = json_object_get(w->node->fields, f->name), *changed = NULL;
    if (json_is_null(value) && f->required && strcmp(f->type, "ModelIdentifierField") == 0)
        TRY(w->fn(w->arg, w->node->id, w->node->type->type, f->name, value, &changed, w->err));
    else
        TRY(walk_value(w, type_view(f->type, false), value, &changed));
    if (!changed)
        return ST_OK;
    int failed = json_object_set_nocheck(w->node->fields, f->name, changed) | json_object_set_nocheck(w->node->object, f->name, changed);
    json_decref(changed);
    return failed ? FAIL(w->err, OUT_OF_MEMORY, "out of memory replacing a model reference") : ST_OK;
}

enum status graph_each_model(struct graph *g, graph_model_fn *fn, void *arg, struct error *err)
{
    uint64_t *connected = connected_inputs(g);
    enum status s = connected ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory reading a graph");
    for (int i = 0; s == ST_OK && i < g->n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        for (size_t k = 0; s == ST_OK && !n->type->extra_inputs && k < n->type->n_inputs; k++) {
            struct model_walk w = {fn, arg, n, n->type->inputs[k].name, err};
            if (!(connected[i] >> k & 1))
                s = walk_field(&w, &n->type->inputs[k]);
        }
    }
    free(connected);
    return s;
}
