/* Tokenizer, prompt language and conditioning on hostile input and small stand-ins. Recorded cases are in tests/golden. */
#include "unit/unit.h"

#include <math.h>
#include <time.h>
#include "worker/engine/conditioning.h"
#include "worker/engine/prompt.h"

/* ---- vocabularies */
static const char *const letters = "\"a\":0,\"b\":1,\"a</w>\":2,\"b</w>\":3,\"ab\":4,\"ab</w>\":5,\".</w>\":6,\",</w>\":7,\"<|startoftext|>\":8,\"<|endoftext|>\":9";

static char *make_vocabulary(const char *vocab, const char *merges)
{
    char *dir = temp_dir(), text[2048];
    snprintf(text, sizeof text, "{%s}", vocab);
    write_text(dir, "vocab.json", text);
    write_text(dir, "merges.txt", merges);
    return dir;
}

static void bad_vocabulary(const char *vocab, const char *merges, const char *says)
{
    struct tokenizer *t = NULL;
    struct error err;
    char *dir = make_vocabulary(vocab, merges);
    assert_int_equal(tokenizer_open(dir, &t, &err), ST_BAD_MODEL);
    assert_says(err.message, says);
    temp_dir_remove(dir);
}

static void test_bad_vocabularies(void **state)
{
    (void)state;
    bad_vocabulary("", "", "vocab.json");
    bad_vocabulary("\"a\":-1", "", "\"a\"");
    bad_vocabulary("\"a\":99999999999", "", "\"a\"");
    bad_vocabulary("\"a\":1,\"b\":1", "", "share id 1");
    bad_vocabulary("\"a\":1", "", "begin mark");
    bad_vocabulary(letters, "#version: 0.2\na\n", "merges.txt:2");
    bad_vocabulary(letters, "a b c\n", "merges.txt:1");
    bad_vocabulary(letters, "a b\nb a\n", "merges.txt:2");
    struct tokenizer *t = NULL;
    struct error err;
    assert_int_equal(tokenizer_open("/nonexistent", &t, &err), ST_BAD_MODEL);
    char *dir = make_vocabulary(letters, "");
    write_text(dir, "tokenizer_config.json", "{\"pad_token\": \"nope\"}");
    assert_int_equal(tokenizer_open(dir, &t, &err), ST_BAD_MODEL);
    assert_says(err.message, "padding token");
    write_text(dir, "tokenizer_config.json", "{");
    assert_int_equal(tokenizer_open(dir, &t, &err), ST_BAD_MODEL);
    assert_says(err.message, "tokenizer_config.json");
    temp_dir_remove(dir);
}

static struct tokenizer *small_tokenizer(void)
{
    struct tokenizer *t = NULL;
    struct error err;
    char *dir = make_vocabulary(letters, "#version: 0.2\na b\na b</w>\n");
    assert_ok(tokenizer_open(dir, &t, &err), err);
    temp_dir_remove(dir);
    return t;
}

static void test_merges(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    struct error err;
    int32_t *ids = NULL;
    size_t n = 0;
    assert_ok(tokenizer_encode(t, " AB abab\t<|endoftext|>.", &ids, &n, &err), err);
    const int32_t want[] = { 5, 4, 5, 9, 6 };
    assert_int_equal(n, 5);
    assert_memory_equal(ids, want, sizeof want);
    free(ids);
    tokenizer_free(t);
    tokenizer_free(NULL);
}

/* A word of a megabyte must not take quadratic time; invalid UTF-8 must not be read past. */
static void test_long_word(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct tokenizer *t = small_tokenizer();
    struct error err;
    int32_t *ids = NULL;
    size_t n = 0;
    char *word = malloc(N + 1);
    assert_non_null(word);
    for (int i = 0; i < N; i++)
        word[i] = "ab"[i % 2];
    word[N] = 0;
    clock_t begin = clock();
    assert_ok(tokenizer_encode(t, word, &ids, &n, &err), err);
    assert_true(clock() - begin < 20 * CLOCKS_PER_SEC);
    assert_int_equal(n, N / 2);
    free(ids);
    assert_ok(tokenizer_encode_bytes(t, "a\xf0\x9f\x98", 4, &ids, &n, &err), err);
    assert_true(n >= 2);
    free(ids);
    free(word);
    tokenizer_free(t);
}

/* ---- prompts */
static void parses(const char *text)
{
    struct prompt *p = NULL;
    struct error err;
    clock_t begin = clock();
    assert_ok(prompt_parse(text, &p, &err), err);
    assert_true(clock() - begin < 10 * CLOCKS_PER_SEC);
    prompt_free(p);
}

static void fails(const char *text, const char *says)
{
    struct prompt *p = NULL;
    struct error err;
    assert_int_equal(prompt_parse(text, &p, &err), ST_BAD_ARGUMENT);
    assert_says(err.message, says);
}

