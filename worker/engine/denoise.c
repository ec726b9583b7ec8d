/* The denoise loop. Everything is made before the first step: the plan, one op per kind of sampler update, and a table in device
 * memory with one row of coefficients per network call. A call copies its row to a fixed place and runs ops; it decides nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "worker/engine/model_parts.h"
#include "worker/engine/preview.h"
#include "worker/engine/step_noise.h"

enum { UPDATES_MAX = 6, TERMS_MAX = 8, COEF_INPUT = 0, COEF_GUIDANCE = 1, COEF_UPDATE = 2, COEF_X0 = COEF_UPDATE + UPDATES_MAX, LATENT = 4,
       KINDS_MAX = 256, LATENT_SIDE_MAX = 2048 };
_Static_assert((COEF_X0 + 1) * COEF_SLOT == COEF_ROW, "a row of coefficients has one slot per op");

/* One LINCOMB for all updates that combine the same slots at the same place of a call. */
struct kind {
    int place, dst, n, slots[TERMS_MAX];     /* place: COEF_UPDATE + i, or COEF_X0 */
    struct bop *op;
};

struct call_ops { struct bop *update[UPDATES_MAX], *x0; };

struct job {
    struct model *m;
    const struct denoise_args *args;
    const struct engine_hooks *hooks;
    struct sampler *sampler;
    struct net_plan *p, *times;
    struct bmem *table, *workspace;
    size_t workspace_bytes;
    struct bop *input, *guidance, *rgb_of_x, *rgb_of_x0;
    struct kind kinds[KINDS_MAX];
    int n_kinds;
    struct call_ops *calls;
    struct step_noise *noise;
    float *planes, *pixels;                  /* one latent each, on the host */
    uint8_t *rgb;
    int h, w;
};

static void job_fini(struct job *j)
{
    struct backend *b = j->m->backend;
    struct bop *single[] = {j->input, j->guidance, j->rgb_of_x, j->rgb_of_x0};
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        b->api->op_free(b, single[i]);
    for (int i = 0; i < j->n_kinds; i++)
        b->api->op_free(b, j->kinds[i].op);
    b->api->mem_free(b, j->table);
    b->api->mem_free(b, j->workspace);
    model_unpin(j->p);
    model_unpin(j->times);
    step_noise_free(j->noise);
    sampler_free(j->sampler);
    free(j->calls);
    free(j->planes);
    free(j->pixels);
    free(j->rgb);
}

/* ---- checks */

static enum status check_latent(const struct tensor *t, const char *name, const struct tensor *like, struct error *err)
{
    if (!t)
        return ST_OK;
    if (t->ndim != 4 || t->dim[0] != 1 || t->dim[1] != LATENT || t->dim[2] > LATENT_SIDE_MAX || t->dim[3] > LATENT_SIDE_MAX)
        return FAIL(err, BAD_ARGUMENT, "%s must be a tensor [1, %d, h, w] with h, w up to %d", name, LATENT, LATENT_SIDE_MAX);
    if (like && (t->dim[2] != like->dim[2] || t->dim[3] != like->dim[3]))
        return FAIL(err, BAD_ARGUMENT, "%s is %lld x %lld, noise %lld x %lld: they must be of one size", name, (long long)t->dim[3],
                    (long long)t->dim[2], (long long)like->dim[3], (long long)like->dim[2]);
    return ST_OK;
}

static enum status check_prompt(const struct tensor *t, const char *name, int context, struct error *err)
{
    if (t && t->ndim == 3 && t->dim[0] == 1 && t->dim[1] <= 1 << 20 && t->dim[2] == context)
        return ST_OK;
    return FAIL(err, BAD_ARGUMENT, "%s conditioning must be a tensor [1, tokens, %d] for this model", name, context);
}

