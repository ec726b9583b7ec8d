#include "supervisor/control.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "proto/limits.h"
#include "proto/mp.h"
#include "supervisor/commands.h"
#include "supervisor/supervisor.h"

enum { TAKE_MAX = 64 };    /* requests answered before the loop looks at other things again */

struct control {
    struct supervisor *sup;
    struct sp_rep *rep;
    struct loop_wake *wake;
};

/* ---- the table */

static const struct argument arguments[] = {
#define COMMAND(name, access, help)
#define ARGUMENT(name, type, required, min, max, available, help) {#name, ARG_##type, required, available, min, max, help},
#define END_COMMAND(name) {NULL, ARG_ANY, false, false, 0, 0, NULL},
#define LATER(name, help)
#include "proto/commands.def"
#undef COMMAND
#undef ARGUMENT
#undef END_COMMAND
#undef LATER
};
static const struct command commands[] = {
#define COMMAND(name, access, help) {#name, #access, help, command_##name},
#define ARGUMENT(name, type, required, min, max, available, help)
#define END_COMMAND(name)
#define LATER(name, help) {#name, "LATER", help, NULL},
#include "proto/commands.def"
#undef COMMAND
#undef ARGUMENT
#undef END_COMMAND
#undef LATER
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

const struct command *command_table(size_t *ret_n)
{
    *ret_n = N_COMMANDS;
    return commands;
}

const struct argument *command_arguments(const struct command *c)
{
    const struct argument *a = arguments;
    for (const struct command *k = commands; k != c; k++)
        if (k->run)
            while ((a++)->name)
                ;
    static const struct argument none = {NULL, ARG_ANY, false, false, 0, 0, NULL};
    return c->run ? a : &none;
}

static const struct command *find(const char *op, struct error *err)
{
    const char *names[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, op) == 0)
            return &commands[i];
        names[i] = commands[i].name;
    }
    const char *near = nearest_name(op, names, N_COMMANDS);
    FAIL(err, UNKNOWN_OP, "unknown op '%.100s'%s%s%s; {\"op\":\"help\"} lists all", op, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}

/* ---- arguments */

static const char *const type_texts[] = {
    [ARG_INT] = "an integer", [ARG_NUM] = "a number", [ARG_STR] = "a text", [ARG_BOOL] = "true or false", [ARG_OBJ] = "an object",
    [ARG_LIST] = "a list", [ARG_ANY] = "any value", [ARG_INTS] = "a list of integers", [ARG_STRS] = "a list of texts",
};

const char *argument_type_text(enum argument_type t)
{
    return type_texts[t];
}

static bool list_of(const json_t *v, bool ints)
{
    size_t i;
    json_t *x;
    if (!json_is_array(v))
        return false;
    json_array_foreach(v, i, x)
        if (ints ? !json_is_integer(x) : !json_is_string(x))
            return false;
    return true;
}

static bool has_type(const json_t *v, enum argument_type t)
{
    switch (t) {
    case ARG_INT: return json_is_integer(v);
    case ARG_NUM: return json_is_number(v);
    case ARG_STR: return json_is_string(v);
    case ARG_BOOL: return json_is_boolean(v);
    case ARG_OBJ: return json_is_object(v);
    case ARG_LIST: return json_is_array(v);
    case ARG_INTS: return list_of(v, true);
    case ARG_STRS: return list_of(v, false);
    default: return true;
    }
}

static enum status check_bounds(const struct argument *a, const json_t *v, struct error *err)
{
    if (a->type == ARG_INT || a->type == ARG_NUM) {
        double d = json_number_value(v);
        if (!(d >= a->min && d <= a->max))
            return FAIL(err, BAD_ARGUMENT, "argument '%s': %.17g is out of range, %.17g to %.17g", a->name, d, a->min, a->max);
    } else if (a->type == ARG_STR) {
        size_t n = json_string_length(v);
        if (n < (size_t)a->min || n > (size_t)a->max)
            return FAIL(err, BAD_ARGUMENT, "argument '%s': a text of %zu bytes, must be %.0f to %.0f", a->name, n, a->min, a->max);
    } else if (a->type == ARG_INTS || a->type == ARG_STRS) {
        size_t n = json_array_size(v);
        if (n < (size_t)a->min || n > (size_t)a->max)
            return FAIL(err, BAD_ARGUMENT, "argument '%s': a list of %zu, must be %.0f to %.0f", a->name, n, a->min, a->max);
    }
    return ST_OK;
}

