/* The worker's open models. On a device with memory of its own a plan gets room first: above the limit the least recently used models go;
 * where the device has too little free, first the plans that nobody uses, then models, least recently used first. A model that the running
 * item uses stays. */
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
    bool own_memory;                 /* the device's is its own: it counts what is used and free, and a plan that cannot fit is refused before it loads anything */
};
NODISCARD enum status model_cache_new(const struct model_cache_args *a, struct model_cache **ret, struct error *err);
void model_cache_free(struct model_cache *c);                   /* accepts NULL */
/* model_cache_get returns the open model of KEY (opened if needed), pinned until model_cache_unpin. */
NODISCARD enum status model_cache_get(struct model_cache *c, const char *key, struct model **ret, struct error *err);
/* model_cache_unpin ends the item's pins and evicts down to the limit. Returns true when the set of resident models changed since the last call. */
bool model_cache_unpin(struct model_cache *c);
/* model_cache_refused tells whether the item's last plan was refused because it cannot fit: nothing of it was allocated, the device is as good
 * as before. */
bool model_cache_refused(const struct model_cache *c);
/* model_cache_keys returns the resident keys, most recent first (caller decrefs). */
json_t *model_cache_keys(const struct model_cache *c);
