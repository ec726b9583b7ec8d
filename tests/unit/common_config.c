#include "tests/unit/unit.h"

#include <jansson.h>

#include "common/config.h"
#include "common/config_table.h"

static struct config *built_in(void)
{
    struct config *c = NULL;
    struct error err = {0};
    assert_ok(config_new(&c, &err), err);
    return c;
}

/* read reads TEXT as a file over the built-in values; NULL if refused (then ERR says why). */
static struct config *read_yaml(const char *text, struct error *err)
{
    char *dir = temp_dir();
    struct config *c = built_in();
    if (config_read_file(c, write_text(dir, "galley.yaml", text), err) != ST_OK) {
        config_free(c);
        c = NULL;
    }
    temp_dir_remove(dir);
    return c;
}

static void refused(const char *text, const char *part)
{
    struct error err = {0};
    struct config *c = read_yaml(text, &err);
    if (c)
        fail_msg("accepted: %s", text);
    assert_int_equal(err.code, ST_BAD_CONFIG);
    assert_says(err.message, part);
}

static void built_in_values(void **state)
{
    (void)state;
    struct config *c = built_in();
    assert_int_equal(c->generation_devices.n, 1);
    assert_string_equal(c->generation_devices.items[0], "auto");
    assert_int_equal(c->max_queue_size, 10000);
    assert_string_equal(c->models_dir, "");
    assert_false(c->warm_start);
    assert_int_equal(c->origin[CFG_precision], CONFIG_BUILT_IN);
    config_free(c);
    config_free(NULL);
}

static void a_file_is_read(void **state)
{
    (void)state;
    struct error err = {0};
    struct config *c = read_yaml("# comment\ngeneration_devices: [cpu:0, 'cpu:1']\nmax_queue_size: 7\nmin_free_disk_gb: 0.5\nwarm_start: yes\n"
                                 "session_queue_mode: round_robin\nmodels_dir: \"/a b\"\n", &err);
    if (!c)
        fail_msg("%s", err.message);
    assert_int_equal(c->generation_devices.n, 2);
    assert_string_equal(c->generation_devices.items[1], "cpu:1");
    assert_int_equal(c->max_queue_size, 7);
    assert_float_equal(c->min_free_disk_gb, 0.5, 0);
    assert_true(c->warm_start);
    assert_string_equal(c->session_queue_mode, "round_robin");
    assert_string_equal(c->models_dir, "/a b");
    assert_int_equal(c->origin[CFG_models_dir], CONFIG_FILE);
    assert_int_equal(c->origin[CFG_drain_ms], CONFIG_BUILT_IN);
    assert_says(c->file, "galley.yaml");
    config_free(c);
}

static void empty_list_null_and_empty_file(void **state)
{
    (void)state;
    struct error err = {0};
    struct config *c = read_yaml("generation_devices: []\nmax_cache_ram_gb: null\nprecision: ~\noutputs_dir:\n", &err);
    if (!c)
        fail_msg("%s", err.message);
    assert_int_equal(c->generation_devices.n, 0);
    assert_int_equal(c->origin[CFG_generation_devices], CONFIG_FILE);
    assert_string_equal(c->precision, "auto");
    assert_string_equal(c->outputs_dir, "");
    config_free(c);
    const char *empties[] = {"", "# only a comment\n", "---\n", "{}\n"};
    for (size_t i = 0; i < sizeof empties / sizeof *empties; i++) {
        c = read_yaml(empties[i], &err);
        if (!c)
            fail_msg("%s", err.message);
        config_free(c);
    }
}

static void an_invokeai_file_applies_as_it_is(void **state)
{
    (void)state;
    struct error err = {0};
    struct config *c = read_yaml("# Internal metadata - do not edit:\nschema_version: 4.0.2\n\nhost: 0.0.0.0\nport: 9090\nremote_api_tokens:\n  - url_regex: x\n    token: y\n"
                                 "log_handlers: [console]\nlog_format: color\nlog_level: critical\nexternal_openai_api_key: k\ngeneration_devices: auto\nmax_cache_ram_gb: 8\n", &err);
    if (!c)
        fail_msg("%s", err.message);
    assert_int_equal(c->ignored.n, 6);
    assert_string_equal(c->ignored.items[0], "schema_version");
    assert_float_equal(c->max_cache_ram_gb, 8, 0);
    config_free(c);
}

