/* What executor.c and executor_expand.c share. */
#pragma once
#include <stdint.h>
#include "common/hash.h"
#include "worker/executor.h"

/* A place in the iterations: for some axes (iterate nodes of the graph, outermost first) the index in each, -1 for one that does not apply: below a
 * list that came out empty a collect stands for the whole of what is inside. */
struct axes {
    int n;
    int node[EXECUTOR_MAX_NESTING];
};

/* An input of a prepared node: EDGE of the graph, coming from prepared node FROM. */
struct link {
    int from, edge;
};

struct copy {
    struct prepared p;              /* first: the public pointer is the copy's */
    char id[UUID_TEXT];
    int index, source;
    int *at;                        /* by axis of its source */
    int first_link, n_links;        /* its inputs */
    int unmet;                      /* links whose source has not run */
    int first_child;                /* into children, -1 none */
    bool use_cache, done;
    json_t *inputs, *output;        /* owned; NULL until prepared, until done */
};

struct child {
    int copy, next;
};

struct source {
    struct axes axes;               /* around its copies */
    struct axes live;               /* iterates before it with no collect between, itself included */
    uint64_t bit, seen;             /* of an iterate, and of all iterates before it; the first 64 have one */
    int first_edge, n_edges;        /* edges into it, in edges_into */
    int first_copy, n_copies;
    int n_done;
    bool is_iterate, is_collect;
    bool prepared, executed;
    bool ragged;                    /* some copy has an axis that does not apply */
};

/* Ready copies of one class: a heap by iteration path, then age. */
struct ready {
    const struct node_type *type;
    int *heap;
    int n, cap;
};

struct executor {
    const struct graph *g;
    char *session_id;
    char graph_id[UUID_TEXT], execution_graph_id[UUID_TEXT];
    struct source *sources;         /* by node of the graph */
    int *edges_into;                /* edge indices grouped by destination, in document order */
    int *rank;                      /* by node: its place in the topological order */
    int first_unprepared;           /* in that order */
    struct copy **copies;
    int n_copies, cap_copies;
    struct link *links;
    int n_links, cap_links;
    struct child *children;
    int n_children, cap_children;
    struct ready *ready;            /* one per class in use */
    int n_ready;
    int active;                     /* class being drained, -1 none */
    int n_iterates;                 /* in the graph */
    int n_done;                     /* copies that have run */
    size_t value_bytes;             /* of their outputs */
    json_t *executed, *executed_history, *errors;
    bool failed;
};

/* executor_expand prepares every node of the graph that can be now: all but those below an iterate that has not run. */
NODISCARD enum status executor_expand(struct executor *x, struct error *err);
enum status executor_expand_collect(struct executor *x, int source, struct error *err);
/* executor_axes finds the axes of every node of the graph. */
NODISCARD enum status executor_axes(struct executor *x, struct error *err);
/* executor_item_edge: EDGE goes into the `item` of a collect. */
bool executor_item_edge(const struct executor *x, int edge);
/* copy_new makes the next copy of SOURCE, copy_link feeds it, copy_ready queues it when it has nothing to wait for. */
NODISCARD enum status copy_new(struct executor *x, int source, struct copy **ret, struct error *err);
NODISCARD enum status copy_link(struct executor *x, struct copy *c, int from, int edge, struct error *err);
NODISCARD enum status copy_ready(struct executor *x, struct copy *c, struct error *err);
/* executor_compare orders copies by iteration path; shorter first. */
int executor_compare(const struct executor *x, const struct copy *a, const struct copy *b);
/* executor_ready queues C, whose inputs have all run. */
NODISCARD enum status executor_ready(struct executor *x, struct copy *c, struct error *err);
/* executor_source_done notes that all copies of a node have run, or that it has none. */
NODISCARD enum status executor_source_done(struct executor *x, int source, struct error *err);
/* executor_text_bytes estimates the length of VALUE as text; it stops counting above LIMIT. */
size_t executor_text_bytes(const json_t *value, size_t limit);
/* executor_grow makes room for one more in an array of CAP elements of SIZE bytes; false when out of memory. */
bool executor_grow(void *array, int n, int *cap, size_t size);
