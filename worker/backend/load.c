#include "worker/backend/load.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/subprocess.h"
#include "worker/backend/cuda/module.h"

static struct {
    pthread_once_t once;
    enum status status;
    struct error error;
    struct cuda_module module;
} cuda = {.once = PTHREAD_ONCE_INIT};

static enum status load_failed(const char *path, struct error *err)
{
    const char *why = dlerror();
    size_t n = strlen(path);
    if (why && strncmp(why, path, n) == 0 && why[n] == ':') /* what is wrong with the module itself; else with a library that it needs */
        why += n + 1 + strspn(why + n + 1, " ");
    return FAIL(err, NO_DEVICE, "the CUDA module cannot be loaded: %.400s", why ? why : "no reason given");
}

static enum status load_module(struct cuda_module *ret, struct error *err)
{
    char path[4096];
    TRY(subprocess_sibling("../lib/galley/galley-cuda.so", path, sizeof path, err));
    if (access(path, F_OK) != 0)
        return FAIL(err, NO_DEVICE, "this build has no CUDA module: '%.400s' is not there", path);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* kept: devices stay open to the end of the process */
    if (!handle)
        return load_failed(path, err);
    static const struct cuda_module_build ours = CUDA_MODULE_BUILD;
    const struct cuda_module_build *its = dlsym(handle, "galley_cuda_build");
    if (!its || memcmp(its, &ours, sizeof ours) != 0)
        return FAIL(err, NO_DEVICE, "the CUDA module '%.400s' is of another build (%.31s, this is %s): install both from one", path, its ? its->version : "?", GALLEY_VERSION);
    void *probe = dlsym(handle, "galley_cuda_probe");
    ret->backend = dlsym(handle, "galley_cuda_backend");
    memcpy(&ret->probe, &probe, sizeof probe);
    if (!ret->backend || !probe)
        return FAIL(err, NO_DEVICE, "the CUDA module '%.400s' is of another version: it has no %s", path,
                    probe ? "galley_cuda_backend" : "galley_cuda_probe");
    return ST_OK;
}

static void load_once(void) { cuda.status = load_module(&cuda.module, &cuda.error); }

enum status backend_module(const struct cuda_module **ret, struct error *err)
{
    pthread_once(&cuda.once, load_once);
    if (cuda.status == ST_OK)
        *ret = &cuda.module;
    else if (err)
        *err = cuda.error;
    return cuda.status;
}

/* serves tells whether DEVICE is NAME or "NAME:...". */
static bool serves(const char *name, const char *device)
{
    size_t n = strlen(name);
    return strncmp(device, name, n) == 0 && (device[n] == '\0' || device[n] == ':');
}

const struct backend_api *backend_find(const char *device)
{
    static const struct backend_api *const all[] = {&backend_cpu, &backend_ref};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (serves(all[i]->name, device))
            return all[i];
    const struct cuda_module *module;
    return serves("cuda", device) && backend_module(&module, NULL) == ST_OK ? module->backend : NULL;
}
