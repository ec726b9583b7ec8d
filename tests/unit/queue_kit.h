/* What the queue's tests share: a queue in a temporary folder with a reader beside it, and short forms of the calls. */
#pragma once
#include "unit.h"

#include "common/json.h"
#include "supervisor/queue/internal.h"

struct kit {
    char *dir;
    struct queue *q;
    struct queue_reader *r;
    struct change_list ch; /* of the last write */
    struct error err;
    int64_t now;
};

static inline void kit_connect(struct kit *k)
{
    assert_ok(queue_open(k->dir, false, &k->q, &k->err), k->err);
    assert_ok(queue_reader_open(k->dir, &k->r, &k->err), k->err);
}

static inline void kit_open(struct kit *k)
{
    *k = (struct kit){.dir = temp_dir(), .now = 1700000000000};
    kit_connect(k);
}

static inline void kit_disconnect(struct kit *k)
{
    queue_reader_close(k->r);
    queue_close(k->q);
    k->r = NULL;
    k->q = NULL;
}

static inline void kit_close(struct kit *k)
{
    kit_disconnect(k);
    change_list_fini(&k->ch);
    temp_dir_remove(k->dir);
}

/* WRITE runs one call in a transaction of its own and gives its status; a refusal must leave the transaction usable. */
#define WRITE(k, call)                                                                                                                     \
    __extension__({                                                                                                                        \
        change_list_reset(&(k)->ch);                                                                                                       \
        (k)->err = (struct error){0};                                                                                                      \
        assert_ok(queue_begin((k)->q, &(k)->err), (k)->err);                                                                               \
        enum status write_status_ = (call);                                                                                                \
        struct error commit_err_ = {0};                                                                                                    \
        assert_ok(queue_commit((k)->q, &commit_err_), commit_err_);                                                                        \
        write_status_;                                                                                                                     \
    })
#define WRITE_OK(k, call)                                                                                                                  \
    do {                                                                                                                                   \
        if (WRITE(k, call) != ST_OK)                                                                                                       \
            fail_msg("%s: %s", #call, (k)->err.message);                                                                                   \
    } while (0)

static inline struct enqueue_args batch_of(struct kit *k, int64_t count)
{
    return (struct enqueue_args){
        .graph = "{\"nodes\":{}}", .runs = count, .count = count, .max_attempts = 3, .max_queue_size = 100000000, .now_ms = k->now};
}

static inline int64_t kit_enqueue(struct kit *k, int64_t count)
{
    struct enqueue_args a = batch_of(k, count);
    struct enqueue_result r;
    WRITE_OK(k, queue_enqueue(k->q, &a, &r, &k->err));
    return r.first_item_id;
}

/* kit_claim claims on SLOT and returns the item id, 0 for none; the epoch is in *RET_EPOCH (may be NULL). */
static inline int64_t kit_claim_on(struct kit *k, int slot, bool other, int64_t *ret_epoch)
{
    struct claim_args a = {
        .slot = slot, .device = slot ? "cpu:1" : "cpu:0", .worker = "w", .launch = 1, .other_slot_able = other, .now_ms = k->now};
    struct claim_result r;
    WRITE_OK(k, queue_claim(k->q, &a, &r, &k->ch, &k->err));
    if (ret_epoch)
        *ret_epoch = r.epoch;
    if (!r.found)
        return 0;
    batch_text_unref(r.batch);
    return r.item_id;
}

static inline int64_t kit_claim(struct kit *k, int64_t *ret_epoch) { return kit_claim_on(k, 0, false, ret_epoch); }

static inline enum status kit_finish(struct kit *k, int64_t item, int64_t epoch, enum item_state outcome)
{
    struct finish_args a = {.item_id = item,
                            .epoch = epoch,
                            .outcome = outcome,
                            .error_type = "node_failed",
                            .error_message = "no",
                            .session = "{\"id\":\"s\"}",
                            .cost_ms = 7,
                            .now_ms = k->now};
    return WRITE(k, queue_finish(k->q, &a, &k->ch, &k->err));
}

static inline enum item_state kit_state(struct kit *k, int64_t item)
{
    struct item_detail d;
    assert_ok(reader_item(k->r, item, &d, &k->err), k->err);
    enum item_state s = d.page.rows[0].state;
    item_detail_fini(&d);
    return s;
}

static inline int64_t kit_count(struct kit *k, enum item_state s)
{
    int64_t c[ITEM_STATES], w[ITEM_STATES];
    assert_ok(reader_counts(k->r, NULL, c, &k->err), k->err);
    assert_ok(queue_counts(k->q, NULL, w, &k->err), k->err);
    assert_memory_equal(c, w, sizeof c);
    return c[s];
}
