#include "client/follow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/node.h"
#include "client/painter.h"
#include "client/progress.h"
#include "client/terminal.h"
#include "common/clock.h"
#include "common/json.h"
#include "proto/limits.h"

enum {
    FRAME_MS = 66,       /* bars are drawn at most 15 times a second */
    LINE_MS = 1000,      /* the same for lines where there is no terminal */
    ASK_MS = 1000,       /* after so long without an event the node is asked */
    ASK_LIMIT_MS = 2000, /* a node that does not answer counts as gone, and a signal waits no longer */
    WAKE_MS = 100,       /* a signal is noticed within */
    PAGE = 1000,
};

struct follow {
    galley_client *client;
    galley_feed *feed;
    struct follow_options options;
    struct follow_item *items; /* ascending by id */
    size_t n, n_open;
    char batch_id[80];
    galley_item *shown;
    size_t n_shown, shown_room;
    struct painter painter;
    int columns, rows; /* of the terminal when it was last drawn on */
    char note[160], last_line[512];
    bool terminal, everything, dirty, busy;
    bool note_is_of_waiting;                                 /* and goes once something of ours runs */
    int64_t began_ms, drawn_ms, heard_ms, asked_ms, lost_ms; /* lost_ms -1: the node is there */
};

enum status follow_new(galley_client *c, const struct follow_options *o, struct follow **ret, struct error *err)
{
    galley_error fault;
    struct follow *f = calloc(1, sizeof *f);
    if (!f)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the progress table");
    f->client = c;
    f->options = *o;
    f->terminal = terminal_is(STDERR_FILENO);
    f->lost_ms = -1;
    f->busy = true;
    f->drawn_ms = f->heard_ms = f->began_ms = clock_ms();
    if (galley_feed_open(c, o->tiles && f->terminal && !o->quiet, &f->feed, &fault) != 0) {
        free(f);
        return error_from(&fault, err);
    }
    *ret = f;
    return ST_OK;
}

static void draw(struct follow *f, bool last);

void follow_free(struct follow *f)
{
    if (!f)
        return;
    draw(f, true);
    galley_feed_close(f->feed);
    free(f->items);
    free(f->shown);
    free(f);
}

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const struct follow_item *)a)->item_id, y = ((const struct follow_item *)b)->item_id;
    return (x > y) - (x < y);
}

static struct follow_item *find(const struct follow *f, int64_t id)
{
    const struct follow_item key = {.item_id = id};
    return f->n ? bsearch(&key, f->items, f->n, sizeof *f->items, by_id) : NULL;
}

enum status follow_add(struct follow *f, const int64_t *ids, size_t n, const char *batch_id, struct error *err)
{
    struct follow_item *more = realloc(f->items, (f->n + n + 1) * sizeof *more);
    if (!more)
        return FAIL(err, OUT_OF_MEMORY, "out of memory to follow %zu items", n);
    f->items = more;
    for (size_t i = 0; i < n; i++)
        f->items[f->n++] = (struct follow_item){.item_id = ids[i]};
    f->n_open += n;
    qsort(f->items, f->n, sizeof *f->items, by_id);
    snprintf(f->batch_id, sizeof f->batch_id, "%s", batch_id ? batch_id : "");
    return ST_OK;
}

const struct follow_item *follow_results(const struct follow *f, size_t *ret_n)
{
    *ret_n = f->n;
    return f->items;
}

const struct follow_item *follow_failed(const struct follow *f)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->items[i].status, "completed") != 0)
            return &f->items[i];
    return NULL;
}

static bool is_end(const char *status)
{
    return strcmp(status, "completed") == 0 || strcmp(status, "failed") == 0 || strcmp(status, "canceled") == 0;
}

/* say removes the bars, prints a line on stdout, and lets the bars be drawn again below it. */
static void say(struct follow *f, const char *line)
{
    int columns, rows;
    if (f->painter.n) {
        terminal_size(STDERR_FILENO, &columns, &rows);
        painter_show(&f->painter, STDERR_FILENO, NULL, 0, columns);
    }
    puts(line);
    fflush(stdout);
    f->dirty = true;
}

/* end_item notes how an item ended. A row or an event of it: both have the same fields. */
static void end_item(struct follow *f, int64_t id, const char *status, const json_t *row)
{
    struct follow_item *it = find(f, id);
    if (it && it->status[0])
        return;
    if (f->options.announce && !f->options.json) {
        char line[1100];
        const char *device = json_str(row, "device", ""), *why = json_str(row, "error_message", "");
        snprintf(line, sizeof line, "item %lld %s%s%s%s%.900s", (long long)id, status, device[0] ? " on " : "", device, why[0] ? ": " : "",
                 why);
        AUTO_BUF clean = BUF_INIT;
        text_put(&clean, line, -1);
        say(f, clean.data ? clean.data : "");
    }
    if (!it)
        return;
    snprintf(it->status, sizeof it->status, "%s", status);
    snprintf(it->error, sizeof it->error, "%s", json_str(row, "error_message", ""));
    f->n_open--;
    f->dirty = true;
    if (f->options.on_end)
        f->options.on_end(f->options.arg, it);
}

