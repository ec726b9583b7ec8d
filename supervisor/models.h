/* The models that the probe found, and how a graph's references find them. galleyd opens no model file. */
#pragma once
#include <jansson.h>
#include "common/error.h"
#include "graph/graph.h"

struct models;

/* models_new takes the probe's list. DEFAULT: the shipped emoji model, else the first. */
NODISCARD enum status models_new(const json_t *probe, struct models **ret, struct error *err);
void models_free(struct models *m);                 /* accepts NULL */
const json_t *models_list(const struct models *m);  /* rows with "default": bool (borrowed) */
/* models_resolve puts each reference of G right: key, else hash (where one is recorded), else (name, base, type), else name. A missing model takes the
 * default. NO_MODEL names node, field and what was asked. RET_KEYS (caller decrefs): the keys used. */
NODISCARD enum status models_resolve(const struct models *m, struct graph *g, json_t **ret_keys, struct error *err);
