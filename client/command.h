/* What a command of galley is: a row of the table in main.c, with its options, its help and what it runs. */
#pragma once
#include "client/options.h"
#include <stdbool.h>
#include <stddef.h>

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_NODE = 3, EXIT_REFUSED = 4, EXIT_INTERRUPTED = 130 };

/* The options that most commands share. */
struct common_options {
    bool help, json;
    const char *node; /* control socket of the node to use, NULL: search */
};
enum { USES_JSON = 1, USES_NODE = 2 };

struct invocation {
    struct common_options common;
    const void *options; /* the command's own struct */
    char **words;        /* what is no option */
    int n_words;
};

struct command {
    const char *name, *words, *summary; /* "get", "[NAME]", "..." */
    const char *details;                /* further help, NULL: none */
    int min_words, max_words;           /* max -1: any number */
    unsigned uses;                      /* USES_* */
    const struct option_row *options;
    size_t n_options, options_bytes;
    const struct command *parts; /* a group: its subcommands */
    size_t n_parts;
    int (*run)(const struct invocation *in); /* returns an exit code; NULL without parts: of a later version */
};

#define COUNT_OF(table) (sizeof(table) / sizeof *(table))
#define OPTIONS(table, type) .options = (table), .n_options = COUNT_OF(table), .options_bytes = sizeof(type)
#define PARTS(table) .parts = (table), .n_parts = COUNT_OF(table)

extern const struct command command_render, command_run, command_submit, command_watch, command_status, command_queue, command_workers,
    command_models, command_images, command_users, command_config, command_doctor;
/* commands is every command, in the order of the help. */
extern const struct command *const commands[];
extern const size_t n_commands;

/* command_help writes the help of the command whose full name is NAME ("queue list"). */
void command_help(const struct command *c, const char *name, struct buf *out);
/* command_complete prints what can stand after WORDS (N of them, the last one unfinished), a candidate a line, for the shell completion. */
void command_complete(char **words, int n);
/* common_rows is the common options' table. */
extern const struct option_row common_rows[];
extern const size_t n_common_rows;
