#include "common/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf)BUF_INIT;
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = 0;
}

char *buf_reserve(struct buf *b, size_t n)
{
    if (b->failed || n > (size_t)1 << 40)
        return b->failed = true, NULL;
    size_t need = b->len + n + 1;
    if (need > b->cap) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap < need)
            cap += cap / 2 + 64;
        char *data = realloc(b->data, cap);
        if (!data)
            return b->failed = true, NULL;
        b->data = data;
        b->cap = cap;
    }
    return b->data + b->len;
}

void buf_put(struct buf *b, const void *bytes, size_t n)
{
    char *at = buf_reserve(b, n);
    if (!at)
        return;
    if (n)
        memcpy(at, bytes, n);
    b->len += n;
    b->data[b->len] = 0;
}

void buf_puts(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_putc(struct buf *b, char c)
{
    buf_put(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *at = n < 0 ? NULL : buf_reserve(b, (size_t)n);
    if (at) {
        vsnprintf(at, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

char *buf_take(struct buf *b, size_t *ret_len)
{
    if (b->failed) {
        buf_fini(b);
        return NULL;
    }
    if (!b->data && !buf_reserve(b, 0))
        return NULL;
    b->data[b->len] = 0;
    char *data = b->data;
    if (ret_len)
        *ret_len = b->len;
    *b = (struct buf)BUF_INIT;
    return data;
}
