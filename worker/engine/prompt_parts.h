/* Inside of prompt.h: recognising the language. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/arena.h"

/* A run of text with the weight it has so far; lists are in reading order and live in the arena. */
struct piece {
    const char *text;
    size_t len;
    double weight;
    struct piece *next;
};
struct pieces {
    struct piece *first, *last;
    bool swaps;                      /* holds a .swap(); its first half was taken */
};

struct found { bool known, ok; size_t end; struct pieces pieces; };
/* One string being read. Brackets and quotes are tried by several rules at one place: what came of it is kept. */
struct reader {
    const char *s;
    size_t n;
    struct arena *arena;
    struct found *bracket, *quote;   /* [n] */
    int depth;
    bool failed;                     /* out of memory */
};

bool reader_init(struct reader *r, const char *s, size_t n, int depth, struct arena *arena);

/* Every rule reads from *AT, skips blanks first, moves *AT and fills OUT only if it matches, and returns whether it did. */
bool read_char(struct reader *r, size_t *at, char c);
bool read_literal(struct reader *r, size_t *at, const char *text);
bool read_keyword(struct reader *r, size_t *at, const char **ret, size_t *ret_len);   /* letters, digits, _ and - */
bool read_number(struct reader *r, size_t *at, double *ret);
bool read_target(struct reader *r, size_t *at, struct pieces *out);                   /* quoted, bracketed, or a bare word */
bool read_quoted(struct reader *r, size_t *at, struct pieces *out);
/* read_quoted_prompt reads a quoted string whose content need only be a prompt, not a fragment. */
bool read_quoted_prompt(struct reader *r, size_t *at, struct pieces *out);
bool read_lora(struct reader *r, size_t *at);
/* read_prompt reads to the end of R. */
void read_prompt(struct reader *r, size_t *at, struct pieces *out);
bool at_end(struct reader *r, size_t at);
void append_pieces(struct reader *r, struct pieces *to, struct pieces from, double scale);
