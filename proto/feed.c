/* The feed: events and previews, and the table of what runs. A snapshot opens it and mends every gap. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "proto/client_internal.h"
#include "proto/limits.h"
#include "proto/mp.h"

enum { SNAPSHOT_LIMIT_MS = 5000, RETRY_MS = 100, RATE_STEPS = 8 };
enum { CHECK_MS = 3000 }; /* of silence, until the node is asked whether it is really silent */

/* An item in progress: the public row and what its rate is made of. */
struct tracked {
    galley_item row;
    uint8_t *preview;
    int64_t step_ms[RATE_STEPS], step_at[RATE_STEPS]; /* the last steps seen: when, which; a ring */
    int steps_seen;
};

struct galley_feed {
    galley_client *client;
    bool with_previews;
    struct sp_sub *sub;
    int64_t seq; /* of the snapshot or of the event applied last */
    bool synced, told_lost;
    int64_t heard_ms;       /* when the node spoke last */
    struct tracked **items; /* ascending by item_id */
    size_t n_items, cap_items;
    galley_item *rows; /* what galley_feed_items hands out */
    char *json;        /* of the event handed out last */
};

/* ---- the table */

static size_t place_of(const galley_feed *f, int64_t item_id)
{
    size_t low = 0, high = f->n_items;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (f->items[middle]->row.item_id < item_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct tracked *find_item(galley_feed *f, int64_t item_id)
{
    size_t at = place_of(f, item_id);
    return at < f->n_items && f->items[at]->row.item_id == item_id ? f->items[at] : NULL;
}

static struct tracked *add_item(galley_feed *f, int64_t item_id)
{
    if (f->n_items == f->cap_items) {
        size_t cap = f->cap_items ? 2 * f->cap_items : 16;
        struct tracked **items = realloc(f->items, cap * sizeof *items);
        galley_item *rows = items ? realloc(f->rows, cap * sizeof *rows) : NULL;
        f->items = items ? items : f->items;
        f->rows = rows ? rows : f->rows;
        if (!rows)
            return NULL;
        f->cap_items = cap;
    }
    struct tracked *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    size_t at = place_of(f, item_id);
    memmove(f->items + at + 1, f->items + at, (f->n_items - at) * sizeof *f->items);
    f->items[at] = t;
    f->n_items++;
    t->row.item_id = item_id;
    t->row.started_ms = clock_real_ms();
    return t;
}

static void free_item(struct tracked *t)
{
    free(t->preview);
    free(t);
}

static void drop_item(galley_feed *f, int64_t item_id)
{
    size_t at = place_of(f, item_id);
    if (at == f->n_items || f->items[at]->row.item_id != item_id)
        return;
    free_item(f->items[at]);
    memmove(f->items + at, f->items + at + 1, (f->n_items - at - 1) * sizeof *f->items);
    f->n_items--;
}

static void drop_all(galley_feed *f)
{
    while (f->n_items)
        free_item(f->items[--f->n_items]);
}

/* take_text copies member KEY of J into RET when it is there. */
static void take_text(const json_t *j, const char *key, char *ret, size_t size)
{
    const char *s = json_str(j, key, NULL);
    if (s)
        snprintf(ret, size, "%s", s);
}

/* begin_attempt forgets what belonged to an earlier attempt. */
static void begin_attempt(struct tracked *t, int attempt)
{
    galley_item *r = &t->row;
    free(t->preview);
    t->preview = NULL;
    t->steps_seen = 0;
    r->attempt = attempt;
    r->step = r->total = 0;
    r->it_per_s = 0;
    r->phase[0] = r->message[0] = 0;
    r->preview = NULL;
    r->preview_width = r->preview_height = 0;
    r->started_ms = clock_real_ms();
}

/* count_step notes that STEP was reached now and derives the rate from the steps in the ring. */
static void count_step(struct tracked *t, int64_t step)
{
    int last = (t->steps_seen + RATE_STEPS - 1) % RATE_STEPS;
    if (t->steps_seen && step < t->step_at[last])
        t->steps_seen = 0; /* a new phase counts from its own beginning */
    else if (t->steps_seen && step == t->step_at[last])
        return;
    int at = t->steps_seen % RATE_STEPS;
    t->step_at[at] = step;
    t->step_ms[at] = clock_real_ms();
    t->steps_seen++;
    int first = t->steps_seen > RATE_STEPS ? t->steps_seen % RATE_STEPS : 0;
    int64_t ms = t->step_ms[at] - t->step_ms[first];
    t->row.it_per_s = ms > 0 ? 1000.0 * (double)(step - t->step_at[first]) / (double)ms : 0;
}

/* update_item copies what J says of a running item into the table. */
static void update_item(galley_feed *f, const json_t *j)
{
    int64_t id = json_int(j, "item_id", 0);
    int attempt = (int)json_int(j, "attempt", 0);
    struct tracked *t = find_item(f, id);
    if (!t && !(t = add_item(f, id)))
        return;
    if (attempt && attempt != t->row.attempt)
        begin_attempt(t, attempt);
    galley_item *r = &t->row;
    take_text(j, "device", r->device, sizeof r->device);
    take_text(j, "batch_id", r->batch_id, sizeof r->batch_id);
    take_text(j, "status", r->status, sizeof r->status);
    take_text(j, "message", r->message, sizeof r->message);
    if (json_str(j, "phase", NULL)) {
        take_text(j, "phase", r->phase, sizeof r->phase);
        r->step = json_int(j, "step", 0);
        r->total = json_int(j, "total", 0);
        if (r->total > 0)
            count_step(t, r->step);
    }
}

/* apply brings the table up to event J. */
static void apply(galley_feed *f, const json_t *j)
{
    const char *event = json_str(j, "event", ""), *status = json_str(j, "status", NULL);
    int64_t id = json_int(j, "item_id", 0);
    if (!strcmp(event, "queue_cleared")) {
        drop_all(f);
    } else if (!strcmp(event, "queue_item_status_changed") && id > 0 && status) {
        if (!strcmp(status, "in_progress"))
            update_item(f, j);
        else
            drop_item(f, id);
    } else if (!strncmp(event, "invocation_", 11) && find_item(f, id)) {
        update_item(f, j);
    }
}

/* ---- frames */

/* frame_json reads the map behind the topic of a frame as JSON; *RET_PREVIEW is set to its bytes (a view), if it carries any. */
static json_t *frame_json(const void *bytes, size_t n, const void **ret_preview, size_t *ret_preview_n)
{
    struct mp c = mp_open(bytes, n);
    size_t len;
    mp_str(&c, &len);
    uint32_t members = mp_map(&c);
    json_t *map = json_object();
    for (uint32_t i = 0; map && i < members && mp_ok(&c); i++) {
        const char *key = mp_str(&c, &len);
        json_t *value = NULL;
        if (mp_peek(&c) == MP_BIN)
            *ret_preview = mp_bin(&c, ret_preview_n);
        else if (mp_json(&c, &value, NULL) == ST_OK)
            json_object_setn_new(map, key, len, value);
    }
    mp_done(&c);
    if (!mp_ok(&c)) {
        json_decref(map);
        return NULL;
    }
    return map;
}

/* take_preview keeps the picture of a preview frame; false when it is of no item in the table or its size is not width * height * 3. */
static bool take_preview(galley_feed *f, const json_t *j, const void *image, size_t n)
{
    struct tracked *t = find_item(f, json_int(j, "item_id", 0));
    int64_t width = json_int(j, "width", 0), height = json_int(j, "height", 0);
    if (!t || width < 1 || height < 1 || width > 16384 || height > 16384 || n != (size_t)(3 * width * height))
        return false;
    uint8_t *copy = malloc(n);
    if (!copy)
        return false;
    memcpy(copy, image, n);
    free(t->preview);
    t->preview = copy;
    t->row.preview_width = (int)width;
    t->row.preview_height = (int)height;
    return true;
}

/* ---- synchronising */

/* socket_url writes the URL of the socket NAME beside the control socket. */
static enum status socket_url(const galley_client *c, const char *name, char ret[176], struct error *err)
{
    const char *slash = strrchr(c->url, '/');
    if (!slash || strcmp(slash, "/control"))
        return FAIL(err, BAD_ARGUMENT, "events have no known place beside '%s': its last part is not 'control'", c->url);
    snprintf(ret, 176, "%.*s/%s", (int)(slash - c->url), c->url, name);
    return ST_OK;
}

static enum status subscribe(galley_feed *f, int limit_ms, struct error *err)
{
    static const char *const prefixes[] = {"\xd9\x20"
                                           "ev/",
                                           "\xd9\x20"
                                           "pv/"};
    char url[176];
    if (f->sub)
        return ST_OK;
    TRY(socket_url(f->client, "events", url, err));
    TRY(sp_sub_dial(url, prefixes, f->with_previews ? 2 : 1, limit_ms, &f->sub, err));
    if (!f->with_previews)
        return ST_OK;
    TRY(socket_url(f->client, "previews", url, err));
    return sp_sub_also(f->sub, url, err);
}

/* take_snapshot asks for the state and rebuilds the table from it. */
static enum status take_snapshot(galley_feed *f, int limit_ms, struct error *err)
{
    void *frame;
    const void *result;
    size_t n, i;
    TRY(client_ask(f->client, "snapshot", NULL, limit_ms, &frame, &result, &n, err));
    struct mp c = mp_open(result, n);
    AUTO_JSON *j = NULL;
    enum status s = mp_json(&c, &j, err);
    free(frame);
    TRY(s);
    /* Items that run on keep their pictures and rates. */
    json_t *row;
    for (i = f->n_items; i-- > 0;) {
        bool still = false;
        size_t k;
        json_array_foreach (json_object_get(j, "items"), k, row)
            still |= json_int(row, "item_id", 0) == f->items[i]->row.item_id && !strcmp(json_str(row, "status", ""), "in_progress");
        if (!still)
            drop_item(f, f->items[i]->row.item_id);
    }
    json_array_foreach (json_object_get(j, "items"), i, row)
        if (!strcmp(json_str(row, "status", ""), "in_progress"))
            update_item(f, row);
    f->seq = json_int(j, "seq", 0);
    f->json = json_text(j);
    f->synced = true;
    f->told_lost = false;
    f->heard_ms = clock_real_ms();
    return ST_OK;
}

static enum status synchronise(galley_feed *f, int limit_ms, struct error *err)
{
    int64_t end = clock_real_ms() + limit_ms;
    TRY(subscribe(f, limit_ms, err));
    int64_t left = end - clock_real_ms();
    return take_snapshot(f, left > 1 ? (int)left : 1, err);
}

int galley_feed_open(galley_client *c, int with_previews, galley_feed **ret, galley_error *err)
{
    struct error e = {.code = ST_OUT_OF_MEMORY, .message = "out of memory"};
    galley_feed *f = calloc(1, sizeof *f);
    if (!f)
        return client_fail(&e, err);
    f->client = c;
    f->with_previews = with_previews;
    if (subscribe(f, SNAPSHOT_LIMIT_MS, &e) != ST_OK) {
        galley_feed_close(f);
        return client_fail(&e, err);
    }
    *ret = f;
    return 0;
}

/* lost reports once that the node has gone; false when that is known. */
static bool lost(galley_feed *f, galley_feed_event *ret)
{
    f->synced = false;
    if (f->told_lost)
        return false;
    f->told_lost = true;
    *ret = (galley_feed_event){.kind = GALLEY_LOST};
    return true;
}

/* handle looks at one frame; true when it makes an event for the caller. */
static bool handle(galley_feed *f, const void *bytes, size_t n, galley_feed_event *ret)
{
    const void *image = NULL;
    size_t image_n = 0;
    AUTO_JSON *j = frame_json(bytes, n, &image, &image_n);
    if (!j)
        return false;
    int64_t id = json_int(j, "item_id", 0);
    if (image) {
        *ret = (galley_feed_event){.kind = GALLEY_PREVIEW, .item_id = id};
        return take_preview(f, j, image, image_n);
    }
    int64_t seq = json_int(j, "seq", 0);
    if (seq <= f->seq)
        return false; /* the snapshot knows it */
    if (seq != f->seq + 1) {
        f->synced = false;
        return false;
    }
    f->seq = seq;
    apply(f, j);
    f->json = json_text(j);
    *ret = (galley_feed_event){.kind = GALLEY_EVENT, .json = f->json, .item_id = id};
    return f->json != NULL;
}

/* check asks the node whether there are events that have not come: the last one of a burst may be dropped, and then no gap ever shows. */
static enum status check(galley_feed *f, int64_t left, struct error *err)
{
    char args[80];
    void *frame;
    const void *result;
    size_t n;
    snprintf(args, sizeof args, "{\"since\": %lld, \"max\": 1}", (long long)f->seq);
    TRY(client_ask(f->client, "events", args, left > 1 ? (int)left : 1, &frame, &result, &n, err));
    struct mp c = mp_open(result, n);
    AUTO_JSON *j = NULL;
    enum status s = mp_json(&c, &j, err);
    free(frame);
    TRY(s);
    f->heard_ms = clock_real_ms();
    if (json_array_size(json_object_get(j, "events")) == 0 && json_int(j, "lost", 0) == 0)
        return ST_OK;
    f->synced = false;
    sp_sub_close(f->sub); /* it missed one: a new subscription */
    f->sub = NULL;
    return ST_OK;
}

/* wait_retry waits a little before the node is tried again, by listening to a subscription that says nothing. */
static void wait_retry(galley_feed *f, int64_t left)
{
    void *bytes;
    size_t n;
    int ms = left < RETRY_MS ? (int)left : RETRY_MS;
    if (!f->sub)
        poll(NULL, 0, ms);
    else if (sp_sub_next(f->sub, ms, &bytes, &n, NULL) == ST_OK)
        free(bytes);
}

/* resume takes a new snapshot: ST_OK with *RET set when there is news (the snapshot, or that the node has gone), TIMEOUT: not yet. */
static enum status resume(galley_feed *f, int64_t left, galley_feed_event *ret, struct error *err)
{
    int64_t limit = left < SNAPSHOT_LIMIT_MS ? left : SNAPSHOT_LIMIT_MS;
    enum status s = synchronise(f, limit > 1 ? (int)limit : 1, err);
    if (s == ST_OK) {
        *ret = (galley_feed_event){.kind = GALLEY_RESYNC, .json = f->json};
        return ST_OK;
    }
    if (s != ST_UNREACHABLE)
        return s;
    if (lost(f, ret))
        return ST_OK;
    wait_retry(f, left);
    return ST_TIMEOUT;
}

/* listen waits for a frame: ST_OK with *RET set when it is news, TIMEOUT: none within LEFT. */
static enum status listen_once(galley_feed *f, int64_t left, galley_feed_event *ret, struct error *err)
{
    void *bytes;
    size_t n;
    int64_t until_check = f->heard_ms + CHECK_MS - clock_real_ms();
    if (until_check <= 0) {
        enum status s = check(f, left, err);
        return s == ST_OK ? ST_TIMEOUT : s == ST_UNREACHABLE && lost(f, ret) ? ST_OK : s;
    }
    enum status s = sp_sub_next(f->sub, (int)(left < until_check ? left : until_check), &bytes, &n, err);
    if (s == ST_UNREACHABLE)
        return lost(f, ret) ? ST_OK : ST_TIMEOUT;
    if (s != ST_OK)
        return s;
    f->heard_ms = clock_real_ms();
    bool news = handle(f, bytes, n, ret);
    free(bytes);
    return news ? ST_OK : ST_TIMEOUT;
}

int galley_feed_next(galley_feed *f, int limit_ms, galley_feed_event *ret, galley_error *err)
{
    int64_t end = clock_real_ms() + limit_ms, left = limit_ms;
    free(f->json);
    f->json = NULL;
    do {
        struct error e;
        enum status s = f->synced ? listen_once(f, left, ret, &e) : resume(f, left, ret, &e);
        if (s == ST_OK)
            return 1;
        if (s != ST_TIMEOUT && s != ST_UNREACHABLE)
            return client_fail(&e, err);
    } while ((left = end - clock_real_ms()) > 0);
    return 0;
}

size_t galley_feed_items(galley_feed *f, const galley_item **ret)
{
    for (size_t i = 0; i < f->n_items; i++) {
        f->rows[i] = f->items[i]->row;
        f->rows[i].preview = f->items[i]->preview;
    }
    *ret = f->rows;
    return f->n_items;
}

void galley_feed_close(galley_feed *f)
{
    if (!f)
        return;
    drop_all(f);
    free(f->items);
    free(f->rows);
    free(f->json);
    sp_sub_close(f->sub);
    free(f);
}
