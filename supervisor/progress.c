/* What a worker tells of its item, as events: coalesced, the last of a phase always sent. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/slot.h"

enum { MAX_FIELDS = 8 };

static json_t *invocation(const char *id, const char *type)
{
    return json_pack("{s:s s:s}", "id", id, "type", type);
}

static void send(struct slot *s, const char *event, const char *id, const char *source, const char *type, const struct ev_field *more, size_t n)
{
    struct ev_field fields[MAX_FIELDS];
    json_t *inv = invocation(id, type);
    fields[0] = EV_J("invocation", inv);
    fields[1] = EV_S("invocation_source_id", source);
    if (n)
        memcpy(fields + 2, more, n * sizeof *more);
    relay_item_event(s->pool->sup->relay, s->work.item, s->work.attempt, s->device.name, event, fields, n + 2, false);
    json_decref(inv);
}

static void send_progress(struct slot *s)
{
    struct progress *p = &s->progress;
    const struct ev_field more[] = {
        EV_S("phase", p->phase), EV_S("message", p->message), EV_I("step", p->step), EV_I("total", p->total),
    };
    send(s, "invocation_progress", p->invocation, p->source, p->type, more, sizeof more / sizeof more[0]);
    p->waits = false;
    p->sent_ms = clock_ms();
}

int64_t progress_flush(struct slot *s, bool force)
{
    struct progress *p = &s->progress;
    if (!p->waits)
        return INT64_MAX;
    int64_t due = p->sent_ms + (int64_t)(1000 / s->pool->sup->config->progress_rate);
    if (!force && clock_ms() < due)
        return due;
    send_progress(s);
    return INT64_MAX;
}

void progress_reset(struct slot *s)
{
    s->progress = (struct progress){0};
}

void progress_started(struct slot *s, const struct link_STARTED *m)
{
    char id[48], source[128], type[64];
    view_text(m->invocation_id, id, sizeof id);
    view_text(m->source_id, source, sizeof source);
    view_text(m->type, type, sizeof type);
    progress_flush(s, true);
    send(s, "invocation_started", id, source, type, NULL, 0);
}

/* note_rate keeps what it/s and ETA are computed from. */
static void note_rate(struct slot *s, int64_t step)
{
    int64_t now = clock_ms();
    if (step <= 1 || !s->work.first_step_ms) {
        s->work.first_step_ms = now;
        s->work.first_step = step;
    }
    s->work.last_step_ms = now;
}

void progress_progress(struct slot *s, const struct link_PROGRESS *m)
{
    struct progress *p = &s->progress;
    bool new_phase = !view_is(m->phase, p->phase) || !view_is(m->invocation_id, p->invocation);
    if (new_phase && p->total)
        progress_flush(s, true);    /* the last step of a phase */
    view_text(m->invocation_id, p->invocation, sizeof p->invocation);
    view_text(m->source_id, p->source, sizeof p->source);
    view_text(m->type, p->type, sizeof p->type);
    view_text(m->phase, p->phase, sizeof p->phase);
    view_text(m->message, p->message, sizeof p->message);
    p->step = m->step;
    p->total = m->total;
    p->waits = true;
    if (m->total)
        note_rate(s, m->step);
    else if (new_phase)
        p->sent_ms = clock_ms();    /* a phase without steps is told of only if it lasts */
    snprintf(s->phase, sizeof s->phase, "%s", p->phase);
    progress_flush(s, m->total && m->step == m->total);
    if (p->waits)
        pool_wake_timer(s->pool);
}

void progress_preview(struct slot *s, const struct link_PREVIEW *m)
{
    if (m->width <= 0 || m->height <= 0 || m->width > 4096 || m->height > 4096 || m->image.n != (size_t)(m->width * m->height * 3))
        return;
    relay_preview(s->pool->sup->relay, s->work.attempt, m);
}

void progress_node_done(struct slot *s, const struct link_NODE_DONE *m)
{
    char id[48], source[128], type[64], error[512], error_type[64];
    view_text(m->invocation_id, id, sizeof id);
    view_text(m->source_id, source, sizeof source);
    view_text(m->type, type, sizeof type);
    view_text(m->error, error, sizeof error);
    view_text(m->error_type, error_type, sizeof error_type);
    progress_flush(s, s->progress.total > 0);
    s->progress.waits = false;
    const struct ev_field more[] = {EV_S("error_type", error_type), EV_S("error_message", error)};
    send(s, error[0] ? "invocation_error" : "invocation_complete", id, source, type, more, error[0] ? 2 : 0);
}
