#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/follow.h"
#include "client/node.h"
#include "client/progress.h"
#include "client/terminal.h"
#include "common/json.h"

struct watch_options {
    bool all, tiles;
};
static const struct option_row rows[] = {
    {"all", 'a', OPTION_FLAG, offsetof(struct watch_options, all), 0, 0, NULL, "Go on when the queue is empty, until Ctrl-C"},
    {"tiles", 0, OPTION_FLAG, offsetof(struct watch_options, tiles), 0, 0, NULL, "Previews in the terminal"},
};
enum { LOST_LIMIT_MS = 60000, FOREVER_LOST_LIMIT_MS = 86400000, PAGE = 1000 };

static bool is_number(const char *text) { return text[0] && strspn(text, "0123456789") == strlen(text) && strlen(text) < 17; }

/* add_batch follows every item of a batch. */
static enum status add_batch(galley_client *c, struct follow *f, const char *batch_id, struct error *err)
{
    json_int_t cursor = 0;
    size_t total = 0;
    do {
        AUTO_JSON *page = NULL;
        int64_t ids[PAGE];
        json_t *args = json_pack("{s:s s:i}", "batch_id", batch_id, "limit", PAGE);
        if (cursor)
            json_object_set_new(args, "cursor", json_integer(cursor));
        TRY(node_call(c, "items", args, &page, err));
        const json_t *items = json_object_get(page, "items");
        size_t n = json_array_size(items) < PAGE ? json_array_size(items) : PAGE;
        for (size_t i = 0; i < n; i++)
            ids[i] = json_int(json_array_get(items, i), "item_id", 0);
        TRY(follow_add(f, ids, n, batch_id, err));
        total += n;
        json_int_t next = json_int(page, "cursor", 0);
        cursor = n && next != cursor ? next : 0;
    } while (cursor);
    return total ? ST_OK : FAIL(err, NOT_FOUND, "there is no batch '%.100s': 'galley queue list' shows items and their batches", batch_id);
}

static enum status watch(galley_client *c, struct follow *f, const struct invocation *in, struct error *err)
{
    const struct watch_options *o = in->options;
    if (!in->n_words) {
        TRY(follow_everything(f, o->all, err));
        fputs("nothing is left to run\n", stderr);
        return ST_OK;
    }
    if (is_number(in->words[0])) {
        AUTO_JSON *row = NULL;
        const int64_t id = strtoll(in->words[0], NULL, 10);
        TRY(node_call(c, "item", json_pack("{s:I}", "item_id", (json_int_t)id), &row, err));
        TRY(follow_add(f, &id, 1, NULL, err));
    } else {
        TRY(add_batch(c, f, in->words[0], err));
    }
    TRY(follow_items_done(f, err));
    const struct follow_item *failed = follow_failed(f);
    return failed ? FAIL(err, NODE_FAILED, "item %lld %s", (long long)failed->item_id, failed->status) : ST_OK;
}

static int run(const struct invocation *in)
{
    const struct watch_options *o = in->options;
    struct error err;
    AUTO_NODE *c = NULL;
    struct follow *f = NULL;
    struct follow_options fo = {.tiles = o->tiles,
                                .json = in->common.json,
                                .announce = true,
                                .quiet = in->common.json && !terminal_is(2),
                                .lost_limit_ms = o->all ? FOREVER_LOST_LIMIT_MS : LOST_LIMIT_MS};
    if (o->all && in->n_words) {
        (void)FAIL(&err, BAD_ARGUMENT, "--all watches everything: leave '%.64s' out", in->words[0]);
        return report(&err);
    }
    if (o->tiles && !tiles_available())
        fputs("galley: no previews: this build is without libchafa\n", stderr);
    enum status s = node_connect(in->common.node, &c, &err);
    if (s == ST_OK)
        s = follow_new(c, &fo, &f, &err);
    if (s == ST_OK)
        s = watch(c, f, in, &err);
    follow_free(f);
    if (s == ST_CANCELED)
        return EXIT_INTERRUPTED;
    return s == ST_OK ? EXIT_DONE : report(&err);
}

const struct command command_watch = {
    .name = "watch",
    .words = "[ITEM|BATCH]",
    .summary = "Follow an item, a batch, or all that runs until the queue is empty",
    .details = "Stacked bars on a terminal, one line a second elsewhere, one event a line with --json. Watching cancels nothing.",
    .min_words = 0,
    .max_words = 1,
    .uses = USES_JSON | USES_NODE,
    OPTIONS(rows, struct watch_options),
    .run = run,
};
