/* PNG in and out, and limits. Resampling is compared with Pillow in tests/golden. */
#include "unit/unit.h"

#include "worker/image/picture.h"

static struct picture *gradient(int width, int height, int channels)
{
    struct picture *p = NULL;
    struct error err;
    assert_ok(picture_new(width, height, channels, &p, &err), err);
    for (size_t i = 0; i < (size_t)width * (size_t)height * (size_t)channels; i++)
        p->pixels[i] = (uint8_t)(i * 37 % 251);
    return p;
}

static void test_round_trip(void **state)
{
    (void)state;
    for (int channels = 1; channels <= 4; channels++) {
        struct picture *p = gradient(13, 7, channels), *q = NULL;
        struct buf a = BUF_INIT, b = BUF_INIT;
        struct error err;
        assert_ok(png_write(p, NULL, 0, &a, &err), err);
        assert_ok(png_write(p, NULL, 0, &b, &err), err);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.data, b.data, a.len);
        assert_ok(png_read(a.data, a.len, 1000, &q, &err), err);
        assert_int_equal(q->channels, channels);
        assert_memory_equal(p->pixels, q->pixels, (size_t)(13 * 7 * channels));
        picture_free(p);
        picture_free(q);
        buf_fini(&a);
        buf_fini(&b);
    }
}

static bool holds(const struct buf *b, const char *text)
{
    return memmem(b->data, b->len, text, strlen(text)) != NULL;
}

static void test_texts(void **state)
{
    (void)state;
    const struct png_text texts[] = { { "plain", "{\"a\": 1}" }, { "latin", "caf\xc3\xa9" }, { "wide", "\xe4\xb8\x80\xe5\x8f\xaa" }, { "empty", "" } };
    struct picture *p = gradient(4, 4, 3);
    struct buf b = BUF_INIT;
    struct error err;
    assert_ok(png_write(p, texts, 4, &b, &err), err);
    assert_true(holds(&b, "tEXtplain") && holds(&b, "tEXtlatin") && holds(&b, "iTXtwide"));
    for (size_t i = 0; i < 4; i++) {
        char *got = png_text_get(b.data, b.len, texts[i].key);
        assert_non_null(got);
        assert_string_equal(got, texts[i].text);
        free(got);
    }
    assert_null(png_text_get(b.data, b.len, "pla"));
    assert_null(png_text_get(b.data, b.len, "missing"));
    for (size_t n = 0; n < b.len; n++)         /* cut anywhere: no read past the end */
        free(png_text_get(b.data, n, "wide"));
    picture_free(p);
    buf_fini(&b);
}

/* A header that promises WIDTH x HEIGHT, and nothing behind it. */
static enum status read_header(uint32_t width, uint32_t height, struct error *err)
{
    uint8_t png[33] = { 0x89, 'P', 'N', 'G', 13, 10, 26, 10, 0, 0, 0, 13, 'I', 'H', 'D', 'R' };
    for (int i = 0; i < 4; i++) {
        png[16 + i] = (uint8_t)(width >> (24 - 8 * i));
        png[20 + i] = (uint8_t)(height >> (24 - 8 * i));
    }
    png[24] = 8;
    png[25] = 6;
    uint32_t crc = 0xffffffff;
    for (int i = 12; i < 29; i++) {
        crc ^= png[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    for (int i = 0; i < 4; i++)
        png[29 + i] = (uint8_t)(~crc >> (24 - 8 * i));
    struct picture *p = NULL;
    return png_read(png, sizeof png, 1 << 20, &p, err);
}

static void test_hostile(void **state)
{
    (void)state;
    struct error err;
    struct picture *p = NULL;
    assert_int_equal(png_read("not a png", 9, 100, &p, &err), ST_CORRUPT);
    assert_int_equal(png_read("", 0, 100, &p, &err), ST_CORRUPT);
    assert_int_equal(read_header(64, 64, &err), ST_CORRUPT);
    assert_int_equal(read_header(16384, 16384, &err), ST_CORRUPT);     /* ends before its pixels: nothing was allocated for them */
    struct picture *big = gradient(40, 30, 1);
    struct buf b = BUF_INIT;
    assert_ok(png_write(big, NULL, 0, &b, &err), err);
    assert_int_equal(png_read(b.data, b.len, 1199, &p, &err), ST_TOO_LARGE);
    assert_says(err.message, "1199");
    picture_free(big);
    buf_fini(&b);
    assert_int_not_equal(read_header(0x7fffffff, 0x7fffffff, &err), ST_OK);
    assert_int_not_equal(read_header(0, 1, &err), ST_OK);
    assert_int_not_equal(picture_new(0, 1, 3, &p, &err), ST_OK);
    assert_int_not_equal(picture_new(16385, 1, 3, &p, &err), ST_OK);
    assert_int_not_equal(picture_new(16384, 16385, 3, &p, &err), ST_OK);
}

/* Every cut and every flipped byte of a good file is an error or a picture, never more. */
static void test_damage(void **state)
{
    (void)state;
    struct picture *p = gradient(9, 5, 4);
    struct buf b = BUF_INIT;
    struct error err;
    const struct png_text text = { "k", "v" };
    assert_ok(png_write(p, &text, 1, &b, &err), err);
    for (size_t i = 0; i < b.len; i++) {
        struct picture *q = NULL;
        assert_int_not_equal(png_read(b.data, i, 1000, &q, &err), ST_OK);
        b.data[i] ^= 0x55;
        if (png_read(b.data, b.len, 1000, &q, &err) == ST_OK)
            picture_free(q);
        b.data[i] ^= 0x55;
    }
    picture_free(p);
    picture_free(NULL);
    buf_fini(&b);
}

static void test_resize(void **state)
{
    (void)state;
    struct error err;
    struct picture *p = gradient(6, 5, 3), *q = NULL;
    for (int how = RESAMPLE_NEAREST; how <= RESAMPLE_LANCZOS; how++) {
        assert_ok(picture_resize(p, 6, 5, (enum resample)how, &q, &err), err);     /* the same size changes nothing */
        assert_memory_equal(p->pixels, q->pixels, 6 * 5 * 3);
        picture_free(q);
        assert_ok(picture_resize(p, 1, 97, (enum resample)how, &q, &err), err);
        assert_int_equal(q->height, 97);
        picture_free(q);
    }
    assert_int_not_equal(picture_resize(p, 0, 5, RESAMPLE_BOX, &q, &err), ST_OK);
    assert_int_not_equal(picture_resize(p, 5, 100000, RESAMPLE_BOX, &q, &err), ST_OK);
    picture_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_texts), cmocka_unit_test(test_hostile), cmocka_unit_test(test_damage), cmocka_unit_test(test_resize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
