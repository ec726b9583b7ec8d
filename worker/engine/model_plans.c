#include <string.h>
#include "worker/engine/model_parts.h"

enum { LATENT = 4 };
/* Kept plans hold at most so much memory beside those in use. */
static const size_t PLANS_MAX_BYTES = (size_t)2 << 30;

static struct operand kept(struct net *n, enum dtype t, int batch, int h, int w, int c)
{
    if (!n->plan)
        return (struct operand){.dtype = t, .n = batch, .h = h, .w = w, .c = c, .ld = c};
    struct operand x = plan_value(n->plan, t, batch, h, w, c);
    plan_keep(n->plan, x);
    return x;
}

static void keep(struct net *n, struct operand x)
{
    if (n->plan && n->status == ST_OK)
        plan_keep(n->plan, x);
}

static void build_unet(struct model *m, struct net *n, const struct plan_key *k, struct operand io[IO_COUNT])
{
    io[IO_IN] = kept(n, DT_F32, k->n, k->h, k->w, LATENT);
    io[IO_CONTEXT] = kept(n, DT_F32, k->n, 1, k->tokens, m->unet_config.context);
    if (k->masked)
        io[IO_MASK] = kept(n, DT_F32, k->n, 1, k->tokens, 1);
    if (n->plan)
        io[IO_TIMES] = kept(n, n->dtype, 1, 1, 1, m->times.total);
    n->segment = SEGMENT_PROMPT;
    struct operand context = net_cast(n, io[IO_CONTEXT], n->dtype);
    n->segment = SEGMENT_STEP;
    struct unet_inputs in = {.sample = net_cast(n, io[IO_IN], n->dtype), .context = context, .mask = io[IO_MASK],
                             .times = io[IO_TIMES], .prompt_segment = SEGMENT_PROMPT};
    io[IO_OUT] = net_cast(n, unet_forward(n, &m->unet_config, &m->times, in), DT_F32);
    keep(n, io[IO_OUT]);
    io[IO_COEF] = kept(n, DT_F32, 1, 1, COEF_ROW, 1);
    io[IO_PREVIEW] = kept(n, DT_F32, 1, k->h, k->w, LATENT);
    io[IO_RGB] = kept(n, DT_U8, 1, k->h, k->w, 3);
    io[IO_MATRIX] = kept(n, DT_F32, 1, 1, LATENT, 3);
    for (int i = 0; i < SLOT_COUNT; i++)
        io[IO_SLOT + i] = kept(n, DT_F32, 1, k->h, k->w, LATENT);
}

static void build_times(struct model *m, struct net *n, const struct plan_key *k, struct operand io[IO_COUNT])
{
    io[IO_IN] = kept(n, DT_F32, 1, 1, k->n, 1);
    io[IO_OUT] = unet_time_rows(n, &m->unet_config, &m->times, io[IO_IN]);
    keep(n, io[IO_OUT]);
}

static void build_vae(struct model *m, struct net *n, const struct plan_key *k, struct operand io[IO_COUNT])
{
    io[IO_IN] = kept(n, DT_F32, 1, k->h, k->w, LATENT);
    struct op_desc pack = {.kind = OP_PACK_U8, .x = vae_decode(n, &m->vae_config, io[IO_IN])};
    pack.y = io[IO_OUT] = kept(n, DT_U8, 1, pack.x.h, pack.x.w, 3);
    net_op(n, &pack);
}

static void build_text(struct model *m, struct net *n, const struct plan_key *k, struct operand io[IO_COUNT])
{
    io[IO_IN] = kept(n, DT_I32, k->n, 1, k->tokens, 1);
    if (k->masked)
        io[IO_MASK] = kept(n, DT_F32, k->n, 1, k->tokens, 1);
    io[IO_OUT] = net_cast(n, clip_encode(n, &m->clip_config, k->skipped, io[IO_IN], io[IO_MASK]), DT_F32);
    keep(n, io[IO_OUT]);
}

/* build describes the network of KEY into N; the VAE computes in float32 always. */
static void build(struct model *m, struct net *n, const struct plan_key *k, struct operand io[IO_COUNT])
{
    n->dtype = k->kind == PLAN_VAE ? DT_F32 : m->compute;
    n->weights = k->kind == PLAN_VAE ? m->vae : k->kind == PLAN_TEXT ? m->text : m->unet;
    switch (k->kind) {
    case PLAN_UNET: build_unet(m, n, k, io); break;
    case PLAN_TIMES: build_times(m, n, k, io); break;
    case PLAN_VAE: build_vae(m, n, k, io); break;
    case PLAN_TEXT: build_text(m, n, k, io); break;
    }
}

