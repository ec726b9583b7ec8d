/* Commands about the node itself: hello status help metrics workers models events snapshot pause resume reload drain shutdown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "proto/limits.h"
#include "supervisor/commands.h"
#include "supervisor/rows.h"
#include "supervisor/supervisor.h"

void command_hello(struct request *r)
{
    struct wr *w = request_result(r);
    wr_map(w, 5);
    wr_kstr(w, "program", "galleyd");
    wr_kstr(w, "version", GALLEY_VERSION);
    wr_kint(w, "protocol", 1);
    wr_kstr(w, "boot_id", r->sup->boot_id);
    wr_kint(w, "seq", relay_seq(r->sup->relay));
    wr_end(w);
    request_send(r);
}

static int64_t reader_count(const struct supervisor *sup, const char *name)
{
    int64_t n = 0;
    for (int s = 0; s < ITEM_STATES; s++)
        if (strcmp(item_state_reader_name((enum item_state)s), name) == 0)
            n += sup->counts[s];
    return n;
}

/* write_counts writes InvokeAI's queue counts, and galley's held and canceling, which are contained in pending and in_progress. */
static void write_counts(const struct supervisor *sup, struct wr *w)
{
    static const char *const names[] = {"pending", "in_progress", "waiting", "completed", "failed", "canceled"};
    int64_t total = 0;
    wr_map(w, 9);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int64_t n = reader_count(sup, names[i]);
        total += n;
        wr_kint(w, names[i], n);
    }
    wr_kint(w, "total", total);
    wr_kint(w, "held", sup->counts[ITEM_HELD]);
    wr_kint(w, "canceling", sup->counts[ITEM_CANCELING]);
    wr_end(w);
}

static const char *state_name(enum run_state s)
{
    return s == RUN_SERVING ? "serving" : s == RUN_STARTING ? "starting" : s == RUN_DRAINING ? "draining" : "stopping";
}

static void write_node(const struct supervisor *sup, struct wr *w)
{
    struct sp_counts c;
    control_counts(sup->control, &c);
    wr_map(w, 12);
    wr_kstr(w, "version", GALLEY_VERSION);
    wr_kstr(w, "boot_id", sup->boot_id);
    wr_kstr(w, "state", state_name(sup->state));
    wr_kint(w, "pid", getpid());
    wr_kint(w, "uptime_ms", clock_ms() - sup->started_ms);
    wr_kbool(w, "paused", sup->paused);
    wr_kint(w, "seq", relay_seq(sup->relay));
    wr_kint(w, "store_busy_ms", store_stuck_ms(sup->store));
    wr_kint(w, "connections", (int64_t)c.connections);
    wr_kint(w, "relistened", (int64_t)c.relistened);
    wr_kstr(w, "state_dir", sup->paths.state);
    wr_kstr(w, "outputs_dir", sup->paths.outputs);
    wr_end(w);
}

void command_status(struct request *r)
{
    char why[512], slots[800];
    bool ready = supervisor_ready(r->sup, why, sizeof why);
    struct wr *w = request_result(r);
    pool_summary(r->sup->pool, slots, sizeof slots);
    wr_map(w, 6);
    wr_kbool(w, "ready", ready);
    wr_kstr(w, "reason", ready ? NULL : why);
    wr_key(w, "queue");
    write_counts(r->sup, w);
    wr_key(w, "workers");
    pool_write(r->sup->pool, w);
    wr_key(w, "node");
    write_node(r->sup, w);
    if (r->sup->sockets_stuck && !slots[0])
        snprintf(slots, sizeof slots, "closed connections are not let go any more: restart galleyd when it suits");
    wr_kstr(w, "trouble", slots[0] ? slots : NULL);
    wr_end(w);
    request_send(r);
}

static void write_command(const struct command *c, struct wr *w)
{
    const struct argument *first = command_arguments(c), *a;
    uint32_t n = 0;
    for (a = first; a->name; a++)
        n++;
    wr_map(w, 5);
    wr_kstr(w, "op", c->name);
    wr_kstr(w, "help", c->help);
    wr_kstr(w, "access", c->access);
    wr_kbool(w, "available", c->run != NULL);
    wr_key(w, "args");
    wr_array(w, n);
    for (a = first; a->name; a++) {
        wr_map(w, 7);
        wr_kstr(w, "name", a->name);
        wr_kstr(w, "type", argument_type_text(a->type));
        wr_kbool(w, "required", a->required);
        wr_kbool(w, "available", a->available);
        wr_kdouble(w, "min", a->min);
        wr_kdouble(w, "max", a->max);
        wr_kstr(w, "help", a->help);
        wr_end(w);
    }
    wr_end(w);
    wr_end(w);
}

void command_help(struct request *r)
{
    size_t n;
    const struct command *c = command_table(&n);
    struct wr *w = request_result(r);
    wr_map(w, 1);
    wr_key(w, "commands");
    wr_array(w, (uint32_t)n);
    for (size_t i = 0; i < n; i++)
        write_command(&c[i], w);
    wr_end(w);
    wr_end(w);
    request_send(r);
}

