/* Cases of kind graph and values: validity, execution, results. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/coerce.h"
#include "tests/cases/cases.h"
#include "worker/executor.h"
#include "worker/nodes/node.h"

/* A run of one graph, and how it ended. */
struct run {
    struct graph *graph;
    struct executor *executor;
    json_t *session;
    const char *status; /* completed failed stopped */
    bool out_of_order;  /* copies of one node did not run in ascending path order */
    bool needs_engine;
    char last_type[64];
};

static void run_fini(struct run *r)
{
    json_decref(r->session);
    executor_free(r->executor);
    graph_free(r->graph);
}

/* ---- services: values need random bits only; what needs pictures, tensors or models is not for this runner */

static enum status no_phase(void *self, const char *phase, const char *message, struct error *err)
{
    (void)self, (void)phase, (void)message, (void)err;
    return ST_OK;
}

static enum status no_tensor_put(void *self, struct tensor *t, const char *kind, const char **ret_name, struct error *err)
{
    (void)self, (void)ret_name;
    tensor_free(t);
    return FAIL(err, UNSUPPORTED, "no tensors here (%s)", kind);
}

static enum status no_tensor_get(void *self, const char *name, const struct tensor **ret, struct error *err)
{
    (void)self, (void)ret;
    return FAIL(err, UNSUPPORTED, "no tensors here (%s)", name);
}

static enum status no_image_put(void *self, const struct picture *p, const json_t *metadata, const char **ret_name, struct error *err)
{
    (void)self, (void)p, (void)metadata, (void)ret_name;
    return FAIL(err, UNSUPPORTED, "no pictures here");
}

static enum status no_image_get(void *self, const char *name, const struct picture **ret, struct error *err)
{
    (void)self, (void)ret;
    return FAIL(err, UNSUPPORTED, "no pictures here (%s)", name);
}

static enum status no_model_get(void *self, const json_t *reference, struct model **ret, struct error *err)
{
    (void)self, (void)reference, (void)ret;
    return FAIL(err, UNSUPPORTED, "no models here");
}

static uint64_t some_bits(void *self)
{
    uint64_t *state = self;
    return *state = *state * 6364136223846793005u + 1442695040888963407u;
}

/* ---- running */

static bool path_is_before(const int *a, int n, const int *b, int m)
{
    for (int i = 0; i < n && i < m; i++)
        if (a[i] != b[i])
            return a[i] < b[i];
    return n < m;
}

/* Notes when P runs before an earlier copy of the same node. PATHS keeps the last path of each node. */
static void check_order(struct run *r, const struct prepared *p, json_t *paths)
{
    int path[EXECUTOR_MAX_NESTING], last[EXECUTOR_MAX_NESTING], n = executor_path(r->executor, p, path);
    const json_t *before = json_object_get(paths, p->source_id);
    int m = (int)json_array_size(before);
    json_t *now = json_array();
    for (int i = 0; i < m; i++)
        last[i] = (int)json_integer_value(json_array_get(before, (size_t)i));
    if (before && path_is_before(path, n, last, m))
        r->out_of_order = true;
    for (int i = 0; i < n; i++)
        json_array_append_new(now, json_integer(path[i]));
    json_object_set_new(paths, p->source_id, now);
}

static enum status run_node(struct run *r, const struct prepared *p, uint64_t *random, struct error *err)
{
    const struct node_services services = {random,       no_phase,     NULL,         no_tensor_put, no_tensor_get,
                                           no_image_put, no_image_get, no_model_get, some_bits};
    node_fn *fn = node_fn_find(p->type->type);
    AUTO_JSON *output = NULL;
    enum status s = fn ? fn(&services, p->inputs, &output, err) : FAIL(err, INTERNAL, "no function for %s", p->type->type);
    if (s == ST_OK)
        return executor_complete(r->executor, p, output, err);
    if (s == ST_UNSUPPORTED) {
        r->needs_engine = true;
        snprintf(r->last_type, sizeof r->last_type, "%s", p->type->type);
    }
    executor_fail(r->executor, p, status_name(s), err->message);
    return ST_OK;
}

