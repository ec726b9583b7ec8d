/* Device memory and what goes in and out of it: through pinned memory, in slots that are used in turn, so that the host fills one while
 * others travel. */
#include <stdlib.h>
#include <string.h>

#include "worker/backend/cuda/core.h"

enum {
    SMALL_BYTES = 16 << 10,
    SMALL_SLOTS = 64, /* coefficients, vectors: many may be under way before the host waits for a slot */
    LARGE_BYTES = SCRATCH_BYTES,
    LARGE_SLOTS = 4
};

struct ring {
    unsigned char *slots;
    size_t slot_bytes;
    int n, next;
    CUevent done[SMALL_SLOTS]; /* the slot's last transfer */
    bool busy[SMALL_SLOTS];    /* which may be under way: nobody has waited for it yet */
};

struct staging {
    void *pinned; /* both rings' slots */
    struct ring small, large;
    CUdeviceptr scratch;
    CUevent joined;
};

static enum status ring_open(struct ring *r, unsigned char *slots, size_t slot_bytes, int n, struct error *err)
{
    *r = (struct ring){.slots = slots, .slot_bytes = slot_bytes};
    for (; r->n < n; r->n++)
        CU(err, "making an event", cu.event_new(&r->done[r->n], CU_EVENT_DISABLE_TIMING));
    return ST_OK;
}

static void ring_close(struct ring *r)
{
    while (r->n > 0)
        (void)cu.event_free(r->done[--r->n]);
}

enum status staging_open(struct cuda_backend *b, struct error *err)
{
    struct staging *s = b->staging = calloc(1, sizeof *s);
    if (!s)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a backend");
    CU(err, "allocating pinned memory",
       cu.host_alloc(&s->pinned, (size_t)SMALL_BYTES * SMALL_SLOTS + (size_t)LARGE_BYTES * LARGE_SLOTS, 0));
    CU(err, "allocating device memory for uploads", cu.mem_alloc(&s->scratch, SCRATCH_BYTES));
    CU(err, "making an event", cu.event_new(&s->joined, CU_EVENT_DISABLE_TIMING));
    TRY(ring_open(&s->small, s->pinned, SMALL_BYTES, SMALL_SLOTS, err));
    return ring_open(&s->large, (unsigned char *)s->pinned + (size_t)SMALL_BYTES * SMALL_SLOTS, LARGE_BYTES, LARGE_SLOTS, err);
}

void staging_close(struct cuda_backend *b)
{
    struct staging *s = b->staging;
    if (!s)
        return;
    ring_close(&s->small);
    ring_close(&s->large);
    if (s->joined)
        (void)cu.event_free(s->joined);
    if (s->scratch)
        (void)cu.mem_free(s->scratch);
    if (s->pinned)
        (void)cu.host_free(s->pinned);
    free(s);
    b->staging = NULL;
}

CUdeviceptr staging_scratch(const struct cuda_backend *b) { return b->staging->scratch; }

static struct ring *ring_for(const struct cuda_backend *b, size_t bytes)
{
    return bytes <= SMALL_BYTES ? &b->staging->small : &b->staging->large;
}

/* arrive waits for the last transfer of SLOT. */
static enum status arrive(struct ring *r, int slot, struct error *err)
{
    CU(err, "waiting for a transfer", cu.event_sync(r->done[slot]));
    r->busy[slot] = false;
    return ST_OK;
}

/* take waits until the next slot of R is free and returns its number in *RET. */
static enum status take(struct ring *r, int *ret, struct error *err)
{
    if (r->busy[r->next])
        TRY(arrive(r, r->next, err));
    *ret = r->next;
    r->next = (r->next + 1) % r->n;
    return ST_OK;
}

/* taken marks SLOT as used by what STREAM has been given. */
static enum status taken(struct ring *r, int slot, CUstream stream, struct error *err)
{
    CUresult e = cu.event_record(r->done[slot], stream);
    r->busy[slot] = e == CUDA_SUCCESS;
    if (r->busy[slot])
        return ST_OK;
    (void)cu.stream_sync(stream); /* or the next user of the slot would not know that it has to wait */
    return driver_fail(err, e, "marking a transfer");
}

