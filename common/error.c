#include "common/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *text;
    enum status_action action;
} rows[ST_COUNT] = {
#define STATUS(code, name, action, text) [ST_##code] = {name, text, ACT_##action},
#include "common/status.def"
#undef STATUS
};

const char *status_name(enum status code)
{
    return code < ST_COUNT ? rows[code].name : "internal";
}

const char *status_text(enum status code)
{
    return code < ST_COUNT ? rows[code].text : rows[ST_INTERNAL].text;
}

enum status_action status_action(enum status code)
{
    return code < ST_COUNT ? rows[code].action : ACT_US;
}

enum status status_from_name(const char *name)
{
    for (int i = 0; name && i < ST_COUNT; i++)
        if (strcmp(rows[i].name, name) == 0)
            return (enum status)i;
    return ST_INTERNAL;
}

static void fill(struct error *err, enum status code, const char *file, int line, const char *fmt, va_list ap)
{
    err->code = code;
    err->file = file;
    err->line = line;
    vsnprintf(err->message, sizeof err->message, fmt, ap);
}

enum status error_set(struct error *err, enum status code, const char *file, int line, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, file, line, fmt, ap);
        va_end(ap);
    }
    return code;
}

enum status error_prefix(struct error *err, const char *fmt, ...)
{
    if (!err)
        return ST_INTERNAL;
    char prefix[sizeof err->message / 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    size_t n = strlen(prefix), room = sizeof err->message - n - 3, old = strlen(err->message);
    memmove(err->message + n + 2, err->message, old < room ? old : room);
    memcpy(err->message, prefix, n);
    memcpy(err->message + n, ": ", 2);
    err->message[n + 2 + (old < room ? old : room)] = 0;
    return err->code;
}

static enum status errno_code(int errnum)
{
    switch (errnum) {
    case ENOSPC: case EDQUOT: return ST_DISK_FULL;
    case EACCES: case EPERM: case EROFS: return ST_FORBIDDEN;
    case ENOENT: case ENOTDIR: return ST_NOT_FOUND;
    case ENOMEM: return ST_OUT_OF_MEMORY;
    default: return ST_IO;
    }
}

enum status error_errno(struct error *err, int errnum, const char *file, int line, const char *fmt, ...)
{
    enum status code = errno_code(errnum);
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, file, line, fmt, ap);
        va_end(ap);
        size_t n = strlen(err->message);
        char text[96];
        snprintf(err->message + n, sizeof err->message - n, ": %s", strerror_r(errnum, text, sizeof text));
    }
    return code;
}
