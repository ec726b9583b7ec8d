/* The executor beyond what tests/cases shows: order of classes, errors, limits, the session object. Nodes are computed here, so that no
 * node implementation is needed. */
#include "graph_kit.h"

#include "worker/executor.h"

/* A few nodes, enough for these graphs: add, integer, string, div, range, iterate, collect. */
static json_t *compute(const struct prepared *p)
{
    const char *type = p->type->type;
    if (strcmp(type, "add") == 0)
        return json_pack("{s:s, s:I}", "type", "integer_output", "value",
                         (json_int_t)(json_int(p->inputs, "a", 0) + json_int(p->inputs, "b", 0)));
    if (strcmp(type, "range") == 0) {
        json_t *list = json_array();
        for (long long i = json_int(p->inputs, "start", 0); i < json_int(p->inputs, "stop", 0); i++)
            json_array_append_new(list, json_integer(i));
        return json_pack("{s:s, s:o}", "type", "integer_collection_output", "collection", list);
    }
    const json_t *list = json_object_get(p->inputs, "collection");
    if (strcmp(type, "iterate") == 0)
        return json_pack("{s:s, s:O, s:i}", "type", "iterate_output", "item", json_array_get(list, (size_t)json_int(p->inputs, "index", 0)),
                         "total", (int)json_array_size(list));
    if (strcmp(type, "collect") == 0)
        return json_pack("{s:s, s:O}", "type", "collect_output", "collection", list);
    return json_pack("{s:s, s:O}", "type", "any_output", "value", json_object_get(p->inputs, "value"));
}

/* Runs G to its end and writes the source ids in order; returns what ended it. */
static enum status run(struct executor *x, char *order, size_t size, struct error *err)
{
    const struct prepared *p;
    size_t at = 0;
    *order = '\0';
    for (;;) {
        enum status s = executor_next(x, &p, err);
        if (s != ST_OK || !p)
            return s;
        if (at < size)
            at += (size_t)snprintf(order + at, size - at, "%s%s", at ? " " : "", p->source_id);
        AUTO_JSON *output = compute(p);
        s = executor_complete(x, p, output, err);
        if (s != ST_OK)
            return s;
    }
}

static struct executor *executor_of(const struct graph *g)
{
    struct error err = {0};
    struct executor *x = NULL;
    assert_ok(executor_new(g, "the-session", &x, &err), err);
    return x;
}

static void classes_run_in_order_of_their_names(void **state)
{
    (void)state;
    char order[200];
    struct error err = {0};
    struct graph *g =
        graph_of(GRAPH_TEXT(NODE_TEXT("s", "string", "") "," NODE_TEXT("i1", "integer", "") "," NODE_TEXT("a", "add", "") "," NODE_TEXT(
                                "i2", "integer", "") "," NODE_TEXT("b", "add", "") "," NODE_TEXT("f", "float", ""),
                            EDGE("i1", "value", "a", "a") "," EDGE("a", "value", "b", "a")));
    struct executor *x = executor_of(g);
    assert_ok(run(x, order, sizeof order, &err), err);
    assert_string_equal(order, "f i1 i2 a b s");
    int done, total;
    executor_progress(x, &done, &total);
    assert_int_equal(done, 6);
    assert_int_equal(total, 6);
    executor_free(x);
    graph_free(g);
}

#define NESTED                                                                                                                             \
    GRAPH_TEXT(NODE_TEXT("l", "range", ", 'stop': 3") "," NODE_TEXT("i", "iterate", "") "," NODE_TEXT(                                     \
                   "a", "add", ", 'b': 10") "," NODE_TEXT("c", "collect", ""),                                                             \
               EDGE("l", "collection", "i", "collection") "," EDGE("i", "item", "a", "a") "," EDGE("a", "value", "c", "item"))