static enum status unknown_argument(const struct command *c, const struct argument *first, const char *key, struct error *err)
{
    const char *names[32];
    size_t n = 0;
    char list[400] = "";
    for (const struct argument *a = first; a->name && n < 32; a++) {
        if (strlen(list) + strlen(a->name) + 3 < sizeof list)
            sprintf(list + strlen(list), "%s%s", n ? ", " : "", a->name);
        names[n++] = a->name;
    }
    const char *near = nearest_name(key, names, n);
    return FAIL(err, BAD_ARGUMENT, "%s: unknown argument '%.100s'%s%s%s; it takes: %s", c->name, key, near ? ", did you mean '" : "", near ? near : "",
                near ? "'?" : "", n ? list : "none");
}

static enum status check_arguments(const struct command *c, const json_t *args, struct error *err)
{
    const struct argument *first = command_arguments(c), *a;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)args, key, value) {
        for (a = first; a->name && strcmp(a->name, key) != 0; a++)
            ;
        if (!a->name)
            return unknown_argument(c, first, key, err);
        if (json_is_null(value) && !a->required)
            continue;
        if (!a->available)
            return FAIL(err, NOT_AVAILABLE, "%s: argument '%s' is not available yet", c->name, key);
        if (!has_type(value, a->type))
            return FAIL(err, BAD_ARGUMENT, "%s: argument '%s' must be %s", c->name, key, type_texts[a->type]);
        TRY(check_bounds(a, value, err));
    }
    for (a = first; a->name; a++)
        if (a->required && !json_object_get(args, a->name))
            return FAIL(err, BAD_ARGUMENT, "%s: argument '%s' (%s) is missing: %s", c->name, a->name, type_texts[a->type], a->help);
    return ST_OK;
}

static enum status check_envelope(const json_t *body, const char **ret_op, const json_t **ret_args, struct error *err)
{
    static const char *const known[] = {"op", "args", "token", "v"};
    const char *key;
    json_t *value;
    if (!json_is_object(body))
        return FAIL(err, BAD_REQUEST, "a request is a map {\"op\": name, \"args\": {...}}");
    json_object_foreach((json_t *)body, key, value) {
        size_t i = 0;
        while (i < 4 && strcmp(known[i], key) != 0)
            i++;
        if (i == 4)
            return FAIL(err, BAD_REQUEST, "unknown member '%.100s' of the request; there are op, args, token, v", key);
    }
    if (json_object_get(body, "token"))
        return FAIL(err, NOT_AVAILABLE, "'token' is not available yet: this node has one user, who owns its socket folder");
    const json_t *v = json_object_get(body, "v"), *args = json_object_get(body, "args");
    if (v && json_integer_value(v) != 1)
        return FAIL(err, BAD_REQUEST, "'v': this node speaks protocol version 1");
    if (args && !json_is_object(args) && !json_is_null(args))
        return FAIL(err, BAD_REQUEST, "'args' must be a map");
    *ret_op = json_str(body, "op", NULL);
    *ret_args = json_is_object(args) ? args : NULL;
    return *ret_op ? ST_OK : FAIL(err, BAD_REQUEST, "'op' is missing or no text; {\"op\":\"help\"} lists the commands");
}

/* ---- replies */

struct wr *request_result(struct request *r)
{
    buf_reset(&r->reply);
    wr_init(&r->w, &r->reply, r->form);
    wr_map(&r->w, 2);
    wr_kbool(&r->w, "ok", true);
    wr_key(&r->w, "result");
    return &r->w;
}

void request_release(struct request *r)
{
    json_decref(r->body);
    buf_fini(&r->reply);
    free(r);
}

void request_send(struct request *r)
{
    wr_end(&r->w);
    if (!buf_ok(&r->reply) || r->reply.len > LIMIT_REPLY_BYTES) {
        struct error err;
        FAIL(&err, TOO_LARGE, "the answer would exceed %d bytes; ask for less at a time", LIMIT_REPLY_BYTES);
        request_fail(r, &err);
        return;
    }
    control_answer(r->sup->control, r->token, &r->reply);
    request_release(r);
}

