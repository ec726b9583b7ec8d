/* Prompt weights as compel applies them. A prompt is cut into chunks of the encoder's length. A token of weight w gets
 * e + w (z - e), z its features, e those of the empty prompt at its place. Each fragment of weight below 1 also gets an encoding with
 * its tokens hidden, mixed in with weight tan((1 - w) pi / 2). */
#include "worker/engine/conditioning.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "worker/engine/prompt.h"

enum { ROWS_MAX = 4096, BATCH = 16 };
static const double least_weight = 1e-5;   /* keeps the tangent finite */

/* Everything the encoder is asked for, one row per chunk; row 0 is the empty prompt. */
struct rows {
    int tokens, width;
    int32_t *ids;                    /* [n][tokens] */
    uint8_t *mask;                   /* [n][tokens] */
    float *z;                        /* [n][tokens][width], filled by encode_rows */
    size_t n, cap;
    bool masked;                     /* some mask hides something */
};

struct fragment_span { size_t first, end; double weight; };      /* tokens of a fragment, counted without marks */

/* One flattened prompt, cut up. */
struct text_chunks {
    int32_t *ids;                    /* [n]: tokens of all fragments */
    float *weight;                   /* [n] */
    size_t n;
    struct fragment_span *spans;     /* [n_spans]: fragments with a weight below 1 and any tokens */
    size_t n_spans;
    size_t *cut;                     /* [n_chunks + 1]: where chunks begin, in tokens */
    size_t n_chunks, first_row;      /* rows first_row .. + n_chunks: as they are */
    size_t *span_row;                /* [n_spans][n_chunks]: row with the span hidden */
};

static void rows_fini(struct rows *r)
{
    free(r->ids);
    free(r->mask);
    free(r->z);
}

static void chunks_fini(struct text_chunks *c)
{
    free(c->ids);
    free(c->weight);
    free(c->spans);
    free(c->cut);
    free(c->span_row);
}

/* Adds a row of begin mark, N ids, end mark and padding. */
static enum status add_row(struct rows *r, const struct tokenizer *tok, const int32_t *ids, size_t n, size_t *ret, struct error *err)
{
    size_t tokens = (size_t)r->tokens;
    if (r->n == ROWS_MAX)
        return FAIL(err, BAD_ARGUMENT, "prompt: more than %d chunks to encode; shorten it or use fewer weights below 1", ROWS_MAX);
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 8;
        int32_t *more_ids = realloc(r->ids, cap * tokens * sizeof *r->ids);
        r->ids = more_ids ? more_ids : r->ids;
        uint8_t *more_mask = realloc(r->mask, cap * tokens);
        r->mask = more_mask ? more_mask : r->mask;
        if (!more_ids || !more_mask)
            return FAIL(err, OUT_OF_MEMORY, "no memory for %zu chunks of a prompt", cap);
        r->cap = cap;
    }
    int32_t *row = r->ids + r->n * tokens;
    row[0] = tokenizer_bos(tok);
    if (n)
        memcpy(row + 1, ids, n * sizeof *ids);
    row[n + 1] = tokenizer_eos(tok);
    for (size_t i = n + 2; i < tokens; i++)
        row[i] = tokenizer_pad(tok);
    memset(r->mask + r->n * tokens, 1, tokens);
    *ret = r->n++;
    return ST_OK;
}

/* ---- cutting */
static enum status tokenize(const struct tokenizer *tok, const struct prompt_part *part, struct text_chunks *c, struct error *err)
{
    c->spans = calloc(part->n + 1, sizeof *c->spans);
    if (!c->spans)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a prompt");
    for (size_t f = 0; f < part->n; f++) {
        int32_t *ids = NULL;
        size_t n = 0;
        TRY(tokenizer_encode(tok, part->fragments[f].text, &ids, &n, err));
        int32_t *more_ids = realloc(c->ids, (c->n + n + 1) * sizeof *c->ids);
        c->ids = more_ids ? more_ids : c->ids;
        float *more_weight = realloc(c->weight, (c->n + n + 1) * sizeof *c->weight);
        c->weight = more_weight ? more_weight : c->weight;
        if (!more_ids || !more_weight) {
            free(ids);
            return FAIL(err, OUT_OF_MEMORY, "no memory for a prompt of %zu tokens", c->n + n);
        }
        double w = part->fragments[f].weight;
        for (size_t i = 0; i < n; i++) {
            c->ids[c->n + i] = ids[i];
            c->weight[c->n + i] = (float)w;
        }
        free(ids);
        if (w < 1 && n)
            c->spans[c->n_spans++] = (struct fragment_span){ c->n, c->n + n, w };
        c->n += n;
    }
    return ST_OK;
}

static bool is_token(const struct tokenizer *tok, int32_t id, const char *const *texts, size_t n)
{
    const char *text = tokenizer_text(tok, id);
    for (size_t i = 0; text && i < n; i++)
        if (strcmp(text, texts[i]) == 0)
            return true;
    return false;
}

