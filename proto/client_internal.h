/* What client.c and feed.c share. */
#pragma once
#include "common/buf.h"
#include "proto/client.h"
#include "proto/sp.h"

struct galley_client {
    struct sp_req *req;
    char url[160];
};

/* client_fail copies ERR into RET (may be NULL) and returns -1. */
int client_fail(const struct error *err, galley_error *ret);
/* client_ask sends OP with ARGS (JSON object text or NULL) and returns the MessagePack of "result" inside RET_FRAME (caller frees). */
NODISCARD enum status client_ask(galley_client *c, const char *op, const char *args, int limit_ms, void **ret_frame,
                                 const void **ret_result, size_t *ret_n, struct error *err);
