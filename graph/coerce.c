#include "graph/coerce.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/json.h"
#include "graph/lax.h"
#include "graph/types.h"

enum { MAX_SHOWN = 60 }; /* bytes of a value in a message */

/* Where in a value the work is, and what went wrong. Inside reference objects numbers are not taken for texts. */
struct coercion {
    const char *field;
    bool in_struct;
    char loc[160];
    struct coerce_fault *fault;
    struct error *err;
};

static enum status coerce_typed(struct coercion *c, struct type_view type, const struct node_field *rule, const json_t *value,
                                json_t **ret);

static void show(const json_t *value, char ret[MAX_SHOWN + 4])
{
    char *text = json_text(value);
    snprintf(ret, MAX_SHOWN + 1, "%s", text ? text : "?");
    if (text && strlen(text) > MAX_SHOWN) {
        size_t n = MAX_SHOWN;
        while (n > 0 && ((unsigned char)ret[n] & 0xc0) == 0x80)
            n--;
        memcpy(ret + n, "...", 4);
    }
    free(text);
}

/* Names field, place, value and what would be right. */
static enum status refuse(struct coercion *c, const char *kind, const json_t *value, const char *wanted)
{
    if (c->fault) {
        snprintf(c->fault->kind, sizeof c->fault->kind, "%s", kind);
        snprintf(c->fault->loc, sizeof c->fault->loc, "%s", c->loc);
    }
    char shown[MAX_SHOWN + 4] = "nothing";
    if (value)
        show(value, shown);
    return FAIL(c->err, BAD_GRAPH, "field '%s%s%s': %s %s", c->field, *c->loc ? "." : "", c->loc, shown, wanted);
}

static enum status out_of_memory(struct coercion *c) { return FAIL(c->err, OUT_OF_MEMORY, "out of memory reading field '%s'", c->field); }

static enum status done(struct coercion *c, json_t *value, json_t **ret)
{
    if (!value)
        return out_of_memory(c);
    *ret = value;
    return ST_OK;
}

/* Goes one step down for the call of INSIDE's caller; returns the old length for leave. */
static size_t enter(struct coercion *c, const char *name, size_t len)
{
    size_t n = strlen(c->loc);
    snprintf(c->loc + n, sizeof c->loc - n, "%s%.*s", n ? "." : "", (int)len, name);
    return n;
}

static void leave(struct coercion *c, size_t len) { c->loc[len] = '\0'; }

static enum status check_bounds(struct coercion *c, const struct node_field *rule, double v, const json_t *value)
{
    char wanted[80];
    if (v < rule->min || (rule->min_exclusive && v == rule->min)) {
        snprintf(wanted, sizeof wanted, "must be greater than %s%.17g", rule->min_exclusive ? "" : "or equal to ", rule->min);
        return refuse(c, rule->min_exclusive ? "greater_than" : "greater_than_equal", value, wanted);
    }
    if (v > rule->max || (rule->max_exclusive && v == rule->max)) {
        snprintf(wanted, sizeof wanted, "must be less than %s%.17g", rule->max_exclusive ? "" : "or equal to ", rule->max);
        return refuse(c, rule->max_exclusive ? "less_than" : "less_than_equal", value, wanted);
    }
    if (rule->multiple_of > 0 && fmod(v, rule->multiple_of) != 0) {
        snprintf(wanted, sizeof wanted, "must be a multiple of %.17g", rule->multiple_of);
        return refuse(c, "multiple_of", value, wanted);
    }
    if (rule->least > 0 && v < rule->least) {
        snprintf(wanted, sizeof wanted, "must be at least %.17g", rule->least);
        return refuse(c, "value_error", value, wanted);
    }
    return ST_OK;
}

/* The value of a field that wraps, reduced modulo max + 1 as Python does (never negative). */
static enum status wrap(struct coercion *c, const struct node_field *rule, const json_t *value, double *ret)
{
    if (!json_is_number(value) && !json_is_boolean(value))
        return refuse(c, "TypeError", value, "must be a number");
    double modulus = rule->max + 1;
    double v = json_is_boolean(value) ? json_is_true(value) : 0;
    if (json_is_integer(value)) {
        json_int_t m = (json_int_t)modulus, r = json_integer_value(value) % m;
        v = (double)(r < 0 ? r + m : r);
    } else if (json_is_real(value)) {
        v = fmod(json_real_value(value), modulus);
        v = v < 0 ? v + modulus : v;
    }
    *ret = v;
    return ST_OK;
}

