/* Byte-level byte-pair encoding (Sennrich et al. 2016) as CLIP uses it: normalise, split into words, merge each word's bytes. */
#include "worker/engine/tokenizer.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "common/buf.h"
#include "worker/engine/tokenizer_parts.h"

enum class { CLASS_SPACE, CLASS_LETTER, CLASS_NUMBER, CLASS_OTHER };

static enum class class_of(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    if ((c >= '\t' && c <= '\r') || c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP)
        return CLASS_SPACE;
    if (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO)
        return CLASS_LETTER;
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO ? CLASS_NUMBER : CLASS_OTHER;
}

static void put_codepoint(struct buf *b, int32_t c)
{
    uint8_t bytes[4];
    buf_put(b, bytes, (size_t)utf8proc_encode_char(c, bytes));
}

/* Bytes that are no UTF-8 become U+FFFD, one each. */
static void put_valid(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const uint8_t *)text + i, (utf8proc_ssize_t)(len - i), &c);
        put_codepoint(out, n > 0 ? c : 0xfffd);
        i += n > 0 ? (size_t)n : 1;
    }
}

/* NFC, each run of white space to one blank, lower case letter by letter. */
static enum status normalise(const char *text, size_t len, struct buf *out, struct error *err)
{
    AUTO_BUF valid = BUF_INIT;
    put_valid(&valid, text, len);
    uint8_t *nfc = NULL;
    utf8proc_ssize_t n = 0;
    if (buf_ok(&valid) && valid.len)
        n = utf8proc_map((const uint8_t *)valid.data, (utf8proc_ssize_t)valid.len, &nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n < 0 || !buf_ok(&valid))
        return FAIL(err, OUT_OF_MEMORY, "no memory for a text of %zu bytes", len);
    bool blank = false;
    for (utf8proc_ssize_t i = 0; i < n;) {
        int32_t c;
        utf8proc_ssize_t step = utf8proc_iterate(nfc + i, n - i, &c);
        i += step > 0 ? step : 1;
        bool space = class_of(c) == CLASS_SPACE;
        if (!space)
            put_codepoint(out, utf8proc_tolower(c == 0x130 ? 'i' : c));
        else if (!blank)
            buf_putc(out, ' ');
        if (c == 0x130)                  /* the one letter whose lower case is two characters */
            put_codepoint(out, 0x307);
        blank = space;
    }
    free(nfc);
    return buf_ok(out) ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for a text of %zu bytes", len);
}

static int32_t class_at(const char *s, size_t len, size_t at, size_t *ret_next)
{
    int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const uint8_t *)s + at, (utf8proc_ssize_t)(len - at), &c);
    *ret_next = at + (n > 0 ? (size_t)n : 1);
    return (int32_t)class_of(n > 0 ? c : 0xfffd);
}

/* Length of an English contraction at the start of S, 0 if there is none. */
static size_t contraction(const char *s, size_t len)
{
    static const char *const endings[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]);
        if (n <= len && memcmp(s, endings[i], n) == 0)
            return n;
    }
    return 0;
}

/* End of the word that starts at AT, which is no blank: a contraction, a run of letters, one digit, or a run of anything else. */
static size_t word_end(const char *s, size_t len, size_t at)
{
    size_t n = contraction(s + at, len - at), next;
    if (n)
        return at + n;
    int32_t class = class_at(s, len, at, &next);
    while (class != CLASS_NUMBER && next < len) {
        size_t after;
        if (class_at(s, len, next, &after) != class)
            break;
        next = after;
    }
    return next;
}

/* ---- merging: a linked list of symbols, and a heap of the pairs that can be merged */
struct symbol { int32_t id, prev, next; };
struct pair { int32_t rank, at, left, right, merged; };
struct word {
    struct symbol *symbol;
    struct pair *heap;
    size_t n_heap;
};

