/* The graph that render sends, checked by the very parser the node uses; and the changes that 'run' makes to a given one. */
#include "unit/unit.h"

#include "client/graph_input.h"
#include "client/model_choice.h"
#include "client/picture_graph.h"
#include "client/png_text.h"
#include "common/json.h"
#include "graph/batch.h"

static json_t *model(const char *base)
{
    return json_pack("{s:s s:s s:s s:s s:s s:i}", "key", "emoji", "hash", "h", "name", "emoji", "base", base, "type", "main", "bytes", 1);
}

static struct picture_request request(const json_t *row)
{
    return (struct picture_request){.prompt = "a \"red\" apple\n\xe2\x99\xa5",
                                    .negative = "blur",
                                    .model = row,
                                    .width = 128,
                                    .height = 64,
                                    .steps = 20,
                                    .cfg = 5,
                                    .scheduler = "ddim",
                                    .seed = 4294967295,
                                    .count = 1};
}

static void node_accepts_the_graph(void **state)
{
    (void)state;
    for (int skip_layers = 0; skip_layers < 3; skip_layers += 2)
        for (int count = 1; count < 4; count += 2) {
            struct error err;
            struct batch *b;
            json_t *args;
            AUTO_JSON *row = model("sd-1");
            struct picture_request r = request(row);
            r.clip_skip = skip_layers;
            r.count = count;
            assert_ok(picture_batch(&r, &args, &err), err);
            assert_ok(batch_parse(json_object_get(args, "batch"), 100, &b, NULL, &err), err);
            assert_ok(graph_check_runnable(b->graph, &err), err);
            assert_int_equal(b->count, count);
            assert_int_equal(b->graph->n_nodes, skip_layers ? 8 : 7);
            assert_int_equal(graph_input_count(args), count);
            AUTO_JSON *values = batch_values(b->data, count - 1);
            assert_int_equal(json_array_size(values), count > 1 ? 2 : 0);
            if (count > 1) /* the seed after the largest one is 0 */
                assert_int_equal(json_int(json_array_get(values, 0), "value", -1), count - 2);
            batch_free(b);
            json_decref(args);
        }
}

static const json_t *node_of(const json_t *args, const char *id)
{
    return json_object_get(json_object_get(json_object_get(json_object_get(args, "batch"), "graph"), "nodes"), id);
}

static void metadata_says_what_was_asked(void **state)
{
    (void)state;
    struct error err;
    json_t *args;
    AUTO_JSON *row = model("sd-1");
    struct picture_request r = request(row);
    assert_ok(picture_batch(&r, &args, &err), err);
    const json_t *m = node_of(args, "core_metadata"), *l2i = node_of(args, "l2i");
    assert_string_equal(json_str(m, "positive_prompt", ""), r.prompt);
    assert_string_equal(json_str(m, "negative_prompt", ""), "blur");
    assert_true(json_int(m, "seed", 0) == r.seed && json_int(m, "width", 0) == 128 && json_int(m, "height", 0) == 64);
    assert_true(json_num(m, "cfg_scale", 0) == 5 && json_int(m, "steps", 0) == 20);
    assert_string_equal(json_str(m, "scheduler", ""), "ddim");
    assert_string_equal(json_str(json_object_get(m, "model"), "key", ""), "emoji");
    assert_false(json_flag(l2i, "is_intermediate", true));
    json_decref(args);
}

static void other_bases_are_refused_by_name(void **state)
{
    (void)state;
    struct error err;
    json_t *args;
    AUTO_JSON *row = model("sdxl");
    struct picture_request r = request(row);
    assert_int_equal(picture_batch(&r, &args, &err), ST_NOT_AVAILABLE);
    assert_says(err.message, "sdxl");
}

static void schedulers(void **state)
{
    (void)state;
    struct error err;
    assert_ok(scheduler_check("dpmpp_2m_k", &err), err);
    assert_ok(scheduler_check("lcm", &err), err);
    assert_int_equal(scheduler_check("eulr", &err), ST_BAD_ARGUMENT);
    assert_says(err.message, "is euler meant");
}

static void models_by_name_key_or_default(void **state)
{
    (void)state;
    struct error err;
    const json_t *row;
    AUTO_JSON *models = json_pack("{s:[{s:s s:s s:s} {s:s s:s s:s s:b}]}", "models", "key", "k1", "name", "one", "type", "main", "key",
                                  "k2", "name", "two", "type", "main", "default", 1);
    assert_ok(model_choose(models, NULL, &row, &err), err);
    assert_string_equal(json_str(row, "name", ""), "two");
    assert_ok(model_choose(models, "one", &row, &err), err);
    assert_ok(model_choose(models, "k1", &row, &err), err);
    assert_string_equal(json_str(row, "name", ""), "one");
    assert_int_equal(model_choose(models, "three", &row, &err), ST_NO_MODEL);
    assert_says(err.message, "three");
    assert_says(err.message, "one, two");
}

static json_t *read_text(const char *text, enum status expected, struct error *err)
{
    char *dir = temp_dir();
    json_t *args = NULL;
    enum status s = graph_input_read(write_text(dir, "graph.json", text), &args, err);
    if (s != expected)
        fail_msg("%s: status %s, not %s: %s", text, status_name(s), status_name(expected), err->message);
    temp_dir_remove(dir);
    return args;
}

