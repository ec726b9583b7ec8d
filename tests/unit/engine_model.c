/* An open model: what it refuses, and what its denoise loop does and does not do. */
#include "unit/unit.h"

#include <math.h>

#include "golden/fixture.h"
#include "worker/engine/model.h"

enum { SIDE = 4, TOKENS = 3, WIDTH = 768, LATENT = 4 };

static char model_dir[PATH_BYTES];

/* ---- a backend that counts what it is asked to make */
static const struct backend_api *base = &backend_ref;
static struct backend_api counting;
static int made;
static long heap_calls;              /* of this program, by the linker's --wrap; what the plain backend takes for an op is its own */

static enum status count_mem_new(struct backend *b, size_t bytes, struct bmem **ret, struct error *err)
{
    made++;
    return base->mem_new(b, bytes, ret, err);
}

static enum status count_op_new(struct backend *b, const struct op_desc *desc, struct bop **ret, struct error *err)
{
    made++;
    return base->op_new(b, desc, ret, err);
}

static enum status plain_op_run(struct backend *b, struct bop *op, struct bmem *arena, struct bmem *workspace, struct error *err)
{
    long before = heap_calls;
    enum status s = base->op_run(b, op, arena, workspace, err);
    if (base == &backend_ref)
        heap_calls = before;
    return s;
}

static enum status count_weight_new(struct backend *b, const struct weight_source *source, struct bweight **ret, struct error *err)
{
    made++;
    return base->weight_new(b, source, ret, err);
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
    heap_calls++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    heap_calls++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    heap_calls++;
    return __real_realloc(p, n);
}

static struct backend *open_backend(void)
{
    struct backend *b;
    struct error err;
    struct backend_spec spec = {.device = base->name, .compute = DT_F32};
    assert_ok(base->open(&spec, &b, &err), err);
    counting = *base;
    counting.mem_new = count_mem_new;
    counting.op_new = count_op_new;
    counting.op_run = plain_op_run;
    counting.weight_new = count_weight_new;
    b->api = &counting;
    return b;
}

static struct tensor *filled(int ndim, int64_t a, int64_t b, int64_t c, int64_t d, uint32_t seed)
{
    struct tensor *t;
    struct error err;
    assert_ok(tensor_new(ndim, (int64_t[]){a, b, c, d}, &t, &err), err);
    for (int64_t i = 0; i < tensor_count(t); i++) {
        seed = seed * 1664525u + 1013904223u;
        t->data[i] = (float)(seed >> 8) / 8388608.0f - 1;
    }
    return t;
}

struct watch {
    int steps, last_step, total, previews, ticks, stop_after_ticks;
    int made_at_start, made_at_end;
    long heap_at_start, heap_at_end;
    bool previewing;
};

static bool on_tick(void *self)
{
    struct watch *w = self;
    w->ticks++;
    return !w->stop_after_ticks || w->ticks <= w->stop_after_ticks;
}

static void on_step(void *self, int step, int total, const uint8_t *rgb, int width, int height)
{
    struct watch *w = self;
    if (w->steps == 0) {
        w->made_at_start = made;
        w->heap_at_start = heap_calls;
    }
    w->steps++;
    w->last_step = step;
    w->total = total;
    w->made_at_end = made;
    w->heap_at_end = heap_calls;
    if (rgb) {
        w->previews++;
        assert_int_equal(width, SIDE);
        assert_int_equal(height, SIDE);
    }
}

static bool on_want(void *self)
{
    return ((struct watch *)self)->previewing;
}

struct setting {
    struct backend *backend;
    struct model *model;
    struct tensor *positive, *negative, *noise;
    double scale;
    struct denoise_args args;
    struct watch watch;
    struct engine_hooks hooks;
};

