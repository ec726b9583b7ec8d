#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 200 };

/* depth_of returns how deep the brackets of TEXT nest, strings skipped: refused before the parser recurses. */
static int depth_of(const char *text, size_t len)
{
    int depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > deepest)
                deepest = depth;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

enum status json_parse(const char *text, size_t len, size_t max_bytes, json_t **ret, struct error *err)
{
    if (len > max_bytes)
        return FAIL(err, TOO_LARGE, "JSON text of %zu bytes exceeds the limit of %zu bytes", len, max_bytes);
    int depth = depth_of(text, len);
    if (depth > MAX_DEPTH)
        return FAIL(err, TOO_LARGE, "JSON nests %d levels deep, the limit is %d", depth, MAX_DEPTH);
    json_error_t je;
    json_t *j = json_loadb(text, len, JSON_DECODE_ANY, &je);
    if (!j)
        return FAIL(err, BAD_REQUEST, "not valid JSON at line %d, column %d: %s", je.line, je.column, je.text);
    *ret = j;
    return ST_OK;
}

enum status json_read_file(const char *path, size_t max_bytes, json_t **ret, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot open '%s'", path);
    struct stat st;
    enum status s = ST_OK;
    char *text = NULL;
    if (fstat(fd, &st) != 0) {
        s = FAIL_ERRNO(err, "cannot stat '%s'", path);
    } else if (!S_ISREG(st.st_mode)) {
        s = FAIL(err, IO, "'%s' is not a regular file", path);
    } else if ((size_t)st.st_size > max_bytes) {
        s = FAIL(err, TOO_LARGE, "'%s' has %lld bytes, the limit is %zu", path, (long long)st.st_size, max_bytes);
    } else if (!(text = malloc((size_t)st.st_size + 1))) {
        s = FAIL(err, OUT_OF_MEMORY, "out of memory reading '%s'", path);
    } else {
        size_t got = 0;
        while (got < (size_t)st.st_size) {
            ssize_t n = read(fd, text + got, (size_t)st.st_size - got);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                break;
            got += (size_t)n;
        }
        s = json_parse(text, got, max_bytes, ret, err);
        if (s != ST_OK)
            error_prefix(err, "%s", path);
    }
    free(text);
    close(fd);
    return s;
}

const char *json_str(const json_t *obj, const char *key, const char *fallback)
{
    const char *s = json_string_value(json_object_get(obj, key));
    return s ? s : fallback;
}

long long json_int(const json_t *obj, const char *key, long long fallback)
{
    const json_t *v = json_object_get(obj, key);
    if (json_is_integer(v))
        return json_integer_value(v);
    if (json_is_real(v)) {
        double d = json_real_value(v);
        if (d == floor(d) && fabs(d) < 9e15)
            return (long long)d;
    }
    return fallback;
}

double json_num(const json_t *obj, const char *key, double fallback)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

bool json_flag(const json_t *obj, const char *key, bool fallback)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

char *json_text(const json_t *j)
{
    return json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
}

static size_t edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    size_t la = strnlen(a, MAX), lb = strnlen(b, MAX), row[MAX + 1];
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t above = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[lb];
}

const char *nearest_name(const char *name, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t best_distance = strlen(name) / 3 + 2;
    for (size_t i = 0; i < n; i++) {
        size_t d = edit_distance(name, names[i]);
        if (d < best_distance) {
            best_distance = d;
            best = names[i];
        }
    }
    return best;
}
