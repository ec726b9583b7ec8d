/* Vocabulary files: vocab.json (token to id), merges.txt (one pair a line, best first), tokenizer_config.json (marks). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/json.h"
#include "common/paths.h"
#include "worker/engine/tokenizer_parts.h"

enum { TOKENS_MAX = 1 << 20, FILE_MAX_BYTES = 64 << 20 };

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    for (int32_t i = 0; t->text && i < t->size; i++)
        free(t->text[i]);
    free(t->text);
    free(t->merges);
    free(t);
}

static size_t merge_slot(const struct tokenizer *t, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (size_t)(h >> 32) & t->merge_mask;
    while (t->merges[i].left >= 0 && (t->merges[i].left != left || t->merges[i].right != right))
        i = (i + 1) & t->merge_mask;
    return i;
}

const struct merge *tokenizer_merge(const struct tokenizer *t, int32_t left, int32_t right)
{
    const struct merge *m = &t->merges[merge_slot(t, left, right)];
    return m->left >= 0 ? m : NULL;
}

static enum status read_vocabulary(struct tokenizer *t, const json_t *vocab, struct error *err)
{
    const char *key;
    json_t *value;
    long long highest = -1;
    json_object_foreach((json_t *)vocab, key, value) {
        long long id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= TOKENS_MAX)
            return FAIL(err, BAD_MODEL, "vocab.json: token \"%.60s\" has no id in 0..%d", key, TOKENS_MAX - 1);
        highest = id > highest ? id : highest;
    }
    if (highest < 0)
        return FAIL(err, BAD_MODEL, "vocab.json: no object of tokens");
    t->text = calloc((size_t)highest + 1, sizeof *t->text);
    if (!t->text)
        return FAIL(err, OUT_OF_MEMORY, "no memory for %lld tokens", highest + 1);
    t->size = (int32_t)highest + 1;
    json_object_foreach((json_t *)vocab, key, value) {
        long long id = json_integer_value(value);
        if (t->text[id])
            return FAIL(err, BAD_MODEL, "vocab.json: tokens \"%.60s\" and \"%.60s\" share id %lld", t->text[id], key, id);
        t->text[id] = strdup(key);
        if (!t->text[id])
            return FAIL(err, OUT_OF_MEMORY, "no memory for %lld tokens", highest + 1);
    }
    return ST_OK;
}

/* A mark is a string, or an object with its text as "content". */
static int32_t mark_id(const json_t *config, const char *key, const char *fallback, const json_t *vocab)
{
    const json_t *value = json_object_get(config, key);
    const char *name = json_is_object(value) ? json_str(value, "content", fallback) : json_str(config, key, fallback);
    return (int32_t)json_int(vocab, name, -1);
}

static enum status read_marks(struct tokenizer *t, const json_t *config, const json_t *vocab, struct error *err)
{
    t->bos = mark_id(config, "bos_token", "<|startoftext|>", vocab);
    t->eos = mark_id(config, "eos_token", "<|endoftext|>", vocab);
    if (t->bos < 0 || t->eos < 0)
        return FAIL(err, BAD_MODEL, "vocab.json: the %s mark that tokenizer_config.json names is missing", t->bos < 0 ? "begin" : "end");
    t->pad = mark_id(config, "pad_token", t->text[t->eos], vocab);
    if (t->pad < 0)
        return FAIL(err, BAD_MODEL, "vocab.json: the padding token that tokenizer_config.json names is missing");
    return ST_OK;
}

/* Bytes are spelled as characters: printable Latin-1 as itself, the others as U+0100 onwards in order. */
static void name_bytes(struct tokenizer *t, const json_t *vocab)
{
    unsigned next = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        unsigned c = printable ? b : next++;
        char name[8];
        int n = c < 0x80 ? snprintf(name, sizeof name, "%c", (int)c) : snprintf(name, sizeof name, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 0x3f)));
        t->byte_id[b] = (int32_t)json_int(vocab, name, t->eos);
        memcpy(name + n, "</w>", 5);
        t->byte_end_id[b] = (int32_t)json_int(vocab, name, t->eos);
    }
}

