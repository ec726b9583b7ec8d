/* The MessagePack cursor, the two-form writer and the link codec. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "proto/limits.h"
#include "proto/link.h"
#include "proto/mp.h"
#include "proto/wr.h"

static void integers_of_every_width(void **state)
{
    (void)state;
    static const int64_t values[] = {0,  1,   127, 128,  255,  256,    65535,  65536,         4294967295,    4294967296, INT64_MAX,
                                     -1, -32, -33, -128, -129, -32768, -32769, -2147483648LL, -2147483649LL, INT64_MIN};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        AUTO_BUF b = BUF_INIT;
        struct wr w;
        wr_init(&w, &b, WR_MSGPACK);
        wr_int(&w, values[i]);
        struct mp c = mp_open(b.data, b.len);
        assert_int_equal(mp_peek(&c), MP_INT);
        assert_true(mp_int(&c) == values[i]);
        mp_done(&c);
        assert_true(mp_ok(&c));
        c = mp_open(b.data, b.len);
        mp_uint(&c);
        assert_int_equal(mp_ok(&c), values[i] >= 0);
    }
    struct mp c = mp_open("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9);
    assert_true(mp_uint(&c) == UINT64_MAX);
    c = mp_open("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9);
    assert_true(mp_int(&c) == 0);
    assert_false(mp_ok(&c));
}

static void counts_past_the_frame_are_refused(void **state)
{
    (void)state;
    /* 13 bytes that make msgpack-c's object tree ask for 137 GB */
    struct mp c = mp_open("\xdd\xff\xff\xff\xff\xdd\xff\xff\xff\xff\xc0\xc0\xc0", 13);
    assert_int_equal(mp_array(&c), 0);
    assert_string_equal(c.fault, "a map or array claims more elements than the frame can hold");
    c = mp_open("\xdf\x00\x00\x00\x02\x01\x02\x03", 8);
    mp_skip(&c);
    assert_false(mp_ok(&c));
    c = mp_open("\xdb\xff\xff\xff\xff"
                "abc",
                8);
    size_t n = 9;
    assert_string_equal(mp_str(&c, &n), "");
    assert_int_equal(n, 0);
    struct error err;
    assert_int_equal(mp_check(&c, c.at, &err), ST_BAD_REQUEST);
}

static void every_prefix_of_a_frame_is_a_fault(void **state)
{
    (void)state;
    AUTO_BUF b = BUF_INIT;
    struct wr w;
    wr_init(&w, &b, WR_MSGPACK);
    wr_map(&w, 4);
    wr_kstr(&w, "text", "caf\xc3\xa9");
    wr_kdouble(&w, "half", 0.5);
    wr_key(&w, "bytes");
    wr_bin(&w, "\0\1\2", 3);
    wr_key(&w, "list");
    wr_array(&w, 3);
    wr_null(&w);
    wr_bool(&w, true);
    wr_int(&w, -70000);
    wr_end(&w);
    wr_end(&w);
    assert_true(buf_ok(&b));
    for (size_t n = 0; n < b.len; n++) {
        struct mp c = mp_open(b.data, n);
        mp_skip(&c);
        assert_false(mp_ok(&c));
    }
    struct mp c = mp_open(b.data, b.len);
    mp_skip(&c);
    mp_done(&c);
    assert_true(mp_ok(&c));

    AUTO_BUF json = BUF_INIT;
    wr_init(&w, &json, WR_JSON);
    wr_mp(&w, b.data, b.len);
    assert_true(buf_ok(&json));
    assert_string_equal(json.data, "{\"text\":\"caf\xc3\xa9\",\"half\":0.5,\"bytes\":\"AAEC\",\"list\":[null,true,-70000]}");
}

static void json_both_ways(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1,-2,3.5,true,false,null,\"x\\\"y\\\\\\n\\u0001\"],\"b\":{\"c\":1e300,\"d\":5.0},\"e\":[]}";
    AUTO_JSON *j = NULL;
    assert_int_equal(json_parse(text, strlen(text), 1000, &j, NULL), ST_OK);
    AUTO_BUF packed = BUF_INIT;
    struct wr w;
    wr_init(&w, &packed, WR_MSGPACK);
    wr_json(&w, j);
    struct mp c = mp_open(packed.data, packed.len);
    AUTO_JSON *back = NULL;
    struct error err;
    assert_int_equal(mp_json(&c, &back, &err), ST_OK);
    assert_true(json_equal(j, back));
    AUTO_BUF plain = BUF_INIT;
    wr_init(&w, &plain, WR_JSON);
    wr_json(&w, j);
    AUTO_JSON *again = NULL;
    assert_int_equal(json_parse(plain.data, plain.len, 1000, &again, NULL), ST_OK);
    assert_true(json_equal(j, again));
}

