/* The rules of iterate and collect: what may feed them, and what their outputs may go to. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"
#include "graph/types.h"

enum { MAX_TYPES = 256 };

/* A set of item types: bits over the types seen so far. */
struct type_set {
    uint64_t bits[MAX_TYPES / 64];
};

struct wiring {
    const struct graph *g;
    struct report *r;
    const struct node_type *iterate, *collect;
    struct type_view types[MAX_TYPES]; /* the meaning of each bit */
    size_t n_types;
    int *into, *out_of;           /* edge lists: first edge of a node, -1 none */
    int *next_into, *next_out_of; /* by edge; in document order */
    struct type_set *items;       /* by node: item types of a collector */
};

static const struct node_field *edge_from(const struct wiring *w, int edge)
{
    const struct graph_edge *e = &w->g->edges[edge];
    return node_output(w->g->nodes[e->source].type, e->source_field);
}

static struct type_view edge_from_type(const struct wiring *w, int edge)
{
    const struct node_field *f = edge_from(w, edge);
    return type_view(f->type, f->nullable);
}

static struct type_view edge_to_type(const struct wiring *w, int edge)
{
    const struct graph_edge *e = &w->g->edges[edge];
    const struct node_field *f = node_input(w->g->nodes[e->destination].type, e->destination_field);
    if (!f)
        f = node_attribute(e->destination_field);
    return type_view(f->type, f->nullable);
}

static bool into_field(const struct wiring *w, int edge, const char *field)
{
    return strcmp(w->g->edges[edge].destination_field, field) == 0;
}

/* Whether EDGE takes the list of a collector. */
static bool from_collector(const struct wiring *w, int edge)
{
    const struct graph_edge *e = &w->g->edges[edge];
    return w->g->nodes[e->source].type == w->collect && strcmp(e->source_field, "collection") == 0;
}

static void set_add(struct wiring *w, struct type_set *set, struct type_view t)
{
    size_t i = 0;
    while (i < w->n_types && !type_same(w->types[i], t))
        i++;
    if (i == MAX_TYPES)
        return;
    if (i == w->n_types)
        w->types[w->n_types++] = t;
    set->bits[i / 64] |= (uint64_t)1 << i % 64;
}

static bool set_has(const struct type_set *set, size_t i) { return set->bits[i / 64] >> i % 64 & 1; }

/* Item types that an `item` edge of type T brings: T, or its members. */
static void add_item(struct wiring *w, struct type_set *set, struct type_view t)
{
    struct type_view m[TYPE_MAX_MEMBERS];
    size_t n = type_members(t, m);
    if (n == 0)
        set_add(w, set, t);
    for (size_t i = 0; i < n; i++)
        if (!type_is(m[i], "null"))
            set_add(w, set, m[i]);
}

/* Item types that a `collection` edge of type T brings: those of its lists. */
static void add_collection(struct wiring *w, struct type_set *set, struct type_view t)
{
    struct type_view m[TYPE_MAX_MEMBERS], inner;
    if (type_is_any(t)) {
        set_add(w, set, type_view("any", false));
        return;
    }
    if (type_is_list(t) && type_inner(t, "list", &inner)) {
        set_add(w, set, inner);
        return;
    }
    size_t n = type_members(t, m);
    for (size_t i = 0; i < n; i++) {
        if (type_is_any(m[i]))
            set_add(w, set, type_view("any", false));
        else if (type_inner(m[i], "list", &inner))
            set_add(w, set, inner);
    }
}

/* Fills items of every collector; parents come first, so a chained one takes over what its source has. */
static void resolve_items(struct wiring *w)
{
    for (int i = 0; i < w->g->n_nodes; i++) {
        int node = w->g->order[i];
        if (w->g->nodes[node].type != w->collect)
            continue;
        struct type_set *set = &w->items[node];
        for (int e = w->into[node]; e >= 0; e = w->next_into[e]) {
            if (into_field(w, e, "item")) {
                add_item(w, set, edge_from_type(w, e));
            } else if (into_field(w, e, "collection") && from_collector(w, e)) {
                const struct type_set *source = &w->items[w->g->edges[e].source];
                for (size_t b = 0; b < MAX_TYPES / 64; b++)
                    set->bits[b] |= source->bits[b];
            } else if (into_field(w, e, "collection")) {
                add_collection(w, set, edge_from_type(w, e));
            }
        }
    }
}

