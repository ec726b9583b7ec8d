#include "worker/catalog.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"

static bool is_model(const char *dir)
{
    char path[1024];
    struct stat st;
    snprintf(path, sizeof path, "%s/model_index.json", dir);
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool plain_name(const char *key)
{
    return key[0] && key[0] != '.' && strlen(key) < 128 && !strchr(key, '/');
}

enum status catalog_path(const char *models_dir, const char *data, const char *key, char *ret, size_t size, struct error *err)
{
    if (!plain_name(key))
        return FAIL(err, NO_MODEL, "'%s' cannot be the key of a model: a key is a folder's name", key);
    if (models_dir[0] && snprintf(ret, size, "%s/%s", models_dir, key) < (int)size && is_model(ret))
        return ST_OK;
    if (snprintf(ret, size, "%s/models/%s", data, key) < (int)size && is_model(ret))
        return ST_OK;
    return FAIL(err, NO_MODEL, "no model '%s' in '%s' or '%s/models'", key, models_dir[0] ? models_dir : "(models_dir not set)", data);
}

static json_t *row(const struct model_info *m, bool shipped)
{
    json_t *j = json_pack("{s:s s:s s:s s:s s:s s:s s:I s:i s:b}", "key", m->key, "name", m->name, "path", m->path, "base", m->base, "type", m->type,
                          "hash", m->hash, "bytes", (json_int_t)m->bytes, "sample_size", m->sample_size, "shipped", shipped);
    if (j && m->default_settings)
        json_object_set(j, "default_settings", m->default_settings);
    return j;
}

static bool listed(const json_t *models, const char *key)
{
    size_t i;
    json_t *m;
    json_array_foreach(models, i, m)
        if (strcmp(json_str(m, "key", ""), key) == 0)
            return true;
    return false;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void scan(const char *root, bool shipped, json_t *models, json_t *notes)
{
    struct dirent **names = NULL;
    int n = scandir(root, &names, NULL, by_name);
    char text[1600];
    if (n < 0) {
        snprintf(text, sizeof text, "models folder '%s': %s", root, strerror(errno));
        json_array_append_new(notes, json_string(text));
        return;
    }
    for (int i = 0; i < n; i++) {
        char dir[1024];
        struct model_info info = {0};
        struct error e;
        if (plain_name(names[i]->d_name) && !listed(models, names[i]->d_name)
            && snprintf(dir, sizeof dir, "%s/%s", root, names[i]->d_name) < (int)sizeof dir && is_model(dir)) {
            if (model_identify(dir, &info, &e) == ST_OK) {
                json_array_append_new(models, row(&info, shipped));
                model_info_fini(&info);
            } else {
                snprintf(text, sizeof text, "%s: %s", dir, e.message);
                json_array_append_new(notes, json_string(text));
            }
        }
        free(names[i]);
    }
    free(names);
}

enum status catalog_list(const char *models_dir, const char *data, json_t **ret, struct error *err)
{
    json_t *models = json_array(), *notes = json_array();
    char shipped[1024];
    if (models_dir[0])
        scan(models_dir, false, models, notes);
    snprintf(shipped, sizeof shipped, "%s/models", data);
    scan(shipped, true, models, notes);
    json_t *out = json_pack("{s:o s:o}", "models", models, "notes", notes);
    if (!out)
        return FAIL(err, OUT_OF_MEMORY, "out of memory listing models");
    *ret = out;
    return ST_OK;
}
