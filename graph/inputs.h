/* Typed inputs of the nodes, one struct per node type from graph/nodes/NAME.def: struct noise_inputs, noise_inputs_read and so on. Scalars are
 * int64_t, double, bool and const char * (NULL when a nullable text is null); lists, unions, reference objects and nullable numbers are
 * const json_t * (NULL when null). Pointers are views into the JSON that was read. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"

#define NODE(type, class, output, ...) struct type##_inputs {
#define INTEGER(name, fallback, bounds, ...) int64_t name;
#define NUMBER(name, fallback, bounds, ...) double name;
#define BOOLEAN(name, fallback, ...) bool name;
#define STRING(name, fallback, ...) const char *name;
#define ENUM(name, fallback, choices, ...) const char *name;
#define VALUE(name, type, fallback, ...) const json_t *name;
#define END };
#include "graph/nodes/all.def"

/* TYPE_inputs_read fills RET from VALUES, an object with every declared field, coerced (as the executor's prepared nodes have it). NODE_FAILED
 * naming node type and field when one is missing or of another type; RET is then untouched. */
#define NODE(type, class, output, ...) NODISCARD enum status type##_inputs_read(const json_t *values, struct type##_inputs *ret, struct error *err);
#include "graph/nodes/all.def"
