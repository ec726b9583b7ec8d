/* The models a node has: the shipped ones and the user's folder. A model's key is its folder's name. */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include "common/error.h"
#include "worker/engine/model.h"

/* catalog_path writes the folder of model KEY: MODELS_DIR/KEY, else DATA/models/KEY. NO_MODEL names the key and both places. */
NODISCARD enum status catalog_path(const char *models_dir, const char *data, const char *key, char *ret, size_t size, struct error *err);
/* catalog_list identifies every folder with a model_index.json. Returns {models: [...], notes: [text per folder that is no model]} (caller decrefs). */
NODISCARD enum status catalog_list(const char *models_dir, const char *data, json_t **ret, struct error *err);
