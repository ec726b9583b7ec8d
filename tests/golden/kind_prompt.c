/* Prompts to fragments and weights, and to conditioning tensors of a fixture's text encoder. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "golden/fixture_model.h"
#include "golden/golden.h"
#include "worker/engine/conditioning.h"
#include "worker/engine/prompt.h"

/* The fragments of one recorded prompt, .swap() by its first half, neighbours of equal weight as one. */
static json_t *recorded_fragments(const json_t *prompt)
{
    json_t *flat = json_array(), *one, *inner;
    size_t i, k;
    json_array_foreach(json_object_get(prompt, "fragments"), i, one) {
        if (json_is_array(one))
            json_array_append(flat, one);
        json_array_foreach(json_object_get(json_object_get(one, "swap"), "original"), k, inner)
            json_array_append(flat, inner);
    }
    json_t *fused = json_array();
    json_array_foreach(flat, i, one) {
        json_t *last = json_array_get(fused, json_array_size(fused) - 1);
        const char *text = json_string_value(json_array_get(one, 0));
        if (last && json_number_value(json_array_get(last, 1)) == json_number_value(json_array_get(one, 1)))
            json_array_set_new(last, 0, json_sprintf("%s %s", json_string_value(json_array_get(last, 0)), text));
        else
            json_array_append_new(fused, json_pack("[s, f]", text, json_number_value(json_array_get(one, 1))));
    }
    json_decref(flat);
    return fused;
}

static enum golden_result compare_part(struct golden_case *c, const struct prompt_part *part, const json_t *recorded)
{
    AUTO_JSON *want = recorded_fragments(recorded);
    double tolerance = golden_tolerance(c, "weights", NULL, 1e-6);
    if (part->n != json_array_size(want))
        return golden_fail(c, "%zu fragments, expected %zu", part->n, json_array_size(want));
    for (size_t i = 0; i < part->n; i++) {
        const json_t *one = json_array_get(want, i);
        const char *text = json_string_value(json_array_get(one, 0));
        double weight = json_number_value(json_array_get(one, 1));
        if (strcmp(part->fragments[i].text, text) != 0)
            return golden_fail(c, "fragment %zu is \"%s\", expected \"%s\"", i, part->fragments[i].text, text);
        if (!(fabs(part->fragments[i].weight - weight) <= tolerance))
            return golden_fail(c, "fragment %zu weighs %.9g, expected %.9g", i, part->fragments[i].weight, weight);
    }
    return GOLDEN_PASS;
}

static enum golden_result compare_blend(struct golden_case *c, const struct prompt_blend *b, const json_t *recorded, double weight)
{
    const json_t *parts = json_object_get(recorded, "blend"), *weights = json_object_get(recorded, "weights");
    if (fabs(b->weight - weight) > 1e-9)
        return golden_fail(c, "a prompt weighs %.9g, expected %.9g", b->weight, weight);
    if (b->is_blend != json_is_array(parts))
        return golden_fail(c, "%s a blend", b->is_blend ? "wrongly" : "not");
    if (!b->is_blend)
        return compare_part(c, &b->parts[0], recorded);
    if (b->n != json_array_size(parts) || b->normalize != json_flag(recorded, "normalize", true))
        return golden_fail(c, "a blend of %zu, expected %zu; or its normalize differs", b->n, json_array_size(parts));
    for (size_t i = 0; i < b->n; i++) {
        if (fabs(b->parts[i].weight - json_number_value(json_array_get(weights, i))) > 1e-9)
            return golden_fail(c, "part %zu of the blend weighs %.9g", i, b->parts[i].weight);
        GOLDEN_TRY(compare_part(c, &b->parts[i], json_array_get(parts, i)));
    }
    return GOLDEN_PASS;
}

static enum golden_result run_parse(struct golden_case *c)
{
    struct error err;
    struct prompt *p = NULL;
    enum status status = prompt_parse(json_str(c->inputs, "prompt", ""), &p, &err);
    if (json_object_get(c->json, "raises")) {
        prompt_free(p);
        return status == ST_BAD_ARGUMENT ? GOLDEN_PASS : golden_fail(c, "was accepted; the reference raises");
    }
    GOLDEN_TRY(golden_status(c, status, &err));
    const json_t *parsed = json_object_get(c->json, "parsed"), *prompts = json_object_get(parsed, "prompts");
    enum golden_result result = GOLDEN_PASS;
    if (p->n != json_array_size(prompts))
        result = golden_fail(c, "%zu prompts, expected %zu", p->n, json_array_size(prompts));
    for (size_t i = 0; result == GOLDEN_PASS && i < p->n; i++)
        result = compare_blend(c, &p->blends[i], json_array_get(prompts, i), json_number_value(json_array_get(json_object_get(parsed, "weights"), i)));
    prompt_free(p);
    return result;
}

/* Whole tensor, or every 16th feature of it. */
static enum golden_result compare_embeds(struct golden_case *c, const struct tensor *t, const char *label, size_t stride)
{
    if (!golden_has(c, "expect", label))
        return GOLDEN_PASS;
    size_t n = (size_t)tensor_count(t) / stride;
    float *thin = arena_alloc(c->arena, sizeof *thin * n);
    for (size_t i = 0; thin && i < n; i++)
        thin[i] = t->data[i * stride];
    return thin ? golden_compare_f32(c, label, thin, n, MEASURE_REL_L2, golden_tolerance(c, "rel_l2", "f32", 2e-5)) : golden_fail(c, "out of memory");
}

static enum golden_result encode(struct golden_case *c, struct model *m)
{
    struct error err;
    struct text_encode te;
    struct tensor *t = NULL;
    GOLDEN_TRY(golden_status(c, model_text_encoder(m, (int)json_int(c->inputs, "skipped_layers", 0), NULL, &te, &err), &err));
    GOLDEN_TRY(golden_status(c, conditioning_encode(&te, model_tokenizer(m), json_str(c->inputs, "prompt", ""), &t, &err), &err));
    enum golden_result result = compare_embeds(c, t, "embeds_stride16", 16);
    if (result == GOLDEN_PASS)
        result = compare_embeds(c, t, "embeds", 1);
    tensor_free(t);
    return result;
}

static enum golden_result run_embed(struct golden_case *c)
{
    struct model *model = NULL;
    struct error err;
    const char *prompt = json_str(c->inputs, "prompt", ""), *inversion = strstr(prompt, "<ti-");
    if (json_object_get(c->json, "raises"))
        return golden_skip(c, "the reference raises");
    if (strcmp(json_str(c->inputs, "node", ""), "compel") != 0)
        return golden_skip(c, "node %s", json_str(c->inputs, "node", "?"));
    if (json_array_size(json_object_get(c->inputs, "loras")))
        return golden_skip(c, "LoRA");
    if (inversion && strncmp(inversion, "<ti-unknown>", 12) != 0)
        return golden_skip(c, "textual inversion");
    const char *fixture = json_str(c->json, "fixture", "");
    if (fixture_model(fixture, &model, &err) != ST_OK)
        return err.code == ST_NOT_AVAILABLE ? golden_skip(c, "fixture %s", fixture) : golden_fail(c, "%s", err.message);
    return encode(c, model);
}

enum golden_result kind_prompt(struct golden_case *c)
{
    const char *mode = json_str(c->json, "mode", "");
    if (strcmp(mode, "parse") == 0)
        return run_parse(c);
    return strcmp(mode, "embed") == 0 ? run_embed(c) : golden_skip(c, "mode %s", mode);
}
