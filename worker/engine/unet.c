#include "worker/engine/unet.h"

#include <stdio.h>

enum { SKIPS_MAX = UNET_RESNETS_MAX };

struct walk {
    struct net *net;
    const struct unet_config *config;
    struct unet_times *times;
    int next_time;               /* of the list, while it is read */
    struct unet_inputs in;
    struct operand skips[SKIPS_MAX];
    int n_skips;
};

/* time_slot returns the part of the row of time projections that belongs to resnet NAME; a check notes it in the list. */
static struct operand time_slot(struct walk *w, const char *name, int channels)
{
    struct unet_times *t = w->times;
    int i = w->next_time++;
    if (i >= UNET_RESNETS_MAX) {
        net_fail(w->net, UNSUPPORTED, "UNet with more than %d residual blocks", UNET_RESNETS_MAX);
        return (struct operand){0};
    }
    if (!w->net->plan) {
        snprintf(t->item[i].name, sizeof t->item[i].name, "%s.time_emb_proj", name);
        t->item[i].channels = channels;
        t->item[i].offset = t->total;
        t->total += (channels + 31) / 32 * 32;
        t->n = i + 1;
        return (struct operand){0};
    }
    return plan_view(w->in.times, t->item[i].offset, channels);
}

static struct operand resnet(struct walk *w, struct operand x, int cout, const char *name)
{
    struct net *n = w->net;
    const struct unet_config *c = w->config;
    struct operand add = time_slot(w, name, cout);
    struct net_conv last = {.residual = x};
    struct operand h = net_group_norm(n, x, c->groups, c->eps, FN_SILU, NAME("%s.norm1", name));
    h = net_conv(n, h, cout, (struct net_conv){.add = add}, NAME("%s.conv1", name));
    h = net_group_norm(n, h, c->groups, c->eps, FN_SILU, NAME("%s.norm2", name));
    if (x.c != cout)             /* X itself may be wanted again on the way up, its projection is not */
        last.residual = last.y = net_linear(n, x, cout, (struct net_linear){0}, NAME("%s.conv_shortcut", name));
    return net_conv(n, h, cout, last, NAME("%s.conv2", name));
}

/* attend adds attention over SOURCE to T, in place. The keys and values of the prompt are made in the prompt's segment. */
static void attend(struct walk *w, struct operand t, struct operand norm, bool cross, int heads, const char *name)
{
    struct net *n = w->net;
    struct net_linear plain = {.no_bias = true};
    int segment = n->segment;
    struct operand source = cross ? w->in.context : norm;
    struct operand q = net_linear(n, norm, t.c, plain, NAME("%s.to_q", name));
    if (cross)
        n->segment = w->in.prompt_segment;
    struct operand k = net_linear(n, source, t.c, plain, NAME("%s.to_k", name));
    struct operand v = net_linear(n, source, t.c, plain, NAME("%s.to_v", name));
    n->segment = segment;
    struct operand a = net_attention(n, q, k, v, cross ? w->in.mask : (struct operand){0}, heads, false);
    net_linear(n, a, t.c, (struct net_linear){.residual = t, .y = t}, NAME("%s.to_out.0", name));
}

static struct operand transformer(struct walk *w, struct operand x, const struct unet_level *level, const char *name)
{
    struct net *n = w->net;
    const double eps = 1e-5;
    struct operand h = net_tokens(net_group_norm(n, x, w->config->groups, 1e-6, FN_NONE, NAME("%s.norm", name)));
    struct operand t = net_linear(n, h, x.c, (struct net_linear){0}, NAME("%s.proj_in", name));
    for (int i = 0; i < level->depth; i++) {
        struct net_name b = net_name("%s.transformer_blocks.%d", name, i);
        attend(w, t, net_layer_norm(n, t, eps, NAME("%s.norm1", b.s)), false, level->heads, NAME("%s.attn1", b.s));
        attend(w, t, net_layer_norm(n, t, eps, NAME("%s.norm2", b.s)), true, level->heads, NAME("%s.attn2", b.s));
        struct operand f = net_layer_norm(n, t, eps, NAME("%s.norm3", b.s));
        f = net_linear(n, f, 4 * x.c, (struct net_linear){.geglu = true}, NAME("%s.ff.net.0.proj", b.s));
        net_linear(n, f, x.c, (struct net_linear){.residual = t, .y = t}, NAME("%s.ff.net.2", b.s));
    }
    struct operand residual = net_tokens(x);
    net_linear(n, t, x.c, (struct net_linear){.residual = residual, .y = residual}, NAME("%s.proj_out", name));
    return x;
}

