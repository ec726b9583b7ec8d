/* Headers that lie, and one that does not. */
#include "unit/unit.h"

#include "worker/engine/safetensors.h"

static char *dir;

static int setup(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(dir);
    return 0;
}

/* write_file writes a file with HEADER, its length field set to CLAIM, and N_DATA bytes 0, 1, 2... of data. */
static const char *write_file(const char *header, uint64_t claim, size_t n_data)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/t.safetensors", dir);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        fputc((int)(claim >> (8 * i) & 255), f);
    fwrite(header, 1, strlen(header), f);
    for (size_t i = 0; i < n_data; i++)
        fputc((int)(i & 255), f);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void refused(const char *header, size_t n_data, const char *says)
{
    struct safetensors *s = NULL;
    struct error err = {0};
    enum status st = safetensors_open(write_file(header, strlen(header), n_data), &s, &err);
    if (st != ST_BAD_MODEL)
        fail_msg("%.60s: status %s", header, status_name(st));
    assert_null(s);
    assert_says(err.message, says);
    assert_says(err.message, "t.safetensors");
}

static void reads_a_good_file(void **state)
{
    (void)state;
    const char *h = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                    "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},\"empty\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[20,20]}}";
    struct safetensors *s;
    struct error err;
    assert_ok(safetensors_open(write_file(h, strlen(h), 20), &s, &err), err);
    assert_int_equal(safetensors_count(s), 3);
    assert_string_equal(safetensors_at(s, 0)->name, "a");
    const struct st_entry *b = safetensors_find(s, "b");
    assert_non_null(b);
    assert_int_equal(b->dtype, DT_F16);
    assert_int_equal(b->ndim, 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->bytes, 12);
    assert_int_equal(((const uint8_t *)b->data)[0], 8);
    assert_int_equal(((const uint8_t *)b->data)[11], 19);
    assert_string_equal(safetensors_find(s, "a")->raw_dtype, "I64");
    assert_null(safetensors_find(s, "c"));
    assert_int_equal(safetensors_find(s, "empty")->bytes, 0);
    safetensors_close(s);
}

/* A header of any length puts data anywhere; floats are handed out aligned all the same. */
static void aligns_data(void **state)
{
    (void)state;
    for (int pad = 0; pad < 8; pad++) {
        char h[200];
        snprintf(h, sizeof h, "{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}%*s", pad, "");
        struct safetensors *s;
        struct error err;
        assert_ok(safetensors_open(write_file(h, strlen(h), 12), &s, &err), err);
        const struct st_entry *w = safetensors_find(s, "w");
        assert_int_equal((uintptr_t)w->data % 4, 0);
        assert_int_equal(((const uint8_t *)w->data)[11], 11);
        safetensors_close(s);
    }
}

static void refuses_lies(void **state)
{
    (void)state;
    refused("[]", 0, "not a JSON object");
    refused("{\"a\":", 0, "not valid JSON");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "not valid JSON");
    refused("{\"__metadata__\":3}", 0, "__metadata__");
    refused("{\"a\":3}", 0, "dtype is missing");
    refused("{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype 'F99'");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape entry 0");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "shape entry 0");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":\"x\",\"data_offsets\":[0,4]}}", 4, "shape is not a list");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "at most 8");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,0]}}", 0, "larger than any memory");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "need 8 bytes");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "cut off");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "data_offsets");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "data_offsets");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "1 bytes after the last tensor");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole of 4 bytes before tensor 'a'");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}", 6, "overlaps");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775803,9223372036854775807]}}", 4, "ends at byte");
}

static void refuses_lengths(void **state)
{
    (void)state;
    const uint64_t claims[] = {3, 1000, 100000001, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        struct safetensors *s = NULL;
        struct error err;
        assert_int_equal(safetensors_open(write_file("{}      ", claims[i], 0), &s, &err), ST_BAD_MODEL);
        assert_null(s);
    }
    struct safetensors *s = NULL;
    struct error err;
    assert_int_equal(safetensors_open(write_text(dir, "short", "abc"), &s, &err), ST_BAD_MODEL);
    assert_int_equal(safetensors_open(write_text(dir, "none", ""), &s, &err), ST_BAD_MODEL);
    assert_int_equal(safetensors_open(dir, &s, &err), ST_BAD_MODEL);
    assert_int_equal(safetensors_open("/nonexistent/x", &s, &err), ST_NOT_FOUND);
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reads_a_good_file), cmocka_unit_test(aligns_data), cmocka_unit_test(refuses_lies),
                                       cmocka_unit_test(refuses_lengths)};
    return cmocka_run_group_tests_name("safetensors", tests, setup, teardown);
}
