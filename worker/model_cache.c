#include "worker/model_cache.h"

#include <stdlib.h>
#include <string.h>

#include "worker/catalog.h"

struct entry {
    struct entry *next;          /* most recently used first */
    struct model *model;
    bool pinned;
    char key[128];
};

struct model_cache {
    struct model_cache_args args;
    struct entry *head;
    bool changed;
};

enum status model_cache_new(const struct model_cache_args *a, struct model_cache **ret, struct error *err)
{
    struct model_cache *c = calloc(1, sizeof *c);
    if (!c)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the model cache");
    c->args = *a;
    *ret = c;
    return ST_OK;
}

static void drop(struct model_cache *c, struct entry **link)
{
    struct entry *e = *link;
    *link = e->next;
    model_free(e->model);
    free(e);
    c->changed = true;
}

void model_cache_free(struct model_cache *c)
{
    if (!c)
        return;
    while (c->head)
        drop(c, &c->head);
    free(c);
}

static struct entry *find(struct model_cache *c, const char *key)
{
    for (struct entry **link = &c->head; *link; link = &(*link)->next) {
        struct entry *e = *link;
        if (strcmp(e->key, key) == 0) {
            *link = e->next;
            e->next = c->head;
            return c->head = e;
        }
    }
    return NULL;
}

enum status model_cache_get(struct model_cache *c, const char *key, struct model **ret, struct error *err)
{
    struct entry *e = find(c, key);
    if (!e) {
        char dir[1024];
        TRY(catalog_path(c->args.models_dir, c->args.data, key, dir, sizeof dir, err));
        if (!(e = calloc(1, sizeof *e)))
            return FAIL(err, OUT_OF_MEMORY, "out of memory opening model '%s'", key);
        enum status s = model_open(dir, c->args.backend, c->args.compute, &e->model, err);
        if (s != ST_OK) {
            free(e);
            return s;
        }
        memcpy(e->key, key, strlen(key) + 1);
        e->next = c->head;
        c->head = e;
        c->changed = true;
    }
    e->pinned = true;
    *ret = e->model;
    return ST_OK;
}

static int64_t total_bytes(const struct model_cache *c)
{
    int64_t n = 0;
    for (const struct entry *e = c->head; e; e = e->next)
        n += (int64_t)model_bytes(e->model);
    return n;
}

bool model_cache_unpin(struct model_cache *c)
{
    for (struct entry *e = c->head; e; e = e->next)
        e->pinned = false;
    while (c->head && c->head->next && total_bytes(c) > c->args.max_bytes) {
        struct entry **last = &c->head;
        while ((*last)->next)
            last = &(*last)->next;
        drop(c, last);
    }
    bool changed = c->changed;
    c->changed = false;
    return changed;
}

json_t *model_cache_keys(const struct model_cache *c)
{
    json_t *keys = json_array();
    for (const struct entry *e = c->head; e; e = e->next)
        json_array_append_new(keys, json_string(e->key));
    return keys;
}