static int setup(void **state)
{
    struct setting *s = calloc(1, sizeof *s);
    struct error err;
    assert_non_null(s);
    s->backend = open_backend();
    assert_ok(model_open(model_dir, s->backend, DT_F32, &s->model, &err), err);
    s->positive = filled(3, 1, TOKENS, WIDTH, 0, 1);
    s->negative = filled(3, 1, TOKENS, WIDTH, 0, 2);
    s->noise = filled(4, 1, LATENT, SIDE, SIDE, 3);
    s->scale = 3;
    s->args = (struct denoise_args){.positive = s->positive, .negative = s->negative, .noise = s->noise, .steps = 3, .cfg_scale = &s->scale,
                                    .n_cfg_scale = 1, .start = 0, .end = 1, .scheduler = "ddim", .seed = 7};
    s->hooks = (struct engine_hooks){.self = &s->watch, .tick = on_tick, .step = on_step, .want_preview = on_want};
    *state = s;
    return 0;
}

static int setup_cpu(void **state)
{
    base = &backend_cpu;
    return setup(state);
}

static int teardown(void **state)
{
    struct setting *s = *state;
    base = &backend_ref;
    tensor_free(s->positive);
    tensor_free(s->negative);
    tensor_free(s->noise);
    model_free(s->model);
    s->backend->api->close(s->backend);
    free(s);
    return 0;
}

static struct tensor *denoise(struct setting *s)
{
    struct tensor *out;
    struct error err;
    memset(&s->watch, 0, sizeof s->watch);
    assert_ok(model_denoise(s->model, &s->args, &s->hooks, &out, &err), err);
    return out;
}

static void loop_allocates_nothing(void **state)
{
    static const char *const NAMES[] = {"ddim", "euler_a", "dpmpp_2m", "pndm"};
    struct setting *s = *state;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        s->args.scheduler = NAMES[i];
        tensor_free(denoise(s));
        assert_int_equal(s->watch.last_step, s->watch.total);
        assert_true(s->watch.steps >= 4);
        assert_true(s->watch.made_at_start > 0);
        assert_int_equal(s->watch.made_at_end, s->watch.made_at_start);
        assert_int_equal(s->watch.heap_at_end, s->watch.heap_at_start);
    }
}

static void plans_and_weights_are_kept(void **state)
{
    struct setting *s = *state;
    struct tensor *first = denoise(s);
    int before = made;
    struct tensor *second = denoise(s);
    assert_true(made - before < 12);         /* the sampler's ops and its table, no network */
    assert_memory_equal(first->data, second->data, (size_t)tensor_count(first) * sizeof(float));
    tensor_free(first);
    tensor_free(second);
    assert_true(model_bytes(s->model) > 4 * 1000 * 1000);
}

/* A device's keeper that has FREE bytes, and frees what the model does not use when it is asked for more. */
struct keeper { struct model *model; size_t free, asked, most; int freed; };

static enum status keeper_make(void *self, size_t need, struct error *err)
{
    struct keeper *k = self;
    k->asked++;
    k->most = need > k->most ? need : k->most;
    return need > k->free ? FAIL(err, OUT_OF_MEMORY, "%zu bytes needed, %zu free", need, k->free) : ST_OK;
}

static bool keeper_less(void *self)
{
    struct keeper *k = self;
    k->freed++;
    return false;
}

static void asks_for_room_before_it_allocates(void **state)
{
    struct setting *s = *state;
    struct keeper k = {.model = s->model};
    const struct model_room room = {&k, keeper_make, keeper_less};
    struct tensor *out;
    struct error err;
    model_share(s->model, &room);
    struct backend_memory now;
    assert_int_equal(model_denoise(s->model, &s->args, &s->hooks, &out, &err), ST_OUT_OF_MEMORY);
    assert_non_null(strstr(err.message, "bytes needed"));
    assert_ok(s->backend->api->memory(s->backend, &now, &err), err);
    assert_int_equal(now.used_bytes, 0);
    assert_int_equal(model_bytes(s->model), 0);
    assert_true(k.asked == 1 && k.freed == 1);
    k.free = SIZE_MAX;
    tensor_free(denoise(s));
    size_t weights = k.most;
    assert_true(weights > 2 * 1000 * 1000 && model_bytes(s->model) > weights / 2);
    k.most = 0;
    assert_true(model_trim(s->model));
    assert_int_equal(model_idle_bytes(s->model), 0);
    tensor_free(denoise(s));
    assert_true(k.most < weights / 2);       /* the weights are there */
}

