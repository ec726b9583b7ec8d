#include "client/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

enum { MAX_NAMES = 128, SIZE_STEP = 8 };

bool options_takes_value(enum option_kind kind) { return kind != OPTION_FLAG && kind != OPTION_LATER; }

static const struct option_row *find_long(const struct option_set *sets, size_t n_sets, const char *name, size_t len, void **ret_into)
{
    for (size_t s = 0; s < n_sets; s++)
        for (size_t i = 0; i < sets[s].n; i++)
            if (strlen(sets[s].rows[i].name) == len && memcmp(sets[s].rows[i].name, name, len) == 0) {
                *ret_into = sets[s].into;
                return &sets[s].rows[i];
            }
    return NULL;
}

static const struct option_row *find_letter(const struct option_set *sets, size_t n_sets, char letter, void **ret_into)
{
    for (size_t s = 0; s < n_sets; s++)
        for (size_t i = 0; i < sets[s].n; i++)
            if (letter && sets[s].rows[i].letter == letter) {
                *ret_into = sets[s].into;
                return &sets[s].rows[i];
            }
    return NULL;
}

static enum status unknown(const struct option_set *sets, size_t n_sets, const char *name, size_t len, struct error *err)
{
    const char *names[MAX_NAMES];
    size_t n = 0;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%.*s", (int)len, name);
    for (size_t s = 0; s < n_sets; s++)
        for (size_t i = 0; i < sets[s].n && n < MAX_NAMES; i++)
            names[n++] = sets[s].rows[i].name;
    const char *near = nearest_name(wanted, names, n);
    if (near)
        return FAIL(err, BAD_ARGUMENT, "unknown option --%s: is --%s meant?", wanted, near);
    return FAIL(err, BAD_ARGUMENT, "unknown option --%s: --help lists the options", wanted);
}

static enum status read_whole(const struct option_row *row, const char *text, int64_t *ret, struct error *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (!*text || *end || errno || (double)v < row->min || (double)v > row->max)
        return FAIL(err, BAD_ARGUMENT, "--%s takes a whole number from %.0f to %.0f, not '%.64s'", row->name, row->min, row->max, text);
    *ret = v;
    return ST_OK;
}

static enum status read_decimal(const struct option_row *row, const char *text, double *ret, struct error *err)
{
    char *end;
    double v = strtod(text, &end);
    if (!*text || *end || !isfinite(v) || v < row->min || v > row->max)
        return FAIL(err, BAD_ARGUMENT, "--%s takes a number from %g to %g, not '%.64s'", row->name, row->min, row->max, text);
    *ret = v;
    return ST_OK;
}

static enum status read_size(const struct option_row *row, const char *text, struct size *ret, struct error *err)
{
    char *end;
    errno = 0;
    long long w = strtoll(text, &end, 10), h = 0;
    bool right = end != text && *end == 'x';
    if (right) {
        const char *second = end + 1;
        h = strtoll(second, &end, 10);
        right = end != second && !*end && !errno;
    }
    if (!right)
        return FAIL(err, BAD_ARGUMENT, "--%s takes WIDTHxHEIGHT in pixels, such as 512x768, not '%.64s'", row->name, text);
    if (w % SIZE_STEP || h % SIZE_STEP || (double)w < row->min || (double)h < row->min || (double)w > row->max || (double)h > row->max)
        return FAIL(err, BAD_ARGUMENT, "--%s %.64s: width and height must be multiples of %d from %.0f to %.0f", row->name, text, SIZE_STEP,
                    row->min, row->max);
    *ret = (struct size){true, w, h};
    return ST_OK;
}

