#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/node.h"
#include "client/terminal.h"
#include "client/worker_table.h"
#include "common/json.h"

struct status_options {
    bool ready, live;
};
static const struct option_row rows[] = {
    {"ready", 0, OPTION_FLAG, offsetof(struct status_options, ready), 0, 0, NULL,
     "Exit 0 if a job that comes now would start, 1 if not (and why), 3 without a node"},
    {"live", 0, OPTION_FLAG, offsetof(struct status_options, live), 0, 0, NULL,
     "Exit 0 if the node answers within 5 s, 1 if it hangs, 3 without a node"},
};
enum { LIVE_LIMIT_MS = 5000 };

/* live asks the loop (status) and the store (the oldest item) of the node, both within the limit. */
static int live(const struct invocation *in)
{
    galley_client *c = NULL;
    galley_error fault;
    struct error err;
    char *answer = NULL;
    enum status s = node_connect(in->common.node, &c, &err);
    static const struct {
        const char *op, *args;
    } questions[] = {{"status", NULL}, {"items", "{\"limit\":1}"}};
    for (size_t i = 0; i < COUNT_OF(questions) && s == ST_OK; i++) {
        if (galley_call(c, questions[i].op, questions[i].args, LIVE_LIMIT_MS, &answer, &fault) != 0)
            s = error_from(&fault, &err);
        else
            galley_free(answer);
    }
    galley_close(c);
    if (in->common.json)
        print_json(json_pack("{s:b s:s?}", "live", s == ST_OK, "reason", s == ST_OK ? NULL : err.message));
    if (s == ST_OK)
        return EXIT_DONE;
    int code = report(&err);
    return s == ST_TIMEOUT ? EXIT_FAILED : code;
}

static int ready(const struct invocation *in, const json_t *status)
{
    bool yes = json_flag(status, "ready", false);
    if (in->common.json)
        print_json(json_pack("{s:b s:s?}", "ready", yes, "reason", yes ? NULL : json_str(status, "reason", "no reason given")));
    else
        printf("%s\n", yes ? "ready" : json_str(status, "reason", "not ready"));
    return yes ? EXIT_DONE : EXIT_FAILED;
}

static void duration(long long ms, char ret[48])
{
    long long s = ms / 1000;
    if (s >= 86400)
        snprintf(ret, 48, "%lld d %lld h", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        snprintf(ret, 48, "%lld h %lld min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(ret, 48, "%lld min %lld s", s / 60, s % 60);
    else
        snprintf(ret, 48, "%lld s", s);
}

static void print_status(const json_t *st)
{
    const json_t *q = json_object_get(st, "queue"), *node = json_object_get(st, "node");
    char up[48];
    bool is_ready = json_flag(st, "ready", false);
    duration(json_int(node, "uptime_ms", 0), up);
    printf("node    %s%s%s\n", is_ready ? "ready" : "NOT READY: ", is_ready ? "" : json_str(st, "reason", "no reason given"),
           is_ready && json_flag(node, "paused", false) ? ", paused" : "");
    printf("        galleyd %s, pid %lld, up %s, state in %s\n", json_str(node, "version", "?"), json_int(node, "pid", 0), up,
           json_str(node, "state_dir", "?"));
    printf("queue   %lld pending, %lld in progress, %lld waiting; %lld completed, %lld failed, %lld canceled\n\n",
           json_int(q, "pending", 0), json_int(q, "in_progress", 0), json_int(q, "waiting", 0), json_int(q, "completed", 0),
           json_int(q, "failed", 0), json_int(q, "canceled", 0));
    worker_table_print(json_object_get(st, "workers"));
}

static int run(const struct invocation *in)
{
    const struct status_options *o = in->options;
    struct error err;
    AUTO_JSON *answer = NULL;
    if (o->live && !o->ready)
        return live(in);
    enum status s = node_ask(in, "status", NULL, &answer, &err);
    if (s != ST_OK) {
        int code = report(&err);
        return o->ready && s == ST_TIMEOUT ? EXIT_FAILED : code;
    }
    if (o->ready)
        return ready(in, answer);
    if (in->common.json)
        return print_json(json_incref(answer));
    print_status(answer);
    return EXIT_DONE;
}

const struct command command_status = {
    .name = "status",
    .summary = "The node at a glance: queue, workers, what is wrong",
    .max_words = 0,
    .uses = USES_JSON | USES_NODE,
    OPTIONS(rows, struct status_options),
    .run = run,
};
