#include "supervisor/relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/loop.h"
#include "proto/limits.h"
#include "proto/sp.h"

enum { RING_BYTES = 64 << 20, TOPIC_FRAME = 2 + EVENT_TOPIC_BYTES };

struct ring_event { int64_t item; char *map; uint32_t bytes; };   /* map: MessagePack */

/* Numbers the events of one item; open addressing, emptied when the item ends. */
struct item_seq { int64_t item, seq; };

struct waiting_poll { struct waiting_poll *next; struct relay_poll poll; uint64_t token; enum wr_form form; int64_t until_ms; };

struct relay {
    struct loop *loop;
    struct relay_args args;
    struct sp_pub *events, *previews;
    struct ring_event *ring;            /* LIMIT_EVENTS_RING places; event SEQ is at SEQ % that */
    int64_t oldest, next_seq, reserved; /* the ring holds oldest .. next_seq - 1 */
    size_t ring_bytes;
    struct item_seq *seqs;
    size_t n_seqs, cap_seqs;
    struct waiting_poll *polls;
    int n_polls;
    struct loop_timer *poll_timer;
    struct buf frame;
};

/* ---- per-item numbers */

static size_t seq_place(const struct relay *r, int64_t item)
{
    size_t at = (size_t)((uint64_t)item * 0x9e3779b97f4a7c15u >> 20) % r->cap_seqs;
    while (r->seqs[at].item && r->seqs[at].item != item)
        at = (at + 1) % r->cap_seqs;
    return at;
}

static bool seqs_grow(struct relay *r)
{
    struct item_seq *old = r->seqs;
    size_t old_cap = r->cap_seqs, cap = old_cap ? 2 * old_cap : 256;
    struct item_seq *fresh = calloc(cap, sizeof *fresh);
    if (!fresh)
        return false;
    r->seqs = fresh;
    r->cap_seqs = cap;
    for (size_t i = 0; i < old_cap; i++)
        if (old[i].item)
            fresh[seq_place(r, old[i].item)] = old[i];
    free(old);
    return true;
}

static int64_t next_item_seq(struct relay *r, int64_t item)
{
    if (2 * (r->n_seqs + 1) > r->cap_seqs && !seqs_grow(r) && r->n_seqs + 1 >= r->cap_seqs)
        return 0;
    struct item_seq *s = &r->seqs[seq_place(r, item)];
    if (!s->item) {
        s->item = item;
        r->n_seqs++;
    }
    return ++s->seq;
}

void relay_forget(struct relay *r, int64_t item)
{
    if (!r->cap_seqs)
        return;
    size_t hole = seq_place(r, item);
    if (!r->seqs[hole].item)
        return;
    r->n_seqs--;
    r->seqs[hole] = (struct item_seq){0};
    /* what follows in the same run may belong into the hole: put each back where a search will find it */
    for (size_t at = (hole + 1) % r->cap_seqs; r->seqs[at].item; at = (at + 1) % r->cap_seqs) {
        struct item_seq moved = r->seqs[at];
        r->seqs[at] = (struct item_seq){0};
        r->seqs[seq_place(r, moved.item)] = moved;
    }
}

/* ---- the ring */

static void drop_oldest(struct relay *r)
{
    struct ring_event *e = &r->ring[r->oldest % LIMIT_EVENTS_RING];
    r->ring_bytes -= e->bytes;
    free(e->map);
    *e = (struct ring_event){0};
    r->oldest++;
}

static void keep(struct relay *r, int64_t item, const char *map, size_t n)
{
    char *copy = n ? malloc(n) : NULL;
    if (!copy)
        n = 0;    /* a reader sees the gap in the numbers and takes a snapshot */
    else
        memcpy(copy, map, n);
    while (r->oldest < r->next_seq && (r->next_seq - r->oldest >= LIMIT_EVENTS_RING || r->ring_bytes + n > RING_BYTES))
        drop_oldest(r);
    r->ring[r->next_seq % LIMIT_EVENTS_RING] = (struct ring_event){item, copy, (uint32_t)n};
    r->ring_bytes += n;
    r->next_seq++;
    if (r->next_seq > r->reserved - SEQ_BLOCK / 4) {
        r->reserved += SEQ_BLOCK;
        r->args.seq_reserve(r->args.arg, r->reserved);
    }
}

