/* Compiled samplers: names, ranges, limits, and what every compiled list must hold. Trajectories are compared in tests/golden. */
#include "unit/unit.h"

#include <math.h>
#include <jansson.h>
#include "worker/engine/step_noise.h"

static struct sampler *compile(const char *name, const json_t *config, int steps, double start, double end)
{
    struct error err;
    struct sampler *s = NULL;
    assert_ok(sampler_new(name, config, steps, start, end, &s, &err), err);
    return s;
}

static void refused(const char *name, const char *config, int steps, double start, double end, enum status code, const char *says)
{
    struct error err;
    struct sampler *s = NULL;
    json_t *j = config ? json_loads(config, 0, NULL) : NULL;
    assert_int_equal(sampler_new(name, j, steps, start, end, &s, &err), code);
    assert_says(err.message, says);
    json_decref(j);
}

static void test_names(void **state)
{
    (void)state;
    size_t n;
    const char *const *names = sampler_names(&n);
    assert_int_equal(n, 31);
    for (size_t i = 0; i < n; i++)
        assert_true(sampler_known(names[i]) && sampler_available(names[i]));
    assert_false(sampler_known("eular"));
    refused("eular", NULL, 5, 0, 1, ST_BAD_ARGUMENT, "euler");
}

static void test_arguments(void **state)
{
    (void)state;
    refused("euler", NULL, 0, 0, 1, ST_BAD_ARGUMENT, "steps 0");
    refused("euler", NULL, 1001, 0, 1, ST_BAD_ARGUMENT, "1..1000");
    refused("ddim", NULL, 1000, 0, 1, ST_BAD_ARGUMENT, "fewer steps");
    refused("euler", NULL, 5, -0.1, 1, ST_BAD_ARGUMENT, "denoising_start");
    refused("euler", NULL, 5, 0, NAN, ST_BAD_ARGUMENT, "denoising_end");
}

static void test_config(void **state)
{
    (void)state;
    refused("euler", "{\"prediction_type\": \"sample\"}", 5, 0, 1, ST_UNSUPPORTED, "prediction_type");
    refused("euler", "{\"beta_schedule\": \"sigmoid\"}", 5, 0, 1, ST_UNSUPPORTED, "sigmoid");
    refused("euler", "{\"rescale_betas_zero_snr\": true}", 5, 0, 1, ST_UNSUPPORTED, "rescale_betas_zero_snr");
    refused("euler", "{\"num_train_timesteps\": 1}", 5, 0, 1, ST_UNSUPPORTED, "num_train_timesteps");
    refused("euler", "{\"num_train_timesteps\": 1000000000000}", 5, 0, 1, ST_UNSUPPORTED, "num_train_timesteps");
    refused("euler", "{\"beta_start\": 2, \"beta_end\": 3}", 5, 0, 1, ST_UNSUPPORTED, "beta");
    refused("euler", "{\"steps_offset\": -1}", 5, 0, 1, ST_UNSUPPORTED, "steps_offset");
    refused("ddim", "{}", 5, 0, 1, ST_UNSUPPORTED, "clip_sample");
    refused("pndm", "{}", 5, 0, 1, ST_UNSUPPORTED, "skip_prk_steps");
}

/* A range that leaves no timestep has no call and leaves the latents alone. */
static void test_empty_range(void **state)
{
    (void)state;
    struct sampler *s = compile("euler", NULL, 10, 1, 1);
    assert_int_equal(s->n_calls, 0);
    sampler_free(s);
    s = compile("dpmpp_2m_k", NULL, 10, 0.5, 0.2);
    assert_int_equal(s->n_calls, 0);
    sampler_free(s);
    sampler_free(NULL);
}

static void check_update(const struct sampler_update *u, bool noise_drawn, bool *written)
{
    assert_in_range(u->dst, 0, SLOT_COUNT - 1);
    assert_in_range(u->n, 1, 8);
    for (int i = 0; i < u->n; i++) {
        int slot = u->terms[i].slot;
        assert_in_range(slot, 0, SLOT_COUNT - 1);
        assert_true(isfinite(u->terms[i].coef));
        assert_true(slot != SLOT_NOISE || noise_drawn);
        assert_true(written[slot]);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(u->terms[k].slot, slot);
    }
    written[u->dst] = true;
}

/* Every sampler, at many lengths: finite coefficients, no slot read before it was written, steps that count up to the total. */
static void test_lists(void **state)
{
    (void)state;
    size_t n;
    const char *const *names = sampler_names(&n);
    static const struct { int steps; double start, end; } runs[] = { { 1, 0, 1 }, { 2, 0, 1 }, { 3, 0.3, 1 }, { 7, 0, 0.6 }, { 20, 0.35, 0.9 }, { 50, 0, 1 }, { 333, 0, 1 }, { 999, 0, 1 } };
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
            struct error err;
            struct sampler *s = NULL;
            if (sampler_new(names[i], NULL, runs[k].steps, runs[k].start, runs[k].end, &s, &err) != ST_OK) {
                assert_true(runs[k].steps > 300);      /* some have fewer timesteps to give */
                continue;
            }
            bool written[SLOT_COUNT] = { [SLOT_X] = true, [SLOT_EPS] = true, [SLOT_NOISE] = true };
            for (int c = 0; c < s->n_calls; c++) {
                const struct sampler_call *call = &s->calls[c];
                assert_true(call->timestep >= 0 && call->timestep <= 999);
                assert_true(call->input_scale > 0 && call->input_scale <= 1);
                assert_in_range(call->n_updates, 1, 6);
                for (int u = 0; u < call->n_updates; u++)
                    check_update(&call->updates[u], call->draws_noise, written);
                assert_in_range(call->step, c ? s->calls[c - 1].step : 1, s->steps);
            }
            if (s->n_calls)
                assert_int_equal(s->calls[s->n_calls - 1].step, s->steps);
            sampler_free(s);
        }
}