static enum status check_args(const struct model *m, const struct denoise_args *a, struct error *err)
{
    TRY(check_latent(a->noise, "noise", NULL, err));
    TRY(check_latent(a->latents, "latents", a->noise, err));
    if (!a->noise && !a->latents)
        return FAIL(err, BAD_ARGUMENT, "neither latents nor noise given: there is nothing to denoise");
    TRY(check_prompt(a->positive, "positive", m->unet_config.context, err));
    TRY(check_prompt(a->negative, "negative", m->unet_config.context, err));
    if (a->n_cfg_scale < 1)
        return FAIL(err, BAD_ARGUMENT, "cfg_scale has no value");
    for (int i = 0; i < a->n_cfg_scale; i++)
        if (!isfinite(a->cfg_scale[i]))
            return FAIL(err, BAD_ARGUMENT, "cfg_scale %d is not a finite number", i);
    if (!(a->cfg_rescale >= 0 && a->cfg_rescale < 1))
        return FAIL(err, BAD_ARGUMENT, "cfg_rescale_multiplier is %g, it must be at least 0 and below 1", a->cfg_rescale);
    return ST_OK;
}

/* check_scales: a list of guidance scales has one for each step; both network calls of a step that has two take the same. */
static enum status check_scales(const struct job *j, struct error *err)
{
    const struct denoise_args *a = j->args;
    if (a->n_cfg_scale > 1 && a->n_cfg_scale < j->sampler->steps)
        return FAIL(err, BAD_ARGUMENT, "cfg_scale lists %d values, one is needed for each of the %d steps of %s", a->n_cfg_scale, j->sampler->steps,
                    a->scheduler);
    return ST_OK;
}

/* ---- preparation */

static enum status new_op(struct job *j, const struct op_desc *d, struct bop **ret, struct error *err)
{
    struct backend *b = j->m->backend;
    TRY(b->api->op_new(b, d, ret, err));
    size_t need = b->api->op_workspace(*ret);
    if (need > j->workspace_bytes)
        j->workspace_bytes = need;
    return ST_OK;
}

static struct operand coef_at(const struct job *j, int place, int count)
{
    struct operand x = j->p->io[IO_COEF];
    x.offset += (size_t)place * COEF_SLOT * sizeof(float);
    x.w = count;
    return x;
}

static enum status new_kind(struct job *j, const struct sampler_update *u, int place, struct bop **ret, struct error *err)
{
    struct kind k = {.place = place, .dst = place == COEF_X0 ? -1 : u->dst, .n = u->n};
    for (int i = 0; i < u->n; i++)
        k.slots[i] = u->terms[i].slot;
    for (int i = 0; i < j->n_kinds; i++) {
        struct kind *o = &j->kinds[i];
        if (o->place == k.place && o->dst == k.dst && o->n == k.n && !memcmp(o->slots, k.slots, sizeof k.slots)) {
            *ret = o->op;
            return ST_OK;
        }
    }
    if (j->n_kinds == KINDS_MAX)
        return FAIL(err, INTERNAL, "sampler %s has more than %d kinds of updates", j->sampler->name, KINDS_MAX);
    struct op_desc d = {.kind = OP_LINCOMB, .y = j->p->io[place == COEF_X0 ? IO_PREVIEW : IO_SLOT + u->dst]};
    d.lincomb.count = u->n;
    d.lincomb.coef = coef_at(j, place, u->n);
    for (int i = 0; i < u->n; i++)
        d.lincomb.in[i] = j->p->io[IO_SLOT + u->terms[i].slot];
    TRY(new_op(j, &d, &k.op, err));
    j->kinds[j->n_kinds++] = k;
    *ret = k.op;
    return ST_OK;
}

static enum status make_call_ops(struct job *j, struct error *err)
{
    j->calls = calloc((size_t)j->sampler->n_calls, sizeof *j->calls);
    if (!j->calls)
        return FAIL(err, OUT_OF_MEMORY, "no memory for %d network calls", j->sampler->n_calls);
    for (int i = 0; i < j->sampler->n_calls; i++) {
        const struct sampler_call *c = &j->sampler->calls[i];
        for (int u = 0; u < c->n_updates; u++)
            TRY(new_kind(j, &c->updates[u], COEF_UPDATE + u, &j->calls[i].update[u], err));
        if (c->has_x0)
            TRY(new_kind(j, &c->x0, COEF_X0, &j->calls[i].x0, err));
    }
    return ST_OK;
}

