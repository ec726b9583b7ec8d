/* What there is, asked of a child: a broken driver or a damaged model cannot hurt galleyd. */
#include <stdlib.h>

#include "common/json.h"
#include "common/subprocess.h"
#include "supervisor/supervisor.h"

enum { PROBE_LIMIT_MS = 30000, PROBE_MAX_BYTES = 8 << 20 };

enum status probe_run(const char *models_dir, const char *data, json_t **ret, struct error *err)
{
    char program[PATH_BYTES];
    int code;
    AUTO_BUF out = BUF_INIT;
    TRY(subprocess_sibling("galley-worker", program, sizeof program, err));
    char *argv[] = {program, "--probe", "--models-dir", (char *)models_dir, "--data", (char *)data, NULL};
    struct spawn_args a = {.file = program, .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .new_session = true, .keep_fds = {-1, -1, -1, -1}};
    TRY(subprocess_output(&a, PROBE_LIMIT_MS, PROBE_MAX_BYTES, &out, &code, err));
    if (code != 0)
        return FAIL(err, NO_DEVICE, "'%s --probe' ended with %d: no devices or models could be found; its messages are above", program, code);
    return json_parse(out.data, out.len, PROBE_MAX_BYTES, ret, err);
}
