#include "common/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, BLOCK_BYTES = 1 << 16 };

struct block {
    struct block *next;
    size_t size, used;
};

struct closer {
    struct closer *next;
    void (*close)(void *);
    void *arg;
};

struct arena {
    struct block *blocks;
    struct closer *closers;
    size_t max_bytes, used;
};

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

struct arena *arena_new(size_t max_bytes)
{
    struct arena *a = calloc(1, sizeof *a);
    if (a)
        a->max_bytes = max_bytes;
    return a;
}

void arena_reset(struct arena *a)
{
    while (a->closers) {
        struct closer *c = a->closers;
        a->closers = c->next;
        c->close(c->arg);
    }
    while (a->blocks) {
        struct block *b = a->blocks;
        a->blocks = b->next;
        free(b);
    }
    a->used = 0;
}

void arena_free(struct arena *a)
{
    if (!a)
        return;
    arena_reset(a);
    free(a);
}

static struct block *block_new(size_t bytes)
{
    size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
    struct block *b = aligned_alloc(ALIGN, ALIGN + round_up(size));
    if (b)
        *b = (struct block){.size = round_up(size)};
    return b;
}

void *arena_alloc(struct arena *a, size_t n)
{
    if (n > SIZE_MAX / 2)
        return NULL;
    size_t need = round_up(n ? n : 1);
    if (a->max_bytes && need > a->max_bytes - (a->used < a->max_bytes ? a->used : a->max_bytes))
        return NULL;
    struct block *b = a->blocks;
    if (!b || b->size - b->used < need) {
        b = block_new(need);
        if (!b)
            return NULL;
        b->next = a->blocks;
        a->blocks = b;
    }
    void *p = (char *)b + ALIGN + b->used;
    b->used += need;
    a->used += need;
    return memset(p, 0, need);
}

char *arena_strdup(struct arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = arena_alloc(a, n);
    return copy ? memcpy(copy, s, n) : NULL;
}

int arena_defer(struct arena *a, void (*close)(void *arg), void *arg)
{
    struct closer *c = arena_alloc(a, sizeof *c);
    if (!c) {
        close(arg);
        return -1;
    }
    *c = (struct closer){a->closers, close, arg};
    a->closers = c;
    return 0;
}

size_t arena_used(const struct arena *a)
{
    return a->used;
}