/* The types of SET that no other of it is a base of, any left out: returns how many, one of them in RET. HAS_ANY: any was among them. */
static int root_types(const struct wiring *w, const struct type_set *set, struct type_view *ret, bool *ret_has_any)
{
    int roots = 0;
    *ret_has_any = false;
    for (size_t i = 0; i < w->n_types; i++) {
        if (!set_has(set, i))
            continue;
        if (type_is(w->types[i], "any")) {
            *ret_has_any = true;
            continue;
        }
        bool is_root = true;
        for (size_t j = 0; j < w->n_types; j++)
            if (j != i && set_has(set, j) && type_is_subclass(w->types[i], w->types[j]))
                is_root = false;
        if (is_root) {
            *ret = w->types[i];
            roots++;
        }
    }
    return roots;
}

/* What a collector hands on, one type: any when mixed or only any; false when it has no input at all. */
static bool collected_type(const struct wiring *w, int node, struct type_view *ret)
{
    bool has_any;
    int roots = root_types(w, &w->items[node], ret, &has_any);
    if (roots == 1)
        return true;
    *ret = type_view("any", false);
    return roots > 1 || has_any;
}

static enum status refuse(const struct wiring *w, int node, const char *what)
{
    const struct graph_node *n = &w->g->nodes[node];
    return graph_invalid(w->r, "InvalidEdgeError", "%s node '%.100s': %s", n->type->type, n->id, what);
}

static enum status refuse_output(const struct wiring *w, int node, int edge, const char *what)
{
    const struct graph_edge *e = &w->g->edges[edge];
    const struct graph_node *n = &w->g->nodes[node];
    return graph_invalid(w->r, "InvalidEdgeError", "%s node '%.100s': edge to %.100s.%s: %s", n->type->type, n->id, e->destination_id,
                         e->destination_field, what);
}

static enum status check_item_outputs(const struct wiring *w, int node, struct type_view item, const char *what)
{
    for (int e = w->out_of[node]; e >= 0; e = w->next_out_of[e])
        if (strcmp(w->g->edges[e].source_field, "item") == 0 && !types_fit(item, edge_to_type(w, e)))
            return refuse_output(w, node, e, what);
    return ST_OK;
}

static enum status check_iterate(const struct wiring *w, int node)
{
    int input = -1, n = 0;
    for (int e = w->into[node]; e >= 0; e = w->next_into[e]) {
        if (!into_field(w, e, "collection"))
            continue;
        if (n++ == 0)
            input = e;
    }
    if (n == 0)
        return refuse(w, node, "it needs an edge into 'collection'");
    if (n > 1)
        return refuse(w, node, "it takes one edge into 'collection', not several");
    struct type_view list = edge_from_type(w, input), item;
    if (!type_is_list(list) || !type_inner(list, "list", &item))
        return refuse(w, node, "the edge into 'collection' must come from a list");
    TRY(check_item_outputs(w, node, item, "the members of the list are of another type"));
    if (w->g->nodes[w->g->edges[input].source].type != w->collect)
        return ST_OK;
    if (!collected_type(w, w->g->edges[input].source, &item))
        return refuse(w, node, "the collector that feeds it has no input");
    return check_item_outputs(w, node, item, "the collected members are of another type");
}

/* Whether a list of ROOT (NULL: of unknown members) may go into a field of type TO. */
static bool list_fits(const struct type_view *root, struct type_view to)
{
    if (type_is_any(to))
        return true;
    struct type_view m[TYPE_MAX_MEMBERS];
    if (type_members(to, m) == 0)
        return false;
    if (!root)
        return type_is(m[0], "any");
    return type_union_fits(*root, m[0]) || type_is_subclass(*root, m[0]);
}

