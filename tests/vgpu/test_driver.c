/* The simulated driver by itself: each case is a process, as the driver reads its environment once. */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "kernels/kernel_abi.h"
#include "tests/vgpu/vgpu.h"

#define CHECK(cond)                                                                                                                        \
    do {                                                                                                                                   \
        if (!(cond)) {                                                                                                                     \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);                                                             \
            _exit(1);                                                                                                                      \
        }                                                                                                                                  \
    } while (0)
#define IS(call, code)                                                                                                                     \
    do {                                                                                                                                   \
        CUresult is_ = (call);                                                                                                             \
        if (is_ != (code)) {                                                                                                               \
            fprintf(stderr, "%s:%d: %s returns %d, not %s\n", __FILE__, __LINE__, #call, is_, #code);                                      \
            _exit(1);                                                                                                                      \
        }                                                                                                                                  \
    } while (0)
#define OK(call) IS(call, CUDA_SUCCESS)

enum { MEGA = 1 << 20 };
static char state[64]; /* a folder, fresh for each case */

static CUcontext context_open(void)
{
    CUcontext c;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&c, 0));
    OK(cuCtxSetCurrent(c));
    return c;
}

static void context_close(void)
{
    OK(cuDevicePrimaryCtxRelease(0));
    OK(cuCtxSetCurrent(NULL));
}

static CUdeviceptr device_new(size_t bytes)
{
    CUdeviceptr p;
    OK(cuMemAlloc(&p, bytes));
    return p;
}

static unsigned char *pinned_new(size_t bytes, int byte)
{
    void *p;
    OK(cuMemHostAlloc(&p, bytes, 0));
    memset(p, byte, bytes);
    return p;
}

static CUstream stream_new(void)
{
    CUstream s;
    OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    return s;
}

static CUevent event_new(void)
{
    CUevent e;
    OK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    return e;
}

