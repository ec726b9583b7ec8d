#include "common/log.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"

static const struct {
    const char *name;
    int priority;     /* syslog's number, for journald */
} levels[] = {
    [LOG_ERROR] = {"error", 3},
    [LOG_WARN] = {"warning", 4},
    [LOG_INFO] = {"info", 6},
    [LOG_DEBUG] = {"debug", 7},
};

/* Set by log_setup, which a reload may call while other threads log. */
static const char *_Atomic program_name = "galley";
static _Atomic enum log_level highest = LOG_INFO;
static atomic_bool as_json, to_journal;

/* stderr_is_journal compares stderr with what systemd says it connected: JOURNAL_STREAM is "DEVICE:INODE" (systemd.exec(5)). */
static bool stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    return text && sscanf(text, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_setup(const char *program, enum log_level level, bool json)
{
    program_name = program;
    highest = level;
    as_json = json;
    to_journal = stderr_is_journal();
}

bool log_level_from_name(const char *name, enum log_level *ret)
{
    if (strcmp(name, "critical") == 0) {
        *ret = LOG_ERROR;
        return true;
    }
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (strcmp(levels[i].name, name) == 0) {
            *ret = (enum log_level)i;
            return true;
        }
    return false;
}

/* escape_of returns how byte C is written inside a line, NULL if as itself. SCRATCH holds the answer. */
static const char *escape_of(unsigned char c, char scratch[5])
{
    if (c == '\n')
        return "\\n";
    if (c == '\t')
        return "\\t";
    if (c >= 0x20 && c != 0x7f)
        return NULL;
    snprintf(scratch, 5, "\\x%02x", c);
    return scratch;
}

static bool is_plain_word(const char *s)
{
    for (const char *p = s; *p; p++)
        if ((unsigned char)*p <= 0x20 || *p == 0x7f || strchr("\"\\=", *p))
            return false;
    return *s != 0;
}

const char *log_quote(const char *s, char *ret, size_t size)
{
    if (!s)
        s = "";
    if (is_plain_word(s) && strlen(s) < size)
        return strcpy(ret, s);
    size_t at = 0;
    ret[at++] = '"';
    /* Room is kept for the longest escape, the dots, the quote and the NUL. */
    for (; *s && at + 4 + 3 + 2 <= size; s++) {
        char scratch[5];
        const char *e = *s == '"' ? "\\\"" : *s == '\\' ? "\\\\" : escape_of((unsigned char)*s, scratch);
        if (e) {
            size_t n = strlen(e);
            memcpy(ret + at, e, n);
            at += n;
        } else {
            ret[at++] = *s;
        }
    }
    if (*s && at + 5 <= size) {
        memcpy(ret + at, "...", 3);
        at += 3;
    }
    ret[at++] = '"';
    ret[at] = 0;
    return ret;
}

static void put_escaped(struct buf *out, const char *s)
{
    for (; *s; s++) {
        char scratch[5];
        const char *e = escape_of((unsigned char)*s, scratch);
        if (e)
            buf_puts(out, e);
        else
            buf_putc(out, *s);
    }
}

/* take_value reads one value at *AT, bare or in quotes (log_quote's escapes undone), into OUT and moves *AT past it. */
static bool take_value(const char **at, struct buf *out)
{
    const char *p = *at;
    bool quoted = *p == '"';
    if (quoted)
        p++;
    while (*p && (quoted ? *p != '"' : *p != ' ')) {
        unsigned byte;
        if (quoted && *p == '\\' && p[1]) {
            p++;
            if (*p == 'x' && sscanf(p + 1, "%2x", &byte) == 1 && isxdigit((unsigned char)p[2])) {
                buf_putc(out, (char)byte);
                p += 3;
            } else {
                buf_putc(out, *p == 'n' ? '\n' : *p == 't' ? '\t' : *p);
                p++;
            }
        } else {
            buf_putc(out, *p++);
        }
    }
    *at = quoted && *p == '"' ? p + 1 : p;
    return quoted;
}

/* json_text_of makes a string of any bytes: what is not UTF-8 becomes '?'. */
static json_t *json_text_of(const char *s)
{
    json_t *j = json_string(s);
    if (j)
        return j;
    AUTO_BUF ascii = BUF_INIT;
    for (; *s; s++)
        buf_putc(&ascii, (unsigned char)*s < 0x80 ? *s : '?');
    return json_string(ascii.data ? ascii.data : "");
}

static json_t *json_value_of(const char *text, bool quoted)
{
    if (!quoted && *text) {
        json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);
        if (json_is_number(j) || json_is_boolean(j))
            return j;
        json_decref(j);
    }
    return json_text_of(text);
}

static void put_json_fields(json_t *line, const char *fields)
{
    while (*fields) {
        size_t key_bytes = strcspn(fields, "= ");
        if (fields[key_bytes] != '=') {
            fields += key_bytes + (fields[key_bytes] == ' ');
            continue;
        }
        char key[64];
        snprintf(key, sizeof key, "%.*s", (int)(key_bytes < 63 ? key_bytes : 63), fields);
        fields += key_bytes + 1;
        AUTO_BUF value = BUF_INIT;
        bool quoted = take_value(&fields, &value);
        json_object_set_new(line, key, json_value_of(value.data ? value.data : "", quoted));
        while (*fields == ' ')
            fields++;
    }
}

static void put_json_line(struct buf *out, enum log_level level, const char *event, const char *fields)
{
    char stamp[24];
    clock_stamp(clock_wall_ms(), stamp);
    json_t *line = json_pack("{s:s, s:s, s:s}", "time", stamp, "program", program_name, "level", levels[level].name);
    if (!line)
        return;
    json_object_set_new(line, "event", json_text_of(event));
    put_json_fields(line, fields);
    char *text = json_dumps(line, JSON_COMPACT);
    if (text)
        buf_puts(out, text);
    free(text);
    json_decref(line);
}

static void put_text_line(struct buf *out, enum log_level level, const char *event, const char *fields)
{
    if (!to_journal) {
        char stamp[24];
        clock_stamp(clock_wall_ms(), stamp);
        buf_printf(out, "%s ", stamp);
    }
    char quoted[512];
    buf_printf(out, "%s level=%s event=%s", program_name, levels[level].name, log_quote(event, quoted, sizeof quoted));
    if (*fields) {
        buf_putc(out, ' ');
        put_escaped(out, fields);
    }
}

static void write_all(const char *data, size_t n)
{
    while (n > 0) {
        ssize_t done = write(STDERR_FILENO, data, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return;
        data += done;
        n -= (size_t)done;
    }
}

void log_line(enum log_level level, const char *event, const char *fields, ...)
{
    if (level > highest)
        return;
    int saved_errno = errno;
    char text[4096] = "";
    if (fields) {
        va_list ap;
        va_start(ap, fields);
        vsnprintf(text, sizeof text, fields, ap);
        va_end(ap);
    }
    AUTO_BUF line = BUF_INIT;
    if (to_journal)
        buf_printf(&line, "<%d>", levels[level].priority);
    if (as_json)
        put_json_line(&line, level, event, text);
    else
        put_text_line(&line, level, event, text);
    buf_putc(&line, '\n');
    if (buf_ok(&line))
        write_all(line.data, line.len);
    errno = saved_errno;
}