static void faults_name_key_value_bounds_and_line(void **state)
{
    (void)state;
    refused("max_queue_size: 0\n", "galley.yaml:1: max_queue_size: 0 (allowed 1..10000000)");
    refused("\n\nmax_queue_size: 10000001\n", ":3: max_queue_size: 10000001 (allowed");
    refused("max_queue_size: 3.5\n", "max_queue_size: 3.5");
    refused("max_queue_size: [3]\n", "max_queue_size: a list");
    refused("max_queue_size: 99999999999999999999\n", "max_queue_size");
    refused("min_free_disk_gb: .nan\n", "min_free_disk_gb: .nan");
    refused("min_free_disk_gb: inf\n", "min_free_disk_gb: inf");
    refused("min_free_disk_gb: 0x10\n", "min_free_disk_gb: 0x10");
    refused("warm_start: maybe\n", "warm_start: maybe (allowed true, false)");
    refused("precision: float31\n", "precision: float31 (allowed auto|float32|float16|bfloat16)");
    refused("precision: auto|float32\n", "precision: auto|float32");
    refused("models_dir: {a: b}\n", "models_dir: a mapping");
    refused("generation_devices: [cpu, [cpu]]\n", "generation_devices");
    refused("generation_devices: {cpu: 1}\n", "generation_devices: a mapping");
    refused("models_dir: \"a\\0b\"\n", "models_dir");
    refused("max_queue_siz: 3\n", ":1: unknown key 'max_queue_siz': did you mean 'max_queue_size'?");
    refused("zzzzzzzzzzzzzzzzzzzz: 3\n", "unknown key");
    refused("max_queue_size: 3\nmax_queue_size: 4\n", ":2: max_queue_size is given twice");
    refused("- a\n- b\n", "key: value");
    refused("just words\n", "key: value");
    refused("a: [\n", "not valid YAML");
    refused("{a: b}: c\n", "a key must be");
    refused("max_queue_size: 3\n---\nmax_queue_size: 3\n", "more than one YAML document");
    refused("\xff\xfe\xff", "YAML");
}

static void a_refused_file_changes_nothing(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct error err = {0};
    struct config *c = built_in();
    assert_ok(config_read_file(c, write_text(dir, "good", "max_queue_size: 5\nhost: x\n"), &err), err);
    assert_int_equal(config_read_file(c, write_text(dir, "bad", "max_queue_size: 6\nport: 1\nnonsense_key: 1\n"), &err), ST_BAD_CONFIG);
    assert_int_equal(c->max_queue_size, 5);
    assert_int_equal(c->ignored.n, 1);
    assert_says(c->file, "/good");
    assert_int_equal(config_read_file(c, "/nonexistent.yaml", &err), ST_NOT_FOUND);
    assert_int_equal(config_read_file(c, dir, &err), ST_BAD_CONFIG);
    config_free(c);
    temp_dir_remove(dir);
}

static void files_over_the_limit_are_refused(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct error err = {0};
    struct config *c = built_in();
    char *text = malloc((1 << 20) + 2);
    memset(text, '#', (1 << 20) + 1);
    text[1 << 20] = 0;
    assert_ok(config_read_file(c, write_text(dir, "just fits", text), &err), err);
    text[1 << 20] = '#';
    text[(1 << 20) + 1] = 0;
    assert_int_equal(config_read_file(c, write_text(dir, "too long", text), &err), ST_BAD_CONFIG);
    assert_says(err.message, "1048576");
    free(text);
    char list[2048] = "generation_devices: [c";
    for (int i = 1; i < 256; i++)
        strcat(list, ",c");
    size_t n = strlen(list);
    strcpy(list + n, "]\n");
    assert_ok(config_read_file(c, write_text(dir, "256", list), &err), err);
    assert_int_equal(c->generation_devices.n, 256);
    strcpy(list + n, ",c]\n");
    assert_int_equal(config_read_file(c, write_text(dir, "257", list), &err), ST_BAD_CONFIG);
    config_free(c);
    temp_dir_remove(dir);
}

