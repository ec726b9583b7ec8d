/* Following items to their end: the feed, the bars, and what became of each. Nothing is missed by a lost event: after a gap, a reconnect or
 * a while of silence the node is asked. */
#pragma once
#include "common/error.h"
#include "proto/client.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct follow_item;
struct follow_options {
    bool quiet;                                              /* no progress on stderr */
    bool tiles;                                              /* previews above the bars */
    bool json;                                               /* every event as a line of JSON on stdout */
    bool announce;                                           /* a line on stdout for each item that ends */
    int64_t lost_limit_ms;                                   /* how long the node may be gone */
    void (*on_end)(void *arg, const struct follow_item *it); /* called once for each followed item as it ends; NULL: not */
    void *arg;
};

struct follow_item {
    int64_t item_id;
    char status[16]; /* "" until it has ended; then completed, failed, canceled, or deleted */
    char error[768]; /* of a failed item, "" else */
};

struct follow;
/* follow_new subscribes on C (borrowed); do it before the items are added to the queue. */
NODISCARD enum status follow_new(galley_client *c, const struct follow_options *o, struct follow **ret, struct error *err);
void follow_free(struct follow *f); /* accepts NULL; removes the bars */
/* follow_add names the items to follow; BATCH_ID (may be NULL) is theirs if they are all of one batch. */
NODISCARD enum status follow_add(struct follow *f, const int64_t *ids, size_t n, const char *batch_id, struct error *err);
/* follow_items_done returns when all of them have ended. CANCELED: interrupted by a signal; UNREACHABLE: the node stayed away. */
NODISCARD enum status follow_items_done(struct follow *f, struct error *err);
/* follow_everything shows all that runs until nothing is left to run, or with FOREVER until a signal (CANCELED). */
NODISCARD enum status follow_everything(struct follow *f, bool forever, struct error *err);
/* follow_results returns the followed items ascending by id (borrowed). */
const struct follow_item *follow_results(const struct follow *f, size_t *ret_n);
/* follow_failed returns the first item that did not complete, NULL if all did. */
const struct follow_item *follow_failed(const struct follow *f);
