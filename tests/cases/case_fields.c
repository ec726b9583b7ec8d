/* Cases of kind pairs and fields: which edges fit, how literals are taken. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "graph/coerce.h"
#include "tests/cases/cases.h"

/* One end of a pair: "type.field" or "kind(feed).field". */
struct end {
    char type[80], feed[80], field[80];
};

static bool read_end(const char *text, struct end *ret)
{
    *ret = (struct end){"", "", ""};
    return sscanf(text, "%79[a-z0-9_](%79[a-z0-9_]).%79s", ret->type, ret->feed, ret->field) == 3 ||
           sscanf(text, "%79[a-z0-9_].%79s", ret->type, ret->field) == 2;
}

static void add_edge(json_t *edges, const char *from, const char *field, const char *to, const char *into)
{
    json_array_append_new(edges, graph_edge_json(from, field, to, into));
}

/* Adds node ID, and the node that feeds it. False when the build has not the type, which MISSING then names. */
static bool add_end(json_t *nodes, json_t *edges, const char *id, const struct end *e, const char **ret_missing)
{
    const struct node_type *feed = *e->feed ? node_type_find(e->feed) : NULL;
    *ret_missing = !node_type_find(e->type) ? e->type : *e->feed && !feed ? e->feed : NULL;
    if (*ret_missing)
        return false;
    json_object_set_new(nodes, id, json_pack("{s:s, s:s}", "id", id, "type", e->type));
    if (!feed)
        return true;
    static const char *const items[] = {"value", "image", "color"};
    char feed_id[8];
    snprintf(feed_id, sizeof feed_id, "f%s", id);
    json_object_set_new(nodes, feed_id, json_pack("{s:s, s:s}", "id", feed_id, "type", e->feed));
    for (size_t i = 0; strcmp(e->type, "collect") == 0 && i < 3; i++)
        if (node_output(feed, items[i])) {
            add_edge(edges, feed_id, items[i], id, "item");
            return true;
        }
    add_edge(edges, feed_id, "collection", id, "collection");
    return true;
}

struct verdict case_pairs(const json_t *c)
{
    struct end from, to;
    const char *missing;
    if (!read_end(json_str(c, "from", ""), &from) || !read_end(json_str(c, "to", ""), &to))
        return verdict_failed("cannot read the pair");
    AUTO_JSON *nodes = json_object();
    AUTO_JSON *edges = json_array();
    if (!add_end(nodes, edges, "a", &from, &missing) || !add_end(nodes, edges, "b", &to, &missing))
        return verdict_skipped("node type '%s'", missing);
    add_edge(edges, "a", from.field, "b", to.field);
    AUTO_JSON *document = json_pack("{s:O, s:O}", "nodes", nodes, "edges", edges);
    struct graph *g = NULL;
    struct graph_error detail = {0};
    struct error err = {0};
    enum status s = graph_parse(document, &g, &detail, &err);
    graph_free(g);
    const json_t *e = json_object_get(c, "expect");
    bool ok = json_flag(e, "ok", false);
    if (ok != (s == ST_OK))
        return verdict_failed("%s: %s", ok ? "refused" : "accepted", err.message);
    return ok ? verdict_passed() : cases_check_error(e, &detail, err.message);
}

/* The defaults of all fields of TYPE: what a rule between fields looks at. Caller decrefs. */
static json_t *defaults_of(const struct node_type *type)
{
    json_t *fields = json_object();
    for (size_t i = 0; i < type->n_inputs; i++)
        json_object_set_new(fields, type->inputs[i].name, field_default(&type->inputs[i]));
    return fields;
}

static struct verdict check_stored(const json_t *e, const json_t *taken)
{
    char *got = json_text(taken);
    const json_t *stored = json_object_get(e, "stored");
    struct verdict v = !json_flag(e, "ok", false)              ? verdict_failed("took %.200s, upstream refuses it", got)
                       : stored && !cases_equal(stored, taken) ? verdict_failed("took %.200s", got)
                                                               : verdict_passed();
    free(got);
    return v;
}

struct verdict case_fields(const json_t *c)
{
    const char *name = json_str(c, "field", ""), *kind = json_str(json_object_get(c, "expect"), "kind", "");
    const struct node_type *type = node_type_find(json_str(c, "type", ""));
    const json_t *e = json_object_get(c, "expect");
    if (!type)
        return verdict_skipped("node type '%s'", json_str(c, "type", ""));
    const struct node_field *f = node_input(type, name);
    if (!f && !(f = node_attribute(name)))
        return verdict_failed("no field '%s'", name);
    AUTO_JSON *others = defaults_of(type);
    AUTO_JSON *taken = NULL;
    struct coerce_fault fault = {"", ""};
    struct error err = {0};
    enum status s = coerce_field(f, json_object_get(c, "value"), &taken, &fault, &err);
    if (s == ST_OK && (s = field_check_over(f, taken, others, &err)) != ST_OK)
        snprintf(fault.kind, sizeof fault.kind, "value_error");
    if (s == ST_NOT_AVAILABLE)
        return verdict_skipped("choice of '%s' not in this build", name);
    if (s == ST_OK)
        return check_stored(e, taken);
    if (strcmp(fault.kind, "finite_number") == 0) /* galley's own rule: JSON has no such numbers */
        return json_flag(e, "ok", false) ? verdict_passed() : verdict_failed("refused as not finite");
    if (json_flag(e, "ok", false))
        return verdict_failed("refused: %s", err.message);
    if (*kind && strcmp(kind, fault.kind) != 0)
        return verdict_failed("refused as %s, expected %s", fault.kind, kind);
    return strstr(err.message, name) ? verdict_passed() : verdict_failed("the message does not name the field: %s", err.message);
}
