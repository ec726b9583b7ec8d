/* Nodes that compute values: primitives, lists, integer arithmetic, texts, iterate and collect, metadata. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/inputs.h"
#include "worker/nodes/node_list.h"

enum { MAX_RANGE = 1000000 }; /* members of a range */

static enum status give(json_t *output, json_t **ret, struct error *err)
{
    if (!output)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the node's output");
    *ret = output;
    return ST_OK;
}

static enum status give_integer(int64_t value, json_t **ret, struct error *err)
{
    return give(json_pack("{s:I, s:s}", "value", (json_int_t)value, "type", "integer_output"), ret, err);
}

/* ---- primitives */

enum status node_integer(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct integer_inputs in;
    TRY(integer_inputs_read(inputs, &in, err));
    return give_integer(in.value, ret, err);
}

enum status node_float(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct float_inputs in;
    TRY(float_inputs_read(inputs, &in, err));
    return give(json_pack("{s:f, s:s}", "value", in.value, "type", "float_output"), ret, err);
}

enum status node_boolean(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct boolean_inputs in;
    TRY(boolean_inputs_read(inputs, &in, err));
    return give(json_pack("{s:b, s:s}", "value", in.value, "type", "boolean_output"), ret, err);
}

enum status node_string(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    return give(json_pack("{s:O, s:s}", "value", json_object_get(inputs, "value"), "type", "string_output"), ret, err);
}

enum status node_string_join(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    const json_t *left = json_object_get(inputs, "string_left"), *right = json_object_get(inputs, "string_right");
    size_t n = json_string_length(left), m = json_string_length(right);
    char *joined = malloc(n + m + 1);
    if (!joined)
        return FAIL(err, OUT_OF_MEMORY, "out of memory joining texts of %zu and %zu bytes", n, m);
    if (n > 0)
        memcpy(joined, json_string_value(left), n);
    if (m > 0)
        memcpy(joined + n, json_string_value(right), m);
    json_t *value = json_stringn(joined, n + m);
    free(joined);
    return give(json_pack("{s:o, s:s}", "value", value, "type", "string_output"), ret, err);
}

/* ---- integer arithmetic; InvokeAI's integers have no limit, galley's have 64 bits and say so */

static enum status overflow(const char *what, int64_t a, int64_t b, struct error *err)
{
    return FAIL(err, NODE_FAILED, "%lld %s %lld is beyond 64 bits", (long long)a, what, (long long)b);
}

enum status node_add(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct add_inputs in;
    int64_t value;
    TRY(add_inputs_read(inputs, &in, err));
    return __builtin_add_overflow(in.a, in.b, &value) ? overflow("+", in.a, in.b, err) : give_integer(value, ret, err);
}

enum status node_sub(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct sub_inputs in;
    int64_t value;
    TRY(sub_inputs_read(inputs, &in, err));
    return __builtin_sub_overflow(in.a, in.b, &value) ? overflow("-", in.a, in.b, err) : give_integer(value, ret, err);
}

enum status node_mul(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct mul_inputs in;
    int64_t value;
    TRY(mul_inputs_read(inputs, &in, err));
    return __builtin_mul_overflow(in.a, in.b, &value) ? overflow("*", in.a, in.b, err) : give_integer(value, ret, err);
}

/* The quotient as a double, truncated: InvokeAI divides that way, so above 2^53 the result is a rounded one. */
enum status node_div(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct div_inputs in;
    TRY(div_inputs_read(inputs, &in, err));
    if (in.b == 0)
        return FAIL(err, NODE_FAILED, "division by zero: field 'b' is 0");
    double quotient = trunc((double)((long double)in.a / (long double)in.b));
    if (quotient < -9223372036854775808.0 || quotient >= 9223372036854775808.0)
        return overflow("/", in.a, in.b, err);
    return give_integer((int64_t)quotient, ret, err);
}

