/* Fixture models open on one backend, for the length of the program. */
#pragma once
#include "worker/engine/model.h"

/* fixture_backend returns the backend that all cases run on, opened on the first call: of the CPU or the device that GOLDEN_DEVICE names, with
 * activations in fixture_dtype (borrowed). */
NODISCARD enum status fixture_backend(struct backend **ret, struct error *err);
/* fixture_dtype returns what GOLDEN_DTYPE names: f32 (also without it), f16 or bf16; DT_COUNT if it names something else. */
enum dtype fixture_dtype(void);
/* fixture_model returns fixture NAME, opened on that backend on the first call (borrowed). */
NODISCARD enum status fixture_model(const char *name, struct model **ret, struct error *err);