static void take_rows(struct follow *f, const json_t *rows)
{
    size_t i;
    json_t *row;
    json_array_foreach (rows, i, row) {
        int64_t id = json_int(row, "item_id", 0);
        if (find(f, id) && is_end(json_str(row, "status", "")))
            end_item(f, id, json_str(row, "status", ""), row);
    }
}

/* ask_batch takes the states of the whole batch, page by page; open items that have no row any more were deleted. */
static enum status ask_batch(struct follow *f, struct error *err)
{
    json_int_t cursor = 0;
    do {
        AUTO_JSON *page = NULL;
        json_t *args = json_pack("{s:s s:i}", "batch_id", f->batch_id, "limit", PAGE);
        if (cursor)
            json_object_set_new(args, "cursor", json_integer(cursor));
        TRY(node_call_within(f->client, ASK_LIMIT_MS, "items", args, &page, err));
        json_t *rows = json_object_get(page, "items");
        take_rows(f, rows);
        json_int_t next = json_int(page, "cursor", 0);
        cursor = json_array_size(rows) && next != cursor ? next : 0;
    } while (cursor && f->n_open);
    return ST_OK;
}

static enum status ask_each(struct follow *f, struct error *err)
{
    for (size_t i = 0; i < f->n; i++) {
        AUTO_JSON *answer = NULL;
        if (f->items[i].status[0])
            continue;
        enum status s =
            node_call_within(f->client, ASK_LIMIT_MS, "item", json_pack("{s:I}", "item_id", (json_int_t)f->items[i].item_id), &answer, err);
        const json_t *row = s == ST_OK ? json_object_get(answer, "item") : NULL;
        if (s == ST_NOT_FOUND)
            end_item(f, f->items[i].item_id, "deleted", NULL);
        else if (s != ST_OK)
            return s;
        else if (is_end(json_str(row, "status", "")))
            end_item(f, f->items[i].item_id, json_str(row, "status", ""), row);
    }
    return ST_OK;
}

/* ask_node fetches what events cannot tell: states after a gap, and why nothing runs. */
static enum status ask_node(struct follow *f, struct error *err)
{
    enum { EACH = 16 };
    AUTO_JSON *status = NULL;
    f->asked_ms = clock_ms();
    if (!f->everything && f->n_open)
        TRY(f->batch_id[0] && f->n_open > EACH ? ask_batch(f, err) : f->n_open <= EACH || !f->batch_id[0] ? ask_each(f, err) : ST_OK);
    TRY(node_call_within(f->client, ASK_LIMIT_MS, "status", NULL, &status, err));
    const json_t *queue = json_object_get(status, "queue"), *node = json_object_get(status, "node");
    long long pending = json_int(queue, "pending", 0), running = json_int(queue, "in_progress", 0) + json_int(queue, "waiting", 0);
    f->busy = pending + running > 0;
    f->note[0] = 0;
    f->note_is_of_waiting = false;
    if (json_flag(node, "paused", false))
        snprintf(f->note, sizeof f->note, "the queue is paused: 'galley queue resume' lets it go on (%lld pending)", pending);
    else if (!json_flag(status, "ready", true) && clock_ms() - f->began_ms >= ASK_MS) /* a worker may be starting */
        snprintf(f->note, sizeof f->note, "the node is not ready: %s", json_str(status, "reason", "no reason given"));
    else if ((f->note_is_of_waiting = f->n_shown == 0 && f->busy))
        snprintf(f->note, sizeof f->note, "waiting: %lld pending, %lld running on the node", pending, running);
    f->dirty = true;
    return ST_OK;
}

/* choose_shown picks the running items that are ours. */
static void choose_shown(struct follow *f)
{
    const galley_item *items;
    size_t n = galley_feed_items(f->feed, &items);
    f->n_shown = 0;
    if (n > f->shown_room) {
        galley_item *more = realloc(f->shown, n * sizeof *more);
        if (!more)
            return;
        f->shown = more;
        f->shown_room = n;
    }
    for (size_t i = 0; i < n; i++)
        if (f->everything || find(f, items[i].item_id))
            f->shown[f->n_shown++] = items[i];
    if (f->n_shown && f->note_is_of_waiting)
        f->note[0] = 0;
}

/* view_of is what a frame shows: the running items, and a line on why there are none, or on how far a batch is. */
static struct progress_view view_of(struct follow *f, char count[48])
{
    struct progress_view v = {.items = f->shown, .n = f->n_shown, .note = f->note[0] ? f->note : NULL, .columns = f->columns};
    if (!v.note && f->n > 1) {
        snprintf(count, 48, "%zu of %zu done", f->n - f->n_open, f->n);
        v.note = count;
    }
    return v;
}

