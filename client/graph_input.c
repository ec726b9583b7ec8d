#include "client/graph_input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/model_choice.h"
#include "client/png_text.h"
#include "common/buf.h"
#include "common/json.h"
#include "proto/limits.h"

enum { CHUNK = 65536, PICTURE_LIMIT_BYTES = 64 << 20, MAX_NAMES = 1024 };

static enum status read_all(const char *path, struct buf *out, struct error *err)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL(err, BAD_ARGUMENT, "cannot open '%s': %s", path, strerror(errno));
    enum status s = ST_OK;
    for (ssize_t n = 1; s == ST_OK && n > 0;) {
        char *room = buf_reserve(out, CHUNK);
        n = room ? read(fd, room, CHUNK) : 0;
        if (n < 0)
            s = FAIL(err, BAD_ARGUMENT, "cannot read '%s': %s", path, strerror(errno));
        else if (!room)
            s = FAIL(err, OUT_OF_MEMORY, "out of memory reading '%s'", path);
        else if ((out->len += (size_t)n) > PICTURE_LIMIT_BYTES)
            s = FAIL(err, TOO_LARGE, "'%s' has more than %d MiB", path, PICTURE_LIMIT_BYTES >> 20);
    }
    if (!is_stdin)
        close(fd);
    return s;
}

static enum status parse(const char *path, const struct buf *bytes, json_t **ret, struct error *err)
{
    if (!png_is(bytes->data, bytes->len)) {
        enum status s = json_parse(bytes->data ? bytes->data : "", bytes->len, LIMIT_REQUEST_BYTES, ret, err);
        return s == ST_OK ? ST_OK : error_prefix(err, "%s", path);
    }
    char *text;
    enum status s = png_text_find(bytes->data, bytes->len, "invokeai_graph", &text, err);
    if (s == ST_OK) {
        s = json_parse(text, strlen(text), LIMIT_REQUEST_BYTES, ret, err);
        free(text);
    }
    if (s == ST_OK)
        return ST_OK;
    if (err)
        err->code = ST_BAD_REQUEST; /* whatever is wrong with the file: it is bad input */
    error_prefix(err, "%s", path);
    return ST_BAD_REQUEST;
}

static json_t *wrap(const char *key, json_t *value) { return json_pack("{s:o}", key, value); }

enum status graph_input_read(const char *path, json_t **ret, struct error *err)
{
    AUTO_BUF bytes = BUF_INIT;
    AUTO_JSON *j = NULL;
    TRY(read_all(path, &bytes, err));
    TRY(parse(path, &bytes, &j, err));
    if (json_is_object(json_object_get(j, "batch"))) {
        *ret = json_incref(j);
        return ST_OK;
    }
    if (json_is_object(json_object_get(j, "graph"))) {
        *ret = wrap("batch", json_incref(j));
        return ST_OK;
    }
    const json_t *nodes = json_object_get(j, "nodes");
    if (json_is_array(nodes))
        return FAIL(
            err, NOT_AVAILABLE,
            "%s: this is an editor workflow (its nodes are a list); workflows are not available in this version: save the graph instead",
            path);
    if (!json_is_object(nodes))
        return FAIL(err, BAD_REQUEST,
                    "%s: this is no graph: expected {\"nodes\": {...}, \"edges\": [...]}, a batch with a graph, or an enqueue body", path);
    *ret = wrap("batch", json_pack("{s:O s:i s:s}", "graph", j, "runs", 1, "origin", "galley"));
    return ST_OK;
}

static json_t *nodes_of(json_t *args) { return json_object_get(json_object_get(json_object_get(args, "batch"), "graph"), "nodes"); }

static enum status no_node(json_t *nodes, const char *id, struct error *err)
{
    const char *names[MAX_NAMES], *key;
    size_t n = 0;
    json_t *node;
    json_object_foreach (nodes, key, node)
        if (n < MAX_NAMES)
            names[n++] = key;
    const char *near = nearest_name(id, names, n);
    return FAIL(err, NOT_FOUND, "--set: the graph has no node '%.128s'%s%.128s%s", id, near ? ": is '" : "", near ? near : "",
                near ? "' meant?" : "");
}

enum status graph_input_set(json_t *args, const char *assignment, struct error *err)
{
    const char *equals = strchr(assignment, '='), *dot = NULL;
    for (const char *p = assignment; equals && p < equals; p++)
        if (*p == '.')
            dot = p;
    if (!dot || dot == assignment || dot + 1 == equals)
        return FAIL(err, BAD_ARGUMENT, "--set takes NODE.FIELD=VALUE, not '%.128s'", assignment);
    AUTO_BUF id = BUF_INIT;
    AUTO_BUF field = BUF_INIT;
    buf_put(&id, assignment, (size_t)(dot - assignment));
    buf_put(&field, dot + 1, (size_t)(equals - dot) - 1);
    if (!buf_ok(&id) || !buf_ok(&field))
        return FAIL(err, OUT_OF_MEMORY, "out of memory for --set");
    json_t *nodes = nodes_of(args), *node = json_object_get(nodes, id.data), *value = NULL;
    const char *text = equals + 1;
    if (!json_is_object(node))
        return no_node(nodes, id.data, err);
    bool holds_text = json_is_string(json_object_get(node, field.data));
    if (!holds_text && json_parse(text, strlen(text), LIMIT_REQUEST_BYTES, &value, NULL) != ST_OK)
        value = NULL;
    if (!value && !(value = json_string(text)))
        return FAIL(err, BAD_ARGUMENT, "--set %s.%s: the value is not valid UTF-8 text", id.data, field.data);
    json_object_set_new(node, field.data, value);
    return ST_OK;
}

enum status graph_input_model(json_t *args, const json_t *row, struct error *err)
{
    const char *key;
    json_t *node;
    size_t n = 0;
    json_object_foreach (nodes_of(args), key, node) {
        if (strcmp(json_str(node, "type", ""), "main_model_loader") != 0)
            continue;
        json_object_set_new(node, "model", model_reference(row));
        n++;
    }
    return n ? ST_OK : FAIL(err, NOT_FOUND, "--model: the graph has no main_model_loader that could take it");
}

int64_t graph_input_count(const json_t *args)
{
    const json_t *batch = json_object_get(args, "batch");
    size_t i;
    json_t *group;
    double n = (double)json_int(batch, "runs", 1);
    json_array_foreach (json_object_get(batch, "data"), i, group)
        n *= (double)json_array_size(json_object_get(json_array_get(group, 0), "items"));
    return n < 1 ? 1 : n > LIMIT_BATCH_ITEMS ? LIMIT_BATCH_ITEMS : (int64_t)n;
}