/* Runs at most MAX nodes (< 0: all). */
static enum status run_all(struct run *r, long long max, struct error *err)
{
    AUTO_JSON *paths = json_object();
    uint64_t random = 1;
    TRY(executor_new(r->graph, "session", &r->executor, err));
    r->status = "completed";
    for (;; max--) {
        const struct prepared *p;
        if (max == 0) {
            r->status = "stopped";
            break;
        }
        enum status s = executor_next(r->executor, &p, err);
        if (s != ST_OK && !executor_failed(r->executor))
            return s;
        if (s != ST_OK || !p)
            break;
        check_order(r, p, paths);
        TRY(run_node(r, p, &random, err));
    }
    r->session = executor_session(r->executor);
    if (!r->session)
        return FAIL(err, OUT_OF_MEMORY, "out of memory");
    if (executor_failed(r->executor))
        r->status = "failed";
    else if (json_array_size(json_object_get(r->session, "executed_history")) == (size_t)r->graph->n_nodes)
        r->status = "completed";
    return ST_OK;
}

/* ---- comparing */

/* The outputs of node ID in iteration order. Caller decrefs. */
static json_t *results_of(const struct run *r, const char *id)
{
    json_t *list = json_array(), *copy;
    size_t i;
    json_array_foreach (json_object_get(json_object_get(r->session, "source_prepared_mapping"), id), i, copy) {
        json_t *result = json_object_get(json_object_get(r->session, "results"), json_string_value(copy));
        if (result)
            json_array_append(list, result);
    }
    return list;
}

/* The iteration paths of the copies that ran. */
static json_t *paths_of(const struct run *r, const char *id)
{
    json_t *list = json_array(), *copy;
    size_t i;
    json_array_foreach (json_object_get(json_object_get(r->session, "source_prepared_mapping"), id), i, copy)
        if (json_object_get(json_object_get(r->session, "results"), json_string_value(copy)))
            json_array_append(list, json_object_get(json_object_get(r->session, "prepared_iteration_paths"), json_string_value(copy)));
    return list;
}

static bool names(const json_t *list, const char *id)
{
    size_t i;
    json_t *entry;
    json_array_foreach (list, i, entry)
        if (strcmp(json_string_value(entry), id) == 0)
            return true;
    return false;
}

/* Compares outputs whose lists come in no fixed order. */
static bool lists_equal_unordered(const json_t *expected, const json_t *actual)
{
    if (json_array_size(expected) != json_array_size(actual))
        return false;
    for (size_t i = 0; i < json_array_size(expected); i++)
        if (!cases_equal_multiset(json_object_get(json_array_get(expected, i), "collection"),
                                  json_object_get(json_array_get(actual, i), "collection")))
            return false;
    return true;
}

static bool result_equal(const json_t *e, const char *id, const json_t *expected, const json_t *actual)
{
    if (names(json_object_get(e, "list_order_varies"), id))
        return lists_equal_unordered(expected, actual);
    return names(json_object_get(e, "iteration_order_varies"), id) ? cases_equal_multiset(expected, actual) : cases_equal(expected, actual);
}

/* Paths that upstream gives to several copies tell nothing. */
static bool has_repeats(const json_t *paths)
{
    for (size_t i = 0; i < json_array_size(paths); i++)
        for (size_t k = 0; k < i; k++)
            if (json_equal(json_array_get(paths, i), json_array_get(paths, k)))
                return true;
    return false;
}

static struct verdict check_results(const json_t *e, const struct run *r)
{
    const char *id;
    json_t *expected;
    json_object_foreach (json_object_get(e, "results"), id, expected) {
        AUTO_JSON *actual = results_of(r, id);
        if (json_array_size(actual) == 0 && names(json_object_get(e, "may_skip"), id))
            continue;
        if (result_equal(e, id, expected, actual))
            continue;
        char *got = json_text(actual), *want = json_text(expected);
        struct verdict v = verdict_failed("node %s gave %.150s, expected %.150s", id, got, want);
        free(got);
        free(want);
        return v;
    }
    json_object_foreach (json_object_get(e, "paths"), id, expected) {
        AUTO_JSON *actual = paths_of(r, id);
        if (!has_repeats(expected) && !cases_equal_multiset(expected, actual)) {
            char *got = json_text(actual);
            struct verdict v = verdict_failed("node %s has the iteration paths %.200s", id, got);
            free(got);
            return v;
        }
    }
    return verdict_passed();
}

