/* Control requests: any bytes as a frame to the dispatcher, the socket and the commands behind it replaced. Each frame must get exactly one
 * reply, well formed, in the form it was asked in; what reaches a command must have passed the checks of proto/commands.def. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/loop.h"
#include "proto/mp.h"
#include "supervisor/commands.h"
#include "supervisor/supervisor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static sp_wake *on_frame;
static void *on_frame_arg;
static const uint8_t *waiting;
static size_t waiting_bytes;
static int replies;
static struct buf reply;

enum status sp_rep_listen(const char *url, int contexts, size_t max_bytes, int max_connections, sp_wake *wake, void *arg, struct sp_rep **ret, struct error *err)
{
    (void)url, (void)contexts, (void)max_bytes, (void)max_connections, (void)err;
    on_frame = wake;
    on_frame_arg = arg;
    *ret = NULL;
    return ST_OK;
}

bool sp_rep_take(struct sp_rep *r, struct sp_request *ret)
{
    (void)r;
    if (!waiting)
        return false;
    void *bytes = malloc(waiting_bytes ? waiting_bytes : 1);
    if (!bytes)
        abort();
    memcpy(bytes, waiting, waiting_bytes);
    *ret = (struct sp_request){7, bytes, waiting_bytes};
    waiting = NULL;
    return true;
}

void sp_rep_reply(struct sp_rep *r, uint64_t token, const void *bytes, size_t n)
{
    (void)r;
    if (token != 7)
        abort();
    buf_put(&reply, bytes, n);
    replies++;
    loop_stop(loop);
}

void sp_rep_counts(struct sp_rep *r, struct sp_counts *ret)
{
    (void)r;
    *ret = (struct sp_counts){0};
}

/* answer stands for every command: it repeats its arguments, which must still be a map. */
static void answer(struct request *r)
{
    if (r->args && !json_is_object(r->args))
        abort();
    wr_json(request_result(r), r->args);
    request_send(r);
}

#define COMMAND(name, access, help) void command_##name(struct request *r) { answer(r); }
#define ARGUMENT(name, type, required, min, max, available, help)
#define END_COMMAND(name)
#define LATER(name, help)
#include "proto/commands.def"
#undef COMMAND
#undef ARGUMENT
#undef END_COMMAND
#undef LATER

static void start(struct supervisor *sup)
{
    struct error err = {0};
    if (loop_new(&loop, &err) != ST_OK)
        abort();
    sup->loop = loop;
    if (control_new(sup, &sup->control, &err) != ST_OK)
        abort();
}

static void check_reply(bool asked_in_json)
{
    struct error err = {0};
    json_t *j = NULL;
    if (asked_in_json) {
        if (json_parse(reply.data, reply.len, 256 << 20, &j, &err) != ST_OK)
            abort();
    } else {
        struct mp c = mp_open(reply.data, reply.len);
        if (mp_json(&c, &j, &err) != ST_OK)
            abort();
        mp_done(&c);
        if (!mp_ok(&c))
            abort();
    }
    bool ok = json_flag(j, "ok", false);
    if (!json_object_get(j, ok ? "result" : "error"))
        abort();
    if (!ok && !*json_str(json_object_get(j, "error"), "message", ""))
        abort();
    json_decref(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct supervisor sup;
    struct error err = {0};
    if (!loop)
        start(&sup);
    waiting = data ? data : (const uint8_t *)"";
    waiting_bytes = size;
    replies = 0;
    buf_reset(&reply);
    on_frame(on_frame_arg);
    if (loop_run(loop, &err) != ST_OK || replies != 1 || !buf_ok(&reply))
        abort();
    check_reply(reply.len && reply.data[0] == '{');
    bool json_asked = size && data[0] == '{', msgpack_asked = size && (data[0] & 0xf0) == 0x80;
    if ((json_asked && reply.data[0] != '{') || (msgpack_asked && reply.data[0] == '{'))
        abort();
    return 0;
}