static void the_session_is_invokeais(void **state)
{
    (void)state;
    static const char *const members[] = {"id",
                                          "graph",
                                          "execution_graph",
                                          "executed",
                                          "executed_history",
                                          "results",
                                          "errors",
                                          "workflow_call_stack",
                                          "workflow_call_history",
                                          "max_workflow_call_depth",
                                          "prepared_source_mapping",
                                          "source_prepared_mapping",
                                          "prepared_iteration_paths",
                                          "ready_order",
                                          "indegree"};
    char order[200];
    struct error err = {0};
    struct graph *g = graph_of(NESTED);
    struct executor *x = executor_of(g);
    assert_ok(run(x, order, sizeof order, &err), err);
    assert_string_equal(order, "l i i i a a a c");
    AUTO_JSON *session = executor_session(x);
    assert_int_equal(json_object_size(session), sizeof members / sizeof members[0]);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        assert_non_null(json_object_get(session, members[i]));
    AUTO_JSON *history = quoted("['l', 'i', 'a', 'c']");
    assert_true(json_equal(json_object_get(session, "executed_history"), history));
    assert_int_equal(json_array_size(json_object_get(session, "executed")), 12);
    const json_t *execution = json_object_get(session, "execution_graph"), *copies = json_object_get(session, "source_prepared_mapping");
    assert_int_equal(json_object_size(json_object_get(execution, "nodes")), 8);
    assert_int_equal(json_array_size(json_object_get(execution, "edges")), 9);
    const char *collect = json_string_value(json_array_get(json_object_get(copies, "c"), 0));
    AUTO_JSON *list = quoted("[10, 11, 12]");
    assert_true(json_equal(json_object_get(json_object_get(json_object_get(session, "results"), collect), "collection"), list));
    assert_int_equal(json_array_size(json_object_get(json_object_get(json_object_get(execution, "nodes"), collect), "collection")), 0);
    const char *second = json_string_value(json_array_get(json_object_get(copies, "a"), 1));
    AUTO_JSON *path = quoted("[1]");
    assert_true(json_equal(json_object_get(json_object_get(session, "prepared_iteration_paths"), second), path));
    executor_free(x);
    graph_free(g);
}

static void an_event_shows_no_lists(void **state)
{
    (void)state;
    struct error err = {0};
    struct graph *g = graph_of(NESTED);
    struct executor *x = executor_of(g);
    const struct prepared *p;
    assert_ok(executor_next(x, &p, &err), err);
    AUTO_JSON *range = compute(p);
    assert_ok(executor_complete(x, p, range, &err), err);
    assert_ok(executor_next(x, &p, &err), err);
    assert_int_equal(json_array_size(json_object_get(p->inputs, "collection")), 3);
    AUTO_JSON *shown = executor_invocation(p);
    assert_string_equal(json_str(shown, "id", ""), p->id);
    assert_string_equal(json_str(shown, "type", ""), "iterate");
    assert_int_equal(json_array_size(json_object_get(shown, "collection")), 0);
    executor_free(x);
    graph_free(g);
}

/* Runs the graph, which must fail with NODE_FAILED; checks our words and those in the session. */
static void fails(const char *text, const char *says, const char *session_says)
{
    char order[200];
    struct error err = {0};
    struct graph *g = graph_of(text);
    struct executor *x = executor_of(g);
    assert_int_equal(run(x, order, sizeof order, &err), ST_NODE_FAILED);
    assert_int_equal(err.code, ST_NODE_FAILED);
    assert_says(err.message, says);
    assert_true(executor_failed(x));
    AUTO_JSON *session = executor_session(x);
    const json_t *errors = json_object_get(session, "errors");
    assert_int_equal(json_object_size(errors), 1);
    assert_says(json_string_value(json_object_iter_value(json_object_iter((json_t *)errors))), session_says);
    const struct prepared *p = (const struct prepared *)x;
    assert_ok(executor_next(x, &p, &err), err);
    assert_null(p);
    executor_free(x);
    graph_free(g);
}

static void missing_and_wrong_inputs_name_node_and_field(void **state)
{
    (void)state;
    fails(GRAPH_TEXT(NODE_TEXT("s", "save_image", ""), ""), "node 's' (save_image): required field 'image' has no value",
          "MissingInputException: Node save_image missing value or connection for field image");
    fails(GRAPH_TEXT(NODE_TEXT("p", "l2i", ""), ""), "node 'p' (l2i): required field 'latents'",
          "RequiredConnectionException: Node l2i missing connections for field latents");
    fails(GRAPH_TEXT(NODE_TEXT("i", "integer", ", 'value': 12") "," NODE_TEXT("n", "noise", ""), EDGE("i", "value", "n", "width")),
          "node 'n' (noise): field 'width': 12 must be a multiple of 8", "NodeInputError: Node ");
    fails(GRAPH_TEXT(NODE_TEXT("i", "integer", ", 'value': 0") "," NODE_TEXT("r", "range", ""), EDGE("i", "value", "r", "stop")),
          "field 'stop': 0 must be greater", "invalid incoming input for stop");
}

static void too_much_is_refused(void **state)
{
    (void)state;
    char order[64];
    struct error err = {0};
    struct graph *g = graph_of(GRAPH_TEXT(NODE_TEXT("l", "range", ", 'stop': 20000") "," NODE_TEXT("i", "iterate", ""),
                                          EDGE("l", "collection", "i", "collection")));
    struct executor *x = executor_of(g);
    assert_int_equal(run(x, order, sizeof order, &err), ST_TOO_LARGE);
    assert_says(err.message, "20000 nodes (at node 'i')");
    executor_free(x);
    graph_free(g);
    g = graph_of(GRAPH_TEXT(NODE_TEXT("l", "range", ", 'stop': 200") "," NODE_TEXT("i", "iterate", "") "," NODE_TEXT(
                                "k", "iterate", "") "," NODE_TEXT("a", "add", ""),
                            EDGE("l", "collection", "i", "collection") "," EDGE("l", "collection", "k", "collection") "," EDGE(
                                "i", "item", "a", "a") "," EDGE("k", "item", "a", "b")));
    x = executor_of(g);
    assert_int_equal(run(x, order, sizeof order, &err), ST_TOO_LARGE);
    executor_free(x);
    graph_free(g);
}

