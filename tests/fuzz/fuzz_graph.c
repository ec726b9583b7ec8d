/* Graphs and batches: any bytes as JSON. What is accepted as a graph must be writable, and its parts must lie in the limits. */
#include <stdint.h>
#include <stdlib.h>

#include "common/json.h"
#include "graph/batch.h"
#include "graph/graph.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_graph(json_t *document)
{
    struct graph *g = NULL;
    struct graph_error detail = {0};
    struct error err = {0};
    if (graph_parse(document, &g, &detail, &err) != ST_OK) {
        if (!err.message[0])
            abort();
        return;
    }
    if (g->n_nodes > GRAPH_MAX_NODES || g->n_edges > GRAPH_MAX_EDGES)
        abort();
    for (int i = 0; i < g->n_nodes; i++)
        if (graph_find(g, g->nodes[i].id) != i)
            abort();
    (void)!graph_check_runnable(g, &err);
    json_t *written = graph_json(g, "fuzz");
    struct graph *again = NULL;
    if (!written || graph_parse(written, &again, &detail, &err) != ST_OK || again->n_nodes != g->n_nodes || again->n_edges != g->n_edges)
        abort();
    graph_free(again);
    json_decref(written);
    graph_free(g);
}

static void as_batch(json_t *body)
{
    struct batch *b = NULL;
    struct graph_error detail = {0};
    struct error err = {0};
    if (batch_parse(body, 1000, &b, &detail, &err) != ST_OK)
        return;
    if (b->count < 0 || b->count > 1000)
        abort();
    for (int64_t i = 0; i < b->count; i += b->count > 10 ? b->count / 10 : 1) {
        json_t *values = batch_values(b->data, i);
        if (!values)
            abort();
        json_decref(values);
    }
    batch_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    json_t *j = NULL;
    if (json_parse((const char *)data, size, 1 << 20, &j, &err) != ST_OK)
        return 0;
    json_t *copy = json_deep_copy(j);
    as_graph(copy);
    as_batch(j);
    json_decref(copy);
    json_decref(j);
    return 0;
}
