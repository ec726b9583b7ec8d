/* InvokeAI's graph language: a document parsed and checked. No I/O, no engine. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"
#include "graph/nodes.h"

enum {
    GRAPH_MAX_BYTES = 8 << 20,      /* JSON text of one graph */
    GRAPH_MAX_NODES = 10000,
    GRAPH_MAX_EDGES = 100000,
    GRAPH_MAX_ID = 256,             /* bytes of a node id */
};

struct graph_edge {
    int source, destination;        /* node indices */
    const char *source_id, *source_field, *destination_id, *destination_field;  /* views into the document */
};
struct graph_node {
    const char *id;                 /* view */
    const struct node_type *type;
    json_t *fields;                 /* owned: every declared field in order, the literal after coercion or the default (null: none); core_metadata
                                       also keeps its extras */
    bool is_intermediate, use_cache;
    const char *key;                /* of the document's "nodes", equal to id once parsed; view */
    json_t *object;                 /* the node in the document, borrowed */
    json_t *owned_id;               /* what id looks into (an id given as a number becomes a text) */
};
struct graph {
    json_t *document;               /* the JSON as given (owned reference) */
    struct graph_node *nodes; int n_nodes;
    struct graph_edge *edges; int n_edges;
    int *order;                     /* node indices, topological; ties in document order */
    int *by_id;                     /* node indices in the order of their ids, for graph_find */
};

/* What InvokeAI calls the error: the class names are its own, kept for its clients and for the case files. */
struct graph_error { const char *class; char kind[48]; char loc[256]; const char *stage; /* "parse" or "validate" */ };

/* graph_parse checks DOCUMENT in InvokeAI's order (shape, literals; ids, edge ends, cycles, types, iterate/collect wiring) and returns
 * the graph, which keeps a reference to DOCUMENT (graph_set and graph_each_model change it in place). BAD_GRAPH: the message names node, field,
 * value and what would be right; a cycle names its nodes and the word "cycle"; an unknown type the nearest known one. TOO_LARGE past a limit. A
 * type or choice that InvokeAI has and this build has not: NOT_AVAILABLE. DETAIL (may be NULL) gets the class. */
NODISCARD enum status graph_parse(json_t *document, struct graph **ret, struct graph_error *detail, struct error *err);
void graph_free(struct graph *g);                                  /* accepts NULL */
int graph_find(const struct graph *g, const char *id);             /* index or -1 */
/* graph_set puts VALUE into NODE's FIELD after the field's coercion and bounds (a batch's substitution), in fields and document both:
 * BAD_GRAPH as for a literal. use_cache and is_intermediate are fields here too. */
NODISCARD enum status graph_set(struct graph *g, const char *node, const char *field, const json_t *value, struct error *err);
/* graph_check_runnable tells, before anything runs, of required inputs with neither edge nor value (BAD_GRAPH: "node 'l2i': field 'vae' has no
 * edge and no value"). InvokeAI finds this only when the node runs; galley refuses at enqueue (docs/compatibility.md). */
NODISCARD enum status graph_check_runnable(const struct graph *g, struct error *err);
/* graph_json returns the graph as InvokeAI writes it (the invokeai_graph text of a PNG): {id, nodes, edges}, every field of every node. ID stands in
 * where the document has no id (NULL: none is written). Caller decrefs; NULL when out of memory. */
json_t *graph_json(const struct graph *g, const char *id);
/* graph_node_json is one node of it: {id, is_intermediate, use_cache, FIELDS..., type, extras...}. */
json_t *graph_node_json(const struct node_type *type, const char *id, bool is_intermediate, bool use_cache, const json_t *fields);
/* graph_edge_json is one edge of it: {source: {node_id, field}, destination: {node_id, field}}. */
json_t *graph_edge_json(const char *source, const char *source_field, const char *destination, const char *destination_field);
/* graph_each_model calls FN for every model reference among the literals (any field of struct ModelIdentifierField, also inside lists and other
 * reference objects; not core_metadata, whose references only describe; not a field with an edge). FN may
 * replace it: it gets the node, field and the reference object (may be JSON null for a required model field without a value and edge) and returns
 * a new reference to store (or NULL to keep) through RET. Changes go to fields and document both. */
typedef enum status graph_model_fn(void *arg, const char *node_id, const char *node_type, const char *field, const json_t *reference, json_t **ret, struct error *err);
NODISCARD enum status graph_each_model(struct graph *g, graph_model_fn *fn, void *arg, struct error *err);
