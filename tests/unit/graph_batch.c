/* Batches: what tests/cases does not ask. Expansion and InvokeAI's refusals are there. */
#include "graph_kit.h"

#include "graph/batch.h"

#define TWO "'graph': {'nodes': {'a': {'id': 'a', 'type': 'add'}, 'b': {'id': 'b', 'type': 'noise'}}}"

static enum status parse(const char *text, int64_t max, struct batch **ret, struct error *err)
{
    AUTO_JSON *body = quoted(text);
    return batch_parse(body, max, ret, NULL, err);
}

static void messages_name_group_node_and_field(void **state)
{
    (void)state;
    static const struct {
        const char *body, *says[3];
        enum status code;
    } table[] = {
        {"[]", {"must be an object"}, ST_BAD_BATCH},
        {"{}", {"\"graph\""}, ST_BAD_BATCH},
        {"{" TWO ", 'runs': 0}", {"field 'runs': 0", "greater than or equal to 1"}, ST_BAD_BATCH},
        {"{" TWO ", 'data': 3}", {"\"data\" must be a list"}, ST_BAD_BATCH},
        {"{" TWO ", 'data': [3]}", {"group 1"}, ST_BAD_BATCH},
        {"{" TWO ", 'data': [[{'node_path': 'a'}]]}", {"group 1, entry 1", "field_name"}, ST_BAD_BATCH},
        {"{" TWO
         ", 'data': [[], [{'node_path': 'a', 'field_name': 'a', 'items': [1, 2]}, {'node_path': 'a', 'field_name': 'b', 'items': [1]}]]}",
         {"group 2, node 'a', field 'b'", "1 items", "has 2"},
         ST_BAD_BATCH},
        {"{" TWO ", 'data': [[{'node_path': 'b', 'field_name': 'width', 'items': [64, 65]}]]}",
         {"group 1, node 'b', field 'width'", "65 must be a multiple of 8"},
         ST_BAD_BATCH},
        {"{" TWO ", 'data': [[{'node_path': 'a', 'field_name': 'id', 'items': ['z']}]]}",
         {"field 'id'", "cannot be changed"},
         ST_BAD_BATCH},
        {"{" TWO ", 'data': [[{'node_path': 'zz', 'field_name': 'a', 'items': [1]}]]}", {"node 'zz'", "no such node"}, ST_BAD_BATCH},
        {"{'graph': {'nodes': {'a': {'id': 'a', 'type': 'adz'}}}}", {"'adz'", "did you mean 'add'?"}, ST_BAD_GRAPH},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct batch *b = NULL;
        struct error err = {0};
        assert_int_equal(parse(table[i].body, 100, &b, &err), table[i].code);
        for (size_t k = 0; k < 3 && table[i].says[k]; k++)
            assert_says(err.message, table[i].says[k]);
    }
}

static void over_the_limit_is_refused_whole(void **state)
{
    (void)state;
    struct batch *b = NULL;
    struct error err = {0};
    assert_ok(parse("{" TWO ", 'runs': 100}", 100, &b, &err), err);
    assert_int_equal(b->count, 100);
    batch_free(b);
    assert_int_equal(parse("{" TWO ", 'runs': 101}", 100, &b, &err), ST_TOO_LARGE);
    assert_says(err.message, "101 runs; at most 100");
    assert_int_equal(parse("{" TWO ", 'runs': 9000000000000000000}", 100, &b, &err), ST_TOO_LARGE);
    assert_int_equal(parse("{" TWO ", 'runs': 2, 'data': [[{'node_path': 'a', 'field_name': 'a', 'items': [1, 2, 3]}]]}", 5, &b, &err),
                     ST_TOO_LARGE);
}

/* 1000 x 1000 x 1000 combinations are counted and told one by one, never built. */
static void expansion_is_lazy(void **state)
{
    (void)state;
    AUTO_JSON *data = json_array();
    const char *const fields[] = {"a", "b", "c"};
    for (int g = 0; g < 3; g++) {
        json_t *items = json_array();
        for (int i = 0; i < 1000; i++)
            json_array_append_new(items, json_integer(i));
        json_array_append_new(data, json_pack("[{s:s, s:s, s:o}]", "node_path", "n", "field_name", fields[g], "items", items));
    }
    AUTO_JSON *values = batch_values(data, 123456789 + 3 * 1000000000LL);
    for (size_t i = 0; i < 3; i++) {
        static const int expected[] = {123, 456, 789};
        assert_string_equal(json_str(json_array_get(values, i), "field_name", ""), fields[i]);
        assert_int_equal(json_int(json_array_get(values, i), "value", -1), expected[i]);
    }
    AUTO_JSON *none = batch_values(NULL, 7);
    assert_int_equal(json_array_size(none), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(messages_name_group_node_and_field),
                                       cmocka_unit_test(over_the_limit_is_refused_whole), cmocka_unit_test(expansion_is_lazy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
