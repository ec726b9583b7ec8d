#include "client/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/terminal.h"
#include "common/json.h"
#include "proto/limits.h"

enum { CONNECT_LIMIT_MS = 5000, CALL_LIMIT_MS = 30000 };

enum status error_from(const galley_error *from, struct error *err)
{
    return error_set(err, status_from_name(from->code), __FILE__, __LINE__, "%s", from->message);
}

enum status node_connect(const char *url, galley_client **ret, struct error *err)
{
    galley_error fault;
    char full[512];
    if (url && !strstr(url, "://")) {
        if (snprintf(full, sizeof full, "ipc://%s", url) >= (int)sizeof full)
            return FAIL(err, BAD_ARGUMENT, "--node: the path has more than %d bytes", LIMIT_IPC_PATH);
        url = full;
    }
    if (galley_connect(url, CONNECT_LIMIT_MS, ret, &fault) != 0)
        return error_from(&fault, err);
    return ST_OK;
}

enum status node_call(galley_client *c, const char *op, json_t *args, json_t **ret, struct error *err)
{
    return node_call_within(c, CALL_LIMIT_MS, op, args, ret, err);
}

enum status node_call_within(galley_client *c, int limit_ms, const char *op, json_t *args, json_t **ret, struct error *err)
{
    galley_error fault;
    char *text = args ? json_text(args) : NULL, *answer = NULL;
    bool failed = args && !text;
    json_decref(args);
    if (failed)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the request '%s'", op);
    int r = galley_call(c, op, text, limit_ms, &answer, &fault);
    free(text);
    if (r != 0)
        return error_from(&fault, err);
    enum status s = json_parse(answer, strlen(answer), LIMIT_REPLY_BYTES, ret, err);
    galley_free(answer);
    return s == ST_OK ? ST_OK
                      : FAIL(err, PROTOCOL, "the node's answer to '%s' is not valid JSON: are node and client of the same version?", op);
}

enum status node_ask(const struct invocation *in, const char *op, json_t *args, json_t **ret, struct error *err)
{
    AUTO_NODE *c = NULL;
    enum status s = node_connect(in->common.node, &c, err);
    if (s != ST_OK) {
        json_decref(args);
        return s;
    }
    return node_call(c, op, args, ret, err);
}

int exit_code_of(enum status code)
{
    switch (code) {
    case ST_OK: return EXIT_DONE;
    case ST_UNREACHABLE:
    case ST_TIMEOUT: return EXIT_NO_NODE;
    case ST_QUEUE_FULL:
    case ST_FORBIDDEN:
    case ST_BUSY: return EXIT_REFUSED;
    case ST_BAD_CONFIG:
    case ST_NO_DEVICE: return EXIT_USAGE;
    case ST_NODE_FAILED:
    case ST_POISON:
    case ST_EXPIRED: return EXIT_FAILED;
    default: return status_action(code) == ACT_CALLER ? EXIT_USAGE : EXIT_FAILED;
    }
}

int report(const struct error *err)
{
    AUTO_BUF line = BUF_INIT;
    text_put(&line, err->message, -1);
    fprintf(stderr, "galley: %s\n", line.data ? line.data : status_text(err->code));
    return exit_code_of(err->code);
}

int print_json(json_t *j)
{
    bool written = j && json_dumpf(j, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17)) == 0;
    json_decref(j);
    if (!written) {
        fputs("galley: cannot write the result as JSON\n", stderr);
        return EXIT_FAILED;
    }
    putchar('\n');
    return EXIT_DONE;
}
