#include "worker/engine/step_noise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- numpy's SeedSequence (O'Neill 2015), for the seeds of a path's nodes */
enum { POOL = 24, WORDS_MAX = 8 };

struct hasher { uint32_t pool[POOL], constant; };

static uint32_t hash_word(struct hasher *h, uint32_t v)
{
    v ^= h->constant;
    h->constant *= 0x931e8875u;
    v *= h->constant;
    return v ^ v >> 16;
}

static uint32_t mix_words(uint32_t x, uint32_t y)
{
    uint32_t v = 0xca01f9ddu * x - 0x4973f715u * y;
    return v ^ v >> 16;
}

static size_t put_words(uint32_t *words, size_t n, uint64_t v)
{
    words[n++] = (uint32_t)v;
    if (v >> 32)
        words[n++] = (uint32_t)(v >> 32);
    return n;
}

/* First word of SeedSequence(ENTROPY, spawn_key=KEY) with a pool of 24 words. KEY may be NULL: no spawn key. */
static uint32_t seed_of(uint64_t entropy, const uint64_t key[2])
{
    uint32_t data[POOL + WORDS_MAX] = { 0 };
    struct hasher h = { .constant = 0x43b0d7e5u };
    size_t n = put_words(data, 0, entropy);
    if (key)
        n = put_words(data, put_words(data, POOL, key[0]), key[1]);
    for (size_t i = 0; i < POOL; i++)
        h.pool[i] = hash_word(&h, data[i]);
    for (size_t a = 0; a < POOL; a++)
        for (size_t b = 0; b < POOL; b++)
            if (a != b)
                h.pool[b] = mix_words(h.pool[b], hash_word(&h, h.pool[a]));
    for (size_t i = POOL; i < n; i++)
        for (size_t b = 0; b < POOL; b++)
            h.pool[b] = mix_words(h.pool[b], hash_word(&h, data[i]));
    uint32_t v = h.pool[0] ^ 0x8b51f9ddu;
    v *= 0x8b51f9ddu * 0x58f38dedu;
    return v ^ v >> 16;
}

/* ---- the path */
enum { LEVELS = 32 };                /* halvings to a millionth, from as far as 4000 */

struct noise_path {
    size_t n;
    uint64_t seed;
    double low, high;
    float *whole;                    /* [n]: W(high) - W(low) */
    float *left[LEVELS], *right[LEVELS];
    float *sum;                      /* where the increment is gathered */
    bool started;
};

/* Rounded to six decimals, as printed. */
static double round_time(double t)
{
    char text[64];
    snprintf(text, sizeof text, "%.6f", t);
    return strtod(text, NULL);
}

static void draw_node(struct noise_path *p, uint32_t seed, float *ret)
{
    struct rng r;
    rng_seed(&r, seed);
    rng_normal_f32(&r, ret, p->n);
}

void noise_path_free(struct noise_path *p)
{
    if (!p)
        return;
    free(p->whole);
    free(p);
}

enum status noise_path_new(size_t n, double low, double high, uint64_t seed, struct noise_path **ret, struct error *err)
{
    struct noise_path *p = calloc(1, sizeof *p);
    float *memory = n && n < SIZE_MAX / 1024 ? calloc(n, (2 * LEVELS + 1) * sizeof *memory) : NULL;
    if (!p || !memory) {
        free(p);
        free(memory);
        return FAIL(err, OUT_OF_MEMORY, "no memory for the noise of %zu values", n);
    }
    *p = (struct noise_path){ .n = n, .seed = seed, .low = round_time(low), .high = round_time(high), .whole = memory };
    for (size_t i = 0; i < LEVELS; i++) {
        p->left[i] = memory + (2 * i + 1) * n;
        p->right[i] = memory + (2 * i + 2) * n;
    }
    draw_node(p, seed_of(seed, NULL), p->whole);
    float scale = (float)sqrt(high - low);
    for (size_t i = 0; i < n; i++)
        p->whole[i] *= scale;
    *ret = p;
    return ST_OK;
}

static void gather(struct noise_path *p, const float *w)
{
    for (size_t i = 0; i < p->n; i++)
        p->sum[i] = p->started ? p->sum[i] + w[i] : w[i];
    p->started = true;
}

/* Adds the increments over [A, B] within [START, END], whose own increment is W: Levy's bridge at the middle. */
static void walk(struct noise_path *p, double a, double b, double start, double end, uint64_t key, int depth, const float *w)
{
    double middle = round_time(0.5 * (end + start));
    if ((a == start && b == end) || depth == LEVELS || middle <= start || middle >= end) {
        gather(p, w);
        return;
    }
    double h = 1 / (end - start), l = middle - start, r = end - middle;
    float part = (float)l, inverse = (float)h, spread = (float)sqrt(l * r * h), *left = p->left[depth], *right = p->right[depth];
    draw_node(p, seed_of(p->seed, (uint64_t[2]){ key, (uint64_t)depth }), right);
    for (size_t i = 0; i < p->n; i++) {
        left[i] = part * w[i] * inverse + spread * right[i];
        right[i] = w[i] - left[i];
    }
    if (a < middle)
        walk(p, a, b < middle ? b : middle, start, middle, 2 * key, depth + 1, left);
    if (b > middle)
        walk(p, a > middle ? a : middle, b, middle, end, 2 * key + 1, depth + 1, right);
}

static double clamp_time(const struct noise_path *p, double t)
{
    return fmin(fmax(round_time(t), p->low), p->high);
}

void noise_path_increment(struct noise_path *p, double from, double to, float *ret)
{
    double a = clamp_time(p, fmin(from, to)), b = clamp_time(p, fmax(from, to));
    p->sum = ret;
    p->started = false;
    if (a < b)
        walk(p, a, b, p->low, p->high, 0, 0, p->whole);
    else
        memset(ret, 0, p->n * sizeof *ret);
    for (size_t i = 0; from > to && i < p->n; i++)
        ret[i] = -ret[i];
}

/* ---- between steps */
struct step_noise {
    size_t n;
    struct rng rng;
    struct noise_path *path;
};

enum status step_noise_new(const struct sampler *sampler, uint64_t seed, size_t n, struct step_noise **ret, struct error *err)
{
    struct step_noise *s = calloc(1, sizeof *s);
    if (!s)
        return FAIL(err, OUT_OF_MEMORY, "no memory for a noise source");
    s->n = n;
    rng_seed(&s->rng, seed ^ 0xffffffffu);
    if (sampler->path_high > sampler->path_low) {
        enum status status = noise_path_new(n, sampler->path_low, sampler->path_high, seed, &s->path, err);
        if (status != ST_OK) {
            free(s);
            return status;
        }
    }
    *ret = s;
    return ST_OK;
}

void step_noise_free(struct step_noise *s)
{
    if (!s)
        return;
    noise_path_free(s->path);
    free(s);
}

void step_noise_draw(struct step_noise *s, const struct sampler_call *call, float *ret)
{
    if (!s->path || call->path_from == call->path_to) {
        rng_normal_f32(&s->rng, ret, s->n);
        return;
    }
    noise_path_increment(s->path, call->path_from, call->path_to, ret);
    float span = sqrtf((float)fabs(call->path_to - call->path_from));
    for (size_t i = 0; i < s->n; i++)
        ret[i] /= span;
}
