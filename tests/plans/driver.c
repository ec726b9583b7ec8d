/* A CUDA driver without a device, for programs that only make plans: the library that compiles cuDNN's kernels wants to load one, and to
 * load what it has compiled into it. Nothing runs. */
#include <dlfcn.h>
#include <stddef.h>

/* Calls that are looked up and, with no device, not needed. */
#define NOTHING(X)                                                                                                                         \
    X(cuCtxGetCurrent)                                                                                                                     \
    X(cuCtxGetLimit)                                                                                                                       \
    X(cuCtxPopCurrent) X(cuCtxPushCurrent) X(cuDeviceGet) X(cuKernelGetAttribute) X(cuKernelSetAttribute) X(cuLaunchCooperativeKernel)     \
        X(cuLaunchKernel) X(cuLaunchKernelEx) X(cuLibraryLoadFromFile) X(cuLinkAddData) X(cuLinkComplete) X(cuLinkCreate) X(cuLinkDestroy) \
            X(cuOccupancyMaxPotentialClusterSize) X(cuStreamGetCtx) X(cuLibraryUnload)
#define DECLARE(name)                                                                                                                      \
    int name(void);                                                                                                                        \
    int name(void) { return 0; }
NOTHING(DECLARE)

enum { OK = 0, NO_DEVICE = 100, NOT_FOUND = 500, VERSION = 13000 };
int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);
int cuDeviceGetCount(int *count);
int cuGetErrorString(int error, const char **text);
int cuGetErrorName(int error, const char **text);
int cuLibraryLoadData(void **library);
int cuLibraryGetKernel(void **kernel);
int cuGetProcAddress_v2(const char *symbol, void **address, int version, unsigned long long flags, int *found);

int cuInit(unsigned flags)
{
    (void)flags;
    return NO_DEVICE;
}

int cuDriverGetVersion(int *version)
{
    *version = VERSION;
    return OK;
}

int cuDeviceGetCount(int *count)
{
    *count = 0;
    return NO_DEVICE;
}

int cuGetErrorString(int error, const char **text)
{
    *text = error == OK ? "no error" : "no CUDA-capable device is detected";
    return OK;
}

int cuGetErrorName(int error, const char **text)
{
    *text = error == OK ? "CUDA_SUCCESS" : "CUDA_ERROR_NO_DEVICE";
    return OK;
}

static int something;

int cuLibraryLoadData(void **library)
{
    *library = &something;
    return OK;
}

int cuLibraryGetKernel(void **kernel)
{
    *kernel = &something;
    return OK;
}

int cuGetProcAddress_v2(const char *symbol, void **address, int version, unsigned long long flags, int *found)
{
    (void)version;
    (void)flags;
    *address = dlsym(RTLD_DEFAULT, symbol);
    if (found)
        *found = *address ? 0 : 1;
    return *address ? OK : NOT_FOUND;
}