static bool before(const struct pair *a, const struct pair *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct word *w, struct pair p)
{
    size_t i = w->n_heap++;
    for (; i > 0 && before(&p, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = p;
}

static struct pair heap_pop(struct word *w)
{
    struct pair top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        child += child + 1 < w->n_heap && before(&w->heap[child + 1], &w->heap[child]);
        if (!before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

static void offer(const struct tokenizer *t, struct word *w, int32_t at)
{
    if (at < 0 || w->symbol[at].next < 0)
        return;
    int32_t left = w->symbol[at].id, right = w->symbol[w->symbol[at].next].id;
    const struct merge *m = tokenizer_merge(t, left, right);
    if (m)
        heap_push(w, (struct pair){ m->rank, at, left, right, m->merged });
}

static void merge_word(const struct tokenizer *t, struct word *w, const uint8_t *bytes, size_t n, int32_t *ids, size_t *n_ids)
{
    w->n_heap = 0;
    for (size_t i = 0; i < n; i++)
        w->symbol[i] = (struct symbol){ i + 1 < n ? t->byte_id[bytes[i]] : t->byte_end_id[bytes[i]], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1 };
    for (size_t i = 0; i + 1 < n; i++)
        offer(t, w, (int32_t)i);
    while (w->n_heap) {
        struct pair p = heap_pop(w);
        struct symbol *s = &w->symbol[p.at];
        if (s->id != p.left || s->next < 0 || w->symbol[s->next].id != p.right)
            continue;                    /* one of them was merged with another since */
        struct symbol *gone = &w->symbol[s->next];
        s->id = p.merged;
        s->next = gone->next;
        gone->id = -1;
        if (s->next >= 0)
            w->symbol[s->next].prev = p.at;
        offer(t, w, s->prev);
        offer(t, w, p.at);
    }
    for (int32_t i = 0; i >= 0; i = w->symbol[i].next)
        ids[(*n_ids)++] = w->symbol[i].id;
}

/* The id of a mark spelled out at the start of S, with its length; -1 if there is none. */
static int32_t mark_at(const struct tokenizer *t, const char *s, size_t len, size_t *ret_len)
{
    const int32_t marks[] = { t->bos, t->eos };
    for (int i = 0; i < 2; i++) {
        *ret_len = strlen(t->text[marks[i]]);
        if (*ret_len && *ret_len <= len && memcmp(s, t->text[marks[i]], *ret_len) == 0)
            return marks[i];
    }
    return -1;
}

/* Where the text before the next mark ends. */
static size_t plain_end(const struct tokenizer *t, const char *s, size_t len, size_t at)
{
    size_t n;
    while (at < len && mark_at(t, s + at, len - at, &n) < 0)
        at++;
    return at;
}

static void encode_text(const struct tokenizer *t, struct word *w, const char *s, size_t len, int32_t *ids, size_t *n_ids)
{
    size_t at = 0, stop = plain_end(t, s, len, 0);
    while (at < len) {
        size_t n = 0;
        if (at == stop) {
            ids[(*n_ids)++] = mark_at(t, s + at, len - at, &n);
            at += n;
            stop = plain_end(t, s, len, at);
        } else if (s[at] == ' ') {
            at++;
        } else {
            size_t end = word_end(s, stop, at);
            merge_word(t, w, (const uint8_t *)s + at, end - at, ids, n_ids);
            at = end;
        }
    }
}

enum status tokenizer_encode_bytes(const struct tokenizer *t, const char *text, size_t len, int32_t **ret_ids, size_t *ret_n, struct error *err)
{
    AUTO_BUF s = BUF_INIT;
    if (len > 1 << 24)
        return FAIL(err, TOO_LARGE, "a text of %zu bytes is too long to tokenize; at most %d", len, 1 << 24);
    TRY(normalise(text, len, &s, err));
    /* A merge adds at most two pairs and there are fewer merges than bytes. */
    struct word w = { malloc((s.len + 1) * sizeof *w.symbol), malloc((3 * s.len + 1) * sizeof *w.heap), 0 };
    int32_t *ids = malloc((s.len + 1) * sizeof *ids);
    size_t n = 0;
    if (w.symbol && w.heap && ids)
        encode_text(t, &w, s.data ? s.data : "", s.len, ids, &n);
    bool ok = w.symbol && w.heap && ids;
    free(w.symbol);
    free(w.heap);
    if (!ok) {
        free(ids);
        return FAIL(err, OUT_OF_MEMORY, "no memory for a text of %zu bytes", len);
    }
    *ret_ids = ids;
    *ret_n = n;
    return ST_OK;
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, int32_t **ret_ids, size_t *ret_n, struct error *err)
{
    return tokenizer_encode_bytes(t, text, strlen(text), ret_ids, ret_n, err);
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}

int32_t tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

const char *tokenizer_text(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size ? t->text[id] : NULL;
}
