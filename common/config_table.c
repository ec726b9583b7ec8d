#include "common/config_table.h"

#define DEFAULT_BOOL(d, lo, hi) .number = (d)
#define DEFAULT_INT(d, lo, hi) .number = (d), .min = (lo), .max = (hi)
#define DEFAULT_FLOAT(d, lo, hi) .number = (d), .min = (lo), .max = (hi)
#define DEFAULT_STRING(d, lo, hi) .text = (d)
#define DEFAULT_ENUM(d, lo, hi) .text = (d), .choices = (lo)
#define DEFAULT_LIST(d, lo, hi) .text = (d)

const struct config_row config_rows[CFG_COUNT] = {
#define CONFIG(key, kind, def, lo, hi, when, words) \
    [CFG_##key] = {.name = #key, .help = words, .type = CONFIG_##kind, .apply = CONFIG_##when, .offset = offsetof(struct config, key), DEFAULT_##kind(def, lo, hi)},
#include "common/config.def"
#undef CONFIG
};
