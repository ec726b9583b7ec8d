#include "supervisor/rows.h"

#include "common/clock.h"
#include "supervisor/supervisor.h"

void stamp_write(struct wr *w, const char *key, int64_t wall_ms)
{
    char text[24];
    wr_key(w, key);
    if (!wall_ms) {
        wr_null(w);
        return;
    }
    clock_stamp(wall_ms, text);
    wr_str(w, text);
}

static void write_number(struct wr *w, const char *key, int64_t v)
{
    wr_key(w, key);
    if (v)
        wr_int(w, v);
    else
        wr_null(w);
}

static void write_place(const struct supervisor *sup, int64_t item, struct wr *w)
{
    struct running run = {0};
    pool_running(sup->pool, item, &run);
    wr_kstr(w, "phase", run.phase);
    wr_kstr(w, "message", run.message);
    wr_kint(w, "step", run.step);
    wr_kint(w, "total", run.total);
    wr_kdouble(w, "it_per_s", run.it_per_s);
}

void row_write(const struct supervisor *sup, const struct item_row *row, struct wr *w)
{
    bool live = row->state == ITEM_IN_PROGRESS || row->state == ITEM_CANCELING;
    wr_map(w, live ? 32 : 27);
    wr_kint(w, "item_id", row->item_id);
    wr_kstr(w, "status", item_state_reader_name(row->state));
    wr_kstr(w, "state", item_state_name(row->state));
    wr_kint(w, "priority", row->priority);
    wr_kstr(w, "batch_id", row->batch_id);
    wr_kstr(w, "queue_id", row->queue_id);
    wr_kstr(w, "session_id", row->session_id);
    wr_kstr(w, "origin", row->origin);
    wr_kstr(w, "destination", row->destination);
    wr_kstr(w, "user_id", row->user);
    wr_kstr(w, "error_type", row->error_type);
    wr_kstr(w, "error_message", row->error_message);
    stamp_write(w, "created_at", row->created_at);
    stamp_write(w, "updated_at", row->updated_at);
    stamp_write(w, "started_at", row->started_at);
    stamp_write(w, "completed_at", row->completed_at);
    write_number(w, "retried_from_item_id", row->retried_from);
    wr_kint(w, "status_sequence", row->status_sequence);
    wr_kjson(w, "field_values", row->field_values);
    wr_kstr(w, "device", row->device);
    wr_kstr(w, "worker", row->worker);
    wr_kint(w, "attempt", row->attempt);
    wr_kint(w, "max_attempts", row->max_attempts);
    wr_kint(w, "deaths", row->deaths);
    wr_kint(w, "epoch", row->epoch);
    wr_kstr(w, "reason", row->reason);
    stamp_write(w, "not_before", row->not_before);
    if (live)
        write_place(sup, row->item_id, w);
    wr_end(w);
}

void image_row_write(const struct image_row *row, struct wr *w)
{
    char digest[2 * SHA256_BYTES + 1];
    hex(row->sha256, SHA256_BYTES, digest);
    wr_map(w, 11);
    wr_kstr(w, "image_name", row->name);
    wr_kint(w, "item_id", row->item_id);
    wr_kstr(w, "session_id", row->session_id);
    wr_kstr(w, "batch_id", row->batch_id);
    wr_kint(w, "width", row->width);
    wr_kint(w, "height", row->height);
    wr_kint(w, "bytes", row->bytes);
    wr_kstr(w, "sha256", digest);
    wr_kstr(w, "node_id", row->node_id);
    wr_kbool(w, "is_intermediate", row->is_intermediate);
    stamp_write(w, "created_at", row->created_at);
    wr_end(w);
}
