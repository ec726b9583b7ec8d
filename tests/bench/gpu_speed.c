/* galley-speed --model DIR [--device NAME] [--dtype f32|f16|bf16] [--size PIXELS] [--steps N]: one process from its start to its second
 * picture, without galleyd. It prints lines "NAME VALUE", milliseconds unless the name says otherwise; tests/bench/gpu reads them.
 *
 * With --fault it breaks the device's context by a kernel that writes where nothing is, and checks that the backend says so. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "worker/backend/backend.h"
#include "worker/engine/model.h"
#include "worker/engine/noise.h"

enum { STEPS_MAX = 1000, LATENT = 4 };

struct options {
    const char *device, *model;
    enum dtype dtype;
    int size, steps;
    bool fault;
};

/* One run of a denoise loop, seen through its hooks. */
struct loop {
    struct backend *backend;
    int64_t from, at[STEPS_MAX + 1]; /* when it was begun, and when step I had ended */
    int n;
    size_t least_free;
};

struct picture_of {
    struct tensor *latents;
    uint8_t *rgb;
    int width, height;
};

static int64_t last_us;

/* lap prints the time since the last one. */
static void lap(const char *name)
{
    int64_t now = clock_us();
    printf("%s %.3f\n", name, (double)(now - last_us) / 1e3);
    fflush(stdout);
    last_us = clock_us();
}

/* ---- the driver, for what is not the backend's to do */

static struct {
    void *library;
    int (*init)(unsigned);
    int (*retain)(void **context, int device);
    int (*set)(void *context);
    int (*wait)(void);
    int (*load)(void **module, const void *image);
    int (*function)(void **function, void *module, const char *name);
    int (*launch)(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                  void *stream, void **args, void **extra);
} driver;

static enum status symbol(const char *name, void *ret, struct error *err)
{
    void *at = dlsym(driver.library, name);
    if (!at)
        return FAIL(err, NO_DEVICE, "the driver has no %s", name);
    memcpy(ret, &at, sizeof at);
    return ST_OK;
}

static enum status driver_open(struct error *err)
{
    driver.library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver.library)
        return FAIL(err, NO_DEVICE, "no driver: %s", dlerror());
    TRY(symbol("cuInit", &driver.init, err));
    TRY(symbol("cuDevicePrimaryCtxRetain", &driver.retain, err));
    return ST_OK;
}

static enum status ask(int r, const char *what, struct error *err)
{
    return r == 0 ? ST_OK : FAIL(err, UNSUPPORTED, "%s: error %d of the driver", what, r);
}

/* warm_driver does what the backend would do first, to see what each costs. */
static enum status warm_driver(void **ret_context, struct error *err)
{
    TRY(driver_open(err));
    TRY(ask(driver.init(0), "cuInit", err));
    lap("driver");
    TRY(ask(driver.retain(ret_context, 0), "a context", err));
    lap("context");
    return ST_OK;
}

