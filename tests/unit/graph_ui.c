/* The graph that InvokeAI's user interface sends for a text-to-image render (tests/cases/ui), from batch to the inputs of its last node.
 * The nodes that need an engine answer with names only. */
#include "graph_kit.h"

#include "graph/batch.h"
#include "worker/executor.h"

#define MODEL "{'key': 'k', 'hash': 'h', 'name': 'n', 'base': 'sd-1', 'type': 'main', 'submodel_type': null}"

/* An output of the right shape for a node of TYPE. */
static json_t *answer(const struct prepared *p, int n)
{
    static const struct {
        const char *type, *output;
    } table[] = {
        {"main_model_loader", "{'type': 'model_loader_output', 'unet': {'unet': " MODEL ", 'scheduler': " MODEL
                              ", 'loras': [], 'seamless_axes': [], 'freeu_config': null},"
                              "'clip': {'tokenizer': " MODEL ", 'text_encoder': " MODEL
                              ", 'skipped_layers': 0, 'loras': []}, 'vae': {'vae': " MODEL ", 'seamless_axes': []}}"},
        {"noise", "{'type': 'noise_output', 'noise': {'latents_name': 'noise', 'seed': 1}, 'width': 128, 'height': 128}"},
        {"denoise_latents", "{'type': 'latents_output', 'latents': {'latents_name': 'latents', 'seed': 1}, 'width': 128, 'height': 128}"},
        {"l2i", "{'type': 'image_output', 'image': {'image_name': 'i.png'}, 'width': 128, 'height': 128}"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].type, p->type->type) == 0)
            return quoted(table[i].output);
    if (strcmp(p->type->type, "clip_skip") == 0)
        return json_pack("{s:s, s:O}", "type", "clip_skip_output", "clip", json_object_get(p->inputs, "clip"));
    if (strcmp(p->type->type, "compel") == 0)
        return json_pack("{s:s, s:{s:o, s:n}}", "type", "conditioning_output", "conditioning", "conditioning_name", json_sprintf("c%d", n),
                         "mask");
    if (strcmp(p->type->type, "collect") == 0)
        return json_pack("{s:s, s:O}", "type", "collect_output", "collection", json_object_get(p->inputs, "collection"));
    if (strcmp(p->type->type, "core_metadata") == 0)
        return json_pack("{s:s, s:O}", "type", "metadata_output", "metadata", p->inputs);
    return json_pack("{s:s, s:O}", "type", "value_output", "value", json_object_get(p->inputs, "value"));
}

static void check_last(const struct prepared *p)
{
    const json_t *metadata = json_object_get(p->inputs, "metadata");
    assert_string_equal(p->type->type, "l2i");
    assert_false(p->is_intermediate);
    assert_string_equal(json_str(metadata, "positive_prompt", ""), "a red apple");
    assert_string_equal(json_str(metadata, "negative_prompt", ""), "blurry");
    assert_int_equal(json_int(metadata, "seed", 0), 1);
    assert_true(json_num(metadata, "hidiffusion_t1_ratio", 0) == 0.4);
    assert_string_equal(json_str(json_object_get(p->inputs, "latents"), "latents_name", ""), "latents");
}

static void check_denoise(const struct prepared *p)
{
    const json_t *positive = json_object_get(p->inputs, "positive_conditioning");
    assert_int_equal(json_array_size(positive), 1);
    assert_non_null(json_str(json_array_get(positive, 0), "conditioning_name", NULL));
    assert_string_equal(json_str(json_object_get(p->inputs, "noise"), "latents_name", ""), "noise");
    assert_true(json_is_real(json_object_get(p->inputs, "denoising_start")));
    assert_string_equal(json_str(json_object_get(json_object_get(p->inputs, "unet"), "unet"), "key", ""), "k");
}

static void text_to_image_runs_unchanged(void **state)
{
    (void)state;
    struct error err = {0};
    AUTO_JSON *request = NULL;
    struct batch *b = NULL;
    struct executor *x = NULL;
    assert_ok(json_read_file(TEST_SOURCE_DIR "/tests/cases/ui/txt2img.json", 1 << 20, &request, &err), err);
    assert_ok(batch_parse(json_object_get(request, "batch"), 10000, &b, NULL, &err), err);
    assert_int_equal(b->count, 1);
    assert_ok(graph_check_runnable(b->graph, &err), err);
    AUTO_JSON *values = batch_values(b->data, 0);
    size_t i;
    json_t *v;
    json_array_foreach (values, i, v)
        assert_ok(graph_set(b->graph, json_str(v, "node_path", ""), json_str(v, "field_name", ""), json_object_get(v, "value"), &err), err);
    assert_ok(executor_new(b->graph, "s", &x, &err), err);
    char last[64] = "";
    for (int n = 0;; n++) {
        const struct prepared *p;
        assert_ok(executor_next(x, &p, &err), err);
        if (!p)
            break;
        snprintf(last, sizeof last, "%s", p->type->type);
        if (strcmp(last, "l2i") == 0)
            check_last(p);
        if (strcmp(last, "denoise_latents") == 0)
            check_denoise(p);
        AUTO_JSON *output = answer(p, n);
        assert_ok(executor_complete(x, p, output, &err), err);
    }
    assert_string_equal(last, "l2i");
    int done, total;
    executor_progress(x, &done, &total);
    assert_int_equal(done, 13);
    assert_int_equal(total, 13);
    executor_free(x);
    batch_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(text_to_image_runs_unchanged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
