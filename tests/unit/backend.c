/* The contract around the arithmetic: names, memory calls, bad shapes, a few results known by hand. Every test runs on each host backend. */
#include <math.h>

#include "tests/unit/unit.h"
#include "worker/backend/backend.h"
#include "worker/backend/check.h"
#include "worker/backend/half.h"

struct bench {
    struct backend *b;
    struct bmem *arena;
};

enum { ARENA = 1 << 16 };

static int open_on(void **state, const char *device)
{
    struct error err = {0};
    struct bench *s = calloc(1, sizeof *s);
    const struct backend_api *api = backend_find(device);
    assert_non_null(s);
    assert_non_null(api);
    struct backend_spec spec = {.device = device, .n_cores = 2, .compute = DT_F32};
    assert_ok(api->open(&spec, &s->b, &err), err);
    assert_ptr_equal(s->b->api, api);
    assert_ok(api->mem_new(s->b, ARENA, &s->arena, &err), err);
    *state = s;
    return 0;
}

static int open_ref(void **state) { return open_on(state, "ref"); }
static int open_cpu(void **state) { return open_on(state, "cpu:0"); }

static int close_it(void **state)
{
    struct bench *s = *state;
    s->b->api->mem_free(s->b, s->arena);
    s->b->api->close(s->b);
    free(s);
    return 0;
}

static struct operand at(size_t offset, int n, int h, int w, int c)
{
    return (struct operand){.offset = offset, .dtype = DT_F32, .n = n, .h = h, .w = w, .c = c, .ld = c};
}

/* refused expects op_new to fail with CODE and a message that says both parts. */
static void refused(struct bench *s, const struct op_desc *d, enum status code, const char *op, const char *member)
{
    struct bop *op_made = NULL;
    struct error err = {0};
    assert_int_equal(s->b->api->op_new(s->b, d, &op_made, &err), code);
    assert_int_equal(err.code, code);
    assert_says(err.message, op);
    assert_says(err.message, member);
    assert_null(op_made);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(op_name(OP_CONV2D), "conv2d");
    assert_string_equal(op_name(OP_COUNT), "unknown op");
    assert_int_equal(dtype_bytes(DT_BF16), 2);
    assert_string_equal(dtype_name(DT_U8), "u8");
    assert_ptr_equal(backend_find("cpu"), &backend_cpu);
    assert_ptr_equal(backend_find("cpu:1"), &backend_cpu);
    assert_ptr_equal(backend_find("ref"), &backend_ref);
    assert_null(backend_find("cpuid"));
    assert_null(backend_find("quantum:0"));
    assert_true(op_tolerance(OP_ATTENTION, DT_F16) > op_tolerance(OP_ATTENTION, DT_F32));
    for (int k = 0; k < OP_COUNT; k++)
        assert_true(op_tolerance((enum op_kind)k, DT_F32) <= 1e-5);
}

/* Every 16-bit float survives the way to float32 and back, and halves between neighbours round to even. */
static void halves(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x10000; h++) {
        float f = half_to_float((uint16_t)h), b = bf16_to_float((uint16_t)h);
        if (f == f)
            assert_int_equal(float_to_half(f), h);
        if (b == b)
            assert_int_equal(float_to_bf16(b), h);
    }
    assert_true(half_to_float(0x3c00) == 1 && half_to_float(0x0001) == 0x1p-24f && half_to_float(0x7bff) == 65504);
    assert_int_equal(float_to_half(1 + 0x1p-11f), 0x3c00);
    assert_int_equal(float_to_half(1 + 0x3p-11f), 0x3c02);
    assert_int_equal(float_to_half(0x1.8p-24f), 0x0002);
    assert_int_equal(float_to_half(0x0.8p-24f), 0x0000);
    assert_int_equal(float_to_half(65519.0f), 0x7bff);
    assert_int_equal(float_to_half(65520.0f), 0x7c00);
    assert_int_equal(float_to_bf16(1 + 0x1p-8f), 0x3f80);
    assert_int_equal(float_to_bf16(1 + 0x3p-8f), 0x3f82);
    assert_true(isnan(half_to_float(float_to_half(NAN))) && isnan(bf16_to_float(float_to_bf16(NAN))));
}

