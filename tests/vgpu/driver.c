/* The simulated driver: devices, contexts, errors' names. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/vgpu/inside.h"

struct rig rig = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
_Thread_local CUcontext context_here;

/* ---- handles */

void handle_add(void *p, enum handle_kind kind, CUcontext context)
{
    struct handle *h = p;
    *h = (struct handle){.next = rig.handles, .kind = kind, .context = context};
    rig.handles = h;
}

void handle_remove(void *p)
{
    for (struct handle **h = &rig.handles; *h; h = &(*h)->next)
        if (*h == p) {
            *h = (*h)->next;
            return;
        }
}

bool handle_live(const void *p, enum handle_kind kind)
{
    for (const struct handle *h = rig.handles; h; h = h->next)
        if (h == p)
            return h->kind == kind;
    return false;
}

/* ---- configuration */

bool text_number(const char *text, bool suffix, uint64_t *ret)
{
    if (!text || !isdigit((unsigned char)*text))
        return false;
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    const char *at = suffix && *end ? strchr("KMG", *end) : NULL;
    if (at) {
        n <<= 10 * (at - "KMG" + 1);
        end++;
    }
    *ret = n;
    return !*end;
}

static bool number_of(const char *name, uint64_t otherwise, uint64_t low, uint64_t high, uint64_t *ret)
{
    const char *text = getenv(name);
    *ret = otherwise;
    if (!text || !*text)
        return true;
    return text_number(text, !strcmp(name, "VGPU_MEMORY"), ret) && *ret >= low && *ret <= high;
}

static CUuuid uuid_of(int number)
{
    CUuuid u = {.bytes = {'v', 'g', 'p', 'u', 0, 0, 0x40, 0, (char)0x80}};
    u.bytes[15] = (char)number;
    return u;
}

static void uuid_text(const CUuuid *u, char ret[48])
{
    int n = sprintf(ret, "GPU-");
    for (int i = 0; i < 16; i++)
        n += sprintf(ret + n, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", (unsigned char)u->bytes[i]);
}

/* device_named returns the number of the device that an entry of CUDA_VISIBLE_DEVICES names, -1: none, or more than one. */
static int device_named(const char *entry, size_t n)
{
    char text[64], uuid[48];
    if (!n || n >= sizeof text)
        return -1;
    memcpy(text, entry, n);
    text[n] = 0;
    uint64_t number;
    if (text_number(text, false, &number))
        return number < (uint64_t)rig.machine ? (int)number : -1;
    int found = -1;
    for (int i = 0; i < rig.machine && n > 4; i++) {
        CUuuid u = uuid_of(i);
        uuid_text(&u, uuid);
        if (strncasecmp(uuid, text, n))
            continue;
        if (found >= 0)
            return -1;
        found = i;
    }
    return found;
}

static bool device_see(int number, uint64_t memory)
{
    for (int i = 0; i < rig.count; i++)
        if (rig.devices[i].number == number)
            return false;
    rig.devices[rig.count++] = (struct CUctx_st){.number = number, .uuid = uuid_of(number), .total = memory, .account_file = -1};
    return true;
}

static void devices_see(uint64_t memory)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    for (int i = 0; !visible && i < rig.machine; i++)
        device_see(i, memory);
    while (visible && *visible) {
        visible += strspn(visible, " ");
        size_t n = strcspn(visible, ", ");
        int number = device_named(visible, n);
        if (number < 0 || !device_see(number, memory))
            return; /* the first that is none ends the list */
        visible += n + strspn(visible + n, " ");
        visible += *visible == ',';
    }
}

/* configure reads the environment; it returns the name of what it cannot read. */
static const char *configure(void)
{
    uint64_t devices, memory, late, seed, threads;
    if (!number_of("VGPU_DEVICES", 0, 0, DEVICES_MAX, &devices))
        return "VGPU_DEVICES";
    if (!number_of("VGPU_MEMORY", 2ull << 30, 1 << 20, 1ull << 42, &memory))
        return "VGPU_MEMORY";
    if (!number_of("VGPU_LATE_US", 0, 0, 10000000, &late))
        return "VGPU_LATE_US";
    if (!number_of("VGPU_SEED", 0, 0, INT32_MAX, &seed))
        return "VGPU_SEED";
    if (!number_of("VGPU_THREADS", 1, 1, 64, &threads))
        return "VGPU_THREADS";
    rig.machine = (int)devices;
    rig.late_us = (long)late;
    rig.seed = (long)seed;
    rig.threads = (long)threads;
    rig.state = getenv("VGPU_STATE");
    if (rig.state && (!*rig.state || !(rig.state = strdup(rig.state))))
        rig.state = NULL;
    devices_see(memory);
    for (int i = 0; i < rig.count; i++)
        if (!account_open(&rig.devices[i]))
            return "VGPU_STATE";
    if (!faults_read(getenv("VGPU_FAULTS")))
        return "VGPU_FAULTS";
    return counts_open(getenv("VGPU_COUNT")) ? NULL : "VGPU_COUNT";
}

