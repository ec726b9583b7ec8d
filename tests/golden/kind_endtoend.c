/* Complete graphs: every node of the case runs as in a worker, latents and picture are compared. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/paths.h"
#include "golden/fixture.h"
#include "golden/fixture_model.h"
#include "golden/golden.h"
#include "graph/graph.h"
#include "worker/executor.h"
#include "worker/nodes/node.h"

enum { KEEP_MAX = 64 };

/* What a running case holds: the services a worker's session would give, over memory. */
struct bench {
    struct golden_case *c;
    struct backend *backend;     /* borrowed */
    struct { char key[64]; struct model *model; } models[4];
    int n_models;
    struct { char name[32]; struct tensor *tensor; } tensors[KEEP_MAX];
    int n_tensors;
    struct { char name[32]; struct picture *picture; } pictures[KEEP_MAX];
    int n_pictures;
};

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
    (void)self, (void)at, (void)total, (void)rgb, (void)width, (void)height;
}

static enum status phase(void *self, const char *name, const char *message, struct error *err)
{
    (void)self, (void)name, (void)message, (void)err;
    return ST_OK;
}

static enum status tensor_put(void *self, struct tensor *t, const char *kind, const char **ret_name, struct error *err)
{
    struct bench *b = self;
    if (b->n_tensors == KEEP_MAX) {
        tensor_free(t);
        return FAIL(err, TOO_LARGE, "a case may keep %d tensors", (int)KEEP_MAX);
    }
    snprintf(b->tensors[b->n_tensors].name, sizeof b->tensors->name, "%s_%d", kind, b->n_tensors);
    b->tensors[b->n_tensors].tensor = t;
    *ret_name = b->tensors[b->n_tensors++].name;
    return ST_OK;
}

static enum status tensor_get(void *self, const char *name, const struct tensor **ret, struct error *err)
{
    struct bench *b = self;
    for (int i = 0; i < b->n_tensors; i++)
        if (strcmp(b->tensors[i].name, name) == 0) {
            *ret = b->tensors[i].tensor;
            return ST_OK;
        }
    return FAIL(err, NOT_FOUND, "no tensor '%s'", name);
}

static enum status keep_picture(struct bench *b, struct picture *p, const char *name, struct error *err)
{
    if (b->n_pictures == KEEP_MAX) {
        picture_free(p);
        return FAIL(err, TOO_LARGE, "a case may keep %d pictures", (int)KEEP_MAX);
    }
    snprintf(b->pictures[b->n_pictures].name, sizeof b->pictures->name, "%s", name);
    b->pictures[b->n_pictures++].picture = p;
    return ST_OK;
}

static enum status image_put(void *self, const struct picture *p, const json_t *metadata, const char **ret_name, struct error *err)
{
    struct bench *b = self;
    struct picture *copy;
    char name[32];
    (void)metadata;
    TRY(picture_new(p->width, p->height, p->channels, &copy, err));
    memcpy(copy->pixels, p->pixels, (size_t)p->width * (size_t)p->height * (size_t)p->channels);
    snprintf(name, sizeof name, "out-%d.png", b->n_pictures);
    TRY(keep_picture(b, copy, name, err));
    *ret_name = b->pictures[b->n_pictures - 1].name;
    return ST_OK;
}

static enum status image_get(void *self, const char *name, const struct picture **ret, struct error *err)
{
    struct bench *b = self;
    for (int i = 0; i < b->n_pictures; i++)
        if (strcmp(b->pictures[i].name, name) == 0) {
            *ret = b->pictures[i].picture;
            return ST_OK;
        }
    return FAIL(err, NOT_FOUND, "no picture '%s'", name);
}

static enum status model_dir(const char *key, char ret[PATH_BYTES], struct error *err)
{
    char data[PATH_BYTES];
    if (strcmp(key, "emoji") != 0)
        return fixture_path(key, ret, err);
    TRY(paths_data(data, err));
    return paths_join(ret, PATH_BYTES, data, "models/emoji", err);
}

static enum status model_get(void *self, const json_t *reference, struct model **ret, struct error *err)
{
    struct bench *b = self;
    const char *key = json_str(reference, "key", "");
    char dir[PATH_BYTES];
    for (int i = 0; i < b->n_models; i++)
        if (strcmp(b->models[i].key, key) == 0) {
            *ret = b->models[i].model;
            return ST_OK;
        }
    if (b->n_models == (int)(sizeof b->models / sizeof b->models[0]))
        return FAIL(err, TOO_LARGE, "too many models in one case");
    TRY(model_dir(key, dir, err));
    TRY(model_open(dir, b->backend, fixture_dtype(), &b->models[b->n_models].model, err));
    snprintf(b->models[b->n_models].key, sizeof b->models->key, "%s", key);
    *ret = b->models[b->n_models++].model;
    return ST_OK;
}