static void push(struct walk *w, struct operand x)
{
    if (w->n_skips < SKIPS_MAX)
        w->skips[w->n_skips++] = x;
    else
        net_fail(w->net, UNSUPPORTED, "UNet with more than %d skip connections", SKIPS_MAX);
}

static struct operand way_down(struct walk *w, struct operand x)
{
    for (int i = 0; i < w->config->n_levels; i++) {
        const struct unet_level *level = &w->config->level[i];
        for (int j = 0; j < level->layers; j++) {
            x = resnet(w, x, level->channels, NAME("down_blocks.%d.resnets.%d", i, j));
            if (level->down_cross)
                x = transformer(w, x, level, NAME("down_blocks.%d.attentions.%d", i, j));
            push(w, x);
        }
        if (i + 1 < w->config->n_levels) {
            x = net_conv(w->net, x, x.c, (struct net_conv){.stride = 2}, NAME("down_blocks.%d.downsamplers.0.conv", i));
            push(w, x);
        }
    }
    return x;
}

static struct operand way_up(struct walk *w, struct operand x)
{
    int n = w->config->n_levels;
    for (int i = 0; i < n; i++) {
        const struct unet_level *level = &w->config->level[n - 1 - i];
        for (int j = 0; j <= level->layers && w->n_skips; j++) {
            x = net_concat(w->net, x, w->skips[--w->n_skips]);
            x = resnet(w, x, level->channels, NAME("up_blocks.%d.resnets.%d", i, j));
            if (level->up_cross)
                x = transformer(w, x, level, NAME("up_blocks.%d.attentions.%d", i, j));
        }
        if (i + 1 < n && w->n_skips) {
            struct operand skip = w->skips[w->n_skips - 1];
            x = net_upsample(w->net, x, skip.h, skip.w);
            x = net_conv(w->net, x, x.c, (struct net_conv){0}, NAME("up_blocks.%d.upsamplers.0.conv", i));
        }
    }
    return x;
}

struct operand unet_forward(struct net *n, const struct unet_config *c, struct unet_times *times, struct unet_inputs in)
{
    struct walk w = {.net = n, .config = c, .times = times, .in = in};
    const struct unet_level *last = &c->level[c->n_levels - 1];
    if (!n->plan)
        times->n = times->total = 0;
    struct operand x = net_conv(n, in.sample, c->level[0].channels, (struct net_conv){0}, "conv_in");
    push(&w, x);
    x = way_down(&w, x);
    x = resnet(&w, x, last->channels, "mid_block.resnets.0");
    x = transformer(&w, x, last, "mid_block.attentions.0");
    x = resnet(&w, x, last->channels, "mid_block.resnets.1");
    x = way_up(&w, x);
    x = net_group_norm(n, x, c->groups, c->eps, FN_SILU, "conv_norm_out");
    return net_conv(n, x, c->out_channels, (struct net_conv){0}, "conv_out");
}

struct operand unet_time_rows(struct net *n, const struct unet_config *c, const struct unet_times *times, struct operand timesteps)
{
    int width = c->level[0].channels, inner = 4 * width;
    struct op_desc d = {.kind = OP_TIME_EMBED, .x = timesteps, .y = net_value(n, 1, 1, timesteps.w, width)};
    net_op(n, &d);
    struct operand t = net_linear(n, d.y, inner, (struct net_linear){.act = FN_SILU}, "time_embedding.linear_1");
    /* Every resnet takes silu(embedding), so it is applied here once. */
    t = net_linear(n, t, inner, (struct net_linear){.act = FN_SILU}, "time_embedding.linear_2");
    struct operand rows = net_value(n, 1, 1, timesteps.w, times->total);
    for (int i = 0; i < times->n; i++) {
        struct operand y = n->plan ? plan_view(rows, times->item[i].offset, times->item[i].channels)
                                   : (struct operand){.n = 1, .h = 1, .w = timesteps.w, .c = times->item[i].channels};
        net_linear(n, t, times->item[i].channels, (struct net_linear){.y = y}, times->item[i].name);
    }
    return rows;
}
