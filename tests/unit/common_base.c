/* error, buf, arena, json, hash, clock. */
#include "tests/unit/unit.h"

#include <errno.h>

#include "common/arena.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/hash.h"
#include "common/json.h"

static void status_names_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < ST_COUNT; i++) {
        assert_int_equal(status_from_name(status_name((enum status)i)), i);
        assert_true(strlen(status_text((enum status)i)) > 0);
    }
    assert_int_equal(status_from_name("no_such_status"), ST_INTERNAL);
    assert_int_equal(status_action(ST_BAD_GRAPH), ACT_CALLER);
    assert_int_equal(status_action(ST_QUEUE_FULL), ACT_RETRY);
}

static void errors_carry_code_place_and_prefix(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(FAIL(&err, BAD_GRAPH, "node '%s' has no value", "a"), ST_BAD_GRAPH);
    assert_string_equal(err.message, "node 'a' has no value");
    assert_true(err.line > 0);
    assert_int_equal(error_prefix(&err, "batch %d", 3), ST_BAD_GRAPH);
    assert_string_equal(err.message, "batch 3: node 'a' has no value");
    errno = ENOSPC;
    assert_int_equal(FAIL_ERRNO(&err, "cannot write '%s'", "x"), ST_DISK_FULL);
    assert_says(err.message, "cannot write 'x': No space left");
    assert_int_equal(FAIL(NULL, IO, "nobody listens"), ST_IO);
}

