#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/item_args.h"
#include "client/node.h"
#include "client/terminal.h"
#include "common/json.h"

/* ---- list, show */

struct list_options {
    const char *status, *batch, *device;
    struct whole limit;
    bool all;
};
#define LIST(member) offsetof(struct list_options, member)
static const struct option_row list_rows[] = {
    {"status", 's', OPTION_TEXT, LIST(status), 0, 0, "STATUS", "Only pending, in_progress, waiting, completed, failed or canceled"},
    {"batch", 'b', OPTION_TEXT, LIST(batch), 0, 0, "ID", "Only of this batch"},
    {"device", 0, OPTION_TEXT, LIST(device), 0, 0, "DEVICE", "Only of this device"},
    {"limit", 'n', OPTION_WHOLE, LIST(limit), 1, 10000000, "N", "Items at most (default: 100)"},
    {"all", 'a', OPTION_FLAG, LIST(all), 0, 0, NULL, "All items"},
};
enum { PAGE = 1000, LIST_DEFAULT = 100 };

static json_t *list_args(const struct list_options *o, json_int_t cursor, long long room)
{
    json_t *args = json_pack("{s:I}", "limit", (json_int_t)(room < PAGE ? room : PAGE));
    if (cursor)
        json_object_set_new(args, "cursor", json_integer(cursor));
    if (o->status)
        json_object_set_new(args, "status", json_string(o->status));
    if (o->batch)
        json_object_set_new(args, "batch_id", json_string(o->batch));
    if (o->device)
        json_object_set_new(args, "device", json_string(o->device));
    return args;
}

static void print_items(const json_t *items)
{
    AUTO_TABLE t = {.columns = 8};
    size_t i;
    json_t *row;
    static const char *const head[] = {"ITEM", "STATUS", "DEVICE", "TRY", "CREATED", "ENDED", "BATCH", "ERROR"};
    for (i = 0; i < COUNT_OF(head); i++)
        table_cell(&t, "%s", head[i]);
    json_array_foreach (items, i, row) {
        const char *status = json_str(row, "status", ""), *state = json_str(row, "state", status);
        table_cell(&t, "%lld", json_int(row, "item_id", 0));
        table_cell(&t, "%s", strcmp(state, "canceling") == 0 || strcmp(state, "held") == 0 ? state : status);
        table_cell(&t, "%s", json_str(row, "device", "-"));
        table_cell(&t, "%lld", json_int(row, "attempt", 0));
        table_cell(&t, "%.19s", json_str(row, "created_at", "-"));
        table_cell(&t, "%.19s", json_str(row, "completed_at", "-"));
        table_cell(&t, "%s", json_str(row, "batch_id", "-"));
        table_cell(&t, "%.200s", json_str(row, "error_message", ""));
    }
    table_print(&t, stdout);
}

static enum status fetch_items(const struct invocation *in, json_t *items, bool *ret_more, struct error *err)
{
    const struct list_options *o = in->options;
    AUTO_NODE *c = NULL;
    json_int_t cursor = 0;
    long long room = o->all ? 10000000 : o->limit.given ? o->limit.value : LIST_DEFAULT;
    TRY(node_connect(in->common.node, &c, err));
    do {
        AUTO_JSON *page = NULL;
        TRY(node_call(c, "items", list_args(o, cursor, room), &page, err));
        const json_t *rows = json_object_get(page, "items");
        room -= (long long)json_array_size(rows);
        json_array_extend(items, (json_t *)rows);
        json_int_t next = json_int(page, "cursor", 0);
        cursor = json_array_size(rows) && next != cursor ? next : 0;
    } while (cursor && room > 0);
    *ret_more = cursor != 0;
    return ST_OK;
}

static int run_list(const struct invocation *in)
{
    struct error err;
    bool more;
    AUTO_JSON *items = json_array();
    if (fetch_items(in, items, &more, &err) != ST_OK)
        return report(&err);
    if (in->common.json)
        return print_json(json_pack("{s:O s:b}", "items", items, "more", more));
    print_items(items);
    if (more)
        fprintf(stderr, "there are more: --limit N or --all shows them\n");
    return EXIT_DONE;
}

