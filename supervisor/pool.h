/* The worker slots: processes, links, health, and which item runs where. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/error.h"
#include "common/loop.h"
#include "proto/wr.h"
#include "supervisor/devices.h"
#include "supervisor/queue/queue.h"
#include "supervisor/worker_fsm.h"

struct supervisor;
struct pool;

/* pool_new makes the slots; pool_start starts their workers. */
NODISCARD enum status pool_new(struct supervisor *sup, const struct device *devices, int n, struct pool **ret, struct error *err);
void pool_start(struct pool *p);
/* pool_dispatch offers work to every free slot: call whenever something may have become claimable. */
void pool_dispatch(struct pool *p);
/* pool_cancel tells the slot that runs ITEM at EPOCH to stop: cancel frame, then TERM, then KILL. */
void pool_cancel(struct pool *p, int slot, int64_t item, int64_t epoch);
/* pool_restart replaces the worker of a device (name or slot number): its item is requeued. NOT_FOUND names the devices there are; BAD_STATE:
 * the old process does not end. */
NODISCARD enum status pool_restart(struct pool *p, const char *device, struct error *err);
/* pool_pause stops or resumes starts on the device of that name; the caller makes it durable. True if it was paused. */
bool pool_pause(struct pool *p, const char *device, bool paused);
/* pool_name returns the device name for a name or slot number. NOT_FOUND names the devices there are. */
NODISCARD enum status pool_name(struct pool *p, const char *device, const char **ret_name, struct error *err);
/* pool_stop ends the workers. KEEP_RUNNING: running items may finish; otherwise they are requeued at once. */
void pool_stop(struct pool *p, bool keep_running);
bool pool_stopped(const struct pool *p);             /* no process is left */
bool pool_idle(const struct pool *p);                /* no item runs, no claim or finish is under way */
bool pool_able(const struct pool *p);                /* at least one slot is ready or busy, and not paused */
int pool_count(const struct pool *p);
/* pool_write writes the list of worker rows. */
void pool_write(const struct pool *p, struct wr *w);
/* pool_metrics appends the workers' metrics as Prometheus text. */
void pool_metrics(const struct pool *p, struct buf *out);
/* pool_running finds what runs of ITEM: phase, step, total, message; false if it does not run. */
struct running { const char *phase, *message, *device; int64_t step, total; double it_per_s; };
bool pool_running(const struct pool *p, int64_t item, struct running *ret);
/* pool_summary writes one line on what is wrong with the slots, "" if nothing. */
void pool_summary(const struct pool *p, char *ret, size_t size);
