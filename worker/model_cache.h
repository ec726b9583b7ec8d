/* The worker's open models: least recently used first to go, never one that the running item uses. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "worker/engine/model.h"

struct model_cache;

struct model_cache_args {
    struct backend *backend;         /* borrowed */
    enum dtype compute;
    const char *models_dir, *data;   /* borrowed */
    int64_t max_bytes;               /* evict above this */
};
NODISCARD enum status model_cache_new(const struct model_cache_args *a, struct model_cache **ret, struct error *err);
void model_cache_free(struct model_cache *c);                   /* accepts NULL */
/* model_cache_get returns the open model of KEY (opened if needed), pinned until model_cache_unpin. */
NODISCARD enum status model_cache_get(struct model_cache *c, const char *key, struct model **ret, struct error *err);
/* model_cache_unpin ends the item's pins and evicts down to the limit. Returns true when the set of resident models changed since the last call. */
bool model_cache_unpin(struct model_cache *c);
/* model_cache_keys returns the resident keys, most recent first (caller decrefs). */
json_t *model_cache_keys(const struct model_cache *c);
