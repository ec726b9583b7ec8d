/* What the files of the module's core share among themselves: the slots of struct backend_api, and what is below them.
 * Ops include cuda.h only. */
#pragma once
#include "worker/backend/cuda/cuda.h"

/* cuda_alive returns the status of a device that is gone, else ST_OK: stands first in every slot. cuda_settle stands last: it returns ST,
 * or if that is a broken device's doing DEVICE_FAULT or DEVICE_LOST, which it keeps in B. */
NODISCARD enum status cuda_alive(const struct cuda_backend *b, struct error *err);
enum status cuda_settle(struct cuda_backend *b, enum status st, struct error *err);

/* ---- memory.c */
NODISCARD enum status staging_open(struct cuda_backend *b, struct error *err);
void staging_close(struct cuda_backend *b);
enum { SCRATCH_BYTES = 8 << 20 };
/* staging_scratch returns SCRATCH_BYTES of device memory, for work on b->copies only. */
CUdeviceptr staging_scratch(const struct cuda_backend *b);
/* staging_send copies host bytes to TO on STREAM; it has read them when it returns. */
NODISCARD enum status staging_send(struct cuda_backend *b, CUstream stream, CUdeviceptr to, const void *from, size_t bytes,
                                   struct error *err);
/* staging_join lets b->stream wait for what b->copies has been given. */
NODISCARD enum status staging_join(struct cuda_backend *b, struct error *err);
/* cuda_alloc is cuda_mem_new without the zeros. */
NODISCARD enum status cuda_alloc(struct cuda_backend *b, size_t bytes, struct bmem **ret, struct error *err);

NODISCARD enum status cuda_memory(struct backend *b, struct backend_memory *ret, struct error *err);
NODISCARD enum status cuda_mem_new(struct backend *b, size_t bytes, struct bmem **ret, struct error *err);
void cuda_mem_free(struct backend *b, struct bmem *m);
NODISCARD enum status cuda_upload(struct backend *b, struct bmem *dst, size_t offset, const void *src, size_t bytes, struct error *err);
NODISCARD enum status cuda_download(struct backend *b, const struct bmem *src, size_t offset, void *dst, size_t bytes, struct error *err);
NODISCARD enum status cuda_copy(struct backend *b, struct bmem *dst, size_t dst_offset, const struct bmem *src, size_t src_offset,
                                size_t bytes, struct error *err);
NODISCARD enum status cuda_fill(struct backend *b, struct bmem *dst, size_t offset, int byte, size_t bytes, struct error *err);
NODISCARD enum status cuda_sync(struct backend *b, struct error *err);

/* ---- weights.c */
NODISCARD enum status cuda_weight_new(struct backend *b, const struct weight_source *source, struct bweight **ret, struct error *err);
void cuda_weight_free(struct backend *b, struct bweight *w);

/* ---- launch.c: cuda_launch on another stream */
NODISCARD enum status cuda_launch_on(struct cuda_backend *b, CUstream stream, enum kernel_id id, int64_t blocks, int threads, void *args,
                                     struct error *err);

/* ---- cuda.c: cuda_op_enqueue is op_run within a recording */
NODISCARD enum status cuda_op_enqueue(struct cuda_backend *b, struct bop *op, const struct bmem *arena, const struct bmem *workspace,
                                      struct error *err);

/* ---- sequence.c */
NODISCARD enum status cuda_sequence_new(struct backend *b, struct bop *const *ops, int n, struct bmem *arena, struct bmem *workspace,
                                        void **ret, struct error *err);
NODISCARD enum status cuda_sequence_run(struct backend *b, void *sequence, struct error *err);
void cuda_sequence_free(struct backend *b, void *sequence);
