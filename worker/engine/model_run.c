/* Single passes of an open model's networks: text encoder, UNet, decoder. */
#include <stdlib.h>
#include <string.h>
#include "worker/engine/model_parts.h"

enum { TIME_ROWS = 8, LATENT_SIDE_MAX = 2048 };

void pixels_from_planes(const float *src, int64_t n, int64_t c, int64_t h, int64_t w, float *ret)
{
    int64_t pixels = h * w;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < pixels; p++)
                ret[(i * pixels + p) * c + k] = src[(i * c + k) * pixels + p];
}

void planes_from_pixels(const float *src, int64_t n, int64_t c, int64_t h, int64_t w, float *ret)
{
    int64_t pixels = h * w;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < pixels; p++)
                ret[(i * c + k) * pixels + p] = src[(i * pixels + p) * c + k];
}

/* ---- text encoder */

static enum status put_token_mask(struct model *m, struct net_plan *p, const uint8_t *mask, size_t count, struct error *err)
{
    float *bias = malloc(count * sizeof *bias);
    if (!bias)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a mask of %zu tokens", count);
    for (size_t i = 0; i < count; i++)
        bias[i] = mask[i] ? 0 : PAD_BIAS;
    enum status s = plan_put(m, p, IO_MASK, bias, err);
    free(bias);
    return s;
}

static enum status encode_in(struct text_self *t, struct net_plan *p, const int32_t *ids, const uint8_t *mask, int n, float *ret, struct error *err)
{
    struct model *m = t->model;
    TRY(plan_put(m, p, IO_IN, ids, err));
    if (mask)
        TRY(put_token_mask(m, p, mask, (size_t)n * (size_t)m->clip_config.tokens, err));
    TRY(plan_run(p->plan, SEGMENT_ALL, &t->hooks, err));
    return plan_get(m, p, IO_OUT, ret, err);
}

static enum status encode(void *self, const int32_t *ids, const uint8_t *mask, int n, float *ret, struct error *err)
{
    struct text_self *t = self;
    struct plan_key key = {.kind = PLAN_TEXT, .n = n, .tokens = t->model->clip_config.tokens, .skipped = t->skipped, .masked = mask != NULL};
    struct net_plan *p;
    TRY(model_plan(t->model, &key, &t->hooks, &p, err));
    enum status s = encode_in(t, p, ids, mask, n, ret, err);
    model_unpin(p);
    return s;
}

enum status model_text_encoder(struct model *m, int skipped, const struct engine_hooks *hooks, struct text_encode *ret, struct error *err)
{
    if (skipped < 0 || skipped >= m->clip_config.layers)
        return FAIL(err, BAD_ARGUMENT, "skipped_layers is %d; the text encoder of this model has %d layers, so 0 to %d can be skipped", skipped,
                    m->clip_config.layers, m->clip_config.layers - 1);
    struct text_self *t = &m->texts[skipped];
    *t = (struct text_self){.model = m, .skipped = skipped};
    if (hooks)
        t->hooks = *hooks;
    *ret = (struct text_encode){.self = t, .tokens = m->clip_config.tokens, .width = m->clip_config.width, .encode = encode};
    return ST_OK;
}

/* ---- UNet */

enum status model_timesteps(struct model *m, const float *t, int n, const struct engine_hooks *hooks, struct net_plan **ret, struct error *err)
{
    int rows = (n + TIME_ROWS - 1) / TIME_ROWS * TIME_ROWS;
    struct plan_key key = {.kind = PLAN_TIMES, .n = rows};
    struct net_plan *p;
    float *all = calloc((size_t)rows, sizeof *all);
    if (!all)
        return FAIL(err, OUT_OF_MEMORY, "no memory for %d timesteps", n);
    memcpy(all, t, (size_t)n * sizeof *all);
    enum status s = model_plan(m, &key, hooks, &p, err);
    if (s == ST_OK) {
        s = plan_put(m, p, IO_IN, all, err);
        if (s == ST_OK)
            s = plan_run(p->plan, SEGMENT_ALL, hooks, err);
        if (s == ST_OK)
            *ret = p;
        else
            model_unpin(p);
    }
    free(all);
    return s;
}

static enum status unet_in(struct model *m, struct net_plan *p, struct net_plan *times, const struct tensor *sample, const struct tensor *context,
                           const struct tensor *mask, float *pixels, struct tensor *out, struct error *err)
{
    const struct backend_api *api = m->backend->api;
    size_t row = (size_t)m->times.total * dtype_bytes(m->compute);
    pixels_from_planes(sample->data, sample->dim[0], sample->dim[1], sample->dim[2], sample->dim[3], pixels);
    TRY(plan_put(m, p, IO_IN, pixels, err));
    TRY(plan_put(m, p, IO_CONTEXT, context->data, err));
    if (mask)
        TRY(plan_put(m, p, IO_MASK, mask->data, err));
    TRY(api->copy(m->backend, plan_arena(p->plan), p->io[IO_TIMES].offset, plan_arena(times->plan), times->io[IO_OUT].offset, row, err));
    TRY(plan_run(p->plan, SEGMENT_PROMPT, NULL, err));
    TRY(plan_run(p->plan, SEGMENT_STEP, NULL, err));
    TRY(plan_get(m, p, IO_OUT, pixels, err));
    planes_from_pixels(pixels, out->dim[0], out->dim[1], out->dim[2], out->dim[3], out->data);
    return ST_OK;
}

