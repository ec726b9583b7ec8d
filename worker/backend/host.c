#include "worker/backend/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "worker/backend/check.h"

enum {
    HUGE_FROM = 4 << 20,      /* worth huge pages */
    CHECK_FROM = 16 << 20     /* worth asking the system what is free: less would not be refused anyway */
};

/* cgroup_number reads the one number of a control file of the cgroup that the mount shows, SIZE_MAX for "max" or no file. */
static size_t cgroup_number(const char *name)
{
    char path[64], text[32] = "";
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s", name);
    FILE *f = fopen(path, "re");
    if (!f)
        return SIZE_MAX;
    char *got = fgets(text, sizeof text, f);
    fclose(f);
    char *end;
    unsigned long long v = got ? strtoull(text, &end, 10) : 0;
    return got && end != text ? (size_t)v : SIZE_MAX;
}

enum status host_memory(struct backend *b, struct backend_memory *ret, struct error *err)
{
    struct host_backend *h = (struct host_backend *)b;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f)
        return FAIL_ERRNO(err, "/proc/meminfo");
    unsigned long long total_kb = 0, free_kb = 0;
    char line[128];
    while (fgets(line, sizeof line, f)) {
        (void)sscanf(line, "MemTotal: %llu kB", &total_kb);
        (void)sscanf(line, "MemAvailable: %llu kB", &free_kb);
    }
    fclose(f);
    struct backend_memory m = {.free_bytes = (size_t)free_kb << 10, .total_bytes = (size_t)total_kb << 10, .used_bytes = h->used_bytes};
    size_t limit = cgroup_number("memory.max"), current = cgroup_number("memory.current");
    if (limit < m.total_bytes) {
        size_t left = current < limit ? limit - current : 0;
        m.total_bytes = limit;
        m.free_bytes = left < m.free_bytes ? left : m.free_bytes;
    }
    m.free_bytes = m.free_bytes > h->reserve_bytes ? m.free_bytes - h->reserve_bytes : 0;
    *ret = m;
    return ST_OK;
}

enum status host_mem_new(struct backend *b, size_t bytes, struct bmem **ret, struct error *err)
{
    struct host_backend *h = (struct host_backend *)b;
    struct backend_memory now = {.free_bytes = SIZE_MAX};
    if (bytes >= CHECK_FROM)
        TRY(host_memory(b, &now, err));
    struct bmem *m = bytes <= now.free_bytes ? calloc(1, sizeof *m) : NULL;
    void *data = MAP_FAILED;
    if (m)
        data = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        free(m);
        TRY(host_memory(b, &now, err));
        return FAIL(err, OUT_OF_MEMORY, "out of memory: %zu bytes needed, %zu free", bytes, now.free_bytes);
    }
    if (bytes >= HUGE_FROM)
        (void)madvise(data, bytes, MADV_HUGEPAGE);
    *m = (struct bmem){.bytes = bytes, .data = data};
    h->used_bytes += bytes;
    *ret = m;
    return ST_OK;
}

void host_mem_free(struct backend *b, struct bmem *m)
{
    if (!m)
        return;
    ((struct host_backend *)b)->used_bytes -= m->bytes;
    munmap(m->data, m->bytes ? m->bytes : 1);
    free(m);
}

static enum status inside(const char *call, const struct bmem *m, size_t offset, size_t bytes, struct error *err)
{
    if (offset <= m->bytes && bytes <= m->bytes - offset)
        return ST_OK;
    return FAIL(err, INTERNAL, "%s: %zu bytes at %zu do not fit a region of %zu", call, bytes, offset, m->bytes);
}

enum status host_upload(struct backend *b, struct bmem *dst, size_t offset, const void *src, size_t bytes, struct error *err)
{
    (void)b;
    TRY(inside("upload", dst, offset, bytes, err));
    if (bytes)
        memcpy(dst->data + offset, src, bytes);
    return ST_OK;
}

enum status host_download(struct backend *b, const struct bmem *src, size_t offset, void *dst, size_t bytes, struct error *err)
{
    (void)b;
    TRY(inside("download", src, offset, bytes, err));
    if (bytes)
        memcpy(dst, src->data + offset, bytes);
    return ST_OK;
}

enum status host_copy(struct backend *b, struct bmem *dst, size_t dst_offset, const struct bmem *src, size_t src_offset, size_t bytes,
                      struct error *err)
{
    (void)b;
    TRY(inside("copy to", dst, dst_offset, bytes, err));
    TRY(inside("copy from", src, src_offset, bytes, err));
    memmove(dst->data + dst_offset, src->data + src_offset, bytes);
    return ST_OK;
}

enum status host_fill(struct backend *b, struct bmem *dst, size_t offset, int byte, size_t bytes, struct error *err)
{
    (void)b;
    TRY(inside("fill", dst, offset, bytes, err));
    memset(dst->data + offset, byte, bytes);
    return ST_OK;
}

enum status host_sync(struct backend *b, struct error *err)
{
    (void)b;
    (void)err;
    return ST_OK;
}

enum status host_weight_new(struct backend *b, const struct weight_source *source, struct bweight **ret, struct error *err)
{
    (void)b;
    TRY(weight_check(source, err));
    struct bweight *w = calloc(1, sizeof *w);
    if (!w)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a weight");
    w->source = *source;
    *ret = w;
    return ST_OK;
}
