#include "client/picture_graph.h"

#include <stdbool.h>
#include <string.h>

#include "client/model_choice.h"
#include "common/buf.h"
#include "common/json.h"

static const struct {
    const char *name;
    bool here;
} schedulers[] = {
#define SCHEDULER(name, available) {#name, available},
#include "graph/schedulers.def"
};
enum { N_SCHEDULERS = sizeof schedulers / sizeof *schedulers };

enum status scheduler_check(const char *name, struct error *err)
{
    AUTO_BUF here = BUF_INIT;
    const char *names[N_SCHEDULERS];
    size_t n = 0;
    for (size_t i = 0; i < N_SCHEDULERS; i++) {
        if (schedulers[i].here) {
            if (strcmp(name, schedulers[i].name) == 0)
                return ST_OK;
            names[n++] = schedulers[i].name;
            buf_printf(&here, "%s%s", here.len ? " " : "", schedulers[i].name);
        }
    }
    for (size_t i = 0; i < N_SCHEDULERS; i++)
        if (strcmp(name, schedulers[i].name) == 0)
            return FAIL(err, NOT_AVAILABLE, "--scheduler %s is not available in this version; there are: %s", name, here.data);
    const char *near = nearest_name(name, names, n);
    return FAIL(err, BAD_ARGUMENT, "--scheduler %.64s is no scheduler%s%s%s; there are: %s", name, near ? ": is " : "", near ? near : "",
                near ? " meant?" : "", here.data);
}

/* add_node puts FIELDS (taken) with what every node has into the graph under ID. */
static void add_node(json_t *nodes, const char *id, const char *type, bool intermediate, json_t *fields)
{
    json_object_set_new(fields, "id", json_string(id));
    json_object_set_new(fields, "type", json_string(type));
    json_object_set_new(fields, "is_intermediate", json_boolean(intermediate));
    json_object_set_new(fields, "use_cache", json_boolean(intermediate));
    json_object_set_new(nodes, id, fields);
}

static void add_edge(json_t *edges, const char *from, const char *output, const char *to, const char *input)
{
    json_array_append_new(edges, json_pack("{s:{s:s s:s} s:{s:s s:s}}", "source", "node_id", from, "field", output, "destination",
                                           "node_id", to, "field", input));
}

static json_t *metadata(const struct picture_request *r)
{
    return json_pack("{s:s s:s s:s s:I s:I s:I s:I s:f s:s s:s s:I s:o}", "generation_mode", "txt2img", "positive_prompt", r->prompt,
                     "negative_prompt", r->negative, "width", (json_int_t)r->width, "height", (json_int_t)r->height, "seed",
                     (json_int_t)r->seed, "steps", (json_int_t)r->steps, "cfg_scale", r->cfg, "scheduler", r->scheduler, "rand_device",
                     "cpu", "clip_skip", (json_int_t)r->clip_skip, "model", model_reference(r->model));
}

static json_t *graph_of(const struct picture_request *r)
{
    json_t *nodes = json_object(), *edges = json_array();
    const char *clip = r->clip_skip ? "clip_skip" : "model_loader";
    add_node(nodes, "model_loader", "main_model_loader", true, json_pack("{s:o}", "model", model_reference(r->model)));
    if (r->clip_skip) {
        add_node(nodes, "clip_skip", "clip_skip", true, json_pack("{s:I}", "skipped_layers", (json_int_t)r->clip_skip));
        add_edge(edges, "model_loader", "clip", "clip_skip", "clip");
    }
    add_node(nodes, "pos_cond", "compel", true, json_pack("{s:s}", "prompt", r->prompt));
    add_node(nodes, "neg_cond", "compel", true, json_pack("{s:s}", "prompt", r->negative));
    add_node(nodes, "noise", "noise", true,
             json_pack("{s:I s:I s:I s:b}", "seed", (json_int_t)r->seed, "width", (json_int_t)r->width, "height", (json_int_t)r->height,
                       "use_cpu", 1));
    add_node(nodes, "denoise_latents", "denoise_latents", true,
             json_pack("{s:I s:f s:s s:i s:i}", "steps", (json_int_t)r->steps, "cfg_scale", r->cfg, "scheduler", r->scheduler,
                       "denoising_start", 0, "denoising_end", 1));
    add_node(nodes, "core_metadata", "core_metadata", true, metadata(r));
    add_node(nodes, "l2i", "l2i", false, json_object());
    add_edge(edges, clip, "clip", "pos_cond", "clip");
    add_edge(edges, clip, "clip", "neg_cond", "clip");
    add_edge(edges, "model_loader", "unet", "denoise_latents", "unet");
    add_edge(edges, "pos_cond", "conditioning", "denoise_latents", "positive_conditioning");
    add_edge(edges, "neg_cond", "conditioning", "denoise_latents", "negative_conditioning");
    add_edge(edges, "noise", "noise", "denoise_latents", "noise");
    add_edge(edges, "denoise_latents", "latents", "l2i", "latents");
    add_edge(edges, "model_loader", "vae", "l2i", "vae");
    add_edge(edges, "core_metadata", "metadata", "l2i", "metadata");
    return json_pack("{s:s s:o s:o}", "id", "galley_text_to_picture", "nodes", nodes, "edges", edges);
}

/* seed_data zips the seeds of the noise with those that the pictures' metadata name. */
static json_t *seed_data(const struct picture_request *r)
{
    json_t *seeds = json_array();
    for (int64_t i = 0; i < r->count; i++)
        json_array_append_new(seeds, json_integer((r->seed + i) & 0xffffffff));
    return json_pack("[[{s:s s:s s:O} {s:s s:s s:o}]]", "node_path", "noise", "field_name", "seed", "items", seeds, "node_path",
                     "core_metadata", "field_name", "seed", "items", seeds);
}

enum status picture_batch(const struct picture_request *r, json_t **ret, struct error *err)
{
    const char *base = json_str(r->model, "base", "");
    if (strcmp(base, "sd-1") != 0 && strcmp(base, "sd-2") != 0)
        return FAIL(err, NOT_AVAILABLE, "--model %s: pictures from models of the base '%s' are not available in this version",
                    json_str(r->model, "name", ""), base);
    json_t *args =
        json_pack("{s:{s:o s:i s:s s:s}}", "batch", "graph", graph_of(r), "runs", 1, "origin", "galley", "destination", "gallery");
    if (!args)
        return FAIL(err, BAD_ARGUMENT, "the prompt is not valid UTF-8 text");
    if (r->count > 1)
        json_object_set_new(json_object_get(args, "batch"), "data", seed_data(r));
    *ret = args;
    return ST_OK;
}