static enum status check_chained(const struct wiring *w, int node, int edge, const struct type_view *root)
{
    const struct graph_edge *e = &w->g->edges[edge];
    if (w->g->nodes[e->destination].type != w->collect || !into_field(w, edge, "collection"))
        return ST_OK;
    struct type_view other;
    if (!collected_type(w, e->destination, &other) || (root ? types_fit(*root, other) : type_is(other, "any")))
        return ST_OK;
    return refuse_output(w, node, edge, "that collector has members of another type");
}

static enum status check_collect_outputs(const struct wiring *w, int node, const struct type_view *root)
{
    for (int e = w->out_of[node]; e >= 0; e = w->next_out_of[e]) {
        struct type_view to = edge_to_type(w, e);
        if (strcmp(w->g->edges[e].source_field, "collection") != 0)
            continue;
        if (!type_takes_list(to) && !type_is_any(to))
            return refuse_output(w, node, e, "the output is a list, the field takes none");
        if (!list_fits(root, to))
            return refuse_output(w, node, e, "the field takes a list of another type");
    }
    for (int e = w->out_of[node]; e >= 0; e = w->next_out_of[e])
        if (strcmp(w->g->edges[e].source_field, "collection") == 0)
            TRY(check_chained(w, node, e, root));
    return ST_OK;
}

static enum status check_collect(const struct wiring *w, int node)
{
    int n = 0;
    for (int e = w->into[node]; e >= 0; e = w->next_into[e])
        n += into_field(w, e, "item") || into_field(w, e, "collection");
    if (n == 0)
        return refuse(w, node, "it needs an edge into 'item' or 'collection'");
    for (int e = w->into[node]; e >= 0; e = w->next_into[e]) {
        struct type_view t = edge_from_type(w, e);
        if (into_field(w, e, "collection") && !type_takes_list(t) && !type_is_any(t))
            return refuse(w, node, "an edge into 'collection' must come from a list");
    }
    struct type_view root;
    bool has_any;
    int roots = root_types(w, &w->items[node], &root, &has_any);
    if (roots > 1)
        return refuse(w, node, "its items must be of one type");
    return check_collect_outputs(w, node, roots == 1 ? &root : NULL);
}

static bool list_edges(struct wiring *w)
{
    const struct graph *g = w->g;
    size_t n = (size_t)g->n_nodes + 1, m = (size_t)g->n_edges + 1;
    w->into = malloc(n * sizeof *w->into);
    w->out_of = malloc(n * sizeof *w->out_of);
    w->next_into = malloc(m * sizeof *w->next_into);
    w->next_out_of = malloc(m * sizeof *w->next_out_of);
    w->items = calloc(n, sizeof *w->items);
    if (!w->into || !w->out_of || !w->next_into || !w->next_out_of || !w->items)
        return false;
    for (size_t i = 0; i < n; i++)
        w->into[i] = w->out_of[i] = -1;
    for (int e = g->n_edges - 1; e >= 0; e--) {
        w->next_into[e] = w->into[g->edges[e].destination];
        w->into[g->edges[e].destination] = e;
        w->next_out_of[e] = w->out_of[g->edges[e].source];
        w->out_of[g->edges[e].source] = e;
    }
    return true;
}

static enum status check_all(const struct wiring *w)
{
    for (int i = 0; i < w->g->n_nodes; i++) {
        if (w->g->nodes[i].type == w->iterate)
            TRY(check_iterate(w, i));
        if (w->g->nodes[i].type == w->collect)
            TRY(check_collect(w, i));
    }
    return ST_OK;
}

enum status graph_wiring(const struct graph *g, struct report *r)
{
    struct wiring w = {.g = g, .r = r, .iterate = node_type_find("iterate"), .collect = node_type_find("collect")};
    bool any = false;
    for (int i = 0; i < g->n_nodes; i++)
        any = any || g->nodes[i].type == w.iterate || g->nodes[i].type == w.collect;
    if (!any)
        return ST_OK;
    enum status s = ST_OK;
    if (!list_edges(&w)) {
        s = graph_no_memory(r);
    } else {
        resolve_items(&w);
        s = check_all(&w);
    }
    free(w.into);
    free(w.out_of);
    free(w.next_into);
    free(w.next_out_of);
    free(w.items);
    return s;
}
