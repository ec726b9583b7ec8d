/* Command lines by tables: a row an option, one parser for every command. */
#pragma once
#include "common/buf.h"
#include "common/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an option's value becomes at its offset in the command's options struct. All of them start zeroed: not given. */
struct texts {
    const char *items[64];
    size_t n;
};
struct whole {
    bool given;
    int64_t value;
};
struct decimal {
    bool given;
    double value;
};
struct size {
    bool given;
    int64_t width, height;
};

enum option_kind {
    OPTION_FLAG,    /* bool */
    OPTION_TEXT,    /* const char * (view of argv) */
    OPTION_TEXTS,   /* struct texts: may be repeated */
    OPTION_WHOLE,   /* struct whole, min and max inclusive */
    OPTION_DECIMAL, /* struct decimal, min and max inclusive */
    OPTION_SIZE,    /* struct size: WxH, each a multiple of 8 from min to max */
    OPTION_LATER    /* known, answers NOT_AVAILABLE by name */
};

struct option_row {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    enum option_kind kind;
    size_t offset;
    double min, max;
    const char *value; /* what the value is called in the help, NULL for a flag */
    const char *help;
};

/* One table and where its values go; a command has its own and the common one. */
struct option_set {
    const struct option_row *rows;
    size_t n;
    void *into;
};

/* options_parse reads ARGV (ARGC words, the command's name not among them) through N_SETS tables. Words that are no options are put into
 * RET_WORDS (room for ARGC) in order; "--" ends the options, "-" is a word. BAD_ARGUMENT names the option, the value, what is right and
 * for an unknown option the nearest known one; NOT_AVAILABLE names one of a later part. */
NODISCARD enum status options_parse(const struct option_set *sets, size_t n_sets, int argc, char **argv, char **ret_words, int *ret_n,
                                    struct error *err);
/* options_help writes one line an option. */
void options_help(const struct option_row *rows, size_t n, struct buf *out);
/* options_takes_value is true for an option whose value is the next word. */
bool options_takes_value(enum option_kind kind);
