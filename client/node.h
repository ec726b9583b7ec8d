/* The node at the other end: calls over libgalley with this program's errors, and what they mean for the exit code. */
#pragma once
#include "client/command.h"
#include "common/error.h"
#include "proto/client.h"
#include <jansson.h>

static inline void node_cleanup(galley_client **c) { galley_close(*c); }
#define AUTO_NODE __attribute__((cleanup(node_cleanup))) galley_client

/* error_from copies what libgalley says into ERR and returns its status. */
enum status error_from(const galley_error *from, struct error *err);
/* node_connect opens the node at URL (a path is taken as ipc), NULL: the first there is. UNREACHABLE, TIMEOUT, FORBIDDEN. */
NODISCARD enum status node_connect(const char *url, galley_client **ret, struct error *err);
/* node_call sends OP with ARGS (taken, NULL: none). Caller decrefs *RET. */
NODISCARD enum status node_call(galley_client *c, const char *op, json_t *args, json_t **ret, struct error *err);
/* node_call_within is node_call with a limit of its own, where somebody at a terminal waits. */
NODISCARD enum status node_call_within(galley_client *c, int limit_ms, const char *op, json_t *args, json_t **ret, struct error *err);
/* node_ask is connect, one call, close. */
NODISCARD enum status node_ask(const struct invocation *in, const char *op, json_t *args, json_t **ret, struct error *err);

/* exit_code_of returns the exit code that CODE means. */
int exit_code_of(enum status code);
/* report prints ERR on stderr and returns its exit code. */
int report(const struct error *err);
/* print_json writes J (taken) to stdout, indented, and returns EXIT_DONE, or EXIT_FAILED without memory. */
int print_json(json_t *j);
