/* Reader of .safetensors that believes nothing: the header is checked against the file before any tensor is handed out. */
#pragma once
#include <stddef.h>
#include "worker/backend/backend.h"

struct safetensors;

struct st_entry {
    const char *name;
    enum dtype dtype;       /* F32 F16 BF16 U8 I32; I64 and others are kept with raw_dtype only */
    const char *raw_dtype;  /* "F32", "I64", ... */
    int ndim;
    int64_t shape[8];
    const void *data;       /* view until safetensors_close */
    size_t bytes;
};

/* safetensors_open maps PATH read-only. BAD_MODEL names the entry and the rule broken: header length (<= 100 MB), JSON form, dtype,
 * shape product against the offsets, overlap, holes, end of file. */
NODISCARD enum status safetensors_open(const char *path, struct safetensors **ret, struct error *err);
void safetensors_close(struct safetensors *s);                            /* accepts NULL */
const struct st_entry *safetensors_find(const struct safetensors *s, const char *name);  /* NULL if absent */
size_t safetensors_count(const struct safetensors *s);
const struct st_entry *safetensors_at(const struct safetensors *s, size_t i);