static void long_errors_are_cut_not_overrun(void **state)
{
    (void)state;
    struct error err = {0};
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    FAIL(&err, IO, "%s", text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    error_prefix(&err, "%s", text);
    assert_true(strlen(err.message) < sizeof err.message);
}

static void buf_grows_and_hands_over(void **state)
{
    (void)state;
    AUTO_BUF b = BUF_INIT;
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%d,", i);
    buf_putc(&b, '!');
    assert_true(buf_ok(&b));
    assert_int_equal(b.len, 3891);
    assert_int_equal(b.data[b.len], 0);
    size_t len = 0;
    char *taken = buf_take(&b, &len);
    assert_int_equal(len, 3891);
    assert_string_equal(taken + len - 5, "999,!" );
    free(taken);
    assert_int_equal(b.len, 0);
    char *empty = buf_take(&b, &len);
    assert_string_equal(empty, "");
    free(empty);
}

static void buf_failure_sticks(void **state)
{
    (void)state;
    AUTO_BUF b = BUF_INIT;
    assert_null(buf_reserve(&b, SIZE_MAX / 2));
    buf_puts(&b, "more");
    assert_false(buf_ok(&b));
    assert_null(buf_take(&b, NULL));
}

static void note(void *arg)
{
    char **at = arg;
    *(*at)++ = 'x';
}

static void arena_caps_and_closes(void **state)
{
    (void)state;
    struct arena *a = arena_new(4096);
    char marks[4] = "", *at = marks;
    char *p = arena_alloc(a, 100);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    assert_int_equal(p[99], 0);
    assert_string_equal(arena_strdup(a, "word"), "word");
    assert_null(arena_alloc(a, 8192));
    assert_int_equal(arena_defer(a, note, &at), 0);
    assert_int_equal(arena_defer(a, note, &at), 0);
    arena_reset(a);
    assert_int_equal(at - marks, 2);
    assert_int_equal(arena_used(a), 0);
    assert_non_null(arena_alloc(a, 4000));
    arena_free(a);
    arena_free(NULL);
}

static enum status parse(const char *text, struct error *err)
{
    json_t *j = NULL;
    enum status s = json_parse(text, strlen(text), 1 << 20, &j, err);
    json_decref(j);
    return s;
}

static void json_has_limits(void **state)
{
    (void)state;
    struct error err = {0};
    assert_ok(parse("{\"a\": [1, 2.5, null, \"\\u00e9\"]}", &err), err);
    assert_int_equal(parse("{\"a\": }", &err), ST_BAD_REQUEST);
    assert_says(err.message, "line 1, column");
    assert_int_equal(parse("[NaN]", &err), ST_BAD_REQUEST);
    assert_int_equal(parse("[\"\\ud800\"]", &err), ST_BAD_REQUEST);
    assert_int_equal(parse("[1] 2", &err), ST_BAD_REQUEST);
    json_t *j = NULL;
    assert_int_equal(json_parse("[1234]", 6, 5, &j, &err), ST_TOO_LARGE);
    AUTO_BUF deep = BUF_INIT;
    for (int depth = 200; depth <= 201; depth++) {
        buf_reset(&deep);
        for (int i = 0; i < depth; i++)
            buf_putc(&deep, '[');
        for (int i = 0; i < depth; i++)
            buf_putc(&deep, ']');
        assert_int_equal(parse(deep.data, &err), depth <= 200 ? ST_OK : ST_TOO_LARGE);
    }
    assert_ok(parse("\"[[[[ in a string \\\" [[[\"", &err), err);
}

static void json_reads_members(void **state)
{
    (void)state;
    AUTO_JSON *j = json_pack("{s:i, s:f, s:s, s:b}", "i", 3, "f", 4.0, "s", "text", "b", 1);
    assert_int_equal(json_int(j, "i", -1), 3);
    assert_int_equal(json_int(j, "f", -1), 4);
    assert_int_equal(json_int(j, "s", -1), -1);
    assert_string_equal(json_str(j, "s", "no"), "text");
    assert_string_equal(json_str(j, "i", "no"), "no");
    assert_true(json_flag(j, "b", false));
    assert_false(json_flag(NULL, "b", false));
    AUTO_JSON *real = json_real(0.1);
    char *text = json_text(real);
    assert_float_equal(strtod(text, NULL), 0.1, 0);
    free(text);
}

static void nearest_name_finds_slips(void **state)
{
    (void)state;
    const char *names[] = {"max_queue_size", "models_dir", "precision"};
    assert_string_equal(nearest_name("max_queu_size", names, 3), "max_queue_size");
    assert_string_equal(nearest_name("model_dir", names, 3), "models_dir");
    assert_null(nearest_name("completely_else", names, 3));
}

static void sha256_of_known_texts(void **state)
{
    (void)state;
    /* FIPS 180-4 examples: "abc" and the empty text. */
    uint8_t digest[SHA256_BYTES];
    char text[2 * SHA256_BYTES + 1];
    sha256("abc", 3, digest);
    hex(digest, sizeof digest, text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char *dir = temp_dir();
    struct error err = {0};
    int64_t bytes = -1;
    assert_ok(sha256_file(write_text(dir, "empty", ""), digest, &bytes, &err), err);
    hex(digest, sizeof digest, text);
    assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_int_equal(bytes, 0);
    assert_int_equal(sha256_file("/nonexistent/file", digest, &bytes, &err), ST_NOT_FOUND);
    temp_dir_remove(dir);
}

static void uuids_have_their_shape(void **state)
{
    (void)state;
    char a[UUID_TEXT], b[UUID_TEXT];
    uuid_new(a);
    uuid_new(b);
    assert_string_not_equal(a, b);
    assert_int_equal(strlen(a), 36);
    assert_int_equal(a[8], '-');
    assert_int_equal(a[14], '4');
    assert_non_null(strchr("89ab", a[19]));
    uuid_derived("batch", 1, a);
    uuid_derived("batch", 1, b);
    assert_string_equal(a, b);
    uuid_derived("batch", 2, b);
    assert_string_not_equal(a, b);
}

static void stamps_have_invokeais_form(void **state)
{
    (void)state;
    char text[24];
    clock_stamp(1769860800123, text);
    assert_string_equal(text, "2026-01-31 12:00:00.123");
    clock_stamp(-1, text);
    assert_string_equal(text, "1969-12-31 23:59:59.999");
    clock_stamp(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31 23:59:59.999");
    clock_stamp(INT64_MIN, text);
    assert_string_equal(text, "0000-01-01 00:00:00.000");
}

static void the_test_clock_stands_still(void **state)
{
    (void)state;
    clock_set_test(5000);
    assert_int_equal(clock_ms(), 5000);
    assert_int_equal(clock_us(), 5000000);
    assert_true(clock_real_ms() != 5000);
    clock_set_test(-1);
    int64_t a = clock_us();
    assert_true(clock_us() >= a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_names_round_trip),
        cmocka_unit_test(errors_carry_code_place_and_prefix),
        cmocka_unit_test(long_errors_are_cut_not_overrun),
        cmocka_unit_test(buf_grows_and_hands_over),
        cmocka_unit_test(buf_failure_sticks),
        cmocka_unit_test(arena_caps_and_closes),
        cmocka_unit_test(json_has_limits),
        cmocka_unit_test(json_reads_members),
        cmocka_unit_test(nearest_name_finds_slips),
        cmocka_unit_test(sha256_of_known_texts),
        cmocka_unit_test(uuids_have_their_shape),
        cmocka_unit_test(stamps_have_invokeais_form),
        cmocka_unit_test(the_test_clock_stands_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
