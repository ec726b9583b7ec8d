/* Log lines on stderr: key=value or JSON, one line each, with a journald level prefix when systemd reads them.
 * Only mains, session and supervisor log. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* log_setup sets what is printed; PROGRAM (static string) opens each line. Until then: level info, key=value. */
void log_setup(const char *program, enum log_level level, bool json);
/* log_level_from_name reads "error", "warning", "info", "debug" and InvokeAI's "critical" (as error); false if it is none of them. */
bool log_level_from_name(const char *name, enum log_level *ret);
/* log_line writes one line: an EVENT in plain words and fields given as a printf format of "key=value key2=%d" pairs, FIELDS may
 * be NULL. A %s value is quoted as needed only when written as key=%s with the helper log_quote; newlines never break a line. */
void log_line(enum log_level level, const char *event, const char *fields, ...) PRINTF_LIKE(3, 4);
/* log_quote writes S into RET (SIZE >= 8 bytes) as one value for log_line: bare if it is one plain word, else in double quotes with
 * escapes; NULL reads as "", what does not fit ends in "...". Returns RET. */
const char *log_quote(const char *s, char *ret, size_t size);

#define LOGE(...) log_line(LOG_ERROR, __VA_ARGS__)
#define LOGW(...) log_line(LOG_WARN, __VA_ARGS__)
#define LOGI(...) log_line(LOG_INFO, __VA_ARGS__)
#define LOGD(...) log_line(LOG_DEBUG, __VA_ARGS__)