enum status model_check(struct model *m, struct error *err)
{
    const struct plan_key keys[] = {{.kind = PLAN_UNET, .n = 1, .h = 8, .w = 8, .tokens = 1},
                                    {.kind = PLAN_TIMES, .n = 1},
                                    {.kind = PLAN_VAE, .n = 1, .h = 8, .w = 8},
                                    {.kind = PLAN_TEXT, .n = 1, .tokens = m->clip_config.tokens}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct net n = {.err = err};
        struct operand io[IO_COUNT] = {{0}};
        build(m, &n, &keys[i], io);
        TRY(n.status);
    }
    return ST_OK;
}

/* finish finishes P's plan and counts the weights that were loaded for it, of a failed one too. */
static enum status finish(struct model *m, struct net_plan *p, const struct engine_hooks *hooks, struct error *err)
{
    size_t loads = model_weight_bytes(m) - m->loaded;
    if (m->room)
        plan_ask_room(p->plan, &m->plan_room, loads);
    enum status s = plan_finish(p->plan, hooks, err);
    if (s != ST_OK) {
        if (plan_loaded(p->plan) < loads)
            loads = plan_loaded(p->plan);
        plan_free(p->plan);
        p->plan = NULL;
    }
    m->loaded += loads;
    return s;
}

static enum status make(struct model *m, struct net_plan *p, const struct engine_hooks *hooks, struct error *err)
{
    struct net n = {.err = err};
    memset(p->io, 0, sizeof p->io);
    TRY(plan_new(m->backend, &p->plan, err));
    n.plan = p->plan;
    build(m, &n, &p->key, p->io);
    if (n.status != ST_OK) {
        plan_free(p->plan);
        p->plan = NULL;
        return n.status;
    }
    TRY(finish(m, p, hooks, err));
    for (int i = 0; i < IO_COUNT; i++)
        if (p->io[i].w)
            p->io[i] = plan_operand(p->plan, p->io[i]);
    return ST_OK;
}

static void drop(struct net_plan *p)
{
    plan_free(p->plan);
    *p = (struct net_plan){0};
}

bool model_trim(struct model *m)
{
    bool any = false;
    for (int i = 0; i < MODEL_PLANS; i++)
        if (m->plans[i].plan && !m->plans[i].pins) {
            drop(&m->plans[i]);
            any = true;
        }
    return any;
}

static struct net_plan *oldest(struct model *m)
{
    struct net_plan *r = NULL;
    for (int i = 0; i < MODEL_PLANS; i++) {
        struct net_plan *p = &m->plans[i];
        if (p->plan && !p->pins && (!r || p->used < r->used))
            r = p;
    }
    return r;
}

/* trim drops the longest unused plans until one place is free and the rest holds no more than it may. */
static struct net_plan *trim(struct model *m)
{
    for (;;) {
        struct net_plan *empty = NULL, *old = oldest(m);
        size_t bytes = 0;
        for (int i = 0; i < MODEL_PLANS; i++) {
            if (!m->plans[i].plan)
                empty = &m->plans[i];
            else if (!m->plans[i].pins)
                bytes += plan_bytes(m->plans[i].plan);
        }
        if (!old || (empty && bytes <= PLANS_MAX_BYTES))
            return empty;
        drop(old);
    }
}

static bool less(struct model *m)
{
    return m->room ? m->room->less(m->room->self) : model_trim(m);
}

enum status model_plan(struct model *m, const struct plan_key *key, const struct engine_hooks *hooks, struct net_plan **ret, struct error *err)
{
    struct net_plan *p = NULL;
    for (int i = 0; i < MODEL_PLANS && !p; i++)
        if (m->plans[i].plan && !memcmp(&m->plans[i].key, key, sizeof *key))
            p = &m->plans[i];
    if (!p) {
        p = trim(m);
        if (!p)
            return FAIL(err, INTERNAL, "more than %d plans in use at once", MODEL_PLANS);
        p->key = *key;
        p->pins = 1;         /* what is being made is not idle */
        enum status s = make(m, p, hooks, err);
        while (s == ST_OUT_OF_MEMORY && less(m))
            s = make(m, p, hooks, err);
        p->pins = 0;
        TRY(s);
    }
    p->pins++;
    p->used = ++m->clock;
    *ret = p;
    return ST_OK;
}

void model_unpin(struct net_plan *p)
{
    if (p)
        p->pins--;
}

static size_t operand_bytes(struct operand x)
{
    return (size_t)x.n * (size_t)x.h * (size_t)x.w * (size_t)x.c * dtype_bytes(x.dtype);
}

enum status plan_put(struct model *m, const struct net_plan *p, int io, const void *src, struct error *err)
{
    struct operand x = p->io[io];
    return m->backend->api->upload(m->backend, plan_arena(p->plan), x.offset, src, operand_bytes(x), err);
}

enum status plan_get(struct model *m, const struct net_plan *p, int io, void *dst, struct error *err)
{
    struct operand x = p->io[io];
    return m->backend->api->download(m->backend, plan_arena(p->plan), x.offset, dst, operand_bytes(x), err);
}
