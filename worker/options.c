#include "worker/options.h"

#include <stdlib.h>
#include <string.h>

static enum status number(const char *name, const char *text, int64_t *ret, struct error *err)
{
    char *end;
    long long v = strtoll(text, &end, 10);
    if (!*text || *end || v < 0)
        return FAIL(err, BAD_CONFIG, "%s takes a number of 0 or more, not '%s'", name, text);
    *ret = v;
    return ST_OK;
}

static enum status cores(const char *text, struct worker_options *o, struct error *err)
{
    enum { MAX = sizeof o->cores / sizeof o->cores[0] };
    for (const char *at = text; *at;) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at || v < 0 || v > 4095 || (*end && *end != ',') || o->n_cores == MAX)
            return FAIL(err, BAD_CONFIG, "--cores takes processor numbers with commas between them, at most %d, not '%s'", (int)MAX, text);
        o->cores[o->n_cores++] = (int)v;
        at = *end ? end + 1 : end;
    }
    return ST_OK;
}

static bool *flag_of(const char *name, struct worker_options *o)
{
    const struct { const char *name; bool *flag; } flags[] = {
        {"--probe", &o->probe}, {"--no-gpus", &o->no_gpus}, {"--warm-start", &o->warm_start}, {"--only-gpu", &o->only_gpu},
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (strcmp(flags[i].name, name) == 0)
            return flags[i].flag;
    return NULL;
}

enum status worker_options_read(int argc, char **argv, struct worker_options *ret, struct error *err)
{
    struct worker_options o = {.device = "cpu", .link = "", .outputs = "", .models_dir = "", .data = "", .precision = "auto",
                               .log_level = "info", .log_format = "text", .heartbeat_ms = 250};
    int64_t launch = 0;
    const struct { const char *name; const char **text; int64_t *number; } table[] = {
        {"--device", &o.device, NULL}, {"--link", &o.link, NULL}, {"--outputs", &o.outputs, NULL}, {"--models-dir", &o.models_dir, NULL},
        {"--data", &o.data, NULL}, {"--precision", &o.precision, NULL}, {"--log-level", &o.log_level, NULL}, {"--log-format", &o.log_format, NULL},
        {"--launch", NULL, &launch}, {"--parent", NULL, &o.parent}, {"--heartbeat-ms", NULL, &o.heartbeat_ms}, {"--cache-bytes", NULL, &o.cache_bytes},
    };
    for (int i = 1; i < argc; i++) {
        bool *flag = flag_of(argv[i], &o);
        if (flag) {
            *flag = true;
            continue;
        }
        if (i + 1 == argc)
            return FAIL(err, BAD_CONFIG, "option '%s' is unknown or lacks its value; galley-worker is started by galleyd, see man galley-worker", argv[i]);
        if (strcmp(argv[i], "--cores") == 0) {
            TRY(cores(argv[++i], &o, err));
            continue;
        }
        size_t k = 0, n = sizeof table / sizeof table[0];
        while (k < n && strcmp(table[k].name, argv[i]) != 0)
            k++;
        if (k == n)
            return FAIL(err, BAD_CONFIG, "unknown option '%s'; galley-worker is started by galleyd, see man galley-worker", argv[i]);
        i++;
        if (table[k].text)
            *table[k].text = argv[i];
        else
            TRY(number(table[k].name, argv[i], table[k].number, err));
    }
    o.launch = (uint64_t)launch;
    *ret = o;
    return ST_OK;
}