static void previews_on_request_only(void **state)
{
    struct setting *s = *state;
    struct tensor *plain = denoise(s);
    assert_int_equal(s->watch.previews, 0);
    memset(&s->watch, 0, sizeof s->watch);
    s->watch.previewing = true;
    struct tensor *out;
    struct error err;
    assert_ok(model_denoise(s->model, &s->args, &s->hooks, &out, &err), err);
    assert_int_equal(s->watch.previews, s->watch.steps);
    assert_memory_equal(plain->data, out->data, (size_t)tensor_count(out) * sizeof(float));
    tensor_free(plain);
    tensor_free(out);
}

static void a_tick_cancels(void **state)
{
    struct setting *s = *state;
    struct tensor *none = NULL;
    struct error e;
    s->watch.stop_after_ticks = 5;           /* while the plan is made */
    assert_int_equal(model_denoise(s->model, &s->args, &s->hooks, &none, &e), ST_CANCELED);
    assert_int_equal(s->watch.steps, 0);
    tensor_free(denoise(s));
    tensor_free(denoise(s));
    int all = s->watch.ticks;
    const int stops[] = {1, all / 2, all - 1};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct tensor *out = NULL;
        struct error err;
        s->watch = (struct watch){.stop_after_ticks = stops[i]};
        assert_int_equal(model_denoise(s->model, &s->args, &s->hooks, &out, &err), ST_CANCELED);
        assert_null(out);
        assert_int_equal(s->watch.ticks, stops[i] + 1);
    }
    tensor_free(denoise(s));                 /* and the model is as good as before */
}

/* A longer prompt on one side pads and masks the other: padding changes nothing, real tokens do. */
static void unequal_prompts_are_masked(void **state)
{
    struct setting *s = *state;
    struct tensor *equal = denoise(s);
    struct tensor *longer = filled(3, 1, TOKENS + 2, WIDTH, 0, 5), *out;
    s->args.negative = longer;
    out = denoise(s);
    assert_memory_not_equal(equal->data, out->data, (size_t)tensor_count(out) * sizeof(float));
    tensor_free(out);
    s->args.negative = s->negative;
    s->args.positive = s->negative;          /* guidance between equal prompts is none, at any length of padding */
    struct tensor *same = denoise(s);
    s->scale = 9;
    struct tensor *scaled = denoise(s);
    for (int64_t i = 0; i < tensor_count(same); i++)
        assert_true(same->data[i] - scaled->data[i] < 1e-3f && scaled->data[i] - same->data[i] < 1e-3f);
    tensor_free(same);
    tensor_free(scaled);
    tensor_free(longer);
    tensor_free(equal);
}

static void bad_arguments(void **state)
{
    struct setting *s = *state;
    const struct denoise_args good = s->args;
    struct tensor *wrong = filled(4, 1, LATENT, SIDE + 1, SIDE, 1), *narrow = filled(3, 1, TOKENS, 16, 0, 1), *out = NULL;
    const double scales[2] = {1, 2}, nan_scale = NAN;
    struct denoise_args bad[8];
    const char *says[8] = {"of one size", "768", "nothing to denoise", "cfg_scale lists 2 values", "finite", "cfg_rescale_multiplier", "steps", "euler"};
    for (int i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].latents = wrong;
    bad[1].negative = narrow;
    bad[2].noise = NULL;
    bad[3].cfg_scale = scales;
    bad[3].n_cfg_scale = 2;
    bad[4].cfg_scale = &nan_scale;
    bad[5].cfg_rescale = 1;
    bad[6].steps = 0;
    bad[7].scheduler = "eulr";
    for (int i = 0; i < 8; i++) {
        struct error err;
        assert_int_equal(model_denoise(s->model, &bad[i], NULL, &out, &err), ST_BAD_ARGUMENT);
        assert_says(err.message, says[i]);
        assert_null(out);
    }
    tensor_free(wrong);
    tensor_free(narrow);
}

