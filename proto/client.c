#include "proto/client_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/paths.h"
#include "proto/limits.h"
#include "proto/mp.h"
#include "proto/wr.h"

int client_fail(const struct error *err, galley_error *ret)
{
    if (ret) {
        snprintf(ret->code, sizeof ret->code, "%s", status_name(err->code));
        snprintf(ret->message, sizeof ret->message, "%s", err->message);
    }
    return -1;
}

/* ---- one request */

static enum status write_request(const char *op, const char *args, struct buf *out, struct error *err)
{
    AUTO_JSON *object = NULL;
    if (args)
        TRY(json_parse(args, strlen(args), LIMIT_REQUEST_BYTES, &object, err));
    if (object && !json_is_object(object))
        return FAIL(err, BAD_ARGUMENT, "the arguments of '%s' are not a JSON object", op);
    struct wr w;
    wr_init(&w, out, WR_MSGPACK);
    wr_map(&w, object ? 3 : 2);
    wr_kint(&w, "v", 1);
    wr_kstr(&w, "op", op);
    if (object)
        wr_kjson(&w, "args", object);
    wr_end(&w);
    return buf_ok(out) ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory for the request '%s'", op);
}

static bool key_is(const char *key, size_t n, const char *name) { return n == strlen(name) && !memcmp(key, name, n); }

/* read_error fills ERR from the node's error map. */
static enum status read_error(struct mp *c, struct error *err)
{
    char code[32] = "internal", message[768] = "the node gave no reason";
    uint32_t n = mp_map(c);
    for (uint32_t i = 0; i < n && mp_ok(c); i++) {
        size_t key_len, len;
        const char *key = mp_str(c, &key_len);
        char *to = key_is(key, key_len, "code") ? code : key_is(key, key_len, "message") ? message : NULL;
        if (!to) {
            mp_skip(c);
            continue;
        }
        const char *text = mp_str(c, &len);
        snprintf(to, to == code ? sizeof code : sizeof message, "%.*s", (int)(len < 767 ? len : 767), text);
    }
    return error_set(err, status_from_name(code), __FILE__, __LINE__, "%s", message);
}

/* read_reply finds the result in FRAME; a refusal becomes its status and message. */
static enum status read_reply(const void *frame, size_t frame_n, const void **ret_result, size_t *ret_n, struct error *err)
{
    struct mp c = mp_open(frame, frame_n), failure = {0};
    bool ok = false;
    const void *result = NULL;
    size_t result_n = 0;
    uint32_t n = mp_map(&c);
    for (uint32_t i = 0; i < n && mp_ok(&c); i++) {
        size_t key_len;
        const char *key = mp_str(&c, &key_len);
        const uint8_t *start = c.at;
        if (key_is(key, key_len, "ok")) {
            ok = mp_bool(&c);
            continue;
        }
        mp_skip(&c);
        if (key_is(key, key_len, "result")) {
            result = start;
            result_n = (size_t)(c.at - start);
        } else if (key_is(key, key_len, "error")) {
            failure = mp_open(start, (size_t)(c.at - start));
        }
    }
    mp_done(&c);
    if (mp_check(&c, frame, err) != ST_OK || (ok && !result) || (!ok && !failure.at))
        return FAIL(err, PROTOCOL, "the node's reply of %zu bytes is not a reply", frame_n);
    if (!ok)
        return read_error(&failure, err);
    *ret_result = result;
    *ret_n = result_n;
    return ST_OK;
}

enum status client_ask(galley_client *c, const char *op, const char *args, int limit_ms, void **ret_frame, const void **ret_result,
                       size_t *ret_n, struct error *err)
{
    AUTO_BUF request = BUF_INIT;
    void *frame;
    size_t n;
    TRY(write_request(op, args, &request, err));
    TRY(sp_req_call(c->req, request.data, request.len, limit_ms, &frame, &n, err));
    enum status s = read_reply(frame, n, ret_result, ret_n, err);
    if (s == ST_OK)
        *ret_frame = frame;
    else
        free(frame);
    return s;
}

/* ---- connecting */

/* open_url connects to URL and makes sure with a first call that somebody serves the connection: a listener that is being healed (see sp.h)
 * takes connections that it then drops, and only a call that changes nothing may be sent again. */
static enum status open_url(galley_client *c, const char *url, int limit_ms, struct error *err)
{
    int64_t end = clock_real_ms() + limit_ms;
    snprintf(c->url, sizeof c->url, "%s", url);
    for (;;) {
        int64_t left = end - clock_real_ms();
        TRY(sp_req_dial(url, left > 0 ? (int)left : 0, &c->req, err));
        void *frame;
        const void *result;
        size_t n;
        left = end - clock_real_ms();
        enum status s = client_ask(c, "hello", NULL, left > 0 ? (int)left : 0, &frame, &result, &n, err);
        if (s == ST_OK) {
            free(frame);
            return ST_OK;
        }
        sp_req_close(c->req);
        c->req = NULL;
        if (s != ST_UNREACHABLE || clock_real_ms() >= end)
            return s;
    }
}

