/* The one place that knows which operands an op has and which shapes go together; every backend's op_new calls it first. */
#pragma once
#include "worker/backend/backend.h"

/* weight_source_of returns the source of W: every backend's struct bweight begins with its struct weight_source. */
const struct weight_source *weight_source_of(const struct bweight *w);
/* weight_check returns INTERNAL unless SOURCE has data, a float dtype and 1 to 4 positive dimensions. */
NODISCARD enum status weight_check(const struct weight_source *source, struct error *err);

static inline bool operand_set(const struct operand *o) { return o->w != 0; }
static inline int64_t operand_pixels(const struct operand *o) { return (int64_t)o->n * o->h * o->w; }
/* operand_end returns the first byte past the last element of O, from the start of the arena. */
size_t operand_end(const struct operand *o);

/* op_check returns INTERNAL, naming the op and the member, unless D is a whole and consistent description. */
NODISCARD enum status op_check(const struct op_desc *d, struct error *err);
/* op_extent returns the bytes of arena that D's operands reach into. D must have passed op_check. */
size_t op_extent(const struct op_desc *d);
/* op_extent_check returns INTERNAL if an arena of BYTES is too small for op KIND, which reaches EXTENT, or a workspace for NEED. */
NODISCARD enum status op_extent_check(enum op_kind kind, size_t extent, size_t arena_bytes, size_t need, size_t workspace_bytes,
                                      struct error *err);