static uint64_t random_u64(void *self)
{
    (void)self;
    return 4;
}

static void bench_fini(struct bench *b)
{
    for (int i = 0; i < b->n_tensors; i++)
        tensor_free(b->tensors[i].tensor);
    for (int i = 0; i < b->n_pictures; i++)
        picture_free(b->pictures[i].picture);
    for (int i = 0; i < b->n_models; i++)
        model_free(b->models[i].model);
}

/* The last latents and the last picture that the graph made. */
struct made { const struct tensor *latents; const struct picture *picture; };

static enum status run_nodes(struct bench *b, struct executor *x, struct made *ret, struct error *err)
{
    const struct engine_hooks hooks = {b, tick, step, no_preview};
    const struct node_services services = {b, phase, &hooks, tensor_put, tensor_get, image_put, image_get, model_get, random_u64};
    for (;;) {
        const struct prepared *p;
        json_t *output = NULL;
        TRY(executor_next(x, &p, err));
        if (!p)
            return ST_OK;
        node_fn *fn = node_fn_find(p->type->type);
        enum status s = fn ? fn(&services, p->inputs, &output, err) : FAIL(err, NOT_AVAILABLE, "node type %s", p->type->type);
        if (s == ST_OK && strcmp(p->type->type, "denoise_latents") == 0)
            s = tensor_get(b, json_str(json_object_get(output, "latents"), "latents_name", ""), &ret->latents, err);
        if (s == ST_OK && json_object_get(output, "image"))
            s = image_get(b, json_str(json_object_get(output, "image"), "image_name", ""), &ret->picture, err);
        if (s == ST_OK)
            s = executor_complete(x, p, output, err);
        json_decref(output);
        TRY(s);
    }
}

static enum golden_result compare_picture(struct golden_case *c, const struct picture *p)
{
    struct golden_tensor want;
    double limit = golden_tolerance(c, "image_psnr_db", dtype_name(fixture_dtype()), fixture_dtype() == DT_F32 ? 45 : 30), sum = 0;
    if (!golden_has(c, "expect", "image"))
        return GOLDEN_PASS;
    GOLDEN_TRY(golden_tensor(c, "expect", "image", &want));
    size_t n = p ? (size_t)p->width * (size_t)p->height * (size_t)p->channels : 0;
    if (n != want.n)
        return golden_fail(c, "picture of %zu values, expected %zu", n, want.n);
    for (size_t i = 0; i < n; i++)
        sum += (p->pixels[i] - want.data[i]) * (p->pixels[i] - want.data[i]);
    double db = sum > 0 ? 10 * log10(255.0 * 255.0 * (double)n / sum) : 999;
    return db >= limit ? GOLDEN_PASS : golden_fail(c, "picture: %.1f dB from the reference, limit %.1f", db, limit);
}

static double latents_tolerance(const struct golden_case *c)
{
    return golden_tolerance(c, "latents_rel_l2", dtype_name(fixture_dtype()), fixture_dtype() == DT_F32 ? 1e-3 : 0.05);
}

static enum golden_result compare(struct golden_case *c, enum status s, const struct made *made, const struct error *err)
{
    bool raises = json_object_get(c->json, "raises") != NULL;
    if (raises && s != ST_OK && s != ST_NOT_AVAILABLE && s != ST_UNSUPPORTED)
        return GOLDEN_PASS;
    GOLDEN_TRY(golden_status(c, s, err));
    if (raises)
        return golden_fail(c, "the reference fails on this graph, this engine did not");
    if (golden_has(c, "expect", "latents")) {
        if (!made->latents)
            return golden_fail(c, "the graph made no latents");
        size_t n = (size_t)tensor_count(made->latents);
        GOLDEN_TRY(golden_compare_f32(c, "latents", made->latents->data, n, MEASURE_REL_L2, latents_tolerance(c)));
    }
    return compare_picture(c, made->picture);
}

enum golden_result kind_endtoend(struct golden_case *c)
{
    struct bench b = {.c = c};
    struct graph *g = NULL;
    struct executor *x = NULL;
    struct made made = {0};
    struct error err;
    if (fixture_dtype() == DT_BF16)
        return golden_skip(c, "no recorded tolerance of whole graphs in bf16");
    enum status s = graph_parse(json_object_get(c->inputs, "graph"), &g, NULL, &err);
    if (s == ST_OK)
        s = fixture_backend(&b.backend, &err);
    if (s == ST_OK)
        s = executor_new(g, "golden", &x, &err);
    if (s == ST_OK)
        s = run_nodes(&b, x, &made, &err);
    enum golden_result r = compare(c, s, &made, &err);
    executor_free(x);
    graph_free(g);
    bench_fini(&b);
    return r;
}
