/* galley-worker --probe: what this machine and this build can do, in a process that may crash without harm. */
#pragma once
#include "common/error.h"
#include "worker/options.h"
/* probe_print writes one JSON object to stdout: {version, devices: [{device, kind, name, memory_bytes, cores}], models, notes: [text]}. */
NODISCARD enum status probe_print(const struct worker_options *o, struct error *err);