static void the_environment_is_read_as_yaml(void **state)
{
    (void)state;
    struct error err = {0};
    struct config *c = built_in();
    char *env[] = {"PATH=/bin", "GALLEY_GENERATION_DEVICES=[cpu:0, cpu:1]", "GALLEY_MAX_QUEUE_SIZE=3", "GALLEY_WARM_START=true", "GALLEY_HOME=/x", "GALLEY_DATA=/y",
                   "GALLEY_CPU_ISA=z", "GALLEY_SERVICE_HOST=10.0.0.1", "GALLEY_DRAIN_MS=", "GALLEY_", "GALLEY_NOEQUALS", NULL};
    assert_ok(config_read_env(c, env, &err), err);
    assert_int_equal(c->generation_devices.n, 2);
    assert_string_equal(c->generation_devices.items[0], "cpu:0");
    assert_int_equal(c->max_queue_size, 3);
    assert_true(c->warm_start);
    assert_int_equal(c->origin[CFG_warm_start], CONFIG_ENVIRONMENT);
    assert_int_equal(c->origin[CFG_drain_ms], CONFIG_BUILT_IN);
    assert_int_equal(c->warnings.n, 1);
    assert_string_equal(c->warnings.items[0], "GALLEY_SERVICE_HOST");
    char *scalar[] = {"GALLEY_GENERATION_DEVICES=nonsense", NULL};
    assert_ok(config_read_env(c, scalar, &err), err);
    assert_int_equal(c->generation_devices.n, 1);
    assert_string_equal(c->generation_devices.items[0], "nonsense");
    char *bad[] = {"GALLEY_MAX_QUEUE_SIZE=many", NULL};
    assert_int_equal(config_read_env(c, bad, &err), ST_BAD_CONFIG);
    assert_says(err.message, "GALLEY_MAX_QUEUE_SIZE: max_queue_size: many (allowed 1..10000000)");
    char *broken[] = {"GALLEY_GENERATION_DEVICES=[cpu:0", NULL};
    assert_int_equal(config_read_env(c, broken, &err), ST_BAD_CONFIG);
    assert_says(err.message, "GALLEY_GENERATION_DEVICES");
    config_free(c);
}

static void options_win_and_load_orders_them(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct error err = {0};
    struct config *c = NULL;
    char *file = strdup(write_text(dir, "f.yaml", "max_queue_size: 5\ndrain_ms: 6\n"));
    setenv("GALLEY_DRAIN_MS", "7", 1);
    assert_ok(config_load(file, NULL, &c, &err), err);
    assert_int_equal(c->max_queue_size, 5);
    assert_int_equal(c->drain_ms, 7);
    assert_ok(config_set(c, "drain_ms", "8", CONFIG_OPTION, &err), err);
    assert_int_equal(c->drain_ms, 8);
    assert_int_equal(c->origin[CFG_drain_ms], CONFIG_OPTION);
    assert_int_equal(config_set(c, "drain", "8", CONFIG_OPTION, &err), ST_BAD_CONFIG);
    config_free(c);
    assert_ok(config_load(NULL, "/nonexistent/galley.yaml", &c, &err), err);
    assert_null(c->file);
    config_free(c);
    c = NULL;
    assert_int_equal(config_load("/nonexistent/galley.yaml", NULL, &c, &err), ST_NOT_FOUND);
    assert_null(c);
    unsetenv("GALLEY_DRAIN_MS");
    free(file);
    temp_dir_remove(dir);
}

