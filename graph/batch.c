#include "graph/batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/internal.h"

/* A fault of the batch. CLASS is InvokeAI's. */
#define batch_refuse(r, class, kind, loc, ...) graph_refuse((r), ST_BAD_BATCH, "parse", (class), (kind), (loc), __VA_ARGS__)

/* One datum in words, for messages. */
struct place {
    size_t group, datum;
    const char *node, *field;
};

#define PLACE_FORMAT "data group %zu, node '%.80s', field '%.80s'"
#define PLACE_ARGS(p) (p)->group + 1, (p)->node, (p)->field

/* Takes one item as InvokeAI does: texts and numbers as they are, true and false as 1.0 and 0.0, images and videos as their name alone. */
static json_t *take_scalar(const json_t *item)
{
    if (json_is_string(item) || json_is_number(item))
        return json_incref((json_t *)item);
    if (json_is_boolean(item))
        return json_real(json_is_true(item));
    static const char *const names[] = {"image_name", "video_name"};
    for (size_t i = 0; i < 2; i++) {
        json_t *name = json_object_get(item, names[i]);
        if (json_is_string(name))
            return json_pack("{s:O}", names[i], name);
    }
    return NULL;
}

/* An item, or a list of such. NULL when it is neither. */
static json_t *take_item(const json_t *item)
{
    if (!json_is_array(item))
        return take_scalar(item);
    AUTO_JSON *list = json_array();
    size_t i;
    json_t *member;
    json_array_foreach (item, i, member)
        if (json_array_append_new(list, take_scalar(member)) != 0)
            return NULL;
    return json_incref(list);
}

static enum status take_items(const json_t *items, const struct place *p, json_t **ret, struct report *r)
{
    AUTO_JSON *taken = json_array();
    size_t i;
    json_t *item;
    if (items && !json_is_array(items))
        return batch_refuse(r, "ValidationError", "list_type", "data", PLACE_FORMAT ": \"items\" must be a list", PLACE_ARGS(p));
    json_array_foreach (items, i, item) {
        if (json_array_append_new(taken, take_item(item)) == 0)
            continue;
        char loc[96];
        snprintf(loc, sizeof loc, "data.%zu.%zu.items.%zu.str", p->group, p->datum, i);
        return batch_refuse(r, "ValidationError", "string_type", loc,
                            PLACE_FORMAT ": item %zu must be a text, a number, an image {image_name} or a list of those", PLACE_ARGS(p),
                            i + 1);
    }
    *ret = json_incref(taken);
    return ST_OK;
}

static enum status take_datum(const json_t *datum, struct place p, json_t *group, struct report *r)
{
    char loc[64];
    snprintf(loc, sizeof loc, "data.%zu.%zu", p.group, p.datum);
    p.node = json_str(datum, "node_path", NULL);
    p.field = json_str(datum, "field_name", NULL);
    if (!p.node || !p.field)
        return batch_refuse(r, "ValidationError", json_is_object(datum) ? "missing" : "model_type", loc,
                            "data group %zu, entry %zu must be an object {node_path, field_name, items}", p.group + 1, p.datum + 1);
    json_t *items = NULL;
    TRY(take_items(json_object_get(datum, "items"), &p, &items, r));
    json_t *taken = json_pack("{s:s, s:s, s:o}", "node_path", p.node, "field_name", p.field, "items", items);
    return json_array_append_new(group, taken) == 0 ? ST_OK : graph_no_memory(r);
}

/* Normalises "data" into a list of groups of {node_path, field_name, items}; NULL for none. */
static enum status take_data(const json_t *data, json_t **ret, struct report *r)
{
    *ret = NULL;
    if (!data || json_is_null(data))
        return ST_OK;
    if (!json_is_array(data))
        return batch_refuse(r, "ValidationError", "list_type", "data", "\"data\" must be a list of groups");
    AUTO_JSON *groups = json_array();
    size_t i, k;
    json_t *group, *datum;
    json_array_foreach (data, i, group) {
        char loc[64];
        snprintf(loc, sizeof loc, "data.%zu", i);
        if (!json_is_array(group))
            return batch_refuse(r, "ValidationError", "list_type", loc, "data group %zu must be a list of {node_path, field_name, items}",
                                i + 1);
        json_t *taken = json_array();
        if (json_array_append_new(groups, taken) != 0)
            return graph_no_memory(r);
        json_array_foreach (group, k, datum)
            TRY(take_datum(datum, (struct place){i, k, NULL, NULL}, taken, r));
    }
    *ret = json_incref(groups);
    return ST_OK;
}

static const json_t *datum_items(const json_t *datum) { return json_object_get(datum, "items"); }

static struct place datum_place(size_t group, size_t datum, const json_t *d)
{
    return (struct place){group, datum, json_str(d, "node_path", ""), json_str(d, "field_name", "")};
}

