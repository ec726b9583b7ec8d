/* Texts and numbers as pydantic and Python take and write them. */
#include "graph_kit.h"

#include "graph/lax.h"

static void numbers_are_written_as_python_does(void **state)
{
    (void)state;
    static const struct {
        double d;
        const char *text;
    } table[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {0.1, "0.1"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {123456789012345680, "1.2345678901234568e+17"},
        {0.0001, "0.0001"},
        {0.00001, "1e-05"},
        {0.30000000000000004, "0.30000000000000004"},
        {1e22, "1e+22"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {-2.5, "-2.5"},
        {9007199254740993.0, "9007199254740992.0"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char text[NUMBER_TEXT];
        number_text(table[i].d, text);
        assert_string_equal(text, table[i].text);
    }
}

static void texts_are_read_as_pydantic_does(void **state)
{
    (void)state;
    int64_t i = 0;
    double d = 0;
    bool b = false;
    assert_int_equal(lax_integer(" +1_000.00\t", &i), LAX_OK);
    assert_int_equal(i, 1000);
    assert_int_equal(lax_integer("-9223372036854775808", &i), LAX_OK);
    assert_true(i == INT64_MIN);
    assert_int_equal(lax_integer("9223372036854775808", &i), LAX_RANGE);
    static const char *const no_integers[] = {"", " ", "+", "1.5", "1e3", "0x10", "_1", "1_", "1__0", "1 0"};
    for (size_t k = 0; k < sizeof no_integers / sizeof no_integers[0]; k++)
        assert_int_equal(lax_integer(no_integers[k], &i), LAX_SYNTAX);
    assert_int_equal(lax_number("-1_0.5e1", &d), LAX_OK);
    assert_true(d == -105);
    assert_int_equal(lax_number("-Infinity", &d), LAX_RANGE);
    assert_int_equal(lax_number("1e999", &d), LAX_RANGE);
    static const char *const no_numbers[] = {"", "0x10", "1,5", "nanx", "e5", "--1", "1e"};
    for (size_t k = 0; k < sizeof no_numbers / sizeof no_numbers[0]; k++)
        assert_int_equal(lax_number(no_numbers[k], &d), LAX_SYNTAX);
    assert_true(lax_boolean("OFF", &b) && !b);
    assert_true(lax_boolean("Yes", &b) && b);
    assert_false(lax_boolean(" yes", &b));
    char digits[2000];
    memset(digits, '1', sizeof digits - 1);
    digits[sizeof digits - 1] = '\0';
    assert_int_equal(lax_integer(digits, &i), LAX_SYNTAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_are_written_as_python_does),
                                       cmocka_unit_test(texts_are_read_as_pydantic_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
