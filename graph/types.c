#include "graph/types.h"

#include <string.h>

#include "graph/nodes.h"

struct type_view type_view(const char *text, bool nullable) { return (struct type_view){text, strlen(text), nullable}; }

static bool text_is(struct type_view t, const char *text) { return t.len == strlen(text) && memcmp(t.text, text, t.len) == 0; }

bool type_is(struct type_view t, const char *text) { return !t.nullable && text_is(t, text); }

bool type_inner(struct type_view t, const char *wrapper, struct type_view *ret)
{
    size_t n = strlen(wrapper);
    if (t.len < n + 2 || memcmp(t.text, wrapper, n) != 0 || t.text[n] != '[' || t.text[t.len - 1] != ']')
        return false;
    *ret = (struct type_view){t.text + n + 1, t.len - n - 2, false};
    return true;
}

/* Splits "A | B" at the bars outside brackets. */
static size_t split_union(struct type_view t, struct type_view ret[TYPE_MAX_MEMBERS])
{
    size_t n = 0, start = 0;
    int depth = 0;
    for (size_t i = 0; i <= t.len && n < TYPE_MAX_MEMBERS; i++) {
        if (i < t.len && t.text[i] == '[')
            depth++;
        if (i < t.len && t.text[i] == ']')
            depth--;
        if (i < t.len && (t.text[i] != '|' || depth > 0))
            continue;
        size_t from = start, to = i;
        while (from < to && t.text[from] == ' ')
            from++;
        while (to > from && t.text[to - 1] == ' ')
            to--;
        ret[n++] = (struct type_view){t.text + from, to - from, false};
        start = i + 1;
    }
    return n;
}

size_t type_members(struct type_view t, struct type_view ret[TYPE_MAX_MEMBERS])
{
    struct type_view inner;
    if (type_inner(t, "union", &inner)) {
        size_t n = split_union(inner, ret);
        if (t.nullable && n < TYPE_MAX_MEMBERS)
            ret[n++] = type_view("null", false);
        return n;
    }
    if (t.nullable) {
        ret[0] = (struct type_view){t.text, t.len, false};
        ret[1] = type_view("null", false);
        return 2;
    }
    if (type_inner(t, "list", &inner)) {
        ret[0] = inner;
        return 1;
    }
    if (type_inner(t, "map", &inner)) {
        ret[0] = type_view("string", false);
        ret[1] = inner;
        return 2;
    }
    return 0;
}

static bool is_member(struct type_view t, const struct type_view *members, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (type_same(t, members[i]))
            return true;
    return false;
}

bool type_is_union(struct type_view t)
{
    struct type_view inner;
    return t.nullable || type_inner(t, "union", &inner);
}

bool type_same(struct type_view a, struct type_view b)
{
    if (a.len == b.len && a.nullable == b.nullable && memcmp(a.text, b.text, a.len) == 0)
        return true;
    if (!type_is_union(a) || !type_is_union(b))
        return false;
    struct type_view x[TYPE_MAX_MEMBERS], y[TYPE_MAX_MEMBERS];
    size_t nx = type_members(a, x), ny = type_members(b, y);
    if (nx != ny)
        return false;
    for (size_t i = 0; i < nx; i++)
        if (!is_member(x[i], y, ny))
            return false;
    return true;
}

bool type_is_list(struct type_view t)
{
    struct type_view inner;
    return !t.nullable && type_inner(t, "list", &inner);
}

bool type_is_any(struct type_view t)
{
    if (type_is(t, "any"))
        return true;
    struct type_view m[TYPE_MAX_MEMBERS];
    return is_member(type_view("any", false), m, type_members(t, m));
}

bool type_takes_list(struct type_view t)
{
    if (type_is_list(t))
        return true;
    struct type_view m[TYPE_MAX_MEMBERS];
    size_t n = type_members(t, m);
    for (size_t i = 0; i < n; i++)
        if (type_is_list(m[i]))
            return true;
    return false;
}

bool type_is_subclass(struct type_view t, struct type_view of)
{
    return type_same(t, of) || (type_is(t, "boolean") && type_is(of, "integer"));
}

bool type_union_fits(struct type_view t, struct type_view of)
{
    struct type_view x[TYPE_MAX_MEMBERS], y[TYPE_MAX_MEMBERS];
    size_t nx = type_members(t, x), ny = type_members(of, y);
    if (nx == 0)
        return is_member(t, y, ny);
    for (size_t i = 0; i < nx; i++)
        if (!is_member(x[i], y, ny))
            return false;
    return true;
}

bool types_fit(struct type_view from, struct type_view to)
{
    if (type_same(from, to) || type_is_any(from) || type_is_any(to))
        return true;
    struct type_view m[TYPE_MAX_MEMBERS];
    if (is_member(from, m, type_members(to, m)) || is_member(to, m, type_members(from, m)))
        return true;
    if (type_is(from, "integer") && (type_is(to, "number") || type_is(to, "string")))
        return true;
    if (type_is(from, "number") && type_is(to, "string"))
        return true;
    return type_is_subclass(from, to) || type_union_fits(from, to);
}

bool field_types_fit(const char *from, bool from_nullable, const char *to, bool to_nullable)
{
    return types_fit(type_view(from, from_nullable), type_view(to, to_nullable));
}
