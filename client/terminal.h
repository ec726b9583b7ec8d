/* The terminal: its size, what it can show, the signals, and text that is safe to print there. No mode of the terminal is ever changed,
 * so that there is nothing to restore but the lines that were drawn (painter.h). */
#pragma once
#include "common/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* signals_setup makes INT, TERM and HUP set a flag (a second one ends the program at once with 130) and ignores PIPE. */
void signals_setup(void);
/* interrupted returns the signal that asked the program to end, 0 if none did. */
int interrupted(void);

/* terminal_is is true if FD is a terminal that understands cursor movements. */
bool terminal_is(int fd);
/* terminal_color is true if FD is a terminal and NO_COLOR is not set. */
bool terminal_color(int fd);
/* terminal_size writes columns and rows of FD: as they are now, 80x24 if it does not say. */
void terminal_size(int fd, int *ret_columns, int *ret_rows);
/* terminal_utf8 is true if the locale's text is UTF-8. */
bool terminal_utf8(void);

/* text_width returns how many cells S takes; escape sequences of the form ESC [ ... letter take none. */
int text_width(const char *s, size_t n);
/* text_put appends at most COLUMNS cells of S without control characters (an escape sequence in a message must not reach the terminal);
 * what does not fit ends in ".." (COLUMNS < 0: no limit). */
void text_put(struct buf *out, const char *s, int columns);

/* A table for people: cells are added row by row, table_print writes them with aligned columns and clean. */
struct table {
    size_t columns /* at most 32 */;
    char **cells;
    size_t n, room;
};
#define AUTO_TABLE __attribute__((cleanup(table_fini))) struct table
void table_fini(struct table *t);
/* table_cell adds the next cell; out of memory it adds nothing. */
void table_cell(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
void table_print(const struct table *t, FILE *to);