static enum status store(const struct option_row *row, void *into, const char *text, struct error *err)
{
    void *at = (char *)into + row->offset;
    switch (row->kind) {
    case OPTION_FLAG: *(bool *)at = true; return ST_OK;
    case OPTION_TEXT: *(const char **)at = text; return ST_OK;
    case OPTION_TEXTS: {
        struct texts *t = at;
        if (t->n == sizeof t->items / sizeof *t->items)
            return FAIL(err, BAD_ARGUMENT, "--%s is given more than %zu times", row->name, t->n);
        t->items[t->n++] = text;
        return ST_OK;
    }
    case OPTION_WHOLE: {
        struct whole *w = at;
        TRY(read_whole(row, text, &w->value, err));
        w->given = true;
        return ST_OK;
    }
    case OPTION_DECIMAL: {
        struct decimal *d = at;
        TRY(read_decimal(row, text, &d->value, err));
        d->given = true;
        return ST_OK;
    }
    case OPTION_SIZE: return read_size(row, text, at, err);
    case OPTION_LATER: break;
    }
    return FAIL(err, NOT_AVAILABLE, "option --%s is not available in this version", row->name);
}

/* value_of finds the value of ROW: what follows '=' or the letter, else the next word. */
static enum status value_of(const struct option_row *row, const char *attached, int argc, char **argv, int *i, const char **ret,
                            struct error *err)
{
    if (!options_takes_value(row->kind)) {
        if (attached && row->kind == OPTION_FLAG)
            return FAIL(err, BAD_ARGUMENT, "--%s takes no value", row->name);
        *ret = NULL;
    } else if (attached) {
        *ret = attached;
    } else if (*i + 1 < argc) {
        *ret = argv[++*i];
    } else {
        return FAIL(err, BAD_ARGUMENT, "--%s lacks its value (%s)", row->name, row->value);
    }
    return ST_OK;
}

static enum status parse_long(const struct option_set *sets, size_t n_sets, int argc, char **argv, int *i, struct error *err)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '='), *text;
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    void *into = NULL;
    const struct option_row *row = find_long(sets, n_sets, name, len, &into);
    if (!row)
        return unknown(sets, n_sets, name, len, err);
    TRY(value_of(row, equals ? equals + 1 : NULL, argc, argv, i, &text, err));
    return store(row, into, text, err);
}

static enum status parse_letters(const struct option_set *sets, size_t n_sets, int argc, char **argv, int *i, struct error *err)
{
    for (const char *at = argv[*i] + 1; *at; at++) {
        void *into = NULL;
        const char *text;
        const struct option_row *row = find_letter(sets, n_sets, *at, &into);
        if (!row)
            return FAIL(err, BAD_ARGUMENT, "unknown option -%c in '%.64s': --help lists the options", *at, argv[*i]);
        bool rest = options_takes_value(row->kind) && at[1];
        TRY(value_of(row, rest ? at + 1 : NULL, argc, argv, i, &text, err));
        TRY(store(row, into, text, err));
        if (options_takes_value(row->kind))
            break;
    }
    return ST_OK;
}

enum status options_parse(const struct option_set *sets, size_t n_sets, int argc, char **argv, char **ret_words, int *ret_n,
                          struct error *err)
{
    int n = 0;
    bool only_words = false;
    for (int i = 0; i < argc; i++) {
        if (only_words || argv[i][0] != '-' || !argv[i][1])
            ret_words[n++] = argv[i];
        else if (strcmp(argv[i], "--") == 0)
            only_words = true;
        else if (argv[i][1] == '-')
            TRY(parse_long(sets, n_sets, argc, argv, &i, err));
        else
            TRY(parse_letters(sets, n_sets, argc, argv, &i, err));
    }
    *ret_n = n;
    return ST_OK;
}

void options_help(const struct option_row *rows, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++) {
        char left[64], letter[8] = "    ";
        if (rows[i].letter)
            snprintf(letter, sizeof letter, "-%c, ", rows[i].letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, rows[i].name, rows[i].value ? " " : "", rows[i].value ? rows[i].value : "");
        buf_printf(out, "  %-28s %s%s\n", left, rows[i].help, rows[i].kind == OPTION_LATER ? " (not available yet)" : "");
    }
}
