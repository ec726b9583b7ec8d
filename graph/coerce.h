/* Literal values as InvokeAI's parser takes them, with what it would have called the fault. */
#pragma once
#include <jansson.h>
#include "common/error.h"
#include "graph/nodes.h"

/* What is wrong inside a value: KIND is InvokeAI's ("int_parsing"), LOC the place below the field ("model.base", "" for the field itself). */
struct coerce_fault {
    char kind[48];
    char loc[160];
};

/* coerce_field is field_coerce that also fills FAULT (may be NULL). */
NODISCARD enum status coerce_field(const struct node_field *f, const json_t *value, json_t **ret, struct coerce_fault *fault, struct error *err);
/* field_default returns F's default coerced, JSON null when it has none. Caller decrefs; NULL when out of memory. */
json_t *field_default(const struct node_field *f);
