#include "golden/fixture.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/json.h"
#include "worker/backend/half.h"

#define HEADER_SUFFIX ".header.json"

struct tensor_rule { uint64_t hash; double base, scale; };

static struct tensor_rule rule_of(const char *component, const char *name, int ndim, const long long *shape)
{
    struct tensor_rule r = {.hash = 0xcbf29ce484222325u};
    const char *parts[] = {component, name};
    for (int k = 0; k < 2; k++)
        for (const char *c = parts[k]; *c; c++)
            r.hash = (r.hash ^ (uint8_t)*c) * 0x100000001b3u;
    const char *dot = strrchr(name, '.');
    double fan_in = 1;
    for (int i = 1; i < ndim; i++)
        fan_in *= (double)shape[i];
    if (dot && !strcmp(dot, ".bias"))
        r.scale = 0.05;
    else if (strstr(name, "token_embedding"))
        r.scale = 0.05;
    else if (strstr(name, "position_embedding"))
        r.scale = 0.02;
    else if (ndim == 1)
        r = (struct tensor_rule){r.hash, 1, 0.1};
    else
        r.scale = sqrt(3 / fan_in);
    return r;
}

static uint16_t value_at(const struct tensor_rule *r, uint64_t i)
{
    uint64_t z = r->hash + i + 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z = z ^ z >> 31;
    double u = (double)(z >> 40) / 8388608.0 - 1;
    return float_to_half((float)(r->base + r->scale * u));
}

unsigned fixture_value(const char *component, const char *name, int ndim, const long long *shape, unsigned long long i)
{
    struct tensor_rule r = rule_of(component, name, ndim, shape);
    return value_at(&r, i);
}

static enum status write_tensor(FILE *f, const char *component, const char *name, const json_t *j, struct error *err)
{
    const json_t *shape = json_object_get(j, "shape"), *offsets = json_object_get(j, "data_offsets");
    long long dim[8] = {0};
    int ndim = (int)json_array_size(shape);
    if (ndim > 8 || strcmp(json_str(j, "dtype", ""), "F16"))
        return FAIL(err, CORRUPT, "fixture tensor '%s' is not F16 with at most 8 sizes", name);
    for (int i = 0; i < ndim; i++)
        dim[i] = json_integer_value(json_array_get(shape, (size_t)i));
    uint64_t count = (uint64_t)(json_integer_value(json_array_get(offsets, 1)) - json_integer_value(json_array_get(offsets, 0))) / 2;
    struct tensor_rule r = rule_of(component, name, ndim, dim);
    uint16_t chunk[4096];
    for (uint64_t i = 0; i < count;) {
        size_t n = 0;
        for (; n < sizeof chunk / sizeof *chunk && i < count; n++, i++)
            chunk[n] = value_at(&r, i);
        if (fwrite(chunk, sizeof *chunk, n, f) != n)
            return FAIL_ERRNO(err, "cannot write fixture tensor '%s'", name);
    }
    return ST_OK;
}

static enum status write_tensors(FILE *f, const char *component, const json_t *header, const char *text, size_t len, struct error *err)
{
    uint8_t claim[8];
    for (int i = 0; i < 8; i++)
        claim[i] = (uint8_t)(len >> (8 * i));
    if (fwrite(claim, 1, 8, f) != 8 || fwrite(text, 1, len, f) != len)
        return FAIL_ERRNO(err, "cannot write a fixture");
    const char *name;
    json_t *j;
    json_object_foreach ((json_t *)header, name, j)      /* in the order of the file, which is that of the data */
        if (strcmp(name, "__metadata__"))
            TRY(write_tensor(f, component, name, j, err));
    return ST_OK;
}

static enum status read_text(const char *path, char **ret, size_t *ret_len, struct error *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return FAIL_ERRNO(err, "cannot open '%s'", path);
    size_t cap = 1 << 20;
    char *text = malloc(cap);
    size_t n = text ? fread(text, 1, cap, f) : 0;
    fclose(f);
    if (!text || n == cap) {
        free(text);
        return FAIL(err, TOO_LARGE, "'%s' has 1 MiB or more", path);
    }
    *ret = text;
    *ret_len = n;
    return ST_OK;
}