static enum status fault(void *context, struct backend *b, struct error *err)
{
    static const char ptx[] =
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry astray()\n{\n.reg .b64 %at;\n.reg .b32 %one;\n"
        "mov.u64 %at, 64;\nmov.u32 %one, 1;\nst.global.u32 [%at], %one;\nret;\n}\n";
    void *module, *function;
    struct error said = {0};
    TRY(symbol("cuCtxSetCurrent", &driver.set, err));
    TRY(symbol("cuCtxSynchronize", &driver.wait, err));
    TRY(symbol("cuModuleLoadData", &driver.load, err));
    TRY(symbol("cuModuleGetFunction", &driver.function, err));
    TRY(symbol("cuLaunchKernel", &driver.launch, err));
    TRY(ask(driver.set(context), "a context", err));
    TRY(ask(driver.load(&module, ptx), "loading a kernel from PTX", err));
    TRY(ask(driver.function(&function, module, "astray"), "finding a kernel", err));
    TRY(ask(driver.launch(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), "launching a kernel", err));
    (void)driver.wait();
    enum status first = b->api->sync(b, &said), then = b->api->sync(b, err);
    printf("fault %s\nfault_kept %s\nfault_said %s\n", status_name(first), status_name(then), said.message);
    if (first == ST_DEVICE_FAULT && then == ST_DEVICE_FAULT)
        return ST_OK;
    return FAIL(err, INTERNAL, "a kernel that wrote astray gave %s, then %s", status_name(first), status_name(then));
}

/* ---- a backend that is timed: where the time of making plans goes */

static struct {
    const struct backend_api *real;
    struct backend_api api;
    int64_t op_us[OP_COUNT], record_us, memory_us;
    int ops[OP_COUNT];
} timed;

static enum status timed_op_new(struct backend *b, const struct op_desc *desc, struct bop **ret, struct error *err)
{
    int64_t from = clock_us();
    enum status s = timed.real->op_new(b, desc, ret, err);
    timed.op_us[desc->kind] += clock_us() - from;
    timed.ops[desc->kind]++;
    return s;
}

static enum status timed_sequence_new(struct backend *b, struct bop *const *ops, int n, struct bmem *arena, struct bmem *workspace,
                                      void **ret, struct error *err)
{
    int64_t from = clock_us();
    enum status s = timed.real->sequence_new(b, ops, n, arena, workspace, ret, err);
    timed.record_us += clock_us() - from;
    return s;
}

static enum status timed_mem_new(struct backend *b, size_t bytes, struct bmem **ret, struct error *err)
{
    int64_t from = clock_us();
    enum status s = timed.real->mem_new(b, bytes, ret, err);
    timed.memory_us += clock_us() - from;
    return s;
}

static void time_backend(struct backend *b)
{
    timed.real = b->api;
    timed.api = *b->api;
    timed.api.op_new = timed_op_new;
    timed.api.mem_new = timed_mem_new;
    if (timed.api.sequence_new)
        timed.api.sequence_new = timed_sequence_new;
    b->api = &timed.api;
}

/* plans_print says where PREFIX's time went, and starts anew. */
static void plans_print(const char *prefix)
{
    int64_t rest_us = 0;
    int rest = 0;
    for (int k = 0; k < OP_COUNT; k++) {
        if (k == OP_CONV2D || k == OP_LINEAR || k == OP_ATTENTION)
            printf("%s_%s %.3f\n%s_%s_count %d\n", prefix, op_name((enum op_kind)k), (double)timed.op_us[k] / 1e3, prefix,
                   op_name((enum op_kind)k), timed.ops[k]);
        else
            rest_us += timed.op_us[k], rest += timed.ops[k];
        timed.op_us[k] = timed.ops[k] = 0;
    }
    printf("%s_other %.3f\n%s_other_count %d\n", prefix, (double)rest_us / 1e3, prefix, rest);
    printf("%s_record %.3f\n%s_memory %.3f\n", prefix, (double)timed.record_us / 1e3, prefix, (double)timed.memory_us / 1e3);
    timed.record_us = timed.memory_us = 0;
    last_us = clock_us();
}

/* ---- pictures */

static bool tick(void *self)
{
    (void)self;
    return true;
}

static bool no_preview(void *self)
{
    (void)self;
    return false;
}

static void step(void *self, int at, int total, const uint8_t *rgb, int width, int height)
{
    struct loop *l = self;
    struct backend_memory memory;
    (void)at, (void)total, (void)rgb, (void)width, (void)height;
    if (l->n == 1 && l->backend->api->memory(l->backend, &memory, NULL) == ST_OK && memory.free_bytes < l->least_free)
        l->least_free = memory.free_bytes;
    if (l->n <= STEPS_MAX)
        l->at[l->n++] = clock_us();
}

static enum status encode(struct model *m, const char *prompt, struct tensor **ret, struct error *err)
{
    struct text_encode encoder;
    TRY(model_text_encoder(m, 0, NULL, &encoder, err));
    return conditioning_encode(&encoder, model_tokenizer(m), prompt, ret, err);
}

static enum status noise_of(int size, struct tensor **ret, struct error *err)
{
    struct rng rng;
    TRY(tensor_new(4, (int64_t[]){1, LATENT, size / 8, size / 8}, ret, err));
    rng_seed(&rng, 7);
    rng_normal_f32(&rng, (*ret)->data, (size_t)tensor_count(*ret));
    return ST_OK;
}

static enum status denoise(struct model *m, const struct options *o, int size, int steps, struct tensor *prompt[2], struct loop *l,
                           struct tensor **ret, struct error *err)
{
    static const double scale[] = {5};
    struct tensor *noise = NULL;
    const struct engine_hooks hooks = {l, tick, step, no_preview};
    TRY(noise_of(size, &noise, err));
    l->n = 0;
    struct denoise_args a = {.positive = prompt[1],
                             .negative = prompt[0],
                             .noise = noise,
                             .steps = steps,
                             .cfg_scale = scale,
                             .n_cfg_scale = 1,
                             .end = 1,
                             .scheduler = "ddim",
                             .seed = 7};
    l->from = clock_us();
    enum status s = model_denoise(m, &a, &hooks, ret, err);
    tensor_free(noise);
    if (s == ST_OK && l->n < 2)
        s = FAIL(err, INTERNAL, "%d steps on %s reported %d", steps, o->device, l->n);
    return s;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* loop_print says how long the preparation, the first step and the others took. */
static void loop_print(const char *prefix, const struct loop *l)
{
    static double took[STEPS_MAX];
    int n = 0;
    printf("%s_prepare %.3f\n%s_first_step %.3f\n", prefix, (double)(l->at[0] - l->from) / 1e3, prefix,
           (double)(l->at[1] - l->at[0]) / 1e3);
    for (int i = 2; i < l->n; i++)
        took[n++] = (double)(l->at[i] - l->at[i - 1]) / 1e3;
    if (n) {
        double all = (double)(l->at[l->n - 1] - l->at[1]) / 1e3;
        qsort(took, (size_t)n, sizeof *took, by_size);
        printf("%s_step_median %.4f\n%s_step_p95 %.4f\n%s_steps_per_s %.3f\n", prefix, took[n / 2], prefix, took[n * 95 / 100], prefix,
               1e3 * n / all);
    }
    last_us = clock_us();
}

static uint64_t hash_of(const void *data, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
    return h;
}

static enum status paint(struct model *m, const struct options *o, struct tensor *prompt[2], struct loop *l, const char *prefix,
                         struct picture_of *ret, struct error *err)
{
    char name[64];
    TRY(denoise(m, o, o->size, o->steps, prompt, l, &ret->latents, err));
    loop_print(prefix, l);
    snprintf(name, sizeof name, "%s_unet", prefix);
    plans_print(name);
    TRY(model_decode(m, ret->latents, NULL, &ret->rgb, &ret->width, &ret->height, err));
    snprintf(name, sizeof name, "%s_decode", prefix);
    lap(name);
    snprintf(name, sizeof name, "%s_vae", prefix);
    plans_print(name);
    return ST_OK;
}

static void picture_free_of(struct picture_of *p)
{
    tensor_free(p->latents);
    free(p->rgb);
}

static enum status memory_print(const struct loop *l, struct error *err)
{
    struct backend_memory now;
    TRY(l->backend->api->memory(l->backend, &now, err));
    printf("used_bytes %zu\nfree_bytes %zu\nleast_free_bytes %zu\ntotal_bytes %zu\n", now.used_bytes, now.free_bytes,
           l->least_free < now.free_bytes ? l->least_free : now.free_bytes, now.total_bytes);
    return ST_OK;
}

static enum status pictures(struct backend *b, const struct options *o, struct model *m, int64_t began, struct error *err)
{
    struct tensor *prompt[2] = {NULL, NULL}, *other = NULL;
    struct picture_of first = {0}, again = {0};
    struct loop *l = calloc(1, sizeof *l);
    if (!l)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a loop");
    *l = (struct loop){.backend = b, .least_free = SIZE_MAX};
    enum status s = encode(m, "", &prompt[0], err);
    lap("encode_first");
    if (s == ST_OK)
        s = encode(m, "a red apple", &prompt[1], err);
    lap("encode");
    plans_print("text");
    if (s == ST_OK)
        s = paint(m, o, prompt, l, "cold", &first, err);
    printf("first_picture %.3f\n", (double)(clock_us() - began) / 1e3);
    if (s == ST_OK)
        s = paint(m, o, prompt, l, "warm", &again, err);
    if (s == ST_OK) {
        size_t n = (size_t)tensor_count(first.latents) * sizeof(float), pixels = (size_t)first.width * (size_t)first.height * 3;
        printf("same %d\nlatents_hash %016llx\npicture_hash %016llx\n",
               !memcmp(first.latents->data, again.latents->data, n) && !memcmp(first.rgb, again.rgb, pixels),
               (unsigned long long)hash_of(first.latents->data, n), (unsigned long long)hash_of(first.rgb, pixels));
        s = memory_print(l, err);
    }
    if (s == ST_OK)
        s = denoise(m, o, o->size + 64, 2, prompt, l, &other, err);
    if (s == ST_OK) {
        loop_print("other_size", l);
        plans_print("other_size");
    }
    tensor_free(prompt[0]);
    tensor_free(prompt[1]);
    tensor_free(other);
    picture_free_of(&first);
    picture_free_of(&again);
    free(l);
    return s;
}

static enum status run(const struct options *o, struct error *err)
{
    struct backend_spec spec = {.device = o->device, .compute = o->dtype};
    struct backend *b = NULL;
    struct model *m = NULL;
    void *context = NULL;
    int64_t began = last_us = clock_us();
    const struct backend_api *api = backend_find(o->device);
    lap("libraries");
    if (!api)
        return FAIL(err, NO_DEVICE, "no backend for '%s'", o->device);
    if (!strncmp(o->device, "cuda", 4))
        TRY(warm_driver(&context, err));
    TRY(api->open(&spec, &b, err));
    lap("open");
    time_backend(b);
    enum status s = o->fault ? fault(context, b, err) : model_open(o->model, b, o->dtype, &m, err);
    if (s == ST_OK && !o->fault) {
        lap("map_model");
        s = pictures(b, o, m, began, err);
    }
    model_free(m);
    timed.real->close(b);
    return s;
}

static bool read_options(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--fault")) {
            o->fault = true;
            continue;
        }
        if (!value)
            return false;
        if (!strcmp(argv[i], "--device"))
            o->device = value;
        else if (!strcmp(argv[i], "--model"))
            o->model = value;
        else if (!strcmp(argv[i], "--size"))
            o->size = atoi(value);
        else if (!strcmp(argv[i], "--steps"))
            o->steps = atoi(value);
        else if (!strcmp(argv[i], "--dtype"))
            o->dtype = !strcmp(value, "f16") ? DT_F16 : !strcmp(value, "bf16") ? DT_BF16 : DT_F32;
        else
            return false;
        i++;
    }
    return (o->model || o->fault) && o->size >= 64 && o->size % 64 == 0 && o->steps >= 2 && o->steps < STEPS_MAX;
}

int main(int argc, char **argv)
{
    struct options o = {.device = "cuda:0", .dtype = DT_F16, .size = 512, .steps = 50};
    struct error err = {0};
    if (!read_options(argc, argv, &o)) {
        fprintf(stderr, "usage: galley-speed --model DIR [--device NAME] [--dtype f32|f16|bf16] [--size PIXELS] [--steps N] [--fault]\n");
        return 2;
    }
    if (run(&o, &err) == ST_OK)
        return 0;
    printf("error %s\n", err.message);
    return 1;
}