static enum status make_fixed_ops(struct job *j, struct error *err)
{
    const struct operand *io = j->p->io;
    struct op_desc input = {.kind = OP_LINCOMB, .y = io[IO_IN]};
    input.lincomb.count = 1;
    input.lincomb.in[0] = io[IO_SLOT + SLOT_X];
    input.lincomb.coef = coef_at(j, COEF_INPUT, 1);
    TRY(new_op(j, &input, &j->input, err));
    struct op_desc guidance = {.kind = OP_GUIDANCE, .x = io[IO_OUT], .y = io[IO_SLOT + SLOT_EPS]};
    guidance.guidance.coef = coef_at(j, COEF_GUIDANCE, 2);
    TRY(new_op(j, &guidance, &j->guidance, err));
    if (!j->hooks || !j->hooks->want_preview)
        return ST_OK;
    struct op_desc rgb = {.kind = OP_LATENT_RGB, .x = io[IO_PREVIEW], .y = io[IO_RGB]};
    rgb.rgb.coef = io[IO_MATRIX];
    TRY(new_op(j, &rgb, &j->rgb_of_x0, err));
    rgb.x = io[IO_SLOT + SLOT_X];
    TRY(new_op(j, &rgb, &j->rgb_of_x, err));
    return plan_put(j->m, j->p, IO_MATRIX, preview_sd1.rgb, err);
}

static void fill_row(const struct job *j, int call, float *row)
{
    const struct sampler_call *c = &j->sampler->calls[call];
    row[COEF_INPUT * COEF_SLOT] = (float)c->input_scale;
    row[COEF_GUIDANCE * COEF_SLOT] = (float)j->args->cfg_scale[j->args->n_cfg_scale > 1 ? c->step - 1 : 0];
    row[COEF_GUIDANCE * COEF_SLOT + 1] = (float)j->args->cfg_rescale;
    for (int u = 0; u < c->n_updates; u++)
        for (int i = 0; i < c->updates[u].n; i++)
            row[(COEF_UPDATE + u) * COEF_SLOT + i] = (float)c->updates[u].terms[i].coef;
    for (int i = 0; c->has_x0 && i < c->x0.n; i++)
        row[COEF_X0 * COEF_SLOT + i] = (float)c->x0.terms[i].coef;
}

/* make_table uploads the coefficients of all calls and computes the time projections of all calls. */
static enum status make_table(struct job *j, struct error *err)
{
    struct backend *b = j->m->backend;
    size_t n = (size_t)j->sampler->n_calls, bytes = n * COEF_ROW * sizeof(float);
    float *host = calloc(n, COEF_ROW * sizeof(float)), *t = calloc(n, sizeof *t);
    enum status s = host && t ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for %zu network calls", n);
    for (size_t i = 0; i < n && s == ST_OK; i++) {
        fill_row(j, (int)i, host + i * COEF_ROW);
        t[i] = (float)j->sampler->calls[i].timestep;
    }
    if (s == ST_OK)
        s = b->api->mem_new(b, bytes, &j->table, err);
    if (s == ST_OK)
        s = b->api->upload(b, j->table, 0, host, bytes, err);
    if (s == ST_OK)
        s = model_timesteps(j->m, t, (int)n, j->hooks, &j->times, err);
    free(host);
    free(t);
    return s;
}