static void write_field(struct wr *w, const struct ev_field *f)
{
    if (f->kind == EV_SKIP)
        return;
    wr_key(w, f->key);
    switch (f->kind) {
    case EV_STR: wr_str(w, f->s); break;
    case EV_INT: wr_int(w, f->i); break;
    case EV_NUM: wr_double(w, f->d); break;
    case EV_BOOL: wr_bool(w, f->i); break;
    default: wr_json(w, f->j); break;
    }
}

/* begin_frame starts a frame: str8 of 32 bytes, the topic padded with spaces. */
static void begin_frame(struct relay *r, const char *topic)
{
    char head[TOPIC_FRAME + 1];
    snprintf(head, sizeof head, "\xd9\x20%-*.*s", EVENT_TOPIC_BYTES, EVENT_TOPIC_BYTES, topic);
    buf_reset(&r->frame);
    buf_put(&r->frame, head, TOPIC_FRAME);
}

static void poll_soon(struct relay *r)
{
    if (r->polls)
        loop_timer_set(r->poll_timer, 0);
}

static uint32_t present(const struct ev_field *fields, size_t n)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += fields[i].kind != EV_SKIP;
    return count;
}

static void publish(struct relay *r, const char *topic, int64_t item, const struct ev_field *head, size_t n_head, const struct ev_field *fields, size_t n)
{
    struct wr w;
    begin_frame(r, topic);
    wr_init(&w, &r->frame, WR_MSGPACK);
    wr_map(&w, present(head, n_head) + present(fields, n));
    for (size_t i = 0; i < n_head; i++)
        write_field(&w, &head[i]);
    for (size_t i = 0; i < n; i++)
        write_field(&w, &fields[i]);
    wr_end(&w);
    bool whole = buf_ok(&r->frame);
    if (whole)
        sp_pub_send(r->events, r->frame.data, r->frame.len);
    keep(r, item, whole ? r->frame.data + TOPIC_FRAME : "", whole ? r->frame.len - TOPIC_FRAME : 0);
    poll_soon(r);
}

void relay_event(struct relay *r, const char *topic, const char *event, const struct ev_field *fields, size_t n)
{
    const struct ev_field head[] = {EV_S("event", event), EV_I("seq", r->next_seq)};
    publish(r, topic, 0, head, 2, fields, n);
}

void relay_item_event(struct relay *r, int64_t item, int attempt, const char *device, const char *event, const struct ev_field *fields, size_t n, bool last)
{
    char topic[40];
    snprintf(topic, sizeof topic, "ev/item/%lld ", (long long)item);
    const struct ev_field head[] = {EV_S("event", event), EV_I("seq", r->next_seq), EV_I("item_id", item), EV_I("item_seq", next_item_seq(r, item)),
                                    EV_I("attempt", attempt), EV_S("device", device)};
    publish(r, topic, item, head, sizeof head / sizeof head[0], fields, n);
    if (last)
        relay_forget(r, item);
}

void relay_preview(struct relay *r, int attempt, const struct link_PREVIEW *p)
{
    struct wr w;
    char topic[40];
    snprintf(topic, sizeof topic, "pv/item/%lld ", (long long)p->item);
    begin_frame(r, topic);
    wr_init(&w, &r->frame, WR_MSGPACK);
    wr_map(&w, 10);
    wr_kint(&w, "item_id", p->item);
    wr_kint(&w, "attempt", attempt);
    wr_kint(&w, "seq", r->next_seq - 1);
    wr_kint(&w, "step", p->step);
    wr_kint(&w, "total", p->total);
    wr_kint(&w, "width", p->width);
    wr_kint(&w, "height", p->height);
    wr_kint(&w, "display_width", 8 * p->width);
    wr_kstr(&w, "format", "rgb8");
    wr_key(&w, "image");
    wr_bin(&w, p->image.p, p->image.n);
    wr_end(&w);
    if (buf_ok(&r->frame))
        sp_pub_send(r->previews, r->frame.data, r->frame.len);
}

int64_t relay_seq(const struct relay *r)
{
    return r->next_seq - 1;
}

/* ---- long polls */

/* matching counts the events after SINCE that the poll wants, at most its max; RET_NEXT: where the next poll goes on. */
static int64_t matching(const struct relay *r, const struct relay_poll *p, int64_t from, int64_t *ret_next)
{
    int64_t n = 0, seq = from;
    for (; seq < r->next_seq && n < p->max; seq++) {
        const struct ring_event *e = &r->ring[seq % LIMIT_EVENTS_RING];
        n += e->map && (!p->item_id || p->item_id == e->item);
    }
    *ret_next = seq - 1;
    return n;
}

