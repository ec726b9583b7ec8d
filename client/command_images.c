#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/item_args.h"
#include "client/node.h"
#include "client/picture_file.h"
#include "client/terminal.h"
#include "common/json.h"

struct image_options {
    const char *output, *item;
    struct whole limit;
};
#define AT(member) offsetof(struct image_options, member)
static const struct option_row list_rows[] = {
    {"item", 'i', OPTION_TEXT, AT(item), 0, 0, "ITEM", "Only of this item"},
    {"limit", 'n', OPTION_WHOLE, AT(limit), 1, 1000, "N", "Pictures at most (default: 100)"},
};
static const struct option_row get_rows[] = {
    {"item", 'i', OPTION_TEXT, AT(item), 0, 0, "ITEM", "The last picture of this item that is not intermediate"},
    {"output", 'o', OPTION_TEXT, AT(output), 0, 0, "FILE", "Where it goes; - is stdout (default: its own name)"},
};

static int run_list(const struct invocation *in)
{
    const struct image_options *o = in->options;
    struct error err;
    int64_t item;
    AUTO_JSON *answer = NULL;
    json_t *args = json_pack("{s:I}", "limit", (json_int_t)(o->limit.given ? o->limit.value : 100)), *row;
    size_t i;
    if (o->item && item_id_read(o->item, &item, &err) != ST_OK) {
        json_decref(args);
        return report(&err);
    }
    if (o->item)
        json_object_set_new(args, "item_id", json_integer(item));
    if (node_ask(in, "images", args, &answer, &err) != ST_OK)
        return report(&err);
    if (in->common.json)
        return print_json(json_incref(answer));
    static const char *const head[] = {"IMAGE", "ITEM", "SIZE", "BYTES", "MADE"};
    AUTO_TABLE t = {.columns = COUNT_OF(head)};
    for (i = 0; i < COUNT_OF(head); i++)
        table_cell(&t, "%s", head[i]);
    json_array_foreach (json_object_get(answer, "images"), i, row) {
        table_cell(&t, "%s", json_str(row, "image_name", "?"));
        table_cell(&t, "%lld", json_int(row, "item_id", 0));
        table_cell(&t, "%lldx%lld", json_int(row, "width", 0), json_int(row, "height", 0));
        table_cell(&t, "%lld", json_int(row, "bytes", 0));
        table_cell(&t, "%.19s%s", json_str(row, "created_at", "-"), json_flag(row, "is_intermediate", false) ? " (intermediate)" : "");
    }
    table_print(&t, stdout);
    return EXIT_DONE;
}

static enum status get(const struct invocation *in, json_t **ret_row, struct error *err)
{
    const struct image_options *o = in->options;
    AUTO_NODE *c = NULL;
    AUTO_JSON *row = NULL;
    int64_t item;
    if ((in->n_words > 0) == (o->item != NULL))
        return FAIL(err, BAD_ARGUMENT, "'galley images get' takes a picture's name, or --item ITEM");
    if (in->common.json && o->output && strcmp(o->output, "-") == 0)
        return FAIL(err, BAD_ARGUMENT, "--json and -o - both want stdout: give -o a file");
    if (o->item)
        TRY(item_id_read(o->item, &item, err));
    if (o->output)
        TRY(pattern_check(o->output, 1, err));
    TRY(node_connect(in->common.node, &c, err));
    if (o->item)
        TRY(picture_of_item(c, item, &row, err));
    else
        row = json_pack("{s:s}", "image_name", in->words[0]);
    const char *name = json_str(row, "image_name", ""), *path = o->output ? o->output : name;
    if (strchr(name, '/') && !o->output)
        return FAIL(err, BAD_ARGUMENT, "'%.128s' is no picture's name: 'galley images list' shows them", name);
    TRY(picture_fetch(c, name, path, err));
    json_object_set_new(row, "path", json_string(path));
    *ret_row = json_incref(row);
    return ST_OK;
}

static int run_get(const struct invocation *in)
{
    struct error err;
    json_t *row;
    if (get(in, &row, &err) != ST_OK)
        return report(&err);
    if (in->common.json)
        return print_json(row);
    if (strcmp(json_str(row, "path", ""), "-") != 0)
        puts(json_str(row, "path", ""));
    json_decref(row);
    return EXIT_DONE;
}

static int run_delete(const struct invocation *in)
{
    struct error err;
    AUTO_NODE *c = NULL;
    int code = EXIT_DONE;
    json_t *done = json_array();
    if (node_connect(in->common.node, &c, &err) != ST_OK) {
        json_decref(done);
        return report(&err);
    }
    for (int i = 0; i < in->n_words; i++) {
        AUTO_JSON *answer = NULL;
        if (node_call(c, "image_delete", json_pack("{s:s}", "image_name", in->words[i]), &answer, &err) != ST_OK) {
            code = report(&err);
            continue;
        }
        json_array_append_new(done, json_string(in->words[i]));
        if (!in->common.json)
            printf("%s deleted\n", in->words[i]);
    }
    if (in->common.json)
        print_json(json_pack("{s:O}", "deleted", done));
    json_decref(done);
    return code;
}

#define BOTH .uses = USES_JSON | USES_NODE
static const struct command parts[] = {
    {.name = "list", .summary = "Pictures, the newest first", BOTH, OPTIONS(list_rows, struct image_options), .run = run_list},
    {.name = "get",
     .words = "[IMAGE]",
     .summary = "Fetch a picture",
     .max_words = 1,
     BOTH,
     OPTIONS(get_rows, struct image_options),
     .run = run_get},
    {.name = "delete", .words = "IMAGE...", .summary = "Delete pictures", .min_words = 1, .max_words = -1, BOTH, .run = run_delete},
    {.name = "put", .words = "FILE", .summary = "Add a picture"},
};
const struct command command_images = {.name = "images", .summary = "The pictures: list, get, delete", PARTS(parts)};
