/* Frames: any bytes as a worker link frame of either direction and as one MessagePack value. What decodes must encode to the same meaning. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/link.h"
#include "proto/mp.h"
#include "proto/wr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A decoded message, encoded, decodes again, and from there the bytes stay the same. */
static void as_link(const uint8_t *data, size_t size, bool from_worker)
{
    struct link_message first, again;
    struct error err = {0};
    enum status s = link_decode(data, size, from_worker, &first, &err);
    if (s != ST_OK) {
        if (s != ST_PROTOCOL || !err.message[0])
            abort();
        return;
    }
    AUTO_BUF once = BUF_INIT, twice = BUF_INIT;
    link_encode(&first, &once);
    if (!buf_ok(&once) || link_decode(once.data, once.len, from_worker, &again, &err) != ST_OK || again.kind != first.kind)
        abort();
    link_encode(&again, &twice);
    if (once.len != twice.len || memcmp(once.data, twice.data, once.len) != 0)
        abort();
}

static void as_value(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct mp c = mp_open(data, size);
    mp_skip(&c);
    mp_done(&c);
    bool skipped = mp_ok(&c);
    enum status s = mp_check(&c, data, &err);
    if (skipped != (s == ST_OK))
        abort();
    json_t *j = NULL;
    c = mp_open(data, size);
    if (mp_json(&c, &j, &err) != ST_OK)
        return;
    /* Whole values that are JSON survive both forms. */
    for (enum wr_form form = WR_MSGPACK; form <= WR_JSON; form++) {
        AUTO_BUF out = BUF_INIT;
        struct wr w;
        wr_init(&w, &out, form);
        wr_json(&w, j);
        if (!buf_ok(&out))
            continue;     /* too deep for the writer */
        json_t *back = NULL;
        struct mp again = mp_open(out.data, out.len);
        if (form == WR_MSGPACK && (mp_json(&again, &back, &err) != ST_OK || !json_equal(j, back)))
            abort();
        json_decref(back);
    }
    json_decref(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    as_link(data, size, true);
    as_link(data, size, false);
    as_value(data, size);
    return 0;
}
