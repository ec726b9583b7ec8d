#include "golden/fixture_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "golden/fixture.h"

enum { MODELS_MAX = 8 };

static struct { char name[64]; struct model *model; } models[MODELS_MAX];
static struct backend *backend;

enum dtype fixture_dtype(void)
{
    static const enum dtype known[] = {DT_F32, DT_F16, DT_BF16};
    const char *name = getenv("GOLDEN_DTYPE");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!name || !strcmp(name, dtype_name(known[i])))
            return known[i];
    return DT_COUNT;
}

enum status fixture_backend(struct backend **ret, struct error *err)
{
    const char *device = getenv("GOLDEN_DEVICE");
    struct backend_spec spec = {.device = device ? device : "cpu", .compute = fixture_dtype()};
    if (spec.compute == DT_COUNT)
        return FAIL(err, BAD_CONFIG, "GOLDEN_DTYPE is '%s'; it may be f32, f16 or bf16", getenv("GOLDEN_DTYPE"));
    const struct backend_api *api = backend_find(spec.device);
    if (!api)
        return FAIL(err, NO_DEVICE, "this build has no backend for '%s'", spec.device);
    if (!backend)
        TRY(api->open(&spec, &backend, err));
    *ret = backend;
    return ST_OK;
}

enum status fixture_model(const char *name, struct model **ret, struct error *err)
{
    int at = 0;
    for (; at < MODELS_MAX && models[at].model; at++)
        if (!strcmp(models[at].name, name)) {
            *ret = models[at].model;
            return ST_OK;
        }
    if (at == MODELS_MAX)
        return FAIL(err, TOO_LARGE, "more than %d fixtures in one run", MODELS_MAX);
    char path[PATH_BYTES];
    struct backend *b;
    TRY(fixture_path(name, path, err));
    TRY(fixture_backend(&b, err));
    TRY(model_open(path, b, fixture_dtype(), &models[at].model, err));
    snprintf(models[at].name, sizeof models[at].name, "%s", name);
    *ret = models[at].model;
    return ST_OK;
}
