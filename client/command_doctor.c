#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/doctor.h"
#include "client/node.h"
#include "client/terminal.h"
#include "common/json.h"

struct doctor_command_options {
    const char *config;
    bool system;
};
static const struct option_row rows[] = {
    {"config", 0, OPTION_TEXT, offsetof(struct doctor_command_options, config), 0, 0, "FILE",
     "This configuration instead of the usual one"},
    {"system", 0, OPTION_FLAG, offsetof(struct doctor_command_options, system), 0, 0, NULL, "Look at the system's service"},
};

static void print_finding(const json_t *f, bool color)
{
    const char *level = json_str(f, "level", ""), *remedy = json_str(f, "remedy", NULL);
    bool problem = strcmp(level, "problem") == 0;
    AUTO_BUF text = BUF_INIT;
    text_put(&text, json_str(f, "text", ""), -1);
    printf("%s%-8s%s %-14s %s\n", problem && color ? "\033[31m" : "", level, problem && color ? "\033[0m" : "", json_str(f, "check", ""),
           text.data ? text.data : "");
    if (remedy)
        printf("%-23s -> %s\n", "", remedy);
}

static int run(const struct invocation *in)
{
    const struct doctor_command_options *o = in->options;
    struct doctor_options d = {.node = in->common.node, .config = o->config, .system = o->system};
    AUTO_JSON *list = doctor_examine(&d);
    size_t problems = 0, i;
    json_t *f;
    json_array_foreach (list, i, f)
        problems += strcmp(json_str(f, "level", ""), "problem") == 0;
    if (in->common.json) {
        print_json(json_pack("{s:I s:O}", "problems", (json_int_t)problems, "checks", list));
    } else {
        bool color = terminal_color(1);
        json_array_foreach (list, i, f)
            print_finding(f, color);
        if (problems)
            printf("\n%zu problem%s\n", problems, problems == 1 ? "" : "s");
        else
            printf("\nnothing is wrong\n");
    }
    return problems ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_doctor = {
    .name = "doctor",
    .summary = "What is wrong with this machine's installation, and what to do; needs no node",
    .uses = USES_JSON | USES_NODE,
    OPTIONS(rows, struct doctor_command_options),
    .run = run,
};
