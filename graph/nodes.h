/* The table of node types, made from graph/nodes/NAME.def: what the supervisor validates with and what the worker's input structs come from. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"

enum field_input { INPUT_ANY, INPUT_CONNECTION, INPUT_DIRECT };

/* One input or output field. TYPE is written as in the case files: integer number string boolean enum any object, a struct name,
 * list[T], union[A | B]. */
struct node_field {
    const char *name, *type;
    enum field_input input;
    bool required, nullable;
    const char *fallback;           /* default as JSON text, NULL: none */
    const char *choices;            /* enum: "a|b|c" */
    double min, max;                /* inclusive unless the next say otherwise; -INFINITY/INFINITY: none */
    bool min_exclusive, max_exclusive;
    double multiple_of;             /* 0: none */
    double least;                   /* every number in the value is at least this; 0: none. InvokeAI checks it by a rule of its own */
    bool wraps;                     /* a number is taken modulo max + 1 first */
    bool named;                     /* enum: a named enumeration in InvokeAI, so a bad choice is of kind "enum", not "literal_error" */
    const char *over;               /* the field of the same node this one must exceed; NULL: none */
    const char *available;          /* enum: the choices this build has, "a|b", NULL: all. The others are refused as NOT_AVAILABLE */
};
/* A reference object, written as STRUCT in graph/structs.def. */
struct node_struct {
    const char *name;
    const struct node_field *members; size_t n_members;     /* none: any object, kept whole */
};
struct node_type {
    const char *type;               /* "denoise_latents" */
    const char *class_name;         /* "DenoiseLatentsInvocation": ready-queue order */
    const char *output;             /* "latents_output" */
    const struct node_field *inputs; size_t n_inputs;
    const struct node_field *outputs; size_t n_outputs;
    bool use_cache, extra_inputs;
    bool saves_image;
    bool quick;                     /* only computes a value, in microseconds */
};

/* node_type_find returns the row of TYPE, NULL if this build has none. node_type_known: InvokeAI has it, here or not. */
const struct node_type *node_type_find(const char *type);
bool node_type_known(const char *type);
/* node_type_nearest returns the nearest known type name, NULL if none is near. */
const char *node_type_nearest(const char *type);
const struct node_type *const *node_types(size_t *ret_n);
const struct node_field *node_input(const struct node_type *t, const char *field);
const struct node_field *node_output(const struct node_type *t, const char *field);
/* node_attribute returns what every node has beside its inputs: id, type, is_intermediate, use_cache; NULL for other names. */
const struct node_field *node_attribute(const char *field);
/* node_struct_find returns the reference object NAME (N bytes), NULL if there is none. */
const struct node_struct *node_struct_find(const char *name, size_t n);
/* field_types_fit applies InvokeAI's rule for an edge FROM -> TO (type texts; nullable counts as a union with null). */
bool field_types_fit(const char *from, bool from_nullable, const char *to, bool to_nullable);
/* field_check_over applies F's `over` rule to VALUE beside the other FIELDS of its node: BAD_GRAPH naming both. */
NODISCARD enum status field_check_over(const struct node_field *f, const json_t *value, const json_t *fields, struct error *err);
/* field_coerce converts VALUE as pydantic's lax mode does and checks bounds: caller decrefs *ret. BAD_GRAPH names field, value, bound. */
NODISCARD enum status field_coerce(const struct node_field *f, const json_t *value, json_t **ret, struct error *err);
