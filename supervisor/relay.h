/* Events: numbered, kept in a ring, published on the PUB sockets, served to long polls. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "proto/link.h"
#include "proto/wr.h"

struct relay;
struct loop;

/* Fields of one event; the kind says which member counts. EV_JSON: VALUE is borrowed. */
enum ev_kind { EV_STR, EV_INT, EV_NUM, EV_BOOL, EV_JSON, EV_SKIP };
struct ev_field { const char *key; enum ev_kind kind; const char *s; int64_t i; double d; const json_t *j; };
/* EV_S leaves the field out when the text is NULL. */
static inline struct ev_field ev_text(const char *key, const char *s) { return (struct ev_field){.key = key, .kind = s ? EV_STR : EV_SKIP, .s = s}; }
#define EV_S(k, v) ev_text((k), (v))
#define EV_I(k, v) ((struct ev_field){.key = (k), .kind = EV_INT, .i = (v)})
#define EV_D(k, v) ((struct ev_field){.key = (k), .kind = EV_NUM, .d = (v)})
#define EV_B(k, v) ((struct ev_field){.key = (k), .kind = EV_BOOL, .i = (v)})
#define EV_J(k, v) ((struct ev_field){.key = (k), .kind = EV_JSON, .j = (v)})

struct relay_args {
    const char *run_dir;          /* sockets "events" and "previews" there */
    int64_t first_seq;            /* of this boot; sequence numbers rise across restarts */
    /* seq_reserve asks for sequence numbers up to UPTO to be reserved durably. */
    void (*seq_reserve)(void *arg, int64_t upto);
    /* answer sends the reply of a long poll. */
    void (*answer)(void *arg, uint64_t token, enum wr_form form, const struct buf *reply);
    void *arg;
};
enum { SEQ_BLOCK = 1 << 20 };

NODISCARD enum status relay_new(struct loop *loop, const struct relay_args *a, struct relay **ret, struct error *err);
/* relay_event publishes an event not of one item. TOPIC: "ev/queue", "ev/worker/0", "ev/node". */
void relay_event(struct relay *r, const char *topic, const char *event, const struct ev_field *fields, size_t n);
/* relay_item_event publishes an event of ITEM on "ev/item/ITEM ". LAST: the item has ended, its numbering may be forgotten. */
void relay_item_event(struct relay *r, int64_t item, int attempt, const char *device, const char *event, const struct ev_field *fields, size_t n, bool last);
/* relay_forget ends the numbering of an item that goes without an event of its own. */
void relay_forget(struct relay *r, int64_t item);
void relay_preview(struct relay *r, int attempt, const struct link_PREVIEW *p);
int64_t relay_seq(const struct relay *r);         /* of the newest event */

struct relay_poll { int64_t since, item_id, max, wait_ms; };
/* relay_poll answers the request TOKEN now or when an event comes, at the latest after wait_ms (at once when LIMIT_POLLS wait already). */
void relay_poll(struct relay *r, uint64_t token, enum wr_form form, const struct relay_poll *p);
int relay_polls_waiting(const struct relay *r);
