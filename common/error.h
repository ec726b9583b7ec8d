/* Errors: one status list, and where and why a call failed. Library code returns a status, fills the error where it
 * happened, and neither logs nor exits. */
#pragma once
#include <stdarg.h>

enum status {
#define STATUS(code, name, action, text) ST_##code,
#include "common/status.def"
#undef STATUS
    ST_COUNT
};
enum status_action { ACT_NONE, ACT_CALLER, ACT_RETRY, ACT_OPERATOR, ACT_US };

struct error {
    enum status code;
    int line;
    const char *file;     /* static string */
    char message[768];    /* names the field, the value, the limit and the remedy */
};

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* status_name returns the wire name of CODE ("bad_graph"). */
const char *status_name(enum status code);
/* status_from_name returns the code of a wire name, ST_INTERNAL if unknown. */
enum status status_from_name(const char *name);
enum status_action status_action(enum status code);
/* status_text returns one plain sentence on what CODE means. */
const char *status_text(enum status code);

/* error_set fills ERR (may be NULL) and returns CODE. Use the FAIL macro. */
enum status error_set(struct error *err, enum status code, const char *file, int line, const char *fmt, ...) PRINTF_LIKE(5, 6);
/* error_prefix puts "PREFIX: " before the message of ERR (may be NULL) and returns its code: adds context on the way up. */
enum status error_prefix(struct error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* error_errno is FAIL for a system call: picks DISK_FULL, FORBIDDEN, NOT_FOUND or IO from ERRNUM and appends strerror. */
enum status error_errno(struct error *err, int errnum, const char *file, int line, const char *fmt, ...) PRINTF_LIKE(5, 6);

#define FAIL(err, code, ...) error_set((err), ST_##code, __FILE__, __LINE__, __VA_ARGS__)
#define FAIL_ERRNO(err, ...) error_errno((err), errno, __FILE__, __LINE__, __VA_ARGS__)
/* TRY returns from the calling function with the status of EXPR unless it is ST_OK. */
#define TRY(expr) do { enum status try_status_ = (expr); if (try_status_ != ST_OK) return try_status_; } while (0)