/* put_prompts uploads both prompts as a batch, the shorter one padded with zeros and masked, and computes their keys and values. */
static enum status put_prompts(struct job *j, struct error *err)
{
    const struct tensor *row[2] = {j->args->negative, j->args->positive};
    size_t tokens = (size_t)j->p->key.tokens, width = (size_t)j->m->unet_config.context;
    float *context = calloc(2 * tokens, width * sizeof *context), *mask = calloc(2 * tokens, sizeof *mask);
    enum status s = context && mask ? ST_OK : FAIL(err, OUT_OF_MEMORY, "no memory for prompts of %zu tokens", tokens);
    for (size_t r = 0; r < 2 && s == ST_OK; r++) {
        size_t own = (size_t)row[r]->dim[1];
        memcpy(context + r * tokens * width, row[r]->data, own * width * sizeof *context);
        for (size_t i = own; i < tokens; i++)
            mask[r * tokens + i] = PAD_BIAS;
    }
    if (s == ST_OK)
        s = plan_put(j->m, j->p, IO_CONTEXT, context, err);
    if (s == ST_OK && j->p->key.masked)
        s = plan_put(j->m, j->p, IO_MASK, mask, err);
    if (s == ST_OK)
        s = plan_run(j->p->plan, SEGMENT_PROMPT, j->hooks, err);
    free(context);
    free(mask);
    return s;
}

static enum status put_start(struct job *j, struct error *err)
{
    const struct tensor *x = j->args->latents, *e = j->args->noise;
    size_t count = (size_t)LATENT * (size_t)j->h * (size_t)j->w;
    float add_x = (float)j->sampler->add_x, add_noise = (float)j->sampler->add_noise;
    for (size_t i = 0; i < count; i++) {
        /* Without noise the latents are already at the first step's level. */
        float v = x ? (e ? add_x * x->data[i] : x->data[i]) : 0;
        j->planes[i] = e ? v + add_noise * e->data[i] : v;
    }
    pixels_from_planes(j->planes, 1, LATENT, j->h, j->w, j->pixels);
    return plan_put(j->m, j->p, IO_SLOT + SLOT_X, j->pixels, err);
}

static enum status prepare(struct job *j, struct error *err)
{
    const struct denoise_args *a = j->args;
    int64_t pos = a->positive->dim[1], neg = a->negative->dim[1];
    size_t count = (size_t)LATENT * (size_t)j->h * (size_t)j->w;
    j->planes = malloc(count * sizeof(float));
    j->pixels = malloc(count * sizeof(float));
    j->rgb = malloc(count);
    if (!j->planes || !j->pixels || !j->rgb)
        return FAIL(err, OUT_OF_MEMORY, "no memory for latents of %d x %d", j->w, j->h);
    struct plan_key key = {.kind = PLAN_UNET, .n = 2, .h = j->h, .w = j->w, .tokens = (int)(pos > neg ? pos : neg), .masked = pos != neg};
    TRY(model_plan(j->m, &key, j->hooks, &j->p, err));
    TRY(make_fixed_ops(j, err));
    TRY(make_call_ops(j, err));
    struct backend *b = j->m->backend;
    if (j->workspace_bytes)
        TRY(b->api->mem_new(b, j->workspace_bytes, &j->workspace, err));
    TRY(make_table(j, err));
    TRY(put_prompts(j, err));
    TRY(step_noise_new(j->sampler, a->seed, (size_t)LATENT * (size_t)j->h * (size_t)j->w, &j->noise, err));
    return put_start(j, err);
}

/* ---- the loop */

static enum status run_op(struct job *j, struct bop *op, struct error *err)
{
    struct backend *b = j->m->backend;
    return b->api->op_run(b, op, plan_arena(j->p->plan), j->workspace, err);
}

static bool wants_preview(const struct job *j)
{
    return j->hooks && j->hooks->want_preview && j->hooks->step && j->hooks->want_preview(j->hooks->self);
}

/* report waits for the end of STEP, the one wait of a step: the preview's bytes are read back, or there are none. */
static enum status report(struct job *j, int step, struct bop *rgb, struct error *err)
{
    if (rgb) {
        TRY(run_op(j, rgb, err));
        TRY(plan_get(j->m, j->p, IO_RGB, j->rgb, err));
    } else {
        TRY(j->m->backend->api->sync(j->m->backend, err));
    }
    if (!j->hooks || !j->hooks->step)
        return ST_OK;
    j->hooks->step(j->hooks->self, step, j->sampler->steps, rgb ? j->rgb : NULL, j->w, j->h);
    return ST_OK;
}

