#include <string.h>
#include "common/json.h"
#include "worker/engine/unet.h"

/* Keys that change the network in ways this engine does not build: absent, null or the value given here. */
static const struct { const char *key, *text; double number; } FIXED[] = {
    {"act_fn", "silu", 0}, {"mid_block_type", "UNetMidBlock2DCrossAttn", 0}, {"resnet_time_scale_shift", "default", 0},
    {"time_embedding_type", "positional", 0}, {"attention_type", "default", 0}, {"center_input_sample", NULL, 0},
    {"flip_sin_to_cos", NULL, 1}, {"freq_shift", NULL, 0}, {"downsample_padding", NULL, 1}, {"mid_block_scale_factor", NULL, 1},
    {"conv_in_kernel", NULL, 3}, {"conv_out_kernel", NULL, 3}, {"resnet_out_scale_factor", NULL, 1}, {"resnet_skip_time_act", NULL, 0},
    {"dual_cross_attention", NULL, 0}, {"only_cross_attention", NULL, 0}, {"class_embeddings_concat", NULL, 0},
    {"class_embed_type", "", 0}, {"num_class_embeds", "", 0}, {"addition_embed_type", "", 0}, {"encoder_hid_dim", "", 0},
    {"encoder_hid_dim_type", "", 0}, {"time_cond_proj_dim", "", 0}, {"time_embedding_dim", "", 0}, {"time_embedding_act_fn", "", 0},
    {"timestep_post_act", "", 0}, {"cross_attention_norm", "", 0}, {"mid_block_only_cross_attention", "", 0},
    {"reverse_transformer_layers_per_block", "", 0}, {"dropout", NULL, 0},
};

static enum status check_fixed(const json_t *j, struct error *err)
{
    for (size_t i = 0; i < sizeof FIXED / sizeof *FIXED; i++) {
        const json_t *v = json_object_get(j, FIXED[i].key);
        if (!v || json_is_null(v))
            continue;
        bool same;
        if (FIXED[i].text)
            same = json_is_string(v) && !strcmp(json_string_value(v), FIXED[i].text);
        else if (json_is_boolean(v))
            same = json_is_true(v) == (FIXED[i].number != 0);
        else
            same = json_is_number(v) && json_number_value(v) == FIXED[i].number;
        if (!same)
            return FAIL(err, UNSUPPORTED, "UNet config: %s has a value that this engine does not build", FIXED[i].key);
    }
    return ST_OK;
}

/* per_level reads a key that is one number for all levels or a list with one per level. */
static enum status per_level(const json_t *j, const char *key, int fallback, int max, int n_levels, int ret[UNET_LEVELS_MAX], struct error *err)
{
    const json_t *v = json_object_get(j, key);
    if (json_is_array(v) && (int)json_array_size(v) != n_levels)
        return FAIL(err, BAD_MODEL, "UNet config: %s lists %zu values for %d levels", key, json_array_size(v), n_levels);
    for (int i = 0; i < n_levels; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, (size_t)i) : v;
        json_int_t x = !e || json_is_null(e) ? fallback : json_is_integer(e) ? json_integer_value(e) : 0;
        if (x < 1 || x > max)
            return FAIL(err, BAD_MODEL, "UNet config: %s must be a whole number from 1 to %d (or a list of them)", key, max);
        ret[i] = (int)x;
    }
    return ST_OK;
}

static enum status read_int(const json_t *j, const char *key, int fallback, int max, int *ret, struct error *err)
{
    int v[UNET_LEVELS_MAX];
    TRY(per_level(j, key, fallback, max, 1, v, err));
    *ret = v[0];
    return ST_OK;
}

