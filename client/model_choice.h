/* Which of the node's models is meant. */
#pragma once
#include "common/error.h"
#include <jansson.h>

/* model_choose finds in MODELS (the node's answer) the main model called NAME (its name or key), NULL: the default one. The row is
 * borrowed. NO_MODEL names the models there are. */
NODISCARD enum status model_choose(const json_t *models, const char *name, const json_t **ret, struct error *err);
/* model_reference returns {key, hash, name, base, type} of ROW, as a graph names a model (caller decrefs). */
json_t *model_reference(const json_t *row);