static enum status integer_from_real(struct coercion *c, double d, const json_t *value, int64_t *ret)
{
    if (d != floor(d))
        return refuse(c, "int_from_float", value, "must be a whole number");
    if (d < -9223372036854775808.0 || d >= 9223372036854775808.0)
        return refuse(c, "int_parsing_size", value, "is beyond 64 bits");
    *ret = (int64_t)d;
    return ST_OK;
}

static enum status integer_from_text(struct coercion *c, const json_t *value, int64_t *ret)
{
    switch (lax_integer(json_string_value(value), ret)) {
    case LAX_OK: return ST_OK;
    case LAX_RANGE: return refuse(c, "int_parsing_size", value, "is beyond 64 bits");
    default: return refuse(c, "int_parsing", value, "must be a whole number");
    }
}

static enum status coerce_integer(struct coercion *c, const struct node_field *rule, const json_t *value, json_t **ret)
{
    int64_t v = 0;
    if (rule->wraps) {
        double wrapped = 0;
        TRY(wrap(c, rule, value, &wrapped));
        TRY(integer_from_real(c, wrapped, value, &v));
    } else if (json_is_integer(value)) {
        v = json_integer_value(value);
    } else if (json_is_real(value)) {
        TRY(integer_from_real(c, json_real_value(value), value, &v));
    } else if (json_is_string(value)) {
        TRY(integer_from_text(c, value, &v));
    } else if (json_is_boolean(value)) {
        v = json_is_true(value);
    } else {
        return refuse(c, "int_type", value, "must be a whole number");
    }
    TRY(check_bounds(c, rule, (double)v, value));
    return done(c, json_integer(v), ret);
}

static enum status coerce_number(struct coercion *c, const struct node_field *rule, const json_t *value, json_t **ret)
{
    double v = 0;
    if (json_is_number(value)) {
        v = json_number_value(value);
    } else if (json_is_boolean(value)) {
        v = json_is_true(value);
    } else if (json_is_string(value)) {
        switch (lax_number(json_string_value(value), &v)) {
        case LAX_OK: break;
        case LAX_RANGE: return refuse(c, "finite_number", value, "must be finite");
        default: return refuse(c, "float_parsing", value, "must be a number");
        }
    } else {
        return refuse(c, "float_type", value, "must be a number");
    }
    TRY(check_bounds(c, rule, v, value));
    return done(c, json_real(v), ret);
}

static enum status coerce_boolean(struct coercion *c, const json_t *value, json_t **ret)
{
    static const char wanted[] = "must be true or false";
    bool v = false;
    if (json_is_boolean(value)) {
        v = json_is_true(value);
    } else if (json_is_string(value)) {
        if (!lax_boolean(json_string_value(value), &v))
            return refuse(c, "bool_parsing", value, wanted);
    } else if (json_is_number(value)) {
        double d = json_number_value(value);
        if (json_is_real(value) && (d != floor(d) || fabs(d) >= 9223372036854775808.0))
            return refuse(c, "bool_type", value, wanted);
        if (d != 0 && d != 1)
            return refuse(c, "bool_parsing", value, wanted);
        v = d == 1;
    } else {
        return refuse(c, "bool_type", value, wanted);
    }
    return done(c, json_boolean(v), ret);
}

static enum status coerce_string(struct coercion *c, const json_t *value, json_t **ret)
{
    if (json_is_string(value)) {
        *ret = json_incref((json_t *)value);
        return ST_OK;
    }
    if (!json_is_number(value) || c->in_struct)
        return refuse(c, "string_type", value, "must be a text");
    char text[NUMBER_TEXT];
    if (json_is_integer(value))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    else
        number_text(json_real_value(value), text);
    return done(c, json_string(text), ret);
}

/* Whether S is one of the names in "a|b|c". */
static bool is_choice(const char *choices, const char *s)
{
    size_t n = strlen(s);
    for (const char *at = choices; *at;) {
        size_t len = strcspn(at, "|");
        if (len == n && memcmp(at, s, n) == 0)
            return true;
        at += len + (at[len] == '|');
    }
    return false;
}

