/* generation_devices against what the probe found: one slot per entry. */
#pragma once
#include <jansson.h>
#include "common/config.h"
#include "common/error.h"

enum { SLOT_MAX = 64, SLOT_CORES = 256 };

struct device {
    char name[64];              /* "cpu:0", "cpu:0-3", "cpu", "cuda:1" */
    char kind[16];              /* "cpu", "cuda" */
    char uuid[48];              /* of a GPU, "GPU-..."; else empty */
    char model[128];            /* what the hardware calls itself */
    int64_t memory_bytes;
    int cores[SLOT_CORES], n_cores;   /* processors, CPU only */
};

/* devices_resolve turns WANTED (generation_devices) into devices, duplicates removed in order. PROBE: galley-worker's answer. "auto": every GPU, else
 * cpu; an empty list: one default device, the first GPU if there is one. A GPU is "cuda:N", its UUID or a beginning of it that no other shares; "cuda" is
 * the first one. It is known as "cuda:N", however it was named. NO_DEVICE: an absent or malformed entry, the valid ones named; DEVICE_LOST: a GPU
 * that a loaded driver does not show now: another start may find it. */
NODISCARD enum status devices_resolve(const struct strlist *wanted, const json_t *probe, struct device ret[SLOT_MAX], int *ret_n, struct error *err);
