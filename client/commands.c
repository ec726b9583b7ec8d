#include "client/command.h"

#include <stdio.h>
#include <string.h>

#define ROW(member) offsetof(struct common_options, member)

const struct option_row common_rows[] = {
    {"help", 'h', OPTION_FLAG, ROW(help), 0, 0, NULL, "This help"},
    {"json", 0, OPTION_FLAG, ROW(json), 0, 0, NULL, "Results as JSON"},
    {"node", 0, OPTION_TEXT, ROW(node), 0, 0, "URL", "Control socket of the node (default: GALLEY_HOME's, the user's, the system's)"},
};
const size_t n_common_rows = COUNT_OF(common_rows);

static const struct command user_parts[] = {
    {.name = "add", .summary = "Add a user"},
    {.name = "list", .summary = "Users"},
    {.name = "remove", .summary = "Remove a user"},
    {.name = "token", .summary = "Make or revoke a token"},
};
const struct command command_users = {.name = "users", .summary = "Users of the node (multi-user mode)", PARTS(user_parts)};

const struct command *const commands[] = {
    &command_render,  &command_run,    &command_submit, &command_watch, &command_status, &command_queue,
    &command_workers, &command_models, &command_images, &command_users, &command_config, &command_doctor,
};
const size_t n_commands = COUNT_OF(commands);

static bool available(const struct command *c)
{
    bool any = c->run != NULL;
    for (size_t i = 0; i < c->n_parts; i++)
        any = any || c->parts[i].run;
    return any;
}

static bool applies(const struct command *c, const struct option_row *row)
{
    return !((strcmp(row->name, "json") == 0 && !(c->uses & USES_JSON)) || (strcmp(row->name, "node") == 0 && !(c->uses & USES_NODE)));
}

void command_help(const struct command *c, const char *name, struct buf *out)
{
    if (c->n_parts) {
        buf_printf(out, "galley %s: %s\n\n", name, c->summary);
        for (size_t i = 0; i < c->n_parts; i++) {
            const struct command *p = &c->parts[i];
            char left[96];
            snprintf(left, sizeof left, "%s %s %s", name, p->name, p->words ? p->words : "");
            buf_printf(out, "  galley %-34s %s%s\n", left, p->summary, p->run ? "" : " (not available yet)");
        }
        buf_printf(out, "\n'galley %s PART --help' says more about a part.\n", name);
        return;
    }
    buf_printf(out, "galley %s%s%s%s\n\n%s.\n", name, c->n_options ? " [OPTIONS]" : "", c->words ? " " : "", c->words ? c->words : "",
               c->summary);
    if (c->details)
        buf_printf(out, "%s\n", c->details);
    buf_puts(out, "\n");
    options_help(c->options, c->n_options, out);
    for (size_t i = 0; i < n_common_rows; i++)
        if (applies(c, &common_rows[i]))
            options_help(&common_rows[i], 1, out);
}

static const struct command *find(const struct command *const *list, const struct command *parts, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        const struct command *c = list ? list[i] : &parts[i];
        if (strcmp(c->name, name) == 0)
            return c;
    }
    return NULL;
}

static void offer(const char *prefix, const char *dashes, const char *name)
{
    char word[80];
    snprintf(word, sizeof word, "%s%s", dashes, name);
    if (strncmp(word, prefix, strlen(prefix)) == 0)
        puts(word);
}

void command_complete(char **words, int n)
{
    const char *last = n ? words[n - 1] : "";
    const struct command *c = n > 1 ? find(commands, NULL, n_commands, words[0]) : NULL;
    if (c && c->n_parts && n > 2)
        c = find(NULL, c->parts, c->n_parts, words[1]);
    if (n <= 1) {
        for (size_t i = 0; i < n_commands; i++)
            if (available(commands[i]))
                offer(last, "", commands[i]->name);
        offer(last, "--", "version");
        offer(last, "--", "help");
    } else if (c && c->n_parts) {
        for (size_t i = 0; i < c->n_parts; i++)
            if (c->parts[i].run)
                offer(last, "", c->parts[i].name);
    } else if (c && last[0] == '-') {
        for (size_t i = 0; i < c->n_options; i++)
            if (c->options[i].kind != OPTION_LATER)
                offer(last, "--", c->options[i].name);
        for (size_t i = 0; i < n_common_rows; i++)
            if (applies(c, &common_rows[i]))
                offer(last, "--", common_rows[i].name);
    }
}