/* Tells which choices there are, and the nearest one. */
static enum status refuse_choice(struct coercion *c, const struct node_field *rule, const json_t *value)
{
    enum { MAX_CHOICES = 64 };
    char copy[1024], wanted[512];
    const char *names[MAX_CHOICES];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", rule->choices);
    char *rest = copy;
    for (char *name; n < MAX_CHOICES && (name = strsep(&rest, "|"));)
        names[n++] = name;
    const char *nearest = json_is_string(value) ? nearest_name(json_string_value(value), names, n) : NULL;
    if (nearest)
        snprintf(wanted, sizeof wanted, "is not one of its choices; did you mean '%s'? (%.360s)", nearest, rule->choices);
    else
        snprintf(wanted, sizeof wanted, "is not one of its choices: %.400s", rule->choices);
    return refuse(c, rule->named ? "enum" : "literal_error", value, wanted);
}

static enum status coerce_enum(struct coercion *c, const struct node_field *rule, const json_t *value, json_t **ret)
{
    const char *s = json_string_value(value);
    if (!s || !is_choice(rule->choices, s))
        return refuse_choice(c, rule, value);
    if (rule->available && !is_choice(rule->available, s)) {
        char names[400];
        snprintf(names, sizeof names, "%s", rule->available);
        for (char *bar = names; (bar = strchr(bar, '|'));)
            *bar = ' ';
        return FAIL(c->err, NOT_AVAILABLE, "field '%s': '%s' is not available in this build; available: %s", c->field, s, names);
    }
    *ret = json_incref((json_t *)value);
    return ST_OK;
}

static enum status coerce_list(struct coercion *c, struct type_view item, const struct node_field *rule, const json_t *value, json_t **ret)
{
    if (!json_is_array(value))
        return refuse(c, "list_type", value, "must be a list");
    if (type_is(item, "any")) {
        *ret = json_incref((json_t *)value);
        return ST_OK;
    }
    AUTO_JSON *list = json_array();
    size_t i;
    json_t *v;
    json_array_foreach (value, i, v) {
        char index[24];
        size_t at = enter(c, index, (size_t)snprintf(index, sizeof index, "%zu", i));
        json_t *taken;
        TRY(coerce_typed(c, item, rule, v, &taken));
        leave(c, at);
        if (json_array_append_new(list, taken) != 0)
            return out_of_memory(c);
    }
    return done(c, json_incref(list), ret);
}

static enum status coerce_map(struct coercion *c, struct type_view item, const struct node_field *rule, const json_t *value, json_t **ret)
{
    if (!json_is_object(value))
        return refuse(c, "dict_type", value, "must be an object");
    AUTO_JSON *map = json_object();
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)value, key, v) {
        size_t at = enter(c, key, strlen(key));
        json_t *taken;
        TRY(coerce_typed(c, item, rule, v, &taken));
        leave(c, at);
        if (json_object_set_new_nocheck(map, key, taken) != 0)
            return out_of_memory(c);
    }
    return done(c, json_incref(map), ret);
}

static enum status coerce_member(struct coercion *c, const struct node_field *member, const json_t *value, json_t **ret)
{
    if (value)
        return coerce_typed(c, type_view(member->type, member->nullable), member, value, ret);
    if (member->required)
        return refuse(c, "missing", NULL, "is given, a value is required");
    if (!member->fallback && strncmp(member->type, "list[", 5) == 0)
        return done(c, json_array(), ret);
    return done(c, field_default(member), ret);
}

static enum status coerce_struct(struct coercion *c, const struct node_struct *s, const json_t *value, json_t **ret)
{
    char wanted[96];
    snprintf(wanted, sizeof wanted, "must be an object (%s)", s->name);
    if (!json_is_object(value))
        return refuse(c, s->n_members ? "model_type" : "dict_type", value, wanted);
    if (s->n_members == 0) {
        *ret = json_incref((json_t *)value);
        return ST_OK;
    }
    bool outer = c->in_struct;
    c->in_struct = true;
    AUTO_JSON *object = json_object();
    for (size_t i = 0; i < s->n_members; i++) {
        const struct node_field *member = &s->members[i];
        size_t at = enter(c, member->name, strlen(member->name));
        json_t *taken;
        TRY(coerce_member(c, member, json_object_get(value, member->name), &taken));
        leave(c, at);
        if (json_object_set_new_nocheck(object, member->name, taken) != 0)
            return out_of_memory(c);
    }
    c->in_struct = outer;
    return done(c, json_incref(object), ret);
}

