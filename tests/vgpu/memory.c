/* Memory of the devices (it is the host's, but only work of the rig may touch it), pinned memory, copies; how processes share a device. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/vgpu/inside.h"

enum {
    PATTERN = 0xff,         /* fresh memory: NaN in every float */
    GRAIN = 512,            /* device memory is given in multiples of it */
    SLOTS = 64              /* processes on one device */
};

/* ---- a device among processes: a file in VGPU_STATE. A process has the slot whose byte of the file it locks; the slot of one that has
 * died is free and so is its memory. */

struct account {
    uint64_t used[SLOTS];
    uint32_t lost;
};

static int account_lock(int fd, int command, short type, off_t at)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    int r;
    do
        r = fcntl(fd, command, &l);
    while (r && errno == EINTR && command == F_OFD_SETLKW);
    return r ? -1 : command == F_OFD_GETLK && l.l_type != F_UNLCK;
}

static void account_begin(CUcontext c) { (void)!account_lock(c->account_file, F_OFD_SETLKW, F_WRLCK, SLOTS); }
static void account_end(CUcontext c) { (void)!account_lock(c->account_file, F_OFD_SETLK, F_UNLCK, SLOTS); }

bool account_open(CUcontext c)
{
    char path[512];
    if (!rig.state)
        return true;
    snprintf(path, sizeof path, "%s/device-%d", rig.state, c->number);
    c->account_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (c->account_file < 0)
        return false;
    account_begin(c);
    bool sized = !ftruncate(c->account_file, sizeof *c->account);
    account_end(c);
    void *at = sized ? mmap(NULL, sizeof *c->account, PROT_READ | PROT_WRITE, MAP_SHARED, c->account_file, 0) : MAP_FAILED;
    if (at == MAP_FAILED)
        return false;
    c->account = at;
    c->account_slot = 0;
    while (c->account_slot < SLOTS && account_lock(c->account_file, F_OFD_SETLK, F_WRLCK, c->account_slot))
        c->account_slot++;
    if (c->account_slot == SLOTS)
        return false;
    account_begin(c);
    c->account->used[c->account_slot] = 0;
    account_end(c);
    return true;
}

bool account_is_lost(CUcontext c) { return c->lost || (c->account && __atomic_load_n(&c->account->lost, __ATOMIC_RELAXED)); }

void account_lose(CUcontext c)
{
    c->lost = true;
    if (c->account)
        __atomic_store_n(&c->account->lost, 1, __ATOMIC_RELAXED);
}

/* account_used returns what all processes have of C, without those that died. Between begin and end. */
static size_t account_used(CUcontext c)
{
    size_t used = c->used;
    for (int i = 0; i < SLOTS; i++) {
        uint64_t *slot = &c->account->used[i];
        if (i == c->account_slot || !*slot)
            continue;
        if (account_lock(c->account_file, F_OFD_GETLK, F_WRLCK, i) == 1)
            used += *slot;
        else
            *slot = 0;
    }
    return used;
}

static size_t used_of(CUcontext c)
{
    if (!c->account)
        return c->used;
    account_begin(c);
    size_t used = account_used(c);
    account_end(c);
    return used < c->total ? used : c->total;
}

/* charge adds BYTES to what this process has of C; false: the device has not that much left. */
static bool charge(CUcontext c, size_t bytes)
{
    if (c->account)
        account_begin(c);
    size_t used = c->account ? account_used(c) : c->used;
    bool fits = used <= c->total && bytes <= c->total - used;
    if (fits) {
        c->used += bytes;
        if (c->account)
            c->account->used[c->account_slot] = c->used;
    }
    if (c->account)
        account_end(c);
    return fits;
}

static void discharge(CUcontext c, size_t bytes)
{
    c->used -= bytes;
    if (!c->account)
        return;
    account_begin(c);
    c->account->used[c->account_slot] = c->used;
    account_end(c);
}

/* ---- what is allocated, in the order of addresses */

struct range {
    uintptr_t at;
    size_t bytes;
    CUcontext context;
};
struct ranges {
    struct range *at;
    size_t count, room;
};
static struct ranges device_memory, host_memory;

