/* galley-ops [--device NAME] [--dtype f32|f16|bf16] [--big] [--bench] [--only TEXT] [--threads N]: the conformance suite of the backends.
 * Each case runs on the reference and on the device with 1, 2 and 4 threads: within the op list's tolerance of the reference, equal in
 * every bit among the numbers of threads, and nothing written but y. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "tests/ops/ops.h"
#include "worker/backend/half.h"

enum { DEVICES_MAX = 3 };

struct suite {
    struct backend *ref, *device[DEVICES_MAX];
    int devices;
    const char *only;
    int passed, failed, skipped;
};

static double element(const unsigned char *base, const struct operand *o, size_t i)
{
    const void *at = base + o->offset + i * dtype_bytes(o->dtype);
    float f;
    uint16_t h;
    switch (o->dtype) {
    case DT_F32: memcpy(&f, at, sizeof f); return (double)f;
    case DT_U8: return *(const unsigned char *)at;
    default: memcpy(&h, at, sizeof h); return (double)(o->dtype == DT_F16 ? half_to_float(h) : bf16_to_float(h));
    }
}

/* distance returns |a - b| / |b| over y's elements, infinity if either holds a NaN. */
static double distance(const struct operand *y, const unsigned char *a, const unsigned char *b)
{
    double off = 0, size = 0;
    for (int64_t p = 0; p < operand_pixels(y); p++)
        for (int c = 0; c < y->c; c++) {
            size_t i = (size_t)p * (size_t)y->ld + (size_t)c;
            double v = element(a, y, i), w = element(b, y, i);
            off += (v - w) * (v - w);
            size += w * w;
        }
    if (isnan(off) || isnan(size))
        return INFINITY;
    return size > 0 ? sqrt(off / size) : sqrt(off);
}

/* stray returns the first byte that differs from what was uploaded outside of y, -1 if none. */
static long stray(const struct operand *y, const struct laid *l, const unsigned char *after)
{
    size_t size = dtype_bytes(y->dtype), at = 0;
    for (int64_t p = 0; p <= operand_pixels(y); p++) {
        size_t begin = p < operand_pixels(y) ? y->offset + (size_t)p * (size_t)y->ld * size : l->bytes;
        for (; at < begin; at++)
            if (after[at] != l->arena[at])
                return (long)at;
        at = begin + (size_t)y->c * size;
    }
    return -1;
}

/* run_on runs L on B and leaves the arena in AFTER. */
static enum status run_on(struct backend *b, const struct laid *l, unsigned char *after, struct error *err)
{
    struct rig r;
    enum status st = rig_open(&r, b, l, err);
    if (st == ST_OK)
        st = rig_run(&r, err);
    if (st == ST_OK)
        st = b->api->download(b, r.arena, 0, after, l->bytes, err);
    rig_close(&r);
    return st;
}

/* judge returns 1 passed, 0 failed, -1 skipped, and says why in TEXT. */
static int judge(struct suite *s, const struct trial *t, const struct laid *l, unsigned char *after[], char text[256])
{
    struct error err = {0};
    for (int i = 0; i < s->devices; i++) {
        enum status st = run_on(s->device[i], l, after[i], &err);
        if (st != ST_OK) {
            snprintf(text, 256, "%.250s", err.message);
            return st == ST_UNSUPPORTED ? -1 : 0;
        }
    }
    for (int i = 1; i < s->devices; i++)
        if (memcmp(after[0], after[i], l->bytes) != 0) {
            snprintf(text, 256, "results differ between numbers of threads");
            return 0;
        }
    long at = stray(&l->desc.y, l, after[0]);
    if (at >= 0) {
        snprintf(text, 256, "byte %ld outside of y was written (y at %zu)", at, l->desc.y.offset);
        return 0;
    }
    unsigned char *want = after[DEVICES_MAX];
    if (run_on(s->ref, l, want, &err) != ST_OK) {
        snprintf(text, 256, "ref: %.240s", err.message);
        return 0;
    }
    double off = distance(&l->desc.y, after[0], want), limit = op_tolerance(t->desc.kind, l->desc.y.dtype);
    snprintf(text, 256, "relative distance %.2e, limit %.2e", off, limit);
    return off <= limit;
}

