/* galley: the client program. Finds the command in the table, reads its options, runs it. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/node.h"
#include "client/terminal.h"
#include "common/json.h"

static void print_overview(FILE *to)
{
    fputs("galley: pictures from text, on this machine or a render node.\n\n"
          "  galley render \"a red apple\" -o apple.png      a picture from text; no node needed\n\n",
          to);
    for (size_t i = 0; i < n_commands; i++)
        fprintf(to, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n'galley COMMAND --help' says more. Exit codes: 0 done, 1 the job failed, 2 wrong usage or input, 3 no node reachable,\n"
          "4 refused, 130 interrupted.\n",
          to);
}

static int unknown_command(const char *name, const char *group, const struct command *parts, size_t n)
{
    const char *names[32];
    size_t count = parts ? n : n_commands;
    for (size_t i = 0; i < count; i++)
        names[i] = parts ? parts[i].name : commands[i]->name;
    const char *near = nearest_name(name, names, count);
    struct error err;
    const char *dash = group[0] ? " " : "";
    if (near)
        (void)FAIL(&err, BAD_ARGUMENT, "unknown command '%s%s%.64s': is '%s' meant?", group, dash, name, near);
    else
        (void)FAIL(&err, BAD_ARGUMENT, "unknown command '%s%s%.64s': 'galley %s%s--help' lists them", group, dash, name, group, dash);
    return report(&err);
}

static int run_command(const struct command *c, const char *name, int argc, char **argv)
{
    struct invocation in = {0};
    struct error err;
    void *own = calloc(1, c->options_bytes + 1);
    in.words = calloc((size_t)argc + 1, sizeof *in.words);
    struct option_set sets[] = {{c->options, c->n_options, own}, {common_rows, n_common_rows, &in.common}};
    int code = EXIT_USAGE;
    if (!own || !in.words) {
        (void)FAIL(&err, OUT_OF_MEMORY, "out of memory for the command line");
        code = report(&err);
    } else if (options_parse(sets, COUNT_OF(sets), argc, argv, in.words, &in.n_words, &err) != ST_OK) {
        code = report(&err);
    } else if (in.common.help) {
        AUTO_BUF out = BUF_INIT;
        command_help(c, name, &out);
        fputs(out.data ? out.data : "", stdout);
        code = EXIT_DONE;
    } else if (in.common.json && !(c->uses & USES_JSON)) {
        (void)FAIL(&err, BAD_ARGUMENT, "'galley %s' has no --json: it prints nothing that could be JSON", name);
        code = report(&err);
    } else if (in.n_words < c->min_words || (c->max_words >= 0 && in.n_words > c->max_words)) {
        (void)FAIL(&err, BAD_ARGUMENT, "'galley %s' takes %s, %d given: see 'galley %s --help'", name,
                   c->words ? c->words : "no words beside its options", in.n_words, name);
        code = report(&err);
    } else {
        in.options = own;
        code = c->run(&in);
    }
    free(own);
    free(in.words);
    return code;
}

static int run_group(const struct command *c, int argc, char **argv)
{
    char name[96];
    if (argc < 1 || strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) {
        AUTO_BUF out = BUF_INIT;
        command_help(c, c->name, &out);
        fputs(out.data ? out.data : "", argc < 1 ? stderr : stdout);
        return argc < 1 ? EXIT_USAGE : EXIT_DONE;
    }
    for (size_t i = 0; i < c->n_parts; i++) {
        const struct command *p = &c->parts[i];
        if (strcmp(p->name, argv[0]) != 0)
            continue;
        snprintf(name, sizeof name, "%s %s", c->name, p->name);
        if (p->run)
            return run_command(p, name, argc - 1, argv + 1);
        struct error err;
        (void)FAIL(&err, NOT_AVAILABLE, "'galley %s' is not available in this version", name);
        return report(&err);
    }
    return unknown_command(argv[0], c->name, c->parts, c->n_parts);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_overview(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("galley " GALLEY_VERSION);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--complete") == 0) {
        command_complete(argv + 2, argc - 2);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < n_commands; i++)
        if (strcmp(commands[i]->name, argv[1]) == 0)
            return commands[i]->n_parts ? run_group(commands[i], argc - 2, argv + 2)
                                        : run_command(commands[i], argv[1], argc - 2, argv + 2);
    return unknown_command(argv[1], "", NULL, 0);
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    signals_setup();
    int code = dispatch(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_DONE) {
        fputs("galley: cannot write to stdout\n", stderr);
        code = EXIT_FAILED;
    }
    return code;
}
