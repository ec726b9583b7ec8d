#include "client/job.h"

#include <stdlib.h>
#include <string.h>

#include "client/follow.h"
#include "client/node.h"
#include "client/picture_file.h"
#include "client/private_node.h"
#include "common/json.h"

enum { LOST_LIMIT_MS = 60000, PRIVATE_LOST_LIMIT_MS = 2000, CANCEL_LIMIT_MS = 3000 };

struct job {
    struct job_options options;
    galley_client *client;
    struct private_node *private_node;
    json_t *result, *ids, *pictures; /* the last two are members of the first */
    struct error save_error;
    bool save_failed;
};

enum status job_open(const struct job_options *o, struct job **ret, struct error *err)
{
    struct job *j = calloc(1, sizeof *j);
    if (!j)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the job");
    j->options = *o;
    j->ids = json_array();
    j->pictures = json_array();
    j->result = json_pack("{s:o s:o}", "item_ids", j->ids, "pictures", j->pictures);
    enum status s = node_connect(o->node, &j->client, err);
    if (s == ST_UNREACHABLE && o->may_start && !o->node)
        s = private_node_start(o->config, &j->private_node, &j->client, err);
    if (s != ST_OK) {
        job_close(j);
        return s;
    }
    *ret = j;
    return ST_OK;
}

void job_close(struct job *j)
{
    if (!j)
        return;
    galley_close(j->client);
    private_node_stop(j->private_node);
    json_decref(j->result);
    free(j);
}

galley_client *job_client(const struct job *j) { return j->client; }

json_t *job_result(const struct job *j) { return j->result; }

static int64_t number_of(const struct job *j, int64_t item_id)
{
    size_t i;
    json_t *id;
    json_array_foreach (j->ids, i, id)
        if (json_integer_value(id) == item_id)
            return (int64_t)i + 1;
    return 0;
}

static enum status save(struct job *j, int64_t item_id, struct error *err)
{
    char path[FILE_NAME_BYTES];
    AUTO_JSON *row = NULL;
    TRY(picture_of_item(j->client, item_id, &row, err));
    if (j->options.pattern) {
        TRY(pattern_name(j->options.pattern, number_of(j, item_id), path, err));
        TRY(picture_fetch(j->client, json_str(row, "image_name", ""), path, err));
        json_object_set_new(row, "path", json_string(path));
    }
    json_object_set_new(row, "number", json_integer(number_of(j, item_id)));
    json_array_append(j->pictures, row);
    return ST_OK;
}

static void on_end(void *arg, const struct follow_item *it)
{
    struct job *j = arg;
    struct error err;
    if (strcmp(it->status, "completed") != 0)
        return;
    enum status s = save(j, it->item_id, &err);
    bool none_asked = s == ST_NOT_FOUND && !j->options.pattern; /* a graph without pictures is no failure then */
    if (s != ST_OK && !none_asked && !j->save_failed) {
        j->save_failed = true;
        j->save_error = err;
    }
}

static enum status enqueue(struct job *j, json_t *args, struct follow *f, struct error *err)
{
    AUTO_JSON *answer = NULL;
    TRY(node_call(j->client, "enqueue", args, &answer, err));
    const json_t *newest_first = json_object_get(answer, "item_ids");
    size_t n = json_array_size(newest_first);
    const char *batch_id = json_str(json_object_get(answer, "batch"), "batch_id", NULL);
    int64_t *ids = calloc(n + 1, sizeof *ids);
    if (!ids)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for %zu items", n);
    for (size_t i = 0; i < n; i++) {
        ids[i] = json_integer_value(json_array_get(newest_first, n - 1 - i));
        json_array_append_new(j->ids, json_integer(ids[i]));
    }
    json_object_set_new(j->result, "batch_id", batch_id ? json_string(batch_id) : json_null());
    enum status s = follow_add(f, ids, n, batch_id, err);
    free(ids);
    return s;
}

/* cancel_all takes the interrupted job off the node and tells so; a private one is about to end anyway. */
static enum status cancel_all(struct job *j, struct error *err)
{
    struct error fault;
    AUTO_JSON *answer = NULL;
    const char *batch_id = json_str(j->result, "batch_id", NULL);
    if (j->private_node || !batch_id)
        return FAIL(err, CANCELED, "interrupted");
    if (node_call_within(j->client, CANCEL_LIMIT_MS, "cancel_by_batch_ids", json_pack("{s:[s]}", "batch_ids", batch_id), &answer, &fault) ==
        ST_OK)
        return FAIL(err, CANCELED, "interrupted: the job is canceled");
    return FAIL(err, CANCELED, "interrupted, and the job could not be canceled ('galley queue cancel --batch %s' tries again): %.500s",
                batch_id, fault.message);
}

static enum status verdict(const struct job *j, const struct follow *f, struct error *err)
{
    const struct follow_item *failed = follow_failed(f);
    if (failed && strcmp(failed->status, "failed") == 0)
        return FAIL(err, NODE_FAILED, "item %lld failed: %s", (long long)failed->item_id,
                    failed->error[0] ? failed->error : "no reason is recorded");
    if (failed)
        return FAIL(err, NODE_FAILED, "item %lld was %s on the node", (long long)failed->item_id, failed->status);
    if (j->save_failed) {
        *err = j->save_error;
        return err->code;
    }
    return ST_OK;
}

enum status job_run(struct job *j, json_t *args, struct error *err)
{
    struct follow *f = NULL;
    struct follow_options o = {.quiet = j->options.quiet,
                               .tiles = j->options.tiles,
                               .on_end = on_end,
                               .arg = j,
                               .lost_limit_ms = j->private_node ? PRIVATE_LOST_LIMIT_MS : LOST_LIMIT_MS};
    enum status s = follow_new(j->client, &o, &f, err);
    if (s == ST_OK)
        s = enqueue(j, args, f, err);
    else
        json_decref(args);
    if (s == ST_OK)
        s = follow_items_done(f, err);
    if (s == ST_CANCELED)
        s = cancel_all(j, err);
    if (s == ST_UNREACHABLE && j->private_node)
        s = private_node_death(j->private_node, err);
    if (s == ST_OK)
        s = verdict(j, f, err);
    follow_free(f);
    return s;
}

int job_exit_code(enum status s) { return s == ST_CANCELED ? EXIT_INTERRUPTED : exit_code_of(s); }