static enum status check_lengths(const json_t *data, struct report *r)
{
    size_t i, k;
    json_t *group, *datum;
    json_array_foreach (data, i, group) {
        size_t length = json_array_size(datum_items(json_array_get(group, 0)));
        json_array_foreach (group, k, datum) {
            struct place p = datum_place(i, k, datum);
            if (json_array_size(datum_items(datum)) != length)
                return batch_refuse(r, "BatchZippedLengthError", "value_error", "data",
                                    PLACE_FORMAT ": %zu items, but the first entry of the group has %zu; "
                                                 "entries of one group are zipped and must be of equal length",
                                    PLACE_ARGS(&p), json_array_size(datum_items(datum)), length);
        }
    }
    return ST_OK;
}

/* Items of one datum have one type; whole and fractional numbers count as one. */
static bool same_kind(const json_t *a, const json_t *b)
{
    return json_typeof(a) == json_typeof(b) || (json_is_number(a) && json_is_number(b));
}

static enum status check_types(const json_t *data, struct report *r)
{
    size_t i, k, n;
    json_t *group, *datum, *item;
    json_array_foreach (data, i, group)
        json_array_foreach (group, k, datum)
            json_array_foreach (datum_items(datum), n, item) {
                struct place p = datum_place(i, k, datum);
                if (!same_kind(json_array_get(datum_items(datum), 0), item))
                    return batch_refuse(r, "BatchItemsTypeError", "value_error", "data",
                                        PLACE_FORMAT ": item %zu is of another type than item 1; all items must have the same",
                                        PLACE_ARGS(&p), n + 1);
            }
    return ST_OK;
}

static enum status check_unique(const json_t *data, struct report *r)
{
    AUTO_JSON *seen = json_object();
    size_t i, k;
    json_t *group, *datum;
    json_array_foreach (data, i, group)
        json_array_foreach (group, k, datum) {
            struct place p = datum_place(i, k, datum);
            json_t *fields = json_object_get(seen, p.node);
            if (json_object_get(fields, p.field))
                return batch_refuse(r, "BatchDuplicateNodeFieldError", "value_error", "data",
                                    PLACE_FORMAT ": set by an earlier entry too; a field may be set once", PLACE_ARGS(&p));
            if (!fields && json_object_set_new_nocheck(seen, p.node, fields = json_object()) != 0)
                return graph_no_memory(r);
            if (json_object_set_nocheck(fields, p.field, json_true()) != 0)
                return graph_no_memory(r);
        }
    return ST_OK;
}

/* A batch may set id and type only to what they are. */
static enum status check_fixed(const struct graph_node *n, const struct node_field *f, const json_t *item, const struct place *p,
                               struct report *r)
{
    bool is_id = strcmp(f->name, "id") == 0;
    const char *value = json_string_value(item);
    if (value && strcmp(value, is_id ? n->id : n->type->type) == 0)
        return ST_OK;
    return batch_refuse(r, is_id ? "NodeIdMismatchError" : "InvalidEdgeError", "value_error", "graph",
                        PLACE_FORMAT ": cannot be changed by a batch", PLACE_ARGS(p));
}

static enum status check_item(const struct graph_node *n, const struct node_field *f, const json_t *item, const struct place *p,
                              struct report *r)
{
    bool is_attribute = f == node_attribute(f->name);
    if (is_attribute && (strcmp(f->name, "id") == 0 || strcmp(f->name, "type") == 0))
        return check_fixed(n, f, item, p, r);
    struct coerce_fault fault = {"", ""};
    struct error err = {0};
    json_t *taken;
    enum status s = coerce_field(f, item, &taken, &fault, &err);
    if (s == ST_OK) {
        json_decref(taken);
        return ST_OK;
    }
    char loc[256];
    snprintf(loc, sizeof loc, "graph.nodes.%.60s.%s.%s%s%.80s", n->id, n->type->type, f->name, *fault.loc ? "." : "", fault.loc);
    return graph_refuse(r, s == ST_BAD_GRAPH ? ST_BAD_BATCH : s, "parse", "ValidationError", fault.kind, loc, PLACE_FORMAT ": %s",
                        PLACE_ARGS(p), err.message);
}

/* Every datum names a field of the graph, and each of its items fits it. */
static enum status check_targets(const struct graph *g, const json_t *data, struct report *r)
{
    size_t i, k, m;
    json_t *group, *datum, *item;
    json_array_foreach (data, i, group)
        json_array_foreach (group, k, datum) {
            struct place p = datum_place(i, k, datum);
            int node = graph_find(g, p.node);
            if (node < 0)
                return batch_refuse(r, "NodeNotFoundError", "value_error", "", PLACE_FORMAT ": the graph has no such node", PLACE_ARGS(&p));
            const struct node_field *f = node_input(g->nodes[node].type, p.field);
            if (!f && !(f = node_attribute(p.field)))
                return batch_refuse(r, "NodeNotFoundError", "value_error", "", PLACE_FORMAT ": the node (%s) has no such field",
                                    PLACE_ARGS(&p), g->nodes[node].type->type);
            json_array_foreach (datum_items(datum), m, item)
                TRY(check_item(&g->nodes[node], f, item, &p, r));
        }
    return ST_OK;
}

