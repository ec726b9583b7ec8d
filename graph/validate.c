/* Checks of the graph as a whole: ids, edge ends, cycles, edge types. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"
#include "graph/types.h"

static int compare_ids(const void *a, const void *b, void *graph)
{
    const struct graph *g = graph;
    int i = *(const int *)a, j = *(const int *)b, order = strcmp(g->nodes[i].id, g->nodes[j].id);
    return order ? order : i - j;
}

enum status graph_index(struct graph *g, struct report *r)
{
    size_t n = (size_t)g->n_nodes;
    if (!(g->by_id = calloc(n + 1, sizeof *g->by_id)))
        return graph_no_memory(r);
    for (int i = 0; i < g->n_nodes; i++)
        g->by_id[i] = i;
    qsort_r(g->by_id, n, sizeof *g->by_id, compare_ids, g);
    for (int i = 1; i < g->n_nodes; i++) {
        const char *id = g->nodes[g->by_id[i]].id;
        if (*id && strcmp(id, g->nodes[g->by_id[i - 1]].id) == 0)
            return graph_invalid(r, "DuplicateNodeIdError", "two nodes have the id '%.100s': ids must be unique", id);
    }
    for (int i = 0; i < g->n_nodes; i++) {
        const struct graph_node *node = &g->nodes[i];
        if (!node->owned_id)
            return graph_invalid(r, "NodeIdMismatchError", "node '%.100s' has no \"id\": it must repeat its key", node->key);
        if (strcmp(node->id, node->key) != 0)
            return graph_invalid(r, "NodeIdMismatchError", "node '%.100s' has the id '%.100s': it must repeat its key", node->key,
                                 node->id);
    }
    return ST_OK;
}

static enum status find_end(const struct graph *g, const struct graph_edge *e, bool is_source, int *ret, struct report *r)
{
    const char *id = is_source ? e->source_id : e->destination_id;
    *ret = graph_find(g, id);
    if (*ret >= 0)
        return ST_OK;
    return graph_invalid(r, "NodeNotFoundError", "an edge (%.60s.%.60s -> %.60s.%.60s) %s node '%.100s', which is not in the graph",
                         e->source_id, e->source_field, e->destination_id, e->destination_field, is_source ? "starts at" : "ends at", id);
}

static enum status no_field(const struct graph_node *n, const char *field, bool is_source, struct report *r)
{
    const struct node_field *fields = is_source ? n->type->outputs : n->type->inputs;
    size_t count = is_source ? n->type->n_outputs : n->type->n_inputs;
    char names[400] = "";
    for (size_t i = 0, at = 0; i < count && at < sizeof names - 1; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? " " : "", fields[i].name);
    return graph_invalid(r, "NodeFieldNotFoundError", "an edge %s field '%.100s' of node '%.100s', but %s has no such %s; it has: %s",
                         is_source ? "starts at" : "ends at", field, n->id, n->type->type, is_source ? "output" : "input", names);
}

enum status graph_edges(struct graph *g, struct report *r)
{
    for (int i = 0; i < g->n_edges; i++) {
        struct graph_edge *e = &g->edges[i];
        TRY(find_end(g, e, true, &e->source, r));
        TRY(find_end(g, e, false, &e->destination, r));
        const struct graph_node *from = &g->nodes[e->source], *to = &g->nodes[e->destination];
        if (!node_output(from->type, e->source_field))
            return no_field(from, e->source_field, true, r);
        if (!node_input(to->type, e->destination_field) && !node_attribute(e->destination_field))
            return no_field(to, e->destination_field, false, r);
    }
    return ST_OK;
}

/* Names a cycle among the nodes that still have UNMET inputs: each has a predecessor of its kind, so going back must come round. */
static enum status refuse_cycle(const struct graph *g, const int *unmet, int *before, struct report *r)
{
    enum { MAX_NAMED = 12 };
    for (int i = 0; i < g->n_edges; i++)
        if (unmet[g->edges[i].source] > 0)
            before[g->edges[i].destination] = g->edges[i].source;
    int at = 0;
    while (unmet[at] == 0)
        at++;
    for (int steps = 0; steps < g->n_nodes; steps++)
        at = before[at];
    int cycle[MAX_NAMED], n = 0, length = 0, walk = at;
    do {
        if (n < MAX_NAMED)
            cycle[n++] = walk;
        length++;
        walk = before[walk];
    } while (walk != at);
    char names[500];
    size_t used = (size_t)snprintf(names, sizeof names, "%.30s", g->nodes[at].id);
    if (length > n)
        used += (size_t)snprintf(names + used, sizeof names - used, " -> (%d more)", length - n);
    while (n-- > 0)
        used += (size_t)snprintf(names + used, sizeof names - used, " -> %.30s", g->nodes[cycle[n]].id);
    return graph_invalid(r, "CyclicalGraphError", "the graph has a cycle: %s", names);
}

