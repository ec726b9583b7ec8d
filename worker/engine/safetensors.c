#include "worker/engine/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/json.h"

enum { HEADER_MAX_BYTES = 100 * 1000 * 1000, TENSORS_MAX = 200000, NAME_MAX_BYTES = 512 };

/* The format's element types; those with a dtype of ours can be weights. */
static const struct { const char *name; size_t bytes; enum dtype dtype; } TYPES[] = {
    {"F32", 4, DT_F32}, {"F16", 2, DT_F16}, {"BF16", 2, DT_BF16}, {"U8", 1, DT_U8}, {"I32", 4, DT_I32},
    {"F64", 8, DT_COUNT}, {"I64", 8, DT_COUNT}, {"U64", 8, DT_COUNT}, {"U32", 4, DT_COUNT}, {"I16", 2, DT_COUNT},
    {"U16", 2, DT_COUNT}, {"I8", 1, DT_COUNT}, {"BOOL", 1, DT_COUNT}, {"F8_E4M3", 1, DT_COUNT}, {"F8_E5M2", 1, DT_COUNT},
};

struct safetensors {
    void *map;
    size_t map_bytes;
    json_t *header;              /* owns the names */
    struct st_entry *entries;    /* sorted by name */
    size_t n;
    void **copies;               /* data that lay misaligned in the file; one per entry, NULL mostly */
};

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    if (s->copies)
        for (size_t i = 0; i < s->n; i++)
            free(s->copies[i]);
    free(s->copies);
    free(s->entries);
    json_decref(s->header);
    if (s->map)
        munmap(s->map, s->map_bytes);
    free(s);
}

static enum status map_file(struct safetensors *s, const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot open '%s'", path);
    struct stat st;
    enum status status = ST_OK;
    if (fstat(fd, &st) != 0) {
        status = FAIL_ERRNO(err, "cannot stat '%s'", path);
    } else if (!S_ISREG(st.st_mode)) {
        status = FAIL(err, BAD_MODEL, "'%s' is not a regular file", path);
    } else if (st.st_size < 10) {
        status = FAIL(err, BAD_MODEL, "'%s' has %lld bytes; a safetensors file has at least 10", path, (long long)st.st_size);
    } else {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            status = FAIL_ERRNO(err, "cannot map '%s'", path);
        } else {
            s->map = map;
            s->map_bytes = (size_t)st.st_size;
        }
    }
    close(fd);
    return status;
}

static enum status read_shape(struct st_entry *e, const json_t *shape, size_t element_bytes, size_t *ret_bytes, struct error *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > 8)
        return FAIL(err, BAD_MODEL, "tensor '%s': shape is not a list of at most 8 sizes", e->name);
    size_t bytes = element_bytes, i;
    const json_t *v;
    e->ndim = (int)json_array_size(shape);
    json_array_foreach (shape, i, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return FAIL(err, BAD_MODEL, "tensor '%s': shape entry %zu is not a size", e->name, i);
        e->shape[i] = json_integer_value(v);
        if (__builtin_mul_overflow(bytes, (size_t)e->shape[i], &bytes))
            return FAIL(err, BAD_MODEL, "tensor '%s': its shape is larger than any memory", e->name);
    }
    *ret_bytes = bytes;
    return ST_OK;
}

/* read_entry fills E but for data, which it leaves as the begin offset in RET_BEGIN. */
static enum status read_entry(struct st_entry *e, const json_t *j, size_t data_bytes, size_t *ret_begin, struct error *err)
{
    if (strlen(e->name) > NAME_MAX_BYTES)
        return FAIL(err, BAD_MODEL, "tensor '%.40s...': its name has more than %d bytes", e->name, NAME_MAX_BYTES);
    const char *type = json_str(j, "dtype", NULL);
    if (!type)
        return FAIL(err, BAD_MODEL, "tensor '%s': dtype is missing", e->name);
    size_t t = 0;
    while (t < sizeof TYPES / sizeof *TYPES && strcmp(TYPES[t].name, type))
        t++;
    if (t == sizeof TYPES / sizeof *TYPES)
        return FAIL(err, BAD_MODEL, "tensor '%s': unknown dtype '%.16s'", e->name, type);
    e->raw_dtype = TYPES[t].name;
    e->dtype = TYPES[t].dtype;
    size_t bytes = 0;
    TRY(read_shape(e, json_object_get(j, "shape"), TYPES[t].bytes, &bytes, err));
    const json_t *offsets = json_object_get(j, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) || json_integer_value(begin) < 0 ||
        json_integer_value(end) < json_integer_value(begin))
        return FAIL(err, BAD_MODEL, "tensor '%s': data_offsets is not [begin, end]", e->name);
    size_t b = (size_t)json_integer_value(begin), z = (size_t)json_integer_value(end);
    if (z > data_bytes)
        return FAIL(err, BAD_MODEL, "tensor '%s' ends at byte %zu, the file's data at %zu: the file is cut off or damaged", e->name, z, data_bytes);
    if (z - b != bytes)
        return FAIL(err, BAD_MODEL, "tensor '%s': shape and dtype need %zu bytes, data_offsets give %zu", e->name, bytes, z - b);
    e->bytes = bytes;
    *ret_begin = b;
    return ST_OK;
}

