/* Configuration: built-in < file < GALLEY_* environment < option, every key from config.def. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/error.h"

struct strlist { char **items; size_t n; };

#define CONFIG_CTYPE_BOOL bool
#define CONFIG_CTYPE_INT int64_t
#define CONFIG_CTYPE_FLOAT double
#define CONFIG_CTYPE_STRING char *
#define CONFIG_CTYPE_ENUM char *
#define CONFIG_CTYPE_LIST struct strlist

enum config_key {
#define CONFIG(name, type, def, min, max, apply, help) CFG_##name,
#include "common/config.def"
#undef CONFIG
    CFG_COUNT
};
enum config_origin { CONFIG_BUILT_IN, CONFIG_FILE, CONFIG_ENVIRONMENT, CONFIG_OPTION };

struct config {
#define CONFIG(name, type, def, min, max, apply, help) CONFIG_CTYPE_##type name;
#include "common/config.def"
#undef CONFIG
    enum config_origin origin[CFG_COUNT];
    char *file;                  /* the file that was read, NULL if none */
    struct strlist ignored;      /* keys of InvokeAI that do not apply here, for one warning */
    struct strlist warnings;     /* unknown GALLEY_* variables: never fatal */
};

/* config_new returns the built-in values. Free with config_free. */
NODISCARD enum status config_new(struct config **ret, struct error *err);
void config_free(struct config *c);
/* config_read_file puts a YAML file (at most 1 MiB) over C. An unknown key is BAD_CONFIG with the nearest known name, unless it is a key
 * of InvokeAI's (then it is listed in IGNORED); a bad value names key, value, bounds, line. On failure C is unchanged. */
NODISCARD enum status config_read_file(struct config *c, const char *path, struct error *err);
/* config_read_env puts GALLEY_<KEY> variables over C, values read as YAML. Names that are not keys but the program's own
 * (GALLEY_HOME, GALLEY_DATA, GALLEY_CPU_ISA) are skipped, others warned about once in WARNINGS. */
NODISCARD enum status config_read_env(struct config *c, char *const *env, struct error *err);
/* config_set puts one value, text read as YAML, over C. */
NODISCARD enum status config_set(struct config *c, const char *key, const char *text, enum config_origin origin, struct error *err);
/* config_load is what a program does: built-in, FILE if not NULL else the default file if it exists, environment. */
NODISCARD enum status config_load(const char *file, const char *default_file, struct config **ret, struct error *err);
/* config_reload copies the RELOAD keys of FRESH into C, but for those that an option of the command line set; names of RESTART keys that differ are appended to RET_NEED_RESTART (may be NULL). */
NODISCARD enum status config_reload(struct config *c, const struct config *fresh, struct strlist *ret_need_restart, struct error *err);
/* config_json returns {key: {value, origin, default, help, apply, min?, max?, values?}} (caller decrefs). */
json_t *config_json(const struct config *c);
/* config_example writes the commented example file (deploy/galley.yaml). */
void config_example(struct buf *out);
const char *config_origin_name(enum config_origin o);
/* strlist_add appends a copy of S; out of memory it leaves L as it is. */
void strlist_add(struct strlist *l, const char *s);
void strlist_free(struct strlist *l);