static void json_refuses_what_has_no_form(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } rows[] = {
        {"\x81\x01\x02", 3, "a map key is not a text"},
        {"\xc4\x01x", 3, "bytes and extension types have no JSON form"},
        {"\xd4\x01x", 3, "bytes and extension types have no JSON form"},
        {"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", 9, "a number is not finite"},
        {"\xa2\xff\xfe", 3, "a text is not valid UTF-8"},
        {"\xa1\x00", 2, "a text contains a NUL byte"},
        {"\xc1", 1, "byte c1 is no MessagePack value"},
        {"", 0, "the frame ends inside a value"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mp c = mp_open(rows[i].bytes, rows[i].n);
        json_t *j = NULL;
        struct error err;
        assert_int_equal(mp_json(&c, &j, &err), ST_BAD_REQUEST);
        assert_null(j);
        assert_non_null(strstr(err.message, rows[i].says));
    }
}

static void depth_is_limited_when_reading_and_writing(void **state)
{
    (void)state;
    for (int levels = LIMIT_DEPTH; levels <= LIMIT_DEPTH + 1; levels++) {
        AUTO_BUF b = BUF_INIT;
        for (int i = 1; i < levels; i++)
            buf_putc(&b, (char)0x91);
        buf_putc(&b, (char)0x90);
        struct mp c = mp_open(b.data, b.len);
        AUTO_JSON *j = NULL;
        struct error err;
        assert_int_equal(mp_json(&c, &j, &err), levels <= LIMIT_DEPTH ? ST_OK : ST_BAD_REQUEST);
        if (!j)
            continue;
        AUTO_BUF out = BUF_INIT;
        struct wr w;
        wr_init(&w, &out, WR_JSON);
        wr_json(&w, j);
        assert_true(buf_ok(&out));
        assert_int_equal(out.len, 2 * LIMIT_DEPTH);
    }
    AUTO_BUF deep = BUF_INIT, out = BUF_INIT;
    for (int i = 0; i < 100000; i++)
        buf_putc(&deep, (char)0x91);
    buf_putc(&deep, (char)0x90);
    struct wr w;
    wr_init(&w, &out, WR_JSON);
    wr_mp(&w, deep.data, deep.len);
    assert_false(buf_ok(&out));
}

static void texts_leave_as_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"plain", "\"plain\""},
        {"a\xff"
         "b",
         "\"a\xef\xbf\xbd"
         "b\""},
        {"\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\""},                 /* overlong */
        {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* surrogate */
        {"\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xf0\x9f\x8d\x8e", "\"\xf0\x9f\x8d\x8e\""},
        {"cut\xe2\x82", "\"cut\xef\xbf\xbd\xef\xbf\xbd\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        AUTO_BUF json = BUF_INIT, packed = BUF_INIT;
        struct wr w;
        wr_init(&w, &json, WR_JSON);
        wr_str(&w, rows[i].in);
        assert_string_equal(json.data, rows[i].out);
        wr_init(&w, &packed, WR_MSGPACK);
        wr_str(&w, rows[i].in);
        struct mp c = mp_open(packed.data, packed.len);
        size_t n;
        const char *s = mp_str(&c, &n);
        assert_int_equal(n, strlen(rows[i].out) - 2);
        assert_memory_equal(s, rows[i].out + 1, n);
    }
}

static void numbers_as_json(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *text;
    } rows[] = {{0.1, "0.1"}, {5, "5.0"}, {1e300, "1e+300"}, {1.0 / 3, "0.3333333333333333"}, {-0.0, "-0.0"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        AUTO_BUF b = BUF_INIT;
        struct wr w;
        wr_init(&w, &b, WR_JSON);
        wr_double(&w, rows[i].v);
        assert_string_equal(b.data, rows[i].text);
    }
    AUTO_BUF b = BUF_INIT;
    struct wr w;
    wr_init(&w, &b, WR_JSON);
    wr_double(&w, NAN);
    assert_string_equal(b.data, "null");
}