/* One scale per step, also where a sampler calls the network once more than it has steps. */
static void a_scale_for_each_step(void **state)
{
    struct setting *s = *state;
    const double same[3] = {3, 3, 3}, rising[3] = {1, 3, 9};
    s->args.scheduler = "pndm";
    struct tensor *one = denoise(s);
    s->args.n_cfg_scale = 3;
    s->args.cfg_scale = same;
    struct tensor *list = denoise(s);
    assert_memory_equal(one->data, list->data, (size_t)tensor_count(one) * sizeof(float));
    s->args.cfg_scale = rising;
    struct tensor *other = denoise(s);
    assert_memory_not_equal(one->data, other->data, (size_t)tensor_count(one) * sizeof(float));
    tensor_free(one);
    tensor_free(list);
    tensor_free(other);
}

static void text_encoder_skips_layers(void **state)
{
    struct setting *s = *state;
    struct text_encode te;
    struct error err;
    assert_int_equal(model_text_encoder(s->model, 3, NULL, &te, &err), ST_BAD_ARGUMENT);
    assert_says(err.message, "0 to 2");
    int32_t ids[77];
    for (int i = 0; i < 77; i++)
        ids[i] = i;
    float *a = malloc(77 * WIDTH * sizeof *a), *b = malloc(77 * WIDTH * sizeof *b);
    assert_ok(model_text_encoder(s->model, 2, NULL, &te, &err), err);
    assert_int_equal(te.tokens, 77);
    assert_int_equal(te.width, WIDTH);
    assert_ok(te.encode(te.self, ids, NULL, 1, a, &err), err);
    uint8_t mask[77];
    memset(mask, 1, sizeof mask);
    mask[40] = 0;                            /* hides token 40 from those that see it: 40 and later */
    assert_ok(te.encode(te.self, ids, mask, 1, b, &err), err);
    assert_memory_equal(a, b, 40 * WIDTH * sizeof *a);
    assert_memory_not_equal(a + 41 * WIDTH, b + 41 * WIDTH, WIDTH * sizeof *a);
    free(a);
    free(b);
}

static void decodes(void **state)
{
    struct setting *s = *state;
    uint8_t *rgb;
    int w, h;
    struct error err;
    struct tensor *z = filled(4, 1, LATENT, 2, 3, 1), *five = filled(4, 1, 5, 2, 3, 1);
    assert_ok(model_decode(s->model, z, NULL, &rgb, &w, &h, &err), err);
    assert_int_equal(w, 24);
    assert_int_equal(h, 16);
    free(rgb);
    assert_int_equal(model_decode(s->model, five, NULL, &rgb, &w, &h, &err), ST_BAD_ARGUMENT);
    tensor_free(z);
    tensor_free(five);
}

/* ---- folders */

static void identifies(void **state)
{
    (void)state;
    struct model_info m;
    struct error err;
    assert_ok(model_identify(model_dir, &m, &err), err);
    assert_string_equal(m.key, "sd1-tiny");
    assert_string_equal(m.base, "sd-1");
    assert_string_equal(m.type, "main");
    assert_int_equal(m.sample_size, 512);
    assert_true(m.bytes > 40 * 1000 * 1000);
    assert_null(m.default_settings);
    model_info_fini(&m);
}

static char *copy_of_fixture(void)
{
    char *dir = temp_dir(), command[2 * PATH_BYTES];
    snprintf(command, sizeof command, "cp -r '%s'/. '%s'", model_dir, dir);
    assert_int_equal(system(command), 0);
    return dir;
}

static void shell(const char *dir, const char *command)
{
    char all[2 * PATH_BYTES];
    snprintf(all, sizeof all, "cd '%s' && %s", dir, command);
    assert_int_equal(system(all), 0);
}

