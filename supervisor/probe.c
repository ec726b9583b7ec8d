/* What there is, asked of a child: a broken driver or a damaged model cannot hurt galleyd. */
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
#include "common/subprocess.h"
#include "supervisor/supervisor.h"

enum { PROBE_LIMIT_MS = 45000, PLAIN_LIMIT_MS = 30000, PROBE_MAX_BYTES = 8 << 20 };

static enum status probe(const char *models_dir, const char *data, bool gpus, json_t **ret, struct error *err)
{
    char program[PATH_BYTES];
    int code;
    AUTO_BUF out = BUF_INIT;
    TRY(subprocess_sibling("galley-worker", program, sizeof program, err));
    char *argv[] = {program, "--probe", "--models-dir", (char *)models_dir, "--data", (char *)data, gpus ? NULL : "--no-gpus", NULL};
    struct spawn_args a = {.file = program, .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .new_session = true, .keep_fds = {-1, -1, -1, -1}};
    TRY(subprocess_output(&a, gpus ? PROBE_LIMIT_MS : PLAIN_LIMIT_MS, PROBE_MAX_BYTES, &out, &code, err));
    if (code != 0)
        return FAIL(err, NO_DEVICE, "'%s --probe' ended with %d: no devices or models could be found; its messages are above", program, code);
    return json_parse(out.data, out.len, PROBE_MAX_BYTES, ret, err);
}

/* A driver that hangs or crashes takes the GPUs away, not the node: without them the search is done once more. */
enum status probe_run(const char *models_dir, const char *data, json_t **ret, struct error *err)
{
    if (probe(models_dir, data, true, ret, err) == ST_OK)
        return ST_OK;
    char note[sizeof err->message + 80];
    snprintf(note, sizeof note, "the search for GPUs failed, none is used: %s", err->message);
    TRY(probe(models_dir, data, false, ret, err));
    json_object_set_new(*ret, "cuda", json_string(note));
    json_array_append_new(json_object_get(*ret, "notes"), json_string(note));
    return ST_OK;
}
