/* What the functions of all kinds share: reading recorded tensors, tolerances, measures. */
#include "golden/golden.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "common/json.h"
#include "golden/golden_files.h"
#include "worker/backend/half.h"
#include "worker/engine/safetensors.h"

static enum golden_result note(struct golden_case *c, enum golden_result result, const char *fmt, va_list args)
{
    vsnprintf(c->reason, sizeof c->reason, fmt, args);
    return result;
}

enum golden_result golden_fail(struct golden_case *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    enum golden_result result = note(c, GOLDEN_FAIL, fmt, args);
    va_end(args);
    return result;
}

enum golden_result golden_skip(struct golden_case *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    enum golden_result result = note(c, GOLDEN_SKIP, fmt, args);
    va_end(args);
    return result;
}

enum golden_result golden_status(struct golden_case *c, enum status status, const struct error *err)
{
    if (status == ST_OK)
        return GOLDEN_PASS;
    if (status == ST_NOT_AVAILABLE || status == ST_UNSUPPORTED)
        return golden_skip(c, "%s", err->message);
    return golden_fail(c, "%s: %s", status_name(status), err->message);
}

char *golden_path(struct golden_case *c, const char *name)
{
    size_t n = strlen(c->folder) + strlen(name) + 2;
    char *path = arena_alloc(c->arena, n);
    if (path)
        snprintf(path, n, "%s/%s", c->folder, name);
    return path;
}

bool golden_has(const struct golden_case *c, const char *group, const char *label)
{
    return json_is_string(json_object_get(json_object_get(c->json, group), label));
}

static bool widen(const struct st_entry *e, double *ret, size_t n)
{
    const char *t = e->raw_dtype;
    int64_t whole;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(t, "F32") == 0)
            ret[i] = ((const float *)e->data)[i];
        else if (strcmp(t, "F64") == 0)
            memcpy(&ret[i], (const char *)e->data + 8 * i, 8);
        else if (strcmp(t, "F16") == 0)
            ret[i] = half_to_float(((const uint16_t *)e->data)[i]);
        else if (strcmp(t, "BF16") == 0)
            ret[i] = bf16_to_float(((const uint16_t *)e->data)[i]);
        else if (strcmp(t, "I64") == 0)
            memcpy(&whole, (const char *)e->data + 8 * i, 8), ret[i] = (double)whole;
        else if (strcmp(t, "I32") == 0)
            ret[i] = ((const int32_t *)e->data)[i];
        else if (strcmp(t, "U32") == 0)
            ret[i] = ((const uint32_t *)e->data)[i];
        else if (strcmp(t, "U8") == 0 || strcmp(t, "BOOL") == 0)
            ret[i] = ((const uint8_t *)e->data)[i];
        else
            return false;
    }
    return true;
}

enum golden_result golden_tensor(struct golden_case *c, const char *group, const char *label, struct golden_tensor *ret)
{
    const char *where = json_str(json_object_get(c->json, group), label, NULL), *hash = where ? strchr(where, '#') : NULL;
    if (!hash)
        return golden_fail(c, "%s.%s is no FILE#TENSOR", group, label);
    struct error err;
    char *file = arena_strdup(c->arena, where);
    if (!file)
        return golden_fail(c, "out of memory");
    file[hash - where] = 0;
    struct safetensors *s = golden_file(c->files, golden_path(c, file), &err);
    if (!s)
        return golden_fail(c, "%s", err.message);
    const struct st_entry *e = safetensors_find(s, hash + 1);
    if (!e)
        return golden_fail(c, "%s has no tensor %s", file, hash + 1);
    *ret = (struct golden_tensor){ .ndim = e->ndim, .n = 1 };
    for (int i = 0; i < e->ndim; i++)
        ret->n *= (size_t)(ret->dim[i] = e->shape[i]);
    ret->data = arena_alloc(c->arena, sizeof(double) * (ret->n + 1));
    if (!ret->data)
        return golden_fail(c, "out of memory for %s", hash + 1);
    if (!widen(e, ret->data, ret->n))
        return golden_fail(c, "%s has elements of type %s", hash + 1, e->raw_dtype);
    return GOLDEN_PASS;
}

enum golden_result golden_floats(struct golden_case *c, const char *group, const char *label, struct golden_tensor *ret_shape, float **ret)
{
    GOLDEN_TRY(golden_tensor(c, group, label, ret_shape));
    float *data = arena_alloc(c->arena, sizeof(float) * (ret_shape->n + 1));
    if (!data)
        return golden_fail(c, "out of memory for %s", label);
    for (size_t i = 0; i < ret_shape->n; i++)
        data[i] = (float)ret_shape->data[i];
    *ret = data;
    return GOLDEN_PASS;
}

static const json_t *tolerance_of(const json_t *where, const char *key, const char *subkey)
{
    const json_t *value = json_object_get(json_object_get(where, "tolerance"), key);
    if (subkey && json_is_object(value))
        value = json_object_get(value, subkey);
    return json_is_number(value) ? value : NULL;
}

double golden_tolerance(const struct golden_case *c, const char *key, const char *subkey, double fallback)
{
    const json_t *value = tolerance_of(c->json, key, subkey);
    if (!value)
        value = tolerance_of(c->manifest, key, subkey);
    return value ? json_number_value(value) : fallback;
}

double golden_rel_l2(const double *a, const double *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    double r = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
    return isfinite(r) ? r : NAN;
}

double golden_max_abs(const double *a, const double *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs(a[i] - b[i]);
        if (!isfinite(d))
            return NAN;
        worst = d > worst ? d : worst;
    }
    return worst;
}

enum golden_result golden_compare(struct golden_case *c, const char *label, const double *got, size_t n, enum golden_measure how, double tolerance)
{
    struct golden_tensor want;
    GOLDEN_TRY(golden_tensor(c, "expect", label, &want));
    if (want.n != n)
        return golden_fail(c, "%s has %zu values, expected %zu", label, n, want.n);
    double measured = how == MEASURE_REL_L2 ? golden_rel_l2(got, want.data, n) : golden_max_abs(got, want.data, n);
    if (!(measured <= tolerance))
        return golden_fail(c, "%s: %s %.3g, tolerance %.3g", label, how == MEASURE_REL_L2 ? "rel_l2" : "max_abs", measured, tolerance);
    return GOLDEN_PASS;
}

enum golden_result golden_compare_f32(struct golden_case *c, const char *label, const float *got, size_t n, enum golden_measure how, double tolerance)
{
    double *wide = arena_alloc(c->arena, sizeof(double) * (n + 1));
    if (!wide)
        return golden_fail(c, "out of memory for %s", label);
    for (size_t i = 0; i < n; i++)
        wide[i] = got[i];
    return golden_compare(c, label, wide, n, how, tolerance);
}
