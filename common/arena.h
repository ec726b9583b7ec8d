/* A capped bump allocator that ends a lifetime in one reset: memory, and deferred closers for what is not memory. */
#pragma once
#include <stddef.h>

struct arena;

/* arena_new returns an arena that hands out at most MAX_BYTES in all (0: no cap), NULL when out of memory. */
struct arena *arena_new(size_t max_bytes);
void arena_free(struct arena *a);                    /* accepts NULL; runs the closers */
/* arena_reset runs the closers, last registered first, then frees every allocation. */
void arena_reset(struct arena *a);
/* arena_alloc returns N zeroed bytes aligned to 64, NULL past the cap or when out of memory. */
void *arena_alloc(struct arena *a, size_t n);
char *arena_strdup(struct arena *a, const char *s);
/* arena_defer runs CLOSE(ARG) at the reset. Returns 0, or -1 (and then CLOSE has already run) when out of memory. */
int arena_defer(struct arena *a, void (*close)(void *arg), void *arg);
size_t arena_used(const struct arena *a);
