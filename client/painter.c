#include "client/painter.h"

#include <string.h>
#include <unistd.h>

#include "client/terminal.h"

/* rows_now returns how many rows the block takes, given that a terminal wraps what no longer fits when it is made narrower. */
static int rows_now(const struct painter *p, int columns)
{
    int rows = 0;
    for (size_t i = 0; i < p->n; i++)
        rows += p->widths[i] > columns ? (p->widths[i] + columns - 1) / columns : 1;
    return rows;
}

void painter_frame(struct painter *p, const char *lines, size_t len, int columns, struct buf *out)
{
    int up = rows_now(p, columns < 1 ? 1 : columns);
    if (up > 0)
        buf_printf(out, "\r\033[%dA", up);
    p->n = 0;
    for (size_t at = 0; at < len && p->n < PAINTER_LINES;) {
        const char *end = memchr(lines + at, '\n', len - at);
        size_t n = end ? (size_t)(end - lines) - at : len - at;
        buf_put(out, lines + at, n);
        buf_puts(out, "\033[K\n");
        p->widths[p->n++] = text_width(lines + at, n);
        at += n + 1;
    }
    if (up > 0)
        buf_puts(out, "\033[J");
}

void painter_show(struct painter *p, int fd, const char *lines, size_t len, int columns)
{
    AUTO_BUF out = BUF_INIT;
    painter_frame(p, lines, len, columns, &out);
    for (size_t done = 0; buf_ok(&out) && done < out.len;) {
        ssize_t n = write(fd, out.data + done, out.len - done);
        if (n <= 0)
            return;
        done += (size_t)n;
    }
}
