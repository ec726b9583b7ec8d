#include "tests/unit/unit.h"

#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>

#include "common/log.h"

static int saved_stderr = -1;
static char capture_path[] = "/tmp/galley-unit-log-XXXXXX";

static void capture_start(void)
{
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    int fd = open(capture_path, O_RDWR | O_TRUNC);
    assert_true(fd >= 0);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static const char *capture_end(void)
{
    static char text[8192];
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    int fd = open(capture_path, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    assert_true(n >= 0);
    text[n] = 0;
    close(fd);
    return text;
}

static void text_lines(void **state)
{
    (void)state;
    char quoted[32];
    capture_start();
    log_setup("prog", LOG_INFO, false);
    LOGI("worker ready", "slot=%d device=%s", 1, log_quote("cpu:0", quoted, sizeof quoted));
    LOGD("unseen", NULL);
    LOGW("broken\nline", "text=%s", "two\nlines\x1b[31m");
    const char *text = capture_end();
    assert_says(text, " prog level=info event=\"worker ready\" slot=1 device=cpu:0\n");
    assert_says(text, " prog level=warning event=\"broken\\nline\" text=two\\nlines\\x1b[31m\n");
    assert_null(strstr(text, "unseen"));
}

static void json_lines(void **state)
{
    (void)state;
    char quoted[64];
    capture_start();
    log_setup("prog", LOG_DEBUG, true);
    LOGE("it \"failed\"", "item_id=%d ratio=%.2f ok=%s text=%s bad=%s id=%s", 42, 0.5, "true", log_quote("a \"b\" = c\n", quoted, sizeof quoted), "\xff\xfe", "0x1f");
    const char *text = capture_end();
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "event")), "it \"failed\"");
    assert_int_equal(json_integer_value(json_object_get(j, "item_id")), 42);
    assert_float_equal(json_real_value(json_object_get(j, "ratio")), 0.5, 0);
    assert_true(json_is_true(json_object_get(j, "ok")));
    assert_string_equal(json_string_value(json_object_get(j, "text")), "a \"b\" = c\n");
    assert_string_equal(json_string_value(json_object_get(j, "bad")), "??");
    assert_string_equal(json_string_value(json_object_get(j, "id")), "0x1f");
    assert_string_equal(json_string_value(json_object_get(j, "level")), "error");
    json_decref(j);
}

static void journal_lines_have_a_priority_and_no_time(void **state)
{
    (void)state;
    capture_start();
    struct stat st;
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    char stream[64];
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_setup("prog", LOG_INFO, false);
    LOGE("down", NULL);
    LOGI("up", NULL);
    setenv("JOURNAL_STREAM", "1:1", 1);     /* somebody else's: inherited, but stderr is not it */
    log_setup("prog", LOG_INFO, false);
    LOGI("elsewhere", NULL);
    unsetenv("JOURNAL_STREAM");
    const char *text = capture_end();
    assert_int_equal(strncmp(text, "<3>prog level=error event=down\n<6>prog level=info event=up\n", 57), 0);
    assert_null(strstr(text, "<6>prog level=info event=elsewhere"));
}

static void quoting(void **state)
{
    (void)state;
    char ret[16];
    assert_string_equal(log_quote("plain", ret, sizeof ret), "plain");
    assert_string_equal(log_quote("", ret, sizeof ret), "\"\"");
    assert_string_equal(log_quote(NULL, ret, sizeof ret), "\"\"");
    assert_string_equal(log_quote("a=b", ret, sizeof ret), "\"a=b\"");
    assert_string_equal(log_quote("a\"\\", ret, sizeof ret), "\"a\\\"\\\\\"");
    for (size_t size = 8; size <= sizeof ret; size++) {
        log_quote("\x01\x02\x03\x04\x05\x06 and much more than fits", ret, size);
        assert_true(strlen(ret) < size);
        assert_int_equal(ret[strlen(ret) - 1], '"');
    }
    assert_string_equal(log_quote("a word that is far too long", ret, sizeof ret), "\"a word ...\"");
}

static void level_names(void **state)
{
    (void)state;
    enum log_level level = LOG_INFO;
    assert_true(log_level_from_name("debug", &level));
    assert_int_equal(level, LOG_DEBUG);
    assert_true(log_level_from_name("critical", &level));
    assert_int_equal(level, LOG_ERROR);
    assert_false(log_level_from_name("loud", &level));
}

int main(void)
{
    int fd = mkstemp(capture_path);
    if (fd < 0)
        return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_lines),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(journal_lines_have_a_priority_and_no_time),
        cmocka_unit_test(quoting),
        cmocka_unit_test(level_names),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(capture_path);
    return failed;
}