/* range_after returns the index of the first range that begins after AT. */
static size_t range_after(const struct ranges *r, uintptr_t at)
{
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->at[middle].at <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* range_of returns the range that holds [AT, AT + BYTES), NULL if none does. */
static struct range *range_of(const struct ranges *r, uintptr_t at, size_t bytes)
{
    size_t i = range_after(r, at);
    if (!i)
        return NULL;
    struct range *found = &r->at[i - 1];
    size_t offset = at - found->at;
    return offset < found->bytes && bytes <= found->bytes - offset ? found : NULL;
}

/* range_new allocates BYTES and fills them with what no program wants. */
static void *range_new(struct ranges *r, size_t alignment, size_t bytes, CUcontext context)
{
    void *p;
    if (r->count == r->room) {
        size_t room = r->room ? 2 * r->room : 64;
        struct range *more = realloc(r->at, room * sizeof *more);
        if (!more)
            return NULL;
        r->at = more;
        r->room = room;
    }
    if (posix_memalign(&p, alignment, bytes))
        return NULL;
    memset(p, PATTERN, bytes);
    size_t i = range_after(r, (uintptr_t)p);
    memmove(&r->at[i + 1], &r->at[i], (r->count++ - i) * sizeof *r->at);
    r->at[i] = (struct range){(uintptr_t)p, bytes, context};
    return p;
}

static void range_free(struct ranges *r, struct range *of)
{
    free((void *)of->at);
    memmove(of, of + 1, (size_t)(r->at + --r->count - of) * sizeof *of);
    if (r->count)
        return;
    free(r->at);
    *r = (struct ranges){0};
}

static size_t grains(size_t bytes) { return (bytes + GRAIN - 1) / GRAIN * GRAIN; }

void memory_drop(CUcontext context)
{
    for (size_t i = device_memory.count; i-- > 0;)
        if (device_memory.at[i].context == context)
            range_free(&device_memory, &device_memory.at[i]);
    discharge(context, context->used);
    for (size_t i = host_memory.count; i-- > 0;)
        if (host_memory.at[i].context == context)
            range_free(&host_memory, &host_memory.at[i]);
}

long memory_left(CUcontext context, bool host)
{
    const struct ranges *r = host ? &host_memory : &device_memory;
    long n = 0;
    for (size_t i = 0; i < r->count; i++)
        n += r->at[i].context == context;
    return n;
}

static bool holds(CUdeviceptr at, size_t bytes)
{
    const struct range *r = range_of(&device_memory, at, bytes);
    return r && r->context == context_here;
}

ENTRY bool vgpu_holds(CUdeviceptr at, size_t bytes)
{
    rig_lock();
    bool yes = holds(at, bytes);
    rig_unlock();
    return yes;
}

/* ---- calls */

ENTRY CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
    CUresult r = enter("cuMemGetInfo", context_here, ENTER_CONTEXT);
    if (r || !free || !total)
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    rig_lock();
    *total = context_here->total;
    *free = *total - used_of(context_here);
    rig_unlock();
    return CUDA_SUCCESS;
}

