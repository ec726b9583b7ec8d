/* The engine's own networks, at the published sizes of Stable Diffusion 1.5, 2.1 and XL (diffusers' unet/config.json and vae/config.json of
 * each), built for a backend that only notes what it is asked for. Weights have shapes and no data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/plans/plans.h"
#include "worker/backend/check.h"
#include "worker/engine/unet.h"
#include "worker/engine/vae.h"

enum { TOKENS = 77, LATENT = 8 };

/* ---- weights of any name and shape */

struct weight {
    struct weight_source source; /* first, as in every backend */
    struct weight *next;
};
struct weights {
    struct weight *all;
};

bool weights_has(const struct weights *w, const char *name)
{
    (void)w;
    (void)name;
    return false;
}

enum status weights_check(const struct weights *w, const char *name, int ndim, const int64_t *shape, struct error *err)
{
    (void)w;
    (void)name;
    (void)ndim;
    (void)shape;
    (void)err;
    return ST_OK;
}

enum status weights_get(struct weights *w, const char *name, int ndim, const int64_t *shape, const struct bweight **ret, struct error *err)
{
    struct weight *new = calloc(1, sizeof *new);
    if (!new)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for %s", name);
    new->source = (struct weight_source){.data = "", .dtype = DT_F16, .ndim = ndim};
    memcpy(new->source.shape, shape, (size_t)ndim * sizeof *shape);
    new->next = w->all;
    w->all = new;
    *ret = (const struct bweight *)new;
    return ST_OK;
}

static void weights_drop(struct weights *w)
{
    while (w->all) {
        struct weight *next = w->all->next;
        free(w->all);
        w->all = next;
    }
}

/* ---- a backend that only listens */

struct listener {
    struct backend base;
    op_visit *visit;
    void *arg;
};

static enum status no_memory(struct backend *b, size_t bytes, struct bmem **ret, struct error *err)
{
    (void)b;
    (void)bytes;
    (void)err;
    *ret = NULL;
    return ST_OK;
}

static void mem_free(struct backend *b, struct bmem *m)
{
    (void)b;
    (void)m;
}

static enum status op_new(struct backend *b, const struct op_desc *d, struct bop **ret, struct error *err)
{
    struct listener *l = (struct listener *)b;
    *ret = NULL;
    TRY(op_check(d, err));
    return l->visit(l->arg, d, err);
}

static void op_free(struct backend *b, struct bop *op)
{
    (void)b;
    (void)op;
}

static size_t op_workspace(const struct bop *op)
{
    (void)op;
    return 0;
}

static const struct backend_api listening = {
    .name = "plans", .mem_new = no_memory, .mem_free = mem_free, .op_new = op_new, .op_free = op_free, .op_workspace = op_workspace};

/* ---- the networks */

static struct unet_config unet_of(const char *name)
{
    struct unet_config c = {.in_channels = 4, .out_channels = 4, .context = 768, .groups = 32, .sample_size = 64, .eps = 1e-5};
    static const int channels[] = {320, 640, 1280, 1280}, heads_2[] = {5, 10, 20, 20}, depth_xl[] = {0, 2, 10};
    bool two = strstr(name, "sd-2"), xl = strstr(name, "sdxl");
    c.n_levels = xl ? 3 : 4;
    c.context = xl ? 2048 : two ? 1024 : 768;
    c.linear_projection = xl || two;
    for (int i = 0; i < c.n_levels; i++) {
        bool cross = xl ? i > 0 : i < 3;
        c.level[i] =
            (struct unet_level){.channels = channels[i], .layers = 2, .heads = xl || two ? heads_2[i] : 8, .depth = xl ? depth_xl[i] : 1};
        c.level[i].down_cross = c.level[i].up_cross = cross;
    }
    return c;
}

static void describe_unet(struct net *n, const struct network *w)
{
    struct unet_config c = unet_of(w->name);
    static struct unet_times times;
    struct net check = {.dtype = n->dtype, .weights = n->weights, .err = n->err};
    struct unet_inputs in = {
        .sample = {.dtype = n->dtype, .n = w->batch, .h = w->height / LATENT, .w = w->width / LATENT, .c = 4, .ld = 4}};
    in.context = (struct operand){.dtype = n->dtype, .n = w->batch, .h = 1, .w = TOKENS, .c = c.context, .ld = c.context};
    (void)unet_forward(&check, &c, &times, in);
    in.sample = net_value(n, in.sample.n, in.sample.h, in.sample.w, 4);
    in.context = net_value(n, w->batch, 1, TOKENS, c.context);
    in.times = net_value(n, 1, 1, 1, times.total);
    n->segment = 1;
    (void)unet_forward(n, &c, &times, in);
}

static void describe_vae(struct net *n, const struct network *w)
{
    struct vae_config c = {.n_levels = 4,
                           .channels = {128, 256, 512, 512},
                           .layers = 2,
                           .groups = 32,
                           .latent_channels = 4,
                           .scaling = 0.18215,
                           .post_quant = true};
    (void)vae_decode(n, &c, net_value(n, w->batch, w->height / LATENT, w->width / LATENT, 4));
}

enum status network_ops(const struct network *w, enum dtype dtype, op_visit *visit, void *arg, struct error *err)
{
    struct listener l = {.base.api = &listening, .visit = visit, .arg = arg};
    struct weights weights = {0};
    struct net n = {.dtype = dtype, .weights = &weights, .err = err};
    TRY(plan_new(&l.base, &n.plan, err));
    (w->vae ? describe_vae : describe_unet)(&n, w);
    enum status s = n.status != ST_OK ? n.status : plan_finish(n.plan, NULL, err);
    plan_free(n.plan);
    weights_drop(&weights);
    return s;
}

/* The pair of guidance is a batch of 2. The last two sizes have odd numbers of latents. */
#define SIZE(name, vae, w, h)                                                                                                              \
    {name, vae, w, h, 1}, {name, vae, w, h, 2}, { name, vae, w, h, 4 }
static const struct network networks[] = {
    SIZE("sd-1 unet", false, 512, 512),  SIZE("sd-1 unet", false, 768, 768),  SIZE("sd-1 unet", false, 1024, 1024),
    SIZE("sd-1 unet", false, 520, 776),  SIZE("sd-1 unet", false, 904, 600),  {"vae", true, 512, 512, 1},
    {"vae", true, 768, 768, 1},          {"vae", true, 1024, 1024, 1},        {"vae", true, 520, 776, 1},
    {"vae", true, 904, 600, 1},          {"sd-2 unet", false, 768, 768, 2},   {"sd-2 unet", false, 512, 512, 2},
    {"sdxl unet", false, 1024, 1024, 1}, {"sdxl unet", false, 1024, 1024, 2}, {"sdxl unet", false, 832, 1216, 2},
};

const struct network *network_all(int *n)
{
    *n = (int)(sizeof networks / sizeof *networks);
    return networks;
}
