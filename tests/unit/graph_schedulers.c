/* The schedulers that graphs may name are those that the sampler has. */
#include "unit/unit.h"

#include "worker/engine/sampling.h"

static void names_agree(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool available;
    } names[] = {
#define SCHEDULER(name, available) {#name, available},
#include "graph/schedulers.def"
    };
    size_t available = 0, n;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_true(sampler_known(names[i].name));
        assert_int_equal(sampler_available(names[i].name), names[i].available);
        available += names[i].available;
    }
    sampler_names(&n);
    assert_int_equal(n, available);
    assert_false(sampler_known("no_such_scheduler"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
