/* Texts to token ids, over the vocabularies that are shipped or stored beside the cases. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/json.h"
#include "common/paths.h"
#include "golden/golden.h"
#include "worker/engine/tokenizer.h"

/* A vocabulary is a folder beside the cases, or one of those the program ships. */
static enum golden_result open_vocabulary(struct golden_case *c, const char *name, struct tokenizer **ret)
{
    static char opened[64];          /* cases come in runs over one vocabulary */
    static struct tokenizer *kept;
    if (kept && strcmp(opened, name) == 0) {
        *ret = kept;
        return GOLDEN_PASS;
    }
    char data[PATH_BYTES], path[PATH_BYTES + 96];
    struct error err;
    snprintf(path, sizeof path, "%s/%s/vocab.json", c->folder, name);
    if (access(path, R_OK) == 0)
        snprintf(path, sizeof path, "%s/%s", c->folder, name);
    else if (paths_data(data, &err) == ST_OK)
        snprintf(path, sizeof path, "%s/models/tokenizers/%s", data, name);
    else
        return golden_status(c, ST_IO, &err);
    struct tokenizer *t = NULL;
    GOLDEN_TRY(golden_status(c, tokenizer_open(path, &t, &err), &err));
    tokenizer_free(kept);
    kept = *ret = t;
    snprintf(opened, sizeof opened, "%s", name);
    return GOLDEN_PASS;
}

/* The whole row: marks around the text, cut and padded where the case says so. */
static size_t frame(const struct golden_case *c, const struct tokenizer *t, const int32_t *ids, size_t n, int32_t *row)
{
    size_t size = (size_t)json_int(c->inputs, "pad_to", 0), at = 0;
    if (json_flag(c->inputs, "truncate", false) && size >= 2 && n > size - 2)
        n = size - 2;
    row[at++] = tokenizer_bos(t);
    for (size_t i = 0; i < n; i++)
        row[at++] = ids[i];
    row[at++] = tokenizer_eos(t);
    int32_t pad = strcmp(json_str(c->inputs, "pad_token", ""), "!") == 0 ? 0 : tokenizer_eos(t);
    while (at < size)
        row[at++] = pad;
    return at;
}

enum golden_result kind_tokenizer(struct golden_case *c)
{
    struct tokenizer *t = NULL;
    const json_t *text = json_object_get(c->inputs, "text"), *want = json_object_get(c->json, "ids");
    if (!json_is_string(text) || !json_is_array(want))
        return golden_fail(c, "the case has no text or no ids");
    GOLDEN_TRY(open_vocabulary(c, json_str(c->inputs, "vocabulary", "clip"), &t));
    struct error err;
    int32_t *ids = NULL;
    size_t n = 0;
    GOLDEN_TRY(golden_status(c, tokenizer_encode_bytes(t, json_string_value(text), json_string_length(text), &ids, &n, &err), &err));
    int32_t *row = arena_alloc(c->arena, sizeof *row * (n + 2 + (size_t)json_int(c->inputs, "pad_to", 0)));
    size_t len = row ? frame(c, t, ids, n, row) : 0;
    free(ids);
    if (len != json_array_size(want))
        return golden_fail(c, "%zu ids, expected %zu", len, json_array_size(want));
    for (size_t i = 0; i < len; i++)
        if (row[i] != json_integer_value(json_array_get(want, i)))
            return golden_fail(c, "id %zu is %d, expected %lld", i, row[i], (long long)json_integer_value(json_array_get(want, i)));
    return GOLDEN_PASS;
}
