#include "client/terminal.h"

#include <langinfo.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "client/command.h"

static volatile sig_atomic_t got_signal;

static void on_signal(int signo)
{
    if (got_signal) {
        static const char newline[] = "\n";
        if (write(STDERR_FILENO, newline, 1) < 0)
            _exit(EXIT_INTERRUPTED);
        _exit(EXIT_INTERRUPTED);
    }
    got_signal = signo;
}

void signals_setup(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    const int ending[] = {SIGINT, SIGTERM, SIGHUP};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < COUNT_OF(ending); i++) {
        struct sigaction before;
        if (sigaction(ending[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN)
            continue; /* nohup: stays ignored */
        sigaction(ending[i], &action, NULL);
    }
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

int interrupted(void) { return got_signal; }

bool terminal_is(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && term && term[0] && strcmp(term, "dumb") != 0;
}

bool terminal_color(int fd)
{
    const char *no = getenv("NO_COLOR");
    return terminal_is(fd) && !(no && no[0]);
}

void terminal_size(int fd, int *ret_columns, int *ret_rows)
{
    struct winsize size = {0};
    bool known = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
    *ret_columns = known ? size.ws_col : 80;
    *ret_rows = known ? size.ws_row : 24;
}

bool terminal_utf8(void) { return strcmp(nl_langinfo(CODESET), "UTF-8") == 0; }

/* skip_escape returns the bytes of the escape sequence at S, 0 if there is none. */
static size_t skip_escape(const char *s, size_t n)
{
    if (n < 2 || s[0] != '\033' || s[1] != '[')
        return 0;
    size_t i = 2;
    while (i < n && (unsigned char)s[i] < 0x40)
        i++;
    return i < n ? i + 1 : n;
}

/* next_char decodes one character: its bytes, and its cells (-1: a control character or not valid text). */
static size_t next_char(const char *s, size_t n, int *ret_cells)
{
    mbstate_t state = {0};
    wchar_t c;
    size_t used = mbrtowc(&c, s, n, &state);
    if (used == 0 || used > n) {
        *ret_cells = -1;
        return 1;
    }
    *ret_cells = c >= 0x80 && c < 0xa0 ? -1 : wcwidth(c);
    return used;
}

int text_width(const char *s, size_t n)
{
    int width = 0, cells;
    for (size_t i = 0; i < n;) {
        size_t skip = skip_escape(s + i, n - i);
        if (skip) {
            i += skip;
            continue;
        }
        i += next_char(s + i, n - i, &cells);
        width += cells > 0 ? cells : 0;
    }
    return width;
}

static int clean_width(const char *s, size_t n)
{
    int width = 0, cells;
    for (size_t i = 0; i < n;) {
        i += next_char(s + i, n - i, &cells);
        width += cells < 0 ? 1 : cells;
    }
    return width;
}

void text_put(struct buf *out, const char *s, int columns)
{
    size_t n = strlen(s);
    bool cut = columns >= 0 && clean_width(s, n) > columns;
    int room = columns < 0 ? 1 << 30 : cut && columns >= 2 ? columns - 2 : columns;
    for (size_t i = 0; i < n;) {
        int cells;
        size_t used = next_char(s + i, n - i, &cells);
        if ((cells < 0 ? 1 : cells) > room)
            break;
        room -= cells < 0 ? 1 : cells;
        if (cells >= 0)
            buf_put(out, s + i, used);
        else
            buf_putc(out, s[i] == '\n' || s[i] == '\t' ? ' ' : '?');
        i += used;
    }
    if (cut && columns >= 2)
        buf_puts(out, "..");
}

void table_fini(struct table *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->cells[i]);
    free(t->cells);
}

void table_cell(struct table *t, const char *fmt, ...)
{
    if (t->n == t->room) {
        size_t room = t->room ? 2 * t->room : 64;
        char **more = realloc(t->cells, room * sizeof *more);
        if (!more)
            return;
        t->cells = more;
        t->room = room;
    }
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    AUTO_BUF clean = BUF_INIT;
    text_put(&clean, text, -1);
    char *cell = clean.data ? buf_take(&clean, NULL) : strdup("");
    if (cell)
        t->cells[t->n++] = cell;
}

void table_print(const struct table *t, FILE *to)
{
    int widest[32] = {0};
    size_t columns = t->columns < COUNT_OF(widest) ? t->columns : COUNT_OF(widest);
    for (size_t i = 0; i < t->n; i++) {
        int width = text_width(t->cells[i], strlen(t->cells[i]));
        if (width > widest[i % columns])
            widest[i % columns] = width;
    }
    for (size_t i = 0; i < t->n; i++) {
        bool last = i % columns == columns - 1 || i == t->n - 1;
        int pad = last ? 0 : widest[i % columns] - text_width(t->cells[i], strlen(t->cells[i])) + 2;
        fprintf(to, "%s%*s%s", t->cells[i], pad, "", last ? "\n" : "");
    }
}
