#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/node.h"
#include "client/terminal.h"
#include "client/worker_table.h"
#include "common/json.h"

static void worker_row(struct table *t, const json_t *w)
{
    long long item = json_int(w, "item_id", 0), total = json_int(w, "total", 0), age = json_int(w, "heartbeat_age_ms", -1);
    double rate = json_num(w, "it_per_s", 0);
    table_cell(t, "%lld", json_int(w, "slot", 0));
    table_cell(t, "%s", json_str(w, "device", "?"));
    table_cell(t, "%s%s", json_str(w, "state", "?"), json_flag(w, "paused", false) ? " (paused)" : "");
    if (json_int(w, "pid", 0))
        table_cell(t, "%lld", json_int(w, "pid", 0));
    else
        table_cell(t, "-");
    if (item)
        table_cell(t, "%lld", item);
    else
        table_cell(t, "-");
    table_cell(t, "%s", json_str(w, "phase", "-"));
    if (item && total)
        table_cell(t, "%lld/%lld", json_int(w, "step", 0), total);
    else
        table_cell(t, "-");
    if (item && rate > 0)
        table_cell(t, "%.1f", rate);
    else
        table_cell(t, "-");
    if (age >= 0 && json_int(w, "pid", 0))
        table_cell(t, "%.1f s", (double)age / 1000);
    else
        table_cell(t, "-");
    table_cell(t, "%lld", json_int(w, "deaths", 0));
    table_cell(t, "%s", json_str(w, "name", ""));
}

void worker_table_print(const json_t *workers)
{
    static const char *const head[] = {"SLOT", "DEVICE", "STATE", "PID", "ITEM", "PHASE", "STEP", "IT/S", "HEARD", "DEATHS", "NAME"};
    AUTO_TABLE t = {.columns = COUNT_OF(head)};
    size_t i;
    json_t *w;
    for (i = 0; i < COUNT_OF(head); i++)
        table_cell(&t, "%s", head[i]);
    json_array_foreach (workers, i, w)
        worker_row(&t, w);
    table_print(&t, stdout);
    json_array_foreach (workers, i, w) {
        const char *reason = json_str(w, "reason", "");
        if (!reason[0])
            continue;
        AUTO_BUF line = BUF_INIT;
        text_put(&line, reason, -1);
        printf("%s: %s\n", json_str(w, "device", "?"), line.data ? line.data : "");
    }
}

static int run_list(const struct invocation *in)
{
    struct error err;
    AUTO_JSON *answer = NULL;
    if (node_ask(in, "workers", NULL, &answer, &err) != ST_OK)
        return report(&err);
    if (in->common.json)
        return print_json(json_incref(answer));
    worker_table_print(json_object_get(answer, "workers"));
    return EXIT_DONE;
}

static int ask_device(const struct invocation *in, const char *op, const char *done, const char *done_all)
{
    struct error err;
    json_t *answer, *args = in->n_words ? json_pack("{s:s}", "device", in->words[0]) : NULL;
    if (node_ask(in, op, args, &answer, &err) != ST_OK)
        return report(&err);
    if (in->common.json)
        return print_json(answer);
    if (in->n_words)
        printf("%s %s\n", in->words[0], done);
    else
        puts(done_all);
    json_decref(answer);
    return EXIT_DONE;
}

static int run_pause(const struct invocation *in)
{
    return ask_device(in, "pause", "is paused", "all workers are paused: what runs goes on, nothing new starts");
}

static int run_resume(const struct invocation *in) { return ask_device(in, "resume", "goes on", "workers go on"); }

static int run_restart(const struct invocation *in) { return ask_device(in, "worker_restart", "is being restarted", ""); }

#define BOTH .uses = USES_JSON | USES_NODE
static const struct command parts[] = {
    {.name = "list", .summary = "A row per device", BOTH, .run = run_list},
    {.name = "pause", .words = "[DEVICE]", .summary = "Start nothing new on a device, or on all", .max_words = 1, BOTH, .run = run_pause},
    {.name = "resume", .words = "[DEVICE]", .summary = "Go on after a pause", .max_words = 1, BOTH, .run = run_resume},
    {.name = "restart",
     .words = "DEVICE",
     .summary = "Replace a worker; its item is queued again",
     .min_words = 1,
     .max_words = 1,
     BOTH,
     .run = run_restart},
    {.name = "drain", .words = "DEVICE", .summary = "Let a worker finish and end"},
};
const struct command command_workers = {
    .name = "workers", .summary = "The workers, one a device: list, pause, resume, restart", PARTS(parts)};
