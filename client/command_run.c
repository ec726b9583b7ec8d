#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/graph_input.h"
#include "client/job.h"
#include "client/model_choice.h"
#include "client/node.h"
#include "client/picture_file.h"
#include "client/progress.h"
#include "common/json.h"

struct run_options {
    const char *output, *model, *config;
    struct texts set;
    bool wait, detach, tiles, quiet;
};
#define AT(member) offsetof(struct run_options, member)

static const struct option_row run_rows[] = {
    {"output", 'o', OPTION_TEXT, AT(output), 0, 0, "PATTERN",
     "Write the last picture that is not intermediate; %d numbers several items; - is stdout"},
    {"set", 0, OPTION_TEXTS, AT(set), 0, 0, "NODE.FIELD=VALUE", "Put a value over the graph's; may be repeated"},
    {"model", 'm', OPTION_TEXT, AT(model), 0, 0, "NAME", "Model for every main_model_loader, by name or key"},
    {"wait", 0, OPTION_FLAG, AT(wait), 0, 0, NULL, "Wait for the result (this is the default)"},
    {"detach", 'd', OPTION_FLAG, AT(detach), 0, 0, NULL, "Print the item ids and return; the job goes on"},
    {"tiles", 0, OPTION_FLAG, AT(tiles), 0, 0, NULL, "Previews in the terminal"},
    {"quiet", 'q', OPTION_FLAG, AT(quiet), 0, 0, NULL, "No progress"},
    {"config", 0, OPTION_TEXT, AT(config), 0, 0, "FILE", "Configuration of a private node"},
};

/* print_enqueued prints what the node answered to enqueue. */
static int print_enqueued(const struct invocation *in, json_t *answer)
{
    if (in->common.json)
        return print_json(answer);
    const json_t *ids = json_object_get(answer, "item_ids");
    printf("batch %s\n", json_str(json_object_get(answer, "batch"), "batch_id", "?"));
    for (size_t i = json_array_size(ids); i > 0; i--)
        printf("item %lld\n", (long long)json_integer_value(json_array_get(ids, i - 1)));
    json_decref(answer);
    return EXIT_DONE;
}

static enum status change_graph(galley_client *c, const struct run_options *o, json_t *args, struct error *err)
{
    for (size_t i = 0; i < o->set.n; i++)
        TRY(graph_input_set(args, o->set.items[i], err));
    if (!o->model)
        return ST_OK;
    AUTO_JSON *models = NULL;
    const json_t *row;
    TRY(node_call(c, "models", NULL, &models, err));
    TRY(model_choose(models, o->model, &row, err));
    return graph_input_model(args, row, err);
}

static enum status check(const struct invocation *in, const struct run_options *o, struct error *err)
{
    if (o->wait && o->detach)
        return FAIL(err, BAD_ARGUMENT, "--wait and --detach exclude each other");
    if (o->detach && o->output)
        return FAIL(err, BAD_ARGUMENT,
                    "-o needs the picture, --detach does not wait for it: leave one out, or fetch it later with 'galley images get'");
    if (in->common.json && o->output && strcmp(o->output, "-") == 0)
        return FAIL(err, BAD_ARGUMENT, "--json and -o - both want stdout: give -o a file");
    return ST_OK;
}

static void print_pictures(const struct invocation *in, const struct job *job, bool to_stdout)
{
    size_t i;
    json_t *row;
    if (in->common.json) {
        print_json(json_incref(job_result(job)));
        return;
    }
    json_array_foreach (json_object_get(job_result(job), "pictures"), i, row)
        if (!to_stdout)
            puts(json_str(row, "path", json_str(row, "image_name", "")));
}

static enum status run_waiting(const struct invocation *in, const struct run_options *o, json_t *args, struct error *err)
{
    struct job *job = NULL;
    struct job_options jo = {
        .node = in->common.node, .config = o->config, .pattern = o->output, .may_start = true, .quiet = o->quiet, .tiles = o->tiles};
    enum status s = job_open(&jo, &job, err);
    if (s == ST_OK)
        s = change_graph(job_client(job), o, args, err);
    if (s == ST_OK) {
        s = job_run(job, json_incref(args), err);
        print_pictures(in, job, o->output && strcmp(o->output, "-") == 0);
        fflush(stdout);
    }
    if (s != ST_OK)
        report(err);
    job_close(job);
    return s;
}

static int run_run(const struct invocation *in)
{
    const struct run_options *o = in->options;
    struct error err;
    AUTO_JSON *args = NULL;
    AUTO_NODE *c = NULL;
    json_t *answer;
    if (check(in, o, &err) != ST_OK || graph_input_read(in->words[0], &args, &err) != ST_OK ||
        (o->output && pattern_check(o->output, graph_input_count(args), &err) != ST_OK))
        return report(&err);
    if (o->tiles && !tiles_available())
        fputs("galley: no previews: this build is without libchafa\n", stderr);
    if (!o->detach)
        return job_exit_code(run_waiting(in, o, args, &err));
    if (node_connect(in->common.node, &c, &err) != ST_OK || change_graph(c, o, args, &err) != ST_OK ||
        node_call(c, "enqueue", json_incref(args), &answer, &err) != ST_OK)
        return report(&err);
    return print_enqueued(in, answer);
}

const struct command command_run = {
    .name = "run",
    .words = "FILE",
    .summary = "Run a graph (or a batch, or a picture's own graph) and wait for it",
    .details = "FILE is an InvokeAI graph, an enqueue body or a PNG that carries its graph; - is stdin. Without -o the names of the "
               "pictures are printed.",
    .min_words = 1,
    .max_words = 1,
    .uses = USES_JSON | USES_NODE,
    OPTIONS(run_rows, struct run_options),
    .run = run_run,
};

struct submit_options {
    const char *key;
    bool front;
};
static const struct option_row submit_rows[] = {
    {"key", 0, OPTION_TEXT, offsetof(struct submit_options, key), 0, 0, "KEY", "Idempotency key: the same key and body again add nothing"},
    {"front", 0, OPTION_FLAG, offsetof(struct submit_options, front), 0, 0, NULL, "Before everything that is pending"},
};

static int run_submit(const struct invocation *in)
{
    const struct submit_options *o = in->options;
    struct error err;
    json_t *args, *answer;
    if (graph_input_read(in->words[0], &args, &err) != ST_OK)
        return report(&err);
    if (o->key)
        json_object_set_new(args, "key", json_string(o->key));
    if (o->front)
        json_object_set_new(args, "prepend", json_true());
    if (node_ask(in, "enqueue", args, &answer, &err) != ST_OK)
        return report(&err);
    return print_enqueued(in, answer);
}

const struct command command_submit = {
    .name = "submit",
    .words = "FILE",
    .summary = "Add a batch to the queue and return; prints the batch id and the item ids",
    .details = "FILE is an InvokeAI enqueue body {\"batch\": {...}} or a graph; - is stdin.",
    .min_words = 1,
    .max_words = 1,
    .uses = USES_JSON | USES_NODE,
    OPTIONS(submit_rows, struct submit_options),
    .run = run_submit,
};