static void gauge(struct buf *b, const char *name, const char *help, double value)
{
    buf_printf(b, "# HELP galley_%s %s\n# TYPE galley_%s gauge\ngalley_%s %.17g\n", name, help, name, name, value);
}

static void counter(struct buf *b, const char *name, const char *help, uint64_t value)
{
    buf_printf(b, "# HELP galley_%s %s\n# TYPE galley_%s counter\ngalley_%s %llu\n", name, help, name, name, (unsigned long long)value);
}

void command_metrics(struct request *r)
{
    AUTO_BUF b = BUF_INIT;
    struct supervisor *sup = r->sup;
    struct sp_counts c;
    char why[512];
    control_counts(sup->control, &c);
    gauge(&b, "ready", "1 while an item that comes now would start", supervisor_ready(sup, why, sizeof why));
    gauge(&b, "uptime_seconds", "Since the node started", (double)(clock_ms() - sup->started_ms) / 1000);
    buf_puts(&b, "# HELP galley_items Items by state\n# TYPE galley_items gauge\n");
    for (int s = 0; s < ITEM_STATES; s++)
        buf_printf(&b, "galley_items{state=\"%s\"} %lld\n", item_state_name((enum item_state)s), (long long)sup->counts[s]);
    counter(&b, "attempts_finished_total", "Finish frames accepted for recording", sup->items_finished);
    counter(&b, "requests_total", "Control requests", sup->requests);
    gauge(&b, "event_seq", "Number of the newest event", (double)relay_seq(sup->relay));
    gauge(&b, "polls_waiting", "Long polls that wait", relay_polls_waiting(sup->relay));
    gauge(&b, "control_connections", "Connections of the control socket", (double)c.connections);
    counter(&b, "control_relistened_total", "Times the control socket had to be opened anew", c.relistened);
    counter(&b, "control_refused_total", "Connections refused past the limit", c.refused);
    pool_metrics(sup->pool, &b);
    struct wr *w = request_result(r);
    wr_map(w, 2);
    wr_kstr(w, "content_type", "text/plain; version=0.0.4");
    wr_kstr(w, "text", buf_ok(&b) ? b.data : "");
    wr_end(w);
    request_send(r);
}

void command_workers(struct request *r)
{
    struct wr *w = request_result(r);
    wr_map(w, 1);
    wr_key(w, "workers");
    pool_write(r->sup->pool, w);
    wr_end(w);
    request_send(r);
}

void command_worker_restart(struct request *r)
{
    struct error err;
    const char *device = json_str(r->args, "device", "");
    if (pool_restart(r->sup->pool, device, &err) != ST_OK) {
        request_fail(r, &err);
        return;
    }
    struct wr *w = request_result(r);
    wr_map(w, 1);
    wr_kstr(w, "device", device);
    wr_end(w);
    request_send(r);
}

void command_models(struct request *r)
{
    struct wr *w = request_result(r);
    wr_map(w, 1);
    wr_kjson(w, "models", models_list(r->sup->models));
    wr_end(w);
    request_send(r);
}

void command_events(struct request *r)
{
    struct relay_poll p = {json_int(r->args, "since", 0), json_int(r->args, "item_id", 0), json_int(r->args, "max", 1000), json_int(r->args, "wait_ms", 0)};
    struct relay *relay = r->sup->relay;
    uint64_t token = r->token;
    enum wr_form form = r->form;
    request_release(r);
    relay_poll(relay, token, form, &p);
}

/* ---- snapshot: rows of everything live, and the number of the last event they may lack */

struct snapshot_op { struct store_op op; struct request *request; struct item_page page; int64_t seq; };
enum { SNAPSHOT_ITEMS = 1000 };

static enum status read_snapshot(struct queue_reader *q, struct store_op *op, struct error *err)
{
    struct snapshot_op *s = (struct snapshot_op *)op;
    const struct item_filter live = {.limit = SNAPSHOT_ITEMS, .live = true};
    return reader_items(q, &live, &s->page, err);
}

static void snapshot_done(struct store_op *op, enum status st, const struct error *err)
{
    struct snapshot_op *s = (struct snapshot_op *)op;
    struct request *r = s->request;
    if (st != ST_OK) {
        request_fail(r, err);
        free(s);
        return;
    }
    struct wr *w = request_result(r);
    wr_map(w, 7);
    wr_kint(w, "seq", s->seq);
    wr_kstr(w, "boot_id", r->sup->boot_id);
    wr_kbool(w, "paused", r->sup->paused);
    wr_key(w, "items");
    wr_array(w, (uint32_t)s->page.n);
    for (int i = 0; i < s->page.n; i++)
        row_write(r->sup, &s->page.rows[i], w);
    wr_end(w);
    wr_kbool(w, "more", s->page.more);
    wr_key(w, "queue");
    write_counts(r->sup, w);
    wr_key(w, "workers");
    pool_write(r->sup->pool, w);
    wr_end(w);
    request_send(r);
    item_page_fini(&s->page);
    free(s);
}

