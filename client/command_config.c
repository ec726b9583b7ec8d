#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/command.h"
#include "client/node.h"
#include "client/terminal.h"
#include "common/config.h"
#include "common/json.h"
#include "common/paths.h"

struct config_options {
    const char *config;
    bool system;
};
static const struct option_row rows[] = {
    {"config", 0, OPTION_TEXT, offsetof(struct config_options, config), 0, 0, "FILE", "This file instead of the usual one"},
    {"system", 0, OPTION_FLAG, offsetof(struct config_options, system), 0, 0, NULL, "What the system's service would read"},
};

static enum status load(const char *file, bool system, struct config **ret, struct error *err)
{
    struct paths p;
    TRY(paths_find(system ? PATHS_SYSTEM : PATHS_AUTO, &p, err));
    return config_load(file, p.config, ret, err);
}

static void print_notes(const struct config *c)
{
    fprintf(stderr, "file: %s\n", c->file ? c->file : "none");
    for (size_t i = 0; i < c->ignored.n; i++)
        fprintf(stderr, "note: %s is a key of InvokeAI's without meaning here\n", c->ignored.items[i]);
    for (size_t i = 0; i < c->warnings.n; i++)
        fprintf(stderr, "note: %s\n", c->warnings.items[i]);
}

static enum status check_keys(const json_t *all, char *const *words, int n, struct error *err)
{
    for (int i = 0; i < n; i++) {
        if (json_object_get(all, words[i]))
            continue;
        const char *names[CFG_COUNT], *key;
        size_t count = 0;
        json_t *value;
        json_object_foreach ((json_t *)all, key, value)
            if (count < CFG_COUNT)
                names[count++] = key;
        const char *near = nearest_name(words[i], names, count);
        return FAIL(err, BAD_ARGUMENT, "unknown key '%.64s'%s%s%s: 'galley config show' lists them", words[i], near ? ": is '" : "",
                    near ? near : "", near ? "' meant?" : "");
    }
    return ST_OK;
}

static bool asked_for(const char *key, char *const *words, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(key, words[i]) == 0)
            return true;
    return n == 0;
}

static int run_show(const struct invocation *in)
{
    const struct config_options *o = in->options;
    struct error err;
    struct config *c;
    if (load(o->config, o->system, &c, &err) != ST_OK)
        return report(&err);
    AUTO_JSON *all = config_json(c);
    if (check_keys(all, in->words, in->n_words, &err) != ST_OK) {
        config_free(c);
        return report(&err);
    }
    AUTO_TABLE t = {.columns = 3};
    AUTO_JSON *chosen = json_object();
    const char *key;
    json_t *row;
    json_object_foreach (all, key, row) {
        if (!asked_for(key, in->words, in->n_words))
            continue;
        char *value = json_text(json_object_get(row, "value"));
        table_cell(&t, "%s", key);
        table_cell(&t, "%s", value ? value : "");
        table_cell(&t, "%s", json_str(row, "origin", ""));
        json_object_set(chosen, key, row);
        free(value);
    }
    if (!in->common.json)
        print_notes(c);
    config_free(c);
    if (in->common.json)
        return print_json(json_incref(chosen));
    table_print(&t, stdout);
    return EXIT_DONE;
}

static int run_check(const struct invocation *in)
{
    struct error err;
    struct config *c;
    const struct config_options *o = in->options;
    const char *file = in->n_words ? in->words[0] : o->config;
    if (load(file, o->system, &c, &err) != ST_OK) {
        if (in->common.json)
            print_json(json_pack("{s:b s:s}", "ok", 0, "message", err.message));
        report(&err);
        return EXIT_USAGE; /* whatever keeps a configuration from being read, it is bad input here */
    }
    if (in->common.json)
        print_json(json_pack("{s:b s:s?}", "ok", 1, "file", c->file));
    else
        printf("%s: nothing is wrong\n", c->file ? c->file : "built-in values and environment");
    if (!in->common.json)
        print_notes(c);
    config_free(c);
    return EXIT_DONE;
}

static int run_example(const struct invocation *in)
{
    (void)in;
    AUTO_BUF out = BUF_INIT;
    config_example(&out);
    fputs(out.data ? out.data : "", stdout);
    return EXIT_DONE;
}

static const struct command parts[] = {
    {.name = "show",
     .words = "[KEY...]",
     .summary = "The effective configuration, with the origin of each value; needs no node",
     .max_words = -1,
     .uses = USES_JSON,
     OPTIONS(rows, struct config_options),
     .run = run_show},
    {.name = "check",
     .words = "[FILE]",
     .summary = "Is a configuration right? needs no node",
     .max_words = 1,
     .uses = USES_JSON,
     OPTIONS(rows, struct config_options),
     .run = run_check},
    {.name = "example", .summary = "A commented example file with every key", .run = run_example},
};
const struct command command_config = {.name = "config", .summary = "The configuration: show, check, example", PARTS(parts)};
