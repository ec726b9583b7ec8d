#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/json.h"
#include "tests/cases/cases.h"

struct verdict verdict_passed(void) { return (struct verdict){PASSED, ""}; }

struct verdict verdict_failed(const char *fmt, ...)
{
    struct verdict v = {FAILED, ""};
    va_list args;
    va_start(args, fmt);
    vsnprintf(v.why, sizeof v.why, fmt, args);
    va_end(args);
    return v;
}

struct verdict verdict_skipped(const char *fmt, ...)
{
    struct verdict v = {SKIPPED, ""};
    va_list args;
    va_start(args, fmt);
    vsnprintf(v.why, sizeof v.why, fmt, args);
    va_end(args);
    return v;
}

static bool beyond_64_bits(const char *digits, size_t n)
{
    char copy[32];
    if (n >= sizeof copy)
        return true;
    memcpy(copy, digits, n);
    copy[n] = '\0';
    errno = 0;
    strtoll(copy, NULL, 10);
    return errno == ERANGE;
}

char *cases_quote(const char *text)
{
    struct buf b = BUF_INIT;
    for (const char *p = text; *p;) {
        const char *start = p;
        if (*p == '"') {
            for (p++; *p && *p != '"'; p++)
                p += *p == '\\' && p[1];
            p += *p == '"';
            buf_put(&b, start, (size_t)(p - start));
        } else if (isdigit((unsigned char)*p) || *p == '-') {
            p += 1 + strspn(p + 1, "0123456789");
            size_t digits = (size_t)(p - start);
            bool is_real = *p == '.' || *p == 'e' || *p == 'E';
            p += strspn(p, "0123456789.eE+-");
            if (!is_real && beyond_64_bits(start, digits))
                buf_printf(&b, "{\"$big\":\"%.*s\"}", (int)digits, start);
            else
                buf_put(&b, start, (size_t)(p - start));
        } else {
            buf_putc(&b, *p++);
        }
    }
    return buf_take(&b, NULL);
}

bool cases_has(const json_t *j, const char *key)
{
    const char *name;
    json_t *member;
    size_t i;
    if (json_object_get(j, key))
        return true;
    json_object_foreach ((json_t *)j, name, member)
        if (cases_has(member, key))
            return true;
    json_array_foreach (j, i, member)
        if (cases_has(member, key))
            return true;
    return false;
}

static bool objects_equal(const json_t *expected, const json_t *actual)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)expected, key, value) {
        const json_t *other = json_object_get(actual, key);
        if (strcmp(key, "app_version") == 0 && json_is_string(other))
            continue;
        if (strcmp(key, "image_name") == 0 && strcmp(json_string_value(value) ? json_string_value(value) : "", "*") == 0 &&
            json_is_string(other))
            continue;
        if (!cases_equal(value, other ? other : json_null()))
            return false;
    }
    json_object_foreach ((json_t *)actual, key, value)
        if (!json_is_null(value) && !json_object_get(expected, key))
            return false;
    return true;
}

bool cases_equal(const json_t *expected, const json_t *actual)
{
    if (!expected || !actual || json_typeof(expected) != json_typeof(actual))
        return false;
    if (json_is_object(expected))
        return objects_equal(expected, actual);
    if (!json_is_array(expected))
        return json_equal(expected, actual);
    size_t n = json_array_size(expected);
    if (n != json_array_size(actual))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!cases_equal(json_array_get(expected, i), json_array_get(actual, i)))
            return false;
    return true;
}

bool cases_equal_multiset(const json_t *expected, const json_t *actual)
{
    AUTO_JSON *rest = json_copy((json_t *)actual);
    size_t n = json_array_size(expected);
    if (!json_is_array(expected) || !json_is_array(rest) || json_array_size(rest) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < json_array_size(rest) && !cases_equal(json_array_get(expected, i), json_array_get(rest, k)))
            k++;
        if (k == json_array_size(rest))
            return false;
        json_array_remove(rest, k);
    }
    return true;
}

const char *cases_missing_type(const json_t *graph)
{
    const char *key;
    json_t *node;
    json_object_foreach (json_object_get(graph, "nodes"), key, node) {
        const char *type = json_str(node, "type", NULL);
        if (type && node_type_known(type) && !node_type_find(type))
            return type;
    }
    return NULL;
}

/* The expected place as galley writes it: the parts joined by points. */
static void join(const json_t *loc, char *ret, size_t size)
{
    size_t i, at = 0;
    json_t *part;
    *ret = '\0';
    json_array_foreach (loc, i, part)
        if (at < size)
            at += (size_t)snprintf(ret + at, size - at, "%s%s", i ? "." : "", json_string_value(part) ? json_string_value(part) : "?");
}

struct verdict cases_check_error(const json_t *error, const struct graph_error *detail, const char *message)
{
    const char *class = json_str(error, "class", NULL), *kind = json_str(error, "kind", NULL);
    const char *given = detail->class ? detail->class : "no class";
    if (class && strcmp(class, given) != 0)
        return verdict_failed("refused with %s (%s), expected %s", given, message, class);
    if (!class || strcmp(class, "ValidationError") != 0)
        return verdict_passed();
    char loc[300];
    join(json_object_get(error, "loc"), loc, sizeof loc);
    if (kind && strcmp(kind, detail->kind) != 0)
        return verdict_failed("refused as %s (%s), expected %s", detail->kind, message, kind);
    if (json_object_get(error, "loc") && strcmp(loc, detail->loc) != 0)
        return verdict_failed("refused at %s (%s), expected at %s", detail->loc, message, loc);
    return verdict_passed();
}