enum status node_rand_int(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    struct rand_int_inputs in;
    TRY(rand_int_inputs_read(inputs, &in, err));
    if (in.low >= in.high)
        return FAIL(err, NODE_FAILED, "low >= high: field 'low' (%lld) must be less than field 'high' (%lld)", (long long)in.low,
                    (long long)in.high);
    uint64_t span = (uint64_t)in.high - (uint64_t)in.low, limit = UINT64_MAX - UINT64_MAX % span, bits;
    do
        bits = ns->random_u64(ns->self);
    while (bits >= limit);
    return give_integer((int64_t)((uint64_t)in.low + bits % span), ret, err);
}

/* ---- lists */

static enum status give_list(const json_t *inputs, const char *type, json_t **ret, struct error *err)
{
    return give(json_pack("{s:O, s:s}", "collection", json_object_get(inputs, "collection"), "type", type), ret, err);
}

enum status node_integer_collection(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    return give_list(inputs, "integer_collection_output", ret, err);
}

enum status node_float_collection(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    return give_list(inputs, "float_collection_output", ret, err);
}

enum status node_string_collection(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    return give_list(inputs, "string_collection_output", ret, err);
}

enum status node_boolean_collection(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    return give_list(inputs, "boolean_collection_output", ret, err);
}

/* START, START + STEP, ... below STOP (above it for a negative step). __int128: no sum of three 64-bit numbers overflows it. */
static enum status give_range(int64_t start, __int128 stop, int64_t step, json_t **ret, struct error *err)
{
    if (step == 0)
        return FAIL(err, NODE_FAILED, "range() arg 3 must not be zero: field 'step' is 0");
    AUTO_JSON *list = json_array();
    for (__int128 v = start; step > 0 ? v < stop : v > stop; v += step) {
        if (json_array_size(list) == MAX_RANGE)
            return FAIL(err, NODE_FAILED, "the range has more than %d members", MAX_RANGE);
        if (v < INT64_MIN || v > INT64_MAX)
            return FAIL(err, NODE_FAILED, "the range goes beyond 64 bits");
        if (json_array_append_new(list, json_integer((json_int_t)v)) != 0)
            return FAIL(err, OUT_OF_MEMORY, "out of memory for a range");
    }
    return give(json_pack("{s:O, s:s}", "collection", list, "type", "integer_collection_output"), ret, err);
}

enum status node_range(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct range_inputs in;
    TRY(range_inputs_read(inputs, &in, err));
    return give_range(in.start, in.stop, in.step, ret, err);
}

enum status node_range_of_size(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct range_of_size_inputs in;
    TRY(range_of_size_inputs_read(inputs, &in, err));
    return give_range(in.start, (__int128)in.start + (__int128)in.step * in.size, in.step, ret, err);
}

/* ---- iterate and collect: the executor has put the right list and index into the inputs (a negative one counts from the end) */

enum status node_iterate(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    struct iterate_inputs in;
    TRY(iterate_inputs_read(inputs, &in, err));
    int64_t total = (int64_t)json_array_size(in.collection), at = in.index < 0 ? in.index + total : in.index;
    if (at < 0 || at >= total)
        return FAIL(err, NODE_FAILED, "field 'index': %lld is outside a list of %lld", (long long)in.index, (long long)total);
    return give(json_pack("{s:O, s:I, s:I, s:s}", "item", json_array_get(in.collection, (size_t)at), "index", (json_int_t)in.index, "total",
                          (json_int_t)total, "type", "iterate_output"),
                ret, err);
}

enum status node_collect(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    return give_list(inputs, "collect_output", ret, err);
}

/* ---- metadata */

enum status node_core_metadata(const struct node_services *ns, const json_t *inputs, json_t **ret, struct error *err)
{
    (void)ns;
    AUTO_JSON *metadata = json_object();
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)inputs, key, value)
        if (!json_is_null(value) && json_object_set_nocheck(metadata, key, value) != 0)
            return FAIL(err, OUT_OF_MEMORY, "out of memory for metadata");
    if (json_object_set_new_nocheck(metadata, "app_version", json_string("galley " GALLEY_VERSION)) != 0)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for metadata");
    return give(json_pack("{s:O, s:s}", "metadata", metadata, "type", "metadata_output"), ret, err);
}
