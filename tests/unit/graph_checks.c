/* What graph_parse, graph_set, graph_check_runnable and graph_each_model refuse, and in which words. */
#include "graph_kit.h"

struct bad {
    const char *graph, *says[4];
    enum status code;
    const char *class;
};

static const struct bad table[] = {
    {"[]", {"must be an object", "a list"}, ST_BAD_GRAPH, "ValidationError"},
    {"{'nodes': 3}", {"\"nodes\"", "a number"}, ST_BAD_GRAPH, "ValidationError"},
    {"{'nodes': {}, 'edges': {}}", {"\"edges\" must be a list"}, ST_BAD_GRAPH, "ValidationError"},
    {"{'id': 1}", {"\"id\""}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT("'a': 1", ""), {"node 'a' must be an object"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT("'a': {'id': 'a'}", ""), {"node 'a' has no type"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("a", "denoise_latent", ""), ""), {"'denoise_latent'", "did you mean 'denoise_latents'?"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("c", "controlnet", ""), ""), {"node 'c'", "'controlnet'", "not available"}, ST_NOT_AVAILABLE, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("d", "denoise_latents", ", 'steps': 0"), ""), {"node 'd'", "field 'steps': 0", "greater than 0"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("d", "denoise_latents", ", 'scheduler': 'eulr'"), ""),
     {"field 'scheduler'", "\"eulr\"", "did you mean 'euler'?"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("d", "denoise_latents", ", 'cfg_scale': [7, 0.5]"), ""), {"'cfg_scale.1'", "0.5 must be at least 1"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("n", "noise", ", 'width': 12"), ""), {"field 'width': 12 must be a multiple of 8"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("f", "float", ", 'value': 'inf'"), ""), {"must be finite"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("m", "main_model_loader", ", 'model': {'key': 'k', 'hash': 'h', 'name': 'n', 'base': 'sd-9', 'type': 'main'}"), ""),
     {"field 'model.base': \"sd-9\"", "sd-1"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("m", "main_model_loader", ", 'model': {'key': 'k'}"), ""), {"'model.hash'", "required"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("r", "range", ", 'start': 5, 'stop': 5"), ""), {"'stop': 5 must be greater than field 'start' (5)"}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT("'a': {'id': 'b', 'type': 'add'}", ""), {"node 'a'", "id 'b'"}, ST_BAD_GRAPH, "NodeIdMismatchError"},
    {GRAPH_TEXT("'a': {'type': 'add'}", ""), {"node 'a' has no \"id\""}, ST_BAD_GRAPH, "NodeIdMismatchError"},
    {GRAPH_TEXT("'a': {'id': 'x', 'type': 'add'}, 'b': {'id': 'x', 'type': 'add'}", ""), {"id 'x'", "unique"}, ST_BAD_GRAPH, "DuplicateNodeIdError"},
    {GRAPH_TEXT(NODE_TEXT("a", "add", ""), EDGE("a", "value", "gone", "a")), {"ends at node 'gone'", "not in the graph"}, ST_BAD_GRAPH, "NodeNotFoundError"},
    {GRAPH_TEXT(NODE_TEXT("a", "add", ""), EDGE("gone", "value", "a", "a")), {"starts at node 'gone'"}, ST_BAD_GRAPH, "NodeNotFoundError"},
    {GRAPH_TEXT(NODE_TEXT("a", "add", "") "," NODE_TEXT("b", "add", ""), EDGE("a", "value", "b", "c")),
     {"field 'c' of node 'b'", "it has: a b"}, ST_BAD_GRAPH, "NodeFieldNotFoundError"},
    {GRAPH_TEXT(NODE_TEXT("a", "add", ""), "{'source': {'node_id': 'a', 'field': 'value'}}"), {"edge 0 has no \"destination\""}, ST_BAD_GRAPH, "ValidationError"},
    {GRAPH_TEXT(NODE_TEXT("a", "add", "") "," NODE_TEXT("b", "add", ""), EDGE("a", "value", "b", "a") "," EDGE("b", "value", "a", "a")),
     {"cycle", "a -> b -> a"}, ST_BAD_GRAPH, "CyclicalGraphError"},
    {GRAPH_TEXT(NODE_TEXT("n", "noise", "") "," NODE_TEXT("p", "l2i", ""), EDGE("n", "noise", "p", "vae")),
     {"n.noise -> p.vae", "LatentsField", "field 'vae' takes VAEField"}, ST_BAD_GRAPH, "InvalidEdgeError"},
    {GRAPH_TEXT(NODE_TEXT("i", "iterate", ""), ""), {"iterate node 'i'", "'collection'"}, ST_BAD_GRAPH, "InvalidEdgeError"},
    {GRAPH_TEXT(NODE_TEXT("c", "collect", ""), ""), {"collect node 'c'", "'item'"}, ST_BAD_GRAPH, "InvalidEdgeError"},
    {GRAPH_TEXT(NODE_TEXT("a", "add", "") "," NODE_TEXT("s", "string", "") "," NODE_TEXT("c", "collect", ""),
                EDGE("a", "value", "c", "item") "," EDGE("s", "value", "c", "item")),
     {"collect node 'c'", "one type"}, ST_BAD_GRAPH, "InvalidEdgeError"},
};

