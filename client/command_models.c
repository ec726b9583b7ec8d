#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/model_choice.h"
#include "client/node.h"
#include "client/terminal.h"
#include "common/json.h"

static int run_list(const struct invocation *in)
{
    struct error err;
    AUTO_JSON *answer = NULL;
    size_t i;
    json_t *m;
    if (node_ask(in, "models", NULL, &answer, &err) != ST_OK)
        return report(&err);
    if (in->common.json)
        return print_json(json_incref(answer));
    static const char *const head[] = {"NAME", "BASE", "TYPE", "SIZE", "DEFAULT", "PATH"};
    AUTO_TABLE t = {.columns = COUNT_OF(head)};
    for (i = 0; i < COUNT_OF(head); i++)
        table_cell(&t, "%s", head[i]);
    json_array_foreach (json_object_get(answer, "models"), i, m) {
        table_cell(&t, "%s", json_str(m, "name", "?"));
        table_cell(&t, "%s", json_str(m, "base", "?"));
        table_cell(&t, "%s", json_str(m, "type", "?"));
        table_cell(&t, "%.1f MB", (double)json_int(m, "bytes", 0) / 1e6);
        table_cell(&t, "%s", json_flag(m, "default", false) ? "yes" : "");
        table_cell(&t, "%s", json_str(m, "path", ""));
    }
    table_print(&t, stdout);
    return EXIT_DONE;
}

static int run_show(const struct invocation *in)
{
    struct error err;
    AUTO_JSON *answer = NULL;
    const json_t *row;
    if (node_ask(in, "models", NULL, &answer, &err) != ST_OK || model_choose(answer, in->words[0], &row, &err) != ST_OK)
        return report(&err);
    return print_json(json_deep_copy(row));
}

#define BOTH .uses = USES_JSON | USES_NODE
static const struct command parts[] = {
    {.name = "list", .summary = "Models the node has", BOTH, .run = run_list},
    {.name = "show",
     .words = "NAME",
     .summary = "All that is known of one model, as JSON",
     .min_words = 1,
     .max_words = 1,
     BOTH,
     .run = run_show},
    {.name = "add", .words = "PATH", .summary = "Add a model"},
    {.name = "remove", .words = "NAME", .summary = "Remove a model"},
    {.name = "preload", .words = "NAME", .summary = "Load a model ahead"},
    {.name = "unload", .words = "NAME", .summary = "Drop a model from memory"},
};
const struct command command_models = {.name = "models", .summary = "The models: list, show", PARTS(parts)};
