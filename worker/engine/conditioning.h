/* From prompt text to the tensor that the UNet attends to (compel's arithmetic). */
#pragma once
#include "worker/engine/tensor.h"
#include "worker/engine/tokenizer.h"

/* A text encoder as this file needs it: encodes N chunks of TOKENS ids to N x TOKENS x width floats.
 * MASK (may be NULL): N x TOKENS, 0 hides that token from the others. */
struct text_encode {
    void *self;
    int tokens, width;               /* 77, 768 */
    enum status (*encode)(void *self, const int32_t *ids, const uint8_t *mask, int n, float *ret, struct error *err);
};

/* conditioning_encode parses PROMPT and returns [1, 77 k, width]. All chunks of one call to the encoder are batched.
 * Sources: damian0815/compel's documented behaviour, research notes in docs/compatibility.md. */
NODISCARD enum status conditioning_encode(const struct text_encode *te, const struct tokenizer *tok, const char *prompt, struct tensor **ret, struct error *err);