/* first_held returns where a poll starts, and how many it has missed. Zero asks for the oldest held; a number of the future is of another life. */
static int64_t first_held(const struct relay *r, int64_t since, int64_t *ret_lost)
{
    *ret_lost = 0;
    if (since == 0)
        return r->oldest;
    if (since >= r->next_seq) {
        *ret_lost = 1;
        return r->next_seq;
    }
    if (since + 1 < r->oldest)
        *ret_lost = r->oldest - since - 1;
    return since + 1 < r->oldest ? r->oldest : since + 1;
}

static void answer(struct relay *r, uint64_t token, enum wr_form form, const struct relay_poll *p)
{
    AUTO_BUF reply = BUF_INIT;
    struct wr w;
    int64_t lost, next, seq = first_held(r, p->since, &lost), n = matching(r, p, seq, &next);
    wr_init(&w, &reply, form);
    wr_map(&w, 2);
    wr_kbool(&w, "ok", true);
    wr_key(&w, "result");
    wr_map(&w, 3);
    wr_key(&w, "events");
    wr_array(&w, (uint32_t)n);
    for (; seq <= next; seq++) {
        const struct ring_event *e = &r->ring[seq % LIMIT_EVENTS_RING];
        if (e->map && (!p->item_id || p->item_id == e->item))
            wr_mp(&w, e->map, e->bytes);
    }
    wr_end(&w);
    wr_kint(&w, "next", next);
    wr_kint(&w, "lost", lost);
    wr_end(&w);
    wr_end(&w);
    r->args.answer(r->args.arg, token, form, &reply);
}

static bool has_news(const struct relay *r, const struct relay_poll *p)
{
    int64_t lost, next, seq = first_held(r, p->since, &lost);
    return lost > 0 || matching(r, p, seq, &next) > 0;
}

static void on_poll_timer(void *arg)
{
    struct relay *r = arg;
    int64_t now = clock_ms(), soonest = INT64_MAX;
    for (struct waiting_poll **link = &r->polls; *link;) {
        struct waiting_poll *p = *link;
        if (p->until_ms <= now || has_news(r, &p->poll)) {
            *link = p->next;
            r->n_polls--;
            answer(r, p->token, p->form, &p->poll);
            free(p);
        } else {
            p->poll.since = r->next_seq - 1;    /* so far nothing is for it: neither to be read again nor lost */
            soonest = p->until_ms < soonest ? p->until_ms : soonest;
            link = &p->next;
        }
    }
    if (r->polls)
        loop_timer_set(r->poll_timer, soonest - now);
}

void relay_poll(struct relay *r, uint64_t token, enum wr_form form, const struct relay_poll *p)
{
    struct waiting_poll *wait = NULL;
    if (p->wait_ms > 0 && r->n_polls < LIMIT_POLLS && !has_news(r, p))
        wait = calloc(1, sizeof *wait);
    if (!wait) {
        answer(r, token, form, p);
        return;
    }
    *wait = (struct waiting_poll){r->polls, *p, token, form, clock_ms() + p->wait_ms};
    r->polls = wait;
    r->n_polls++;
    on_poll_timer(r);
}

int relay_polls_waiting(const struct relay *r)
{
    return r->n_polls;
}

enum status relay_new(struct loop *loop, const struct relay_args *a, struct relay **ret, struct error *err)
{
    char url[600];
    struct relay *r = calloc(1, sizeof *r);
    if (!r)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the events");
    *r = (struct relay){.loop = loop, .args = *a, .oldest = a->first_seq, .next_seq = a->first_seq, .reserved = a->first_seq + SEQ_BLOCK};
    r->ring = calloc(LIMIT_EVENTS_RING, sizeof *r->ring);
    r->poll_timer = loop_timer_new(loop, on_poll_timer, r);
    enum status s = r->ring && r->poll_timer ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory for the events");
    snprintf(url, sizeof url, "ipc://%s/events", a->run_dir);
    if (s == ST_OK)
        s = sp_pub_listen(url, LIMIT_CONNECTIONS, &r->events, err);
    snprintf(url, sizeof url, "ipc://%s/previews", a->run_dir);
    if (s == ST_OK)
        s = sp_pub_listen(url, LIMIT_CONNECTIONS, &r->previews, err);
    if (s == ST_OK)
        *ret = r;    /* lives as long as the process; a failed start ends it */
    return s;
}
