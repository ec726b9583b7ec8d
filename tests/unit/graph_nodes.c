/* The node table against InvokeAI's own description of its nodes (tests/cases/nodes.json). */
#include "graph_kit.h"

#include <math.h>

#include "graph/inputs.h"
#include "graph/nodes.h"

static json_t *description;

static int read_description(void **state)
{
    (void)state;
    struct error err = {0};
    return json_read_file(TEST_SOURCE_DIR "/tests/cases/nodes.json", 16 << 20, &description, &err) != ST_OK;
}

static int drop_description(void **state)
{
    (void)state;
    json_decref(description);
    return 0;
}

/* The entry of LIST whose KEY is NAME. */
static const json_t *entry(const char *list, const char *key, const char *name)
{
    size_t i;
    json_t *e;
    json_array_foreach (json_object_get(description, list), i, e)
        if (strcmp(json_str(e, key, ""), name) == 0)
            return e;
    fail_msg("%s has no %s", list, name);
    return NULL;
}

static void check_number(const json_t *theirs, const char *key, bool given, double ours, const char *where)
{
    const json_t *value = json_object_get(theirs, key);
    if ((value != NULL) != given || (value && json_number_value(value) != ours))
        fail_msg("%s: %s differs", where, key);
}

static void check_bounds(const json_t *theirs, const struct node_field *f, const char *where)
{
    check_number(theirs, "min", isfinite(f->min) && !f->min_exclusive, f->min, where);
    check_number(theirs, "xmin", isfinite(f->min) && f->min_exclusive, f->min, where);
    check_number(theirs, "max", isfinite(f->max) && !f->max_exclusive, f->max, where);
    check_number(theirs, "xmax", isfinite(f->max) && f->max_exclusive, f->max, where);
    check_number(theirs, "multiple_of", f->multiple_of != 0, f->multiple_of, where);
}

static void check_choices(const json_t *theirs, const struct node_field *f, const char *where)
{
    const json_t *choices = json_object_get(theirs, "enum");
    if ((choices != NULL) != (f->choices != NULL))
        fail_msg("%s: choices differ", where);
    char joined[2000] = "";
    size_t i;
    json_t *choice;
    json_array_foreach (choices, i, choice)
        sprintf(joined + strlen(joined), "%s%s", i ? "|" : "", json_string_value(choice));
    if (choices)
        assert_string_equal(joined, f->choices);
}

static bool same_value(const json_t *a, const json_t *b)
{
    return json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b) : json_equal(a, b);
}

static void check_default(const json_t *theirs, const struct node_field *f, const char *where)
{
    const json_t *value = json_object_get(theirs, "default");
    if ((value != NULL) != (f->fallback != NULL))
        fail_msg("%s: default differs", where);
    AUTO_JSON *ours = f->fallback ? json_loads(f->fallback, JSON_DECODE_ANY, NULL) : NULL;
    if (value && !same_value(value, ours))
        fail_msg("%s: default is %s", where, f->fallback);
}

static void check_field(const json_t *theirs, const struct node_field *f, const char *owner)
{
    static const char *const inputs[] = {[INPUT_ANY] = "any", [INPUT_CONNECTION] = "connection", [INPUT_DIRECT] = "direct"};
    char where[200];
    snprintf(where, sizeof where, "%s.%s", owner, f->name);
    assert_string_equal(json_str(theirs, "name", ""), f->name);
    assert_string_equal(json_str(theirs, "type", ""), f->type);
    if (json_object_get(theirs, "input"))
        assert_string_equal(json_str(theirs, "input", ""), inputs[f->input]);
    if (json_flag(theirs, "required", false) != f->required || json_flag(theirs, "nullable", false) != f->nullable)
        fail_msg("%s: required or nullable differs", where);
    check_default(theirs, f, where);
    check_bounds(theirs, f, where);
    check_choices(theirs, f, where);
}

static void nodes_are_as_described(void **state)
{
    (void)state;
    size_t n;
    const struct node_type *const *types = node_types(&n);
    assert_true(n >= 21);
    for (size_t i = 0; i < n; i++) {
        const struct node_type *t = types[i];
        const json_t *theirs = entry("nodes", "type", t->type), *inputs = json_object_get(theirs, "inputs");
        assert_string_equal(json_str(theirs, "class", ""), t->class_name);
        assert_string_equal(json_str(theirs, "output", ""), t->output);
        assert_int_equal(json_flag(theirs, "use_cache", false), t->use_cache);
        assert_int_equal(json_flag(theirs, "extra_inputs", false), t->extra_inputs);
        assert_int_equal(json_array_size(inputs), t->n_inputs);
        assert_true(t->n_inputs <= 64);
        for (size_t k = 0; k < t->n_inputs; k++)
            check_field(json_array_get(inputs, k), &t->inputs[k], t->type);
    }
}

