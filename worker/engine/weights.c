#include "worker/engine/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/json.h"
#include "common/paths.h"
#include "worker/engine/safetensors.h"

enum { SHARDS_MAX = 64, INDEX_MAX_BYTES = 16 << 20 };

struct shard {
    struct safetensors *file;
    struct bweight **made;       /* one per entry of the file */
    char name[128];
};

struct weights {
    struct backend *backend;
    struct shard shards[SHARDS_MAX];
    int n_shards;
    size_t used;
    char dir[PATH_BYTES];
};

void weights_free(struct weights *w)
{
    if (!w)
        return;
    for (int s = 0; s < w->n_shards; s++) {
        struct shard *sh = &w->shards[s];
        if (sh->made)
            for (size_t i = 0; i < safetensors_count(sh->file); i++)
                w->backend->api->weight_free(w->backend, sh->made[i]);
        free(sh->made);
        safetensors_close(sh->file);
    }
    free(w);
}

static enum status add_shard(struct weights *w, const char *name, struct error *err)
{
    for (int s = 0; s < w->n_shards; s++)
        if (!strcmp(w->shards[s].name, name))
            return ST_OK;
    char path[PATH_BYTES];
    if (w->n_shards == SHARDS_MAX)
        return FAIL(err, TOO_LARGE, "%s: more than %d weight files", w->dir, SHARDS_MAX);
    if (strchr(name, '/') || strlen(name) >= sizeof w->shards[0].name)
        return FAIL(err, BAD_MODEL, "%s: '%.60s' is not a file name of this folder", w->dir, name);
    TRY(paths_join(path, sizeof path, w->dir, name, err));
    struct shard *sh = &w->shards[w->n_shards];
    TRY(safetensors_open(path, &sh->file, err));
    w->n_shards++;
    snprintf(sh->name, sizeof sh->name, "%s", name);
    sh->made = calloc(safetensors_count(sh->file) + 1, sizeof *sh->made);
    return sh->made ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for the weights of '%s'", path);
}

static enum status add_index(struct weights *w, const char *name, struct error *err)
{
    char path[PATH_BYTES];
    TRY(paths_join(path, sizeof path, w->dir, name, err));
    AUTO_JSON *index = NULL;
    TRY(json_read_file(path, INDEX_MAX_BYTES, &index, err));
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map))
        return FAIL(err, BAD_MODEL, "%s has no weight_map", path);
    const char *tensor;
    json_t *file;
    json_object_foreach (map, tensor, file) {
        if (!json_is_string(file))
            return FAIL(err, BAD_MODEL, "%s: weight_map of '%.80s' is not a file name", path, tensor);
        TRY(add_shard(w, json_string_value(file), err));
    }
    return ST_OK;
}

static bool exists(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    return paths_join(path, sizeof path, dir, name, NULL) == ST_OK && access(path, R_OK) == 0;
}

static enum status add_files(struct weights *w, const char *stem, struct error *err)
{
    static const char *const PLAIN[] = {"%s.safetensors", "%s.fp16.safetensors"};
    static const char *const INDEX[] = {"%s.safetensors.index.json", "%s.safetensors.index.fp16.json"};
    char name[128];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, i ? PLAIN[1] : PLAIN[0], stem);
        if (exists(w->dir, name))
            return add_shard(w, name, err);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, i ? INDEX[1] : INDEX[0], stem);
        if (exists(w->dir, name))
            return add_index(w, name, err);
    }
    snprintf(name, sizeof name, "%s.bin", stem);
    return FAIL(err, BAD_MODEL, "%s has no %s.safetensors%s", w->dir, stem,
                exists(w->dir, name) ? "; its .bin weights are pickles, which are never read: convert them to safetensors" : "");
}

enum status weights_open(const char *dir, const char *stem, struct backend *backend, struct weights **ret, struct error *err)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w)
        return FAIL(err, OUT_OF_MEMORY, "out of memory opening '%s'", dir);
    w->backend = backend;
    snprintf(w->dir, sizeof w->dir, "%s", dir);
    enum status s = add_files(w, stem, err);
    if (s != ST_OK) {
        weights_free(w);
        return s;
    }
    *ret = w;
    return ST_OK;
}

static const struct st_entry *find(const struct weights *w, const char *name, int *ret_shard)
{
    for (int s = 0; s < w->n_shards; s++) {
        const struct st_entry *e = safetensors_find(w->shards[s].file, name);
        if (e) {
            *ret_shard = s;
            return e;
        }
    }
    return NULL;
}

bool weights_has(const struct weights *w, const char *name)
{
    int shard;
    return find(w, name, &shard) != NULL;
}

int64_t weights_dim(const struct weights *w, const char *name, int i)
{
    int shard;
    const struct st_entry *e = find(w, name, &shard);
    return e && i < e->ndim ? e->shape[i] : 0;
}

size_t weights_used(const struct weights *w)
{
    return w->used;
}

static void put_shape(struct buf *out, int ndim, const int64_t *shape)
{
    buf_putc(out, '[');
    for (int i = 0; i < ndim; i++)
        buf_printf(out, "%s%lld", i ? ", " : "", (long long)shape[i]);
    buf_putc(out, ']');
}

static enum status find_checked(const struct weights *w, const char *name, int ndim, const int64_t *shape, const struct st_entry **ret,
                                int *ret_shard, struct error *err)
{
    const struct st_entry *e = find(w, name, ret_shard);
    if (!e)
        return FAIL(err, BAD_MODEL, "%s: tensor '%s' is missing", w->dir, name);
    bool same = e->ndim >= ndim && e->ndim <= 4;
    for (int i = 0; same && i < e->ndim; i++)
        same = e->shape[i] == (i < ndim ? shape[i] : 1);
    if (!same) {
        AUTO_BUF text = BUF_INIT;
        buf_puts(&text, "has shape ");
        put_shape(&text, e->ndim, e->shape);
        buf_puts(&text, ", the configuration needs ");
        put_shape(&text, ndim, shape);
        return FAIL(err, BAD_MODEL, "%s: tensor '%s' %s", w->dir, name, buf_ok(&text) ? text.data : "has another shape");
    }
    if (e->dtype != DT_F32 && e->dtype != DT_F16 && e->dtype != DT_BF16)
        return FAIL(err, BAD_MODEL, "%s: tensor '%s' has type %s; weights are F32, F16 or BF16", w->dir, name, e->raw_dtype);
    *ret = e;
    return ST_OK;
}

enum status weights_check(const struct weights *w, const char *name, int ndim, const int64_t *shape, struct error *err)
{
    const struct st_entry *e;
    int shard;
    return find_checked(w, name, ndim, shape, &e, &shard, err);
}

enum status weights_get(struct weights *w, const char *name, int ndim, const int64_t *shape, const struct bweight **ret, struct error *err)
{
    const struct st_entry *e;
    int shard;
    TRY(find_checked(w, name, ndim, shape, &e, &shard, err));
    struct shard *sh = &w->shards[shard];
    struct bweight **slot = &sh->made[e - safetensors_at(sh->file, 0)];
    if (!*slot) {
        struct weight_source source = {.data = e->data, .dtype = e->dtype, .ndim = e->ndim};
        for (int i = 0; i < e->ndim; i++)
            source.shape[i] = e->shape[i];
        TRY(w->backend->api->weight_new(w->backend, &source, slot, err));
        w->used += e->bytes / dtype_bytes(e->dtype);
    }
    *ret = *slot;
    return ST_OK;
}
