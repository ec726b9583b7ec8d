/* Progress as lines of text: a pure function of the table of running items. */
#pragma once
#include "common/buf.h"
#include "proto/client.h"
#include <stdbool.h>
#include <stddef.h>

struct progress_view {
    const galley_item *items; /* what runs */
    size_t n;
    const char *note;       /* a line below the bars, NULL: none */
    int columns, max_lines; /* no line is wider than COLUMNS - 1 cells, there are never more than MAX_LINES lines */
    bool color, utf8;
};

/* progress_bars appends one line an item (id, device, bar, step, speed, time left, message); items that do not fit are counted in the last
 * line. */
void progress_bars(const struct progress_view *v, struct buf *out);
/* progress_line appends one line that sums the items up, for what is no terminal. */
void progress_line(const struct progress_view *v, struct buf *out);
/* tiles_lines appends the previews side by side as coloured characters, as many as fit into COLUMNS and MAX_LINES; nothing without
 * previews. */
void tiles_lines(const galley_item *items, size_t n, int columns, int max_lines, struct buf *out);
/* tiles_available is false in a build without libchafa. */
bool tiles_available(void);
