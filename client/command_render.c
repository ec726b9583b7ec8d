#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "client/command.h"
#include "client/job.h"
#include "client/model_choice.h"
#include "client/node.h"
#include "client/picture_file.h"
#include "client/picture_graph.h"
#include "client/progress.h"
#include "common/json.h"

struct render_options {
    const char *output, *negative, *model, *scheduler, *format, *config;
    struct size size;
    struct whole steps, seed, count, clip_skip;
    struct decimal cfg;
    bool tiles, quiet;
};
#define AT(member) offsetof(struct render_options, member)
enum { DEFAULT_STEPS = 30, DEFAULT_SIDE = 512 };
static const double DEFAULT_CFG = 7.5;
static const char DEFAULT_SCHEDULER[] = "dpmpp_2m_k";

static const struct option_row rows[] = {
    {"output", 'o', OPTION_TEXT, AT(output), 0, 0, "PATTERN", "Picture file; %d numbers several; - is stdout (default: galley-SEED.png)"},
    {"negative", 'n', OPTION_TEXT, AT(negative), 0, 0, "TEXT", "What the picture should not show"},
    {"model", 'm', OPTION_TEXT, AT(model), 0, 0, "NAME", "Model, by name or key (default: the node's default model)"},
    {"size", 0, OPTION_SIZE, AT(size), 8, 8192, "WxH", "Width and height in pixels, multiples of 8 (default: the model's)"},
    {"steps", 0, OPTION_WHOLE, AT(steps), 1, 10000, "N", "Sampling steps (default: the model's, else 30)"},
    {"cfg", 0, OPTION_DECIMAL, AT(cfg), 1, 1000, "SCALE", "Guidance (default: the model's, else 7.5)"},
    {"scheduler", 0, OPTION_TEXT, AT(scheduler), 0, 0, "NAME", "Sampler (default: the model's, else dpmpp_2m_k)"},
    {"seed", 0, OPTION_WHOLE, AT(seed), 0, 4294967295, "N", "Seed of the first picture (default: random, and printed)"},
    {"count", 0, OPTION_WHOLE, AT(count), 1, 10000, "N", "Pictures, each with the next seed (default: 1)"},
    {"clip-skip", 0, OPTION_WHOLE, AT(clip_skip), 0, 64, "N", "Layers of the text encoder to leave out (default: 0)"},
    {"format", 0, OPTION_TEXT, AT(format), 0, 0, "FORMAT", "Picture format: png"},
    {"tiles", 0, OPTION_FLAG, AT(tiles), 0, 0, NULL, "Previews in the terminal"},
    {"quiet", 'q', OPTION_FLAG, AT(quiet), 0, 0, NULL, "No progress, no seed"},
    {"config", 0, OPTION_TEXT, AT(config), 0, 0, "FILE", "Configuration of a private node"},
    {"init", 0, OPTION_LATER, 0, 0, 0, "IMAGE", "Start from a picture"},
    {"strength", 0, OPTION_LATER, 0, 0, 0, "PART", "How much of it changes"},
    {"mask", 0, OPTION_LATER, 0, 0, 0, "IMAGE", "Where it changes"},
    {"lora", 0, OPTION_LATER, 0, 0, 0, "NAME[:W]", "Add a LoRA"},
    {"control", 0, OPTION_LATER, 0, 0, 0, "MODEL:IMAGE[:W]", "Add a ControlNet"},
    {"vae", 0, OPTION_LATER, 0, 0, 0, "NAME", "Another VAE"},
};

static enum status check(const struct invocation *in, const struct render_options *o, struct error *err)
{
    if (o->scheduler)
        TRY(scheduler_check(o->scheduler, err));
    if (o->format && strcmp(o->format, "png") != 0)
        return FAIL(err, NOT_AVAILABLE, "--format %.32s is not available in this version: pictures are written as png", o->format);
    if (o->output)
        TRY(pattern_check(o->output, o->count.given ? o->count.value : 1, err));
    if (in->common.json && o->output && strcmp(o->output, "-") == 0)
        return FAIL(err, BAD_ARGUMENT, "--json and -o - both want stdout: give -o a file");
    return ST_OK;
}