/* byte_at reads what another thread may be writing: the race is the point. */
__attribute__((no_sanitize("thread"), noinline)) static int byte_at(const volatile unsigned char *p, size_t i) { return p[i]; }
__attribute__((no_sanitize("thread"), noinline)) static void byte_put(volatile unsigned char *p, size_t i, int byte)
{
    p[i] = (unsigned char)byte;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* in_child runs FN in a process and returns its status as from waitpid. */
static int in_child(void (*fn)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        fn();
        exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

/* ---- devices */

static void no_devices(void) { IS(cuInit(0), CUDA_ERROR_NO_DEVICE); }

static void device_facts(void)
{
    int n, version;
    size_t bytes;
    char name[64];
    CUuuid a, b;
    IS(cuDeviceGetCount(&n), CUDA_ERROR_NOT_INITIALIZED);
    OK(cuDriverGetVersion(&version));
    CHECK(version == CUDA_VERSION);
    OK(cuInit(0));
    OK(cuInit(0));
    OK(cuDeviceGetCount(&n));
    CHECK(n == 3);
    OK(cuDeviceGetName(name, sizeof name, 2));
    CHECK(!strcmp(name, "Simulated GPU"));
    OK(cuDeviceTotalMem(&bytes, 0));
    CHECK(bytes == (size_t)64 * MEGA);
    OK(cuDeviceGetAttribute(&n, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 1));
    CHECK(n == 9);
    OK(cuDeviceGetAttribute(&n, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1));
    CHECK(n == 132);
    OK(cuDeviceGetUuid(&a, 0));
    OK(cuDeviceGetUuid(&b, 1));
    CHECK(memcmp(&a, &b, sizeof a));
    IS(cuDeviceGetName(name, sizeof name, 3), CUDA_ERROR_INVALID_DEVICE);
    const char *text;
    OK(cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &text));
    CHECK(!strcmp(text, "CUDA_ERROR_OUT_OF_MEMORY"));
    OK(cuGetErrorString(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    CHECK(strstr(text, "illegal memory access"));
    IS(cuGetErrorName((CUresult)54321, &text), CUDA_ERROR_INVALID_VALUE);
}

static const char *expected; /* numbers of the devices that are seen */
static void visible_child(void)
{
    int n = 0, want = (int)strlen(expected);
    IS(cuInit(0), want ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE);
    if (want)
        OK(cuDeviceGetCount(&n));
    CHECK(n == want);
    for (int i = 0; i < n; i++) {
        CUuuid u;
        OK(cuDeviceGetUuid(&u, i));
        CHECK(u.bytes[15] == expected[i] - '0');
    }
}

static void visible_devices(void)
{
    static const char *const cases[][2] = {
        {"1", "1"}, {"2,0", "20"}, {"0,7,1", "0"}, {"", ""}, {"-1", ""}, {" 1 , 2", "12"}, {"1,1", "1"},
        {"GPU-76677075-0000-4000-8000-000000000002", "2"}, {"GPU-76677075-0000-4000-8000-000000000001,0", "10"}, {"GPU-7667", ""},
        {"1,MIG-0", "1"}, {"none", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("CUDA_VISIBLE_DEVICES", cases[i][0], 1);
        expected = cases[i][1];
        CHECK(in_child(visible_child) == 0);
    }
    setenv("VGPU_DEVICES", "1", 1);
    setenv("CUDA_VISIBLE_DEVICES", "GPU-7667", 1); /* a prefix that fits one */
    expected = "0";
    CHECK(in_child(visible_child) == 0);
}

static void bad_settings(void)
{
    if (!freopen("/dev/null", "w", stderr))
        return;
    setenv("VGPU_FAULTS", "0:cuMemAlloc:x:oom", 1);
    IS(cuInit(0), CUDA_ERROR_SYSTEM_NOT_READY);
}

/* ---- contexts */

static void contexts(void)
{
    CUcontext c, again;
    CUdeviceptr p;
    CUstream s;
    OK(cuInit(0));
    IS(cuMemAlloc(&p, 1), CUDA_ERROR_INVALID_CONTEXT);
    IS(cuStreamCreate(&s, 0), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuDevicePrimaryCtxRetain(&c, 0));
    IS(cuMemAlloc(&p, 1), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuCtxSetCurrent(c));
    OK(cuMemAlloc(&p, 1));
    OK(cuDevicePrimaryCtxRetain(&again, 0));
    CHECK(again == c);
    OK(cuDevicePrimaryCtxRelease(0));
    OK(cuMemFree(p));
    s = stream_new();
    p = device_new(MEGA);
    OK(cuMemsetD8Async(p, 1, 64, s));
    OK(cuMemsetD8Async(p + 64, 1, 64, NULL));
    OK(cuDevicePrimaryCtxRelease(0));
    IS(cuMemAlloc(&p, 1), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    IS(cuDevicePrimaryCtxRelease(0), CUDA_ERROR_INVALID_CONTEXT);
    size_t left, total;
    c = context_open();
    OK(cuMemGetInfo(&left, &total));
    CHECK(left == total);
    IS(cuStreamSynchronize(s), CUDA_ERROR_INVALID_HANDLE);
    context_close();
}

/* ---- memory */

static void memory(void)
{
    context_open();
    size_t left, total, then;
    CUdeviceptr a = device_new(40 * MEGA), b;
    OK(cuMemGetInfo(&left, &total));
    CHECK(total == (size_t)64 * MEGA && left == (size_t)24 * MEGA);
    IS(cuMemAlloc(&b, 25 * MEGA), CUDA_ERROR_OUT_OF_MEMORY);
    IS(cuMemAlloc(&b, 0), CUDA_ERROR_INVALID_VALUE);
    b = device_new(24 * MEGA);
    OK(cuMemGetInfo(&left, &total));
    CHECK(left == 0);
    unsigned char bytes[64];
    OK(cuMemcpyDtoHAsync(bytes, b, sizeof bytes, NULL));
    for (size_t i = 0; i < sizeof bytes; i++)
        CHECK(bytes[i] == 0xff);
    CHECK(vgpu_holds(a, 40 * MEGA) && vgpu_holds(a + 5, 1) && !vgpu_holds(a + 5, 40 * MEGA) && !vgpu_holds(a - 1, 1));
    IS(cuMemsetD8Async(b, 0, 24 * MEGA + 1, NULL), CUDA_ERROR_INVALID_VALUE);
    IS(cuMemcpyHtoDAsync(b + 24 * MEGA - 10, bytes, 11, NULL), CUDA_ERROR_INVALID_VALUE);
    IS(cuMemcpyDtoDAsync(b, 12345, 1, NULL), CUDA_ERROR_INVALID_VALUE);
    IS(cuMemFree(a + 1), CUDA_ERROR_INVALID_VALUE);
    IS(cuMemFree(12345), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFree(a));
    IS(cuMemFree(a), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFree(0));
    OK(cuMemGetInfo(&then, &total));
    CHECK(then == (size_t)40 * MEGA);
    void *host = pinned_new(100, 1);
    OK(cuMemFreeHost(host));
    IS(cuMemFreeHost(host), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFree(b));
    context_close();
}

static int to_sharer[2], from_sharer[2];
static void sharer(void)
{
    char c = 0;
    context_open();
    device_new(40 * MEGA);
    CHECK(write(from_sharer[1], &c, 1) == 1);
    for (;;)
        pause();
}

static void shared_memory(void)
{
    setenv("VGPU_STATE", state, 1);
    CHECK(!pipe(to_sharer) && !pipe(from_sharer));
    pid_t pid = fork();
    if (!pid)
        sharer();
    char c;
    CHECK(read(from_sharer[0], &c, 1) == 1);
    context_open();
    size_t left, total;
    CUdeviceptr p;
    OK(cuMemGetInfo(&left, &total));
    CHECK(left == (size_t)24 * MEGA);
    IS(cuMemAlloc(&p, 25 * MEGA), CUDA_ERROR_OUT_OF_MEMORY);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    OK(cuMemGetInfo(&left, &total));
    CHECK(left == total);
    OK(cuMemFree(device_new(64 * MEGA)));
    context_close();
}

/* ---- streams */

static void order(void)
{
    context_open();
    CUstream s = stream_new();
    CUdeviceptr a = device_new(MEGA), b = device_new(MEGA);
    unsigned char *host = pinned_new(MEGA, 0);
    for (int i = 0; i < 20; i++) {
        OK(cuMemsetD8Async(a, (unsigned char)i, MEGA, s));
        OK(cuMemcpyDtoDAsync(b, a, MEGA, s));
        OK(cuMemsetD8Async(a, 99, MEGA, s));
        OK(cuMemcpyDtoHAsync(host, b, MEGA, s));
        OK(cuStreamSynchronize(s));
        CHECK(host[0] == i && host[MEGA - 1] == i);
    }
    OK(cuMemFree(a));
    OK(cuMemFree(b));
    OK(cuMemFreeHost(host));
    OK(cuStreamDestroy(s));
    IS(cuStreamDestroy(s), CUDA_ERROR_INVALID_HANDLE);
    context_close();
}

static void events(void)
{
    context_open();
    CUstream one = stream_new(), two = stream_new();
    CUevent e = event_new(), f = event_new();
    CUdeviceptr a = device_new(64), b = device_new(64);
    unsigned char *host = pinned_new(64, 0);
    OK(cuStreamWaitEvent(one, e, 0)); /* never recorded: done */
    OK(cuEventSynchronize(e));
    for (int i = 0; i < 10; i++) {
        OK(cuMemsetD8Async(a, (unsigned char)i, 64, one));
        OK(cuEventRecord(e, one));
        OK(cuStreamWaitEvent(two, e, 0));
        OK(cuMemcpyDtoDAsync(b, a, 64, two));
        OK(cuMemcpyDtoHAsync(host, b, 64, two));
        OK(cuEventRecord(f, two));
        OK(cuStreamWaitEvent(one, f, 0));
        OK(cuEventRecord(e, two)); /* the wait that is under way means the earlier one */
        OK(cuEventSynchronize(f));
        CHECK(host[0] == i && host[63] == i);
    }
    OK(cuEventRecord(e, one));
    OK(cuEventDestroy(e)); /* the stream keeps what it needs */
    IS(cuEventRecord(e, one), CUDA_ERROR_INVALID_HANDLE);
    OK(cuEventDestroy(f));
    OK(cuStreamDestroy(one));
    OK(cuStreamDestroy(two));
    OK(cuMemFree(a));
    OK(cuMemFree(b));
    OK(cuMemFreeHost(host));
    context_close();
}

/* Without the waits, the bytes are others: VGPU_LATE_US is set. */
static void missing_waits(void)
{
    context_open();
    CUstream one = stream_new(), two = stream_new();
    CUdeviceptr a = device_new(64);
    unsigned char *host = pinned_new(64, 7), pageable[64];
    OK(cuMemsetD8Async(a, 1, 64, one));
    OK(cuStreamSynchronize(one));
    OK(cuMemcpyDtoHAsync(host, a, 64, one)); /* no wait: not there yet */
    CHECK(byte_at(host, 0) == 7);
    OK(cuStreamSynchronize(one));
    CHECK(host[0] == 1);
    OK(cuMemcpyHtoDAsync(a, host, 64, one)); /* pinned memory is read later */
    for (size_t i = 0; i < 64; i++)
        byte_put(host, i, 9);
    OK(cuMemcpyDtoHAsync(pageable, a, 64, one)); /* waits by itself */
    CHECK(pageable[0] == 9);
    memset(pageable, 3, sizeof pageable);
    OK(cuMemcpyHtoDAsync(a, pageable, 64, one)); /* has been read */
    memset(pageable, 4, sizeof pageable);
    OK(cuMemcpyDtoHAsync(pageable, a, 64, one));
    CHECK(pageable[63] == 3);
    CUevent e = event_new();
    for (int i = 0; i < 4; i++)
        OK(cuMemsetD8Async(a, (unsigned char)(8 - i), 64, one));
    OK(cuEventRecord(e, one));
#ifndef __SANITIZE_THREAD__ /* which sees this race too */
    OK(cuMemcpyDtoHAsync(host, a, 64, two)); /* another stream, no event */
    OK(cuStreamSynchronize(two));
    CHECK(host[0] != 5);
#endif
    OK(cuStreamWaitEvent(two, e, 0));
    OK(cuMemcpyDtoHAsync(host, a, 64, two));
    OK(cuStreamSynchronize(two));
    CHECK(host[0] == 5);
    OK(cuMemsetD8Async(a, 6, 64, one));
    OK(cuMemFree(a)); /* after the work */
    OK(cuEventDestroy(e));
    OK(cuMemFreeHost(host));
    OK(cuStreamDestroy(one));
    OK(cuStreamDestroy(two));
    context_close();
}

struct my_work { CUdeviceptr at; int32_t add; };
static void my_work(const void *args)
{
    const struct my_work *w = args;
    if (vgpu_holds(w->at, 4))
        *(int32_t *)(uintptr_t)w->at += w->add;
    else
        vgpu_fail(CUDA_ERROR_ILLEGAL_ADDRESS, NULL);
}

static void other_work(void)
{
    context_open();
    CUstream s = stream_new();
    CUdeviceptr a = device_new(4);
    int32_t n = -1;
    struct my_work w = {a, 5};
    OK(vgpu_enter("cublasLtMatmul"));
    OK(cuMemsetD8Async(a, 0, 4, s));
    OK(vgpu_work(s, my_work, &w, sizeof w));
    w.add = 2;
    OK(vgpu_work(s, my_work, &w, sizeof w));
    OK(cuMemcpyDtoHAsync(&n, a, 4, s));
    CHECK(n == 7);
    OK(cuMemFree(a));
    OK(vgpu_work(s, my_work, &w, sizeof w));
    IS(cuStreamSynchronize(s), CUDA_ERROR_ILLEGAL_ADDRESS);
    IS(vgpu_enter("cublasLtMatmul"), CUDA_ERROR_ILLEGAL_ADDRESS);
    IS(cuMemAlloc(&a, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
    OK(cuDevicePrimaryCtxRelease(0));
    CUcontext c;
    IS(cuDevicePrimaryCtxRetain(&c, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
}

/* ---- kernels */

static const struct {
    uint32_t magic;
    uint16_t version, header;
    uint64_t bytes;
    uint16_t kind, entry_version;
    uint32_t entry_header;
    uint64_t entry_bytes;
    uint32_t packed, options;
    uint16_t minor, major;
    uint32_t arch;
    uint64_t rest[4];
} image = {0xBA55ED50u, 1, 16, 64, 2, 0x101, 64, 0, 0, 0, 0, 1, 90, {0}};

static CUfunction function_of(CUmodule m, const char *name)
{
    CUfunction f;
    OK(cuModuleGetFunction(&f, m, name));
    return f;
}

static struct k_operand vector_at(CUdeviceptr at, int n) { return (struct k_operand){at, K_F32, 1, 1, n, 1, 1}; }

static CUresult launch(CUfunction f, void *args, CUstream s)
{
    void *params[] = {args};
    return cuLaunchKernel(f, 4, 1, 1, 128, 1, 1, 0, s, params, NULL);
}

static void kernels(void)
{
    enum { N = 1000 };
    static float x[N], y[N];
    context_open();
    CUstream s = stream_new();
    CUmodule m;
    CUfunction f;
    uint32_t bad[16] = {0x12345678};
    IS(cuModuleLoadData(&m, bad), CUDA_ERROR_INVALID_IMAGE);
    OK(cuModuleLoadData(&m, &image));
    IS(cuModuleGetFunction(&f, m, "galley_nothing"), CUDA_ERROR_NOT_FOUND);
    f = function_of(m, "galley_binary");
    CHECK(f == function_of(m, "galley_binary"));
    for (int i = 0; i < N; i++)
        x[i] = (float)i;
    CUdeviceptr a = device_new(sizeof x), b = device_new(sizeof x);
    OK(cuMemcpyHtoDAsync(a, x, sizeof x, s));
    struct k_binary args = {.x = vector_at(a, N), .z = vector_at(a, N), .y = vector_at(b, N), .fn = K_ADD};
    OK(launch(f, &args, s));
    memset(&args, 0, sizeof args); /* has been read */
    OK(cuMemcpyDtoHAsync(y, b, sizeof y, s));
    for (int i = 0; i < N; i++)
        CHECK(y[i] == 2 * x[i]);
    void *params[] = {&args};
    IS(cuLaunchKernel(f, 0, 1, 1, 128, 1, 1, 0, s, params, NULL), CUDA_ERROR_INVALID_VALUE);
    IS(cuLaunchKernel(f, 1, 1, 1, 1025, 1, 1, 0, s, params, NULL), CUDA_ERROR_INVALID_VALUE);
    IS(cuLaunchKernel((CUfunction)(void *)s, 1, 1, 1, 128, 1, 1, 0, s, params, NULL), CUDA_ERROR_INVALID_HANDLE);
    if (!freopen("/dev/null", "w", stderr))
        return;
    args = (struct k_binary){.x = vector_at(a, N), .z = vector_at(a, N + 1), .y = vector_at(b, N)}; /* one too many */
    OK(launch(f, &args, s));
    IS(cuStreamSynchronize(s), CUDA_ERROR_ILLEGAL_ADDRESS);
    IS(cuMemFree(a), CUDA_ERROR_ILLEGAL_ADDRESS);
    OK(cuDevicePrimaryCtxRelease(0));
}

/* One of several threads of a program, with a stream of its own. */
static CUfunction many_function;
static void *many_thread(void *arg)
{
    CUcontext c = arg;
    OK(cuCtxSetCurrent(c));
    CUstream s = stream_new();
    CUevent e = event_new();
    float *host = (float *)(void *)pinned_new(4096, 0);
    for (int i = 0; i < 30; i++) {
        CUdeviceptr a = device_new(4096), b = device_new(4096);
        for (int k = 0; k < 1024; k++)
            host[k] = (float)(i + k);
        OK(cuMemcpyHtoDAsync(a, host, 4096, s));
        struct k_binary args = {.x = vector_at(a, 1024), .z = vector_at(a, 1024), .y = vector_at(b, 1024), .fn = K_MUL};
        OK(launch(many_function, &args, s));
        OK(cuMemcpyDtoHAsync(host, b, 4096, s));
        OK(cuEventRecord(e, s));
        OK(cuEventSynchronize(e));
        for (int k = 0; k < 1024; k++)
            CHECK(host[k] == (float)((i + k) * (i + k)));
        OK(cuMemFree(a));
        OK(cuMemFree(b));
    }
    OK(cuMemFreeHost(host));
    OK(cuEventDestroy(e));
    OK(cuStreamDestroy(s));
    return NULL;
}

static void many_threads(void)
{
    setenv("VGPU_SEED", "7", 1);
    setenv("VGPU_THREADS", "3", 1);
    CUcontext c = context_open();
    CUmodule m;
    pthread_t threads[3];
    OK(cuModuleLoadData(&m, &image));
    many_function = function_of(m, "galley_binary");
    for (int i = 0; i < 3; i++)
        CHECK(!pthread_create(&threads[i], NULL, many_thread, c));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    OK(cuModuleUnload(m));
    context_close();
}

/* ---- graphs */

/* double_graph captures a = a + a, copied to HOST. */
static CUgraphExec double_graph(CUfunction f, CUdeviceptr a, CUdeviceptr b, float *host, CUstream s)
{
    CUgraph g;
    CUgraphExec exec;
    CUevent e = event_new();
    OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    struct k_binary args = {.x = vector_at(a, 4), .z = vector_at(a, 4), .y = vector_at(b, 4), .fn = K_ADD};
    OK(launch(f, &args, s));
    OK(cuEventRecord(e, s));
    OK(cuStreamWaitEvent(s, e, 0));
    OK(cuMemcpyDtoDAsync(a, b, 16, s));
    OK(cuMemcpyDtoHAsync(host, a, 16, s));
    OK(cuStreamEndCapture(s, &g));
    IS(cuEventSynchronize(e), CUDA_ERROR_CAPTURED_EVENT);
    OK(cuEventDestroy(e));
    OK(cuGraphInstantiate(&exec, g, 0));
    OK(cuGraphDestroy(g));
    return exec;
}

static void graphs(void)
{
    context_open();
    CUstream s = stream_new();
    CUmodule m;
    OK(cuModuleLoadData(&m, &image));
    CUdeviceptr a = device_new(16), b = device_new(16);
    float *host = (float *)(void *)pinned_new(16, 0), one[4] = {1, 2, 3, 4};
    OK(cuMemcpyHtoDAsync(a, one, 16, s));
    CUgraphExec exec = double_graph(function_of(m, "galley_binary"), a, b, host, s);
    OK(cuStreamSynchronize(s));
    CHECK(host[0] == 0); /* nothing has run */
    for (int i = 1; i <= 5; i++) {
        OK(cuGraphLaunch(exec, s));
        if (i % 2)
            OK(cuStreamSynchronize(s));
    }
    CHECK(host[0] == 32 && host[3] == 128);
    OK(cuGraphLaunch(exec, s));
    OK(cuGraphExecDestroy(exec)); /* the launch goes on */
    IS(cuGraphLaunch(exec, s), CUDA_ERROR_INVALID_VALUE);
    OK(cuStreamSynchronize(s));
    CHECK(host[0] == 64);
    OK(cuModuleUnload(m));
    OK(cuMemFree(a));
    OK(cuMemFree(b));
    OK(cuMemFreeHost(host));
    OK(cuStreamDestroy(s));
    context_close();
}

static void capture_errors(void)
{
    context_open();
    CUstream s = stream_new(), other = stream_new();
    CUgraph g;
    CUdeviceptr a = device_new(16), p;
    CUevent e = event_new();
    IS(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    IS(cuStreamBeginCapture(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    IS(cuStreamSynchronize(s), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    IS(cuMemsetD8Async(a, 0, 16, s), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    IS(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK(!g);
    OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    IS(cuMemAlloc(&p, 16), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    IS(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    OK(cuEventRecord(e, other));
    OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuMemAlloc(&p, 16)); /* relaxed */
    OK(cuMemFree(p));
    IS(cuStreamWaitEvent(s, e, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    IS(cuStreamEndCapture(s, &g), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuMemsetD8Async(a, 0, 16, s)); /* left in the middle */
    OK(cuStreamDestroy(s));
    OK(cuEventDestroy(e));
    OK(cuMemFree(a));
    OK(cuStreamDestroy(other));
    context_close();
}

/* ---- faults */

static void faults(const char *plan) { setenv("VGPU_FAULTS", plan, 1); }

static void fault_oom(void)
{
    faults("0:memory:2:oom;1:*:1+:oom");
    context_open();
    CUdeviceptr p, q;
    OK(cuMemAlloc(&p, 16));
    IS(cuMemAlloc(&q, 16), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemAlloc(&q, 16));
    OK(cuMemFree(q));
    OK(cuMemFree(p));
    context_close();
}

static void fault_other_device(void)
{
    faults("1:cuMemAlloc_v2:1:oom"); /* number 1 of the machine, the first that is seen */
    setenv("CUDA_VISIBLE_DEVICES", "1", 1);
    context_open();
    CUdeviceptr p;
    IS(cuMemAlloc(&p, 16), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemAlloc(&p, 16));
    OK(cuMemFree(p));
    context_close();
}

static void fault_once(void)
{
    faults("0:cuMemsetD8Async:2:fail;0:cuMemsetD8Async:4+:error=999;0:cuMemGetInfo:1:slow=150;0:cublasLtMatmul:2:oom");
    context_open();
    CUdeviceptr p = device_new(16);
    size_t left, total;
    OK(cuMemsetD8Async(p, 0, 16, NULL));
    IS(cuMemsetD8Async(p, 0, 16, NULL), CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    OK(cuMemsetD8Async(p, 0, 16, NULL));
    IS(cuMemsetD8Async(p, 0, 16, NULL), CUDA_ERROR_UNKNOWN);
    IS(cuMemsetD8Async(p, 0, 16, NULL), CUDA_ERROR_UNKNOWN);
    double from = seconds();
    OK(cuMemGetInfo(&left, &total));
    CHECK(seconds() - from > 0.14);
    OK(vgpu_enter("cublasLtMatmul"));
    IS(vgpu_enter("cublasLtMatmul"), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemFree(p));
    context_close();
}

static void sticky_child(void)
{
    context_open();
    CUdeviceptr p = device_new(16);
    IS(cuMemsetD8Async(p, 0, 16, NULL), CUDA_ERROR_ILLEGAL_ADDRESS);
    IS(cuStreamSynchronize(NULL), CUDA_ERROR_ILLEGAL_ADDRESS);
    IS(cuMemFree(p), CUDA_ERROR_ILLEGAL_ADDRESS);
    OK(cuDevicePrimaryCtxRelease(0));
}

static void fine_child(void)
{
    context_open();
    CUdeviceptr p = device_new(16);
    OK(cuMemsetD8Async(p, 0, 16, NULL));
    OK(cuMemFree(p));
    context_close();
}

static void fault_sticky(void)
{
    setenv("VGPU_STATE", state, 1);
    faults("0:cuMemsetD8Async:1:sticky");
    CHECK(in_child(sticky_child) == 0);
    CHECK(in_child(fine_child) == 0); /* a new process mends it */
}

static void lost_child(void)
{
    context_open();
    CUdeviceptr p = device_new(16);
    IS(cuMemsetD8Async(p, 0, 16, NULL), CUDA_ERROR_DEVICE_UNAVAILABLE);
    IS(cuMemFree(p), CUDA_ERROR_DEVICE_UNAVAILABLE);
    OK(cuDevicePrimaryCtxRelease(0));
}

static void still_lost_child(void)
{
    CUcontext c;
    OK(cuInit(0));
    IS(cuDevicePrimaryCtxRetain(&c, 0), CUDA_ERROR_DEVICE_UNAVAILABLE);
    OK(cuDevicePrimaryCtxRetain(&c, 1)); /* its neighbour is not */
    OK(cuDevicePrimaryCtxRelease(1));
}

static void fault_lost(void)
{
    setenv("VGPU_STATE", state, 1);
    faults("0:cuMemsetD8Async:1:lost");
    CHECK(in_child(lost_child) == 0);
    CHECK(in_child(still_lost_child) == 0);
}

static void hang_child(void)
{
    context_open();
    CUdeviceptr p = device_new(16);
    alarm(1);
    OK(cuMemFree(p));
}

static void fault_hang(void)
{
    faults("0:cuMemFree:1:hang");
    int status = in_child(hang_child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
}

/* ---- counts */

/* count_of returns the count of NAME in SCOPE, 0 if it has no line. */
static long count_of(const char *path, const char *scope, const char *name)
{
    char s[64], n[64];
    long count, found = 0;
    FILE *f = fopen(path, "r");
    CHECK(f);
    while (fscanf(f, "%63s %63s %ld", s, n, &count) == 3)
        if (!strcmp(s, scope) && !strcmp(n, name))
            found = count;
    fclose(f);
    return found;
}

static char count_file[96];
static void count_child(void)
{
    context_open();
    CUstream s = stream_new();
    CUgraph g;
    CUgraphExec exec;
    CUdeviceptr p = device_new(16);
    OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuMemsetD8Async(p, 0, 16, s));
    OK(cuStreamEndCapture(s, &g));
    OK(cuGraphInstantiate(&exec, g, 0));
    for (int i = 0; i < 4; i++)
        OK(cuGraphLaunch(exec, s));
    OK(cuStreamSynchronize(s));
    device_new(16);
    context_close();
    _exit(0);
}

static void counts(void)
{
    snprintf(count_file, sizeof count_file, "%s/count", state);
    setenv("VGPU_COUNT", count_file, 1);
    CHECK(in_child(count_child) == 0);
    CHECK(count_of(count_file, "calls", "cuGraphLaunch") == 4 && count_of(count_file, "calls", "cuMemAlloc") == 2);
    CHECK(count_of(count_file, "after_first_graph_launch", "cuGraphLaunch") == 3);
    CHECK(count_of(count_file, "after_first_graph_launch", "cuMemAlloc") == 1);
    CHECK(count_of(count_file, "after_first_graph_launch", "cuStreamCreate") == 0);
    CHECK(count_of(count_file, "between_graph_launches", "cuGraphLaunch") == 3);
    CHECK(count_of(count_file, "between_graph_launches", "cuMemAlloc") == 0);
    CHECK(count_of(count_file, "left", "device_memory") == 2 && count_of(count_file, "left", "streams") == 1);
    CHECK(count_of(count_file, "left", "graphs") == 1 && count_of(count_file, "left", "events") == 0);
}

/* ---- processes */

static void forked_child(void)
{
    CUdeviceptr p;
    IS(cuMemAlloc(&p, 16), CUDA_ERROR_DEINITIALIZED);
#ifdef __SANITIZE_ADDRESS__
    _exit(0); /* what the threads of the parent had in hand looks like a leak here */
#endif
}

static void forks(void)
{
    context_open();
    CUstream s = stream_new();
    CUdeviceptr p = device_new(MEGA);
    for (int i = 0; i < 5; i++) {
        OK(cuMemsetD8Async(p, 1, MEGA, s));
        CHECK(in_child(forked_child) == 0);
        OK(cuMemsetD8Async(p, 2, MEGA, s));
    }
    if (!vfork())
        execlp("true", "true", (char *)NULL);
    CHECK(wait(NULL) > 0);
    /* and ends with work under way */
}

static void leave_in_the_middle(void)
{
    context_open();
    CUstream one = stream_new(), two = stream_new();
    CUdeviceptr p = device_new(64);
    CUevent e = event_new();
    for (int i = 0; i < 100; i++)
        OK(cuMemsetD8Async(p, 1, 64, one));
    OK(cuEventRecord(e, one));
    OK(cuStreamWaitEvent(two, e, 0));
}

/* ---- all of them */

static const struct {
    const char *name;
    void (*run)(void);
    const char *devices, *late;
} cases[] = {
    {"no_devices", no_devices, NULL, NULL},
    {"device_facts", device_facts, "3", NULL},
    {"visible_devices", visible_devices, "3", NULL},
    {"bad_settings", bad_settings, "1", NULL},
    {"contexts", contexts, "1", "500"},
    {"memory", memory, "1", NULL},
    {"shared_memory", shared_memory, "1", NULL},
    {"order", order, "1", NULL},
    {"order_late", order, "1", "300"},
    {"events", events, "1", NULL},
    {"events_late", events, "1", "1000"},
    {"missing_waits", missing_waits, "1", "80000"},
    {"other_work", other_work, "1", NULL},
    {"kernels", kernels, "1", NULL},
    {"many_threads", many_threads, "1", NULL},
    {"graphs", graphs, "1", NULL},
    {"graphs_late", graphs, "1", "2000"},
    {"capture_errors", capture_errors, "1", NULL},
    {"fault_oom", fault_oom, "2", NULL},
    {"fault_other_device", fault_other_device, "2", NULL},
    {"fault_once", fault_once, "1", NULL},
    {"fault_sticky", fault_sticky, "1", NULL},
    {"fault_lost", fault_lost, "2", NULL},
    {"fault_hang", fault_hang, "1", NULL},
    {"counts", counts, "1", NULL},
    {"forks", forks, "1", "1000"},
    {"leave_in_the_middle", leave_in_the_middle, "1", "3000"},
};

static size_t at;
static void one_case(void)
{
    static const char *const clear[] = {"VGPU_DEVICES", "VGPU_STATE", "VGPU_FAULTS", "VGPU_COUNT", "VGPU_LATE_US", "CUDA_VISIBLE_DEVICES"};
    for (size_t i = 0; i < sizeof clear / sizeof *clear; i++)
        unsetenv(clear[i]);
    setenv("VGPU_MEMORY", "64M", 1);
    if (cases[at].devices)
        setenv("VGPU_DEVICES", cases[at].devices, 1);
    if (cases[at].late)
        setenv("VGPU_LATE_US", cases[at].late, 1);
    cases[at].run();
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (at = 0; at < sizeof cases / sizeof *cases; at++) {
        if (argc > 1 && strcmp(argv[1], cases[at].name))
            continue;
        snprintf(state, sizeof state, "/tmp/galley-vgpu-XXXXXX");
        CHECK(mkdtemp(state));
        int status = in_child(one_case);
        char command[96];
        snprintf(command, sizeof command, "rm -rf '%s'", state);
        CHECK(!system(command));
        printf("%-24s %s\n", cases[at].name, status ? "FAILED" : "ok");
        failed += status != 0;
    }
    return failed != 0;
}