/* ---- life of the process */

static void forked(void) { rig.gone = rig.ready; } /* its streams have no threads */
static void before_fork(void) { rig_lock(); }
static void after_fork(void) { rig_unlock(); }
static void after_fork_child(void)
{
    rig.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    forked();
}

/* The threads end before the process does; what they have left to do is not done. */
__attribute__((destructor)) static void leave(void)
{
    rig_lock();
    bool mine = rig.ready && !rig.gone;
    rig.gone = true;
    for (struct handle *h = mine ? rig.handles : NULL; h; h = h->next)
        if (h->kind == HANDLE_STREAM)
            stream_stop((CUstream)h, true);
    rig_unlock();
}

ENTRY CUresult cuInit(unsigned int Flags)
{
    rig_lock();
    if (!rig.ready && !rig.gone) {
        const char *bad = configure();
        if (bad)
            fprintf(stderr, "vgpu: cannot use %s=%s\n", bad, getenv(bad) ? getenv(bad) : "");
        else
            pthread_atfork(before_fork, after_fork, after_fork_child);
        rig.ready = !bad && rig.count;
        if (bad) {
            rig_unlock();
            return CUDA_ERROR_SYSTEM_NOT_READY;
        }
    }
    bool none = !rig.count;
    rig_unlock();
    if (Flags)
        return CUDA_ERROR_INVALID_VALUE;
    return none ? CUDA_ERROR_NO_DEVICE : enter("cuInit", NULL, ENTER_PLAIN);
}

ENTRY CUresult cuDriverGetVersion(int *driverVersion)
{
    uint64_t version;
    if (!driverVersion || !number_of("VGPU_VERSION", CUDA_VERSION, 1000, 1000000, &version))
        return CUDA_ERROR_INVALID_VALUE;
    *driverVersion = (int)version;
    return CUDA_SUCCESS;
}

/* ---- errors */