static void outputs_are_as_described(void **state)
{
    (void)state;
    size_t n;
    const struct node_type *const *types = node_types(&n);
    for (size_t i = 0; i < n; i++) {
        const json_t *fields = json_object_get(entry("outputs", "type", types[i]->output), "fields"), *theirs;
        assert_int_equal(json_array_size(fields), types[i]->n_outputs);
        for (size_t k = 0; k < types[i]->n_outputs && (theirs = json_array_get(fields, k)); k++) {
            assert_string_equal(json_str(theirs, "name", ""), types[i]->outputs[k].name);
            assert_string_equal(json_str(theirs, "type", ""), types[i]->outputs[k].type);
            assert_int_equal(json_flag(theirs, "nullable", false), types[i]->outputs[k].nullable);
        }
    }
}

/* Members are in the order InvokeAI writes them, which the description has not. */
static void reference_objects_are_as_described(void **state)
{
    (void)state;
#define STRUCT(name) #name,
#define INTEGER(...)
#define NUMBER(...)
#define BOOLEAN(...)
#define STRING(...)
#define ENUM(...)
#define VALUE(...)
#define END
    static const char *const names[] = {
#include "graph/structs.def"
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct node_struct *s = node_struct_find(names[i], strlen(names[i]));
        const json_t *fields = json_object_get(entry("structs", "struct", names[i]), "fields");
        assert_int_equal(json_array_size(fields), s->n_members);
        for (size_t k = 0; k < s->n_members; k++) {
            size_t at = 0;
            while (at < s->n_members && strcmp(json_str(json_array_get(fields, at), "name", ""), s->members[k].name) != 0)
                at++;
            check_field(json_array_get(fields, at), &s->members[k], names[i]);
        }
    }
}

static void all_types_of_invokeai_are_known(void **state)
{
    (void)state;
    size_t i;
    json_t *node;
    assert_int_equal(json_array_size(json_object_get(description, "nodes")), 307);
    json_array_foreach (json_object_get(description, "nodes"), i, node)
        assert_true(node_type_known(json_str(node, "type", "")));
    assert_false(node_type_known("no_such_node"));
    assert_string_equal(node_type_nearest("denoise_latent"), "denoise_latents");
    assert_null(node_type_find("controlnet"));
    assert_ptr_equal(node_type_find("add"), node_type_find("add"));
}

static void typed_inputs_hold_the_values(void **state)
{
    (void)state;
    struct error err = {0};
    struct noise_inputs noise;
    struct l2i_inputs l2i;
    AUTO_JSON *values = quoted("{'noise_type': 'SD', 'seed': 4294967295, 'width': 64, 'height': 128, 'use_cpu': true}");
    assert_ok(noise_inputs_read(values, &noise, &err), err);
    assert_string_equal(noise.noise_type, "SD");
    assert_true(noise.seed == 4294967295 && noise.width == 64 && noise.height == 128 && noise.use_cpu);
    AUTO_JSON *others =
        quoted("{'board': null, 'metadata': {'a': 1}, 'latents': null, 'vae': null, 'tiled': false, 'tile_size': 0, 'fp32': true}");
    assert_ok(l2i_inputs_read(others, &l2i, &err), err);
    assert_null(l2i.board);
    assert_int_equal(json_int(l2i.metadata, "a", 0), 1);
    assert_true(l2i.fp32 && !l2i.tiled);
    json_object_del(values, "width");
    noise.height = 7;
    assert_int_equal(noise_inputs_read(values, &noise, &err), ST_NODE_FAILED);
    assert_says(err.message, "'width'");
    assert_int_equal(noise.height, 7);
    json_object_set_new(values, "width", json_string("64"));
    assert_int_equal(noise_inputs_read(values, &noise, &err), ST_NODE_FAILED);
    assert_says(err.message, "is not an integer");
}

static void types_fit_as_in_invokeai(void **state)
{
    (void)state;
    assert_true(field_types_fit("integer", false, "number", false));
    assert_true(field_types_fit("integer", false, "string", false));
    assert_false(field_types_fit("number", false, "integer", false));
    assert_false(field_types_fit("string", false, "integer", false));
    assert_true(field_types_fit("boolean", false, "integer", false));
    assert_false(field_types_fit("boolean", false, "number", false));
    assert_true(field_types_fit("integer", false, "integer", true));
    assert_false(field_types_fit("integer", false, "string", true));
    assert_true(field_types_fit("list[any]", false, "LatentsField", false));
    assert_true(field_types_fit("ControlField", false, "union[ControlField | list[ControlField]]", true));
    assert_false(field_types_fit("LatentsField", false, "VAEField", true));
    assert_true(field_types_fit("union[A | B]", false, "union[B | A]", false));
    assert_false(field_types_fit("node type", false, "string", false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_as_described),
        cmocka_unit_test(outputs_are_as_described),
        cmocka_unit_test(reference_objects_are_as_described),
        cmocka_unit_test(all_types_of_invokeai_are_known),
        cmocka_unit_test(typed_inputs_hold_the_values),
        cmocka_unit_test(types_fit_as_in_invokeai),
    };
    return cmocka_run_group_tests(tests, read_description, drop_description);
}
