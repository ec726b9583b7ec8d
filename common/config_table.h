/* Internal to config*.c: the rows of config.def as data. */
#pragma once
#include <stddef.h>
#include "common/config.h"

enum config_type { CONFIG_BOOL, CONFIG_INT, CONFIG_FLOAT, CONFIG_STRING, CONFIG_ENUM, CONFIG_LIST };
enum config_apply { CONFIG_RESTART, CONFIG_RELOAD };

struct config_row {
    const char *name, *help;
    enum config_type type;
    enum config_apply apply;
    size_t offset;               /* of the member in struct config */
    double number;               /* BOOL, INT, FLOAT: default */
    double min, max;             /* INT, FLOAT */
    const char *text;            /* STRING, ENUM, LIST: default */
    const char *choices;         /* ENUM: "a|b|c" */
};

extern const struct config_row config_rows[CFG_COUNT];

/* config_member returns where C keeps the value of ROW: a bool *, int64_t *, double *, char ** or struct strlist *. */
static inline void *config_member(const struct config *c, const struct config_row *row)
{
    return (char *)c + row->offset;
}

/* config_find_row returns the row of KEY, NULL if there is none. */
const struct config_row *config_find_row(const char *key);

/* Values, in config_value.c. Those that return a bool return false, nothing changed, when out of memory. */
void config_member_free(struct config *c, const struct config_row *row);
bool config_member_copy(struct config *to, const struct config *from, const struct config_row *row);
bool config_member_equal(const struct config *a, const struct config *b, const struct config_row *row);
/* config_member_default puts the built-in value in place. */
bool config_member_default(struct config *c, const struct config_row *row);
bool strlist_copy(const struct strlist *from, struct strlist *ret);

/* YAML, in config_yaml.c. */
/* config_yaml_file puts the LEN bytes of TEXT, a document of "key: value" lines read from PATH, over C. On failure C may be changed in part. */
NODISCARD enum status config_yaml_file(struct config *c, const char *path, const char *text, size_t len, struct error *err);
/* config_yaml_value puts one value over C; NAME says in messages where it came from. */
NODISCARD enum status config_yaml_value(struct config *c, const char *key, const char *text, const char *name, enum config_origin origin, struct error *err);
