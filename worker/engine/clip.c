#include "worker/engine/clip.h"

#include <string.h>
#include "common/json.h"

static enum status read_int(const json_t *j, const char *key, int max, int *ret, struct error *err)
{
    long long v = json_int(j, key, 0);
    if (v < 1 || v > max)
        return FAIL(err, BAD_MODEL, "text encoder config: %s must be a whole number from 1 to %d", key, max);
    *ret = (int)v;
    return ST_OK;
}

enum status clip_config_read(const json_t *j, struct clip_config *ret, struct error *err)
{
    struct clip_config c = {0};
    TRY(read_int(j, "hidden_size", 16384, &c.width, err));
    TRY(read_int(j, "intermediate_size", 65536, &c.inner, err));
    TRY(read_int(j, "num_attention_heads", 1024, &c.heads, err));
    TRY(read_int(j, "num_hidden_layers", 256, &c.layers, err));
    TRY(read_int(j, "max_position_embeddings", 4096, &c.tokens, err));
    TRY(read_int(j, "vocab_size", 4 << 20, &c.vocabulary, err));
    c.eps = json_num(j, "layer_norm_eps", 1e-5);
    const char *act = json_str(j, "hidden_act", "quick_gelu");
    if (!strcmp(act, "quick_gelu"))
        c.act = FN_QUICK_GELU;
    else if (!strcmp(act, "gelu"))
        c.act = FN_GELU;
    else
        return FAIL(err, UNSUPPORTED, "text encoder config: hidden_act '%.40s'; this engine builds quick_gelu and gelu", act);
    *ret = c;
    return ST_OK;
}

static void layer(struct net *n, const struct clip_config *c, struct operand x, struct operand mask, const char *name)
{
    struct net_linear plain = {0}, onto_x = {.residual = x, .y = x};
    struct operand h = net_layer_norm(n, x, c->eps, NAME("%s.layer_norm1", name));
    struct operand q = net_linear(n, h, c->width, plain, NAME("%s.self_attn.q_proj", name));
    struct operand k = net_linear(n, h, c->width, plain, NAME("%s.self_attn.k_proj", name));
    struct operand v = net_linear(n, h, c->width, plain, NAME("%s.self_attn.v_proj", name));
    struct operand a = net_attention(n, q, k, v, mask, c->heads, true);
    net_linear(n, a, c->width, onto_x, NAME("%s.self_attn.out_proj", name));
    h = net_layer_norm(n, x, c->eps, NAME("%s.layer_norm2", name));
    h = net_linear(n, h, c->inner, (struct net_linear){.act = c->act}, NAME("%s.mlp.fc1", name));
    net_linear(n, h, c->width, onto_x, NAME("%s.mlp.fc2", name));
}

struct operand clip_encode(struct net *n, const struct clip_config *c, int skipped, struct operand ids, struct operand mask)
{
    /* Newer transformers write the keys without their common prefix. */
    const char *prefix = weights_has(n->weights, "text_model.final_layer_norm.weight") ? "text_model." : "";
    int64_t table[2] = {c->vocabulary, c->width}, positions[2] = {c->tokens, c->width};
    struct op_desc d = {.kind = OP_EMBED, .x = ids, .y = net_value(n, ids.n, 1, ids.w, c->width)};
    d.weight = net_weight(n, NAME("%sembeddings.token_embedding.weight", prefix), 2, table);
    d.embed.position = net_weight(n, NAME("%sembeddings.position_embedding.weight", prefix), 2, positions);
    net_op(n, &d);
    for (int i = 0; i < c->layers - skipped; i++)
        layer(n, c, d.y, mask, NAME("%sencoder.layers.%d", prefix, i));
    return net_layer_norm(n, d.y, c->eps, NAME("%sfinal_layer_norm", prefix));
}