void command_snapshot(struct request *r)
{
    struct snapshot_op *s = calloc(1, sizeof *s);
    struct error err;
    if (!s) {
        FAIL(&err, OUT_OF_MEMORY, "the node is out of memory");
        request_fail(r, &err);
        return;
    }
    s->op.read = read_snapshot;
    s->op.done = snapshot_done;
    s->request = r;
    s->seq = relay_seq(r->sup->relay);    /* before the read: what comes after may be told twice, never lost */
    store_read(r->sup->store, &s->op);
}

/* ---- pause and resume, durable */

struct pause_op { struct store_op op; struct request *request; bool paused, was; char device[80]; };

/* set_paused pauses or resumes the queue or P's device in memory; true if it was paused. */
static bool set_paused(struct supervisor *sup, const struct pause_op *p, bool paused)
{
    bool was = sup->paused;
    if (p->device[0])
        return pool_pause(sup->pool, p->device, paused);
    sup->paused = paused;
    return was;
}

static enum status run_pause(struct queue *q, struct store_op *op, struct error *err)
{
    struct pause_op *p = (struct pause_op *)op;
    char key[100];
    snprintf(key, sizeof key, p->device[0] ? "paused %s" : "paused", p->device);
    return queue_meta_set(q, key, p->paused ? "1" : NULL, err);
}

static void pause_done(struct store_op *op, enum status st, const struct error *err)
{
    struct pause_op *p = (struct pause_op *)op;
    struct request *r = p->request;
    struct supervisor *sup = r->sup;
    const char *device = p->device[0] ? p->device : NULL;
    if (st != ST_OK) {
        if (p->paused)
            set_paused(sup, p, p->was);
        request_fail(r, err);
        free(p);
        return;
    }
    set_paused(sup, p, p->paused);
    const struct ev_field fields[] = {EV_S("device", device)};
    relay_event(sup->relay, "ev/queue ", p->paused ? "queue_paused" : "queue_resumed", fields, 1);
    pool_dispatch(sup->pool);
    struct wr *w = request_result(r);
    wr_map(w, 2);
    wr_kbool(w, "paused", p->paused);
    wr_kstr(w, "device", device);
    wr_end(w);
    request_send(r);
    free(p);
}

static void pause_or_resume(struct request *r, bool paused)
{
    struct pause_op *p = calloc(1, sizeof *p);
    struct error err = {0};
    const char *device = json_str(r->args, "device", ""), *name = "";
    if (!p)
        FAIL(&err, OUT_OF_MEMORY, "the node is out of memory");
    else if (device[0])
        (void)!pool_name(r->sup->pool, device, &name, &err);
    if (err.code) {
        request_fail(r, &err);
        free(p);
        return;
    }
    p->op.run = run_pause;
    p->op.done = pause_done;
    p->request = r;
    p->paused = paused;
    snprintf(p->device, sizeof p->device, "%s", name);
    if (paused)
        p->was = set_paused(r->sup, p, true);    /* at once: no claim that is asked for from here on may start an item after the answer */
    store_submit(r->sup->store, &p->op);
}

void command_pause(struct request *r)
{
    pause_or_resume(r, true);
}

void command_resume(struct request *r)
{
    pause_or_resume(r, false);
}

/* ---- as the signals */

struct reload { struct request *request; struct strlist restart; };

static void reload_done(void *arg, enum status st, const struct error *err)
{
    struct reload *l = arg;
    struct request *r = l->request;
    if (st != ST_OK) {
        request_fail(r, err);
    } else {
        struct wr *w = request_result(r);
        wr_map(w, 2);
        wr_key(w, "need_restart");
        wr_array(w, (uint32_t)l->restart.n);
        for (size_t i = 0; i < l->restart.n; i++)
            wr_str(w, l->restart.items[i]);
        wr_end(w);
        wr_kint(w, "models", (int64_t)json_array_size(models_list(r->sup->models)));
        wr_end(w);
        request_send(r);
    }
    strlist_free(&l->restart);
    free(l);
}

void command_reload(struct request *r)
{
    struct error err;
    struct reload *l = calloc(1, sizeof *l);
    if (!l) {
        FAIL(&err, OUT_OF_MEMORY, "the node is out of memory");
        request_fail(r, &err);
        return;
    }
    l->request = r;
    if (supervisor_reload(r->sup, &l->restart, reload_done, l, &err) != ST_OK) {
        strlist_free(&l->restart);
        free(l);
        request_fail(r, &err);
    }
}

static void answer_state(struct request *r, const char *state)
{
    struct wr *w = request_result(r);
    wr_map(w, 1);
    wr_kstr(w, "state", state);
    wr_end(w);
    request_send(r);
}

void command_drain(struct request *r)
{
    struct supervisor *sup = r->sup;
    answer_state(r, "draining");
    if (sup->state == RUN_SERVING)    /* a request that was sent twice must not stop what may end */
        supervisor_drain(sup);
}

void command_shutdown(struct request *r)
{
    struct supervisor *sup = r->sup;
    answer_state(r, "stopping");
    supervisor_shutdown(sup);
}