/* Whether VALUE has the JSON shape of TYPE: such a member of a union is taken before any conversion is tried. */
static bool has_shape(struct type_view type, const json_t *value)
{
    struct type_view inner;
    if (type_inner(type, "list", &inner))
        return json_is_array(value);
    if (type_is(type, "integer"))
        return json_is_integer(value);
    if (type_is(type, "number"))
        return json_is_real(value);
    if (type_is(type, "boolean"))
        return json_is_boolean(value);
    if (type_is(type, "string"))
        return json_is_string(value);
    return node_struct_find(type.text, type.len) && json_is_object(value);
}

static enum status coerce_union(struct coercion *c, struct type_view type, const struct node_field *rule, const json_t *value, json_t **ret)
{
    struct type_view members[TYPE_MAX_MEMBERS];
    size_t n = type_members(type, members);
    for (size_t i = 0; i < n; i++)
        if (has_shape(members[i], value))
            return coerce_typed(c, members[i], rule, value, ret);
    for (size_t i = 0; i < n; i++) {
        struct coercion attempt = *c;
        attempt.fault = NULL;
        attempt.err = NULL;
        if (coerce_typed(&attempt, members[i], rule, value, ret) == ST_OK)
            return ST_OK;
    }
    return coerce_typed(c, members[0], rule, value, ret);
}

/* RULE has the bounds and choices; TYPE is that of the rule's field or of a part of it. */
static enum status coerce_typed(struct coercion *c, struct type_view type, const struct node_field *rule, const json_t *value, json_t **ret)
{
    struct type_view inner;
    if (type.nullable && json_is_null(value))
        return done(c, json_null(), ret);
    type.nullable = false;
    if (type_is(type, "integer"))
        return coerce_integer(c, rule, value, ret);
    if (type_is(type, "number"))
        return coerce_number(c, rule, value, ret);
    if (type_is(type, "boolean"))
        return coerce_boolean(c, value, ret);
    if (type_is(type, "string"))
        return coerce_string(c, value, ret);
    if (type_is(type, "enum"))
        return coerce_enum(c, rule, value, ret);
    if (type_is(type, "any"))
        return done(c, json_incref((json_t *)value), ret);
    if (type_inner(type, "list", &inner))
        return coerce_list(c, inner, rule, value, ret);
    if (type_inner(type, "map", &inner))
        return coerce_map(c, inner, rule, value, ret);
    if (type_inner(type, "union", &inner))
        return coerce_union(c, type, rule, value, ret);
    const struct node_struct *s = node_struct_find(type.text, type.len);
    if (!s)
        return refuse(c, "literal_error", value, "cannot be set");
    return coerce_struct(c, s, value, ret);
}

enum status coerce_field(const struct node_field *f, const json_t *value, json_t **ret, struct coerce_fault *fault, struct error *err)
{
    struct coercion c = {.field = f->name, .fault = fault, .err = err};
    return coerce_typed(&c, type_view(f->type, f->nullable), f, value, ret);
}

enum status field_coerce(const struct node_field *f, const json_t *value, json_t **ret, struct error *err)
{
    return coerce_field(f, value, ret, NULL, err);
}

enum status field_check_over(const struct node_field *f, const json_t *value, const json_t *fields, struct error *err)
{
    const json_t *other = f->over ? json_object_get(fields, f->over) : NULL;
    if (!other || json_integer_value(value) > json_integer_value(other))
        return ST_OK;
    return FAIL(err, BAD_GRAPH, "field '%s': %lld must be greater than field '%s' (%lld)", f->name, (long long)json_integer_value(value),
                f->over, (long long)json_integer_value(other));
}

json_t *field_default(const struct node_field *f)
{
    if (!f->fallback || strcmp(f->fallback, "null") == 0)
        return json_null();
    AUTO_JSON *given = json_loads(f->fallback, JSON_DECODE_ANY, NULL);
    json_t *taken;
    if (!given || coerce_field(f, given, &taken, NULL, NULL) != ST_OK)
        return NULL;
    return taken;
}
