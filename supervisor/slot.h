/* Inside of the pool: one slot. Shared by pool.c (work) and slot.c (process) and progress.c (what its worker tells). */
#pragma once
#include <sys/types.h>
#include "proto/link.h"
#include "proto/sp.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

enum { FAULT_WINDOW_MS = 600000, FAULTS_MAX = 3, LOST_MS = 10000 };

/* The last progress of the running item, perhaps not sent yet. */
struct progress {
    char invocation[48], source[128], type[64], phase[16], message[160];
    int64_t step, total, sent_ms;
    bool waits;                      /* newer than what was sent */
};

/* One item at one attempt, as the slot works on it. */
struct work {
    int64_t item, epoch;             /* item 0: none */
    int attempt;
    bool canceling;
    int64_t first_step_ms, first_step, last_step_ms;
};

struct slot {
    struct pool *pool;
    int index;
    struct device device;
    enum slot_state state;
    bool paused;
    pid_t pid;                       /* 0: no process */
    int pidfd;
    uint64_t launch, start_time;
    struct sp_pair *link;
    struct loop_wake *wake;
    int64_t started_ms, heard_ms, moved_ms;   /* process start, last frame, last movement of the counter */
    uint64_t counter, rss_bytes, device_bytes;
    char phase[16];
    char *models;                    /* JSON list of resident keys */
    struct work work;
    struct progress progress;
    bool claiming, claim_again;      /* a claim is under way; something came meanwhile */
    bool settling;                   /* the claim of its item is committed, not yet synced and told: what the worker says waits */
    bool exit_waits;                 /* so does its exit */
    bool leaving;                    /* it said that it is about to exit: it gets no item */
    bool finishing;                  /* a finish is under way: a death meanwhile is not the item's */
    int64_t cancel_until, term_until, lost_at;   /* stop ladder, 0: not armed */
    enum attempt_end end_why;        /* how to account the death that is coming */
    char end_reason[160];
    int64_t backoff_ms, start_at;    /* next delay; when BACKOFF ends */
    struct { int64_t item, at_ms; } faults[FAULTS_MAX];
    int n_faults;                    /* of different items inside the window */
    uint64_t deaths;
    bool keep_off;                   /* the node stops: no new process */
    char reason[200];                /* why it is not at work */
};

struct ended_op;
struct pool {
    struct supervisor *sup;
    struct slot *slots;
    int n;
    bool stopping;                   /* no new assignment */
    uint64_t next_launch;
    struct ended_op *unrecorded;     /* ends of attempts that the store could not take */
    int64_t record_at;
    struct batch_text *data_of;      /* the batch of the last item with values, and its data parsed */
    json_t *data;
    struct loop_timer *timer;
    struct loop_timer *later;        /* the earliest postponed item */
};

/* slot_event moves the slot by the table; a refused event is logged and false. Publishes worker_state_changed. */
bool slot_event(struct slot *s, enum slot_event e);
void slot_start(struct slot *s);
/* slot_kill ends the process: by KILL at once, or TERM first. WHY and REASON are how its item is accounted. */
void slot_kill(struct slot *s, bool term_first, enum attempt_end why, const char *reason);
void slot_on_wake(void *arg);
/* slot_settled: the claim of the slot's item is told. Acts on what waited for it. */
void slot_settled(struct slot *s);
/* slot_check acts on limits that have passed; returns the next moment (clock_ms) to look again. */
int64_t slot_check(struct slot *s, int64_t now);
enum status slot_send(struct slot *s, const struct link_message *m, struct error *err);

/* pool.c, for slot.c */
void pool_frame_finish(struct slot *s, const struct link_FINISH *f);
void pool_attempt_ended(struct pool *p, int64_t item, int64_t epoch, enum attempt_end why, const char *reason);
void pool_wake_timer(struct pool *p);
void pool_slot_ready(struct slot *s);

/* progress.c */
void progress_started(struct slot *s, const struct link_STARTED *m);
void progress_progress(struct slot *s, const struct link_PROGRESS *m);
void progress_preview(struct slot *s, const struct link_PREVIEW *m);
void progress_node_done(struct slot *s, const struct link_NODE_DONE *m);
/* progress_flush sends what waits; FORCE also before its time. Returns when the next is due, INT64_MAX: nothing waits. */
int64_t progress_flush(struct slot *s, bool force);
void progress_reset(struct slot *s);
