#include "worker/engine/tensor.h"

#include <stdlib.h>

enum status tensor_new(int ndim, const int64_t *dim, struct tensor **ret, struct error *err)
{
    if (ndim < 1 || ndim > 4)
        return FAIL(err, INTERNAL, "a tensor has 1 to 4 dimensions, not %d", ndim);
    struct tensor *t = calloc(1, sizeof *t);
    if (!t)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a tensor");
    int64_t count = 1;
    t->ndim = ndim;
    for (int i = 0; i < 4; i++)
        t->dim[i] = i < ndim ? dim[i] : 1;
    for (int i = 0; i < ndim; i++)
        if (dim[i] < 1 || __builtin_mul_overflow(count, dim[i], &count))
            count = INT64_MAX;
    if (count <= INT64_MAX / (int64_t)sizeof *t->data)
        t->data = calloc((size_t)count, sizeof *t->data);
    if (!t->data) {
        enum status s = FAIL(err, OUT_OF_MEMORY, "no memory for a tensor of %lld x %lld x %lld x %lld floats", (long long)t->dim[0],
                             (long long)t->dim[1], (long long)t->dim[2], (long long)t->dim[3]);
        free(t);
        return s;
    }
    *ret = t;
    return ST_OK;
}

void tensor_free(struct tensor *t)
{
    if (!t)
        return;
    free(t->data);
    free(t);
}

int64_t tensor_count(const struct tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++)
        n *= t->dim[i];
    return n;
}
