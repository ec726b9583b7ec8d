/* Cases of kind batch: expansion and refusals. Priority and capacity of a queue in use belong to the queue. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/batch.h"
#include "tests/cases/cases.h"

enum { DEFAULT_QUEUE_SIZE = 10000 };

/* How many items wait after the operations in BEFORE; -1 when one of them does more than add. */
static long long waiting(const json_t *before)
{
    long long n = 0;
    size_t i;
    json_t *op;
    json_array_foreach (before, i, op) {
        const char *name = json_str(op, "op", "");
        if (strcmp(name, "enqueue") == 0)
            n += json_int(op, "count", 1);
        else if (strcmp(name, "insert") == 0 && !json_object_get(op, "status") && !json_object_get(op, "queue"))
            n++;
        else
            return -1;
    }
    return n;
}

/* The first reason why a stored item could not be read back upstream: galley refuses the batch for it. */
static const json_t *load_error(const json_t *e)
{
    size_t i;
    json_t *item;
    json_array_foreach (json_object_get(e, "items"), i, item)
        if (json_object_get(item, "load_error"))
            return json_object_get(item, "load_error");
    return NULL;
}

/* {node_path, field_name, value} as [node, field, value]. */
static json_t *as_triples(const json_t *values)
{
    json_t *list = json_array(), *v;
    size_t i;
    json_array_foreach (values, i, v)
        json_array_append_new(
            list, json_pack("[O, O, O]", json_object_get(v, "node_path"), json_object_get(v, "field_name"), json_object_get(v, "value")));
    return list;
}

static struct verdict check_items(const json_t *e, const struct batch *b)
{
    if (b->count != json_int(e, "requested", -1))
        return verdict_failed("%lld items, expected %lld", (long long)b->count, json_int(e, "requested", -1));
    size_t i;
    json_t *item;
    json_array_foreach (json_object_get(e, "items"), i, item) {
        AUTO_JSON *values = batch_values(b->data, (int64_t)i);
        AUTO_JSON *triples = as_triples(values);
        if (cases_equal(json_object_get(item, "values"), triples))
            continue;
        char *got = json_text(triples);
        struct verdict v = verdict_failed("item %zu has the values %.200s", i + 1, got);
        free(got);
        return v;
    }
    return verdict_passed();
}

struct verdict case_batch(const json_t *c)
{
    const json_t *e = json_object_get(c, "expect"), *body = json_object_get(c, "batch");
    const char *missing = cases_missing_type(json_object_get(body, "graph"));
    if (missing)
        return verdict_skipped("node type '%s'", missing);
    long long used = waiting(json_object_get(c, "before"));
    bool truncated = json_flag(c, "upstream_truncates", false);
    if (used < 0 && truncated)
        return verdict_skipped("queue operations");
    struct batch *b = NULL;
    struct graph_error detail = {0};
    struct error err = {0};
    AUTO_JSON *copy = json_deep_copy(body);
    enum status s = batch_parse(copy, json_int(c, "max_queue_size", DEFAULT_QUEUE_SIZE) - (used > 0 ? used : 0), &b, &detail, &err);
    const json_t *refused = json_flag(e, "valid", true) ? load_error(e) : json_object_get(e, "error");
    struct verdict v;
    if (s == ST_NOT_AVAILABLE)
        v = verdict_skipped("%s", err.message);
    else if (truncated)
        v = s == ST_TOO_LARGE ? verdict_passed()
                              : verdict_failed("%s, expected to be refused as too large", s == ST_OK ? "accepted" : err.message);
    else if (refused)
        v = s != ST_OK ? cases_check_error(refused, &detail, err.message) : verdict_failed("accepted");
    else
        v = s == ST_OK ? check_items(e, b) : verdict_failed("refused: %s", err.message);
    batch_free(b);
    return v;
}
