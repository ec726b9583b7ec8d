/* From text to flattened prompts: the rules of prompt_read.c at the top level, and the result in memory of its own. */
#include "worker/engine/prompt.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "worker/engine/prompt_parts.h"

enum { TEXT_MAX_BYTES = 32 * 1024, ARENA_MAX_BYTES = 256 << 20, PARTS_MAX = 256 };

void prompt_free(struct prompt *p)
{
    if (!p)
        return;
    for (size_t b = 0; b < p->n; b++) {
        for (size_t i = 0; i < p->blends[b].n; i++) {
            struct prompt_part *part = &p->blends[b].parts[i];
            for (size_t k = 0; k < part->n; k++)
                free(part->fragments[k].text);
            free(part->fragments);
        }
        free(p->blends[b].parts);
    }
    free(p->blends);
    free(p);
}

/* Appends TEXT without the backslashes before brackets and quotes. */
static void put_unescaped(struct buf *b, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\\' && i + 1 < len && strchr("()\"", text[i + 1]))
            i++;
        buf_putc(b, text[i]);
    }
}

/* Neighbours of equal weight become one fragment. */
static enum status flatten(struct pieces pieces, struct prompt_part *ret, struct error *err)
{
    size_t n = 0;
    for (const struct piece *p = pieces.first; p; p = p->next)
        n++;
    *ret = (struct prompt_part){ .fragments = calloc(n + 1, sizeof *ret->fragments), .weight = 1 };
    if (!ret->fragments)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a prompt of %zu fragments", n);
    for (const struct piece *p = pieces.first; p;) {
        AUTO_BUF text = BUF_INIT;
        double weight = p->weight;
        if (!isfinite(weight))
            return FAIL(err, BAD_ARGUMENT, "prompt: the weight of \"%.*s\" is too large", (int)(p->len < 60 ? p->len : 60), p->text);
        put_unescaped(&text, p->text, p->len);
        for (p = p->next; p && p->weight == weight; p = p->next) {
            buf_putc(&text, ' ');
            put_unescaped(&text, p->text, p->len);
        }
        buf_putc(&text, 0);
        char *taken = buf_take(&text, NULL);
        if (!taken)
            return FAIL(err, OUT_OF_MEMORY, "no memory for a prompt");
        ret->fragments[ret->n++] = (struct prompt_fragment){ taken, weight };
    }
    return ST_OK;
}

/* ("...", "...", ...): members that hold anything are put into PARTS. */
struct members {
    struct pieces parts[PARTS_MAX];
    double weights[PARTS_MAX];
    size_t n, n_weights;
    bool no_normalize, bad_weight;
};

static bool read_members(struct reader *r, size_t *at, struct members *m)
{
    if (!read_char(r, at, '('))
        return false;
    do {
        struct pieces one = { 0 };
        if (m->n == PARTS_MAX || (!read_target(r, at, &one) && !read_quoted_prompt(r, at, &one)))
            return false;
        m->parts[m->n++] = one;
    } while (read_char(r, at, ','));
    return read_char(r, at, ')');
}

/* The numbers in the brackets after .and or .blend; after the last no_normalize may stand. */
static bool read_weights(struct reader *r, size_t *at, struct members *m)
{
    const char *word;
    size_t len;
    double w;
    if (!read_char(r, at, '('))
        return false;
    if (read_char(r, at, ')'))
        return true;
    do {
        size_t i = *at;
        bool again = m->no_normalize;
        if (read_keyword(r, &i, &word, &len) && (*word < '0' || *word > '9') && *word != '-') {
            m->no_normalize = len == 12 && memcmp(word, "no_normalize", len) == 0;
            m->bad_weight |= again || !m->no_normalize;
            *at = i;
        } else if (read_number(r, at, &w) && m->n_weights < PARTS_MAX) {
            m->weights[m->n_weights++] = w;
            m->bad_weight |= again;
        } else {
            return false;
        }
    } while (read_char(r, at, ','));
    return read_char(r, at, ')');
}

/* (MEMBERS)OPERATOR(WEIGHTS) at AT. */
static bool read_operation(struct reader *r, size_t *at, const char *operator, const char *other, struct members *m)
{
    size_t i = *at;
    *m = (struct members){ 0 };
    if (!read_members(r, &i, m) || !(read_literal(r, &i, operator) || (other && read_literal(r, &i, other))) || !read_weights(r, &i, m))
        return false;
    *at = i;
    return true;
}

static enum status check_members(const struct members *m, const char *operator, struct error *err)
{
    bool blend = strcmp(operator, ".blend") == 0;
    if (m->bad_weight || (m->no_normalize && !blend))
        return FAIL(err, BAD_ARGUMENT, "prompt: %s() takes numbers%s", operator, blend ? ", and no_normalize as its last" : "");
    if (m->n_weights && m->n_weights != m->n)
        return FAIL(err, BAD_ARGUMENT, "prompt: %s() has %zu weights for %zu prompts; give one each or none", operator, m->n_weights, m->n);
    double sum = 0;
    for (size_t i = 0; i < m->n; i++) {
        sum += m->n_weights ? m->weights[i] : 1;
        if (blend && m->parts[i].swaps)
            return FAIL(err, BAD_ARGUMENT, "prompt: .swap() cannot be part of a .blend()");
        if (blend && !m->parts[i].first)
            return FAIL(err, BAD_ARGUMENT, "prompt: prompt %zu of .blend() is empty; write \"\" for an empty one", i + 1);
    }
    if (blend && !m->no_normalize && (sum == 0 || !isfinite(sum)))
        return FAIL(err, BAD_ARGUMENT, "prompt: the weights of .blend() sum to %g; use other weights or no_normalize", sum);
    return ST_OK;
}

