#include "proto/link.h"

#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"
#include "proto/wr.h"

enum link_direction { FROM_WORKER, TO_WORKER };

char *view_dup(struct view v)
{
    char *s = malloc(v.n + 1);
    if (!s)
        return NULL;
    if (v.n)
        memcpy(s, v.p, v.n);
    s[v.n] = 0;
    return s;
}

void view_text(struct view v, char *ret, size_t size)
{
    if (!size)
        return;
    size_t n = v.n < size ? v.n : size - 1;
    while (n && n < v.n && ((unsigned char)v.p[n] & 0xc0) == 0x80)
        n--; /* never cut inside a code point */
    if (n)
        memcpy(ret, v.p, n);
    ret[n] = 0;
}

bool view_is(struct view v, const char *s) { return strlen(s) == v.n && (!v.n || !memcmp(v.p, s, v.n)); }

const char *link_name(enum link_kind k)
{
    switch (k) {
#define MESSAGE(NAME, number, direction) case LINK_##NAME: return #NAME;
#define FIELD(name, number, TYPE)
#define END_MESSAGE(NAME)
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
    }
    return "?";
}

/* One reader, one writer and one test for "worth sending" for each field type. */
static bool set_U64(uint64_t v) { return v != 0; }
static bool set_I64(int64_t v) { return v != 0; }
static bool set_F64(double v) { return v < 0 || v > 0; }
static bool set_BIN(struct view v) { return v.n != 0; }
#define set_STR set_BIN

static void put_I64(struct wr *w, int64_t v) { wr_int(w, v); }
static void put_U64(struct wr *w, uint64_t v) { wr_uint(w, v); }
static void put_F64(struct wr *w, double v) { wr_double(w, v); }
static void put_STR(struct wr *w, struct view v) { wr_strn(w, v.p, v.n); }
static void put_BIN(struct wr *w, struct view v) { wr_bin(w, v.p, v.n); }

static uint64_t get_U64(struct mp *c) { return mp_uint(c); }
static int64_t get_I64(struct mp *c) { return mp_int(c); }
static double get_F64(struct mp *c) { return mp_double(c); }
static struct view get_STR(struct mp *c)
{
    struct view v;
    v.p = mp_str(c, &v.n);
    return v;
}
static struct view get_BIN(struct mp *c)
{
    struct view v;
    v.p = mp_bin(c, &v.n);
    return v;
}

void link_encode(const struct link_message *m, struct buf *out)
{
    struct wr w;
    wr_init(&w, out, WR_MSGPACK);
    wr_array(&w, 2);
    wr_int(&w, m->kind);
    switch (m->kind) {
#define MESSAGE(NAME, number, direction) case LINK_##NAME: { const struct link_##NAME *s = &m->NAME; (void)s; uint32_t fields = 0;
#define FIELD(name, number, TYPE) fields += set_##TYPE(s->name);
#define END_MESSAGE(NAME) wr_map(&w, fields); break; }
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
    }
    switch (m->kind) {
#define MESSAGE(NAME, number, direction) case LINK_##NAME: { const struct link_##NAME *s = &m->NAME; (void)s;
#define FIELD(name, number, TYPE) if (set_##TYPE(s->name)) { wr_uint(&w, number); put_##TYPE(&w, s->name); }
#define END_MESSAGE(NAME) break; }
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
    }
    wr_end(&w);
    wr_end(&w);
}

/* read_field reads field NUMBER of the message in RET and returns its name, NULL (and skips it) when this version does not know it. */
static const char *read_field(struct mp *c, uint64_t field, struct link_message *ret)
{
    switch (ret->kind) {
#define MESSAGE(NAME, number, direction) case LINK_##NAME: { struct link_##NAME *s = &ret->NAME; (void)s; switch (field) {
#define FIELD(name, number, TYPE) case number: s->name = get_##TYPE(c); return #name;
#define END_MESSAGE(NAME) default: break; } break; }
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
    }
    mp_skip(c);
    return NULL;
}

/* direction_of returns false when no message has this number. */
static bool direction_of(uint64_t kind, enum link_direction *ret)
{
    switch (kind) {
#define MESSAGE(NAME, number, direction) case number: *ret = direction; return true;
#define FIELD(name, number, TYPE)
#define END_MESSAGE(NAME)
#include "proto/messages.def"
#undef MESSAGE
#undef FIELD
#undef END_MESSAGE
    default: return false;
    }
}

enum status link_next(struct view *frame, bool from_worker, struct link_message *ret, struct error *err)
{
    const char *bytes = frame->p;
    size_t n = frame->n;
    struct mp c = mp_open(bytes, n);
    if (mp_array(&c) != 2)
        return FAIL(err, PROTOCOL, "link frame of %zu bytes: not an array of a message number and its fields", n);
    uint64_t kind = mp_uint(&c);
    enum link_direction direction;
    if (!mp_ok(&c) || !direction_of(kind, &direction))
        return FAIL(err, PROTOCOL, "link frame of %zu bytes: unknown message number %llu", n, (unsigned long long)kind);
    if ((direction == FROM_WORKER) != from_worker)
        return FAIL(err, PROTOCOL, "link message %s: sent in the wrong direction", link_name((enum link_kind)kind));
    struct link_message m;
    memset(&m, 0, sizeof m);
    m.kind = (enum link_kind)kind;
    uint32_t fields = mp_map(&c);
    for (uint32_t i = 0; i < fields && mp_ok(&c); i++) {
        uint64_t field = mp_uint(&c);
        const char *name = mp_ok(&c) ? read_field(&c, field, &m) : NULL;
        if (!mp_ok(&c))
            return FAIL(err, PROTOCOL, "link message %s, field %llu%s%s at byte %zu: %s", link_name(m.kind), (unsigned long long)field, name ? " " : "", name ? name : "",
                        (size_t)(c.at - (const uint8_t *)bytes), c.fault);
    }
    if (!mp_ok(&c))
        return FAIL(err, PROTOCOL, "link message %s at byte %zu: %s", link_name(m.kind), (size_t)(c.at - (const uint8_t *)bytes), c.fault);
    size_t used = (size_t)(c.at - (const uint8_t *)bytes);
    *frame = (struct view){bytes + used, n - used};
    *ret = m;
    return ST_OK;
}

enum status link_decode(const void *bytes, size_t n, bool from_worker, struct link_message *ret, struct error *err)
{
    struct view frame = {bytes, n};
    TRY(link_next(&frame, from_worker, ret, err));
    return frame.n ? FAIL(err, PROTOCOL, "link message %s: %zu bytes follow it", link_name(ret->kind), frame.n) : ST_OK;
}