/* How many combinations DATA has; at most LIMIT + 1 is told. */
static int64_t count_values(const json_t *data, int64_t limit)
{
    int64_t n = 1;
    size_t i;
    json_t *group;
    json_array_foreach (data, i, group) {
        int64_t length = (int64_t)json_array_size(datum_items(json_array_get(group, 0)));
        if (length == 0)
            return 0;
    }
    json_array_foreach (data, i, group)
        if (__builtin_mul_overflow(n, (int64_t)json_array_size(datum_items(json_array_get(group, 0))), &n) || n > limit)
            return limit + 1;
    return n;
}

static enum status take_runs(const json_t *body, int64_t *ret, struct report *r)
{
    static const struct node_field field = {.name = "runs", .type = "integer", .min = 1, .max = 9e18};
    const json_t *value = json_object_get(body, "runs");
    *ret = 1;
    if (!value)
        return ST_OK;
    struct coerce_fault fault = {"", ""};
    struct error err = {0};
    AUTO_JSON *taken = NULL;
    if (coerce_field(&field, value, &taken, &fault, &err) != ST_OK)
        return batch_refuse(r, "ValidationError", fault.kind, "runs", "%s", err.message);
    *ret = json_integer_value(taken);
    return ST_OK;
}

static enum status check_texts(const json_t *body, struct report *r)
{
    static const char *const names[] = {"batch_id", "origin", "destination"};
    for (size_t i = 0; i < 3; i++) {
        const json_t *value = json_object_get(body, names[i]);
        bool may_be_null = i > 0;
        if (value && !json_is_string(value) && !(may_be_null && json_is_null(value)))
            return batch_refuse(r, "ValidationError", "string_type", names[i], "field '%s' of the batch must be a text", names[i]);
    }
    return ST_OK;
}

static enum status parse_graph(struct batch *b, struct report *r)
{
    json_t *document = json_object_get(b->body, "graph");
    if (!document)
        return batch_refuse(r, "ValidationError", "missing", "graph", "the batch has no \"graph\"");
    enum status s = graph_parse(document, &b->graph, r->detail, r->err);
    if (s != ST_OK && r->detail) {
        char loc[sizeof r->detail->loc];
        snprintf(loc, sizeof loc, "%s", r->detail->loc);
        snprintf(r->detail->loc, sizeof r->detail->loc, "graph%s%.240s", *loc ? "." : "", loc);
    }
    return s;
}

static enum status parse_all(struct batch *b, int64_t max_count, struct report *r)
{
    if (!json_is_object(b->body))
        return batch_refuse(r, "ValidationError", "model_type", "", "a batch must be an object {graph, runs, data}");
    TRY(check_texts(b->body, r));
    TRY(take_data(json_object_get(b->body, "data"), &b->data, r));
    TRY(check_lengths(b->data, r));
    TRY(check_types(b->data, r));
    TRY(check_unique(b->data, r));
    TRY(parse_graph(b, r));
    TRY(take_runs(b->body, &b->runs, r));
    TRY(check_targets(b->graph, b->data, r));
    b->per_run = count_values(b->data, max_count);
    if (__builtin_mul_overflow(b->per_run, b->runs, &b->count) || b->count > max_count)
        return graph_refuse(r, ST_TOO_LARGE, "parse", "ValidationError", "too_long", "data",
                            "the batch has %s%lld items per run and %lld runs; at most %lld items are taken, and a batch only as a whole",
                            b->per_run > max_count ? "more than " : "", (long long)(b->per_run > max_count ? max_count : b->per_run),
                            (long long)b->runs, (long long)max_count);
    return ST_OK;
}

enum status batch_parse(json_t *body, int64_t max_count, struct batch **ret, struct graph_error *detail, struct error *err)
{
    struct report r = {detail, err};
    struct batch *b = calloc(1, sizeof *b);
    if (!b)
        return graph_no_memory(&r);
    b->body = json_incref(body);
    enum status s = parse_all(b, max_count, &r);
    if (s != ST_OK) {
        batch_free(b);
        return s;
    }
    *ret = b;
    return ST_OK;
}

void batch_free(struct batch *b)
{
    if (!b)
        return;
    graph_free(b->graph);
    json_decref(b->data);
    json_decref(b->body);
    free(b);
}

json_t *batch_values(const json_t *data, int64_t ordinal)
{
    AUTO_JSON *values = json_array();
    int64_t rest = ordinal, per_run = count_values(data, INT64_MAX - 1);
    if (per_run <= 0)
        return json_incref(values);
    rest %= per_run;
    size_t i, k;
    json_t *group, *datum;
    json_array_foreach (data, i, group) {
        int64_t length = (int64_t)json_array_size(datum_items(json_array_get(group, 0)));
        per_run /= length;
        size_t at = (size_t)(rest / per_run);
        rest %= per_run;
        json_array_foreach (group, k, datum) {
            json_t *value = json_pack("{s:O, s:O, s:O}", "node_path", json_object_get(datum, "node_path"), "field_name",
                                      json_object_get(datum, "field_name"), "value", json_array_get(datum_items(datum), at));
            if (json_array_append_new(values, value) != 0)
                return NULL;
        }
    }
    return json_incref(values);
}