static struct verdict check_lists(const json_t *e, const struct run *r)
{
    size_t i;
    json_t *id;
    json_array_foreach (json_object_get(e, "not_run"), i, id) {
        AUTO_JSON *results = results_of(r, json_string_value(id));
        if (json_array_size(results) > 0)
            return verdict_failed("node %s has results but should not have run", json_string_value(id));
    }
    json_array_foreach (json_object_get(e, "empty"), i, id) {
        const json_t *copies = json_object_get(json_object_get(r->session, "source_prepared_mapping"), json_string_value(id));
        if (!copies || json_array_size(copies) > 0 || !names(json_object_get(r->session, "executed"), json_string_value(id)))
            return verdict_failed("node %s should be done with no copies", json_string_value(id));
    }
    return verdict_passed();
}

/* Classes that the executor gives itself; a node that fails by itself is known by its message only. */
static bool executor_class(const char *class)
{
    return strcmp(class, "NodeInputError") == 0 || strcmp(class, "MissingInputException") == 0 ||
           strcmp(class, "RequiredConnectionException") == 0;
}

static struct verdict check_failure(const json_t *expected, const struct run *r)
{
    const char *node = json_str(expected, "node", ""), *class = json_str(expected, "class", ""),
               *contains = json_str(expected, "contains", "");
    const char *id;
    json_t *text;
    json_object_foreach (json_object_get(r->session, "errors"), id, text) {
        if (strcmp(json_str(json_object_get(r->session, "prepared_source_mapping"), id, ""), node) != 0)
            continue;
        char want[400];
        const char *place = strstr(contains, "<id>"), *got = json_string_value(text);
        snprintf(want, sizeof want, "%.*s%s%s", (int)(place ? place - contains : (long)strlen(contains)), contains, place ? id : "",
                 place ? place + 4 : "");
        if (executor_class(class) && strncmp(got, class, strlen(class)) != 0)
            return verdict_failed("error of %s is '%.100s', expected class %s", node, got, class);
        return strstr(got, want) ? verdict_passed() : verdict_failed("error of %s is '%.100s', expected '%.100s'", node, got, want);
    }
    return verdict_failed("node %s has no error", node);
}

static struct verdict check_run(const json_t *e, const struct run *r)
{
    const json_t *status = json_object_get(e, "status");
    if (r->needs_engine)
        return verdict_skipped("node type '%s' needs the engine", r->last_type);
    if (json_is_array(status) ? !names(status, r->status) : strcmp(json_string_value(status), r->status) != 0)
        return verdict_failed("the session %s", r->status);
    if (r->out_of_order)
        return verdict_failed("copies of a node ran out of order");
    struct verdict v = check_results(e, r);
    if (v.outcome == PASSED)
        v = check_lists(e, r);
    size_t i;
    json_t *error;
    json_array_foreach (json_object_get(e, "errors"), i, error)
        if (v.outcome == PASSED)
            v = check_failure(error, r);
    return v;
}

/* What galley must show: the expectation, with galley's own rule over it where the case has one. Caller decrefs. */
static json_t *expectation(const json_t *c)
{
    json_t *e = json_copy(json_object_get(c, "expect"));
    const json_t *own = json_object_get(c, "galley");
    if (json_is_object(own)) {
        json_object_update(e, (json_t *)own);
        if (json_object_get(own, "results") && !json_object_get(own, "status"))
            json_object_set_new(e, "status", json_string("completed"));
    }
    return e;
}