/* Counts the edges into each node and lists the targets of each: FIRST[n] to FIRST[n + 1] in TARGETS. */
static void list_targets(const struct graph *g, int *unmet, int *first, int *targets)
{
    for (int i = 0; i < g->n_edges; i++) {
        unmet[g->edges[i].destination]++;
        first[g->edges[i].source + 1]++;
    }
    for (int i = 0; i < g->n_nodes; i++)
        first[i + 1] += first[i];
    for (int i = g->n_edges - 1; i >= 0; i--)
        targets[--first[g->edges[i].source + 1]] = g->edges[i].destination;
    memmove(first, first + 1, (size_t)g->n_nodes * sizeof *first);
    first[g->n_nodes] = g->n_edges;
}

enum status graph_sort(struct graph *g, struct report *r)
{
    size_t n = (size_t)g->n_nodes;
    int *scratch = calloc(3 * n + (size_t)g->n_edges + 2, sizeof *scratch);
    g->order = calloc(n + 1, sizeof *g->order);
    if (!scratch || !g->order) {
        free(scratch);
        return graph_no_memory(r);
    }
    int *unmet = scratch, *before = unmet + n, *first = before + n, *targets = first + n + 1;
    list_targets(g, unmet, first, targets);
    int done = 0;
    for (int i = 0; i < g->n_nodes; i++)
        if (unmet[i] == 0)
            g->order[done++] = i;
    for (int at = 0; at < done; at++)
        for (int t = first[g->order[at]]; t < first[g->order[at] + 1]; t++)
            if (--unmet[targets[t]] == 0)
                g->order[done++] = targets[t];
    enum status s = done < g->n_nodes ? refuse_cycle(g, unmet, before, r) : ST_OK;
    free(scratch);
    return s;
}

/* A type for people: "integer", "string or null". */
static void type_name(const struct node_field *f, char *ret, size_t size)
{
    snprintf(ret, size, "%s%s", f->type, f->nullable ? " or null" : "");
}

enum status graph_edge_types(const struct graph *g, struct report *r)
{
    for (int i = 0; i < g->n_edges; i++) {
        const struct graph_edge *e = &g->edges[i];
        const struct graph_node *a = &g->nodes[e->source], *b = &g->nodes[e->destination];
        const struct node_field *from = node_output(a->type, e->source_field);
        const struct node_field *to = node_input(b->type, e->destination_field);
        if (!to)
            to = node_attribute(e->destination_field);
        if (field_types_fit(from->type, from->nullable, to->type, to->nullable))
            continue;
        char gives[100], takes[200];
        type_name(from, gives, sizeof gives);
        type_name(to, takes, sizeof takes);
        return graph_invalid(r, "InvalidEdgeError", "edge %.80s.%s -> %.80s.%s: the output is of type %s, field '%s' takes %s", a->id,
                             from->name, b->id, to->name, gives, to->name, takes);
    }
    return ST_OK;
}
