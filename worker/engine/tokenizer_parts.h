/* Inside of tokenizer.h: the vocabulary in memory. */
#pragma once
#include <stdbool.h>
#include "worker/engine/tokenizer.h"

struct merge { int32_t left, right, rank, merged; };     /* left < 0: an empty cell */

struct tokenizer {
    char **text;                     /* [size], by id; NULL where an id is unused */
    int32_t size, bos, eos, pad;
    int32_t byte_id[256];            /* token of a byte inside a word */
    int32_t byte_end_id[256];        /* token of a byte that ends one */
    struct merge *merges;            /* open hash table by (left, right) */
    size_t merge_mask;
};

/* tokenizer_merge returns the merge of LEFT and RIGHT, NULL if there is none. */
const struct merge *tokenizer_merge(const struct tokenizer *t, int32_t left, int32_t right);