static enum status copy_rows(struct job *j, int call, struct error *err)
{
    struct backend *b = j->m->backend;
    struct bmem *arena = plan_arena(j->p->plan);
    size_t coef = COEF_ROW * sizeof(float), times = (size_t)j->m->times.total * dtype_bytes(j->m->compute);
    TRY(b->api->copy(b, arena, j->p->io[IO_COEF].offset, j->table, (size_t)call * coef, coef, err));
    return b->api->copy(b, arena, j->p->io[IO_TIMES].offset, plan_arena(j->times->plan), j->times->io[IO_OUT].offset + (size_t)call * times, times, err);
}

static enum status draw_noise(struct job *j, const struct sampler_call *c, struct error *err)
{
    step_noise_draw(j->noise, c, j->planes);
    pixels_from_planes(j->planes, 1, LATENT, j->h, j->w, j->pixels);
    return plan_put(j->m, j->p, IO_SLOT + SLOT_NOISE, j->pixels, err);
}

static enum status run_call(struct job *j, int i, struct error *err)
{
    const struct sampler_call *c = &j->sampler->calls[i];
    const struct call_ops *ops = &j->calls[i];
    bool ends_step = i + 1 == j->sampler->n_calls || c[1].step != c->step;
    TRY(copy_rows(j, i, err));
    TRY(run_op(j, j->input, err));
    TRY(plan_run(j->p->plan, SEGMENT_STEP, j->hooks, err));
    TRY(run_op(j, j->guidance, err));
    bool preview = ends_step && wants_preview(j);
    if (preview && ops->x0)
        TRY(run_op(j, ops->x0, err));
    if (c->draws_noise)
        TRY(draw_noise(j, c, err));
    for (int u = 0; u < c->n_updates; u++)
        TRY(run_op(j, ops->update[u], err));
    return ends_step ? report(j, c->step, !preview ? NULL : ops->x0 ? j->rgb_of_x0 : j->rgb_of_x, err) : ST_OK;
}

static enum status take_result(struct job *j, struct tensor *out, struct error *err)
{
    TRY(plan_get(j->m, j->p, IO_SLOT + SLOT_X, j->pixels, err));
    planes_from_pixels(j->pixels, 1, LATENT, j->h, j->w, out->data);
    for (int64_t i = 0; i < tensor_count(out); i++)
        if (!isfinite(out->data[i]))
            return FAIL(err, NODE_FAILED, "denoising with %s in %d steps ended in numbers that are not finite; try another scheduler or a lower cfg_scale",
                        j->args->scheduler, j->args->steps);
    return ST_OK;
}

static enum status run_job(struct job *j, struct tensor *out, struct error *err)
{
    TRY(prepare(j, err));
    TRY(report(j, 0, wants_preview(j) ? j->rgb_of_x : NULL, err));
    for (int i = 0; i < j->sampler->n_calls; i++)
        TRY(run_call(j, i, err));
    return take_result(j, out, err);
}

enum status model_denoise(struct model *m, const struct denoise_args *a, const struct engine_hooks *hooks, struct tensor **ret, struct error *err)
{
    TRY(check_args(m, a, err));
    const struct tensor *shape = a->noise ? a->noise : a->latents;
    struct job j = {.m = m, .args = a, .hooks = hooks, .h = (int)shape->dim[2], .w = (int)shape->dim[3]};
    struct tensor *out = NULL;
    enum status s = sampler_new(a->scheduler, m->scheduler_config, a->steps, a->start, a->end, &j.sampler, err);
    if (s == ST_OK)
        s = check_scales(&j, err);
    if (s == ST_OK)
        s = tensor_new(4, shape->dim, &out, err);
    if (s == ST_OK && j.sampler->n_calls)
        s = run_job(&j, out, err);
    else if (s == ST_OK && a->latents)
        memcpy(out->data, a->latents->data, (size_t)tensor_count(out) * sizeof *out->data);
    job_fini(&j);
    if (s == ST_OK)
        *ret = out;
    else
        tensor_free(out);
    return s;
}