ENTRY CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
{
    CUresult r = enter("cuMemAlloc", context_here, ENTER_CONTEXT);
    if (r || !dptr || !bytesize)
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    rig_lock();
    r = capture_forbids();
    if (!r && (bytesize > SIZE_MAX / 2 || !charge(context_here, grains(bytesize))))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    if (!r) {
        *dptr = (CUdeviceptr)(uintptr_t)range_new(&device_memory, GRAIN, bytesize, context_here);
        if (!*dptr) {
            discharge(context_here, grains(bytesize));
            r = CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    rig_unlock();
    return r;
}

/* free_range frees what begins at AT, after all work that may touch it. */
static CUresult free_range(struct ranges *from, uintptr_t at)
{
    CUresult r = capture_forbids();
    if (r)
        return r;
    stream_idle(context_here);
    struct range *range = range_of(from, at, 1);
    if (!range || range->at != at || (from == &device_memory && range->context != context_here))
        return CUDA_ERROR_INVALID_VALUE;
    if (from == &device_memory)
        discharge(range->context, grains(range->bytes));
    range_free(from, range);
    return context_here->error;
}

ENTRY CUresult cuMemFree_v2(CUdeviceptr dptr)
{
    CUresult r = enter("cuMemFree", context_here, ENTER_CONTEXT);
    if (r || !dptr)
        return r;
    rig_lock();
    r = free_range(&device_memory, dptr);
    rig_unlock();
    return r;
}

ENTRY CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
    CUresult r = enter("cuMemHostAlloc", context_here, ENTER_CONTEXT);
    unsigned known = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    if (r || !pp || !bytesize || (Flags & ~known))
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    rig_lock();
    r = capture_forbids();
    if (!r && (bytesize > SIZE_MAX / 2 || !(*pp = range_new(&host_memory, 4096, bytesize, context_here))))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    rig_unlock();
    return r;
}

ENTRY CUresult cuMemFreeHost(void *p)
{
    CUresult r = enter("cuMemFreeHost", context_here, ENTER_CONTEXT);
    if (r || !p)
        return r ? r : CUDA_ERROR_INVALID_VALUE;
    rig_lock();
    r = free_range(&host_memory, (uintptr_t)p);
    rig_unlock();
    return r;
}

/* ---- copies. A side is checked when the call is made, and again when the copy runs: a graph may outlive what it copies. */

struct copy {
    uintptr_t dst, src;
    size_t bytes;
    enum { SIDE_DEVICE = 1, SIDE_PINNED = 2 } dst_side, src_side; /* 0: pageable memory, not checked */
    void *staged;           /* the bytes to copy, read when the call was made; owned */
};

static bool side_holds(int side, uintptr_t at, size_t bytes)
{
    return side == SIDE_DEVICE ? holds(at, bytes) : side == SIDE_PINNED ? range_of(&host_memory, at, bytes) != NULL : true;
}

static void copy_run(const void *args)
{
    const struct copy *c = args;
    rig_lock();
    bool fine = side_holds(c->dst_side, c->dst, c->bytes) && (c->staged || side_holds(c->src_side, c->src, c->bytes));
    rig_unlock();
    if (!fine)
        vgpu_fail(CUDA_ERROR_ILLEGAL_ADDRESS, "a copy touches memory that was freed");
    else
        memmove((void *)c->dst, c->staged ? c->staged : (void *)c->src, c->bytes);
}

static void copy_drop(const void *args) { free(((const struct copy *)args)->staged); }

/* copy_put enqueues C; one that reads pageable memory reads it now, one that writes such memory is done when it returns. Neither while the
 * stream is being captured. */
static CUresult copy_put(CUstream stream, struct copy *c)
{
    CUresult r = stream_find(&stream);
    if (r || !c->bytes)
        return r;
    bool from = c->src && (c->src_side != SIDE_DEVICE || holds(c->src, c->bytes));
    bool to = c->dst && (c->dst_side != SIDE_DEVICE || holds(c->dst, c->bytes));
    if (!from || !to)
        return CUDA_ERROR_INVALID_VALUE;
    bool captured = stream->capture;
    if (!c->src_side && !captured) {
        c->staged = malloc(c->bytes);
        if (!c->staged)
            return CUDA_ERROR_OUT_OF_MEMORY;
        memcpy(c->staged, (void *)c->src, c->bytes);
    }
    r = stream_put(stream, copy_run, copy_drop, c, sizeof *c);
    if (r)
        free(c->staged);
    return r || c->dst_side || captured ? r : stream_wait(stream);
}

static CUresult copy_call(const char *call, CUstream stream, uintptr_t dst, int dst_side, uintptr_t src, int src_side, size_t bytes)
{
    CUresult r = enter(call, context_here, ENTER_CONTEXT);
    if (r)
        return r;
    struct copy c = {.dst = dst, .src = src, .bytes = bytes, .dst_side = dst_side, .src_side = src_side};
    rig_lock();
    if (!dst_side && range_of(&host_memory, dst, bytes))
        c.dst_side = SIDE_PINNED;
    if (!src_side && range_of(&host_memory, src, bytes))
        c.src_side = SIDE_PINNED;
    r = copy_put(stream, &c);
    rig_unlock();
    return r;
}

ENTRY CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)
{
    return copy_call("cuMemcpyHtoDAsync", hStream, dstDevice, SIDE_DEVICE, (uintptr_t)srcHost, 0, ByteCount);
}

ENTRY CUresult cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
    return copy_call("cuMemcpyDtoHAsync", hStream, (uintptr_t)dstHost, 0, srcDevice, SIDE_DEVICE, ByteCount);
}

ENTRY CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
    return copy_call("cuMemcpyDtoDAsync", hStream, dstDevice, SIDE_DEVICE, srcDevice, SIDE_DEVICE, ByteCount);
}

struct fill {
    CUdeviceptr at;
    size_t bytes;
    int byte;
};

static void fill_run(const void *args)
{
    const struct fill *f = args;
    if (vgpu_holds(f->at, f->bytes))
        memset((void *)(uintptr_t)f->at, f->byte, f->bytes);
    else
        vgpu_fail(CUDA_ERROR_ILLEGAL_ADDRESS, "a fill touches memory that was freed");
}

ENTRY CUresult cuMemsetD8Async(CUdeviceptr dstDevice, unsigned char uc, size_t N, CUstream hStream)
{
    CUresult r = enter("cuMemsetD8Async", context_here, ENTER_CONTEXT);
    if (r)
        return r;
    struct fill f = {dstDevice, N, uc};
    rig_lock();
    r = stream_find(&hStream);
    if (!r && N)
        r = holds(dstDevice, N) ? stream_put(hStream, fill_run, NULL, &f, sizeof f) : CUDA_ERROR_INVALID_VALUE;
    rig_unlock();
    return r;
}