static void test_bad_prompts(void **state)
{
    (void)state;
    fails("(\"a\", \"b\").and(1)", "1 weights for 2 prompts");
    fails("(\"a\", \"b\").and(x)", "takes numbers");
    fails("(\"a\", \"b\").blend(1, -1)", "sum to 0");
    fails("(\"a\", \"b\").blend(1, 1) c", "nothing may follow");
    fails("(\"a (b).swap(c)\", \"d\").blend(1, 1)", ".swap()");
    fails("(a)99999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999"
          "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999"
          "999999 ((((b)9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999"
          "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999)9999999999999999999999999999"
          "999999999999999999999999999999999999999999999999999999999999999)99999999999999999999999)9999999999999", "too large");
    prompt_free(NULL);
}

/* Brackets and quotes that never close, and as many as fit: linear time, no deep recursion. */
static void test_hostile_prompts(void **state)
{
    (void)state;
    enum { N = 32 * 1024 };
    static const char *const units[] = { "(", "(a ", "((a)+ ", "\"", "\"a ", "\\\"", "(\"", "a+ ", "(a)0.5", "a.swap(", "withLora(", ")", "+", "(a,", "\xff" };
    char *text = malloc(N + 8);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t n = 0, unit = strlen(units[i]);
        while (n + unit <= N / 2) {
            memcpy(text + n, units[i], unit);
            n += unit;
        }
        text[n] = 0;
        parses(text);
    }
    memset(text, 'a', N + 1);
    text[N + 1] = 0;
    fails(text, "at most");
    free(text);
}

/* ---- conditioning, with an encoder whose features are the token and how many tokens it could see */
static size_t encoded_rows;

static enum status encode(void *self, const int32_t *ids, const uint8_t *mask, int n, float *ret, struct error *err)
{
    (void)self, (void)err;
    enum { TOKENS = 8 };
    encoded_rows += (size_t)n;
    for (int r = 0; r < n; r++) {
        int seen = 0;
        for (int i = 0; i < TOKENS; i++)
            seen += mask ? mask[r * TOKENS + i] : 1;
        for (int i = 0; i < TOKENS; i++) {
            ret[(r * TOKENS + i) * 2] = (float)ids[r * TOKENS + i];
            ret[(r * TOKENS + i) * 2 + 1] = (float)seen;
        }
    }
    return ST_OK;
}

static struct tensor *condition(const char *prompt)
{
    struct tokenizer *t = small_tokenizer();
    struct text_encode te = { NULL, 8, 2, encode };
    struct tensor *ret = NULL;
    struct error err;
    encoded_rows = 0;
    assert_ok(conditioning_encode(&te, t, prompt, &ret, &err), err);
    tokenizer_free(t);
    return ret;
}

static void test_conditioning(void **state)
{
    (void)state;
    struct tensor *t = condition("a (b)2");
    assert_int_equal(t->dim[1], 8);
    assert_true(t->data[2 * 1] == 2);                   /* a: as encoded */
    assert_true(t->data[2 * 2] == 9 + (3 - 9) * 2);     /* b: twice as far from the padding at its place */
    assert_true(t->data[2 * 3] == 9);
    tensor_free(t);
    t = condition("a (b b)0.5");                        /* half of it from a row that hides both */
    assert_int_equal(encoded_rows, 3);
    assert_true(fabsf(t->data[1] - (8 + 6) / 2.0f) < 1e-5f);
    assert_true(fabsf(t->data[2 * 2] - (9 + (3 - 9) * 0.5f)) < 1e-5f);
    tensor_free(t);
    t = condition("a a. a a a a");                      /* seven tokens, room for six: cut after the point */
    assert_int_equal(t->dim[1], 16);
    assert_true(t->data[2 * 3] == 6 && t->data[2 * 4] == 9 && t->data[2 * 8] == 8 && t->data[2 * 9] == 2);
    tensor_free(t);
    t = condition("(\"a\", \"b\").and(1, 0)");          /* a weight of 0 leaves the empty prompt */
    assert_int_equal(t->dim[1], 16);
    assert_true(t->data[2] == 2 && t->data[2 * 9] == 9);
    tensor_free(t);
    t = condition("(\"a\", \"b\").blend(3, 1)");
    assert_int_equal(t->dim[1], 8);
    assert_true(t->data[2] == 2.25f);
    tensor_free(t);
    t = condition("()");
    assert_int_equal(t->dim[1], 8);
    assert_true(t->data[2] == 9);
    tensor_free(t);
}

static void test_too_many_chunks(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    struct text_encode te = { NULL, 8, 2, encode };
    struct tensor *ret = NULL;
    struct error err;
    char *text = malloc(32 * 1024);
    assert_non_null(text);
    for (int i = 0; i < 5000; i++)
        memcpy(text + 6 * i, "a- b ", 7 - 1);
    text[6 * 4999] = 0;
    for (char *p = text; p < text + 6 * 4999; p++)
        *p = *p ? *p : ' ';
    assert_int_equal(conditioning_encode(&te, t, text, &ret, &err), ST_BAD_ARGUMENT);
    assert_says(err.message, "chunks");
    free(text);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_vocabularies), cmocka_unit_test(test_merges), cmocka_unit_test(test_long_word), cmocka_unit_test(test_bad_prompts),
        cmocka_unit_test(test_hostile_prompts), cmocka_unit_test(test_conditioning), cmocka_unit_test(test_too_many_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
