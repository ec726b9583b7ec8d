#include "worker/backend/cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct driver cu;

static struct {
    pthread_once_t once;
    enum status status;
    struct error error;
} load = {.once = PTHREAD_ONCE_INIT};

static const struct {
    const char *symbol;
    size_t at; /* of the member in struct driver */
} calls[] = {
#define DRIVER(member, symbol) {#symbol, offsetof(struct driver, member)},
    DRIVER_CALLS(DRIVER)
#undef DRIVER
};

/* driver_version returns what the driver says that it is: 12080 for 12.8, 0 if it does not. */
static int driver_version(void)
{
    int v = 0;
    return cu.version && cu.version(&v) == CUDA_SUCCESS ? v : 0;
}

static enum status too_old(const char *lacks, struct error *err)
{
    int v = driver_version();
    if (v)
        return FAIL(err, NO_DEVICE, "the NVIDIA driver is too old: it is for CUDA %d.%d, %s; a driver for CUDA %d.0 or newer is needed",
                    v / 1000, v % 1000 / 10, lacks, CUDA_VERSION / 1000);
    return FAIL(err, NO_DEVICE, "the NVIDIA driver is too old: %s; a driver for CUDA %d.0 or newer is needed", lacks, CUDA_VERSION / 1000);
}

static enum status resolve(void *library, struct error *err)
{
    const char *missing = NULL;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *found = dlsym(library, calls[i].symbol);
        memcpy((char *)&cu + calls[i].at, &found, sizeof found);
        if (!found && !missing)
            missing = calls[i].symbol;
    }
    if (!missing)
        return ST_OK;
    char lacks[96] = "it has no ";
    strncat(lacks, missing, sizeof lacks - strlen(lacks) - 1);
    return too_old(lacks, err);
}

static enum status start(struct error *err)
{
    CUresult r = cu.init(0);
    if (r == CUDA_SUCCESS)
        return ST_OK;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES"), *name = "an unknown error", *text = "";
    (void)cu.error_name(r, &name);
    (void)cu.error_text(r, &text);
    bool none = r == CUDA_ERROR_NO_DEVICE || r == CUDA_ERROR_INVALID_DEVICE;
    if (none && visible)
        return FAIL(err, NO_DEVICE, "no CUDA device is visible: %s (%s), CUDA_VISIBLE_DEVICES is \"%.100s\"", name, text, visible);
    if (none)
        return FAIL(err, NO_DEVICE, "no CUDA device: %s (%s)", name, text);
    return FAIL(err, NO_DEVICE, "the NVIDIA driver does not start: %s (%s)", name, text);
}

static enum status load_driver(struct error *err)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        return FAIL(err, NO_DEVICE, "the NVIDIA driver is not there: %.400s", why ? why : "libcuda.so.1 cannot be loaded");
    }
    TRY(resolve(library, err));
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);    /* nvidia-smi's numbers; the driver's own order is by speed */
    int v = driver_version();
    if (v && v / 1000 < CUDA_VERSION / 1000)
        return too_old("this build is for a newer one", err);
    return start(err);
}

static void load_once(void) { load.status = load_driver(&load.error); }

enum status driver_load(struct error *err)
{
    pthread_once(&load.once, load_once);
    if (load.status != ST_OK && err)
        *err = load.error;
    return load.status;
}

enum status driver_status(CUresult r)
{
    switch ((int)r) {
    case CUDA_SUCCESS: return ST_OK;
    case CUDA_ERROR_OUT_OF_MEMORY: return ST_OUT_OF_MEMORY;
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_INVALID_DEVICE: return ST_NO_DEVICE;
    case CUDA_ERROR_NOT_SUPPORTED:
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION: return ST_UNSUPPORTED;
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_EXTERNAL_DEVICE:
    case 226: /* CUDA_ERROR_CONTAINED and 721, CUDA_ERROR_TENSOR_MEMORY_LEAK: not in every cuda.h of CUDA 12 */
    case 721:
    case CUDA_ERROR_UNKNOWN: return ST_DEVICE_FAULT;
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_DEVICE_NOT_LICENSED:
    case CUDA_ERROR_SYSTEM_NOT_READY:
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
    case CUDA_ERROR_MPS_CONNECTION_FAILED:
    case CUDA_ERROR_MPS_RPC_FAILURE:
    case CUDA_ERROR_MPS_SERVER_NOT_READY:
    case CUDA_ERROR_MPS_CLIENT_TERMINATED: return ST_DEVICE_LOST;
    default: return ST_INTERNAL;
    }
}

enum status driver_fail(struct error *err, CUresult r, const char *what)
{
    const char *name = NULL, *text = NULL;
    if (cu.error_name(r, &name) != CUDA_SUCCESS || !name)
        return error_set(err, driver_status(r), __FILE__, __LINE__, "%s: the driver's error %d", what, (int)r);
    if (cu.error_text(r, &text) != CUDA_SUCCESS || !text)
        text = "no text";
    return error_set(err, driver_status(r), __FILE__, __LINE__, "%s: %s (%s)", what, name, text);
}
