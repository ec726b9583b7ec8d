/* What the backends whose device memory is the host's share (ref, cpu): memory, transfers, weights as mapped. */
#pragma once
#include "worker/backend/backend.h"

struct bmem {
    size_t bytes;
    unsigned char *data; /* at a page boundary, zeroed */
};

struct weight_layout; /* the backend's own: one repacked copy of a weight */

struct bweight {
    struct weight_source source; /* first: see weight_source_of */
    struct weight_layout *layouts;
};

struct host_backend {
    struct backend base;
    size_t used_bytes, reserve_bytes;
};

/* These fill the slots of struct backend_api for a backend that begins with a struct host_backend. */
NODISCARD enum status host_memory(struct backend *b, struct backend_memory *ret, struct error *err);
NODISCARD enum status host_mem_new(struct backend *b, size_t bytes, struct bmem **ret, struct error *err);
void host_mem_free(struct backend *b, struct bmem *m);
NODISCARD enum status host_upload(struct backend *b, struct bmem *dst, size_t offset, const void *src, size_t bytes, struct error *err);
NODISCARD enum status host_download(struct backend *b, const struct bmem *src, size_t offset, void *dst, size_t bytes, struct error *err);
NODISCARD enum status host_copy(struct backend *b, struct bmem *dst, size_t dst_offset, const struct bmem *src, size_t src_offset,
                                size_t bytes, struct error *err);
NODISCARD enum status host_fill(struct backend *b, struct bmem *dst, size_t offset, int byte, size_t bytes, struct error *err);
NODISCARD enum status host_sync(struct backend *b, struct error *err);
NODISCARD enum status host_weight_new(struct backend *b, const struct weight_source *source, struct bweight **ret, struct error *err);