struct span { size_t begin, end; const char *name; };

static int span_order(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* check_cover demands that the tensors fill the data area without overlap or hole. */
static enum status check_cover(struct span *spans, size_t n, size_t data_bytes, struct error *err)
{
    qsort(spans, n, sizeof *spans, span_order);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (spans[i].begin < at)
            return FAIL(err, BAD_MODEL, "tensor '%s' overlaps the one before it", spans[i].name);
        if (spans[i].begin > at)
            return FAIL(err, BAD_MODEL, "hole of %zu bytes before tensor '%s'", spans[i].begin - at, spans[i].name);
        at = spans[i].end;
    }
    if (at != data_bytes)
        return FAIL(err, BAD_MODEL, "%zu bytes after the last tensor", data_bytes - at);
    return ST_OK;
}

static int entry_order(const void *a, const void *b)
{
    return strcmp(((const struct st_entry *)a)->name, ((const struct st_entry *)b)->name);
}

/* place points the entries at their data. Data that a file with an odd header leaves misaligned is copied. */
static enum status place(struct safetensors *s, size_t i, const char *data, size_t begin, struct error *err)
{
    struct st_entry *e = &s->entries[i];
    e->data = data + begin;
    size_t align = e->dtype == DT_COUNT ? 1 : dtype_bytes(e->dtype);
    if ((uintptr_t)e->data % align == 0)
        return ST_OK;
    s->copies[i] = malloc(e->bytes);
    if (!s->copies[i])
        return FAIL(err, OUT_OF_MEMORY, "no memory for a copy of tensor '%s' (%zu bytes)", e->name, e->bytes);
    memcpy(s->copies[i], e->data, e->bytes);
    e->data = s->copies[i];
    return ST_OK;
}

static enum status read_entries(struct safetensors *s, const char *data, size_t data_bytes, struct span *spans, struct error *err)
{
    const char *name;
    json_t *j;
    json_object_foreach (s->header, name, j) {
        if (!strcmp(name, "__metadata__")) {
            if (!json_is_object(j))
                return FAIL(err, BAD_MODEL, "__metadata__ is not an object");
            continue;
        }
        size_t begin = 0;
        struct st_entry *e = &s->entries[s->n];
        e->name = name;
        TRY(read_entry(e, j, data_bytes, &begin, err));
        TRY(place(s, s->n, data, begin, err));
        spans[s->n] = (struct span){begin, begin + e->bytes, name};
        s->n++;
    }
    return check_cover(spans, s->n, data_bytes, err);
}

static enum status read_header(struct safetensors *s, struct error *err)
{
    const unsigned char *p = s->map;
    uint64_t len = 0;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | p[i];
    if (len > HEADER_MAX_BYTES)
        return FAIL(err, BAD_MODEL, "the header claims %llu bytes, the limit is %d", (unsigned long long)len, HEADER_MAX_BYTES);
    if (len > s->map_bytes - 8)
        return FAIL(err, BAD_MODEL, "the header claims %llu bytes, the file has %zu", (unsigned long long)len, s->map_bytes);
    json_error_t je;
    s->header = json_loadb((const char *)s->map + 8, (size_t)len, JSON_REJECT_DUPLICATES, &je);
    if (!s->header)
        return FAIL(err, BAD_MODEL, "the header is not valid JSON: %s", je.text);
    if (!json_is_object(s->header))
        return FAIL(err, BAD_MODEL, "the header is not a JSON object");
    size_t n = json_object_size(s->header);
    if (n > TENSORS_MAX)
        return FAIL(err, BAD_MODEL, "%zu tensors, the limit is %d", n, TENSORS_MAX);
    s->entries = calloc(n + 1, sizeof *s->entries);
    s->copies = calloc(n + 1, sizeof *s->copies);
    struct span *spans = calloc(n + 1, sizeof *spans);
    enum status status = ST_OK;
    if (!s->entries || !s->copies || !spans)
        status = FAIL(err, OUT_OF_MEMORY, "no memory for %zu tensor entries", n);
    else
        status = read_entries(s, (const char *)s->map + 8 + len, s->map_bytes - 8 - (size_t)len, spans, err);
    free(spans);
    if (status == ST_OK)
        qsort(s->entries, s->n, sizeof *s->entries, entry_order);
    return status;
}

enum status safetensors_open(const char *path, struct safetensors **ret, struct error *err)
{
    struct safetensors *s = calloc(1, sizeof *s);
    if (!s)
        return FAIL(err, OUT_OF_MEMORY, "out of memory opening '%s'", path);
    enum status status = map_file(s, path, err);
    if (status == ST_OK && (status = read_header(s, err)) != ST_OK)
        error_prefix(err, "%s", path);
    if (status != ST_OK) {
        safetensors_close(s);
        return status;
    }
    *ret = s;
    return ST_OK;
}

const struct st_entry *safetensors_find(const struct safetensors *s, const char *name)
{
    struct st_entry key = {.name = name};
    return s->n ? bsearch(&key, s->entries, s->n, sizeof *s->entries, entry_order) : NULL;
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->n;
}

const struct st_entry *safetensors_at(const struct safetensors *s, size_t i)
{
    return &s->entries[i];
}