void request_fail(struct request *r, const struct error *err)
{
    struct wr *w = &r->w;
    buf_fini(&r->reply);
    wr_init(w, &r->reply, r->form);
    wr_map(w, 2);
    wr_kbool(w, "ok", false);
    wr_key(w, "error");
    wr_map(w, 2);
    wr_kstr(w, "code", status_name(err->code));
    wr_kstr(w, "message", err->message);
    wr_end(w);
    wr_end(w);
    control_answer(r->sup->control, r->token, &r->reply);
    request_release(r);
}

void control_answer(struct control *c, uint64_t token, const struct buf *reply)
{
    static const char out_of_memory[] = "{\"ok\":false,\"error\":{\"code\":\"out_of_memory\",\"message\":\"the node is out of memory\"}}";
    if (buf_ok(reply))
        sp_rep_reply(c->rep, token, reply->data ? reply->data : "", reply->len);
    else
        sp_rep_reply(c->rep, token, out_of_memory, sizeof out_of_memory - 1);
}

/* ---- requests */

/* read_body decodes a frame: JSON if it begins with '{' (or white space before one), else MessagePack. */
static enum status read_body(struct request *r, const struct sp_request *in, struct error *err)
{
    const char *text = in->bytes;
    size_t skip = 0;
    while (skip < in->n && strchr(" \t\r\n", text[skip]) && text[skip])
        skip++;
    r->form = skip < in->n && (text[skip] == '{' || text[skip] == '[' || text[skip] == '"') ? WR_JSON : WR_MSGPACK;
    if (in->n > LIMIT_REQUEST_BYTES)
        return FAIL(err, TOO_LARGE, "a request of %zu bytes exceeds the limit of %d", in->n, (int)LIMIT_REQUEST_BYTES);
    if (in->n == 0)
        return FAIL(err, BAD_REQUEST, "an empty frame is no request");
    if (r->form == WR_JSON)
        return json_parse(text, in->n, LIMIT_REQUEST_BYTES, &r->body, err);
    struct mp c = mp_open(in->bytes, in->n);
    TRY(mp_json(&c, &r->body, err));
    mp_done(&c);
    return mp_check(&c, in->bytes, err);
}

static void serve(struct control *c, const struct sp_request *in)
{
    struct error err;
    const char *op = NULL;
    const struct command *command = NULL;
    struct request *r = calloc(1, sizeof *r);
    if (!r) {
        control_answer(c, in->token, &(struct buf){.failed = true});
        return;
    }
    *r = (struct request){.sup = c->sup, .token = in->token};
    c->sup->requests++;
    enum status s = read_body(r, in, &err);
    if (s == ST_OK)
        s = check_envelope(r->body, &op, &r->args, &err);
    if (s == ST_OK && !(command = find(op, &err)))
        s = ST_UNKNOWN_OP;
    if (s == ST_OK && !command->run)
        s = FAIL(&err, NOT_AVAILABLE, "op '%s' is not available yet", op);
    if (s == ST_OK)
        s = check_arguments(command, r->args, &err);
    if (s != ST_OK)
        request_fail(r, &err);
    else
        command->run(r);
}

static void on_wake(void *arg)
{
    struct control *c = arg;
    struct sp_request in;
    for (int n = 0; sp_rep_take(c->rep, &in); n++) {
        serve(c, &in);
        free(in.bytes);
        if (n == TAKE_MAX) {
            loop_wake_ring(c->wake);
            return;
        }
    }
}

static void ring(void *arg)
{
    struct control *c = arg;
    loop_wake_ring(c->wake);
}

void control_counts(struct control *c, struct sp_counts *ret)
{
    sp_rep_counts(c->rep, ret);
}

enum status control_new(struct supervisor *sup, struct control **ret, struct error *err)
{
    char url[PATH_BYTES + 32];
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the control socket");
    c->sup = sup;
    snprintf(url, sizeof url, "ipc://%s/control", sup->paths.run);
    enum status s = loop_wake_new(sup->loop, on_wake, c, &c->wake, err);
    if (s == ST_OK)
        s = sp_rep_listen(url, LIMIT_CONTEXTS, LIMIT_REQUEST_BYTES + 4096, LIMIT_CONNECTIONS, ring, c, &c->rep, err);
    if (s == ST_OK)
        *ret = c;    /* lives as long as the process */
    return s;
}