static void print_fields(const json_t *row)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)row, key, value) {
        if (json_is_null(value))
            continue;
        char *text = json_is_string(value) ? NULL : json_text(value);
        AUTO_BUF line = BUF_INIT;
        text_put(&line, text ? text : json_string_value(value) ? json_string_value(value) : "", -1);
        printf("%-20s %s\n", key, line.data ? line.data : "");
        free(text);
    }
}

static int run_show(const struct invocation *in)
{
    struct error err;
    int64_t id;
    size_t i;
    json_t *image;
    AUTO_JSON *answer = NULL;
    if (item_id_read(in->words[0], &id, &err) != ST_OK ||
        node_ask(in, "item", json_pack("{s:I}", "item_id", (json_int_t)id), &answer, &err) != ST_OK)
        return report(&err);
    if (in->common.json)
        return print_json(json_incref(answer));
    print_fields(json_object_get(answer, "item"));
    json_array_foreach (json_object_get(answer, "images"), i, image)
        printf("%-20s %s (%lldx%lld%s)\n", "image", json_str(image, "image_name", ""), json_int(image, "width", 0),
               json_int(image, "height", 0), json_flag(image, "is_intermediate", false) ? ", intermediate" : "");
    return EXIT_DONE;
}

/* ---- changes */

/* print_changed prints the ids that were really changed: DONE says what happened to them. */
static int print_changed(const struct invocation *in, json_t *answer, const char *done)
{
    if (in->common.json)
        return print_json(answer);
    const json_t *ids = json_object_get(answer, "item_ids");
    size_t n = json_array_size(ids), i;
    json_t *id;
    enum { NAMED = 20 };
    printf("%zu item%s %s%s", n, n == 1 ? "" : "s", done, n ? ":" : "");
    json_array_foreach (ids, i, id)
        if (i < NAMED)
            printf(" %lld", (long long)json_integer_value(id));
    printf("%s\n", n > NAMED ? " ..." : "");
    json_decref(answer);
    return EXIT_DONE;
}

static int change(const struct invocation *in, const char *op, json_t *args, const char *done)
{
    struct error err;
    json_t *answer;
    if (node_ask(in, op, args, &answer, &err) != ST_OK)
        return report(&err);
    return print_changed(in, answer, done);
}

struct cancel_options {
    struct texts batch;
    bool pending;
};
static const struct option_row cancel_rows[] = {
    {"batch", 'b', OPTION_TEXTS, offsetof(struct cancel_options, batch), 0, 0, "ID",
     "All of this batch that is not finished; may be repeated"},
    {"pending", 0, OPTION_FLAG, offsetof(struct cancel_options, pending), 0, 0, NULL, "All pending items"},
};

/* cancel_items cancels one by one; an id that cannot be canceled does not keep the others from it. */
static int cancel_items(const struct invocation *in)
{
    struct error err;
    int code = EXIT_DONE;
    AUTO_NODE *c = NULL;
    AUTO_JSON *wanted = NULL;
    json_t *done = json_array(), *id;
    size_t i;
    if (item_ids_read(in->words, in->n_words, &wanted, &err) != ST_OK || node_connect(in->common.node, &c, &err) != ST_OK) {
        json_decref(done);
        return report(&err);
    }
    json_array_foreach (json_object_get(wanted, "item_ids"), i, id) {
        AUTO_JSON *answer = NULL;
        if (node_call(c, "cancel", json_pack("{s:O}", "item_id", id), &answer, &err) != ST_OK)
            code = report(&err);
        else
            json_array_extend(done, json_object_get(answer, "item_ids"));
    }
    print_changed(in, json_pack("{s:o}", "item_ids", done), "canceled");
    return code;
}

static int run_cancel(const struct invocation *in)
{
    const struct cancel_options *o = in->options;
    struct error err;
    if ((in->n_words > 0) + (o->batch.n > 0) + o->pending != 1) {
        (void)FAIL(&err, BAD_ARGUMENT, "'galley queue cancel' takes item ids, or --batch, or --pending");
        return report(&err);
    }
    if (in->n_words)
        return cancel_items(in);
    if (o->pending)
        return change(in, "cancel_all_except_current", NULL, "canceled");
    json_t *ids = json_array();
    for (size_t i = 0; i < o->batch.n; i++)
        json_array_append_new(ids, json_string(o->batch.items[i]));
    return change(in, "cancel_by_batch_ids", json_pack("{s:o}", "batch_ids", ids), "canceled");
}

