/* The worker's command line, set by galleyd. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"

struct worker_options {
    const char *device;          /* "cpu:0", "cuda:1", ... */
    const char *link;            /* ipc URL of this launch */
    const char *outputs;         /* folder with images/ */
    const char *models_dir;      /* "" when there is none */
    const char *data;            /* shipped data: models/emoji */
    const char *precision;       /* auto float32 float16 bfloat16 */
    const char *log_level, *log_format;
    int cores[256], n_cores;     /* processors granted; none: all in the mask */
    uint64_t launch;
    int64_t parent;              /* pid of galleyd, 0: not watched */
    int64_t heartbeat_ms;
    int64_t cache_bytes;         /* of cached models; 0: half of the machine's memory */
    bool probe, warm_start;
    bool no_gpus;                /* the probe leaves the GPUs alone */
    bool only_gpu;               /* DEVICE's GPU is the only one that this process sees: its first */
};

/* worker_options_read fills RET from ARGV. BAD_CONFIG names the option. */
NODISCARD enum status worker_options_read(int argc, char **argv, struct worker_options *ret, struct error *err);