static void reload_takes_what_may_change(void **state)
{
    (void)state;
    struct error err = {0};
    struct config *running = built_in(), *fresh = built_in();
    assert_ok(config_set(fresh, "max_queue_size", "9", CONFIG_FILE, &err), err);
    assert_ok(config_set(fresh, "generation_devices", "[cpu:3]", CONFIG_FILE, &err), err);
    struct strlist restart = {0};
    assert_ok(config_reload(running, fresh, &restart, &err), err);
    assert_int_equal(running->max_queue_size, 9);
    assert_int_equal(running->origin[CFG_max_queue_size], CONFIG_FILE);
    assert_string_equal(running->generation_devices.items[0], "auto");
    assert_int_equal(restart.n, 1);
    assert_string_equal(restart.items[0], "generation_devices");
    strlist_free(&restart);
    config_free(running);
    config_free(fresh);
}

static void json_tells_every_key(void **state)
{
    (void)state;
    struct config *c = built_in();
    json_t *j = config_json(c);
    assert_int_equal(json_object_size(j), CFG_COUNT);
    json_t *size = json_object_get(j, "max_queue_size");
    assert_int_equal(json_integer_value(json_object_get(size, "max")), 10000000);
    assert_string_equal(json_string_value(json_object_get(size, "origin")), "built-in");
    assert_string_equal(json_string_value(json_object_get(size, "apply")), "reload");
    assert_int_equal(json_array_size(json_object_get(json_object_get(j, "precision"), "values")), 4);
    json_decref(j);
    config_free(c);
}

/* The example, its comment signs before keys taken away, must read back as the built-in values. */
static void the_example_is_the_built_in_configuration(void **state)
{
    (void)state;
    AUTO_BUF example = BUF_INIT, live = BUF_INIT;
    config_example(&example);
    for (char *line = example.data, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        end += *end == '\n';
        for (size_t i = 0; i < CFG_COUNT; i++) {
            size_t n = strlen(config_rows[i].name);
            if (strncmp(line, "# ", 2) == 0 && strncmp(line + 2, config_rows[i].name, n) == 0 && line[2 + n] == ':')
                buf_put(&live, line + 2, (size_t)(end - line) - 2);
        }
    }
    struct error err = {0};
    struct config *c = read_yaml(live.data, &err), *plain = built_in();
    if (!c)
        fail_msg("%s", err.message);
    size_t lines = 0;
    for (const char *p = live.data; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, CFG_COUNT);
    for (size_t i = 0; i < CFG_COUNT; i++)
        assert_int_equal(c->origin[i], CONFIG_FILE);
    memcpy(c->origin, plain->origin, sizeof c->origin);
    json_t *a = config_json(c), *b = config_json(plain);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    config_free(c);
    config_free(plain);
}

/* deploy/galley.yaml is the example, checked in for people to read. `galleyd --example-config > deploy/galley.yaml` renews it. */
static void the_shipped_example_is_current(void **state)
{
    (void)state;
    AUTO_BUF example = BUF_INIT, shipped = BUF_INIT;
    config_example(&example);
    FILE *f = fopen(TEST_SOURCE_DIR "/deploy/galley.yaml", "r");
    assert_non_null(f);
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        buf_put(&shipped, chunk, n);
    fclose(f);
    if (strcmp(example.data, shipped.data) != 0)
        fail_msg("deploy/galley.yaml differs from the table in common/config.def: run galleyd --example-config > deploy/galley.yaml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in_values),
        cmocka_unit_test(a_file_is_read),
        cmocka_unit_test(empty_list_null_and_empty_file),
        cmocka_unit_test(an_invokeai_file_applies_as_it_is),
        cmocka_unit_test(faults_name_key_value_bounds_and_line),
        cmocka_unit_test(a_refused_file_changes_nothing),
        cmocka_unit_test(files_over_the_limit_are_refused),
        cmocka_unit_test(the_environment_is_read_as_yaml),
        cmocka_unit_test(options_win_and_load_orders_them),
        cmocka_unit_test(reload_takes_what_may_change),
        cmocka_unit_test(json_tells_every_key),
        cmocka_unit_test(the_example_is_the_built_in_configuration),
        cmocka_unit_test(the_shipped_example_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