static unsigned char *slot_at(const struct ring *r, int i) { return r->slots + (size_t)i * r->slot_bytes; }

enum status staging_send(struct cuda_backend *b, CUstream stream, CUdeviceptr to, const void *from, size_t bytes, struct error *err)
{
    const unsigned char *at = from;
    while (bytes) {
        struct ring *r = ring_for(b, bytes);
        size_t n = bytes < r->slot_bytes ? bytes : r->slot_bytes;
        int slot = 0;
        TRY(take(r, &slot, err));
        memcpy(slot_at(r, slot), at, n);
        CU(err, "upload", cu.to_device(to, slot_at(r, slot), n, stream));
        TRY(taken(r, slot, stream, err));
        to += n;
        at += n;
        bytes -= n;
    }
    return ST_OK;
}

enum status staging_join(struct cuda_backend *b, struct error *err)
{
    CU(err, "joining the streams", cu.event_record(b->staging->joined, b->copies));
    CU(err, "joining the streams", cu.stream_wait(b->stream, b->staging->joined, 0));
    return ST_OK;
}

/* fetch copies device bytes at FROM to the host: every slot of the ring is asked for a piece, and emptied in the same order. */
static enum status fetch(struct cuda_backend *b, unsigned char *to, CUdeviceptr from, size_t bytes, struct error *err)
{
    struct ring *r = ring_for(b, bytes);
    size_t asked = 0, got = 0;
    int slot = 0, oldest = r->next, under_way = 0;
    while (got < bytes) {
        for (; asked < bytes && under_way < r->n; under_way++) {
            size_t n = bytes - asked < r->slot_bytes ? bytes - asked : r->slot_bytes;
            TRY(take(r, &slot, err));
            CU(err, "download", cu.to_host(slot_at(r, slot), from + asked, n, b->stream));
            TRY(taken(r, slot, b->stream, err));
            asked += n;
        }
        size_t n = bytes - got < r->slot_bytes ? bytes - got : r->slot_bytes;
        TRY(arrive(r, oldest, err));
        memcpy(to + got, slot_at(r, oldest), n);
        got += n;
        oldest = (oldest + 1) % r->n;
        under_way--;
    }
    return ST_OK;
}

static enum status room(const struct cuda_backend *b, size_t *ret_free, size_t *ret_total, struct error *err)
{
    size_t spare = 0;
    CU(err, "asking for the free memory", cu.memory_info(&spare, ret_total));
    *ret_free = spare > b->reserve_bytes ? spare - b->reserve_bytes : 0;
    return ST_OK;
}

enum status cuda_memory(struct backend *backend, struct backend_memory *ret, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    size_t spare = 0, total = 0;
    TRY(cuda_alive(b, err));
    TRY(cuda_settle(b, room(b, &spare, &total, err), err));
    *ret = (struct backend_memory){.free_bytes = spare, .total_bytes = total, .used_bytes = b->used_bytes};
    return ST_OK;
}

enum status cuda_alloc(struct cuda_backend *b, size_t bytes, struct bmem **ret, struct error *err)
{
    size_t spare = SIZE_MAX, total = 0;
    CUdeviceptr at = 0;
    if (b->reserve_bytes)
        TRY(room(b, &spare, &total, err));
    CUresult r = bytes <= spare ? cu.mem_alloc(&at, bytes ? bytes : 1) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r == CUDA_ERROR_OUT_OF_MEMORY) {
        TRY(room(b, &spare, &total, err));
        return FAIL(err, OUT_OF_MEMORY, "out of device memory: %zu bytes needed, %zu free", bytes, spare);
    }
    CU(err, "allocating device memory", r);
    struct bmem *m = malloc(sizeof *m);
    if (!m) {
        (void)cu.mem_free(at);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a region");
    }
    *m = (struct bmem){.bytes = bytes, .at = at};
    b->used_bytes += bytes;
    *ret = m;
    return ST_OK;
}