static struct verdict check_graph(const json_t *c, const json_t *e)
{
    struct run r = {.status = ""};
    struct graph_error detail = {0};
    struct error err = {0};
    AUTO_JSON *document = json_deep_copy(json_object_get(c, "graph"));
    enum status s = graph_parse(document, &r.graph, &detail, &err);
    bool valid = json_flag(e, "valid", true);
    if (s == ST_NOT_AVAILABLE)
        return verdict_skipped("%s", err.message);
    if (s != ST_OK)
        return valid ? verdict_failed("refused: %s", err.message) : cases_check_error(json_object_get(e, "error"), &detail, err.message);
    struct verdict v;
    const char *status = json_str(e, "status", "");
    if (!valid)
        v = verdict_failed("accepted");
    else if (strcmp(status, "stalled") == 0 || strcmp(status, "crashed") == 0)
        v = verdict_skipped("upstream %s, no rule of galley's", status);
    else if (run_all(&r, json_int(c, "stop_after", -1), &err) != ST_OK)
        v = verdict_failed("%s", err.message);
    else
        v = check_run(e, &r);
    run_fini(&r);
    return v;
}

struct verdict case_graph(const json_t *c)
{
    static const char *const features[] = {"resume", "cache", "graphs", "ready_order"};
    const char *missing = cases_missing_type(json_object_get(c, "graph"));
    if (missing)
        return verdict_skipped("node type '%s'", missing);
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (json_object_get(c, features[i]))
            return verdict_skipped("feature '%s'", features[i]);
    AUTO_JSON *e = expectation(c);
    return check_graph(c, e);
}

/* An iterate or collect cannot stand alone in a graph: calls the node itself. */
static struct verdict run_alone(const struct node_type *type, const json_t *c)
{
    const json_t *out = json_object_get(json_object_get(c, "expect"), "out");
    AUTO_JSON *inputs = json_object();
    AUTO_JSON *output = NULL;
    struct error err = {0};
    for (size_t i = 0; i < type->n_inputs; i++)
        json_object_set_new(inputs, type->inputs[i].name, field_default(&type->inputs[i]));
    json_object_update(inputs, json_object_get(c, "in"));
    enum status s = node_fn_find(type->type)(NULL, inputs, &output, &err);
    if (!out)
        return s != ST_OK ? verdict_passed() : verdict_failed("it ran, but should fail");
    return s == ST_OK && cases_equal(out, output) ? verdict_passed() : verdict_failed("%s", s == ST_OK ? "another output" : err.message);
}

struct verdict case_values(const json_t *c)
{
    const char *type = json_str(c, "type", "");
    const json_t *e = json_object_get(c, "expect"), *out = json_object_get(e, "out"), *error = json_object_get(e, "error");
    if (!node_type_find(type))
        return verdict_skipped("node type '%s'", type);
    if (strcmp(type, "iterate") == 0 || strcmp(type, "collect") == 0)
        return run_alone(node_type_find(type), c);
    AUTO_JSON *node = json_deep_copy(json_object_get(c, "in"));
    json_object_set_new(node, "id", json_string("n"));
    json_object_set_new(node, "type", json_string(type));
    AUTO_JSON *graph = json_pack("{s:{s:O}}", "nodes", "n", node);
    struct run r = {.status = ""};
    struct graph_error detail = {0};
    struct error err = {0};
    enum status s = graph_parse(graph, &r.graph, &detail, &err);
    struct verdict v;
    bool at_parse = strcmp(json_str(error, "stage", ""), "parse") == 0;
    if (s != ST_OK && !at_parse)
        v = verdict_failed("refused: %s", err.message);
    else if (s != ST_OK)
        v = detail.class && strcmp(json_str(error, "class", ""), detail.class) == 0 ? verdict_passed()
                                                                                    : verdict_failed("refused: %s", err.message);
    else if (at_parse)
        v = verdict_failed("accepted, but upstream refuses: %s", json_str(error, "contains", ""));
    else if (run_all(&r, -1, &err) != ST_OK)
        v = verdict_failed("%s", err.message);
    else if (r.needs_engine)
        v = verdict_skipped("node type '%s' needs the engine", type);
    else if (error || cases_has(out, "$big"))
        v = strcmp(r.status, "failed") == 0 ? verdict_passed() : verdict_failed("it ran, but should fail");
    else {
        AUTO_JSON *results = results_of(&r, "n");
        char *got = json_text(json_array_get(results, 0));
        v = cases_equal(out, json_array_get(results, 0)) ? verdict_passed() : verdict_failed("gave %.300s", got ? got : "nothing");
        free(got);
    }
    run_fini(&r);
    return v;
}
