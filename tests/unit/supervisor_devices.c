/* generation_devices against a made-up machine of four processors (3, 5, 6, 7) and up to three GPUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/devices.h"

static json_t *machine(int gpus)
{
    json_t *list = json_array();
    const int cores[] = {3, 5, 6, 7};
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "cpu:%d", i);
        json_array_append_new(list, json_pack("{s:s s:s s:s s:I s:[i]}", "device", name, "kind", "cpu", "name", "Test CPU", "memory_bytes", (json_int_t)1 << 30, "cores", cores[i]));
    }
    static const char *const uuids[] = {"GPU-1a2b3c4d", "GPU-1a2b9999", "GPU-ffff0000"};
    for (int i = 0; i < gpus; i++) {
        char name[16];
        snprintf(name, sizeof name, "cuda:%d", i);
        json_array_append_new(list, json_pack("{s:s s:s s:s s:s s:I}", "device", name, "uuid", uuids[i], "kind", "cuda", "name", "Test GPU", "memory_bytes", (json_int_t)1 << 34));
    }
    return json_pack("{s:o s:[] s:s*}", "devices", list, "models", "cuda", gpus ? NULL : "the driver sleeps");
}

/* resolve reads WANTED (names with spaces between them) and returns the count, -1 and ERR on a refusal. */
static int resolve(const char *wanted, int gpus, struct device *ret, struct error *err)
{
    struct strlist names = {0};
    char text[256], *rest = text;
    int n = 0;
    snprintf(text, sizeof text, "%s", wanted);
    for (char *name; (name = strtok_r(rest, " ", &rest));)
        strlist_add(&names, name);
    json_t *probe = machine(gpus);
    enum status s = devices_resolve(&names, probe, ret, &n, err);
    json_decref(probe);
    strlist_free(&names);
    return s == ST_OK ? n : -1;
}

static struct device d[SLOT_MAX];

static void processors_are_counted_in_the_mask(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(resolve("cpu:0 cpu:2-3", 0, d, &err), 2);
    assert_int_equal(d[0].n_cores, 1);
    assert_int_equal(d[0].cores[0], 3);
    assert_int_equal(d[1].n_cores, 2);
    assert_int_equal(d[1].cores[0], 6);
    assert_int_equal(d[1].cores[1], 7);
}

static void plain_cpu_takes_what_is_left(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(resolve("cpu cpu:1", 0, d, &err), 2);
    assert_int_equal(d[0].n_cores, 3);
    assert_int_equal(d[0].cores[0], 3);
    assert_int_equal(d[0].cores[1], 6);
    assert_int_equal(resolve("cpu cpu:0-3", 0, d, &err), -1);
    assert_non_null(strstr(err.message, "no processor left"));
}

static void duplicates_go_in_order(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(resolve("cpu:1 cpu:0 cpu:1", 0, d, &err), 2);
    assert_string_equal(d[0].name, "cpu:1");
    assert_string_equal(d[1].name, "cpu:0");
}

static void automatic_and_empty(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(resolve("auto", 1, d, &err), 1);
    assert_string_equal(d[0].name, "cuda:0");
    assert_int_equal(resolve("auto", 0, d, &err), 1);
    assert_string_equal(d[0].name, "cpu");
    assert_int_equal(d[0].n_cores, 4);
    assert_int_equal(resolve("", 0, d, &err), 1);
    assert_string_equal(d[0].name, "cpu");
    assert_int_equal(resolve("auto", 3, d, &err), 3);
    assert_string_equal(d[2].name, "cuda:2");
    assert_int_equal(resolve("", 3, d, &err), 1);
    assert_string_equal(d[0].name, "cuda:0");
}

static void refusals_name_the_entry_and_what_is_valid(void **state)
{
    (void)state;
    struct error err;
    const char *const bad[] = {"cuda:99", "gpu0", "nonsense", "mps", "cpu:4", "cpu:x", "cpu:3-1", "cpu:", "cpu:1-", "GPU-9", "cpu:-1", "cuda:0x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char list[64];
        snprintf(list, sizeof list, "cpu:0 %s", bad[i]);
        assert_int_equal(resolve(list, 1, d, &err), -1);
        assert_non_null(strstr(err.message, bad[i]));
        assert_non_null(strstr(err.message, "cpu:0 to cpu:3"));
        assert_non_null(strstr(err.message, "cuda:0"));
    }
    assert_int_equal(resolve("cuda:0", 0, d, &err), -1);
    assert_non_null(strstr(err.message, "the driver sleeps"));
}

static void gpus_by_name_and_uuid(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(resolve("GPU-1a2b3c4d cpu:0 cuda", 1, d, &err), 2);
    assert_string_equal(d[0].name, "cuda:0");
    assert_string_equal(d[0].kind, "cuda");
    assert_string_equal(d[0].uuid, "GPU-1a2b3c4d");
    assert_string_equal(d[0].model, "Test GPU");
    assert_int_equal(d[0].n_cores, 0);
    assert_string_equal(d[1].uuid, "");
    assert_int_equal(resolve("cuda:2 gpu-FFFF GPU-1a2b9 cuda:1 cuda", 3, d, &err), 3);
    assert_string_equal(d[0].name, "cuda:2");
    assert_string_equal(d[1].name, "cuda:1");
    assert_string_equal(d[2].name, "cuda:0");
    assert_int_equal(resolve("GPU-1a2b", 3, d, &err), -1);
    assert_non_null(strstr(err.message, "more than one UUID"));
    assert_int_equal(resolve("cuda:3", 3, d, &err), -1);
    assert_non_null(strstr(err.message, "'cuda:3' is not there"));
    assert_non_null(strstr(err.message, "cuda:0 to cuda:2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processors_are_counted_in_the_mask), cmocka_unit_test(plain_cpu_takes_what_is_left), cmocka_unit_test(duplicates_go_in_order),
        cmocka_unit_test(automatic_and_empty), cmocka_unit_test(refusals_name_the_entry_and_what_is_valid), cmocka_unit_test(gpus_by_name_and_uuid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