static enum status check_unet_args(const struct model *m, const struct tensor *s, const struct tensor *c, const struct tensor *mask, struct error *err)
{
    if (s->ndim != 4 || s->dim[1] != m->unet_config.in_channels || s->dim[2] > LATENT_SIDE_MAX || s->dim[3] > LATENT_SIDE_MAX || s->dim[0] > 64)
        return FAIL(err, BAD_ARGUMENT, "sample must be [1..64, %d, h, w] with h, w up to %d", m->unet_config.in_channels, LATENT_SIDE_MAX);
    if (c->ndim != 3 || c->dim[0] != s->dim[0] || c->dim[2] != m->unet_config.context || c->dim[1] > INT32_MAX)
        return FAIL(err, BAD_ARGUMENT, "context must be [%lld, tokens, %d]", (long long)s->dim[0], m->unet_config.context);
    if (mask && (mask->ndim != 2 || mask->dim[0] != c->dim[0] || mask->dim[1] != c->dim[1]))
        return FAIL(err, BAD_ARGUMENT, "mask must be [%lld, %lld] like the context", (long long)c->dim[0], (long long)c->dim[1]);
    return ST_OK;
}

enum status model_unet_masked(struct model *m, const struct tensor *sample, double timestep, const struct tensor *context, const struct tensor *mask,
                              struct tensor **ret, struct error *err)
{
    TRY(check_unet_args(m, sample, context, mask, err));
    struct plan_key key = {.kind = PLAN_UNET, .n = (int)sample->dim[0], .h = (int)sample->dim[2], .w = (int)sample->dim[3],
                           .tokens = (int)context->dim[1], .masked = mask != NULL};
    struct net_plan *p = NULL, *times = NULL;
    struct tensor *out = NULL;
    float t = (float)timestep, *pixels = malloc((size_t)tensor_count(sample) * sizeof *pixels);
    enum status s = pixels ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for a sample");
    if (s == ST_OK)
        s = tensor_new(4, sample->dim, &out, err);
    if (s == ST_OK)
        s = model_plan(m, &key, NULL, &p, err);
    if (s == ST_OK)
        s = model_timesteps(m, &t, 1, NULL, &times, err);
    if (s == ST_OK)
        s = unet_in(m, p, times, sample, context, mask, pixels, out, err);
    model_unpin(p);
    model_unpin(times);
    free(pixels);
    if (s == ST_OK)
        *ret = out;
    else
        tensor_free(out);
    return s;
}

enum status model_unet(struct model *m, const struct tensor *sample, double timestep, const struct tensor *context, struct tensor **ret, struct error *err)
{
    return model_unet_masked(m, sample, timestep, context, NULL, ret, err);
}

/* ---- decoder */

static enum status decode_in(struct model *m, struct net_plan *p, const struct tensor *z, const struct engine_hooks *hooks, float *pixels, uint8_t *rgb,
                             struct error *err)
{
    int64_t count = tensor_count(z);
    pixels_from_planes(z->data, 1, z->dim[1], z->dim[2], z->dim[3], pixels);
    float scaling = (float)m->vae_config.scaling;
    for (int64_t i = 0; i < count; i++)
        pixels[i] /= scaling;
    TRY(plan_put(m, p, IO_IN, pixels, err));
    TRY(plan_run(p->plan, SEGMENT_ALL, hooks, err));
    return plan_get(m, p, IO_OUT, rgb, err);
}

enum status model_decode(struct model *m, const struct tensor *z, const struct engine_hooks *hooks, uint8_t **ret_rgb, int *ret_width, int *ret_height,
                         struct error *err)
{
    if (z->ndim != 4 || z->dim[0] != 1 || z->dim[1] != m->vae_config.latent_channels || z->dim[2] > LATENT_SIDE_MAX || z->dim[3] > LATENT_SIDE_MAX)
        return FAIL(err, BAD_ARGUMENT, "latents must be [1, %d, h, w] with h, w up to %d", m->vae_config.latent_channels, LATENT_SIDE_MAX);
    struct plan_key key = {.kind = PLAN_VAE, .n = 1, .h = (int)z->dim[2], .w = (int)z->dim[3]};
    struct net_plan *p;
    TRY(model_plan(m, &key, hooks, &p, err));
    int width = p->io[IO_OUT].w, height = p->io[IO_OUT].h;
    float *pixels = malloc((size_t)tensor_count(z) * sizeof *pixels);
    uint8_t *rgb = malloc((size_t)width * (size_t)height * 3);
    enum status s = pixels && rgb ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for a picture of %d x %d", width, height);
    if (s == ST_OK)
        s = decode_in(m, p, z, hooks, pixels, rgb, err);
    model_unpin(p);
    free(pixels);
    if (s != ST_OK) {
        free(rgb);
        return s;
    }
    *ret_rgb = rgb;
    *ret_width = width;
    *ret_height = height;
    return ST_OK;
}
