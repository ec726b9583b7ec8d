#include "golden/fixture_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "golden/fixture.h"

enum { MODELS_MAX = 8 };

static struct { char name[64]; struct model *model; } models[MODELS_MAX];
static struct backend *backend;

static enum status open_backend(struct error *err)
{
    const char *device = getenv("GOLDEN_DEVICE");
    const struct backend_api *api = backend_find(device ? device : "cpu");
    struct backend_spec spec = {.device = device ? device : "cpu", .compute = DT_F32};
    if (!api)
        return FAIL(err, NO_DEVICE, "this build has no backend for '%s'", spec.device);
    return api->open(&spec, &backend, err);
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
    TRY(fixture_path(name, path, err));
    if (!backend)
        TRY(open_backend(err));
    TRY(model_open(path, backend, DT_F32, &models[at].model, err));
    snprintf(models[at].name, sizeof models[at].name, "%s", name);
    *ret = models[at].model;
    return ST_OK;
}