/* Where the network always answers with the noise that was added, deterministic samplers end at the latent they started from. */
static void test_exact_network(void **state)
{
    (void)state;
    static const char *const names[] = { "ddim", "euler", "euler_k", "dpmpp_2m", "dpmpp_2m_k", "dpmpp_3m", "pndm", "heun", "kdpm_2", "lms_k", "deis", "dpmpp_2s", "unipc" };
    const double latent = 0.7, noise = -1.3;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sampler *s = compile(names[i], NULL, 30, 0, 1);
        double slot[SLOT_COUNT] = { [SLOT_X] = s->add_x * latent + s->add_noise * noise };
        for (int c = 0; c < s->n_calls; c++) {
            const struct sampler_call *call = &s->calls[c];
            slot[SLOT_EPS] = noise;
            for (int u = 0; u < call->n_updates; u++) {
                double sum = 0;
                for (int k = 0; k < call->updates[u].n; k++)
                    sum += call->updates[u].terms[k].coef * slot[call->updates[u].terms[k].slot];
                slot[call->updates[u].dst] = sum;
            }
        }
        assert_true(fabs(slot[SLOT_X] - latent) < 0.06);     /* ddim and pndm stop at the first trained level */
        sampler_free(s);
    }
}

/* Fresh numbers do not depend on how they were asked for before, and a ragged end draws again. */
static void test_noise(void **state)
{
    (void)state;
    struct rng a, b;
    float x[64], y[64];
    rng_seed(&a, 5);
    rng_seed(&b, 5 + (UINT64_C(1) << 32));     /* torch takes the low 32 bits */
    rng_normal_f32(&a, x, 64);
    rng_normal_f32(&b, y, 64);
    assert_memory_equal(x, y, sizeof x);
    rng_seed(&a, 5);
    rng_normal_f32(&a, y, 20);
    assert_memory_equal(x, y, 4 * sizeof *x);
    rng_seed(&a, 9);
    rng_normal_f32(&a, x, 3);                  /* one by one, the second of a pair kept */
    rng_seed(&b, 9);
    for (int i = 0; i < 3; i++)
        rng_normal_f32(&b, y + i, 1);
    assert_memory_equal(x, y, 3 * sizeof *x);
}

/* A path is one path however it is cut: increments over neighbouring intervals add up, backwards they change sign. */
static void test_path(void **state)
{
    (void)state;
    enum { N = 48 };
    struct noise_path *p = NULL;
    struct error err;
    float whole[N], first[N], second[N], back[N];
    assert_ok(noise_path_new(N, 0.03, 14.6, 77, &p, &err), err);
    noise_path_increment(p, 0.03, 14.6, whole);
    noise_path_increment(p, 0.03, 5.123456, first);
    noise_path_increment(p, 5.123456, 20, second);     /* past the end: to the end */
    noise_path_increment(p, 5.123456, 0.03, back);
    double sum = 0;
    for (int i = 0; i < N; i++) {
        assert_true(fabsf(first[i] + second[i] - whole[i]) < 1e-4f);
        assert_true(back[i] == -first[i]);
        sum += first[i] * first[i];
    }
    assert_true(sum / N > 2 && sum / N < 12);          /* its variance is the interval's length, 5.09 */
    noise_path_increment(p, 3, 3, first);
    assert_true(first[0] == 0);
    noise_path_free(p);
    noise_path_free(NULL);
}

/* What a sampler draws between steps does not depend on what else was drawn before the run. */
static void test_step_noise(void **state)
{
    (void)state;
    enum { N = 64 };
    static const char *const names[] = { "euler_a", "dpmpp_sde_k" };
    for (int i = 0; i < 2; i++) {
        struct sampler *s = compile(names[i], NULL, 4, 0, 1);
        float x[2][N] = { { 0 } };
        struct error err;
        for (int run = 0; run < 2; run++) {
            struct step_noise *n = NULL;
            assert_ok(step_noise_new(s, 5, N, &n, &err), err);
            for (int c = 0; c < s->n_calls; c++)
                if (s->calls[c].draws_noise)
                    step_noise_draw(n, &s->calls[c], x[run]);
            step_noise_free(n);
        }
        assert_memory_equal(x[0], x[1], sizeof x[0]);
        assert_true(x[0][0] != 0);
        sampler_free(s);
    }
    step_noise_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_arguments), cmocka_unit_test(test_config), cmocka_unit_test(test_empty_range),
        cmocka_unit_test(test_lists), cmocka_unit_test(test_exact_network), cmocka_unit_test(test_noise), cmocka_unit_test(test_path), cmocka_unit_test(test_step_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
