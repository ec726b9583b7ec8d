/* CLIP's text transformer (Radford et al. 2021): token ids to a sequence of features. */
#pragma once
#include <jansson.h>
#include "worker/engine/net.h"

struct clip_config {
    int width, inner, heads, layers, tokens, vocabulary;
    double eps;
    enum act act;
};

/* clip_config_read reads a transformers CLIPTextModel config. UNSUPPORTED names what this engine has not, BAD_MODEL what is out of range. */
NODISCARD enum status clip_config_read(const json_t *config, struct clip_config *ret, struct error *err);
/* clip_encode describes the encoder: IDS i32 [n, 1, tokens, 1] to [n, 1, tokens, width]. Its last SKIPPED layers (0 .. layers - 1) are left
 * out, the final layer norm is not. MASK: f32 [n, 1, tokens, 1] added to the scores of every token, or unset. */
struct operand clip_encode(struct net *n, const struct clip_config *c, int skipped, struct operand ids, struct operand mask);
