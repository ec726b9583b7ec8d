/* The weights of one part of a model (a folder with .safetensors files): found by name, checked by shape, given to the backend once. */
#pragma once
#include <stdbool.h>
#include "worker/backend/backend.h"

struct weights;

/* weights_open maps DIR/STEM.safetensors, else DIR/STEM.fp16.safetensors, else the shards that DIR/STEM.safetensors.index.json lists.
 * BAD_MODEL names the folder and what was looked for. BACKEND is borrowed. */
NODISCARD enum status weights_open(const char *dir, const char *stem, struct backend *backend, struct weights **ret, struct error *err);
void weights_free(struct weights *w);                                     /* accepts NULL; after every plan that uses it */
bool weights_has(const struct weights *w, const char *name);
/* weights_check demands tensor NAME of NDIM sizes SHAPE in a float type; further sizes of 1 are allowed (a 1x1 convolution stored for
 * a linear layer). BAD_MODEL names tensor, found and wanted shape. */
NODISCARD enum status weights_check(const struct weights *w, const char *name, int ndim, const int64_t *shape, struct error *err);
/* weights_get is weights_check, then the backend's weight, made on first use and shared by all plans (borrowed). */
NODISCARD enum status weights_get(struct weights *w, const char *name, int ndim, const int64_t *shape, const struct bweight **ret, struct error *err);
/* weights_dim returns size I of tensor NAME, 0 if there is none. */
int64_t weights_dim(const struct weights *w, const char *name, int i);
/* weights_used returns the number of elements of all weights given to the backend so far. */
size_t weights_used(const struct weights *w);