/* How many of N > ROOM tokens make the next chunk: up to the last sentence end, else phrase end, else word end, else ROOM. */
static size_t cut_after(const struct tokenizer *tok, const int32_t *ids, size_t room)
{
    static const char *const ends[] = { ".</w>", ",</w>", ";</w>", ":</w>" };
    for (size_t kinds = 1; kinds <= 4; kinds += 3)
        for (size_t i = room; i > 0; i--)
            if (is_token(tok, ids[i - 1], ends, kinds))
                return i;
    for (size_t i = room; i > 0; i--) {
        const char *text = tokenizer_text(tok, ids[i - 1]);
        size_t n = text ? strlen(text) : 0;
        if (n >= 4 && strcmp(text + n - 4, "</w>") == 0)
            return i;
    }
    return room;
}

static enum status cut_chunks(struct rows *r, const struct tokenizer *tok, struct text_chunks *c, struct error *err)
{
    size_t room = (size_t)r->tokens - 2, at = 0, row;
    c->cut = calloc(c->n + 2, sizeof *c->cut);
    if (!c->cut)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a prompt of %zu tokens", c->n);
    c->first_row = r->n;
    do {
        size_t n = c->n - at <= room ? c->n - at : cut_after(tok, c->ids + at, room);
        TRY(add_row(r, tok, c->n ? c->ids + at : NULL, n, &row, err));
        at += n;
        c->cut[++c->n_chunks] = at;
    } while (at < c->n);
    return ST_OK;
}

/* Rows with one span hidden: from its first token to its last, and the marks and padding between if it runs over a cut, except the
 * first and last place of every chunk. */
static enum status hide_spans(struct rows *r, const struct tokenizer *tok, struct text_chunks *c, struct error *err)
{
    size_t tokens = (size_t)r->tokens;
    c->span_row = calloc(c->n_spans * c->n_chunks + 1, sizeof *c->span_row);
    if (!c->span_row)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a prompt of %zu tokens", c->n);
    for (size_t s = 0; s < c->n_spans; s++)
        for (size_t k = 0; k < c->n_chunks; k++) {
            const struct fragment_span *span = &c->spans[s];
            size_t from = c->cut[k], to = c->cut[k + 1], *row = &c->span_row[s * c->n_chunks + k];
            *row = c->first_row + k;
            if (span->end <= from || span->first >= to)
                continue;
            TRY(add_row(r, tok, c->ids + from, to - from, row, err));
            size_t hide = span->first > from ? span->first - from + 1 : 1, show = span->end <= to ? span->end - from + 1 : tokens - 1;
            memset(r->mask + *row * tokens + hide, 0, (show < tokens - 1 ? show : tokens - 1) - hide);
            r->masked = true;
        }
    return ST_OK;
}

/* ---- encoding */
static enum status encode_rows(struct rows *r, const struct text_encode *te, struct error *err)
{
    size_t tokens = (size_t)r->tokens, row = tokens * (size_t)r->width;
    r->z = malloc(r->n * row * sizeof *r->z);
    if (!r->z)
        return FAIL(err, OUT_OF_MEMORY, "no memory for %zu chunks of a prompt", r->n);
    for (size_t at = 0; at < r->n; at += BATCH) {
        size_t n = r->n - at < BATCH ? r->n - at : BATCH;
        TRY(te->encode(te->self, r->ids + at * tokens, r->masked ? r->mask + at * tokens : NULL, (int)n, r->z + at * row, err));
    }
    return ST_OK;
}

/* ---- mixing */
/* Adds SHARE times chunk K, encoded as ROW, with its token weights applied, to RET [tokens][width]. */
static void add_weighted(const struct rows *r, const struct text_chunks *c, size_t k, size_t row, double share, double *ret)
{
    size_t tokens = (size_t)r->tokens, width = (size_t)r->width;
    const float *z = r->z + row * tokens * width, *empty = r->z;
    for (size_t t = 0; t < tokens; t++) {
        size_t n = c->cut[k + 1] - c->cut[k];
        float w = t >= 1 && t <= n ? c->weight[c->cut[k] + t - 1] : 1.0f;
        for (size_t i = t * width; i < (t + 1) * width; i++)
            ret[i] += share * (double)(w == 1.0f ? z[i] : empty[i] + (z[i] - empty[i]) * w);
    }
}

/* The conditioning of one part: RET [n_chunks][tokens][width], zeroed before. */
static void mix_part(const struct rows *r, const struct text_chunks *c, double *ret)
{
    size_t row = (size_t)r->tokens * (size_t)r->width;
    double sum = 1;
    for (size_t s = 0; s < c->n_spans; s++)
        sum += tan((1 - fmax(c->spans[s].weight, least_weight)) * M_PI / 2);
    for (size_t k = 0; k < c->n_chunks; k++) {
        add_weighted(r, c, k, c->first_row + k, 1 / sum, ret + k * row);
        for (size_t s = 0; s < c->n_spans; s++)
            add_weighted(r, c, k, c->span_row[s * c->n_chunks + k], tan((1 - fmax(c->spans[s].weight, least_weight)) * M_PI / 2) / sum, ret + k * row);
    }
}

