#include "proto/wr.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <msgpack/pack.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"
#include "proto/utf8.h"

static int append(void *arg, const char *bytes, size_t n)
{
    buf_put(arg, bytes, n);
    return 0;
}

static msgpack_packer packer(struct wr *w)
{
    msgpack_packer p;
    msgpack_packer_init(&p, w->out, append);
    return p;
}

void wr_init(struct wr *w, struct buf *out, enum wr_form form)
{
    w->out = out;
    w->form = form;
    w->depth = 0;
    w->comma = false;
}

/* begin_value opens a key or value: the comma before it in JSON, and one element less to wait for. */
static void begin_value(struct wr *w)
{
    if (w->depth > 0 && w->depth <= WR_DEPTH) {
        assert(w->left[w->depth - 1] > 0);
        w->left[w->depth - 1]--;
    }
    if (w->form == WR_JSON && w->comma)
        buf_putc(w->out, ',');
    w->comma = true;
}

static void begin_container(struct wr *w, bool is_map, uint64_t elements)
{
    begin_value(w);
    if (w->depth < WR_DEPTH) {
        w->is_map[w->depth] = is_map;
        w->left[w->depth] = elements;
    } else {
        w->out->failed = true;
    }
    w->depth++;
    w->comma = false;
}

void wr_map(struct wr *w, uint32_t n)
{
    begin_container(w, true, 2 * (uint64_t)n);
    if (w->form == WR_JSON) {
        buf_putc(w->out, '{');
    } else {
        msgpack_packer p = packer(w);
        msgpack_pack_map(&p, n);
    }
}

void wr_array(struct wr *w, uint32_t n)
{
    begin_container(w, false, n);
    if (w->form == WR_JSON) {
        buf_putc(w->out, '[');
    } else {
        msgpack_packer p = packer(w);
        msgpack_pack_array(&p, n);
    }
}

void wr_end(struct wr *w)
{
    assert(w->depth > 0);
    w->depth--;
    w->comma = true;
    if (w->depth >= WR_DEPTH)
        return;
    assert(w->left[w->depth] == 0);
    if (w->form == WR_JSON)
        buf_putc(w->out, w->is_map[w->depth] ? '}' : ']');
}

static const char replacement[] = "\xef\xbf\xbd";

/* json_quoted writes S as a JSON string; what is not UTF-8 becomes U+FFFD. */
static void json_quoted(struct buf *out, const char *s, size_t n)
{
    buf_putc(out, '"');
    for (size_t i = 0; i < n;) {
        size_t plain = i, step;
        while (plain < n && (unsigned char)s[plain] >= 0x20 && s[plain] != '"' && s[plain] != '\\' &&
               (step = utf8_step(s + plain, n - plain)))
            plain += step;
        buf_put(out, s + i, plain - i);
        if (plain == n)
            break;
        unsigned char c = (unsigned char)s[plain];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c == '\n')
            buf_puts(out, "\\n");
        else if (c < 0x20)
            buf_printf(out, "\\u%04x", c);
        else
            buf_puts(out, replacement);
        i = plain + 1;
    }
    buf_putc(out, '"');
}

/* packed_text writes S as a MessagePack text, mended when it is not UTF-8. */
static void packed_text(struct wr *w, const char *s, size_t n)
{
    msgpack_packer p = packer(w);
    if (utf8_valid(s, n)) {
        msgpack_pack_str(&p, n);
        msgpack_pack_str_body(&p, s, n);
        return;
    }
    AUTO_BUF mended = BUF_INIT;
    for (size_t i = 0, step; i < n; i += step ? step : 1) {
        step = utf8_step(s + i, n - i);
        if (step)
            buf_put(&mended, s + i, step);
        else
            buf_puts(&mended, replacement);
    }
    w->out->failed |= mended.failed;
    msgpack_pack_str(&p, mended.len);
    msgpack_pack_str_body(&p, mended.data, mended.len);
}

void wr_strn(struct wr *w, const char *s, size_t n)
{
    begin_value(w);
    if (w->form == WR_JSON)
        json_quoted(w->out, s, n);
    else
        packed_text(w, n ? s : "", n);
}

void wr_str(struct wr *w, const char *s)
{
    if (s)
        wr_strn(w, s, strlen(s));
    else
        wr_null(w);
}

void wr_keyn(struct wr *w, const char *key, size_t n)
{
    wr_strn(w, key, n);
    if (w->form == WR_JSON) {
        buf_putc(w->out, ':');
        w->comma = false;
    }
}

void wr_key(struct wr *w, const char *key) { wr_keyn(w, key, strlen(key)); }

void wr_int(struct wr *w, int64_t v)
{
    begin_value(w);
    if (w->form == WR_JSON) {
        buf_printf(w->out, "%" PRId64, v);
    } else {
        msgpack_packer p = packer(w);
        msgpack_pack_int64(&p, v);
    }
}

void wr_uint(struct wr *w, uint64_t v)
{
    begin_value(w);
    if (w->form == WR_JSON) {
        buf_printf(w->out, "%" PRIu64, v);
    } else {
        msgpack_packer p = packer(w);
        msgpack_pack_uint64(&p, v);
    }
}

/* json_real_text writes V with the fewest digits that read back as V, and as a real (with a point or an exponent). */
static void json_real_text(struct buf *out, double v)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (!(back < v) && !(back > v))
            break;
    }
    buf_puts(out, text);
    if (!strpbrk(text, ".e"))
        buf_puts(out, ".0");
}

