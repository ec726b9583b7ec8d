/* Materialises a graph into prepared nodes, one at a time: iterate, collect, ready order, results. Pure data: runs nothing itself.
 *
 * A prepared node is a copy of a node of the graph with an id of its own: one for most nodes, one per iteration below an iterate. iterate and collect
 * come out of executor_next like any other node, with what they need in their inputs: an iterate its list and index, a collect the collected list.
 *
 *     executor_new; while (executor_next gives a node) { run it; executor_complete or executor_fail; } executor_session; executor_free
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include "common/error.h"
#include "graph/graph.h"

enum {
    EXECUTOR_MAX_PREPARED = 20000,  /* prepared nodes of one session */
    EXECUTOR_MAX_LINKS = 200000,    /* edges between them */
    EXECUTOR_MAX_NESTING = 16,      /* iterates around one node */
    EXECUTOR_MAX_VALUES = 64 << 20, /* bytes of all outputs of one session, as text */
    EXECUTOR_MAX_SESSION = 16 << 20,/* bytes of the session as text; a longer one is told without its prepared nodes */
};

struct executor;

struct prepared {
    const char *id;                 /* fresh uuid, view */
    const char *source_id;          /* node of the graph, view */
    const struct node_type *type;
    json_t *inputs;                 /* every declared field: edge value, else literal, else default (borrowed). Values are shared: never change them */
    bool is_intermediate;
};

/* executor_new borrows G, which must outlive it. TOO_LARGE when iterates nest too deeply. */
NODISCARD enum status executor_new(const struct graph *g, const char *session_id, struct executor **ret, struct error *err);
void executor_free(struct executor *x);                            /* accepts NULL */
/* executor_next prepares the next ready node, valid until executor_free: RET NULL when the session is complete or failed. Of the ready ones the next is of
 * the class that ran last, else of the alphabetically first class; within a class in order of iteration. NODE_FAILED names node (id and type) and
 * field when an edge value does not fit its field or a required input is missing: RET is then that node, and the error recorded in the session as InvokeAI
 * words it. TOO_LARGE past a limit above. */
NODISCARD enum status executor_next(struct executor *x, const struct prepared **ret, struct error *err);
/* executor_complete stores OUTPUT (an object with "type"; borrowed, shared from now on) of the prepared node. TOO_LARGE past EXECUTOR_MAX_VALUES. */
NODISCARD enum status executor_complete(struct executor *x, const struct prepared *p, json_t *output, struct error *err);
/* executor_fail records the error of a prepared node: nothing runs after it. */
void executor_fail(struct executor *x, const struct prepared *p, const char *error_type, const char *message);
bool executor_failed(const struct executor *x);
/* executor_invocation returns P as InvokeAI's events show it: {id, is_intermediate, use_cache, FIELDS..., type}, the list of an iterate or collect left
 * out. Caller decrefs; NULL when out of memory. */
json_t *executor_invocation(const struct prepared *p);
/* executor_session returns InvokeAI's session object {id, graph, execution_graph, executed, executed_history, results, errors,
 * prepared_source_mapping, source_prepared_mapping, ...}, nulls left out. A session of more than
 * EXECUTOR_MAX_SESSION bytes has only id, graph, executed_history, errors and a member "shortened" that says so. Caller decrefs; NULL when out of memory. */
json_t *executor_session(const struct executor *x);
/* executor_path writes the iteration path of P, outermost first, and returns its length (0: not below an iterate). */
int executor_path(const struct executor *x, const struct prepared *p, int ret[EXECUTOR_MAX_NESTING]);
/* How far: prepared nodes completed, and the number of source nodes. */
void executor_progress(const struct executor *x, int *ret_done, int *ret_total);