static void memory_bounds(void **state)
{
    struct bench *s = *state;
    const struct backend_api *api = s->b->api;
    struct error err = {0};
    char bytes[64];
    assert_ok(api->fill(s->b, s->arena, 0, 7, ARENA, &err), err);
    assert_ok(api->upload(s->b, s->arena, ARENA - 4, "abcd", 4, &err), err);
    assert_ok(api->copy(s->b, s->arena, 1, s->arena, ARENA - 4, 4, &err), err);
    assert_ok(api->download(s->b, s->arena, 0, bytes, 6, &err), err);
    assert_memory_equal(bytes, "\7abcd\7", 6);
    assert_ok(api->download(s->b, s->arena, ARENA, bytes, 0, &err), err);
    assert_int_equal(api->upload(s->b, s->arena, ARENA - 3, bytes, 4, &err), ST_INTERNAL);
    assert_says(err.message, "upload: 4 bytes at 65533");
    assert_int_equal(api->download(s->b, s->arena, ARENA + 1, bytes, 0, &err), ST_INTERNAL);
    assert_int_equal(api->download(s->b, s->arena, 8, bytes, SIZE_MAX - 4, &err), ST_INTERNAL);
    assert_int_equal(api->fill(s->b, s->arena, SIZE_MAX, 0, 2, &err), ST_INTERNAL);
    assert_int_equal(api->copy(s->b, s->arena, 0, s->arena, ARENA - 1, 2, &err), ST_INTERNAL);
    assert_int_equal(api->copy(s->b, s->arena, ARENA - 1, s->arena, 0, 2, &err), ST_INTERNAL);
}

static void memory_amounts(void **state)
{
    struct bench *s = *state;
    const struct backend_api *api = s->b->api;
    struct error err = {0};
    struct backend_memory before, after;
    struct bmem *m = NULL;
    assert_ok(api->memory(s->b, &before, &err), err);
    assert_true(before.free_bytes > 0 && before.free_bytes <= before.total_bytes);
    assert_int_equal(before.used_bytes, ARENA);
    assert_int_equal(api->mem_new(s->b, before.total_bytes + 1, &m, &err), ST_OUT_OF_MEMORY);
    assert_says(err.message, "needed");
    assert_says(err.message, "free");
    assert_null(m);
    assert_ok(api->mem_new(s->b, 100, &m, &err), err);
    assert_ok(api->memory(s->b, &after, &err), err);
    assert_int_equal(after.used_bytes, ARENA + 100);
    api->mem_free(s->b, m);
    api->mem_free(s->b, NULL);
    assert_ok(api->memory(s->b, &after, &err), err);
    assert_int_equal(after.used_bytes, ARENA);
}

