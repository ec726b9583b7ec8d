#include "client/item_args.h"

#include <errno.h>
#include <stdlib.h>

enum status item_id_read(const char *word, int64_t *ret, struct error *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(word, &end, 10);
    if (!*word || *end || errno || v < 1 || v > 9007199254740991)
        return FAIL(err, BAD_ARGUMENT, "'%.64s' is no item id: item ids are whole numbers from 1, 'galley queue list' shows them", word);
    *ret = v;
    return ST_OK;
}

enum status item_ids_read(char *const *words, int n, json_t **ret, struct error *err)
{
    json_t *ids = json_array();
    for (int i = 0; i < n; i++) {
        int64_t id;
        enum status s = item_id_read(words[i], &id, err);
        if (s != ST_OK) {
            json_decref(ids);
            return s;
        }
        json_array_append_new(ids, json_integer(id));
    }
    *ret = json_pack("{s:o}", "item_ids", ids);
    return ST_OK;
}
