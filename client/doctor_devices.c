#include "client/doctor_devices.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/json.h"
#include "common/subprocess.h"

enum { PROBE_LIMIT_MS = 30000, PROBE_BYTES = 4 << 20 };

static enum status probe(const char *models_dir, const char *data, bool gpus, json_t **ret, struct error *err)
{
    char program[PATH_BYTES];
    AUTO_BUF out = BUF_INIT;
    int code;
    TRY(subprocess_sibling("galley-worker", program, sizeof program, err));
    char *argv[] = {program, "--probe", "--models-dir", (char *)models_dir, "--data", (char *)data, gpus ? NULL : "--no-gpus", NULL};
    struct spawn_args args = {
        .file = program, .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .keep_fds = {-1, -1, -1, -1}};
    TRY(subprocess_output(&args, PROBE_LIMIT_MS, PROBE_BYTES, &out, &code, err));
    if (code != 0)
        return FAIL(err, IO, "'%s --probe' ended with %d", program, code);
    return json_parse(out.data ? out.data : "", out.len, PROBE_BYTES, ret, err);
}

static bool starts_with(const char *text, const char *start) { return strncmp(text, start, strlen(start)) == 0; }

/* there_is is true if one of the DEVICES is meant by NAME: itself, or "cuda" for any of its kind. */
static bool there_is(const json_t *devices, const char *name)
{
    size_t i;
    json_t *d;
    json_array_foreach (devices, i, d)
        if (strcmp(json_str(d, "device", ""), name) == 0 || strcmp(json_str(d, "kind", ""), name) == 0 ||
            (name[0] && strncasecmp(json_str(d, "uuid", ""), name, strlen(name)) == 0))
            return true;
    return false;
}

static void check_devices(json_t *list, const json_t *devices, const struct config *c)
{
    size_t i;
    json_t *d;
    AUTO_BUF names = BUF_INIT;
    json_array_foreach (devices, i, d) {
        const char *uuid = json_str(d, "uuid", "");
        const char *able = json_str(d, "compute_capability", ""), *unusable = json_str(d, "unusable", "");
        finding(list, "device", unusable[0] ? "note" : "ok", NULL, "%s: %s, %.1f GiB%s%s%s%s%s%s", json_str(d, "device", "?"), json_str(d, "name", "?"),
                json_num(d, "memory_bytes", 0) / (1 << 30), uuid[0] ? ", " : "", uuid, able[0] ? ", compute capability " : "", able,
                unusable[0] ? "; not used: " : "", unusable);
        buf_printf(&names, "%s%s", names.len ? ", " : "", json_str(d, "device", "?"));
    }
    if (json_array_size(devices) == 0)
        finding(list, "device", "problem", "look at the notes below", "no device was found");
    for (i = 0; c && i < c->generation_devices.n; i++) {
        const char *name = c->generation_devices.items[i];
        bool range = starts_with(name, "cpu:") && strchr(name, '-'); /* judged by galleyd */
        if (strcmp(name, "auto") != 0 && !range && !there_is(devices, name))
            finding(list, "device", "problem", "correct generation_devices in the configuration",
                    "generation_devices names '%.64s', which is not there; there are: %s", name, names.data ? names.data : "none");
    }
}

static bool mentions(const json_t *notes, const char *word)
{
    size_t i;
    json_t *note;
    json_array_foreach (notes, i, note)
        if (strcasestr(json_string_value(note) ? json_string_value(note) : "", word))
            return true;
    return false;
}

/* check_cuda tells about the CUDA module and the driver. Neither that there is no module nor that there is no GPU is a problem: a CPU
 * renders too. */
static void check_cuda(json_t *list, const json_t *found)
{
    static const char driver[] = "/proc/driver/nvidia/version";
    const json_t *devices = json_object_get(found, "devices"), *notes = json_object_get(found, "notes");
    bool loaded = access(driver, F_OK) == 0;
    if (json_flag(found, "cuda_module", false))
        finding(list, "cuda module", "ok", NULL, "it is in this build and loads");
    if (there_is(devices, "cuda"))
        return;
    if (!mentions(notes, "cuda"))
        finding(list, "cuda", "note", NULL, "no CUDA device can be used");
    if (loaded)
        finding(list, "driver", "ok", NULL, "an NVIDIA driver is loaded (%s)", driver);
    else
        finding(list, "driver", "note", "for GPUs: install NVIDIA's driver and start again", "no NVIDIA driver is loaded (no %s)", driver);
}

static void check_models(json_t *list, const json_t *models, const struct config *c)
{
    size_t i;
    json_t *m;
    json_array_foreach (models, i, m)
        finding(list, "model", "ok", NULL, "%s (%s %s, %.0f MB) in '%s'", json_str(m, "name", "?"), json_str(m, "base", "?"),
                json_str(m, "type", "?"), json_num(m, "bytes", 0) / 1e6, json_str(m, "path", "?"));
    if (json_array_size(models) == 0)
        finding(list, "model", "problem", "set models_dir to a folder with models, or install the shipped one", "no model was found");
    if (c && c->models_dir[0] && access(c->models_dir, R_OK | X_OK) != 0)
        finding(list, "model", "problem", "correct models_dir in the configuration, or make the folder", "models_dir '%s' cannot be read",
                c->models_dir);
}

void doctor_devices(json_t *list, const struct config *c, const struct paths *p)
{
    AUTO_JSON *found = NULL;
    struct error err;
    char data[PATH_BYTES];
    size_t i;
    json_t *note;
    if (paths_data(data, &err) != ST_OK)
        finding(list, "model", "note", "set GALLEY_DATA to the folder that holds models/emoji", "%s", err.message);
    const char *models_dir = c ? c->models_dir : "";
    if (probe(models_dir, p->data, true, &found, &err) != ST_OK) {
        finding(list, "device", "problem", "run 'galley-worker --probe' to see more", "the search for devices failed: %s", err.message);
        if (probe(models_dir, p->data, false, &found, &err) != ST_OK)    /* as galleyd does: without the GPUs */
            return;
    }
    const json_t *devices = json_object_get(found, "devices"), *notes = json_object_get(found, "notes");
    check_devices(list, devices, c);
    json_array_foreach (notes, i, note) {
        const char *text = json_string_value(note) ? json_string_value(note) : "";
        finding(list, strcasestr(text, "cuda") ? "cuda" : "note", "note", NULL, "%s", text);
    }
    check_cuda(list, found);
    check_models(list, json_object_get(found, "models"), c);
}