/* write_file makes TO from FROM: a copy, or the weights whose header FROM is. */
static enum status write_file(const char *from, const char *to, const char *component, bool is_header, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    TRY(read_text(from, &text, &len, err));
    FILE *f = fopen(to, "wb");
    json_t *header = is_header ? json_loadb(text, len, 0, NULL) : NULL;
    enum status s = ST_OK;
    if (!f)
        s = FAIL_ERRNO(err, "cannot create '%s'", to);
    else if (is_header && !header)
        s = FAIL(err, CORRUPT, "'%s' is not JSON", from);
    else if (is_header)
        s = write_tensors(f, component, header, text, len, err);
    else if (fwrite(text, 1, len, f) != len)
        s = FAIL_ERRNO(err, "cannot write '%s'", to);
    if (f && fclose(f) != 0 && s == ST_OK)
        s = FAIL_ERRNO(err, "cannot write '%s'", to);
    json_decref(header);
    free(text);
    return s;
}

static enum status make_folder(const char *from, const char *to, const char *component, struct error *err);

static enum status make_entry(const char *from_dir, const char *to_dir, const char *component, const char *name, struct error *err)
{
    char from[PATH_BYTES], to[PATH_BYTES], part[64];
    struct stat st;
    TRY(paths_join(from, sizeof from, from_dir, name, err));
    TRY(paths_join(to, sizeof to, to_dir, name, err));
    if (stat(from, &st) != 0)
        return FAIL_ERRNO(err, "cannot stat '%s'", from);
    snprintf(part, sizeof part, "%s.", name);
    if (S_ISDIR(st.st_mode))
        return make_folder(from, to, part, err);
    char *suffix = strstr(to, HEADER_SUFFIX);
    if (suffix)
        snprintf(suffix, sizeof HEADER_SUFFIX + 1, ".safetensors");
    return write_file(from, to, component, suffix != NULL, err);
}

static enum status make_folder(const char *from, const char *to, const char *component, struct error *err)
{
    DIR *d = opendir(from);
    if (!d)
        return FAIL_ERRNO(err, "cannot read '%s'", from);
    enum status s = mkdir(to, 0755) == 0 || errno == EEXIST ? ST_OK : FAIL_ERRNO(err, "cannot create '%s'", to);
    struct dirent *e;
    while (s == ST_OK && (e = readdir(d)))
        if (e->d_name[0] != '.')
            s = make_entry(from, to, component, e->d_name, err);
    closedir(d);
    return s;
}

static bool is_there(const char *dir)
{
    char path[PATH_BYTES];
    return paths_join(path, sizeof path, dir, "model_index.json", NULL) == ST_OK && access(path, R_OK) == 0;
}

enum status fixture_path(const char *name, char ret[PATH_BYTES], struct error *err)
{
    char source[PATH_BYTES], made[PATH_BYTES], fresh[PATH_BYTES], command[PATH_BYTES + 16];
    if (!strcmp(name, "emoji"))
        return paths_join(ret, PATH_BYTES, SHIPPED_MODELS, name, err);
    TRY(paths_join(source, sizeof source, FIXTURE_SOURCES, name, err));
    TRY(paths_join(made, sizeof made, FIXTURE_MADE, name, err));
    if (strchr(name, '/') || !is_there(source))
        return FAIL(err, NOT_AVAILABLE, "no fixture '%s'", name);
    if (!is_there(made)) {
        if (mkdir(FIXTURE_MADE, 0755) != 0 && errno != EEXIST)
            return FAIL_ERRNO(err, "cannot create '%s'", FIXTURE_MADE);
        snprintf(fresh, sizeof fresh, "%s/.%s-XXXXXX", FIXTURE_MADE, name);
        if (!mkdtemp(fresh))
            return FAIL_ERRNO(err, "cannot create '%s'", fresh);
        enum status s = make_folder(source, fresh, "", err);
        if (s != ST_OK || rename(fresh, made) != 0) {    /* somebody was faster, or the disk is full */
            snprintf(command, sizeof command, "rm -rf '%s'", fresh);
            if (system(command) != 0 || s != ST_OK || !is_there(made))
                return s != ST_OK ? s : FAIL(err, IO, "cannot make fixture '%s'", made);
        }
    }
    snprintf(ret, PATH_BYTES, "%s", made);
    return ST_OK;
}
