/* The graph that InvokeAI's user interface builds for text to picture, for this program's options. */
#pragma once
#include "common/error.h"
#include <jansson.h>
#include <stdint.h>

struct picture_request {
    const char *prompt, *negative;
    const json_t *model; /* a row of the node's models: key, hash, name, base, type (borrowed) */
    int64_t width, height, steps;
    double cfg;
    const char *scheduler;
    int64_t clip_skip;   /* 0: no clip_skip node */
    int64_t seed, count; /* COUNT pictures with the seeds SEED, SEED + 1, ... modulo 2^32 */
};

/* picture_batch returns the arguments of enqueue ({"batch": {...}}, caller decrefs). NOT_AVAILABLE for a model whose base has no graph
 * here. */
NODISCARD enum status picture_batch(const struct picture_request *r, json_t **ret, struct error *err);
/* scheduler_check refuses names that are no schedulers (BAD_ARGUMENT with the nearest) or not in this version (NOT_AVAILABLE). */
NODISCARD enum status scheduler_check(const char *name, struct error *err);
