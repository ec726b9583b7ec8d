#include "graph/nodes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

#define SCHEDULER(name, available) "|" #name
static const char scheduler_names[] =
#include "graph/schedulers.def"
    ;
#define HERE_true(name) "|" #name
#define HERE_false(name) ""
#define SCHEDULER(name, available) HERE_##available(name)
static const char schedulers_here[] =
#include "graph/schedulers.def"
    ;
#define SCHEDULER_NAMES (scheduler_names + 1)
#define SCHEDULERS_HERE (schedulers_here + 1)

/* The vocabulary of the .def files. */
#define CACHED .use_cache = true
#define EXTRA_INPUTS .extra_inputs = true
#define SAVES_IMAGE .saves_image = true
#define QUICK .quick = true
#define CONNECTION .input = INPUT_CONNECTION
#define DIRECT .input = INPUT_DIRECT
#define REQUIRED .required = true
#define NULLABLE .nullable = true
#define NAMED .named = true
#define WRAPS .wraps = true
#define STEP(n) .multiple_of = (n)
#define LEAST(n) .least = (n)
#define OVER(field) .over = #field
#define AVAILABLE(names) .available = (names)
#define UNBOUNDED .min = -INFINITY, .max = INFINITY
#define AT_LEAST(a) .min = (a), .max = INFINITY
#define ABOVE(a) .min = (a), .min_exclusive = true, .max = INFINITY
#define RANGE(a, b) .min = (a), .max = (b)
#define FROM_BELOW(a, b) .min = (a), .max = (b), .max_exclusive = true

#define FIELD_INTEGER(name_, default_, bounds, ...) {.name = #name_, .type = "integer", .fallback = (default_), bounds, __VA_ARGS__},
#define FIELD_NUMBER(name_, default_, bounds, ...) {.name = #name_, .type = "number", .fallback = (default_), bounds, __VA_ARGS__},
#define FIELD_BOOLEAN(name_, default_, ...) {.name = #name_, .type = "boolean", .fallback = (default_), UNBOUNDED, __VA_ARGS__},
#define FIELD_STRING(name_, default_, ...) {.name = #name_, .type = "string", .fallback = (default_), UNBOUNDED, __VA_ARGS__},
#define FIELD_ENUM(name_, default_, choices_, ...) \
    {.name = #name_, .type = "enum", .fallback = (default_), .choices = (choices_), UNBOUNDED, __VA_ARGS__},
#define FIELD_VALUE(name_, type_, default_, ...) {.name = #name_, .type = (type_), .fallback = (default_), UNBOUNDED, __VA_ARGS__},

/* Inputs of each node type. */
#define NODE(type, class, output, ...) static const struct node_field type##_fields[] = {
#define INTEGER FIELD_INTEGER
#define NUMBER FIELD_NUMBER
#define BOOLEAN FIELD_BOOLEAN
#define STRING FIELD_STRING
#define ENUM FIELD_ENUM
#define VALUE FIELD_VALUE
#define END };
#include "graph/nodes/all.def"

/* Fields of each output. */
#define OUTPUT(type) static const struct node_field type##_fields[] = {
#define FIELD(name_, type_, ...) {.name = #name_, .type = (type_), UNBOUNDED, __VA_ARGS__},
#define END };
#include "graph/outputs.def"

#define NODE(type_, class_, output_, ...)                                                                   \
    static const struct node_type type_##_type = {                                                          \
        .type = #type_, .class_name = #class_, .output = #output_,                                          \
        .inputs = type_##_fields, .n_inputs = COUNT(type_##_fields),                                        \
        .outputs = output_##_fields, .n_outputs = COUNT(output_##_fields),                                  \
        __VA_ARGS__                                                                                         \
    };
#include "graph/nodes/all.def"

#define NODE(type, class, output, ...) &type##_type,
static const struct node_type *const types[] = {
#include "graph/nodes/all.def"
};

/* Members of the reference objects; the sentinel lets a struct have none. */
#define STRUCT(name) static const struct node_field name##_members[] = {
#define INTEGER FIELD_INTEGER
#define NUMBER FIELD_NUMBER
#define BOOLEAN FIELD_BOOLEAN
#define STRING FIELD_STRING
#define ENUM FIELD_ENUM
#define VALUE FIELD_VALUE
#define END {.name = NULL}};
#include "graph/structs.def"

#define STRUCT(name_) {.name = #name_, .members = name_##_members, .n_members = COUNT(name_##_members) - 1},
#define INTEGER(...)
#define NUMBER(...)
#define BOOLEAN(...)
#define STRING(...)
#define ENUM(...)
#define VALUE(...)
#define END
static const struct node_struct structs[] = {
#include "graph/structs.def"
};

/* "type" of a node or output is one fixed text: it fits no other field. */
static const struct node_field attributes[] = {
    {.name = "id", .type = "string", .required = true, UNBOUNDED},
    {.name = "type", .type = "node type", .required = true, UNBOUNDED},
    {.name = "is_intermediate", .type = "boolean", .fallback = "false", UNBOUNDED},
    {.name = "use_cache", .type = "boolean", UNBOUNDED},
};
static const struct node_field output_attributes[] = {
    {.name = "type", .type = "output type", UNBOUNDED},
    {.name = "output_meta", .type = "map[any]", .nullable = true, UNBOUNDED},
};

#define KNOWN_TYPE(type) #type,
static const char *const known_types[] = {
#include "graph/known_types.def"
};

static const struct node_field *field_find(const struct node_field *fields, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

const struct node_type *node_type_find(const char *type)
{
    for (size_t i = 0; i < COUNT(types); i++)
        if (strcmp(types[i]->type, type) == 0)
            return types[i];
    return NULL;
}

bool node_type_known(const char *type)
{
    for (size_t i = 0; i < COUNT(known_types); i++)
        if (strcmp(known_types[i], type) == 0)
            return true;
    return false;
}

const char *node_type_nearest(const char *type)
{
    return nearest_name(type, known_types, COUNT(known_types));
}

const struct node_type *const *node_types(size_t *ret_n)
{
    *ret_n = COUNT(types);
    return types;
}

const struct node_field *node_input(const struct node_type *t, const char *field)
{
    return field_find(t->inputs, t->n_inputs, field);
}

const struct node_field *node_output(const struct node_type *t, const char *field)
{
    const struct node_field *f = field_find(t->outputs, t->n_outputs, field);
    return f ? f : field_find(output_attributes, COUNT(output_attributes), field);
}

const struct node_field *node_attribute(const char *field)
{
    return field_find(attributes, COUNT(attributes), field);
}

const struct node_struct *node_struct_find(const char *name, size_t n)
{
    for (size_t i = 0; i < COUNT(structs); i++)
        if (strlen(structs[i].name) == n && memcmp(structs[i].name, name, n) == 0)
            return &structs[i];
    return NULL;
}
