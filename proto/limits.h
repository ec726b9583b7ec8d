/* The limits on what crosses a process. */
#pragma once
enum {
    LIMIT_REQUEST_BYTES = 16 << 20,     /* one control request */
    LIMIT_REPLY_BYTES = 256 << 20,      /* one control reply (pictures) */
    LIMIT_LINK_BYTES = 32 << 20,        /* one frame on a worker link */
    LIMIT_DEPTH = 200,                  /* nesting of any decoded value */
    LIMIT_CONNECTIONS = 256,            /* per socket */
    LIMIT_CONTEXTS = 320,               /* control requests in flight */
    LIMIT_POLLS = LIMIT_CONTEXTS / 2,   /* of them in long polls */
    LIMIT_POLL_MS = 30000,
    LIMIT_ITEMS_PAGE = 1000,
    LIMIT_EVENTS_RING = 65536,
    LIMIT_BATCH_ITEMS = 10000000,       /* before the queue's own limit */
    LIMIT_KEY_BYTES = 200,              /* idempotency key */
    LIMIT_IPC_PATH = 107,
    EVENT_TOPIC_BYTES = 32,
};