static void fill_request(const struct invocation *in, const struct render_options *o, const json_t *model, uint32_t seed,
                         struct picture_request *r)
{
    const json_t *d = json_object_get(model, "default_settings");
    long long side = json_int(model, "sample_size", 0); /* in pixels: the node has multiplied by 8 */
    if (side <= 0)
        side = DEFAULT_SIDE;
    *r = (struct picture_request){
        .prompt = in->words[0],
        .negative = o->negative ? o->negative : "",
        .model = model,
        .width = o->size.given ? o->size.width : json_int(d, "width", side),
        .height = o->size.given ? o->size.height : json_int(d, "height", side),
        .steps = o->steps.given ? o->steps.value : json_int(d, "steps", DEFAULT_STEPS),
        .cfg = o->cfg.given ? o->cfg.value : json_num(d, "cfg_scale", DEFAULT_CFG),
        .scheduler = o->scheduler ? o->scheduler : json_str(d, "scheduler", DEFAULT_SCHEDULER),
        .clip_skip = o->clip_skip.value,
        .seed = seed,
        .count = o->count.given ? o->count.value : 1,
    };
}

static int by_number(const void *a, const void *b)
{
    long long x = json_int(*(json_t *const *)a, "number", 0), y = json_int(*(json_t *const *)b, "number", 0);
    return (x > y) - (x < y);
}

/* print_result lists what was written, in the order of the numbers, each with its seed. */
static void print_result(const struct invocation *in, const struct job *job, const struct picture_request *r, bool to_stdout)
{
    json_t *pictures = json_object_get(job_result(job), "pictures");
    size_t n = json_array_size(pictures);
    json_t **sorted = calloc(n + 1, sizeof *sorted);
    if (!sorted)
        return;
    for (size_t i = 0; i < n; i++)
        sorted[i] = json_array_get(pictures, i);
    qsort(sorted, n, sizeof *sorted, by_number);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_object_set_new(sorted[i], "seed", json_integer((r->seed + json_int(sorted[i], "number", 1) - 1) & 0xffffffff));
        json_array_append(list, sorted[i]);
        if (!in->common.json && !to_stdout)
            puts(json_str(sorted[i], "path", ""));
    }
    free(sorted);
    if (!in->common.json) {
        json_decref(list);
        return;
    }
    json_t *out = json_copy(job_result(job));
    json_object_set_new(out, "pictures", list);
    json_object_set_new(out, "seed", json_integer(r->seed));
    print_json(out);
}

/* render_with does the job on the node it got. */
static enum status render_with(const struct invocation *in, const struct render_options *o, uint32_t seed, struct job *job,
                               struct error *err)
{
    AUTO_JSON *models = NULL;
    json_t *args;
    const json_t *model;
    struct picture_request r;
    TRY(node_call(job_client(job), "models", NULL, &models, err));
    TRY(model_choose(models, o->model, &model, err));
    fill_request(in, o, model, seed, &r);
    TRY(picture_batch(&r, &args, err));
    if (!o->seed.given && !o->quiet)
        fprintf(stderr, "seed %u: again with --seed %u\n", seed, seed);
    enum status s = job_run(job, args, err);
    print_result(in, job, &r, o->output && strcmp(o->output, "-") == 0);
    return s;
}

static int run(const struct invocation *in)
{
    const struct render_options *o = in->options;
    struct error err;
    struct job *job = NULL;
    char own_pattern[64];
    uint32_t seed = (uint32_t)o->seed.value;
    if (check(in, o, &err) != ST_OK)
        return report(&err);
    if (!o->seed.given && getrandom(&seed, sizeof seed, 0) != sizeof seed) {
        (void)FAIL(&err, IO, "the system gives no random seed: give --seed");
        return report(&err);
    }
    struct job_options jo = {
        .node = in->common.node, .config = o->config, .pattern = o->output, .may_start = true, .quiet = o->quiet, .tiles = o->tiles};
    if (!jo.pattern) {
        snprintf(own_pattern, sizeof own_pattern, o->count.value > 1 ? "galley-%u-%%d.png" : "galley-%u.png", seed);
        jo.pattern = own_pattern;
        if (pattern_check(own_pattern, o->count.given ? o->count.value : 1, &err) != ST_OK)
            return report(&err);
    }
    if (o->tiles && !tiles_available())
        fputs("galley: no previews: this build is without libchafa\n", stderr);
    enum status s = job_open(&jo, &job, &err);
    if (s == ST_OK)
        s = render_with(in, o, seed, job, &err);
    if (s != ST_OK)
        report(&err);
    fflush(stdout);
    job_close(job);
    return job_exit_code(s);
}

const struct command command_render = {
    .name = "render",
    .words = "PROMPT",
    .summary = "A picture from text; starts a private node for its own use when none runs",
    .min_words = 1,
    .max_words = 1,
    .uses = USES_JSON | USES_NODE,
    OPTIONS(rows, struct render_options),
    .run = run,
};
