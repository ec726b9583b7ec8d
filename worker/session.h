/* One item's run: graph, executor, nodes, progress, outputs. Runs on the render thread. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>
#include "common/error.h"
#include "proto/link.h"
#include "worker/model_cache.h"

/* What the render thread shows to the main thread: "alive" and "getting on" are two facts. */
struct vitals {
    _Atomic uint64_t counter;            /* moves with every op and node */
    _Atomic(const char *) phase;         /* static text */
    atomic_bool cancel;                  /* stop the running item */
    _Atomic uint64_t device_bytes;       /* device memory in use after the last item */
};

struct session_env {
    uint64_t launch;
    const char *outputs;                 /* folder with images/ */
    struct model_cache *models;
    struct vitals *vitals;
    /* send queues a frame for galleyd; one that need not arrive may be dropped. */
    enum status (*send)(void *self, struct view frame, bool must_arrive, struct error *err);
    void *self;
};

/* session_run runs an assignment to its end and sends FINISH. Returns the outcome's status: OK, CANCELED, NODE_FAILED...; OUT_OF_MEMORY,
 * DEVICE_LOST, NO_DEVICE, DEVICE_FAULT and UNREACHABLE (the finish could not be sent), after which the worker must not go on. ERR tells about a failed item (for one log line). */
enum status session_run(const struct session_env *env, const struct link_ASSIGN *a, struct error *err);
/* session_outcome is the FINISH frame's word for an item that ended with ST. */
const char *session_outcome(enum status st);