static enum status new_zeroed(struct cuda_backend *b, size_t bytes, struct bmem **ret, struct error *err)
{
    TRY(cuda_alloc(b, bytes, ret, err));
    CUresult r = bytes ? cu.fill((*ret)->at, 0, bytes, b->stream) : CUDA_SUCCESS;
    if (r == CUDA_SUCCESS)
        return ST_OK;
    cuda_mem_free(&b->base, *ret);
    *ret = NULL;
    return driver_fail(err, r, "clearing device memory");
}

enum status cuda_mem_new(struct backend *backend, size_t bytes, struct bmem **ret, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    return cuda_settle(b, new_zeroed(b, bytes, ret, err), err);
}

void cuda_mem_free(struct backend *backend, struct bmem *m)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    if (!m)
        return;
    if (b->lost == ST_OK) {
        (void)cu.stream_sync(b->copies);
        (void)cu.stream_sync(b->stream);
    }
    (void)cu.mem_free(m->at); /* an error that is still under way is told by the next call that can tell it */
    b->used_bytes -= m->bytes;
    free(m);
}

static enum status inside(const char *call, const struct bmem *m, size_t offset, size_t bytes, struct error *err)
{
    if (offset <= m->bytes && bytes <= m->bytes - offset)
        return ST_OK;
    return FAIL(err, INTERNAL, "%s: %zu bytes at %zu do not fit a region of %zu", call, bytes, offset, m->bytes);
}

enum status cuda_upload(struct backend *backend, struct bmem *dst, size_t offset, const void *src, size_t bytes, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    TRY(inside("upload", dst, offset, bytes, err));
    return cuda_settle(b, staging_send(b, b->stream, dst->at + offset, src, bytes, err), err);
}

enum status cuda_download(struct backend *backend, const struct bmem *src, size_t offset, void *dst, size_t bytes, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    TRY(inside("download", src, offset, bytes, err));
    return cuda_settle(b, fetch(b, dst, src->at + offset, bytes, err), err);
}

static enum status copy(struct cuda_backend *b, CUdeviceptr to, CUdeviceptr from, size_t bytes, struct error *err)
{
    if (to == from || !bytes)
        return ST_OK;
    if (to < from + bytes && from < to + bytes)
        return FAIL(err, INTERNAL, "copy: %zu bytes overlap, %zu apart", bytes, (size_t)(to > from ? to - from : from - to));
    CU(err, "copy", cu.device_copy(to, from, bytes, b->stream));
    return ST_OK;
}

enum status cuda_copy(struct backend *backend, struct bmem *dst, size_t dst_offset, const struct bmem *src, size_t src_offset, size_t bytes,
                      struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    TRY(inside("copy to", dst, dst_offset, bytes, err));
    TRY(inside("copy from", src, src_offset, bytes, err));
    return cuda_settle(b, copy(b, dst->at + dst_offset, src->at + src_offset, bytes, err), err);
}

static enum status set_bytes(struct cuda_backend *b, CUdeviceptr at, int byte, size_t bytes, struct error *err)
{
    if (bytes)
        CU(err, "fill", cu.fill(at, (unsigned char)byte, bytes, b->stream));
    return ST_OK;
}

enum status cuda_fill(struct backend *backend, struct bmem *dst, size_t offset, int byte, size_t bytes, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    TRY(inside("fill", dst, offset, bytes, err));
    return cuda_settle(b, set_bytes(b, dst->at + offset, byte, bytes, err), err);
}

/* wait_all waits for the one stream: what goes on b->copies is joined to it. No transfer is under way after it. */
static enum status wait_all(struct cuda_backend *b, struct error *err)
{
    CU(err, "waiting for the device", cu.stream_sync(b->stream));
    memset(b->staging->small.busy, 0, sizeof b->staging->small.busy);
    memset(b->staging->large.busy, 0, sizeof b->staging->large.busy);
    return ST_OK;
}

enum status cuda_sync(struct backend *backend, struct error *err)
{
    struct cuda_backend *b = (struct cuda_backend *)backend;
    TRY(cuda_alive(b, err));
    return cuda_settle(b, wait_all(b, err), err);
}