static void damaged_folders(void **state)
{
    static const struct { const char *damage, *says; bool identifies; } CASES[] = {
        {"rm model_index.json", "model_index.json", false},
        {"rm unet/config.json", "unet/config.json", false},
        {"sed -i 's/StableDiffusionPipeline/StableDiffusionXLPipeline/' model_index.json", "sdxl", false},
        {"sed -i 's/\"cross_attention_dim\": 768/\"cross_attention_dim\": 1024/' unet/config.json", "sd-2", false},
        {"sed -i 's/\"in_channels\": 4/\"in_channels\": 9/' unet/config.json", "inpainting", false},
        {"sed -i 's/\"UpBlock2D\"/\"ResnetUpBlock2D\"/' unet/config.json", "ResnetUpBlock2D", false},
        {"sed -i 's/\"norm_num_groups\": 32/\"norm_num_groups\": 7/' unet/config.json", "do not divide", true},
        {"sed -i 's/\"hidden_act\": \"quick_gelu\"/\"hidden_act\": \"relu\"/' text_encoder/config.json", "relu", false},
        {"sed -i 's/\"layers_per_block\": 2/\"layers_per_block\": 3/' unet/config.json", "is missing", true},
        {"sed -i 's/\"intermediate_size\": 192/\"intermediate_size\": 128/' text_encoder/config.json", "has shape [192, 768], the configuration needs [128, 768]", true},
        {"truncate -s -1 vae/diffusion_pytorch_model.safetensors", "cut off or damaged", true},
        {"rm vae/diffusion_pytorch_model.safetensors && touch vae/diffusion_pytorch_model.bin", "convert them to safetensors", true},
        {"sed -i 's/decoder.conv_norm_out.weight/decoder.conv_norm_0ut.weight/' vae/diffusion_pytorch_model.safetensors", "'decoder.conv_norm_out.weight' is missing", true},
        {"echo 3 > default_settings.json", "default_settings.json", false},
    };
    struct backend *b = open_backend();
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char *dir = copy_of_fixture();
        struct model_info info;
        struct model *m = NULL;
        struct error err = {0};
        shell(dir, CASES[i].damage);
        enum status s = model_identify(dir, &info, &err);
        if ((s == ST_OK) != CASES[i].identifies)
            fail_msg("%s: model_identify says %s: %s", CASES[i].damage, status_name(s), err.message);
        if (s == ST_OK) {
            model_info_fini(&info);
            s = model_open(dir, b, DT_F32, &m, &err);
        }
        if (s != ST_BAD_MODEL && s != ST_UNSUPPORTED)
            fail_msg("%s: %s: %s", CASES[i].damage, status_name(s), err.message);
        assert_null(m);
        assert_says(err.message, CASES[i].says);
        temp_dir_remove(dir);
    }
    b->api->close(b);
}

static void other_file_names(void **state)
{
    static const char *const CHANGES[] = {
        "mv unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.fp16.safetensors && "
        "mv vae/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.fp16.safetensors && "
        "mv text_encoder/model.safetensors text_encoder/model.fp16.safetensors",
        "mv vae/diffusion_pytorch_model.safetensors vae/part-1.safetensors && "
        "echo '{\"weight_map\": {\"decoder.conv_in.weight\": \"part-1.safetensors\"}}' > vae/diffusion_pytorch_model.safetensors.index.json",
    };
    struct backend *b = open_backend();
    (void)state;
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        char *dir = copy_of_fixture();
        struct model *m;
        struct error err;
        shell(dir, CHANGES[i]);
        assert_ok(model_open(dir, b, DT_F32, &m, &err), err);
        model_free(m);
        temp_dir_remove(dir);
    }
    b->api->close(b);
}

int main(void)
{
    struct error err;
    if (fixture_path("sd1-tiny", model_dir, &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
#define WITH_MODEL(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_MODEL(loop_allocates_nothing),
        cmocka_unit_test_setup_teardown(loop_allocates_nothing, setup_cpu, teardown), WITH_MODEL(plans_and_weights_are_kept), WITH_MODEL(asks_for_room_before_it_allocates), WITH_MODEL(previews_on_request_only), WITH_MODEL(a_tick_cancels),
        WITH_MODEL(unequal_prompts_are_masked), WITH_MODEL(bad_arguments), WITH_MODEL(a_scale_for_each_step),
        WITH_MODEL(text_encoder_skips_layers), WITH_MODEL(decodes),
        cmocka_unit_test(identifies), cmocka_unit_test(damaged_folders), cmocka_unit_test(other_file_names),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