static void bad_graphs_are_refused_in_clear_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct graph *g = NULL;
        struct graph_error detail = {0};
        struct error err = {0};
        AUTO_JSON *document = quoted(table[i].graph);
        enum status s = graph_parse(document, &g, &detail, &err);
        if (s != table[i].code)
            fail_msg("%s: %s %s", table[i].graph, status_name(s), err.message);
        assert_null(g);
        assert_string_equal(detail.class, table[i].class);
        for (size_t k = 0; k < 4 && table[i].says[k]; k++)
            assert_says(err.message, table[i].says[k]);
        /* No detail and no error asked for: the same answer. */
        assert_int_equal(graph_parse(document, &g, NULL, NULL), s);
    }
}

/* Each scheduler of the list is taken, or refused by its name where this build has not got it. */
static void schedulers_go_by_their_list(void **state)
{
    (void)state;
    static const struct { const char *name; bool available; } names[] = {
#define SCHEDULER(name, available) {#name, available},
#include "graph/schedulers.def"
    };
    const struct node_field *f = node_input(node_type_find("denoise_latents"), "scheduler");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct error err = {0};
        AUTO_JSON *name = json_string(names[i].name);
        AUTO_JSON *taken = NULL;
        assert_int_equal(field_coerce(f, name, &taken, &err), names[i].available ? ST_OK : ST_NOT_AVAILABLE);
        if (!names[i].available)
            assert_says(err.message, names[i].name);
    }
}

/* A chain of N adds; the last edge goes back to the first when CLOSED. */
static json_t *chain(int n, bool closed)
{
    json_t *nodes = json_object(), *edges = json_array();
    char id[32], before[32];
    for (int i = 0; i < n; i++) {
        snprintf(id, sizeof id, "n%d", i);
        snprintf(before, sizeof before, "n%d", i ? i - 1 : n - 1);
        json_object_set_new(nodes, id, json_pack("{s:s, s:s}", "id", id, "type", "add"));
        if (i > 0 || closed)
            json_array_append_new(edges, graph_edge_json(before, "value", id, "a"));
    }
    return json_pack("{s:o, s:o}", "nodes", nodes, "edges", edges);
}

static void limits_hold(void **state)
{
    (void)state;
    struct graph *g = NULL;
    struct error err = {0};
    AUTO_JSON *full = chain(GRAPH_MAX_NODES, false);
    assert_ok(graph_parse(full, &g, NULL, &err), err);
    assert_int_equal(g->order[GRAPH_MAX_NODES - 1], GRAPH_MAX_NODES - 1);
    graph_free(g);
    AUTO_JSON *over = chain(GRAPH_MAX_NODES + 1, false);
    assert_int_equal(graph_parse(over, &g, NULL, &err), ST_TOO_LARGE);
    assert_says(err.message, "10001 nodes, the limit is 10000");
    json_t *edges = json_object_get(full, "edges");
    for (int i = (int)json_array_size(edges); i < GRAPH_MAX_EDGES + 1; i++)
        json_array_append(edges, json_array_get(edges, 0));
    assert_int_equal(graph_parse(full, &g, NULL, &err), ST_TOO_LARGE);
    assert_says(err.message, "100001 edges");
    json_array_remove(edges, 0);
    assert_ok(graph_parse(full, &g, NULL, &err), err);
    graph_free(g);
    char id[GRAPH_MAX_ID + 2];
    memset(id, 'x', sizeof id - 1);
    id[sizeof id - 1] = '\0';
    AUTO_JSON *named = json_pack("{s:{s:{s:s, s:s}}}", "nodes", id, "id", id, "type", "add");
    assert_int_equal(graph_parse(named, &g, NULL, &err), ST_TOO_LARGE);
    assert_says(err.message, "257 bytes");
}

static void a_long_cycle_is_named_in_short(void **state)
{
    (void)state;
    struct graph *g = NULL;
    struct error err = {0};
    AUTO_JSON *ring = chain(5000, true);
    assert_int_equal(graph_parse(ring, &g, NULL, &err), ST_BAD_GRAPH);
    assert_says(err.message, "cycle");
    assert_says(err.message, "more");
    assert_true(strlen(err.message) < 600);
}

static void what_cannot_run_is_told_before(void **state)
{
    (void)state;
    struct error err = {0};
    struct graph *g = graph_of(GRAPH_TEXT(NODE_TEXT("p", "l2i", ""), ""));
    assert_int_equal(graph_check_runnable(g, &err), ST_BAD_GRAPH);
    assert_says(err.message, "node 'p' (l2i): field 'latents' has no edge and no value");
    graph_free(g);
    g = graph_of(GRAPH_TEXT(NODE_TEXT("i", "image", ", 'image': {'image_name': 'x.png'}") "," NODE_TEXT("s", "save_image", ""),
                            EDGE("i", "image", "s", "image")));
    assert_ok(graph_check_runnable(g, &err), err);
    graph_free(g);
}

