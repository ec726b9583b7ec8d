/* Model references of a graph: key, hash, description, name, default, refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/json.h"
#include "supervisor/models.h"

static struct models *shelf(void)
{
    struct models *m;
    struct error err;
    AUTO_JSON *probe = json_pack("{s:[{s:s s:s s:s s:s s:s} {s:s s:s s:s s:s s:s}]}", "models",
                                 "key", "mine", "name", "My Model", "base", "sd-1", "type", "main", "hash", "blake3:aa",
                                 "key", "emoji", "name", "emoji", "base", "sd-1", "type", "main", "hash", "");
    assert_int_equal(models_new(probe, &m, &err), ST_OK);
    return m;
}

/* resolved returns the key that a loader's reference (JSON text, NULL: no model) ends with; fails to NULL with ERR. */
static const char *resolved(const char *reference, struct error *err)
{
    static char key[64];
    struct models *m = shelf();
    struct graph *g;
    json_t *keys = NULL;
    AUTO_JSON *node = json_pack("{s:s s:s}", "id", "loader", "type", "main_model_loader");
    if (reference)
        json_object_set_new(node, "model", json_loads(reference, 0, NULL));
    AUTO_JSON *document = json_pack("{s:{s:O} s:[]}", "nodes", "loader", node, "edges");
    assert_int_equal(graph_parse(document, &g, NULL, err), ST_OK);
    enum status s = models_resolve(m, g, &keys, err);
    if (s == ST_OK) {
        const json_t *model = json_object_get(json_object_get(json_object_get(g->document, "nodes"), "loader"), "model");
        snprintf(key, sizeof key, "%s", json_str(model, "key", ""));
        assert_string_equal(json_string_value(json_array_get(keys, 0)), key);
    }
    json_decref(keys);
    graph_free(g);
    models_free(m);
    return s == ST_OK ? key : NULL;
}

static void in_the_documented_order(void **state)
{
    (void)state;
    struct error err;
    assert_string_equal(resolved("{\"key\":\"mine\",\"hash\":\"\",\"name\":\"emoji\",\"base\":\"sd-1\",\"type\":\"main\"}", &err), "mine");
    assert_string_equal(resolved("{\"key\":\"x\",\"hash\":\"blake3:aa\",\"name\":\"emoji\",\"base\":\"sd-1\",\"type\":\"main\"}", &err), "mine");
    assert_string_equal(resolved("{\"key\":\"x\",\"hash\":\"y\",\"name\":\"My Model\",\"base\":\"sd-1\",\"type\":\"main\"}", &err), "mine");
    assert_string_equal(resolved("{\"key\":\"x\",\"hash\":\"y\",\"name\":\"My Model\",\"base\":\"sdxl\",\"type\":\"main\"}", &err), "mine");
}

static void a_graph_without_a_model_takes_the_default(void **state)
{
    (void)state;
    struct error err;
    assert_string_equal(resolved(NULL, &err), "emoji");
}

static void nothing_found_is_refused_by_name(void **state)
{
    (void)state;
    struct error err;
    assert_null(resolved("{\"key\":\"k9\",\"hash\":\"\",\"name\":\"ghost\",\"base\":\"sd-1\",\"type\":\"main\"}", &err));
    assert_int_equal(err.code, ST_NO_MODEL);
    assert_non_null(strstr(err.message, "loader"));
    assert_non_null(strstr(err.message, "ghost"));
    assert_non_null(strstr(err.message, "k9"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_the_documented_order), cmocka_unit_test(a_graph_without_a_model_takes_the_default), cmocka_unit_test(nothing_found_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