static void try_one(void *arg, const struct trial *t)
{
    struct suite *s = arg;
    if (s->only && !strstr(t->name, s->only))
        return;
    struct laid l;
    unsigned char *after[DEVICES_MAX + 1];
    char text[256];
    trial_lay(t, &l);
    for (int i = 0; i <= DEVICES_MAX; i++)
        if ((after[i] = malloc(l.bytes)) == NULL)
            abort();
    int verdict = judge(s, t, &l, after, text);
    s->passed += verdict > 0;
    s->failed += verdict == 0;
    s->skipped += verdict < 0;
    if (verdict <= 0 || s->only)
        printf("%s %s: %s\n", verdict > 0 ? "pass" : verdict < 0 ? "skip" : "FAIL", t->name, text);
    for (int i = 0; i <= DEVICES_MAX; i++)
        free(after[i]);
    trial_free(&l);
}

static int64_t cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* time_one prints the best rate of several runs within a quarter of a second or so, and the least processor time of all threads: on a busy
 * machine the one that means something. */
static void time_one(void *arg, const struct trial *t)
{
    struct suite *s = arg;
    if (s->only && !strstr(t->name, s->only))
        return;
    struct laid l;
    struct rig r;
    struct error err = {0};
    trial_lay(t, &l);
    enum status st = rig_open(&r, s->device[0], &l, &err);
    int64_t best = INT64_MAX, least = INT64_MAX, begin = clock_us();
    for (int i = 0; st == ST_OK && i < 1000 && (i < 5 || clock_us() - begin < 250000); i++) {
        int64_t from = clock_us(), cpu = cpu_us();
        st = rig_run(&r, &err);
        int64_t took = clock_us() - from, used = cpu_us() - cpu;
        best = took < best ? took : best;
        least = used < least ? used : least;
    }
    rig_close(&r);
    trial_free(&l);
    if (st != ST_OK)
        printf("%-72s %s\n", t->name, err.message);
    else
        printf("%-72s %9.3f ms %8.1f %-7s %9.3f ms cpu\n", t->name, (double)best / 1e3,
               (t->flops ? t->flops : t->bytes) / 1e3 / (double)(best ? best : 1), t->flops ? "GFLOP/s" : "GB/s", (double)least / 1e3);
    fflush(stdout);
}

static struct backend *open_device(const char *name, int threads, enum dtype t)
{
    const struct backend_api *api = backend_find(name);
    struct backend_spec spec = {.device = name, .n_cores = threads, .compute = t};
    struct backend *b = NULL;
    struct error err = {0};
    if (!api) {
        fprintf(stderr, "galley-ops: this build has no backend for the device %s\n", name);
        exit(2);
    }
    enum status st = api->open(&spec, &b, &err);
    if (st != ST_OK) {
        fprintf(stderr, "galley-ops: %s: %s\n", name, err.message);
        exit(st == ST_UNSUPPORTED || st == ST_NO_DEVICE ? 77 : 1);
    }
    return b;
}

int main(int argc, char **argv)
{
    struct suite s = {0};
    const char *device = "cpu";
    bool big = false, bench = false;
    int threads[DEVICES_MAX] = {1, 2, 4}, fixed = 0;
    enum dtype t = DT_F32;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--big"))
            big = true;
        else if (!strcmp(argv[i], "--bench"))
            bench = true;
        else if (!strcmp(argv[i], "--device"))
            device = argv[++i] ? value : "";
        else if (!strcmp(argv[i], "--only"))
            s.only = argv[++i] ? value : "";
        else if (!strcmp(argv[i], "--threads"))
            fixed = argv[++i] ? atoi(value) : 0;
        else if (!strcmp(argv[i], "--dtype"))
            t = argv[++i] && !strcmp(value, "f16") ? DT_F16 : !strcmp(value, "bf16") ? DT_BF16 : DT_F32;
        else {
            fprintf(stderr, "usage: galley-ops [--device NAME] [--dtype f32|f16|bf16] [--big] [--bench] [--only TEXT] [--threads N]\n");
            return 2;
        }
    }
    s.devices = bench || fixed || strncmp(device, "cpu", 3) != 0 ? 1 : DEVICES_MAX;
    for (int i = 0; i < s.devices; i++)
        s.device[i] = open_device(device, s.devices > 1 ? threads[i] : fixed, t);
    s.ref = open_device("ref", 1, DT_F32);
    if (bench)
        bench_visit(time_one, &s);
    else
        trials_visit(t, big, try_one, &s);
    for (int i = 0; i < s.devices; i++)
        s.device[i]->api->close(s.device[i]);
    s.ref->api->close(s.ref);
    if (!bench)
        printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped);
    return s.failed ? 1 : 0;
}
