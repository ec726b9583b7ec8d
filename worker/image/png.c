/* PNG through libpng. Its errors arrive by longjmp: each entry keeps what must be released in one struct. */
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "worker/image/picture.h"

enum { CHUNK_BYTES_MAX = 64 << 20, CHUNKS_MAX = 1000, COMPRESSION = 1 };

struct codec {
    png_structp png;
    png_infop info;
    struct error *err;
    struct buf *out;                 /* writing */
    const uint8_t *at; size_t left;  /* reading */
    png_bytep *rows;
    char **latin1;                   /* texts converted for tEXt */
    size_t n_latin1;
};

static void on_error(png_structp png, png_const_charp message)
{
    struct codec *c = png_get_error_ptr(png);
    FAIL(c->err, CORRUPT, "PNG: %s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void codec_fini(struct codec *c)
{
    if (c->out)
        png_destroy_write_struct(&c->png, &c->info);
    else
        png_destroy_read_struct(&c->png, &c->info, NULL);
    for (size_t i = 0; i < c->n_latin1; i++)
        free(c->latin1[i]);
    free(c->latin1);
    free(c->rows);
}

static void write_bytes(png_structp png, png_bytep bytes, png_size_t n)
{
    struct codec *c = png_get_io_ptr(png);
    buf_put(c->out, bytes, n);
    if (!buf_ok(c->out))
        png_error(png, "out of memory");
}

static void flush_nothing(png_structp png)
{
    (void)png;
}

/* latin1_of returns TEXT as Latin-1 (caller frees), NULL if a character does not fit or memory is out. */
static char *latin1_of(const char *text)
{
    size_t n = strlen(text), at = 0;
    char *out = malloc(n + 1);
    for (size_t i = 0; out && i < n; i++) {
        unsigned char b = (unsigned char)text[i];
        if (b < 0x80) {
            out[at++] = (char)b;
        } else if ((b == 0xc2 || b == 0xc3) && (text[i + 1] & 0xc0) == 0x80) {
            out[at++] = (char)((b & 3) << 6 | (text[++i] & 0x3f));
        } else {
            free(out);
            return NULL;
        }
    }
    if (out)
        out[at] = 0;
    return out;
}

static enum status set_texts(struct codec *c, const struct png_text *texts, size_t n)
{
    png_text *list = calloc(n + 1, sizeof *list);
    c->latin1 = calloc(n + 1, sizeof *c->latin1);
    if (!list || !c->latin1) {
        free(list);
        return FAIL(c->err, OUT_OF_MEMORY, "out of memory for the picture's texts");
    }
    for (size_t i = 0; i < n; i++) {
        char *latin1 = c->latin1[c->n_latin1++] = latin1_of(texts[i].text);
        list[i].compression = latin1 ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        list[i].key = (char *)texts[i].key;
        list[i].text = latin1 ? latin1 : (char *)texts[i].text;
    }
    png_set_text(c->png, c->info, list, (int)n);    /* copies */
    free(list);
    return ST_OK;
}

static enum status encode(struct codec *c, const struct picture *p, const struct png_text *texts, size_t n)
{
    static const int color[] = {0, PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGB_ALPHA};
    if (setjmp(png_jmpbuf(c->png)))
        return c->err ? c->err->code : ST_CORRUPT;
    png_set_write_fn(c->png, c, write_bytes, flush_nothing);
    png_set_compression_level(c->png, COMPRESSION);
    png_set_IHDR(c->png, c->info, (png_uint_32)p->width, (png_uint_32)p->height, 8, color[p->channels], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    TRY(set_texts(c, texts, n));
    png_write_info(c->png, c->info);
    for (int y = 0; y < p->height; y++)
        png_write_row(c->png, p->pixels + (size_t)y * (size_t)p->width * (size_t)p->channels);
    png_write_end(c->png, NULL);
    return ST_OK;
}

enum status png_write(const struct picture *p, const struct png_text *texts, size_t n, struct buf *out, struct error *err)
{
    struct error own;
    struct codec c = {.out = out, .err = err ? err : &own};
    c.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &c, on_error, on_warning);
    c.info = c.png ? png_create_info_struct(c.png) : NULL;
    enum status s = c.info ? encode(&c, p, texts, n) : FAIL(err, OUT_OF_MEMORY, "out of memory writing a PNG");
    codec_fini(&c);
    return s;
}

static void read_bytes(png_structp png, png_bytep bytes, png_size_t n)
{
    struct codec *c = png_get_io_ptr(png);
    if (n > c->left)
        png_error(png, "ends too early");
    memcpy(bytes, c->at, n);
    c->at += n;
    c->left -= n;
}

/* normalise asks libpng for 8-bit gray, gray+alpha, RGB or RGBA whatever is stored. */
static void normalise(png_structp png, png_infop info)
{
    png_set_expand(png);
    png_set_strip_16(png);
    png_set_packing(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static enum status decode(struct codec *c, int64_t max_pixels, struct picture **picture)
{
    if (setjmp(png_jmpbuf(c->png)))
        return c->err->code;
    png_set_read_fn(c->png, c, read_bytes);
    png_set_user_limits(c->png, 16384, 16384);
    png_set_chunk_cache_max(c->png, CHUNKS_MAX);
    png_set_chunk_malloc_max(c->png, CHUNK_BYTES_MAX);
    png_set_keep_unknown_chunks(c->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(c->png, c->info);
    int64_t pixels = (int64_t)png_get_image_width(c->png, c->info) * png_get_image_height(c->png, c->info);
    if (pixels > max_pixels)
        return FAIL(c->err, TOO_LARGE, "PNG: %lld pixels exceed the limit of %lld", (long long)pixels, (long long)max_pixels);
    normalise(c->png, c->info);
    TRY(picture_new((int)png_get_image_width(c->png, c->info), (int)png_get_image_height(c->png, c->info), png_get_channels(c->png, c->info), picture, c->err));
    const struct picture *p = *picture;
    c->rows = calloc((size_t)p->height, sizeof *c->rows);
    if (!c->rows)
        return FAIL(c->err, OUT_OF_MEMORY, "out of memory reading a PNG");
    for (int y = 0; y < p->height; y++)
        c->rows[y] = p->pixels + (size_t)y * (size_t)p->width * (size_t)p->channels;
    png_read_image(c->png, c->rows);
    png_read_end(c->png, NULL);
    return ST_OK;
}

enum status png_read(const void *bytes, size_t n, int64_t max_pixels, struct picture **ret, struct error *err)
{
    struct error own;
    struct picture *picture = NULL;
    struct codec c = {.err = err ? err : &own, .at = bytes, .left = n};
    c.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &c, on_error, on_warning);
    c.info = c.png ? png_create_info_struct(c.png) : NULL;
    enum status s = c.info ? decode(&c, max_pixels, &picture) : FAIL(err, OUT_OF_MEMORY, "out of memory reading a PNG");
    codec_fini(&c);
    if (s == ST_OK)
        *ret = picture;
    else
        picture_free(picture);
    return s;
}

/* ---- text chunks, read without decoding the picture */

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static char *from_latin1(const uint8_t *p, size_t n)
{
    char *out = malloc(2 * n + 1), *at = out;
    for (size_t i = 0; out && i < n; i++) {
        if (p[i] < 0x80) {
            *at++ = (char)p[i];
        } else {
            *at++ = (char)(0xc0 | p[i] >> 6);
            *at++ = (char)(0x80 | (p[i] & 0x3f));
        }
    }
    if (out)
        *at = 0;
    return out;
}

/* itxt_value skips flag, method, language and translated key; uncompressed texts only. */
static char *itxt_value(const uint8_t *p, size_t n)
{
    if (n < 2 || p[0] != 0)
        return NULL;
    p += 2;
    n -= 2;
    for (int skip = 0; skip < 2; skip++) {
        const uint8_t *end = memchr(p, 0, n);
        if (!end)
            return NULL;
        n -= (size_t)(end + 1 - p);
        p = end + 1;
    }
    char *out = malloc(n + 1);
    if (out) {
        memcpy(out, p, n);
        out[n] = 0;
    }
    return out;
}

char *png_text_get(const void *bytes, size_t n, const char *key)
{
    const uint8_t *p = bytes;
    size_t at = 8, key_n = strlen(key);
    if (n < 8 || memcmp(p, "\x89PNG\r\n\x1a\n", 8) != 0)
        return NULL;
    while (n - at >= 12) {
        size_t length = be32(p + at);
        const uint8_t *data = p + at + 8;
        if (length > n - at - 12)
            return NULL;
        bool text = memcmp(p + at + 4, "tEXt", 4) == 0, itext = memcmp(p + at + 4, "iTXt", 4) == 0;
        if ((text || itext) && length > key_n && memcmp(data, key, key_n + 1) == 0)
            return text ? from_latin1(data + key_n + 1, length - key_n - 1) : itxt_value(data + key_n + 1, length - key_n - 1);
        at += length + 12;
    }
    return NULL;
}
