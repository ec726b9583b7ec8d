/* What the parts of galleyd share. One thread owns all of it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/config.h"
#include "common/hash.h"
#include "common/loop.h"
#include "common/paths.h"
#include "supervisor/models.h"
#include "supervisor/pool.h"
#include "supervisor/queue/store.h"
#include "supervisor/relay.h"

struct control;

enum run_state { RUN_STARTING, RUN_SERVING, RUN_DRAINING, RUN_STOPPING };

struct supervisor {
    struct config *config;
    struct paths paths;              /* outputs is final: outputs_dir applied */
    char config_file[PATH_BYTES];    /* read again by reload; "" none */
    char models_dir[PATH_BYTES];
    char boot_id[UUID_TEXT];
    struct loop *loop;
    struct loop_wake *store_wake;
    struct store *store;
    struct relay *relay;
    struct pool *pool;
    struct control *control;
    struct models *models;
    bool rescanning;                 /* a reload reads the models again */
    enum run_state state;
    bool paused;                     /* persisted */
    bool sockets_stuck;              /* closed connections pile up: only a new process cures it */
    bool disk_low;
    char disk_text[160];             /* why disk_low */
    int64_t seq_upto;                /* event numbers are to be reserved up to here */
    bool seq_again;                  /* the store did not take that */
    int64_t counts[ITEM_STATES];     /* kept from the changes that the store reports */
    int64_t started_ms;              /* monotonic */
    int private_fd;                  /* end of file: stop and remove private_dir; -1 */
    char private_dir[PATH_BYTES];
    struct loop_timer *drain_timer, *house_timer, *exit_timer;
    int64_t drain_until_ms;
    bool drain_told;             /* subscribers know that the node drains */
    int ready_fd;                    /* written once when serving; -1 */
    uint64_t requests, items_finished;
};

/* supervisor_run starts the node and returns when it has stopped. ERR tells why a start failed. Returns the exit code. */
int supervisor_run(struct supervisor *sup, struct error *err);
/* supervisor_drain: no more starts; exits when what runs has ended, at the latest after drain_ms. supervisor_shutdown: now. */
void supervisor_drain(struct supervisor *sup);
void supervisor_shutdown(struct supervisor *sup);
/* supervisor_reload reads the configuration again, at once, and then the models; a bad file keeps the old (ERR); BUSY: one is under way. RET_RESTART: keys that want a restart.
 * DONE (may be NULL) hears how the models went; it is not called when the configuration was refused. */
typedef void supervisor_rescan_fn(void *arg, enum status status, const struct error *err);
NODISCARD enum status supervisor_reload(struct supervisor *sup, struct strlist *ret_restart, supervisor_rescan_fn *done, void *arg, struct error *err);
/* supervisor_ready tells whether an item that comes now would start; WHY (256 bytes) else. */
bool supervisor_ready(const struct supervisor *sup, char *why, size_t size);
/* supervisor_may_claim: serving, not paused, disk above its floor. */
bool supervisor_may_claim(const struct supervisor *sup);
/* supervisor_changed applies committed changes: counters, and an event each; with BULK one event of the caller's tells of waiting items that were canceled. */
void supervisor_changed(struct supervisor *sup, const struct change_list *changes, bool bulk);
/* supervisor_now_ms is the wall clock that rows are stamped with. */
int64_t supervisor_now_ms(void);

/* outputs.c */
/* outputs_prepare makes the folders (images, .staging) and publishes or removes what a crash left staged. */
NODISCARD enum status outputs_prepare(const char *outputs, struct queue *q, struct error *err);
void outputs_staging(const char *outputs, int64_t item, int64_t epoch, char *ret, size_t size);
/* outputs_publish renames the staged pictures of an accepted finish into images/; outputs_discard removes them. */
NODISCARD enum status outputs_publish(const char *outputs, int64_t item, int64_t epoch, struct error *err);
void outputs_discard(const char *outputs, int64_t item, int64_t epoch);
void outputs_delete(const char *outputs, const char *image_name);
NODISCARD enum status outputs_read(const char *outputs, const char *image_name, struct buf *out, struct error *err);
void tree_remove(const char *dir);
/* probe.c: runs galley-worker --probe. Caller decrefs. */
NODISCARD enum status probe_run(const char *models_dir, const char *data, json_t **ret, struct error *err);
