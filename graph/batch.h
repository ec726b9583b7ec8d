/* InvokeAI's batch: one graph, a zip x product of substituted values, repeated. Expanded lazily: item ORDINAL -> its values. */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "common/error.h"
#include "graph/graph.h"

struct batch {
    json_t *body;                   /* owned: the batch object as given */
    struct graph *graph;            /* owned */
    int64_t runs, per_run, count;   /* count = runs * per_run */
    json_t *data;                   /* owned: normalised list of groups, or NULL */
};

/* batch_parse checks {batch_id?, origin?, destination?, graph, workflow?, runs?, data?} (design of the errors as InvokeAI's: unequal zip, mixed
 * types, same field twice, missing node or field; each value is also checked against its field). At most MAX_COUNT items, else TOO_LARGE. BAD_BATCH or the
 * graph's error; the message names group, node and field. */
NODISCARD enum status batch_parse(json_t *body, int64_t max_count, struct batch **ret, struct graph_error *detail, struct error *err);
void batch_free(struct batch *b);                                   /* accepts NULL */
/* batch_values returns [{node_path, field_name, value}] of item ORDINAL (0 <= ORDINAL < count): last group fastest, runs outermost. DATA as in
 * struct batch (NULL: []). Needs no graph, so the claim can call it from the stored text. Caller decrefs. */
json_t *batch_values(const json_t *data, int64_t ordinal);
