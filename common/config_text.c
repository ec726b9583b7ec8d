/* What is made from the table of configuration keys: JSON and the example file. */
#include <string.h>

#include "common/config_table.h"

const char *config_origin_name(enum config_origin o)
{
    static const char *const names[] = {[CONFIG_BUILT_IN] = "built-in", [CONFIG_FILE] = "file", [CONFIG_ENVIRONMENT] = "environment", [CONFIG_OPTION] = "option"};
    return names[o];
}

static json_t *list_json(const struct strlist *l)
{
    json_t *array = json_array();
    for (size_t i = 0; i < l->n; i++)
        json_array_append_new(array, json_string(l->items[i]));
    return array;
}

static json_t *value_json(const struct config *c, const struct config_row *row)
{
    const void *v = config_member(c, row);
    switch (row->type) {
    case CONFIG_BOOL: return json_boolean(*(const bool *)v);
    case CONFIG_INT: return json_integer(*(const int64_t *)v);
    case CONFIG_FLOAT: return json_real(*(const double *)v);
    case CONFIG_STRING:
    case CONFIG_ENUM: return json_string(*(char *const *)v);
    case CONFIG_LIST: return list_json(v);
    }
    return NULL;
}

static json_t *default_json(const struct config_row *row)
{
    switch (row->type) {
    case CONFIG_BOOL: return json_boolean(row->number != 0);
    case CONFIG_INT: return json_integer((json_int_t)row->number);
    case CONFIG_FLOAT: return json_real(row->number);
    case CONFIG_STRING:
    case CONFIG_ENUM: return json_string(row->text);
    case CONFIG_LIST: return json_pack("[s]", row->text);
    }
    return NULL;
}

static json_t *choices_json(const char *choices)
{
    json_t *array = json_array();
    for (const char *p = choices; ; p++) {
        size_t n = strcspn(p, "|");
        json_array_append_new(array, json_stringn(p, n));
        p += n;
        if (!*p)
            return array;
    }
}

json_t *config_json(const struct config *c)
{
    json_t *all = json_object();
    for (size_t i = 0; i < CFG_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        json_t *one = json_object();
        json_object_set_new(one, "value", value_json(c, row));
        json_object_set_new(one, "origin", json_string(config_origin_name(c->origin[i])));
        json_object_set_new(one, "default", default_json(row));
        json_object_set_new(one, "help", json_string(row->help));
        json_object_set_new(one, "apply", json_string(row->apply == CONFIG_RELOAD ? "reload" : "restart"));
        if (row->type == CONFIG_INT) {
            json_object_set_new(one, "min", json_integer((json_int_t)row->min));
            json_object_set_new(one, "max", json_integer((json_int_t)row->max));
        } else if (row->type == CONFIG_FLOAT) {
            json_object_set_new(one, "min", json_real(row->min));
            json_object_set_new(one, "max", json_real(row->max));
        } else if (row->type == CONFIG_ENUM) {
            json_object_set_new(one, "values", choices_json(row->choices));
        }
        json_object_set_new(all, row->name, one);
    }
    return all;
}

/* put_wrapped writes TEXT as comment lines of about 100 bytes. */
static void put_wrapped(struct buf *out, const char *text)
{
    size_t column = 0;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column && column + n > 100) {
            buf_putc(out, '\n');
            column = 0;
        }
        buf_puts(out, column ? " " : "# ");
        buf_put(out, text, n);
        column += n + 1;
        text += n + (text[n] == ' ');
    }
    buf_putc(out, '\n');
}

static void put_default(struct buf *out, const struct config_row *row)
{
    switch (row->type) {
    case CONFIG_BOOL: buf_puts(out, row->number != 0 ? "true" : "false"); break;
    case CONFIG_INT: buf_printf(out, "%lld", (long long)row->number); break;
    case CONFIG_FLOAT: buf_printf(out, "%.10g", row->number); break;
    default: buf_puts(out, row->text[0] ? row->text : "\"\""); break;
    }
}

void config_example(struct buf *out)
{
    buf_puts(out, "# Configuration of galley: every key with its built-in value. Order of precedence: built-in, this file,\n"
                  "# the environment (GALLEY_ and the key in capitals, the value as YAML), options of the command.\n"
                  "# An invokeai.yaml may be given as it is: known keys apply, the others are listed once as ignored.\n"
                  "# Keys marked (reload) are taken over on HUP or the reload command; the others at the next start.\n");
    for (size_t i = 0; i < CFG_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        buf_putc(out, '\n');
        put_wrapped(out, row->help);
        if (row->type == CONFIG_INT || row->type == CONFIG_FLOAT)
            buf_printf(out, "# From %.10g to %.10g.%s\n", row->min, row->max, row->apply == CONFIG_RELOAD ? " (reload)" : "");
        else if (row->type == CONFIG_ENUM)
            buf_printf(out, "# One of: %s.%s\n", row->choices, row->apply == CONFIG_RELOAD ? " (reload)" : "");
        else if (row->apply == CONFIG_RELOAD)
            buf_puts(out, "# (reload)\n");
        buf_printf(out, "# %s: ", row->name);
        put_default(out, row);
        buf_putc(out, '\n');
    }
}
