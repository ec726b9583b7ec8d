/* Stable Diffusion 1: loader, clip skip, prompt, noise, denoise, decode. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/inputs.h"
#include "worker/engine/noise.h"
#include "worker/nodes/node_list.h"

enum { MAX_SKIPPED = 1000 };    /* layers of a text encoder; the model's own number is less */

/* unsupported_input fails when an input of a later part is connected. */
static enum status unsupported_input(const json_t *value, const char *field, struct error *err)
{
    bool empty = !value || json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0);
    return empty ? ST_OK : FAIL(err, NOT_AVAILABLE, "field '%s' is not available yet: leave it empty", field);
}

static json_t *submodel(const json_t *model, const char *part)
{
    json_t *copy = json_copy((json_t *)model);
    json_object_set_new(copy, "submodel_type", json_string(part));
    return copy;
}

static enum status give(json_t *output, json_t **ret, struct error *err)
{
    if (!output)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the node's output");
    *ret = output;
    return ST_OK;
}

enum status node_main_model_loader(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct main_model_loader_inputs in;
    TRY(main_model_loader_inputs_read(inputs, &in, err));
    json_t *unet = json_pack("{s:o s:o s:[] s:[] s:n}", "unet", submodel(in.model, "unet"), "scheduler", submodel(in.model, "scheduler"),
                             "loras", "seamless_axes", "freeu_config");
    json_t *clip = json_pack("{s:o s:o s:i s:[]}", "tokenizer", submodel(in.model, "tokenizer"), "text_encoder",
                             submodel(in.model, "text_encoder"), "skipped_layers", 0, "loras");
    json_t *vae = json_pack("{s:o s:[]}", "vae", submodel(in.model, "vae"), "seamless_axes");
    return give(json_pack("{s:s s:o s:o s:o}", "type", "model_loader_output", "vae", vae, "clip", clip, "unet", unet), ret, err);
}

enum status node_clip_skip(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct clip_skip_inputs in;
    TRY(clip_skip_inputs_read(inputs, &in, err));
    int64_t before = json_int(in.clip, "skipped_layers", 0);
    if (before < 0 || before > MAX_SKIPPED || in.skipped_layers > MAX_SKIPPED)
        return FAIL(err, NODE_FAILED, "field 'skipped_layers': %lld after %lld exceeds the limit of %d", (long long)in.skipped_layers, (long long)before, MAX_SKIPPED);
    json_t *clip = json_copy((json_t *)in.clip);
    if (clip)
        json_object_set_new(clip, "skipped_layers", json_integer(before + in.skipped_layers));
    return give(json_pack("{s:s s:o}", "type", "clip_skip_output", "clip", clip), ret, err);
}

enum status node_compel(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    struct compel_inputs in;
    struct model *model;
    struct text_encode encoder;
    struct tensor *conditioning;
    const char *name;
    TRY(compel_inputs_read(inputs, &in, err));
    TRY(unsupported_input(in.mask, "mask", err));
    TRY(unsupported_input(json_object_get(in.clip, "loras"), "clip.loras", err));
    TRY(ns->phase(ns->self, "encode", "Building conditioning", err));
    TRY(ns->model_get(ns->self, json_object_get(in.clip, "text_encoder"), &model, err));
    TRY(model_text_encoder(model, (int)json_int(in.clip, "skipped_layers", 0), ns->hooks, &encoder, err));
    TRY(conditioning_encode(&encoder, model_tokenizer(model), in.prompt, &conditioning, err));
    TRY(ns->tensor_put(ns->self, conditioning, "conditioning", &name, err));
    return give(json_pack("{s:s s:{s:s s:n}}", "type", "conditioning_output", "conditioning", "conditioning_name", name, "mask"), ret, err);
}

enum status node_noise(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    struct noise_inputs in;
    struct tensor *t;
    struct rng rng;
    const char *name;
    TRY(noise_inputs_read(inputs, &in, err));
    if (strcmp(in.noise_type, "SD") != 0)
        return FAIL(err, NOT_AVAILABLE, "field 'noise_type': '%s' is not available yet, only 'SD'", in.noise_type);
    if (in.width % 8 || in.height % 8 || in.width > 16384 || in.height > 16384)
        return FAIL(err, NODE_FAILED, "fields 'width', 'height': %lld x %lld must be multiples of 8, at most 16384", (long long)in.width, (long long)in.height);
    TRY(tensor_new(4, (int64_t[]){1, 4, in.height / 8, in.width / 8}, &t, err));
    rng_seed(&rng, (uint64_t)in.seed);
    rng_normal_f32(&rng, t->data, (size_t)tensor_count(t));
    TRY(ns->tensor_put(ns->self, t, "latents", &name, err));
    return give(json_pack("{s:s s:{s:s s:I} s:I s:I}", "type", "noise_output", "noise", "latents_name", name, "seed", (json_int_t)in.seed, "width",
                          (json_int_t)in.width, "height", (json_int_t)in.height), ret, err);
}

enum { MAX_STEPS = 1000 };

/* guidance_scales reads cfg_scale: one number, or a list of STEPS numbers. */
static enum status guidance_scales(const json_t *value, int64_t steps, double ret[MAX_STEPS], int *ret_n, struct error *err)
{
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (json_is_array(value) && n != (size_t)steps)
        return FAIL(err, NODE_FAILED, "field 'cfg_scale': a list needs one number per step: %zu given, %lld steps", n, (long long)steps);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_is_array(value) ? json_array_get(value, i) : value;
        ret[i] = json_number_value(v);
        if (!json_is_number(v) || !isfinite(ret[i]) || ret[i] < 1)
            return FAIL(err, NODE_FAILED, "field 'cfg_scale': each value must be a number of 1 or more");
    }
    *ret_n = (int)n;
    return ST_OK;
}