void wr_double(struct wr *w, double v)
{
    begin_value(w);
    if (w->form == WR_MSGPACK) {
        msgpack_packer p = packer(w);
        msgpack_pack_double(&p, v);
    } else if (isfinite(v)) {
        json_real_text(w->out, v);
    } else {
        buf_puts(w->out, "null");
    }
}

void wr_bool(struct wr *w, bool v)
{
    begin_value(w);
    if (w->form == WR_JSON)
        buf_puts(w->out, v ? "true" : "false");
    else
        buf_putc(w->out, (char)(v ? 0xc3 : 0xc2));
}

void wr_null(struct wr *w)
{
    begin_value(w);
    if (w->form == WR_JSON)
        buf_puts(w->out, "null");
    else
        buf_putc(w->out, (char)0xc0);
}

static void base64(struct buf *out, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *to = buf_reserve(out, (n + 2) / 3 * 4);
    if (!to)
        return;
    for (size_t i = 0; i < n; i += 3) {
        size_t have = n - i < 3 ? n - i : 3;
        uint32_t v = (uint32_t)p[i] << 16 | (have > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (have > 2 ? (uint32_t)p[i + 2] : 0);
        *to++ = digits[v >> 18];
        *to++ = digits[v >> 12 & 63];
        *to++ = have > 1 ? digits[v >> 6 & 63] : '=';
        *to++ = have > 2 ? digits[v & 63] : '=';
    }
    *to = 0;
    out->len += (n + 2) / 3 * 4;
}

void wr_bin(struct wr *w, const void *bytes, size_t n)
{
    begin_value(w);
    if (w->form == WR_JSON) {
        buf_putc(w->out, '"');
        base64(w->out, bytes, n);
        buf_putc(w->out, '"');
    } else {
        msgpack_packer p = packer(w);
        msgpack_pack_bin(&p, n);
        msgpack_pack_bin_body(&p, n ? bytes : "", n);
    }
}

void wr_json(struct wr *w, const json_t *j)
{
    const char *key;
    json_t *member;
    size_t i;
    switch (j ? json_typeof(j) : JSON_NULL) {
    case JSON_OBJECT:
        wr_map(w, (uint32_t)json_object_size(j));
        json_object_foreach ((json_t *)(uintptr_t)j, key, member) {
            wr_key(w, key);
            if (w->depth <= WR_DEPTH)
                wr_json(w, member);
        }
        wr_end(w);
        break;
    case JSON_ARRAY:
        wr_array(w, (uint32_t)json_array_size(j));
        json_array_foreach (j, i, member)
            if (w->depth <= WR_DEPTH)
                wr_json(w, member);
        wr_end(w);
        break;
    case JSON_STRING: wr_strn(w, json_string_value(j), json_string_length(j)); break;
    case JSON_INTEGER: wr_int(w, json_integer_value(j)); break;
    case JSON_REAL: wr_double(w, json_real_value(j)); break;
    case JSON_TRUE:
    case JSON_FALSE: wr_bool(w, json_is_true(j)); break;
    case JSON_NULL: wr_null(w); break;
    }
}

static void transcode(struct wr *w, struct mp *c);

static void transcode_map(struct wr *w, struct mp *c)
{
    uint32_t n = mp_map(c);
    wr_map(w, n);
    for (uint32_t i = 0; i < n && mp_ok(c); i++) {
        size_t len;
        const char *key = mp_str(c, &len);
        wr_keyn(w, key, len);
        transcode(w, c);
    }
    if (mp_ok(c))
        wr_end(w);
}

static void transcode_array(struct wr *w, struct mp *c)
{
    uint32_t n = mp_array(c);
    wr_array(w, n);
    for (uint32_t i = 0; i < n && mp_ok(c); i++)
        transcode(w, c);
    if (mp_ok(c))
        wr_end(w);
}

/* transcode writes the next value of C; a fault in C stops it anywhere (the caller then fails the buffer). */
static void transcode(struct wr *w, struct mp *c)
{
    size_t n = 0;
    if (w->depth >= WR_DEPTH)
        c->fault = "nested too deep";
    switch (mp_peek(c)) {
    case MP_NIL:
        mp_nil(c);
        wr_null(w);
        break;
    case MP_BOOL: wr_bool(w, mp_bool(c)); break;
    case MP_INT:
        if (*c->at == 0xcf)
            wr_uint(w, mp_uint(c));
        else
            wr_int(w, mp_int(c));
        break;
    case MP_FLOAT: wr_double(w, mp_double(c)); break;
    case MP_STR: {
        const char *s = mp_str(c, &n);
        wr_strn(w, s, n);
        break;
    }
    case MP_BIN: {
        const void *p = mp_bin(c, &n);
        wr_bin(w, p, n);
        break;
    }
    case MP_ARRAY: transcode_array(w, c); break;
    case MP_MAP: transcode_map(w, c); break;
    case MP_EXT:
    case MP_END: c->fault = c->fault ? c->fault : "no JSON form"; break;
    }
}

void wr_mp(struct wr *w, const void *bytes, size_t n)
{
    struct mp c = mp_open(bytes, n);
    if (w->form == WR_MSGPACK) {
        mp_skip(&c);
        begin_value(w);
        buf_put(w->out, bytes, n);
    } else {
        transcode(w, &c);
    }
    mp_done(&c);
    if (!mp_ok(&c))
        w->out->failed = true;
}
