#include "client/model_choice.h"

#include <string.h>

#include "common/buf.h"
#include "common/json.h"

json_t *model_reference(const json_t *row)
{
    return json_pack("{s:s s:s s:s s:s s:s}", "key", json_str(row, "key", ""), "hash", json_str(row, "hash", ""), "name",
                     json_str(row, "name", ""), "base", json_str(row, "base", ""), "type", json_str(row, "type", "main"));
}

enum status model_choose(const json_t *models, const char *name, const json_t **ret, struct error *err)
{
    size_t i;
    json_t *row;
    AUTO_BUF names = BUF_INIT;
    const json_t *first = NULL;
    json_array_foreach (json_object_get(models, "models"), i, row) {
        if (strcmp(json_str(row, "type", "main"), "main") != 0)
            continue;
        if (name ? strcmp(json_str(row, "name", ""), name) == 0 || strcmp(json_str(row, "key", ""), name) == 0
                 : json_flag(row, "default", false)) {
            *ret = row;
            return ST_OK;
        }
        first = first ? first : row;
        buf_printf(&names, "%s%s", names.len ? ", " : "", json_str(row, "name", ""));
    }
    if (!name && first) {
        *ret = first;
        return ST_OK;
    }
    if (!name)
        return FAIL(err, NO_MODEL, "the node has no model: 'galley doctor' says where it looks");
    return FAIL(err, NO_MODEL, "--model %.128s: the node has no such model; it has: %.512s", name, names.data ? names.data : "none");
}