/* Iterates within iterates: each takes the list that comes out of the one before. */
static void nesting_has_a_limit(void **state)
{
    (void)state;
    for (int depth = EXECUTOR_MAX_NESTING; depth <= EXECUTOR_MAX_NESTING + 1; depth++) {
        struct error err = {0};
        struct graph *g = NULL;
        struct executor *x = NULL;
        AUTO_JSON *document = quoted(GRAPH_TEXT(NODE_TEXT("l0", "range", ", 'stop': 1"), ""));
        char list[16], iterate[16], next[16];
        json_t *edges = json_object_get(document, "edges"), *nodes = json_object_get(document, "nodes");
        for (int i = 0; i < depth; i++) {
            snprintf(list, sizeof list, "l%d", i);
            snprintf(iterate, sizeof iterate, "i%d", i);
            snprintf(next, sizeof next, "l%d", i + 1);
            json_object_set_new(nodes, iterate, json_pack("{s:s, s:s}", "id", iterate, "type", "iterate"));
            json_object_set_new(nodes, next, json_pack("{s:s, s:s, s:i}", "id", next, "type", "range", "stop", 1));
            json_array_append_new(edges, graph_edge_json(list, "collection", iterate, "collection"));
            json_array_append_new(edges, graph_edge_json(iterate, "item", next, "start"));
        }
        assert_ok(graph_parse(document, &g, NULL, &err), err);
        enum status s = executor_new(g, "s", &x, &err);
        assert_int_equal(s, depth > EXECUTOR_MAX_NESTING ? ST_TOO_LARGE : ST_OK);
        if (s != ST_OK)
            assert_says(err.message, "more than 16 deep");
        executor_free(x);
        graph_free(g);
    }
}

/* Each of 20 string nodes hands on a text of 4 MB: the 17th is too much, and the session is told in short. */
static void values_and_session_are_bounded(void **state)
{
    (void)state;
    enum { BYTES = 4 << 20 };
    char order[256];
    struct error err = {0};
    struct graph *g = NULL;
    char *text = malloc(BYTES + 1);
    memset(text, 'x', BYTES);
    text[BYTES] = '\0';
    AUTO_JSON *long_text = json_string(text);
    AUTO_JSON *document = quoted("{'nodes': {}}");
    free(text);
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        json_object_set_new(json_object_get(document, "nodes"), id,
                            json_pack("{s:s, s:s, s:O}", "id", id, "type", "string", "value", long_text));
    }
    assert_ok(graph_parse(document, &g, NULL, &err), err);
    struct executor *x = executor_of(g);
    assert_int_equal(run(x, order, sizeof order, &err), ST_TOO_LARGE);
    assert_says(err.message, "exceed 67108864 bytes (at node 's15')");
    AUTO_JSON *session = executor_session(x);
    assert_non_null(json_object_get(session, "shortened"));
    assert_null(json_object_get(session, "results"));
    assert_int_equal(json_array_size(json_object_get(session, "executed_history")), 15);
    executor_free(x);
    graph_free(g);
}

static void outputs_are_checked(void **state)
{
    (void)state;
    struct error err = {0};
    struct graph *g = graph_of(GRAPH_TEXT(NODE_TEXT("a", "add", ""), ""));
    struct executor *x = executor_of(g);
    const struct prepared *p;
    assert_ok(executor_next(x, &p, &err), err);
    AUTO_JSON *untyped = quoted("{'value': 1}");
    assert_int_equal(executor_complete(x, p, untyped, &err), ST_INTERNAL);
    executor_fail(x, p, "node_failed", "it broke");
    assert_true(executor_failed(x));
    AUTO_JSON *session = executor_session(x);
    assert_string_equal(json_str(json_object_get(session, "errors"), p->id, ""), "node_failed: it broke");
    executor_free(x);
    graph_free(g);
    executor_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_run_in_order_of_their_names),
        cmocka_unit_test(the_session_is_invokeais),
        cmocka_unit_test(an_event_shows_no_lists),
        cmocka_unit_test(missing_and_wrong_inputs_name_node_and_field),
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(values_and_session_are_bounded),
        cmocka_unit_test(outputs_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
