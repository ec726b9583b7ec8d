#include "supervisor/models.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"

struct models {
    json_t *list;
    const json_t *fallback;
};

static const json_t *find(const struct models *m, const char *field, const char *value)
{
    size_t i;
    json_t *row;
    json_array_foreach(m->list, i, row)
        if (value[0] && strcmp(json_str(row, field, ""), value) == 0)
            return row;
    return NULL;
}

enum status models_new(const json_t *probe, struct models **ret, struct error *err)
{
    struct models *m = calloc(1, sizeof *m);
    if (!m || !(m->list = json_deep_copy(json_object_get(probe, "models")))) {
        models_free(m);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the list of models");
    }
    m->fallback = find(m, "key", "emoji");
    if (!m->fallback)
        m->fallback = json_array_get(m->list, 0);
    size_t i;
    json_t *row;
    json_array_foreach(m->list, i, row)
        json_object_set_new(row, "default", json_boolean(row == m->fallback));
    *ret = m;
    return ST_OK;
}

void models_free(struct models *m)
{
    if (!m)
        return;
    json_decref(m->list);
    free(m);
}

const json_t *models_list(const struct models *m)
{
    return m->list;
}

static const json_t *by_description(const struct models *m, const json_t *ref)
{
    size_t i;
    json_t *row;
    const char *name = json_str(ref, "name", "");
    json_array_foreach(m->list, i, row)
        if (name[0] && strcmp(json_str(row, "name", ""), name) == 0 && strcmp(json_str(row, "base", ""), json_str(ref, "base", "")) == 0
            && strcmp(json_str(row, "type", ""), json_str(ref, "type", "")) == 0)
            return row;
    return find(m, "name", name);
}

static const json_t *lookup(const struct models *m, const json_t *ref)
{
    const json_t *row = find(m, "key", json_str(ref, "key", ""));
    if (!row)
        row = find(m, "hash", json_str(ref, "hash", ""));
    return row ? row : by_description(m, ref);
}

struct resolving { const struct models *m; json_t *keys; };

static void note_key(json_t *keys, const char *key)
{
    size_t i;
    json_t *k;
    json_array_foreach(keys, i, k)
        if (strcmp(json_string_value(k), key) == 0)
            return;
    json_array_append_new(keys, json_string(key));
}

static enum status resolve_one(void *arg, const char *node_id, const char *node_type, const char *field, const json_t *ref, json_t **ret, struct error *err)
{
    struct resolving *r = arg;
    const json_t *row = json_is_null(ref) ? r->m->fallback : lookup(r->m, ref);
    bool runs = strcmp(node_type, "core_metadata") != 0;    /* metadata only tells of a model */
    if (!row && !runs)
        return ST_OK;
    if (!row && json_is_null(ref))
        return FAIL(err, NO_MODEL, "node '%s': field '%s' names no model and this node has none; set models_dir", node_id, field);
    if (!row)
        return FAIL(err, NO_MODEL, "node '%s': field '%s': no model with key '%s' or name '%s' (base '%s'); 'galley models list' shows what there is",
                    node_id, field, json_str(ref, "key", ""), json_str(ref, "name", ""), json_str(ref, "base", ""));
    if (runs)
        note_key(r->keys, json_str(row, "key", ""));
    json_t *out = json_is_object(ref) ? json_deep_copy(ref) : json_object();
    for (const char *const *k = (const char *const[]){"key", "hash", "name", "base", "type", NULL}; *k; k++)
        json_object_set_new(out, *k, json_string(json_str(row, *k, "")));
    *ret = out;
    return ST_OK;
}

enum status models_resolve(const struct models *m, struct graph *g, json_t **ret_keys, struct error *err)
{
    struct resolving r = {m, json_array()};
    if (!r.keys)
        return FAIL(err, OUT_OF_MEMORY, "out of memory resolving models");
    enum status s = graph_each_model(g, resolve_one, &r, err);
    if (s != ST_OK) {
        json_decref(r.keys);
        return s;
    }
    *ret_keys = r.keys;
    return ST_OK;
}
