/* The values of a configuration: lists, copies, comparisons, defaults. */
#include <stdlib.h>
#include <string.h>

#include "common/config_table.h"

void strlist_add(struct strlist *l, const char *s)
{
    char *copy = strdup(s);
    char **items = copy ? realloc(l->items, (l->n + 1) * sizeof *items) : NULL;
    if (!items) {
        free(copy);
        return;
    }
    l->items = items;
    l->items[l->n++] = copy;
}

void strlist_free(struct strlist *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    *l = (struct strlist){0};
}

bool strlist_copy(const struct strlist *from, struct strlist *ret)
{
    struct strlist l = {0};
    for (size_t i = 0; i < from->n; i++)
        strlist_add(&l, from->items[i]);
    if (l.n != from->n) {
        strlist_free(&l);
        return false;
    }
    *ret = l;
    return true;
}

static bool strlist_equal(const struct strlist *a, const struct strlist *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    return true;
}

static bool has_text(const struct config_row *row)
{
    return row->type == CONFIG_STRING || row->type == CONFIG_ENUM;
}

void config_member_free(struct config *c, const struct config_row *row)
{
    if (has_text(row))
        free(*(char **)config_member(c, row));
    else if (row->type == CONFIG_LIST)
        strlist_free(config_member(c, row));
}

bool config_member_copy(struct config *to, const struct config *from, const struct config_row *row)
{
    void *target = config_member(to, row);
    const void *source = config_member(from, row);
    char *text;
    struct strlist list;
    switch (row->type) {
    case CONFIG_BOOL: *(bool *)target = *(const bool *)source; return true;
    case CONFIG_INT: *(int64_t *)target = *(const int64_t *)source; return true;
    case CONFIG_FLOAT: *(double *)target = *(const double *)source; return true;
    case CONFIG_STRING:
    case CONFIG_ENUM:
        if (!(text = strdup(*(char *const *)source)))
            return false;
        config_member_free(to, row);
        *(char **)target = text;
        return true;
    case CONFIG_LIST:
        if (!strlist_copy(source, &list))
            return false;
        config_member_free(to, row);
        *(struct strlist *)target = list;
        return true;
    }
    return false;
}

bool config_member_equal(const struct config *a, const struct config *b, const struct config_row *row)
{
    const void *x = config_member(a, row), *y = config_member(b, row);
    switch (row->type) {
    case CONFIG_BOOL: return *(const bool *)x == *(const bool *)y;
    case CONFIG_INT: return *(const int64_t *)x == *(const int64_t *)y;
    case CONFIG_FLOAT: return *(const double *)x == *(const double *)y;
    case CONFIG_STRING:
    case CONFIG_ENUM: return strcmp(*(char *const *)x, *(char *const *)y) == 0;
    case CONFIG_LIST: return strlist_equal(x, y);
    }
    return false;
}

bool config_member_default(struct config *c, const struct config_row *row)
{
    void *target = config_member(c, row);
    char *text;
    struct strlist list = {0};
    switch (row->type) {
    case CONFIG_BOOL: *(bool *)target = row->number != 0; return true;
    case CONFIG_INT: *(int64_t *)target = (int64_t)row->number; return true;
    case CONFIG_FLOAT: *(double *)target = row->number; return true;
    case CONFIG_STRING:
    case CONFIG_ENUM:
        if (!(text = strdup(row->text)))
            return false;
        config_member_free(c, row);
        *(char **)target = text;
        return true;
    case CONFIG_LIST:
        strlist_add(&list, row->text);
        if (!list.n)
            return false;
        config_member_free(c, row);
        *(struct strlist *)target = list;
        return true;
    }
    return false;
}