/* Room for COUNT blends of up to PARTS parts each. */
static enum status new_prompt(size_t count, size_t parts, struct prompt **ret, struct error *err)
{
    struct prompt *p = calloc(1, sizeof *p);
    if (!p)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a prompt");
    *ret = p;
    p->blends = calloc(count + 1, sizeof *p->blends);
    for (size_t i = 0; p->blends && i < count; i++) {
        p->blends[i] = (struct prompt_blend){ .parts = calloc(parts + 1, sizeof *p->blends[i].parts), .normalize = true, .weight = 1 };
        p->n++;
        if (!p->blends[i].parts)
            return FAIL(err, OUT_OF_MEMORY, "no memory for a prompt");
    }
    return p->blends ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for a prompt");
}

static enum status add_part(struct prompt_blend *b, struct pieces pieces, double weight, struct error *err)
{
    struct prompt_part *part = &b->parts[b->n++];
    enum status status = flatten(pieces, part, err);
    part->weight = weight;
    return status;
}

static enum status build_conjunction(const struct members *m, struct prompt **p, struct error *err)
{
    TRY(check_members(m, ".and", err));
    TRY(new_prompt(m->n, 1, p, err));
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        if (!m->parts[i].first)
            continue;                    /* empty brackets are dropped with their weight */
        struct prompt_blend *b = &(*p)->blends[n++];
        b->weight = m->n_weights ? m->weights[i] : 1;
        TRY(add_part(b, m->parts[i], 1, err));
    }
    while ((*p)->n > n)
        free((*p)->blends[--(*p)->n].parts);
    return ST_OK;
}

static enum status build_blend(const struct members *m, struct prompt **p, struct error *err)
{
    TRY(check_members(m, ".blend", err));
    TRY(new_prompt(1, m->n, p, err));
    struct prompt_blend *b = &(*p)->blends[0];
    b->is_blend = true;
    b->normalize = !m->no_normalize;
    for (size_t i = 0; i < m->n; i++)
        TRY(add_part(b, m->parts[i], m->n_weights ? m->weights[i] : 1, err));
    return ST_OK;
}

static enum status build_single(struct reader *r, struct prompt **p, struct error *err)
{
    struct pieces pieces = { 0 };
    struct piece empty = { "", 0, 1, NULL };
    size_t at = 0;
    bool blank = at_end(r, 0);
    read_prompt(r, &at, &pieces);
    TRY(new_prompt(pieces.first || blank ? 1 : 0, 1, p, err));
    if (blank)
        pieces.first = &empty;
    return (*p)->n ? add_part(&(*p)->blends[0], pieces, 1, err) : ST_OK;
}

static enum status build(struct reader *r, struct members *m, struct prompt **p, struct error *err)
{
    size_t at = 0;
    if (read_operation(r, &at, ".and", ".add", m))
        return build_conjunction(m, p, err);
    at = 0;
    while (read_lora(r, &at))
        ;
    if (!read_operation(r, &at, ".blend", NULL, m))
        return build_single(r, p, err);
    while (read_lora(r, &at))
        ;
    if (!at_end(r, at))
        return FAIL(err, BAD_ARGUMENT, "prompt: nothing may follow .blend(), but \"%.60s\" does", r->s + at);
    return build_blend(m, p, err);
}

/* A blank is put after a comma that has none; of two commas in a row only after the first. */
static void put_spaced(struct buf *b, const char *text)
{
    for (; *text; text++) {
        buf_putc(b, *text);
        if (*text == ',' && text[1] && !strchr(" \t\n\v\f\r", text[1])) {
            buf_putc(b, ' ');
            buf_putc(b, *++text);
        }
    }
}

enum status prompt_parse(const char *text, struct prompt **ret, struct error *err)
{
    if (strlen(text) > TEXT_MAX_BYTES)
        return FAIL(err, BAD_ARGUMENT, "prompt: %zu bytes; at most %d", strlen(text), TEXT_MAX_BYTES);
    AUTO_BUF spaced = BUF_INIT;
    put_spaced(&spaced, text);
    struct arena *arena = arena_new(ARENA_MAX_BYTES);
    struct members *m = malloc(sizeof *m);
    struct reader r;
    struct prompt *p = NULL;
    enum status status;
    if (!arena || !m || !buf_ok(&spaced) || !reader_init(&r, spaced.data ? spaced.data : "", spaced.len, 0, arena))
        status = FAIL(err, OUT_OF_MEMORY, "no memory for a prompt of %zu bytes", strlen(text));
    else
        status = build(&r, m, &p, err);
    if (status == ST_OK && r.failed)
        status = FAIL(err, OUT_OF_MEMORY, "no memory for a prompt of %zu bytes", strlen(text));
    arena_free(arena);
    free(m);
    if (status != ST_OK)
        prompt_free(p);
    else
        *ret = p;
    return status;
}
