/* A block of lines at the bottom of a terminal that is drawn over itself. */
#pragma once
#include "common/buf.h"
#include <stdbool.h>
#include <stddef.h>

enum { PAINTER_LINES = 512 };
struct painter {
    size_t n;                  /* lines that stand there now */
    int widths[PAINTER_LINES]; /* their cells: a terminal made narrower has wrapped the wide ones */
};

/* painter_frame appends to OUT what turns the block into LINES (each ended by a newline; the cursor is left below the last), for a terminal
 * that is COLUMNS wide now. No lines: the block is removed. Write OUT in one piece. */
void painter_frame(struct painter *p, const char *lines, size_t len, int columns, struct buf *out);
/* painter_show writes the frame to FD; a terminal that is gone is no error. */
void painter_show(struct painter *p, int fd, const char *lines, size_t len, int columns);
