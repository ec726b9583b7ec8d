#include "supervisor/devices.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"
#include "common/json.h"

/* The processors of the probe's cpu:0, cpu:1, ... in order. */
struct machine {
    int cores[SLOT_CORES], n_cores;
    const json_t *devices;
    int n_gpus, n_usable;
    const char *no_gpu;         /* the probe's reason for there being none, or empty */
    bool driver_loaded;         /* the reason may pass */
};

static bool is_gpu(const json_t *device)
{
    return strcmp(json_str(device, "kind", ""), "cuda") == 0;
}

static bool usable(const json_t *device)
{
    return is_gpu(device) && !json_object_get(device, "unusable");
}

static struct machine machine_of(const json_t *probe)
{
    struct machine m = {.devices = json_object_get(probe, "devices"), .no_gpu = json_str(probe, "cuda", ""),
                        .driver_loaded = json_flag(probe, "driver_loaded", false)};
    size_t i;
    json_t *d;
    json_array_foreach(m.devices, i, d) {
        m.n_gpus += is_gpu(d);
        m.n_usable += usable(d);
        if (strcmp(json_str(d, "kind", ""), "cpu") == 0 && m.n_cores < SLOT_CORES)
            m.cores[m.n_cores++] = (int)json_integer_value(json_array_get(json_object_get(d, "cores"), 0));
    }
    return m;
}

/* valid_names lists what generation_devices may hold on this machine. */
static void valid_names(const struct machine *m, struct buf *out)
{
    buf_puts(out, "auto, cpu");
    size_t i;
    json_t *d;
    if (m->n_usable > 1 && m->n_usable == m->n_gpus)
        buf_printf(out, ", cuda:0 to cuda:%d (or their UUIDs)", m->n_gpus - 1);
    else
        json_array_foreach(m->devices, i, d)
            if (usable(d))
                buf_printf(out, ", %s (or its UUID)", json_str(d, "device", ""));
    if (m->n_cores == 1)
        buf_puts(out, ", cpu:0");
    else if (m->n_cores > 1)
        buf_printf(out, ", cpu:0 to cpu:%d, cpu:A-B", m->n_cores - 1);
}

static enum status refuse(const struct machine *m, const char *name, const char *why, struct error *err)
{
    AUTO_BUF names = BUF_INIT;
    valid_names(m, &names);
    return FAIL(err, NO_DEVICE, "generation_devices: '%s' %s; valid here: %s", name, why, buf_ok(&names) ? names.data : "cpu");
}

/* range reads "N" or "A-B"; false if TEXT is neither. */
static bool range(const char *text, long *ret_first, long *ret_last)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    *ret_first = *ret_last = strtol(text, &end, 10);
    if (*end == '-' && isdigit((unsigned char)end[1]))
        *ret_last = strtol(end + 1, &end, 10);
    return *end == 0 && *ret_first <= *ret_last;
}

static enum status cpu_device(const struct machine *m, const char *name, struct device *d, struct error *err)
{
    long first, last;
    if (!range(name + 4, &first, &last))
        return refuse(m, name, "is malformed", err);
    if (last >= m->n_cores)
        return refuse(m, name, "is not there: the process may use fewer processors", err);
    for (long c = first; c <= last; c++)
        d->cores[d->n_cores++] = m->cores[c];
    return ST_OK;
}

/* no_gpu refuses a name of a GPU. */
static enum status no_gpu(const struct machine *m, const char *name, struct error *err)
{
    char why[400];
    if (m->n_gpus)
        return refuse(m, name, "is not there", err);
    if (m->driver_loaded && m->no_gpu[0])
        return FAIL(err, DEVICE_LOST, "generation_devices: '%s' is not there now, though the NVIDIA driver is loaded: %.300s: see 'nvidia-smi', then start again", name, m->no_gpu);
    snprintf(why, sizeof why, "is not there: %.300s", m->no_gpu[0] ? m->no_gpu : "this build has no CUDA module, or no GPU is visible");
    return refuse(m, name, why, err);
}

/* fits tells whether NAME means GPU: "cuda" the first one that can be used (BEFORE tells how many there were), "cuda:N", a UUID or the beginning of one. */
static bool fits(const json_t *gpu, int before, const char *name)
{
    if (strcmp(name, "cuda") == 0)
        return before == 0 && usable(gpu);
    if (strncmp(name, "cuda:", 5) == 0)
        return strcmp(json_str(gpu, "device", ""), name) == 0;
    return strncasecmp(json_str(gpu, "uuid", ""), name, strlen(name)) == 0;
}

static bool names_gpu(const char *name)
{
    bool uuid = (strncasecmp(name, "GPU-", 4) == 0 || strncasecmp(name, "MIG-", 4) == 0) && name[4];
    return uuid || (strncmp(name, "cuda", 4) == 0 && (name[4] == 0 || name[4] == ':'));
}

