/* A growable byte buffer with a sticky failure flag: write freely, check buf_ok once. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"

struct buf {
    char *data;      /* NUL after the last byte whenever data is not NULL */
    size_t len, cap;
    bool failed;     /* out of memory: nothing more is written */
};

#define BUF_INIT {0}
#define AUTO_BUF __attribute__((cleanup(buf_fini))) struct buf

void buf_fini(struct buf *b);
void buf_reset(struct buf *b);                       /* keeps the memory */
/* buf_reserve makes room for N more bytes and returns where they go, NULL when out of memory. */
char *buf_reserve(struct buf *b, size_t n);
void buf_put(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline bool buf_ok(const struct buf *b) { return !b->failed; }
/* buf_take hands the memory over (caller frees with free) and leaves B empty; NULL if B failed. */
char *buf_take(struct buf *b, size_t *ret_len);