static enum status conditioning(const struct node_services *ns, const json_t *field, const char *name, const struct tensor **ret, struct error *err)
{
    if (json_is_array(field)) {
        if (json_array_size(field) != 1)
            return FAIL(err, NOT_AVAILABLE, "field '%s': regional prompts are not available yet, one conditioning only (%zu given)", name, json_array_size(field));
        field = json_array_get(field, 0);
    }
    if (!json_is_null(json_object_get(field, "mask")) && json_object_get(field, "mask"))
        return FAIL(err, NOT_AVAILABLE, "field '%s': a mask is not available yet", name);
    return ns->tensor_get(ns->self, json_str(field, "conditioning_name", ""), ret, err);
}

static enum status refuse_later_parts(const struct denoise_latents_inputs *in, struct error *err)
{
    TRY(unsupported_input(in->control, "control", err));
    TRY(unsupported_input(in->ip_adapter, "ip_adapter", err));
    TRY(unsupported_input(in->t2i_adapter, "t2i_adapter", err));
    TRY(unsupported_input(in->denoise_mask, "denoise_mask", err));
    TRY(unsupported_input(json_object_get(in->unet, "loras"), "unet.loras", err));
    TRY(unsupported_input(json_object_get(in->unet, "seamless_axes"), "unet.seamless_axes", err));
    TRY(unsupported_input(json_object_get(in->unet, "freeu_config"), "unet.freeu_config", err));
    if (in->hidiffusion)
        return FAIL(err, NOT_AVAILABLE, "field 'hidiffusion' is not available yet: leave it false");
    if (in->steps > MAX_STEPS)
        return FAIL(err, NODE_FAILED, "field 'steps': %lld exceeds the limit of %d", (long long)in->steps, MAX_STEPS);
    return ST_OK;
}

/* denoise_seed is the noise's seed, else the latents', else 0. */
static uint64_t denoise_seed(const struct denoise_latents_inputs *in)
{
    const json_t *seed = json_object_get(in->noise, "seed");
    if (!json_is_integer(seed))
        seed = json_object_get(in->latents, "seed");
    return json_is_integer(seed) ? (uint64_t)json_integer_value(seed) : 0;
}

enum status node_denoise_latents(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    struct denoise_latents_inputs in;
    double scales[MAX_STEPS];
    TRY(denoise_latents_inputs_read(inputs, &in, err));
    TRY(refuse_later_parts(&in, err));
    struct denoise_args a = {.steps = (int)in.steps, .cfg_scale = scales, .cfg_rescale = in.cfg_rescale_multiplier, .start = in.denoising_start,
                             .end = in.denoising_end, .scheduler = in.scheduler, .seed = denoise_seed(&in)};
    TRY(guidance_scales(in.cfg_scale, in.steps, scales, &a.n_cfg_scale, err));
    TRY(conditioning(ns, in.positive_conditioning, "positive_conditioning", &a.positive, err));
    TRY(conditioning(ns, in.negative_conditioning, "negative_conditioning", &a.negative, err));
    if (in.noise)
        TRY(ns->tensor_get(ns->self, json_str(in.noise, "latents_name", ""), &a.noise, err));
    if (in.latents)
        TRY(ns->tensor_get(ns->self, json_str(in.latents, "latents_name", ""), &a.latents, err));
    if (!a.noise && !a.latents)
        return FAIL(err, NODE_FAILED, "'noise' or 'latents' must be connected");
    struct model *model;
    struct tensor *latents;
    const char *name;
    TRY(ns->model_get(ns->self, json_object_get(in.unet, "unet"), &model, err));
    TRY(ns->phase(ns->self, "denoise", "Denoising", err));
    TRY(model_denoise(model, &a, ns->hooks, &latents, err));
    int64_t width = latents->dim[3] * 8, height = latents->dim[2] * 8;
    TRY(ns->tensor_put(ns->self, latents, "latents", &name, err));
    return give(json_pack("{s:s s:{s:s s:n} s:I s:I}", "type", "latents_output", "latents", "latents_name", name, "seed", "width",
                          (json_int_t)width, "height", (json_int_t)height), ret, err);
}

enum status node_l2i(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    struct l2i_inputs in;
    const struct tensor *latents;
    struct model *model;
    struct picture p = {.channels = 3};
    const char *name;
    TRY(l2i_inputs_read(inputs, &in, err));
    TRY(unsupported_input(json_object_get(in.vae, "seamless_axes"), "vae.seamless_axes", err));
    TRY(ns->phase(ns->self, "decode", "Running VAE decoder", err));
    TRY(ns->tensor_get(ns->self, json_str(in.latents, "latents_name", ""), &latents, err));
    TRY(ns->model_get(ns->self, json_object_get(in.vae, "vae"), &model, err));
    TRY(model_decode(model, latents, ns->hooks, &p.pixels, &p.width, &p.height, err));
    enum status st = ns->phase(ns->self, "save", "Saving image", err);
    if (st == ST_OK)
        st = ns->image_put(ns->self, &p, in.metadata, &name, err);
    free(p.pixels);
    TRY(st);
    return give(json_pack("{s:s s:{s:s} s:i s:i}", "type", "image_output", "image", "image_name", name, "width", p.width, "height", p.height), ret, err);
}
