/* Safetensors: any bytes as a file. Every byte of every tensor that is handed out must be readable. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/engine/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sum;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("model.safetensors", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct safetensors *s = NULL;
    struct error err = {0};
    enum status status = safetensors_open(path, &s, &err);
    if (status != ST_OK && !err.message[0])
        abort();
    for (size_t i = 0; status == ST_OK && i < safetensors_count(s); i++) {
        const struct st_entry *e = safetensors_at(s, i);
        if (!e->name || !e->raw_dtype || e->ndim < 0 || e->ndim > 8 || e->bytes > size)
            abort();
        for (size_t k = 0; k < e->bytes; k++)
            sum += ((const unsigned char *)e->data)[k];
        if (!safetensors_find(s, e->name))
            abort();
    }
    if (status == ST_OK)
        safetensors_close(s);
    close(fd);
    return 0;
}