/* read_types reads DOWN_BLOCK_TYPES or UP_BLOCK_TYPES; the list of the way up starts at the deepest level. */
static enum status read_types(const json_t *j, bool up, struct unet_config *c, struct error *err)
{
    const char *key = up ? "up_block_types" : "down_block_types";
    const char *plain = up ? "UpBlock2D" : "DownBlock2D", *cross = up ? "CrossAttnUpBlock2D" : "CrossAttnDownBlock2D";
    const json_t *list = json_object_get(j, key);
    if ((int)json_array_size(list) != c->n_levels)
        return FAIL(err, BAD_MODEL, "UNet config: %s must list %d blocks", key, c->n_levels);
    for (int i = 0; i < c->n_levels; i++) {
        const char *s = json_string_value(json_array_get(list, (size_t)i));
        bool is_cross = s && !strcmp(s, cross);
        if (!s || (!is_cross && strcmp(s, plain)))
            return FAIL(err, UNSUPPORTED, "UNet config: %s has '%.60s'; this engine builds %s and %s", key, s ? s : "(no text)", plain, cross);
        if (up)
            c->level[c->n_levels - 1 - i].up_cross = is_cross;
        else
            c->level[i].down_cross = is_cross;
    }
    return ST_OK;
}

static enum status read_levels(const json_t *j, struct unet_config *c, struct error *err)
{
    const json_t *channels = json_object_get(j, "block_out_channels");
    size_t n = json_array_size(channels);
    if (n < 1 || n > UNET_LEVELS_MAX)
        return FAIL(err, BAD_MODEL, "UNet config: block_out_channels must list 1 to %d levels", UNET_LEVELS_MAX);
    c->n_levels = (int)n;
    int ch[UNET_LEVELS_MAX], layers[UNET_LEVELS_MAX], heads[UNET_LEVELS_MAX], depth[UNET_LEVELS_MAX];
    const json_t *h = json_object_get(j, "num_attention_heads");
    TRY(per_level(j, "block_out_channels", 0, 16384, c->n_levels, ch, err));
    TRY(per_level(j, "layers_per_block", 2, 16, c->n_levels, layers, err));
    /* The key attention_head_dim holds the number of heads: an old misnomer of the format that files rely on. */
    TRY(per_level(j, h && !json_is_null(h) ? "num_attention_heads" : "attention_head_dim", 8, 1024, c->n_levels, heads, err));
    TRY(per_level(j, "transformer_layers_per_block", 1, 32, c->n_levels, depth, err));
    for (int i = 0; i < c->n_levels; i++)
        c->level[i] = (struct unet_level){.channels = ch[i], .layers = layers[i], .heads = heads[i], .depth = depth[i]};
    TRY(read_types(j, false, c, err));
    return read_types(j, true, c, err);
}

enum status unet_config_read(const json_t *j, struct unet_config *ret, struct error *err)
{
    struct unet_config c = {0};
    if (!json_is_object(j))
        return FAIL(err, BAD_MODEL, "UNet config is not a JSON object");
    TRY(check_fixed(j, err));
    TRY(read_levels(j, &c, err));
    TRY(read_int(j, "in_channels", 4, 64, &c.in_channels, err));
    TRY(read_int(j, "out_channels", 4, 64, &c.out_channels, err));
    TRY(read_int(j, "cross_attention_dim", 1280, 16384, &c.context, err));
    TRY(read_int(j, "norm_num_groups", 32, 1024, &c.groups, err));
    TRY(read_int(j, "sample_size", 64, 1024, &c.sample_size, err));
    c.eps = json_num(j, "norm_eps", 1e-5);
    c.linear_projection = json_flag(j, "use_linear_projection", false);
    if (c.level[0].channels % 2)
        return FAIL(err, BAD_MODEL, "UNet config: the first of block_out_channels must be even");
    if (c.in_channels == 9)
        return FAIL(err, UNSUPPORTED, "inpainting UNet (in_channels 9): not built yet; use a text-to-image model");
    if (c.in_channels != 4 || c.out_channels != 4)
        return FAIL(err, UNSUPPORTED, "UNet config: in_channels %d, out_channels %d; this engine builds 4 and 4", c.in_channels, c.out_channels);
    *ret = c;
    return ST_OK;
}