static void draw_terminal(struct follow *f, bool last)
{
    AUTO_BUF lines = BUF_INIT;
    char count[48];
    terminal_size(STDERR_FILENO, &f->columns, &f->rows);
    struct progress_view v = view_of(f, count);
    v.max_lines = f->rows - 1;
    v.color = terminal_color(STDERR_FILENO);
    v.utf8 = terminal_utf8();
    if (!last) {
        if (f->options.tiles)
            tiles_lines(f->shown, f->n_shown, f->columns, (f->rows - 1) / 2, &lines);
        for (const char *p = lines.data; p && (p = strchr(p, '\n')); p++)
            v.max_lines--;
        progress_bars(&v, &lines);
    }
    painter_show(&f->painter, STDERR_FILENO, lines.data, lines.len, f->columns);
}

static void draw_line(struct follow *f)
{
    AUTO_BUF line = BUF_INIT;
    char count[48];
    struct progress_view v = view_of(f, count);
    if (v.n == 0 && !v.note)
        return;
    progress_line(&v, &line);
    if (!line.data || strncmp(line.data, f->last_line, sizeof f->last_line - 1) == 0)
        return;
    fputs(line.data, stderr);
    snprintf(f->last_line, sizeof f->last_line, "%s", line.data);
}

/* due is true if a frame would differ from what stands there, and the last one is old enough. */
static bool due(const struct follow *f, int64_t now)
{
    int columns, rows;
    if (!f->terminal)
        return now - f->drawn_ms >= LINE_MS;
    terminal_size(STDERR_FILENO, &columns, &rows);
    return now - f->drawn_ms >= FRAME_MS && (f->dirty || columns != f->columns || rows != f->rows);
}

static void draw(struct follow *f, bool last)
{
    int64_t now = clock_ms();
    if (f->options.quiet || (last ? !f->painter.n : !due(f, now)))
        return;
    if (!last)
        choose_shown(f);
    f->drawn_ms = now;
    f->dirty = false;
    if (f->terminal)
        draw_terminal(f, last);
    else if (!last)
        draw_line(f);
}

static void take_event(struct follow *f, const galley_feed_event *ev)
{
    AUTO_JSON *e = NULL;
    f->dirty = true;
    bool ours = f->everything || (ev->item_id && find(f, ev->item_id));
    if (f->options.json && ours)
        say(f, ev->json);
    if (json_parse(ev->json, strlen(ev->json), LIMIT_REPLY_BYTES, &e, NULL) != ST_OK)
        return;
    const char *name = json_str(e, "event", ""), *status = json_str(e, "status", "");
    if (ours && strcmp(name, "queue_item_status_changed") == 0) {
        if (is_end(status))
            end_item(f, ev->item_id, status, e);
        else
            f->note[0] = 0;
    }
    if (strcmp(name, "queue_paused") == 0 || strcmp(name, "queue_resumed") == 0 || strcmp(name, "queue_cleared") == 0)
        f->asked_ms = 0;
}

/* take_loss keeps the time of a lost node; UNREACHABLE past the limit. */
static enum status take_loss(struct follow *f, struct error *err)
{
    int64_t now = clock_ms();
    if (f->lost_ms < 0)
        f->lost_ms = now;
    snprintf(f->note, sizeof f->note, "the node is gone, trying again");
    f->dirty = true;
    if (now - f->lost_ms < f->options.lost_limit_ms)
        return ST_OK;
    return FAIL(err, UNREACHABLE,
                "the node %s has been gone for %lld s; what was queued there goes on when it is back: see 'galley queue list'",
                galley_url(f->client), (long long)(f->options.lost_limit_ms / 1000));
}

/* step waits a moment for an event and does what it asks for. */
static enum status step(struct follow *f, struct error *err)
{
    galley_feed_event ev;
    galley_error fault;
    struct error ignored;
    int64_t now = clock_ms();
    if (interrupted())
        return FAIL(err, CANCELED, "interrupted");
    int got = galley_feed_next(f->feed, WAKE_MS, &ev, &fault);
    if (got < 0)
        return error_from(&fault, err);
    bool ask = now - f->heard_ms >= ASK_MS && now - f->asked_ms >= ASK_MS;
    if (got == 1 && ev.kind == GALLEY_LOST) {
        TRY(take_loss(f, err));
    } else if (got == 1) {
        f->heard_ms = now;
        ask = ask || ev.kind == GALLEY_RESYNC || f->lost_ms >= 0 || f->asked_ms == 0;
        f->lost_ms = -1;
        if (ev.kind == GALLEY_EVENT)
            take_event(f, &ev);
    } else if (f->lost_ms >= 0) {
        TRY(take_loss(f, err));
    }
    if (ask) {
        enum status s = ask_node(f, &ignored);
        if (s == ST_UNREACHABLE || s == ST_TIMEOUT) {
            TRY(take_loss(f, err));
        } else if (s != ST_OK) {
            *err = ignored;
            return s;
        } else {
            f->lost_ms = -1;
        }
    }
    draw(f, false);
    return ST_OK;
}

enum status follow_items_done(struct follow *f, struct error *err)
{
    while (f->n_open) /* the feed begins with a resync: what has ended before is asked for */
        TRY(step(f, err));
    draw(f, true);
    return ST_OK;
}

enum status follow_everything(struct follow *f, bool forever, struct error *err)
{
    f->everything = true;
    while (forever || f->busy)
        TRY(step(f, err));
    draw(f, true);
    return ST_OK;
}
