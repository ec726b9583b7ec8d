#include "client/png_text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SIGNATURE = 8, CHUNK_HEAD = 8, CHUNK_TAIL = 4 };

int png_is(const void *bytes, size_t n) { return n >= SIGNATURE && memcmp(bytes, "\x89PNG\r\n\x1a\n", SIGNATURE) == 0; }

static uint32_t be32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

/* skip_text returns the byte after the next NUL at or after AT, N if there is none. */
static size_t skip_text(const uint8_t *data, size_t n, size_t at)
{
    const uint8_t *end = at < n ? memchr(data + at, 0, n - at) : NULL;
    return end ? (size_t)(end - data) + 1 : n;
}

/* text_of finds where the text of a chunk's DATA begins (PNG specification, 11.3.4): keyword, NUL, and for iTXt two flags, language,
 * keyword. */
static enum status text_of(const uint8_t *type, const uint8_t *data, size_t n, const char *key, size_t *ret_from, struct error *err)
{
    size_t at = strlen(key) + 1;
    if (memcmp(type, "zTXt", 4) == 0)
        return FAIL(err, UNSUPPORTED, "the text '%s' of this PNG is compressed, which is not read here", key);
    if (memcmp(type, "iTXt", 4) == 0) {
        if (n < at + 2)
            return FAIL(err, CORRUPT, "the text '%s' of this PNG is cut off", key);
        if (data[at])
            return FAIL(err, UNSUPPORTED, "the text '%s' of this PNG is compressed, which is not read here", key);
        at = skip_text(data, n, at + 2);
        at = skip_text(data, n, at);
    }
    *ret_from = at;
    return ST_OK;
}

enum status png_text_find(const void *bytes, size_t n, const char *key, char **ret, struct error *err)
{
    const uint8_t *p = bytes;
    size_t key_bytes = strlen(key) + 1;
    if (!png_is(bytes, n))
        return FAIL(err, CORRUPT, "this is no PNG file");
    for (size_t at = SIGNATURE; at + CHUNK_HEAD + CHUNK_TAIL <= n;) {
        size_t len = be32(p + at), from;
        const uint8_t *type = p + at + 4, *data = p + at + CHUNK_HEAD;
        if (len > n - at - CHUNK_HEAD - CHUNK_TAIL)
            return FAIL(err, CORRUPT, "this PNG is cut off in a chunk of %zu bytes at byte %zu", len, at);
        if (memcmp(type + 1, "TXt", 3) == 0 || memcmp(type, "tEXt", 4) == 0)
            if (len >= key_bytes && memcmp(data, key, key_bytes) == 0) {
                TRY(text_of(type, data, len, key, &from, err));
                char *text = strndup((const char *)data + from, len - from);
                if (!text)
                    return FAIL(err, OUT_OF_MEMORY, "out of memory for the text '%s'", key);
                *ret = text;
                return ST_OK;
            }
        at += CHUNK_HEAD + len + CHUNK_TAIL;
    }
    return FAIL(err, NOT_FOUND, "this PNG has no text '%s': it carries no graph", key);
}
