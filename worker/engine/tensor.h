/* A float32 tensor in host memory: what nodes hand to each other (latents, noise, conditioning). */
#pragma once
#include <stdint.h>
#include <stddef.h>
#include "common/error.h"

struct tensor {
    int ndim;
    int64_t dim[4];     /* latents and noise: n, c, h, w as in InvokeAI; conditioning: 1, tokens, width */
    float *data;
};

/* tensor_new allocates zeroed data; OUT_OF_MEMORY names the shape. Free with tensor_free (accepts NULL). */
NODISCARD enum status tensor_new(int ndim, const int64_t *dim, struct tensor **ret, struct error *err);
void tensor_free(struct tensor *t);
int64_t tensor_count(const struct tensor *t);