static void link_round_trip(void **state)
{
    (void)state;
    AUTO_BUF b = BUF_INIT;
    struct link_message m = {.kind = LINK_PREVIEW};
    m.PREVIEW.launch = UINT64_MAX;
    m.PREVIEW.item = 42;
    m.PREVIEW.epoch = 3;
    m.PREVIEW.width = 2;
    m.PREVIEW.image = (struct view){"\0\1\2\3\4\5", 6};
    link_encode(&m, &b);
    assert_true(buf_ok(&b));
    struct link_message r;
    struct error err;
    assert_int_equal(link_decode(b.data, b.len, true, &r, &err), ST_OK);
    assert_int_equal(r.kind, LINK_PREVIEW);
    assert_true(r.PREVIEW.launch == UINT64_MAX);
    assert_int_equal(r.PREVIEW.item, 42);
    assert_int_equal(r.PREVIEW.height, 0);
    assert_int_equal(r.PREVIEW.image.n, 6);
    assert_memory_equal(r.PREVIEW.image.p, "\0\1\2\3\4\5", 6);
    assert_int_equal(link_decode(b.data, b.len, false, &r, &err), ST_PROTOCOL);
    assert_non_null(strstr(err.message, "wrong direction"));

    buf_reset(&b);
    m = (struct link_message){.kind = LINK_ASSIGN};
    m.ASSIGN.graph = view_of("{}");
    m.ASSIGN.want_previews = 4.5;
    link_encode(&m, &b);
    assert_int_equal(link_decode(b.data, b.len, false, &r, &err), ST_OK);
    assert_true(view_is(r.ASSIGN.graph, "{}"));
    assert_true(view_is(r.ASSIGN.workflow, ""));
    assert_true(r.ASSIGN.want_previews > 4.4 && r.ASSIGN.want_previews < 4.6);
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(link_decode(b.data, n, false, &r, &err), ST_PROTOCOL);
    buf_putc(&b, 0);
    assert_int_equal(link_decode(b.data, b.len, false, &r, &err), ST_PROTOCOL);
    assert_non_null(strstr(err.message, "bytes follow"));
}

static void a_frame_of_several_messages(void **state)
{
    (void)state;
    AUTO_BUF b = BUF_INIT;
    struct link_message r;
    struct error err;
    link_encode(&(struct link_message){.kind = LINK_STARTED, .STARTED = {.item = 7, .type = view_of("add")}}, &b);
    size_t first = b.len;
    link_encode(&(struct link_message){.kind = LINK_FINISH, .FINISH = {.item = 7, .outcome = view_of("completed")}}, &b);
    struct view frame = {b.data, b.len};
    assert_int_equal(link_next(&frame, true, &r, &err), ST_OK);
    assert_int_equal(r.kind, LINK_STARTED);
    assert_int_equal(frame.n, b.len - first);
    assert_int_equal(link_next(&frame, true, &r, &err), ST_OK);
    assert_true(view_is(r.FINISH.outcome, "completed"));
    assert_int_equal(frame.n, 0);
    frame = (struct view){b.data, b.len - 1};    /* the second one is cut off */
    assert_int_equal(link_next(&frame, true, &r, &err), ST_OK);
    assert_int_equal(link_next(&frame, true, &r, &err), ST_PROTOCOL);
}

static void link_refusals_name_message_and_field(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } rows[] = {
        {"\x92\x02\x81\x03\x05", 5, "HEARTBEAT, field 3 phase"},
        {"\x92\x63\x80", 3, "unknown message number 99"},
        {"\x93\x02\x80\x80", 4, "not an array"},
        {"\x80", 1, "not an array"},
        {"\x92\x02\xdf\xff\xff\xff\xff", 7, "claims more elements"},
    };
    struct link_message r;
    struct error err;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(link_decode(rows[i].bytes, rows[i].n, true, &r, &err), ST_PROTOCOL);
        assert_non_null(strstr(err.message, rows[i].says));
    }
    /* a field of a later version is skipped */
    assert_int_equal(link_decode("\x92\x02\x82\xcd\x03\xe8\x91\x91\x01\x02\x07", 11, true, &r, &err), ST_OK);
    assert_int_equal(r.HEARTBEAT.counter, 7);
}

static void views(void **state)
{
    (void)state;
    char text[6];
    view_text(view_of("abc"), text, sizeof text);
    assert_string_equal(text, "abc");
    view_text(view_of("abcd\xc3\xa9"), text, sizeof text);
    assert_string_equal(text, "abcd");
    view_text((struct view){NULL, 0}, text, sizeof text);
    assert_string_equal(text, "");
    char *copy = view_dup((struct view){NULL, 0});
    assert_string_equal(copy, "");
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_every_width),
        cmocka_unit_test(counts_past_the_frame_are_refused),
        cmocka_unit_test(every_prefix_of_a_frame_is_a_fault),
        cmocka_unit_test(json_both_ways),
        cmocka_unit_test(json_refuses_what_has_no_form),
        cmocka_unit_test(depth_is_limited_when_reading_and_writing),
        cmocka_unit_test(texts_leave_as_utf8),
        cmocka_unit_test(numbers_as_json),
        cmocka_unit_test(link_round_trip),
        cmocka_unit_test(a_frame_of_several_messages),
        cmocka_unit_test(link_refusals_name_message_and_field),
        cmocka_unit_test(views),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