static void bad_weights(void **state)
{
    struct bench *s = *state;
    static const float data[4] = {1, 2, 3, 4};
    const struct weight_source bad[] = {
        {NULL, DT_F32, 1, {4}}, {data, DT_U8, 1, {4}}, {data, DT_COUNT, 1, {4}}, {data, DT_F32, 0, {0}}, {data, DT_F32, 5, {1, 1, 1, 1}},
        {data, DT_F32, 2, {4, 0}}, {data, DT_F32, 1, {-4}}, {data, DT_F32, 4, {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct bweight *w = NULL;
        struct error err = {0};
        assert_int_equal(s->b->api->weight_new(s->b, &bad[i], &w, &err), ST_INTERNAL);
        assert_says(err.message, "weight");
        assert_null(w);
    }
    s->b->api->weight_free(s->b, NULL);
    s->b->api->op_free(s->b, NULL);
}

static void bad_operands(void **state)
{
    struct bench *s = *state;
    const struct op_desc good = {.kind = OP_UNARY, .act = FN_SILU, .x = at(0, 1, 2, 3, 4), .y = at(1024, 1, 2, 3, 4)};
    struct op_desc d = good;
    d.kind = OP_COUNT;
    refused(s, &d, ST_INTERNAL, "unknown op", "");
    d = good, d.kind = (enum op_kind)-1;
    refused(s, &d, ST_INTERNAL, "unknown op", "");
    d = good, d.x.ld = 3;
    refused(s, &d, ST_INTERNAL, "unary", "x.ld is 3");
    d = good, d.y.offset = 1028;
    refused(s, &d, ST_INTERNAL, "unary", "y.offset is 1028");
    d = good, d.x.dtype = DT_U8;
    refused(s, &d, ST_INTERNAL, "unary", "x.dtype u8");
    d = good, d.x.dtype = (enum dtype)99;
    refused(s, &d, ST_INTERNAL, "unary", "x.dtype");
    d = good, d.x.h = 0;
    refused(s, &d, ST_INTERNAL, "unary", "x is 1 x 0");
    d = good, d.y.w = 0;
    refused(s, &d, ST_INTERNAL, "unary", "y is");
    d = good, d.y.c = 3;
    refused(s, &d, ST_INTERNAL, "unary", "y.c is 3");
    d = good, d.x = at(0, INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX);
    refused(s, &d, ST_INTERNAL, "unary", "out of range");
    d = good, d.act = (enum act)9;
    refused(s, &d, ST_INTERNAL, "unary", "act is 9");
    d = good, d.kind = OP_BINARY, d.act = FN_NONE, d.binary.z = at(2048, 1, 1, 1, 5);
    refused(s, &d, ST_INTERNAL, "binary", "z.c is 5");
    d.binary.z = at(2048, 1, 2, 1, 4);
    refused(s, &d, ST_INTERNAL, "binary", "z.w is 1");
    d = good, d.kind = OP_GROUP_NORM;
    refused(s, &d, ST_INTERNAL, "group_norm", "weight is missing");
    d = good, d.kind = OP_UPSAMPLE, d.y = at(1024, 1, 5, 6, 4);
    refused(s, &d, ST_INTERNAL, "upsample", "5 x 6");
    d = good, d.kind = OP_CONCAT, d.concat.z = at(2048, 1, 2, 3, 1);
    refused(s, &d, ST_INTERNAL, "concat", "y.c is 4, must be 5");
    d = good, d.kind = OP_LINCOMB, d.lincomb.count = 9;
    refused(s, &d, ST_INTERNAL, "lincomb", "count is 9");
    d = good, d.kind = OP_ATTENTION, d.attention.key = d.attention.value = at(2048, 1, 1, 7, 4), d.attention.heads = 3;
    refused(s, &d, ST_INTERNAL, "attention", "heads is 3");
    d.attention.heads = 2;
    refused(s, &d, ST_INTERNAL, "attention", "scale is 0");
    d.attention.scale = 1, d.attention.value = at(4096, 1, 1, 8, 4);
    refused(s, &d, ST_INTERNAL, "attention", "value");
}

static void bad_products(void **state)
{
    struct bench *s = *state;
    static const float data[8 * 4 * 9];
    struct weight_source conv = {data, DT_F32, 4, {8, 4, 3, 3}}, bias = {data, DT_F32, 1, {7}};
    struct bweight *w = NULL, *b = NULL;
    struct error err = {0};
    assert_ok(s->b->api->weight_new(s->b, &conv, &w, &err), err);
    assert_ok(s->b->api->weight_new(s->b, &bias, &b, &err), err);
    const struct op_desc good = {.kind = OP_CONV2D, .x = at(0, 1, 5, 5, 4), .y = at(1024, 1, 3, 3, 8), .weight = w, .conv = {.stride = 1}};
    struct op_desc d = good;
    d.weight = NULL;
    refused(s, &d, ST_INTERNAL, "conv2d", "weight is missing");
    d = good, d.x.c = 3;
    refused(s, &d, ST_INTERNAL, "conv2d", "weight.shape[1] is 4, must be 3");
    d = good, d.y.h = 4;
    refused(s, &d, ST_INTERNAL, "conv2d", "y.h is 4, must be 3");
    d = good, d.conv.stride = 0;
    refused(s, &d, ST_INTERNAL, "conv2d", "stride is 0");
    d = good, d.conv.pad_left = -1;
    refused(s, &d, ST_INTERNAL, "conv2d", "padding");
    d = good, d.x.h = 2;
    refused(s, &d, ST_INTERNAL, "conv2d", "smaller than the 3 x 3 kernel");
    d = good, d.bias = b;
    refused(s, &d, ST_INTERNAL, "conv2d", "bias");
    d = good, d.conv.add = at(4096, 1, 1, 2, 8);
    refused(s, &d, ST_INTERNAL, "conv2d", "pixels of add");
    d = good, d.residual = at(4096, 1, 3, 4, 8);
    refused(s, &d, ST_INTERNAL, "conv2d", "residual");
    d = good, d.kind = OP_LINEAR;
    refused(s, &d, ST_INTERNAL, "linear", "weight has 4 dimensions");
    struct bop *op = NULL;
    struct op_desc far = good;
    far.y.offset = ARENA - 64;
    assert_ok(s->b->api->op_new(s->b, &far, &op, &err), err);
    assert_int_equal(s->b->api->op_run(s->b, op, s->arena, NULL, &err), ST_INTERNAL);
    assert_says(err.message, "conv2d: the operands reach to byte");
    s->b->api->op_free(s->b, op);
    s->b->api->weight_free(s->b, w);
    s->b->api->weight_free(s->b, b);
}

/* run_once makes, runs and frees an op, and downloads COUNT floats of y. */
static void run_once(struct bench *s, const struct op_desc *d, float *ret, size_t count)
{
    const struct backend_api *api = s->b->api;
    struct error err = {0};
    struct bop *op = NULL;
    struct bmem *workspace = NULL;
    assert_ok(api->op_new(s->b, d, &op, &err), err);
    assert_ok(api->mem_new(s->b, api->op_workspace(op), &workspace, &err), err);
    assert_ok(api->op_run(s->b, op, s->arena, workspace, &err), err);
    assert_ok(api->download(s->b, s->arena, d->y.offset, ret, count * sizeof *ret, &err), err);
    api->op_free(s->b, op);
    api->mem_free(s->b, workspace);
}

static void put(struct bench *s, size_t offset, const void *data, size_t bytes)
{
    struct error err = {0};
    assert_ok(s->b->api->upload(s->b, s->arena, offset, data, bytes, &err), err);
}

static void near(const float *have, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(have[i] - want[i]) <= 1e-5f))
            fail_msg("element %zu is %.9g, must be %.9g", i, (double)have[i], (double)want[i]);
}