static size_t longest(const struct prompt_blend *b, const struct text_chunks *c)
{
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++)
        n = c[i].n_chunks > n ? c[i].n_chunks : n;
    return n;
}

/* One member of the conjunction into RET [chunks][tokens][width]: its parts by their weights, the shorter ones continued with the empty
 * prompt; then drawn towards the empty prompt by its own weight. SCRATCH is as large. */
static void mix_blend(const struct rows *r, const struct prompt_blend *b, const struct text_chunks *c, size_t chunks, double *scratch, float *ret)
{
    size_t row = (size_t)r->tokens * (size_t)r->width;
    double sum = 0, *part = scratch + chunks * row;
    for (size_t i = 0; i < b->n; i++)
        sum += b->parts[i].weight;
    memset(scratch, 0, chunks * row * sizeof *scratch);
    for (size_t i = 0; i < b->n; i++) {
        double share = !b->is_blend ? 1 : b->normalize ? b->parts[i].weight / sum : b->parts[i].weight;
        memset(part, 0, chunks * row * sizeof *part);
        mix_part(r, &c[i], part);
        for (size_t j = c[i].n_chunks * row; j < chunks * row; j++)
            part[j] = r->z[j % row];
        for (size_t j = 0; j < chunks * row; j++)
            scratch[j] += share * part[j];
    }
    for (size_t j = 0; j < chunks * row; j++)
        ret[j] = (float)(b->weight == 1 ? scratch[j] : r->z[j % row] + (scratch[j] - r->z[j % row]) * b->weight);
}

static enum status mix(const struct rows *r, const struct prompt *p, const struct text_chunks *c, struct tensor **ret, struct error *err)
{
    size_t total = 0, most = 1, row = (size_t)r->tokens * (size_t)r->width, at = 0, first = 0;
    for (size_t b = 0; b < p->n; first += p->blends[b++].n) {
        size_t n = longest(&p->blends[b], c + first);
        total += n;
        most = n > most ? n : most;
    }
    struct tensor *t = NULL;
    TRY(tensor_new(3, (int64_t[]){ 1, (int64_t)(total ? total : 1) * r->tokens, r->width }, &t, err));
    double *scratch = malloc(2 * most * row * sizeof *scratch);
    if (!scratch) {
        tensor_free(t);
        return FAIL(err, OUT_OF_MEMORY, "no memory to mix %zu chunks of a prompt", most);
    }
    if (!total)                          /* nothing but empty brackets */
        memcpy(t->data, r->z, row * sizeof *t->data);
    first = 0;
    for (size_t b = 0; b < p->n; first += p->blends[b++].n) {
        size_t n = longest(&p->blends[b], c + first);
        mix_blend(r, &p->blends[b], c + first, n, scratch, t->data + at * row);
        at += n;
    }
    free(scratch);
    *ret = t;
    return ST_OK;
}

static enum status prepare(struct rows *r, const struct tokenizer *tok, const struct prompt *p, struct text_chunks *c, struct error *err)
{
    size_t row, i = 0;
    TRY(add_row(r, tok, NULL, 0, &row, err));
    for (size_t b = 0; b < p->n; b++)
        for (size_t k = 0; k < p->blends[b].n; k++, i++) {
            TRY(tokenize(tok, &p->blends[b].parts[k], &c[i], err));
            TRY(cut_chunks(r, tok, &c[i], err));
            TRY(hide_spans(r, tok, &c[i], err));
        }
    return ST_OK;
}

enum status conditioning_encode(const struct text_encode *te, const struct tokenizer *tok, const char *prompt, struct tensor **ret, struct error *err)
{
    struct prompt *p = NULL;
    struct rows r = { .tokens = te->tokens, .width = te->width };
    TRY(prompt_parse(prompt, &p, err));
    size_t parts = 0;
    for (size_t b = 0; b < p->n; b++)
        parts += p->blends[b].n;
    struct text_chunks *c = calloc(parts + 1, sizeof *c);
    enum status status = c ? prepare(&r, tok, p, c, err) : FAIL(err, OUT_OF_MEMORY, "no memory for a prompt of %zu parts", parts);
    if (status == ST_OK)
        status = encode_rows(&r, te, err);
    if (status == ST_OK)
        status = mix(&r, p, c, ret, err);
    for (size_t i = 0; c && i < parts; i++)
        chunks_fini(&c[i]);
    free(c);
    rows_fini(&r);
    prompt_free(p);
    return status;
}
