#include "golden/golden_files.h"
#include <stdlib.h>
#include <string.h>
#include "worker/engine/safetensors.h"

struct golden_files {
    struct { char *path; struct safetensors *s; } *file;
    size_t n;
};

struct golden_files *golden_files_new(void)
{
    return calloc(1, sizeof(struct golden_files));
}

void golden_files_free(struct golden_files *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++) {
        free(f->file[i].path);
        safetensors_close(f->file[i].s);
    }
    free(f->file);
    free(f);
}

struct safetensors *golden_file(struct golden_files *f, const char *path, struct error *err)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->file[i].path, path) == 0)
            return f->file[i].s;
    void *grown = realloc(f->file, (f->n + 1) * sizeof *f->file);
    if (!grown) {
        FAIL(err, OUT_OF_MEMORY, "no memory to open %s", path);
        return NULL;
    }
    f->file = grown;
    struct safetensors *s = NULL;
    if (safetensors_open(path, &s, err) != ST_OK)
        return NULL;
    char *copy = strdup(path);
    if (!copy) {
        safetensors_close(s);
        FAIL(err, OUT_OF_MEMORY, "no memory to open %s", path);
        return NULL;
    }
    f->file[f->n].path = copy;
    f->file[f->n++].s = s;
    return s;
}
