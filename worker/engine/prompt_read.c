/* The rules of compel's prompt language, each a function, tried in order (a parsing expression grammar, Ford 2004). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "worker/engine/prompt_parts.h"

enum { DEPTH_MAX = 64 };             /* brackets within brackets; deeper ones are text */
static const char symbols[] = "()\",.+-=";
static const double plus_base = 1.1, minus_base = 0.9;

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_symbol(char c)
{
    return c && strchr(symbols, c);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char peek(const struct reader *r, size_t at)
{
    return at < r->n ? r->s[at] : 0;
}

static size_t skip(const struct reader *r, size_t at)
{
    while (at < r->n && is_blank(r->s[at]))
        at++;
    return at;
}

bool reader_init(struct reader *r, const char *s, size_t n, int depth, struct arena *arena)
{
    *r = (struct reader){ .s = s, .n = n, .arena = arena, .depth = depth };
    r->bracket = arena_alloc(arena, (n + 1) * sizeof *r->bracket);
    r->quote = arena_alloc(arena, (n + 1) * sizeof *r->quote);
    r->failed = !r->bracket || !r->quote;
    return !r->failed;
}

bool at_end(struct reader *r, size_t at)
{
    return skip(r, at) == r->n;
}

static void append_text(struct reader *r, struct pieces *to, const char *text, size_t len, double weight)
{
    struct piece *p = arena_alloc(r->arena, sizeof *p);
    if (!p) {
        r->failed = true;
        return;
    }
    *p = (struct piece){ text, len, weight, NULL };
    if (to->last)
        to->last->next = p;
    else
        to->first = p;
    to->last = p;
}

void append_pieces(struct reader *r, struct pieces *to, struct pieces from, double scale)
{
    for (const struct piece *p = from.first; p; p = p->next)
        append_text(r, to, p->text, p->len, p->weight * scale);
    to->swaps |= from.swaps;
}

bool read_char(struct reader *r, size_t *at, char c)
{
    size_t i = skip(r, *at);
    if (peek(r, i) != c)
        return false;
    *at = i + 1;
    return true;
}

bool read_literal(struct reader *r, size_t *at, const char *text)
{
    size_t i = skip(r, *at), n = strlen(text);
    if (r->n - i < n || memcmp(r->s + i, text, n) != 0)
        return false;
    *at = i + n;
    return true;
}

bool read_keyword(struct reader *r, size_t *at, const char **ret, size_t *ret_len)
{
    size_t i = skip(r, *at), end = i;
    for (char c; (c = peek(r, end)) && (is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-');)
        end++;
    if (end == i)
        return false;
    *ret = r->s + i;
    *ret_len = end - i;
    *at = end;
    return true;
}

/* A decimal number with a point and an optional sign, or a whole one with an optional minus. */
bool read_number(struct reader *r, size_t *at, double *ret)
{
    size_t i = skip(r, *at), j = i, whole = 0, part = 0;
    bool plus = peek(r, j) == '+', minus = peek(r, j) == '-', point;
    j += plus || minus;
    for (; is_digit(peek(r, j)); j++)
        whole++;
    point = peek(r, j) == '.' && (whole || is_digit(peek(r, j + 1)));
    for (j += point; point && is_digit(peek(r, j)); j++)
        part++;
    if (whole + part == 0 || (plus && !point) || j - i > 300)
        return false;
    char digits[304] = { 0 };
    memcpy(digits, r->s + i, j - i);
    *ret = strtod(digits, NULL);
    *at = j;
    return true;
}

/* A word without syntax: symbols only when escaped, plus and minus only inside. */
static bool read_word(struct reader *r, size_t *at, struct pieces *out)
{
    size_t i = skip(r, *at), end = i;
    for (char c; end < r->n; ) {
        c = r->s[end];
        char next = peek(r, end + 1);
        if (c == '\\' && is_symbol(next))
            end += 2;
        else if ((c == '+' || c == '-') && end + 1 < r->n && !is_blank(next) && !is_symbol(next))
            end++;
        else if (!is_blank(c) && !is_symbol(c))
            end++;
        else
            break;
    }
    if (end == i)
        return false;
    append_text(r, out, r->s + i, end - i, 1);
    *at = end;
    return true;
}

static void read_fragment(struct reader *r, size_t *at, bool points, struct pieces *out);

/* "(" FRAGMENT ")" */
static bool read_bracket(struct reader *r, size_t *at, struct pieces *out)
{
    size_t i = skip(r, *at);
    if (peek(r, i) != '(')
        return false;
    struct found *f = &r->bracket[i];
    if (!f->known) {
        size_t end = i + 1;
        struct pieces inner = { 0 };
        bool ok = r->depth < DEPTH_MAX;
        if (ok) {
            r->depth++;
            read_fragment(r, &end, true, &inner);
            r->depth--;
            ok = read_char(r, &end, ')');
        }
        *f = (struct found){ true, ok, end, inner };
    }
    if (!f->ok)
        return false;
    append_pieces(r, out, f->pieces, 1);
    *at = f->end;
    return true;
}

/* Where the string that opens before AT closes: at the first plain quote, or at the last escaped one if no plain one comes on this line. */
static bool find_quote_end(const struct reader *r, size_t at, size_t *ret)
{
    bool escaped = false;
    for (; at < r->n && r->s[at] != '\n' && r->s[at] != '\r'; at++) {
        if (r->s[at] == '\\' && peek(r, at + 1) == '"') {
            *ret = ++at;
            escaped = true;
        } else if (r->s[at] == '"') {
            *ret = at;
            return true;
        }
    }
    return escaped;
}

/* The content of quotes is read as a string of its own: as a fragment, or as a whole prompt. */
static bool read_quote_content(struct reader *r, size_t from, size_t to, bool whole, struct pieces *out)
{
    struct reader inner;
    size_t at = 0;
    if (!reader_init(&inner, r->s + from, to - from, r->depth + 1, r->arena) || r->depth >= DEPTH_MAX) {
        r->failed |= inner.failed;
        return false;
    }
    if (at_end(&inner, 0))
        append_text(&inner, out, "", 0, 1);
    else if (whole)
        read_prompt(&inner, &at, out);
    else
        read_fragment(&inner, &at, true, out);
    r->failed |= inner.failed;
    return at_end(&inner, at) || at_end(&inner, 0);
}

bool read_quoted(struct reader *r, size_t *at, struct pieces *out)
{
    size_t i = skip(r, *at), end;
    if (peek(r, i) != '"')
        return false;
    struct found *f = &r->quote[i];
    if (!f->known) {
        struct pieces inner = { 0 };
        bool ok = find_quote_end(r, i + 1, &end) && read_quote_content(r, i + 1, end, false, &inner);
        *f = (struct found){ true, ok, ok ? end + 1 : 0, inner };
    }
    if (!f->ok)
        return false;
    append_pieces(r, out, f->pieces, 1);
    *at = f->end;
    return true;
}

bool read_quoted_prompt(struct reader *r, size_t *at, struct pieces *out)
{
    size_t i = skip(r, *at), end;
    struct pieces inner = { 0 };
    if (peek(r, i) != '"' || !find_quote_end(r, i + 1, &end) || !read_quote_content(r, i + 1, end, true, &inner))
        return false;
    append_pieces(r, out, inner, 1);
    *at = end + 1;
    return true;
}

bool read_target(struct reader *r, size_t *at, struct pieces *out)
{
    return read_quoted(r, at, out) || read_bracket(r, at, out) || read_word(r, at, out);
}

/* A run of plus or minus. */
static bool read_signs(struct reader *r, size_t *at, double *ret)
{
    size_t i = skip(r, *at), end = i;
    char sign = peek(r, i);
    if (sign != '+' && sign != '-')
        return false;
    while (peek(r, end) == sign)
        end++;
    *ret = pow(sign == '+' ? plus_base : minus_base, (double)(end - i));
    *at = end;
    return true;
}

/* TARGET.attend(WEIGHT), (...)WEIGHT, "..."WEIGHT, or word+ and word- with nothing between. */
static bool read_attention(struct reader *r, size_t *at, struct pieces *out)
{
    struct pieces target = { 0 };
    size_t i = *at;
    double weight;
    if (read_target(r, &i, &target) && read_literal(r, &i, ".attend") && read_char(r, &i, '(')
        && (read_signs(r, &i, &weight) || read_number(r, &i, &weight)) && read_char(r, &i, ')'))
        goto matched;
    i = *at;
    target = (struct pieces){ 0 };
    if ((read_quoted(r, &i, &target) || read_bracket(r, &i, &target)) && !is_blank(peek(r, i))
        && (read_signs(r, &i, &weight) || read_number(r, &i, &weight)))
        goto matched;
    i = *at;
    target = (struct pieces){ 0 };
    if (!(read_word(r, &i, &target) && !is_blank(peek(r, i)) && read_signs(r, &i, &weight)))
        return false;
matched:
    append_pieces(r, out, target, weight);
    *at = i;
    return true;
}

static bool read_option(struct reader *r, size_t *at)
{
    const char *word;
    size_t len, i = *at;
    double number;
    if (read_keyword(r, &i, &word, &len) && read_char(r, &i, '=') && (read_number(r, &i, &number) || read_keyword(r, &i, &word, &len))) {
        *at = i;
        return true;
    }
    return read_number(r, at, &number) || read_keyword(r, at, &word, &len);
}

/* TARGET.swap(FRAGMENT [, OPTIONS]): the picture follows the target; editing of attention maps is not done, as in InvokeAI. */
static bool read_swap(struct reader *r, size_t *at, struct pieces *out)
{
    struct pieces target = { 0 }, other = { 0 };
    size_t i = *at;
    if (!read_target(r, &i, &target) || !read_literal(r, &i, ".swap") || !read_char(r, &i, '('))
        return false;
    read_fragment(r, &i, false, &other);
    if (read_char(r, &i, ',') && read_option(r, &i)) {
        size_t more = i;
        while (read_char(r, &more, ',') && read_option(r, &more))
            i = more;
    }
    if (!read_char(r, &i, ')'))
        return false;
    if (!target.first)
        append_text(r, &target, "", 0, 1);
    append_pieces(r, out, target, 1);
    out->swaps = true;
    *at = i;
    return true;
}

/* withLora(NAME [, WEIGHT]): read and left out, as in InvokeAI. */
bool read_lora(struct reader *r, size_t *at)
{
    size_t i = *at, len, after;
    const char *name;
    double weight;
    if (!(read_literal(r, &i, "useLora") || read_literal(r, &i, "withLora")) || !read_char(r, &i, '(') || !read_keyword(r, &i, &name, &len))
        return false;
    after = i;
    if (read_char(r, &after, ',') && read_number(r, &after, &weight))
        i = after;
    if (!read_char(r, &i, ')'))
        return false;
    *at = i;
    return true;
}

/* What stands in brackets and quotes; commas and points only if POINTS. */
static void read_fragment(struct reader *r, size_t *at, bool points, struct pieces *out)
{
    while (!r->failed) {
        size_t i = skip(r, *at);
        if (read_lora(r, at) || read_attention(r, at, out) || read_swap(r, at, out) || read_bracket(r, at, out) || read_quoted(r, at, out)
            || read_word(r, at, out))
            continue;
        if (!points || (peek(r, i) != ',' && peek(r, i) != '.'))
            return;
        append_text(r, out, r->s + i, 1, 1);
        *at = i + 1;
    }
}

void read_prompt(struct reader *r, size_t *at, struct pieces *out)
{
    while (!r->failed && !at_end(r, *at)) {
        if (read_swap(r, at, out) || read_lora(r, at) || read_attention(r, at, out) || read_quoted(r, at, out) || read_bracket(r, at, out))
            continue;
        size_t i = skip(r, *at), end = i;      /* anything else is text up to the next blank */
        while (end < r->n && !is_blank(r->s[end]))
            end++;
        append_text(r, out, r->s + i, end - i, 1);
        *at = end;
    }
}
