/* libgalley: talk to a galley node. Plain C, no other header needed; every call has a limit; a handle serves one thread at a time. */
#ifndef GALLEY_CLIENT_H
#define GALLEY_CLIENT_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct galley_client galley_client;
typedef struct galley_feed galley_feed;

typedef struct galley_error {
    char code[32];          /* "bad_graph", "unreachable", "timeout", ...; see docs/protocol.md */
    char message[768];
} galley_error;

/* galley_connect opens a node. URL: its control socket ("ipc:///run/galley/control"), or NULL: GALLEY_HOME, then the user's, then the system's
 * node. Returns 0, or -1 with ERR: unreachable (no node there), timeout (one that hangs), forbidden. */
int galley_connect(const char *url, int limit_ms, galley_client **ret, galley_error *err);
void galley_close(galley_client *c);                              /* accepts NULL */
const char *galley_url(const galley_client *c);

/* galley_call sends {"op": OP, "args": ARGS} (ARGS: a JSON object text or NULL) and returns the result as JSON text (free with galley_free), -1 with
 * the node's error otherwise. A request over 16 MiB is refused before it is sent (too_large). */
int galley_call(galley_client *c, const char *op, const char *args, int limit_ms, char **ret_result, galley_error *err);
/* galley_image fetches the bytes of a picture by name (free with galley_free). */
int galley_image(galley_client *c, const char *image_name, int limit_ms, void **ret_bytes, size_t *ret_n, galley_error *err);
void galley_free(void *p);

/* A feed follows events and previews and keeps the table of what runs. It subscribes, takes a snapshot, applies what follows, and takes a new snapshot
 * whenever a sequence number is missing or the node came back after a restart. */
typedef enum { GALLEY_EVENT, GALLEY_PREVIEW, GALLEY_RESYNC, GALLEY_LOST } galley_feed_kind;
typedef struct galley_item {
    int64_t item_id, step, total;
    int attempt;
    char device[64], phase[32], message[128], status[24], batch_id[80];
    double it_per_s;        /* over the last steps, 0 unknown */
    int64_t started_ms;     /* monotonic, when this attempt was first seen running */
    int preview_width, preview_height;
    const uint8_t *preview; /* rgb8, NULL: none yet; valid until the next galley_feed_next */
} galley_item;
typedef struct galley_feed_event {
    galley_feed_kind kind;
    const char *json;       /* GALLEY_EVENT: the flat event map as JSON text, valid until the next call */
    int64_t item_id;        /* 0: not of an item */
} galley_feed_event;
int galley_feed_open(galley_client *c, int with_previews, galley_feed **ret, galley_error *err);
/* galley_feed_next waits at most LIMIT_MS: 1 an event, 0 nothing, -1 error (lost nodes are reported as GALLEY_LOST and retried, not as errors). */
int galley_feed_next(galley_feed *f, int limit_ms, galley_feed_event *ret, galley_error *err);
/* galley_feed_items returns the table of items in progress, ascending by item_id (borrowed until the next galley_feed_next). */
size_t galley_feed_items(galley_feed *f, const galley_item **ret);
void galley_feed_close(galley_feed *f);

#ifdef __cplusplus
}
#endif
#endif
