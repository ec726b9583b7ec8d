/* The command line parser: every kind of value, and every way to get one wrong, with the words of the message. */
#include "unit/unit.h"

#include "client/command.h"
#include "client/options.h"

struct values {
    bool flag;
    const char *text;
    struct texts many;
    struct whole whole;
    struct decimal decimal;
    struct size size;
};
#define AT(m) offsetof(struct values, m)
static const struct option_row rows[] = {
    {"flag", 'f', OPTION_FLAG, AT(flag), 0, 0, NULL, ""},      {"text", 't', OPTION_TEXT, AT(text), 0, 0, "T", ""},
    {"many", 0, OPTION_TEXTS, AT(many), 0, 0, "T", ""},        {"steps", 0, OPTION_WHOLE, AT(whole), 1, 100, "N", ""},
    {"cfg", 'c', OPTION_DECIMAL, AT(decimal), 1, 30, "N", ""}, {"size", 0, OPTION_SIZE, AT(size), 8, 8192, "WxH", ""},
    {"mask", 0, OPTION_LATER, 0, 0, 0, "IMAGE", ""},
};

static enum status parse(struct values *v, char **argv, char **words, int *n, struct error *err)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    memset(v, 0, sizeof *v);
    const struct option_set set = {rows, COUNT_OF(rows), v};
    return options_parse(&set, 1, argc, argv, words, n, err);
}

static void every_kind(void **state)
{
    (void)state;
    struct values v;
    struct error err;
    char *words[16], *argv[] = {"a red apple", "--flag", "-tone",         "--many=1", "--many", "2",      "--steps", "7",
                                "-c",          "2.5",    "--size=64x128", "-",        "--",     "--flag", NULL};
    int n;
    assert_int_equal(parse(&v, argv, words, &n, &err), ST_OK);
    assert_true(v.flag);
    assert_string_equal(v.text, "one");
    assert_int_equal(v.many.n, 2);
    assert_string_equal(v.many.items[1], "2");
    assert_true(v.whole.given && v.whole.value == 7);
    assert_true(v.decimal.given && v.decimal.value == 2.5);
    assert_true(v.size.given && v.size.width == 64 && v.size.height == 128);
    assert_int_equal(n, 3);
    assert_string_equal(words[0], "a red apple");
    assert_string_equal(words[1], "-");
    assert_string_equal(words[2], "--flag");
}

static void letters_together(void **state)
{
    (void)state;
    struct values v;
    struct error err;
    char *words[4], *argv[] = {"-ft", "x", NULL};
    int n;
    assert_int_equal(parse(&v, argv, words, &n, &err), ST_OK);
    assert_true(v.flag);
    assert_string_equal(v.text, "x");
}

static void wrong_values(void **state)
{
    (void)state;
    static const struct {
        const char *words[3];
        enum status code;
        const char *says[2];
    } bad[] = {
        {{"--steps", "0"}, ST_BAD_ARGUMENT, {"--steps", "1 to 100"}},
        {{"--steps", "101"}, ST_BAD_ARGUMENT, {"--steps", "'101'"}},
        {{"--steps", "7x"}, ST_BAD_ARGUMENT, {"--steps", "'7x'"}},
        {{"--steps", ""}, ST_BAD_ARGUMENT, {"--steps", "whole"}},
        {{"--steps", "99999999999999999999"}, ST_BAD_ARGUMENT, {"--steps", "100"}},
        {{"--cfg", "abc"}, ST_BAD_ARGUMENT, {"--cfg", "'abc'"}},
        {{"--cfg", "nan"}, ST_BAD_ARGUMENT, {"--cfg", "'nan'"}},
        {{"--cfg", "0.5"}, ST_BAD_ARGUMENT, {"--cfg", "1 to 30"}},
        {{"--size", "axb"}, ST_BAD_ARGUMENT, {"--size", "WIDTHxHEIGHT"}},
        {{"--size", "100x101"}, ST_BAD_ARGUMENT, {"--size", "multiples of 8"}},
        {{"--size", "64x"}, ST_BAD_ARGUMENT, {"--size", "'64x'"}},
        {{"--size", "0x64"}, ST_BAD_ARGUMENT, {"--size", "from 8"}},
        {{"--size", "-64x64"}, ST_BAD_ARGUMENT, {"--size", "from 8"}},
        {{"--size", "64x64x64"}, ST_BAD_ARGUMENT, {"--size", "64x64x64"}},
        {{"--size"}, ST_BAD_ARGUMENT, {"--size", "lacks its value"}},
        {{"--flag=1"}, ST_BAD_ARGUMENT, {"--flag", "no value"}},
        {{"--nonsense"}, ST_BAD_ARGUMENT, {"--nonsense", "--help"}},
        {{"--step", "3"}, ST_BAD_ARGUMENT, {"--step", "is --steps meant"}},
        {{"-x"}, ST_BAD_ARGUMENT, {"-x", "--help"}},
        {{"--mask", "m.png"}, ST_NOT_AVAILABLE, {"--mask", "not available"}},
        {{"--mask=m.png"}, ST_NOT_AVAILABLE, {"--mask", "not available"}},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct values v;
        struct error err = {0};
        char *words[4], *argv[] = {(char *)bad[i].words[0], (char *)bad[i].words[1], (char *)bad[i].words[2], NULL};
        int n;
        assert_int_equal(parse(&v, argv, words, &n, &err), bad[i].code);
        for (size_t k = 0; k < 2; k++)
            if (!strstr(err.message, bad[i].says[k]))
                fail_msg("%s: '%s' does not say '%s'", bad[i].words[0], err.message, bad[i].says[k]);
    }
}

static void too_many_texts(void **state)
{
    (void)state;
    struct values v;
    struct error err;
    char *words[140], *argv[140] = {0};
    int n;
    for (int i = 0; i < 130; i++)
        argv[i] = i % 2 ? "v" : "--many";
    assert_int_equal(parse(&v, argv, words, &n, &err), ST_BAD_ARGUMENT);
    assert_non_null(strstr(err.message, "64"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind), cmocka_unit_test(letters_together), cmocka_unit_test(wrong_values),
                                       cmocka_unit_test(too_many_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
