#include "graph/inputs.h"

static enum status wrong(const char *node, const char *field, const json_t *value, const char *wanted, struct error *err) {
    return FAIL(err, NODE_FAILED, "node type '%s': field '%s' %s", node, field, value ? wanted : "has no value");
}

static enum status read_integer(const char *node, const json_t *values, const char *field, int64_t *ret, struct error *err) {
    const json_t *value = json_object_get(values, field);
    if (!json_is_integer(value))
        return wrong(node, field, value, "is not an integer", err);
    *ret = json_integer_value(value);
    return ST_OK;
}

static enum status read_number(const char *node, const json_t *values, const char *field, double *ret, struct error *err) {
    const json_t *value = json_object_get(values, field);
    if (!json_is_number(value))
        return wrong(node, field, value, "is not a number", err);
    *ret = json_number_value(value);
    return ST_OK;
}

static enum status read_boolean(const char *node, const json_t *values, const char *field, bool *ret, struct error *err) {
    const json_t *value = json_object_get(values, field);
    if (!json_is_boolean(value))
        return wrong(node, field, value, "is not true or false", err);
    *ret = json_is_true(value);
    return ST_OK;
}

static enum status read_text(const char *node, const json_t *values, const char *field, const char **ret, struct error *err) {
    const json_t *value = json_object_get(values, field);
    if (!json_is_string(value) && !json_is_null(value))
        return wrong(node, field, value, "is not a text", err);
    *ret = json_string_value(value);
    return ST_OK;
}

static enum status read_value(const char *node, const json_t *values, const char *field, const json_t **ret, struct error *err) {
    const json_t *value = json_object_get(values, field);
    if (!value)
        return wrong(node, field, value, "", err);
    *ret = json_is_null(value) ? NULL : value;
    return ST_OK;
}

#define NODE(type, class, output, ...)                                                                                      \
    enum status type##_inputs_read(const json_t *values, struct type##_inputs *ret, struct error *err) {                    \
        static const char node[] = #type;                                                                                   \
        struct type##_inputs got = {0};
#define INTEGER(name, fallback, bounds, ...) TRY(read_integer(node, values, #name, &got.name, err));
#define NUMBER(name, fallback, bounds, ...) TRY(read_number(node, values, #name, &got.name, err));
#define BOOLEAN(name, fallback, ...) TRY(read_boolean(node, values, #name, &got.name, err));
#define STRING(name, fallback, ...) TRY(read_text(node, values, #name, &got.name, err));
#define ENUM(name, fallback, choices, ...) TRY(read_text(node, values, #name, &got.name, err));
#define VALUE(name, type, fallback, ...) TRY(read_value(node, values, #name, &got.name, err));
#define END                                                                                                                 \
        *ret = got;                                                                                                         \
        return ST_OK;                                                                                                       \
    }
#include "graph/nodes/all.def"
