#include "worker/model_cache.h"

#include <stdlib.h>
#include <string.h>

#include "worker/catalog.h"

enum { MARGIN_MAX = 256 << 20 };

struct entry {
    struct entry *next;          /* most recently used first */
    struct model *model;
    bool pinned;
    char key[128];
};

struct model_cache {
    struct model_cache_args args;
    struct entry *head;
    struct model_room room;
    bool changed, refused;
};

static void drop(struct model_cache *c, struct entry **link)
{
    struct entry *e = *link;
    *link = e->next;
    model_free(e->model);
    free(e);
    c->changed = true;
}

/* ---- room */

/* drop_oldest drops the least recently used model that no item uses; false if there is none. */
static bool drop_oldest(struct model_cache *c)
{
    struct entry **oldest = NULL;
    for (struct entry **link = &c->head; *link; link = &(*link)->next)
        if (!(*link)->pinned)
            oldest = link;
    if (oldest)
        drop(c, oldest);
    return oldest != NULL;
}

/* trim_oldest drops the idle plans of the least recently used model that has any. */
static bool trim_oldest(struct model_cache *c)
{
    struct model *oldest = NULL;
    for (struct entry *e = c->head; e; e = e->next)
        if (model_idle_bytes(e->model))
            oldest = e->model;
    return oldest && model_trim(oldest);
}

static bool free_one(void *self)
{
    struct model_cache *c = self;
    return !c->refused && (trim_oldest(c) || drop_oldest(c));
}

static size_t idle_bytes(const struct model_cache *c)
{
    size_t n = 0;
    for (const struct entry *e = c->head; e; e = e->next)
        n += e->pinned ? model_idle_bytes(e->model) : model_bytes(e->model);
    return n;
}

/* device_memory: of what is free, some is left to the driver and its libraries, which load code when it first runs. */
static enum status device_memory(const struct model_cache *c, struct backend_memory *ret, struct error *err)
{
    TRY(c->args.backend->api->memory(c->args.backend, ret, err));
    size_t margin = ret->total_bytes / 64 < MARGIN_MAX ? ret->total_bytes / 64 : MARGIN_MAX;
    ret->free_bytes = ret->free_bytes > margin ? ret->free_bytes - margin : 0;
    return ST_OK;
}

static enum status refuse(struct model_cache *c, size_t need, size_t possible, size_t total, struct error *err)
{
    c->refused = true;
    return FAIL(err, OUT_OF_MEMORY, "too little device memory: %zu bytes needed, %zu free, of %zu", need, possible, total);
}

/* make_room drops nothing for a need that all of it would not meet. */
static enum status make_room(void *self, size_t need, struct error *err)
{
    struct model_cache *c = self;
    struct backend_memory now;
    size_t most = (size_t)c->args.max_bytes;
    TRY(device_memory(c, &now, err));
    size_t possible = now.free_bytes + idle_bytes(c);
    c->refused = false;
    if (need > possible)
        return refuse(c, need, possible, now.total_bytes, err);
    while ((need > most || now.used_bytes > most - need) && drop_oldest(c))
        TRY(device_memory(c, &now, err));
    while (need > now.free_bytes && free_one(c))
        TRY(device_memory(c, &now, err));
    return need > now.free_bytes ? refuse(c, need, now.free_bytes, now.total_bytes, err) : ST_OK;
}

bool model_cache_refused(const struct model_cache *c)
{
    return c->refused;
}

/* ---- models */

enum status model_cache_new(const struct model_cache_args *a, struct model_cache **ret, struct error *err)
{
    struct model_cache *c = calloc(1, sizeof *c);
    if (!c)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the model cache");
    c->args = *a;
    c->room = (struct model_room){c, make_room, free_one};
    *ret = c;
    return ST_OK;
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
        if (c->args.own_memory)
            model_share(e->model, &c->room);
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
    c->refused = false;
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
