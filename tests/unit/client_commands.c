/* The table of commands: every one has its help, and the man page names every command and option. */
#include "unit/unit.h"

#include "client/command.h"
#include "common/buf.h"

static char *man_page(void)
{
    FILE *f = fopen(TEST_SOURCE_DIR "/docs/man/galley.1", "r");
    assert_non_null(f);
    char *text = calloc(1, 1 << 20);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 1000);
    fclose(f);
    char *to = text; /* \- is how a page writes a dash */
    for (const char *p = text; *p; p++)
        if (*p != '\\')
            *to++ = *p;
    *to = 0;
    return text;
}

static void check_command(const struct command *c, const char *name, const char *man)
{
    AUTO_BUF help = BUF_INIT;
    assert_non_null(c->summary);
    command_help(c, name, &help);
    assert_says(help.data, c->summary);
    assert_says(man, name);
    assert_true(c->max_words < 0 || c->min_words <= c->max_words);
    for (size_t i = 0; i < c->n_options; i++) {
        char option[80];
        snprintf(option, sizeof option, "--%s", c->options[i].name);
        assert_says(help.data, option);
        assert_says(man, option);
        assert_true(c->options[i].kind == OPTION_LATER || c->options[i].offset < c->options_bytes);
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(c->options[k].name, c->options[i].name);
            assert_true(!c->options[i].letter || c->options[i].letter != c->options[k].letter);
        }
        for (size_t k = 0; k < n_common_rows; k++) {
            assert_string_not_equal(common_rows[k].name, c->options[i].name);
            assert_true(!c->options[i].letter || c->options[i].letter != common_rows[k].letter);
        }
    }
}

static void every_command(void **state)
{
    (void)state;
    char *man = man_page();
    for (size_t i = 0; i < n_commands; i++) {
        const struct command *c = commands[i];
        assert_true((c->run != NULL) != (c->n_parts > 0));
        check_command(c, c->name, man);
        for (size_t k = 0; k < c->n_parts; k++) {
            char name[96];
            snprintf(name, sizeof name, "%s %s", c->name, c->parts[k].name);
            check_command(&c->parts[k], name, man);
        }
    }
    free(man);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_command)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
