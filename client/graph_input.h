/* What 'run' and 'submit' are given: a graph, an enqueue body, or a picture that carries its graph. */
#pragma once
#include "common/error.h"
#include <jansson.h>
#include <stdint.h>

/* graph_input_read reads PATH ("-": stdin) and returns the arguments of enqueue (caller decrefs). A graph {"nodes", "edges"}, a batch
 * {"graph", ...}, an enqueue body {"batch": {...}, ...}, or a PNG with an invokeai_graph text. NOT_AVAILABLE for an editor workflow,
 * BAD_REQUEST for anything else. */
NODISCARD enum status graph_input_read(const char *path, json_t **ret, struct error *err);
/* graph_input_set puts one NODE.FIELD=VALUE over the graph in ARGS. VALUE is JSON; where the field holds a text, or VALUE is no JSON, it is
 * taken as a text. NOT_FOUND names a node that is not there (with the nearest). */
NODISCARD enum status graph_input_set(json_t *args, const char *assignment, struct error *err);
/* graph_input_model gives every main_model_loader of the graph in ARGS the model ROW of the node's list. NOT_FOUND if there is none. */
NODISCARD enum status graph_input_model(json_t *args, const json_t *row, struct error *err);
/* graph_input_count returns how many items the batch in ARGS makes, as far as its form lets one tell (1 to 10,000,000). */
int64_t graph_input_count(const json_t *args);
