/* Softmax of attention's scores, in place. */
#include "kernels/device.h"

enum { SOFTMAX_TILE = 8 };

struct score_row {
    const float *scores, *mask; /* mask may be NULL */
    int64_t seen;               /* keys from here on are hidden */
    float scale;
};

DEVICE float score_of(const struct score_row *r, int64_t key)
{
    float v = r->scores[key] * r->scale;
    return r->mask ? v + r->mask[key] : v;
}

/* Probabilities of 16 bits lie over the first half of their scores. A block reads the keys in tiles, and writes a tile when all of its
 * threads have read it: what it writes over has been read, and the tiles to come lie behind. */
DEVICE void write_row(const struct score_row *r, uint64_t at, int dtype, int64_t keys, float max, float factor)
{
    int64_t tile = (int64_t)SOFTMAX_TILE * block_threads();
    for (int64_t from = 0; from < keys; from += tile) {
        float v[SOFTMAX_TILE];
        UNROLL
        for (int k = 0; k < SOFTMAX_TILE; k++) {
            int64_t key = from + k * block_threads() + thread_id();
            v[k] = key < r->seen && factor > 0 ? expf(score_of(r, key) - max) * factor : 0;
        }
        barrier();
        UNROLL
        for (int k = 0; k < SOFTMAX_TILE; k++) {
            int64_t key = from + k * block_threads() + thread_id();
            if (key < keys)
                store(at, dtype, key, v[k]);
        }
    }
}

GALLEY_KERNEL(softmax, k_softmax)
{
    int64_t rows = (int64_t)a.heads * a.rows;
    for (int64_t row = block_id(); row < rows; row += grid_blocks()) {
        uint64_t at = a.scores + (uint64_t)(row * a.keys) * sizeof(float);
        int64_t shown = a.first + (row - divide(row, a.rows) * a.rows) + 1;
        struct score_row r = {(const float *)(uintptr_t)at, (const float *)(uintptr_t)a.mask, a.causal && shown < a.keys ? shown : a.keys,
                              a.scale};
        float max = -INFINITY, sum = 0;
        for (int64_t key = thread_id(); key < r.seen; key += block_threads())
            max = fmaxf(max, score_of(&r, key));
        max = block_max(max);
        if (max > -INFINITY)
            for (int64_t key = thread_id(); key < r.seen; key += block_threads())
                sum += expf(score_of(&r, key) - max);
        sum = block_sum(sum);
        write_row(&r, at, a.dtype, a.keys, max, sum > 0 ? 1.0f / sum : 0);
    }
}
