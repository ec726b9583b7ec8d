/* Shared between the files of graph/: the steps of graph_parse. */
#pragma once
#include "graph/coerce.h"
#include "graph/graph.h"

/* Where a check reports to; both may be NULL. */
struct report {
    struct graph_error *detail;
    struct error *err;
};

/* graph_refuse fills both parts of R and returns CODE: InvokeAI's class, kind and place (all static or copied), our message. */
enum status graph_refuse(struct report *r, enum status code, const char *stage, const char *class, const char *kind, const char *loc,
                         const char *fmt, ...) PRINTF_LIKE(7, 8);
/* graph_invalid is graph_refuse for a fault of the graph as a whole: stage "validate", BAD_GRAPH. */
#define graph_invalid(r, class, ...) graph_refuse((r), ST_BAD_GRAPH, "validate", (class), "value_error", "", __VA_ARGS__)

enum status graph_no_memory(struct report *r);
/* The checks of the graph as a whole, in their order. graph_index fills by_id, graph_sort fills order. */
NODISCARD enum status graph_index(struct graph *g, struct report *r);
NODISCARD enum status graph_edges(struct graph *g, struct report *r);
NODISCARD enum status graph_sort(struct graph *g, struct report *r);
NODISCARD enum status graph_edge_types(const struct graph *g, struct report *r);
/* graph_wiring checks the rules of iterate and collect; needs graph_sort. */
NODISCARD enum status graph_wiring(const struct graph *g, struct report *r);