struct change_options {
    bool again, images;
};
static const struct option_row retry_rows[] = {
    {"again", 0, OPTION_FLAG, offsetof(struct change_options, again), 0, 0, NULL, "Completed ones too"},
};
static const struct option_row image_rows[] = {
    {"images", 0, OPTION_FLAG, offsetof(struct change_options, images), 0, 0, NULL, "Delete their pictures too"},
};

static int change_ids(const struct invocation *in, const char *op, const char *flag, bool set, const char *done)
{
    struct error err;
    json_t *args;
    if (item_ids_read(in->words, in->n_words, &args, &err) != ST_OK)
        return report(&err);
    if (set)
        json_object_set_new(args, flag, json_true());
    return change(in, op, args, done);
}

static int run_retry(const struct invocation *in)
{
    return change_ids(in, "retry", "again", ((const struct change_options *)in->options)->again, "added");
}

static int run_delete(const struct invocation *in)
{
    return change_ids(in, "delete", "images", ((const struct change_options *)in->options)->images, "deleted");
}

static json_t *images_flag(const struct invocation *in)
{
    return ((const struct change_options *)in->options)->images ? json_pack("{s:b}", "images", 1) : NULL;
}

static int run_prune(const struct invocation *in) { return change(in, "prune", images_flag(in), "deleted"); }

static int run_clear(const struct invocation *in) { return change(in, "clear", images_flag(in), "deleted"); }

static int set_paused(const struct invocation *in, const char *op)
{
    struct error err;
    json_t *answer;
    if (node_ask(in, op, NULL, &answer, &err) != ST_OK)
        return report(&err);
    if (in->common.json)
        return print_json(answer);
    printf("the queue %s\n", json_flag(answer, "paused", false) ? "is paused: what runs goes on, nothing new starts" : "goes on");
    json_decref(answer);
    return EXIT_DONE;
}

static int run_pause(const struct invocation *in) { return set_paused(in, "pause"); }

static int run_resume(const struct invocation *in) { return set_paused(in, "resume"); }

#define BOTH .uses = USES_JSON | USES_NODE
static const struct command parts[] = {
    {.name = "list", .summary = "Items, the oldest first", BOTH, OPTIONS(list_rows, struct list_options), .run = run_list},
    {.name = "show",
     .words = "ITEM",
     .summary = "One item and its pictures; with --json its whole session",
     .min_words = 1,
     .max_words = 1,
     BOTH,
     .run = run_show},
    {.name = "cancel",
     .words = "[ITEM...]",
     .summary = "Cancel items, batches or all that is pending",
     .max_words = -1,
     BOTH,
     OPTIONS(cancel_rows, struct cancel_options),
     .run = run_cancel},
    {.name = "retry",
     .words = "ITEM...",
     .summary = "New items for failed or canceled ones",
     .min_words = 1,
     .max_words = 1000,
     BOTH,
     OPTIONS(retry_rows, struct change_options),
     .run = run_retry},
    {.name = "delete",
     .words = "ITEM...",
     .summary = "Delete items; what runs is canceled",
     .min_words = 1,
     .max_words = 1000,
     BOTH,
     OPTIONS(image_rows, struct change_options),
     .run = run_delete},
    {.name = "prune", .summary = "Delete every finished item", BOTH, OPTIONS(image_rows, struct change_options), .run = run_prune},
    {.name = "clear",
     .summary = "Cancel what runs and delete every item",
     BOTH,
     OPTIONS(image_rows, struct change_options),
     .run = run_clear},
    {.name = "pause", .summary = "Start nothing new; what runs goes on", BOTH, .run = run_pause},
    {.name = "resume", .summary = "Go on after a pause", BOTH, .run = run_resume},
    {.name = "hold", .words = "ITEM...", .summary = "Keep a pending item from starting"},
    {.name = "release", .words = "ITEM...", .summary = "Let a held item start"},
    {.name = "move", .words = "ITEM", .summary = "Move a pending item"},
};
const struct command command_queue = {
    .name = "queue", .summary = "The queue: list, show, cancel, retry, delete, prune, clear, pause, resume", PARTS(parts)};
