/* The control socket: requests in either form, checked against proto/commands.def, one reply each. */
#pragma once
#include <jansson.h>
#include "common/buf.h"
#include "common/error.h"
#include "proto/sp.h"
#include "proto/wr.h"

struct supervisor;
struct control;

struct request {
    struct supervisor *sup;
    uint64_t token;
    enum wr_form form;
    json_t *body;                   /* the whole request; ARGS is inside */
    const json_t *args;             /* object, checked */
    struct buf reply;
    struct wr w;
};

NODISCARD enum status control_new(struct supervisor *sup, struct control **ret, struct error *err);
void control_counts(struct control *c, struct sp_counts *ret);
/* control_answer sends a finished reply for TOKEN (long polls). */
void control_answer(struct control *c, uint64_t token, const struct buf *reply);

/* A handler answers exactly once, now or later: request_result opens {"ok": true, "result": ...} and returns the writer for the result value;
 * request_send closes, sends and frees R. request_fail answers with an error instead and frees R. */
typedef void command_fn(struct request *r);
struct wr *request_result(struct request *r);
void request_send(struct request *r);
void request_fail(struct request *r, const struct error *err);
/* request_release frees R without an answer: its token lives on in the relay. */
void request_release(struct request *r);

/* The handler of a command of commands.def. */
#define COMMAND(name, access, help) command_fn command_##name;
#define ARGUMENT(name, type, required, min, max, available, help)
#define END_COMMAND(name)
#define LATER(name, help)
#include "proto/commands.def"
#undef COMMAND
#undef ARGUMENT
#undef END_COMMAND
#undef LATER