/* A 2 x 2 picture, a 3 x 3 kernel of distinct numbers: what a pixel gets from its neighbours tells kernel orientation and padding. */
static void conv_by_hand(void **state)
{
    struct bench *s = *state;
    static const float kernel[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, bias[1] = {0.5f}, x[4] = {1, 10, 100, 1000};
    struct weight_source sources[2] = {{kernel, DT_F32, 4, {1, 1, 3, 3}}, {bias, DT_F32, 1, {1}}};
    struct bweight *w[2];
    struct error err = {0};
    for (int i = 0; i < 2; i++)
        assert_ok(s->b->api->weight_new(s->b, &sources[i], &w[i], &err), err);
    put(s, 0, x, sizeof x);
    struct op_desc d = {.kind = OP_CONV2D, .x = at(0, 1, 2, 2, 1), .y = at(64, 1, 2, 2, 1), .weight = w[0], .bias = w[1]};
    d.conv.stride = d.conv.pad_top = d.conv.pad_left = d.conv.pad_bottom = d.conv.pad_right = 1;
    float y[4];
    run_once(s, &d, y, 4);
    near(y, (float[]){5 + 60 + 800 + 9000 + 0.5f, 4 + 50 + 700 + 8000 + 0.5f, 2 + 30 + 500 + 6000 + 0.5f, 1 + 20 + 400 + 5000 + 0.5f}, 4);
    d.y = at(64, 1, 1, 1, 1), d.conv.stride = 2, d.conv.pad_top = d.conv.pad_left = 0;      /* right and bottom only, as the VAE's encoder pads */
    run_once(s, &d, y, 1);
    near(y, (float[]){1 + 20 + 400 + 5000 + 0.5f}, 1);
    for (int i = 0; i < 2; i++)
        s->b->api->weight_free(s->b, w[i]);
}

/* Two keys, scores 0 and ln 3: weights 1/4 and 3/4. Causal, the first query sees the first key only. Hidden by the mask, neither counts. */
static void attention_by_hand(void **state)
{
    struct bench *s = *state;
    const float q[2] = {1, 1}, k[2] = {0, 0.549306144f}, v[2] = {4, 8}, none[2] = {-INFINITY, -INFINITY}, second[2] = {-INFINITY, 0};
    put(s, 0, q, sizeof q);
    put(s, 64, k, sizeof k);
    put(s, 128, v, sizeof v);
    struct op_desc d = {.kind = OP_ATTENTION, .x = at(0, 1, 1, 2, 1), .y = at(192, 1, 1, 2, 1)};
    d.attention.key = at(64, 1, 1, 2, 1), d.attention.value = at(128, 1, 1, 2, 1), d.attention.heads = 1, d.attention.scale = 2;
    float y[2];
    run_once(s, &d, y, 2);
    near(y, (float[]){7, 7}, 2);
    d.attention.causal = true;
    run_once(s, &d, y, 2);
    near(y, (float[]){4, 7}, 2);
    d.attention.causal = false, d.attention.mask = at(256, 1, 1, 2, 1);
    put(s, 256, second, sizeof second);
    run_once(s, &d, y, 2);
    near(y, (float[]){8, 8}, 2);
    put(s, 256, none, sizeof none);
    run_once(s, &d, y, 2);
    near(y, (float[]){0, 0}, 2);
}

static void small_by_hand(void **state)
{
    struct bench *s = *state;
    const float x[4] = {-1, 0, 1, 30}, rgb[6] = {-3, -1, 0, 1.0f / 255, 1, 3};
    float y[4];
    put(s, 0, x, sizeof x);
    struct op_desc d = {.kind = OP_UNARY, .act = FN_SILU, .x = at(0, 1, 1, 1, 4), .y = at(64, 1, 1, 1, 4)};
    run_once(s, &d, y, 4);
    near(y, (float[]){-0.268941421f, 0, 0.731058579f, 30}, 4);
    d.act = FN_GELU;
    run_once(s, &d, y, 4);
    near(y, (float[]){-0.158655254f, 0, 0.841344746f, 30}, 4);
    d.act = FN_QUICK_GELU;
    run_once(s, &d, y, 4);
    near(y, (float[]){-0.154201718f, 0, 0.845798282f, 30}, 4);
    put(s, 128, rgb, sizeof rgb);
    struct op_desc p = {.kind = OP_PACK_U8, .x = at(128, 1, 1, 2, 3), .y = at(256, 1, 1, 2, 3)};
    p.y.dtype = DT_U8;
    run_once(s, &p, y, 2);
    assert_memory_equal(y, "\0\0\x80\x80\xff\xff", 6);
    const float t[1] = {1}, want[4] = {0.540302306f, 0.999950000f, 0.841470985f, 0.00999983f};
    put(s, 0, t, sizeof t);
    struct op_desc e = {.kind = OP_TIME_EMBED, .x = at(0, 1, 1, 1, 1), .y = at(64, 1, 1, 1, 4)};
    run_once(s, &e, y, 4);
    near(y, want, 4);
}

/* x in the mean carries over: the same picture plus 1000 has the same norm. */
static void norm_far_from_zero(void **state)
{
    struct bench *s = *state;
    enum { PIXELS = 200, CHANNELS = 8 };
    static const float ones[CHANNELS] = {1, 1, 1, 1, 1, 1, 1, 1};
    static float x[PIXELS * CHANNELS], y[PIXELS * CHANNELS], moved[PIXELS * CHANNELS];
    struct weight_source source = {ones, DT_F32, 1, {CHANNELS}};
    struct bweight *w = NULL;
    struct error err = {0};
    assert_ok(s->b->api->weight_new(s->b, &source, &w, &err), err);
    for (int i = 0; i < PIXELS * CHANNELS; i++)
        x[i] = (float)(i * 7919 % 64) * 0.0625f;
    struct op_desc d = {.kind = OP_GROUP_NORM, .x = at(0, 1, 10, 20, CHANNELS), .y = at(16384, 1, 10, 20, CHANNELS), .weight = w, .norm = {2, 1e-6f}};
    put(s, 0, x, sizeof x);
    run_once(s, &d, y, PIXELS * CHANNELS);
    for (int i = 0; i < PIXELS * CHANNELS; i++)
        x[i] += 1000;
    put(s, 0, x, sizeof x);
    run_once(s, &d, moved, PIXELS * CHANNELS);
    for (int i = 0; i < PIXELS * CHANNELS; i++)
        if (!(fabsf(y[i] - moved[i]) < 1e-4f))
            fail_msg("element %d is %g, moved %g", i, (double)y[i], (double)moved[i]);
    s->b->api->weight_free(s->b, w);
}

static void cpu_refuses(void **state)
{
    (void)state;
    struct backend *b = NULL;
    struct error err = {0};
    struct backend_spec spec = {.device = "cpu:0", .n_cores = 1, .compute = DT_F16};
    assert_int_equal(backend_cpu.open(&spec, &b, &err), ST_UNSUPPORTED);
    assert_says(err.message, "f16");
    int cores[1] = {1 << 20};
    spec = (struct backend_spec){.device = "cpu:1048576", .cores = cores, .n_cores = 1, .compute = DT_F32};
    assert_int_equal(backend_cpu.open(&spec, &b, &err), ST_NO_DEVICE);
    assert_says(err.message, "1048576");
    spec = (struct backend_spec){.device = "cpu:0", .n_cores = 1, .compute = DT_F32};
    const char *set = getenv("GALLEY_CPU_ISA");
    char *before = set ? strdup(set) : NULL;
    setenv("GALLEY_CPU_ISA", "mmx", 1);
    assert_int_equal(backend_cpu.open(&spec, &b, &err), ST_BAD_CONFIG);
    assert_says(err.message, "GALLEY_CPU_ISA is \"mmx\"");
    assert_says(err.message, "plain");
    if (before)
        setenv("GALLEY_CPU_ISA", before, 1);
    else
        unsetenv("GALLEY_CPU_ISA");
    free(before);
    assert_null(b);
}

#define ON_BOTH(f) cmocka_unit_test_setup_teardown(f, open_ref, close_it), cmocka_unit_test_setup_teardown(f, open_cpu, close_it)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names), cmocka_unit_test(halves), cmocka_unit_test(cpu_refuses),
        ON_BOTH(memory_bounds), ON_BOTH(memory_amounts), ON_BOTH(bad_weights), ON_BOTH(bad_operands), ON_BOTH(bad_products),
        ON_BOTH(conv_by_hand), ON_BOTH(attention_by_hand), ON_BOTH(small_by_hand), ON_BOTH(norm_far_from_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