static const struct {
    CUresult code;
    const char *name, *text;
} errors[] = {
#define ERROR(code, text) {code, #code, text}
    ERROR(CUDA_SUCCESS, "no error"),
    ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    ERROR(CUDA_ERROR_DEINITIALIZED, "driver shutting down"),
    ERROR(CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA-capable device(s) is/are busy or unavailable"),
    ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    ERROR(CUDA_ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered"),
    ERROR(CUDA_ERROR_OPERATING_SYSTEM, "OS call failed or operation not supported on this OS"),
    ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    ERROR(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    ERROR(CUDA_ERROR_NOT_READY, "device not ready"),
    ERROR(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    ERROR(CUDA_ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated"),
    ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    ERROR(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    ERROR(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    ERROR(CUDA_ERROR_SYSTEM_NOT_READY, "system not yet initialized"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "capture was not initiated in this stream"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing blocking stream"),
    ERROR(CUDA_ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "attempt to terminate a thread-local capture sequence from another thread"),
    ERROR(CUDA_ERROR_UNKNOWN, "unknown error"),
#undef ERROR
};

static CUresult error_find(CUresult error, const char **ret, bool name)
{
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = NULL;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == error)
            *ret = name ? errors[i].name : errors[i].text;
    return *ret ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

ENTRY CUresult cuGetErrorName(CUresult error, const char **pStr) { return error_find(error, pStr, true); }
ENTRY CUresult cuGetErrorString(CUresult error, const char **pStr) { return error_find(error, pStr, false); }

/* ---- devices */

/* device_enter is enter for a call on device DEV. */
static CUresult device_enter(const char *call, CUdevice dev, const void *ret)
{
    if (rig.ready && (dev < 0 || dev >= rig.count))
        return CUDA_ERROR_INVALID_DEVICE;
    CUresult r = enter(call, rig.ready ? &rig.devices[dev] : NULL, ENTER_PLAIN);
    return r ? r : ret ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

ENTRY CUresult cuDeviceGetCount(int *count)
{
    CUresult r = enter("cuDeviceGetCount", NULL, ENTER_PLAIN);
    if (r || !count)
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    *count = rig.count;
    return CUDA_SUCCESS;
}

ENTRY CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    CUresult r = device_enter("cuDeviceGet", ordinal, device);
    if (!r)
        *device = ordinal;
    return r;
}

ENTRY CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
    CUresult r = device_enter("cuDeviceGetName", dev, name);
    if (!r && len < 1)
        return CUDA_ERROR_INVALID_VALUE;
    if (!r)
        snprintf(name, (size_t)len, "Simulated GPU");
    return r;
}

ENTRY CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    CUresult r = device_enter("cuDeviceGetUuid", dev, uuid);
    if (!r)
        *uuid = rig.devices[dev].uuid;
    return r;
}

ENTRY CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    CUresult r = device_enter("cuDeviceTotalMem", dev, bytes);
    if (!r)
        *bytes = rig.devices[dev].total;
    return r;
}

/* capability_of reads VGPU_CAPABILITY: one number per device of the machine, "75,90" (tens are the major one); 90 where it says nothing. */
static int capability_of(int number)
{
    const char *list = getenv("VGPU_CAPABILITY");
    for (int i = 0; list && *list && i < number; i++)
        list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL;
    int able = list ? atoi(list) : 0;
    return able ? able : 90;
}

static int attribute_of(CUdevice_attribute attrib, int number)
{
    switch ((int)attrib) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return capability_of(number) / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return capability_of(number) % 10;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 132;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return INT32_MAX;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 49152;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return 232448;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return 233472;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: return 65536;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: return 65536;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: return 50 << 20;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1980000;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: return 3;
    case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: return 1;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return number + 1;
    default: return 0;
    }
}

ENTRY CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
    CUresult r = device_enter("cuDeviceGetAttribute", dev, pi);
    if (!r && ((int)attrib < 1 || attrib >= CU_DEVICE_ATTRIBUTE_MAX))
        return CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *pi = attribute_of(attrib, rig.devices[dev].number);
    return r;
}

/* ---- the primary context */

ENTRY CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    CUresult r = device_enter("cuDevicePrimaryCtxRetain", dev, pctx);
    if (r)
        return r;
    CUcontext context = &rig.devices[dev];
    rig_lock();
    r = account_is_lost(context) ? CUDA_ERROR_DEVICE_UNAVAILABLE : context->error;
    if (!r) {
        context->retained++;
        *pctx = context;
    }
    rig_unlock();
    return r;
}

/* context_end frees what is left of CONTEXT. */
static void context_end(CUcontext context)
{
    counts_left(context);
    for (;;) {
        struct handle *h = rig.handles;
        while (h && (h->context != context || h->kind != HANDLE_STREAM))
            h = h->next;
        if (!h)
            break;
        stream_stop((CUstream)h, false);
        stream_free((CUstream)h);
    }
    context->default_stream = NULL;
    for (;;) {
        struct handle *h = rig.handles;
        while (h && (h->context != context || h->kind == HANDLE_FUNCTION))
            h = h->next;
        if (!h)
            break;
        switch (h->kind) {
        case HANDLE_EVENT: event_free((CUevent)h); break;
        case HANDLE_MODULE: module_free((CUmodule)h); break;
        case HANDLE_GRAPH: graph_free((CUgraph)h); break;
        default: exec_free((CUgraphExec)h); break;
        }
    }
    memory_drop(context);
}

ENTRY CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    CUresult r = device_enter("cuDevicePrimaryCtxRelease", dev, &rig);
    if (r)
        return r;
    CUcontext context = &rig.devices[dev];
    rig_lock();
    if (!context->retained)
        r = CUDA_ERROR_INVALID_CONTEXT;
    else if (--context->retained == 0)
        context_end(context);
    rig_unlock();
    return r;
}

ENTRY CUresult cuCtxSetCurrent(CUcontext ctx)
{
    bool known = !ctx;
    for (int i = 0; i < rig.count; i++)
        known |= ctx == &rig.devices[i];
    CUresult r = enter("cuCtxSetCurrent", known ? ctx : NULL, ENTER_PLAIN);
    if (r || !known)
        return r ? r : CUDA_ERROR_INVALID_CONTEXT;
    context_here = ctx;
    return CUDA_SUCCESS;
}