static void set_goes_to_fields_and_document(void **state)
{
    (void)state;
    struct error err = {0};
    struct graph *g = graph_of(GRAPH_TEXT(NODE_TEXT("n", "noise", ""), ""));
    AUTO_JSON *text = json_string("64");
    assert_ok(graph_set(g, "n", "width", text, &err), err);
    assert_int_equal(json_int(g->nodes[0].fields, "width", 0), 64);
    assert_int_equal(json_int(json_object_get(json_object_get(g->document, "nodes"), "n"), "width", 0), 64);
    assert_ok(graph_set(g, "n", "use_cache", json_false(), &err), err);
    assert_false(g->nodes[0].use_cache);
    AUTO_JSON *odd = json_integer(7);
    assert_int_equal(graph_set(g, "n", "width", odd, &err), ST_BAD_GRAPH);
    assert_says(err.message, "node 'n' (noise): field 'width': 7");
    assert_int_equal(json_int(g->nodes[0].fields, "width", 0), 64);
    assert_int_equal(graph_set(g, "n", "nope", odd, &err), ST_BAD_GRAPH);
    assert_says(err.message, "no field 'nope'");
    assert_int_equal(graph_set(g, "gone", "width", odd, &err), ST_BAD_GRAPH);
    assert_says(err.message, "no node 'gone'");
    graph_free(g);
}

static void the_graph_is_written_as_invokeai_does(void **state)
{
    (void)state;
    struct graph *g = graph_of("{'id': 'g', 'nodes': {" NODE_TEXT("m", "core_metadata", ", 'seed': 5, 'mine': [1]") "," NODE_TEXT("7", "add", ", 'x': 1") "}}");
    AUTO_JSON *written = graph_json(g, "other");
    AUTO_JSON *add = quoted("{'id': '7', 'is_intermediate': false, 'use_cache': true, 'a': 0, 'b': 0, 'type': 'add'}");
    const json_t *nodes = json_object_get(written, "nodes"), *metadata = json_object_get(nodes, "m");
    assert_string_equal(json_str(written, "id", ""), "g");
    assert_true(json_equal(json_object_get(nodes, "7"), add));
    assert_int_equal(json_int(metadata, "seed", 0), 5);
    assert_true(json_is_null(json_object_get(metadata, "width")));
    assert_true(json_is_array(json_object_get(metadata, "mine")));
    graph_free(g);
}

struct seen {
    int n;
    char places[200];
};

static enum status note_model(void *arg, const char *node_id, const char *node_type, const char *field, const json_t *reference, json_t **ret, struct error *err)
{
    struct seen *seen = arg;
    seen->n++;
    sprintf(seen->places + strlen(seen->places), "%s.%s:%s=%s;", node_id, field, node_type, json_str(reference, "key", "null"));
    if (strcmp(json_str(reference, "key", "null"), "bad") == 0)
        return FAIL(err, NO_MODEL, "no model");
    *ret = json_is_null(reference) ? json_pack("{s:s}", "key", "default") : NULL;
    return ST_OK;
}

#define MODEL(key) "{'key': '" key "', 'hash': 'h', 'name': 'n', 'base': 'sd-1', 'type': 'main'}"

static void every_model_reference_is_shown(void **state)
{
    (void)state;
    struct error err = {0};
    struct seen seen = {0};
    struct graph *g = graph_of(GRAPH_TEXT(NODE_TEXT("a", "main_model_loader", ", 'model': " MODEL("k")) "," NODE_TEXT("b", "main_model_loader", "") ","
                                              NODE_TEXT("m", "core_metadata", ", 'model': " MODEL("bad")),
                                          ""));
    assert_ok(graph_each_model(g, note_model, &seen, &err), err);
    assert_string_equal(seen.places, "a.model:main_model_loader=k;b.model:main_model_loader=null;");
    assert_string_equal(json_str(json_object_get(g->nodes[1].fields, "model"), "key", ""), "default");
    assert_string_equal(json_str(json_object_get(json_object_get(json_object_get(g->document, "nodes"), "b"), "model"), "key", ""), "default");
    graph_free(g);
    seen = (struct seen){0};
    g = graph_of(GRAPH_TEXT(NODE_TEXT("c", "clip_skip", ", 'clip': {'tokenizer': " MODEL("t") ", 'text_encoder': " MODEL("e")
                                      ", 'skipped_layers': 0, 'loras': [{'lora': " MODEL("bad") ", 'weight': 1}]}"), ""));
    assert_int_equal(graph_each_model(g, note_model, &seen, &err), ST_NO_MODEL);
    assert_string_equal(seen.places, "c.clip:clip_skip=t;c.clip:clip_skip=e;c.clip:clip_skip=bad;");
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_graphs_are_refused_in_clear_words), cmocka_unit_test(schedulers_go_by_their_list), cmocka_unit_test(limits_hold), cmocka_unit_test(a_long_cycle_is_named_in_short),
        cmocka_unit_test(what_cannot_run_is_told_before), cmocka_unit_test(set_goes_to_fields_and_document),
        cmocka_unit_test(the_graph_is_written_as_invokeai_does), cmocka_unit_test(every_model_reference_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