static void forms_of_input(void **state)
{
    (void)state;
    struct error err;
    static const char *const good[] = {
        "{\"nodes\":{\"a\":{\"id\":\"a\",\"type\":\"add\"}},\"edges\":[]}",
        "{\"graph\":{\"nodes\":{\"a\":{\"id\":\"a\",\"type\":\"add\"}},\"edges\":[]},\"runs\":2}",
        "{\"prepend\":true,\"batch\":{\"graph\":{\"nodes\":{\"a\":{\"id\":\"a\",\"type\":\"add\"}},\"edges\":[]},\"runs\":2}}",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        AUTO_JSON *args = read_text(good[i], ST_OK, &err);
        assert_non_null(node_of(args, "a"));
        assert_int_equal(graph_input_count(args), i ? 2 : 1);
    }
    read_text("{\"nodes\":[{\"id\":\"x\"}],\"edges\":[]}", ST_NOT_AVAILABLE, &err);
    assert_says(err.message, "workflow");
    read_text("[1]", ST_BAD_REQUEST, &err);
    read_text("{", ST_BAD_REQUEST, &err);
    assert_says(err.message, "line 1");
    json_t *none;
    assert_int_equal(graph_input_read("/no/such/file", &none, &err), ST_BAD_ARGUMENT);
    assert_says(err.message, "/no/such/file");
}

static void values_set(void **state)
{
    (void)state;
    struct error err;
    AUTO_JSON *args =
        read_text("{\"nodes\":{\"a.b:1\":{\"id\":\"a.b:1\",\"type\":\"string\",\"value\":\"x\",\"n\":1}},\"edges\":[]}", ST_OK, &err);
    const json_t *n = node_of(args, "a.b:1");
    assert_ok(graph_input_set(args, "a.b:1.value=5=5", &err), err);
    assert_string_equal(json_str(n, "value", ""), "5=5");
    assert_ok(graph_input_set(args, "a.b:1.value=7", &err), err);
    assert_string_equal(json_str(n, "value", ""), "7");
    assert_ok(graph_input_set(args, "a.b:1.n=7", &err), err);
    assert_int_equal(json_int(n, "n", 0), 7);
    assert_ok(graph_input_set(args, "a.b:1.new=[1, 2]", &err), err);
    assert_int_equal(json_array_size(json_object_get(n, "new")), 2);
    assert_ok(graph_input_set(args, "a.b:1.word=plain words", &err), err);
    assert_string_equal(json_str(n, "word", ""), "plain words");
    assert_int_equal(graph_input_set(args, "a.b:2.n=1", &err), ST_NOT_FOUND);
    assert_says(err.message, "is 'a.b:1' meant");
    static const char *const bad[] = {"", "x", "x=1", ".x=1", "x.=1", "=x.y"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(graph_input_set(args, bad[i], &err), ST_BAD_ARGUMENT);
}

static size_t chunk(uint8_t *at, const char *type, const char *data, size_t n)
{
    const uint8_t head[] = {0, 0, (uint8_t)(n >> 8), (uint8_t)n};
    memcpy(at, head, 4);
    memcpy(at + 4, type, 4);
    memcpy(at + 8, data, n);
    memset(at + 8 + n, 0, 4);
    return n + 12;
}

static void texts_of_a_png(void **state)
{
    (void)state;
    struct error err;
    uint8_t png[512];
    char *text;
    memcpy(png, "\x89PNG\r\n\x1a\n", 8);
    size_t n = 8;
    n += chunk(png + n, "IHDR", "0123456789012", 13);
    n += chunk(png + n, "tEXt", "graph\0{\"a\":1}", 13);
    n += chunk(png + n, "iTXt", "wide\0\0\0en\0weit\0text", 19);
    n += chunk(png + n, "iTXt", "small\0\1\0en\0weit\0text", 20);
    n += chunk(png + n, "IEND", "", 0);
    assert_ok(png_text_find(png, n, "graph", &text, &err), err);
    assert_string_equal(text, "{\"a\":1}");
    free(text);
    assert_ok(png_text_find(png, n, "wide", &text, &err), err);
    assert_string_equal(text, "text");
    free(text);
    assert_int_equal(png_text_find(png, n, "small", &text, &err), ST_UNSUPPORTED);
    assert_int_equal(png_text_find(png, n, "none", &text, &err), ST_NOT_FOUND);
    for (size_t cut = 0; cut < n; cut++) { /* a file cut off anywhere: no crash, no text that is not whole */
        uint8_t *copy = malloc(cut + 1);
        memcpy(copy, png, cut);
        if (png_text_find(copy, cut, "wide", &text, &err) == ST_OK) {
            assert_string_equal(text, "text");
            free(text);
        }
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_accepts_the_graph),
        cmocka_unit_test(metadata_says_what_was_asked),
        cmocka_unit_test(other_bases_are_refused_by_name),
        cmocka_unit_test(schedulers),
        cmocka_unit_test(models_by_name_key_or_default),
        cmocka_unit_test(forms_of_input),
        cmocka_unit_test(values_set),
        cmocka_unit_test(texts_of_a_png),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
