#include "worker/engine/vae.h"

#include <string.h>
#include "common/json.h"

static const double EPS = 1e-6;

static enum status check_types(const json_t *j, const char *key, const char *type, int n, struct error *err)
{
    const json_t *list = json_object_get(j, key);
    for (int i = 0; i < n && list; i++) {
        const char *s = json_string_value(json_array_get(list, (size_t)i));
        if (!s || strcmp(s, type))
            return FAIL(err, UNSUPPORTED, "VAE config: %s has '%.60s'; this engine builds %s", key, s ? s : "(no text)", type);
    }
    return ST_OK;
}

enum status vae_config_read(const json_t *j, struct vae_config *ret, struct error *err)
{
    struct vae_config c = {0};
    const json_t *channels = json_object_get(j, "block_out_channels");
    size_t n = json_array_size(channels);
    if (n < 1 || n > VAE_LEVELS_MAX)
        return FAIL(err, BAD_MODEL, "VAE config: block_out_channels must list 1 to %d levels", VAE_LEVELS_MAX);
    c.n_levels = (int)n;
    for (size_t i = 0; i < n; i++) {
        json_int_t v = json_integer_value(json_array_get(channels, i));
        if (v < 1 || v > 16384)
            return FAIL(err, BAD_MODEL, "VAE config: block_out_channels must hold whole numbers from 1 to 16384");
        c.channels[i] = (int)v;
    }
    long long layers = json_int(j, "layers_per_block", 1), groups = json_int(j, "norm_num_groups", 32), latent = json_int(j, "latent_channels", 4);
    if (layers < 1 || layers > 16 || groups < 1 || groups > 1024)
        return FAIL(err, BAD_MODEL, "VAE config: layers_per_block must be 1 to 16, norm_num_groups 1 to 1024");
    if (latent != 4 || json_int(j, "out_channels", 3) != 3)
        return FAIL(err, UNSUPPORTED, "VAE config: %lld latent channels; this engine builds 4, with 3 picture channels", latent);
    if (c.n_levels != 4)
        return FAIL(err, UNSUPPORTED, "VAE config: %d levels; this engine builds 4 (a latent is 8 x 8 pixels)", c.n_levels);
    if (strcmp(json_str(j, "act_fn", "silu"), "silu"))
        return FAIL(err, UNSUPPORTED, "VAE config: act_fn is not silu");
    if (json_num(j, "shift_factor", 0) != 0 || !json_flag(j, "mid_block_add_attention", true))
        return FAIL(err, UNSUPPORTED, "VAE config: shift_factor or mid_block_add_attention has a value that this engine does not build");
    TRY(check_types(j, "up_block_types", "UpDecoderBlock2D", c.n_levels, err));
    c.layers = (int)layers;
    c.groups = (int)groups;
    c.latent_channels = (int)latent;
    c.scaling = json_num(j, "scaling_factor", 0.18215);
    c.post_quant = json_flag(j, "use_post_quant_conv", true);
    if (!(c.scaling > 0))
        return FAIL(err, BAD_MODEL, "VAE config: scaling_factor must be above 0");
    *ret = c;
    return ST_OK;
}

/* resnet adds two convolutions to X, in place if the width stays. */
static struct operand resnet(struct net *n, const struct vae_config *c, struct operand x, int cout, const char *name)
{
    struct operand shortcut = x;
    struct operand h = net_group_norm(n, x, c->groups, EPS, FN_SILU, NAME("%s.norm1", name));
    h = net_conv(n, h, cout, (struct net_conv){0}, NAME("%s.conv1", name));
    h = net_group_norm(n, h, c->groups, EPS, FN_SILU, NAME("%s.norm2", name));
    if (x.c != cout)
        shortcut = net_linear(n, x, cout, (struct net_linear){0}, NAME("%s.conv_shortcut", name));
    return net_conv(n, h, cout, (struct net_conv){.residual = shortcut, .y = shortcut}, NAME("%s.conv2", name));
}

/* attention adds the middle's one-headed attention to X, in place. Files of early diffusers have other names for its layers. */
static struct operand attention(struct net *n, const struct vae_config *c, struct operand x, const char *name)
{
    bool old = weights_has(n->weights, NAME("%s.query.weight", name));
    struct operand t = net_tokens(net_group_norm(n, x, c->groups, EPS, FN_NONE, NAME("%s.group_norm", name)));
    struct operand q = net_linear(n, t, x.c, (struct net_linear){0}, NAME("%s.%s", name, old ? "query" : "to_q"));
    struct operand k = net_linear(n, t, x.c, (struct net_linear){0}, NAME("%s.%s", name, old ? "key" : "to_k"));
    struct operand v = net_linear(n, t, x.c, (struct net_linear){0}, NAME("%s.%s", name, old ? "value" : "to_v"));
    struct operand a = net_attention(n, q, k, v, (struct operand){0}, 1, false), y = net_tokens(x);
    net_linear(n, a, x.c, (struct net_linear){.residual = y, .y = y}, NAME("%s.%s", name, old ? "proj_attn" : "to_out.0"));
    return x;
}

struct operand vae_decode(struct net *n, const struct vae_config *c, struct operand z)
{
    int deepest = c->channels[c->n_levels - 1];
    if (c->post_quant)
        z = net_linear(n, z, c->latent_channels, (struct net_linear){0}, "post_quant_conv");
    struct operand x = net_conv(n, z, deepest, (struct net_conv){0}, "decoder.conv_in");
    x = resnet(n, c, x, deepest, "decoder.mid_block.resnets.0");
    x = attention(n, c, x, "decoder.mid_block.attentions.0");
    x = resnet(n, c, x, deepest, "decoder.mid_block.resnets.1");
    for (int i = 0; i < c->n_levels; i++) {
        for (int j = 0; j <= c->layers; j++)
            x = resnet(n, c, x, c->channels[c->n_levels - 1 - i], NAME("decoder.up_blocks.%d.resnets.%d", i, j));
        if (i + 1 < c->n_levels) {
            x = net_upsample(n, x, 2 * x.h, 2 * x.w);
            x = net_conv(n, x, x.c, (struct net_conv){0}, NAME("decoder.up_blocks.%d.upsamplers.0.conv", i));
        }
    }
    x = net_group_norm(n, x, c->groups, EPS, FN_SILU, "decoder.conv_norm_out");
    return net_conv(n, x, 3, (struct net_conv){0}, "decoder.conv_out");
}
