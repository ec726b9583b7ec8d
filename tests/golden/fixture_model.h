/* Fixture models open on one backend, for the length of the program. */
#pragma once
#include "worker/engine/model.h"

/* fixture_model returns fixture NAME, opened in float32 on the first call, on the CPU or the device that GOLDEN_DEVICE names (borrowed). */
NODISCARD enum status fixture_model(const char *name, struct model **ret, struct error *err);
