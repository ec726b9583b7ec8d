#include "proto/mp.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "common/json.h"
#include "proto/limits.h"
#include "proto/utf8.h"

static void fault(struct mp *c, const char *text)
{
    if (!c->fault)
        c->fault = text;
}

bool mp_ok(const struct mp *c) { return !c->fault; }

static size_t rest(const struct mp *c) { return (size_t)(c->end - c->at); }

/* take returns the next N bytes and moves past them, NULL (and a fault) when fewer are left. */
static const uint8_t *take(struct mp *c, size_t n)
{
    if (c->fault)
        return NULL;
    if (rest(c) < n) {
        fault(c, "the frame ends inside a value");
        return NULL;
    }
    const uint8_t *p = c->at;
    c->at += n;
    return p;
}

/* take_be reads an unsigned big-endian number of N bytes (1 to 8). */
static uint64_t take_be(struct mp *c, size_t n)
{
    const uint8_t *p = take(c, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static int tag(struct mp *c)
{
    const uint8_t *p = take(c, 1);
    return p ? *p : -1;
}

enum mp_kind mp_peek(const struct mp *c)
{
    if (c->fault || c->at == c->end)
        return MP_END;
    uint8_t t = *c->at;
    if (t <= 0x7f || t >= 0xe0 || (t >= 0xcc && t <= 0xd3))
        return MP_INT;
    if (t <= 0x8f || t == 0xde || t == 0xdf)
        return MP_MAP;
    if (t <= 0x9f || t == 0xdc || t == 0xdd)
        return MP_ARRAY;
    if (t <= 0xbf || (t >= 0xd9 && t <= 0xdb))
        return MP_STR;
    switch (t) {
    case 0xc0: return MP_NIL;
    case 0xc2:
    case 0xc3: return MP_BOOL;
    case 0xc4:
    case 0xc5:
    case 0xc6: return MP_BIN;
    case 0xca:
    case 0xcb: return MP_FLOAT;
    case 0xc1: return MP_END;
    default: return MP_EXT; /* c7..c9, d4..d8 */
    }
}

/* count checks that N elements of at least EACH bytes can follow. */
static uint32_t count(struct mp *c, uint64_t n, size_t each)
{
    if (c->fault)
        return 0;
    if (n * each > rest(c)) {
        fault(c, "a map or array claims more elements than the frame can hold");
        return 0;
    }
    return (uint32_t)n;
}

uint32_t mp_map(struct mp *c)
{
    int t = tag(c);
    if (t >= 0x80 && t <= 0x8f)
        return count(c, (uint64_t)t & 0x0f, 2);
    if (t == 0xde || t == 0xdf)
        return count(c, take_be(c, t == 0xde ? 2 : 4), 2);
    fault(c, "expected a map");
    return 0;
}

uint32_t mp_array(struct mp *c)
{
    int t = tag(c);
    if (t >= 0x90 && t <= 0x9f)
        return count(c, (uint64_t)t & 0x0f, 1);
    if (t == 0xdc || t == 0xdd)
        return count(c, take_be(c, t == 0xdc ? 2 : 4), 1);
    fault(c, "expected an array");
    return 0;
}

/* integer reads any integer form: RET_NEGATIVE says whether the value is to be read as int64_t. */
static uint64_t integer(struct mp *c, bool *ret_negative)
{
    int t = tag(c);
    *ret_negative = false;
    if (t >= 0 && t <= 0x7f)
        return (uint64_t)t;
    if (t >= 0xe0) {
        *ret_negative = true;
        return (uint64_t)(int64_t)(int8_t)t;
    }
    if (t >= 0xcc && t <= 0xcf)
        return take_be(c, (size_t)1 << (t - 0xcc));
    if (t >= 0xd0 && t <= 0xd3) {
        size_t n = (size_t)1 << (t - 0xd0);
        unsigned shift = (unsigned)(64 - 8 * n);
        int64_t v = (int64_t)(take_be(c, n) << shift) >> shift;
        *ret_negative = v < 0;
        return (uint64_t)v;
    }
    fault(c, "expected an integer");
    return 0;
}

int64_t mp_int(struct mp *c)
{
    bool negative;
    uint64_t v = integer(c, &negative);
    if (!negative && v > INT64_MAX)
        fault(c, "an integer exceeds 9223372036854775807");
    return c->fault ? 0 : (int64_t)v;
}

uint64_t mp_uint(struct mp *c)
{
    bool negative;
    uint64_t v = integer(c, &negative);
    if (negative)
        fault(c, "expected an integer that is not negative");
    return c->fault ? 0 : v;
}

double mp_double(struct mp *c)
{
    enum mp_kind k = mp_peek(c);
    if (k == MP_INT) {
        bool negative;
        uint64_t v = integer(c, &negative);
        return c->fault ? 0 : negative ? (double)(int64_t)v : (double)v;
    }
    if (k != MP_FLOAT) {
        fault(c, "expected a number");
        return 0;
    }
    if (tag(c) == 0xca) {
        uint32_t bits = (uint32_t)take_be(c, 4);
        float f;
        memcpy(&f, &bits, sizeof f);
        return c->fault ? 0 : (double)f;
    }
    uint64_t bits = take_be(c, 8);
    double d;
    memcpy(&d, &bits, sizeof d);
    return c->fault ? 0 : d;
}

bool mp_bool(struct mp *c)
{
    int t = tag(c);
    if (t != 0xc2 && t != 0xc3)
        fault(c, "expected true or false");
    return !c->fault && t == 0xc3;
}

void mp_nil(struct mp *c)
{
    if (tag(c) != 0xc0)
        fault(c, "expected nil");
}

static size_t str_len(struct mp *c, int t)
{
    if (t >= 0xa0 && t <= 0xbf)
        return (size_t)t & 0x1f;
    if (t >= 0xd9 && t <= 0xdb)
        return take_be(c, (size_t)1 << (t - 0xd9));
    fault(c, "expected a text");
    return 0;
}

const char *mp_str(struct mp *c, size_t *ret_len)
{
    size_t n = str_len(c, tag(c));
    const char *s = (const char *)take(c, n);
    if (s && !utf8_valid(s, n))
        fault(c, "a text is not valid UTF-8");
    *ret_len = c->fault ? 0 : n;
    return c->fault ? "" : s;
}

const void *mp_bin(struct mp *c, size_t *ret_len)
{
    int t = tag(c);
    size_t n = 0;
    if (t >= 0xc4 && t <= 0xc6)
        n = take_be(c, (size_t)1 << (t - 0xc4));
    else
        fault(c, "expected bytes");
    const void *p = take(c, n);
    *ret_len = p ? n : 0;
    return p ? p : "";
}

static void skip_ext(struct mp *c)
{
    int t = tag(c);
    if (t >= 0xd4 && t <= 0xd8)
        take(c, 1 + ((size_t)1 << (t - 0xd4)));
    else
        take(c, 1 + take_be(c, (size_t)1 << (t - 0xc7)));
}

void mp_skip(struct mp *c)
{
    size_t n;
    for (uint64_t left = 1; left && !c->fault; left--) {
        switch (mp_peek(c)) {
        case MP_NIL:
        case MP_BOOL: tag(c); break;
        case MP_INT:
        case MP_FLOAT: mp_double(c); break;
        case MP_STR: mp_str(c, &n); break;
        case MP_BIN: mp_bin(c, &n); break;
        case MP_EXT: skip_ext(c); break;
        case MP_ARRAY: left += mp_array(c); break;
        case MP_MAP: left += 2 * (uint64_t)mp_map(c); break;
        case MP_END: fault(c, c->at == c->end ? "the frame ends inside a value" : "byte c1 is no MessagePack value"); break;
        }
    }
}

void mp_done(struct mp *c)
{
    if (!c->fault && c->at != c->end)
        fault(c, "bytes follow the value");
}

enum status mp_check(const struct mp *c, const void *start, struct error *err)
{
    if (!c->fault)
        return ST_OK;
    return FAIL(err, BAD_REQUEST, "MessagePack at byte %zu: %s", (size_t)(c->at - (const uint8_t *)start), c->fault);
}

/* json_value returns a new reference, NULL with a fault. */
static json_t *json_value(struct mp *c, int depth);

static json_t *json_text_value(struct mp *c)
{
    size_t n;
    const char *s = mp_str(c, &n);
    if (memchr(s, 0, n))
        fault(c, "a text contains a NUL byte");
    return c->fault ? NULL : json_stringn(s, n);
}

static json_t *json_list_value(struct mp *c, int depth)
{
    json_t *list = json_array();
    uint32_t n = mp_array(c);
    for (uint32_t i = 0; i < n && !c->fault; i++)
        if (json_array_append_new(list, json_value(c, depth + 1)) && !c->fault)
            fault(c, "out of memory");
    return list;
}

static json_t *json_map_value(struct mp *c, int depth)
{
    json_t *map = json_object();
    uint32_t n = mp_map(c);
    for (uint32_t i = 0; i < n && !c->fault; i++) {
        if (mp_peek(c) != MP_STR)
            fault(c, "a map key is not a text");
        AUTO_JSON *key = json_text_value(c);
        if (key && json_object_set_new(map, json_string_value(key), json_value(c, depth + 1)) && !c->fault)
            fault(c, "out of memory");
    }
    return map;
}

static json_t *json_figure(struct mp *c)
{
    if (mp_peek(c) == MP_INT)
        return json_integer(mp_int(c));
    double d = mp_double(c);
    if (!isfinite(d))
        fault(c, "a number is not finite");
    return c->fault ? NULL : json_real(d);
}

static json_t *json_value(struct mp *c, int depth)
{
    if (depth > LIMIT_DEPTH) {
        fault(c, "nested deeper than 200 levels");
        return NULL;
    }
    json_t *j = NULL;
    switch (mp_peek(c)) {
    case MP_NIL:
        mp_nil(c);
        j = json_null();
        break;
    case MP_BOOL: j = json_boolean(mp_bool(c)); break;
    case MP_INT:
    case MP_FLOAT: j = json_figure(c); break;
    case MP_STR: j = json_text_value(c); break;
    case MP_ARRAY: j = json_list_value(c, depth); break;
    case MP_MAP: j = json_map_value(c, depth); break;
    case MP_BIN:
    case MP_EXT: fault(c, "bytes and extension types have no JSON form"); break;
    case MP_END: mp_skip(c); break;
    }
    if (c->fault) {
        json_decref(j);
        return NULL;
    }
    if (!j)
        fault(c, "out of memory");
    return j;
}

enum status mp_json(struct mp *c, json_t **ret, struct error *err)
{
    const void *start = c->at;
    json_t *j = json_value(c, 1);
    TRY(mp_check(c, start, err));
    *ret = j;
    return ST_OK;
}
