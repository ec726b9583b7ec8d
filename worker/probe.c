#include "worker/probe.h"

#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "worker/backend/cuda/module.h"
#include "worker/backend/load.h"
#include "worker/catalog.h"

static void cpu_name(char ret[128])
{
    strcpy(ret, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (colon) {
            snprintf(ret, 128, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
            break;
        }
    }
    if (f)
        fclose(f);
}

/* cpu_devices lists cpu:0 .. cpu:N-1, one per processor of the affinity mask: {device, kind, name, memory_bytes, cores: [processor]}. */
static json_t *cpu_devices(void)
{
    cpu_set_t set;
    char name[128], device[16];
    int n = 0;
    json_t *list = json_array();
    int64_t memory = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE);
    cpu_name(name);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return list;
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &set)) {
            snprintf(device, sizeof device, "cpu:%d", n++);
            json_array_append_new(list, json_pack("{s:s s:s s:s s:I s:[i]}", "device", device, "kind", "cpu", "name", name, "memory_bytes",
                                                  (json_int_t)memory, "cores", c));
        }
    return list;
}

/* cuda_devices adds the GPUs to OUT's devices, or says under "cuda" and among the notes why there is none. */
static void cuda_devices(json_t *out)
{
    const struct cuda_module *module;
    struct error err;
    json_t *gpus = NULL;
    enum status st = backend_module(&module, &err);
    json_object_set_new(out, "cuda_module", json_boolean(st == ST_OK));
    if (st == ST_OK)
        st = module->probe(&gpus, &err);
    if (st == ST_OK) {
        json_array_extend(json_object_get(out, "devices"), gpus);
        json_decref(gpus);
        return;
    }
    char note[sizeof err.message + 64];
    snprintf(note, sizeof note, "CUDA devices cannot be used: %s", err.message);
    json_object_set_new(out, "cuda", json_string(err.message));
    json_array_append_new(json_object_get(out, "notes"), json_string(note));
}

enum status probe_print(const struct worker_options *o, struct error *err)
{
    json_t *out;
    TRY(catalog_list(o->models_dir, o->data, &out, err));
    json_object_set_new(out, "version", json_string(GALLEY_VERSION));
    json_object_set_new(out, "devices", cpu_devices());
    json_object_set_new(out, "driver_loaded", json_boolean(access("/proc/driver/nvidia/version", F_OK) == 0));
    if (!o->no_gpus)
        cuda_devices(out);
    char *text = json_text(out);
    json_decref(out);
    if (!text || puts(text) == EOF || fflush(stdout) != 0) {
        free(text);
        return FAIL(err, IO, "cannot write the probe's answer to stdout");
    }
    free(text);
    return ST_OK;
}