static enum status gpu_device(const struct machine *m, const char *name, struct device *d, struct error *err)
{
    size_t i;
    json_t *p;
    const json_t *found = NULL;
    int before = 0;
    json_array_foreach(m->devices, i, p) {
        bool it_is = is_gpu(p) && fits(p, before, name);
        before += usable(p);
        if (!it_is)
            continue;
        if (found)
            return refuse(m, name, "is the beginning of more than one UUID", err);
        found = p;
    }
    if (!found)
        return no_gpu(m, name, err);
    if (!usable(found)) {
        char why[200];
        snprintf(why, sizeof why, "(%.60s) cannot be used: %.80s", json_str(found, "name", "?"), json_str(found, "unusable", ""));
        return refuse(m, name, why, err);
    }
    snprintf(d->name, sizeof d->name, "%s", json_str(found, "device", ""));
    snprintf(d->kind, sizeof d->kind, "cuda");
    snprintf(d->uuid, sizeof d->uuid, "%s", json_str(found, "uuid", ""));
    snprintf(d->model, sizeof d->model, "%s", json_str(found, "name", ""));
    d->memory_bytes = json_int(found, "memory_bytes", 0);
    return ST_OK;
}

static enum status one(const struct machine *m, const char *name, struct device *d, struct error *err)
{
    const json_t *cpu = json_array_get(m->devices, 0);
    *d = (struct device){.kind = "cpu"};
    if (strlen(name) >= sizeof d->name)
        return refuse(m, name, "is malformed", err);
    strcpy(d->name, name);
    snprintf(d->model, sizeof d->model, "%s", json_str(cpu, "name", "CPU"));
    d->memory_bytes = json_int(cpu, "memory_bytes", 0);
    if (strcmp(name, "cpu") == 0)
        return ST_OK;    /* its cores are what the others leave */
    if (strncmp(name, "cpu:", 4) == 0)
        return cpu_device(m, name, d, err);
    if (names_gpu(name))
        return gpu_device(m, name, d, err);
    if (strcmp(name, "mps") == 0)
        return refuse(m, name, "is not there: galley has no Metal backend", err);
    return refuse(m, name, "is no device name", err);
}

static bool listed(const struct device *list, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            return true;
    return false;
}

/* plain_cpu_cores gives "cpu" every processor that no other entry names. */
static enum status plain_cpu_cores(const struct machine *m, struct device *list, int n, struct error *err)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(list[i].name, "cpu") != 0)
            continue;
        for (int c = 0; c < m->n_cores; c++) {
            bool taken = false;
            for (int k = 0; k < n; k++)
                for (int j = 0; k != i && j < list[k].n_cores; j++)
                    taken |= list[k].cores[j] == m->cores[c];
            if (!taken)
                list[i].cores[list[i].n_cores++] = m->cores[c];
        }
        if (!list[i].n_cores)
            return refuse(m, "cpu", "has no processor left: the other entries name them all", err);
    }
    return ST_OK;
}

/* automatic expands "auto" and the empty list: every GPU for the former, the first device for the latter; the CPU when there is no GPU. */
static void automatic(const struct machine *m, bool all, struct strlist *names)
{
    size_t i;
    json_t *d;
    json_array_foreach(m->devices, i, d)
        if (usable(d) && (all || !names->n))
            strlist_add(names, json_str(d, "device", ""));
    if (!names->n)
        strlist_add(names, "cpu");
}

enum status devices_resolve(const struct strlist *wanted, const json_t *probe, struct device ret[SLOT_MAX], int *ret_n, struct error *err)
{
    struct machine m = machine_of(probe);
    struct strlist names = {0};
    bool is_auto = wanted->n == 1 && strcmp(wanted->items[0], "auto") == 0;
    if (is_auto || wanted->n == 0)
        automatic(&m, is_auto, &names);
    for (size_t i = 0; !is_auto && i < wanted->n; i++)
        strlist_add(&names, wanted->items[i]);
    int n = 0;
    enum status s = ST_OK;
    for (size_t i = 0; i < names.n && s == ST_OK; i++) {
        struct device d;
        s = one(&m, names.items[i], &d, err);
        if (s != ST_OK || listed(ret, n, d.name))
            continue;
        if (n == SLOT_MAX)
            s = FAIL(err, BAD_CONFIG, "generation_devices: more than %d entries", (int)SLOT_MAX);
        else
            ret[n++] = d;
    }
    strlist_free(&names);
    TRY(s);
    TRY(plain_cpu_cores(&m, ret, n, err));
    *ret_n = n;
    return ST_OK;
}