/* One line "LEFT RIGHT" of merges.txt; the text is cut up in place. */
static enum status add_merge(struct tokenizer *t, const json_t *vocab, char *line, int number, int32_t rank, struct error *err)
{
    char *space = strchr(line, ' ');
    if (!space || space == line || strchr(space + 1, ' ') || !space[1])
        return FAIL(err, BAD_MODEL, "merges.txt:%d: \"%.60s\" is no pair of tokens", number, line);
    *space = 0;
    char joined[2048];
    int n = snprintf(joined, sizeof joined, "%s%s", line, space + 1);
    int32_t left = (int32_t)json_int(vocab, line, -1), right = (int32_t)json_int(vocab, space + 1, -1), merged = (int32_t)json_int(vocab, joined, -1);
    if (n >= (int)sizeof joined || left < 0 || right < 0 || merged < 0)
        return FAIL(err, BAD_MODEL, "merges.txt:%d: \"%.60s %.60s\" or the token it makes is not in vocab.json", number, line, space + 1);
    struct merge *m = &t->merges[merge_slot(t, left, right)];
    if (m->left < 0)
        *m = (struct merge){ left, right, rank, merged };
    return ST_OK;
}

static enum status read_merges(struct tokenizer *t, const json_t *vocab, char *text, struct error *err)
{
    size_t lines = 1, slots = 16;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    if (lines > TOKENS_MAX)
        return FAIL(err, BAD_MODEL, "merges.txt has %zu lines; at most %d", lines, TOKENS_MAX);
    while (slots < 2 * lines)
        slots *= 2;
    t->merges = malloc(slots * sizeof *t->merges);
    if (!t->merges)
        return FAIL(err, OUT_OF_MEMORY, "no memory for %zu merges", lines);
    t->merge_mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        t->merges[i].left = -1;
    int number = 1;
    int32_t rank = 0;
    for (char *line = text; *line; number++) {
        char *end = line + strcspn(line, "\n"), *next = end + (*end == '\n');
        *end = 0;
        if (end > line && end[-1] == '\r')
            end[-1] = 0;
        bool version = number == 1 && strncmp(line, "#version", 8) == 0;
        if (*line && !version)
            TRY(add_merge(t, vocab, line, number, rank++, err));
        line = next;
    }
    return ST_OK;
}

static enum status read_text(const char *path, char **ret, struct error *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return FAIL(err, BAD_MODEL, "merges.txt cannot be opened");
    AUTO_BUF text = BUF_INIT;
    char chunk[16384];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0 && text.len <= FILE_MAX_BYTES)
        buf_put(&text, chunk, n);
    bool broken = ferror(f);
    fclose(f);
    if (broken || text.len > FILE_MAX_BYTES)
        return FAIL(err, BAD_MODEL, "merges.txt cannot be read or has more than %d bytes", FILE_MAX_BYTES);
    buf_putc(&text, '\n');
    *ret = buf_take(&text, NULL);
    return *ret ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for merges.txt");
}

static enum status load(struct tokenizer *t, const char *dir, struct error *err)
{
    char path[PATH_BYTES];
    AUTO_JSON *vocab = NULL;
    AUTO_JSON *config = NULL;
    TRY(paths_join(path, sizeof path, dir, "vocab.json", err));
    struct error cause;
    if (json_read_file(path, FILE_MAX_BYTES, &vocab, &cause) != ST_OK)
        return FAIL(err, BAD_MODEL, "vocab.json: %s", cause.message);
    TRY(read_vocabulary(t, vocab, err));
    TRY(paths_join(path, sizeof path, dir, "tokenizer_config.json", err));
    if (access(path, F_OK) != 0)         /* an old folder without one: the usual marks */
        config = json_object();
    else if (json_read_file(path, FILE_MAX_BYTES, &config, &cause) != ST_OK)
        return FAIL(err, BAD_MODEL, "tokenizer_config.json: %s", cause.message);
    TRY(read_marks(t, config, vocab, err));
    name_bytes(t, vocab);
    TRY(paths_join(path, sizeof path, dir, "merges.txt", err));
    char *text = NULL;
    TRY(read_text(path, &text, err));
    enum status status = read_merges(t, vocab, text, err);
    free(text);
    return status;
}

enum status tokenizer_open(const char *dir, struct tokenizer **ret, struct error *err)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a tokenizer");
    enum status status = load(t, dir, err);
    if (status != ST_OK) {
        tokenizer_free(t);
        return error_prefix(err, "tokenizer %s", dir);
    }
    *ret = t;
    return ST_OK;
}
