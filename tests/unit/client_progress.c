/* Bars as a pure function, and the painter against a small terminal: what stands on the screen after resizes is the last block only. */
#include "unit/unit.h"
#include <locale.h>

#include "client/command.h"
#include "client/painter.h"
#include "client/progress.h"
#include "client/terminal.h"

static galley_item item(int64_t id, const char *device, int64_t step, int64_t total, double rate)
{
    galley_item it = {.item_id = id, .step = step, .total = total, .it_per_s = rate};
    snprintf(it.device, sizeof it.device, "%s", device);
    snprintf(it.phase, sizeof it.phase, "denoise");
    return it;
}

static size_t lines_in(const struct buf *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->len; i++)
        n += b->data[i] == '\n';
    return n;
}

static void one_bar(void **state)
{
    (void)state;
    galley_item it = item(42, "cpu:0", 10, 20, 5);
    snprintf(it.message, sizeof it.message, "step\033[2J of\nmany");
    struct progress_view v = {&it, 1, NULL, 100, 10, false, false};
    AUTO_BUF out = BUF_INIT;
    progress_bars(&v, &out);
    assert_int_equal(lines_in(&out), 1);
    assert_non_null(strstr(out.data, "42 cpu:0"));
    assert_non_null(strstr(out.data, "[############------------]"));
    assert_non_null(strstr(out.data, "10/20"));
    assert_non_null(strstr(out.data, "5.0 it/s"));
    assert_non_null(strstr(out.data, "ETA 0:02"));
    assert_non_null(strstr(out.data, "ETA 0:02 step?[2J of many"));
    assert_null(strchr(out.data, '\033'));
}

static void slow_and_unknown_speed(void **state)
{
    (void)state;
    galley_item it[] = {item(1, "cpu:0", 1, 3602, 0.25), item(2, "cpu:1", 0, 0, 3)};
    struct progress_view v = {it, 2, NULL, 100, 10, false, false};
    AUTO_BUF out = BUF_INIT;
    progress_bars(&v, &out);
    assert_non_null(strstr(out.data, "4.0 s/it"));
    assert_non_null(strstr(out.data, "ETA 4:00:04"));
    assert_null(strstr(strchr(out.data, '\n'), "/s"));
}

static void never_wider_never_taller(void **state)
{
    (void)state;
    galley_item it[20];
    for (int i = 0; i < 20; i++) {
        it[i] = item(1000 + i, "cuda:0", i * 1000000, 20000000, 0.001 + i);
        snprintf(it[i].message, sizeof it[i].message,
                 "a long message with w\xc3\xaf"
                 "de \xe6\xbc\xa2\xe5\xad\x97 letters that goes on and on and on and on");
    }
    for (int utf8 = 0; utf8 < 2; utf8++)
        for (int color = 0; color < 2; color++)
            for (int columns = 2; columns < 140; columns++)
                for (int max = 0; max < 24; max += 3) {
                    struct progress_view v = {it, 20, max % 2 ? "the queue is paused" : NULL, columns, max, color, utf8};
                    AUTO_BUF out = BUF_INIT;
                    progress_bars(&v, &out);
                    assert_true(lines_in(&out) <= (size_t)max);
                    for (char *line = out.data; line && *line;) {
                        char *end = strchr(line, '\n');
                        assert_true(text_width(line, (size_t)(end - line)) <= columns - 1);
                        line = end + 1;
                    }
                }
}

static void rest_is_counted(void **state)
{
    (void)state;
    galley_item it[9];
    for (int i = 0; i < 9; i++)
        it[i] = item(i + 1, "cpu:0", 1, 2, 1);
    struct progress_view v = {it, 9, "a note", 80, 5, false, false};
    AUTO_BUF out = BUF_INIT;
    progress_bars(&v, &out);
    assert_int_equal(lines_in(&out), 5);
    assert_non_null(strstr(out.data, "and 6 more running"));
    assert_non_null(strstr(out.data, "a note"));
    v.max_lines = 10;
    buf_reset(&out);
    progress_bars(&v, &out);
    assert_int_equal(lines_in(&out), 10);
    assert_null(strstr(out.data, "more running"));
}

static void a_line_without_a_terminal(void **state)
{
    (void)state;
    galley_item it[] = {item(3, "cpu:0", 5, 20, 2), item(4, "cpu:1", 0, 0, 0)};
    struct progress_view v = {it, 2, "a note", 80, 1, false, false};
    AUTO_BUF out = BUF_INIT;
    progress_line(&v, &out);
    assert_string_equal(out.data, "item 3 on cpu:0: denoise 5/20, 2.0 it/s, ETA 0:08; item 4 on cpu:1: denoise; a note\n");
}

/* A terminal of the kind that wraps again when its width changes: logical lines, and a cursor in the last rows. */
enum { MAX_LINES = 64, MAX_WIDTH = 200 };
struct screen {
    char lines[MAX_LINES][MAX_WIDTH + 1];
    int n, columns, row, column;
}; /* rows are stored as they stand */