/* control_url writes the URL of the control socket of a kind of node. */
static enum status control_url(enum paths_kind kind, char ret[160], struct error *err)
{
    struct paths p;
    char path[PATH_BYTES];
    TRY(paths_find(kind, &p, err));
    TRY(paths_join(path, sizeof path, p.run, "control", err));
    snprintf(ret, 160, "ipc://%.150s", path);
    return ST_OK;
}

/* find_node tries the user's node, then the system's; GALLEY_HOME alone decides when it is set. */
static enum status find_node(galley_client *c, int limit_ms, struct error *err)
{
    const char *home = getenv("GALLEY_HOME");
    char url[160];
    if (home && home[0]) {
        TRY(control_url(PATHS_AUTO, url, err));
        return open_url(c, url, limit_ms, err);
    }
    TRY(control_url(PATHS_USER, url, err));
    enum status s = open_url(c, url, limit_ms, err);
    char system_url[160];
    struct error second;
    if (s != ST_UNREACHABLE || control_url(PATHS_SYSTEM, system_url, &second) != ST_OK)
        return s;
    enum status t = open_url(c, system_url, limit_ms, &second);
    if (t == ST_UNREACHABLE)
        return FAIL(err, UNREACHABLE, "no node listens at %s or %s: start galleyd, or set GALLEY_HOME to the node's folder", url,
                    system_url);
    if (t != ST_OK)
        *err = second;
    return t;
}

int galley_connect(const char *url, int limit_ms, galley_client **ret, galley_error *err)
{
    struct error e = {.code = ST_OUT_OF_MEMORY, .message = "out of memory"};
    galley_client *c = calloc(1, sizeof *c);
    enum status s = ST_OUT_OF_MEMORY;
    if (c && url && strlen(url) >= sizeof c->url)
        s = FAIL(&e, BAD_ARGUMENT, "the URL has %zu bytes, the limit is %zu", strlen(url), sizeof c->url - 1);
    else if (c)
        s = url ? open_url(c, url, limit_ms, &e) : find_node(c, limit_ms, &e);
    if (s != ST_OK) {
        free(c);
        return client_fail(&e, err);
    }
    *ret = c;
    return 0;
}

void galley_close(galley_client *c)
{
    if (!c)
        return;
    sp_req_close(c->req);
    free(c);
}

const char *galley_url(const galley_client *c) { return c->url; }

int galley_call(galley_client *c, const char *op, const char *args, int limit_ms, char **ret_result, galley_error *err)
{
    struct error e;
    void *frame;
    const void *result;
    size_t n;
    if (client_ask(c, op, args, limit_ms, &frame, &result, &n, &e) != ST_OK)
        return client_fail(&e, err);
    AUTO_BUF text = BUF_INIT;
    struct wr w;
    wr_init(&w, &text, WR_JSON);
    wr_mp(&w, result, n);
    free(frame);
    char *taken = buf_ok(&text) ? buf_take(&text, &n) : NULL;
    if (!taken) {
        FAIL(&e, OUT_OF_MEMORY, "out of memory for the result of '%s'", op);
        return client_fail(&e, err);
    }
    *ret_result = taken;
    return 0;
}

/* copy_picture copies the member "bytes" of a result. */
static enum status copy_picture(const void *result, size_t result_n, void **ret_bytes, size_t *ret_n, struct error *err)
{
    struct mp c = mp_open(result, result_n);
    uint32_t members = mp_map(&c);
    for (uint32_t i = 0; i < members && mp_ok(&c); i++) {
        size_t key_len, n;
        const char *key = mp_str(&c, &key_len);
        if (!key_is(key, key_len, "bytes") || mp_peek(&c) != MP_BIN) {
            mp_skip(&c);
            continue;
        }
        const void *bytes = mp_bin(&c, &n);
        void *copy = mp_ok(&c) ? malloc(n + 1) : NULL;
        if (!copy)
            return FAIL(err, OUT_OF_MEMORY, "out of memory for a picture of %zu bytes", n);
        memcpy(copy, bytes, n);
        *ret_bytes = copy;
        *ret_n = n;
        return ST_OK;
    }
    return FAIL(err, PROTOCOL, "the node's reply holds no picture");
}

int galley_image(galley_client *c, const char *image_name, int limit_ms, void **ret_bytes, size_t *ret_n, galley_error *err)
{
    struct error e;
    AUTO_JSON *args = json_pack("{s:s}", "image_name", image_name);
    char *text = args ? json_text(args) : NULL;
    if (!text) {
        FAIL(&e, BAD_ARGUMENT, "the picture's name is not valid UTF-8");
        return client_fail(&e, err);
    }
    void *frame;
    const void *result;
    size_t n;
    enum status s = client_ask(c, "image_get", text, limit_ms, &frame, &result, &n, &e);
    free(text);
    if (s == ST_OK) {
        s = copy_picture(result, n, ret_bytes, ret_n, &e);
        free(frame);
    }
    return s == ST_OK ? 0 : client_fail(&e, err);
}

void galley_free(void *p) { free(p); }
