/* The layout of a plan's arena, and plans that run on the plain backend. */
#include "unit/unit.h"

#include "worker/engine/net.h"
#include "worker/engine/plan.h"

static uint32_t random_u32(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*s >> 33);
}

static bool overlap(size_t a, size_t a_len, size_t b, size_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

static void layout_never_overlaps(void **state)
{
    (void)state;
    enum { N = 150 };
    uint64_t seed = 1;
    for (int round = 0; round < 50; round++) {
        struct plan_interval v[N];
        size_t sum = 0, peak = 0;
        for (int i = 0; i < N; i++) {
            int first = (int)(random_u32(&seed) % 100);
            v[i] = (struct plan_interval){.bytes = random_u32(&seed) % 5000, .first = first, .last = first + (int)(random_u32(&seed) % 12)};
            sum += (v[i].bytes + 63) & ~(size_t)63;
        }
        size_t total = plan_layout(v, N);
        for (int at = 0; at < 120; at++) {
            size_t alive = 0;
            for (int i = 0; i < N; i++)
                if (v[i].first <= at && at <= v[i].last)
                    alive += v[i].bytes;
            if (alive > peak)
                peak = alive;
        }
        for (int i = 0; i < N; i++) {
            assert_int_equal(v[i].offset % 64, 0);
            assert_true(v[i].offset + v[i].bytes <= total);
            for (int k = 0; k < i; k++)
                if (v[i].first <= v[k].last && v[k].first <= v[i].last)
                    assert_false(overlap(v[i].offset, v[i].bytes, v[k].offset, v[k].bytes));
        }
        assert_true(total <= sum);
        assert_true(total >= peak);
        assert_true(total < peak + peak / 2);
    }
}

/* A chain needs room for two neighbours only. */
static void layout_reuses(void **state)
{
    (void)state;
    struct plan_interval v[100];
    for (int i = 0; i < 100; i++)
        v[i] = (struct plan_interval){.bytes = 1024, .first = i, .last = i + 1};
    assert_int_equal(plan_layout(v, 100), 2048);
    struct plan_interval none[1];
    assert_int_equal(plan_layout(none, 0), 0);
}

static struct backend *open_ref(void)
{
    struct backend *b;
    struct error err;
    struct backend_spec spec = {.device = "ref", .compute = DT_F32};
    assert_ok(backend_ref.open(&spec, &b, &err), err);
    return b;
}

static void unary(struct plan *p, int segment, struct operand x, struct operand y, enum act act)
{
    struct op_desc d = {.kind = OP_UNARY, .x = x, .y = y, .act = act};
    plan_op(p, segment, &d);
}

/* x -> (prompt segment) kept -> (step segment) t1, t2 -> out: what the first segment made must survive the second, run many times. */
static void segments_keep_what_they_share(void **state)
{
    (void)state;
    struct backend *b = open_ref();
    struct plan *p;
    struct error err;
    assert_ok(plan_new(b, &p, &err), err);
    enum { W = 100 };
    struct operand x = plan_value(p, DT_F32, 1, 1, W, 1), shared = plan_value(p, DT_F32, 1, 1, W, 1), out = plan_value(p, DT_F32, 1, 1, W, 1);
    struct operand t[8];
    plan_keep(p, x);
    plan_keep(p, out);
    unary(p, 0, x, shared, FN_NONE);
    struct operand last = shared;
    for (int i = 0; i < 8; i++) {
        t[i] = plan_value(p, DT_F32, 1, 1, W, 1);
        unary(p, 1, last, t[i], FN_NONE);
        last = t[i];
    }
    unary(p, 1, last, out, FN_NONE);
    assert_ok(plan_finish(p, NULL, &err), err);
    assert_true(plan_bytes(p) <= 5 * 448);   /* three that stay, two in turn */
    float in[W], got[W];
    for (int i = 0; i < W; i++)
        in[i] = (float)i;
    assert_ok(b->api->upload(b, plan_arena(p), plan_operand(p, x).offset, in, sizeof in, &err), err);
    assert_ok(plan_run(p, 0, NULL, &err), err);
    for (int round = 0; round < 3; round++) {
        assert_ok(plan_run(p, 1, NULL, &err), err);
        assert_ok(b->api->download(b, plan_arena(p), plan_operand(p, out).offset, got, sizeof got, &err), err);
        assert_memory_equal(in, got, sizeof in);
        assert_ok(b->api->fill(b, plan_arena(p), plan_operand(p, out).offset, 0, sizeof got, &err), err);
    }
    plan_free(p);
    b->api->close(b);
}

static bool tick(void *self)
{
    int *left = self;
    return (*left)-- > 0;
}

static void a_tick_cancels(void **state)
{
    (void)state;
    struct backend *b = open_ref();
    struct plan *p;
    struct error err;
    assert_ok(plan_new(b, &p, &err), err);
    struct operand x = plan_value(p, DT_F32, 1, 1, 16, 1), y = plan_value(p, DT_F32, 1, 1, 16, 1);
    plan_keep(p, x);
    plan_keep(p, y);
    for (int i = 0; i < 10; i++)
        unary(p, 0, x, y, FN_NONE);
    assert_ok(plan_finish(p, NULL, &err), err);
    int left = 5;
    struct engine_hooks hooks = {.self = &left, .tick = tick};
    assert_int_equal(plan_run(p, 0, &hooks, &err), ST_CANCELED);
    assert_int_equal(left, -1);
    left = 10;
    assert_ok(plan_run(p, 0, &hooks, &err), err);
    assert_int_equal(left, 0);
    plan_free(p);
    b->api->close(b);
}

static void a_view_is_a_part(void **state)
{
    (void)state;
    struct operand x = {.dtype = DT_F32, .offset = 64, .n = 2, .h = 3, .w = 4, .c = 64, .ld = 64};
    struct operand v = plan_view(x, 32, 16);
    assert_int_equal(v.offset, 64 + 128);
    assert_int_equal(v.c, 16);
    assert_int_equal(v.ld, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(layout_never_overlaps), cmocka_unit_test(layout_reuses),
                                       cmocka_unit_test(segments_keep_what_they_share), cmocka_unit_test(a_tick_cancels), cmocka_unit_test(a_view_is_a_part)};
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