static void screen_resize(struct screen *s, int columns)
{
    struct screen to = {.columns = columns};
    for (int i = 0; i <= s->row; i++) {
        int len = (int)strlen(s->lines[i]);
        do {
            int part = len > columns ? columns : len;
            snprintf(to.lines[to.n++], MAX_WIDTH + 1, "%.*s", part, s->lines[i] + strlen(s->lines[i]) - len);
            len -= part;
        } while (len > 0);
    }
    to.row = to.n - 1;
    to.column = s->column;
    *s = to;
}

static void screen_write(struct screen *s, const char *p)
{
    while (*p) {
        int count = 0;
        if (*p == '\033') {
            p += 2;
            while (*p >= '0' && *p <= '9')
                count = 10 * count + *p++ - '0';
            if (*p == 'A')
                s->row = s->row > count ? s->row - count : 0;
            else if (*p == 'K')
                s->lines[s->row][s->column] = 0;
            else if (*p == 'J') {
                s->lines[s->row][s->column] = 0;
                for (int i = s->row + 1; i < MAX_LINES; i++)
                    s->lines[i][0] = 0;
            } else if (*p != 'm')
                fail_msg("the painter used ESC [ %c", *p);
        } else if (*p == '\r') {
            s->column = 0;
        } else if (*p == '\n') {
            s->row++;
            s->column = 0;
            assert_true(s->row < MAX_LINES);
        } else {
            char *line = s->lines[s->row];
            bool at_end = line[s->column] == 0;
            line[s->column++] = *p;
            if (at_end)
                line[s->column] = 0;
            assert_true(s->column < s->columns);
        }
        p++;
    }
}

static void paint(struct painter *p, struct screen *s, const char *lines)
{
    AUTO_BUF out = BUF_INIT;
    painter_frame(p, lines, strlen(lines), s->columns, &out);
    if (out.data)
        screen_write(s, out.data);
}

static void painter_draws_over(void **state)
{
    (void)state;
    struct painter p = {0};
    struct screen s = {.columns = 80};
    screen_write(&s, "$ galley\n");
    paint(&p, &s, "first long line\nsecond\n");
    paint(&p, &s, "first\n");
    assert_string_equal(s.lines[0], "$ galley");
    assert_string_equal(s.lines[1], "first");
    assert_string_equal(s.lines[2], "");
    assert_int_equal(s.row, 2);
    paint(&p, &s, "a\nb\nc\n");
    assert_string_equal(s.lines[3], "c");
    paint(&p, &s, "");
    assert_string_equal(s.lines[1], "");
    assert_int_equal(s.row, 1);
    assert_int_equal(p.n, 0);
}

static void painter_survives_resize(void **state)
{
    (void)state;
    struct painter p = {0};
    struct screen s = {.columns = 80};
    screen_write(&s, "$ galley\n");
    paint(&p, &s, "0123456789012345678901234567890123456789\nshort\n");
    screen_resize(&s, 15);
    paint(&p, &s, "narrow\nshort\n");
    assert_string_equal(s.lines[0], "$ galley");
    assert_string_equal(s.lines[1], "narrow");
    assert_string_equal(s.lines[2], "short");
    assert_string_equal(s.lines[3], "");
    assert_int_equal(s.row, 3);
    screen_resize(&s, 100);
    paint(&p, &s, "wide again\n");
    assert_string_equal(s.lines[1], "wide again");
    assert_string_equal(s.lines[2], "");
}

static void tiles_fit(void **state)
{
    (void)state;
    static uint8_t pixels[16 * 16 * 3];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 7);
    galley_item it[5];
    for (int i = 0; i < 5; i++) {
        it[i] = item(i, "cpu:0", 1, 2, 1);
        it[i].preview = pixels;
        it[i].preview_width = it[i].preview_height = 16;
    }
    AUTO_BUF out = BUF_INIT;
    tiles_lines(it, 5, 60, 8, &out);
    if (!tiles_available()) {
        assert_int_equal(out.len, 0);
        skip();
    }
    assert_int_equal(lines_in(&out), 8);
    for (char *line = out.data; *line;) {
        char *end = strchr(line, '\n');
        int width = text_width(line, (size_t)(end - line));
        assert_true(width <= 59 && width >= 3 * 16);
        line = end + 1;
    }
    buf_reset(&out);
    tiles_lines(it, 5, 60, 2, &out);
    assert_int_equal(out.len, 0);
}

int main(void)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_bar),
        cmocka_unit_test(slow_and_unknown_speed),
        cmocka_unit_test(never_wider_never_taller),
        cmocka_unit_test(rest_is_counted),
        cmocka_unit_test(a_line_without_a_terminal),
        cmocka_unit_test(painter_draws_over),
        cmocka_unit_test(painter_survives_resize),
        cmocka_unit_test(tiles_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
