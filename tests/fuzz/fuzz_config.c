/* Configuration: any bytes as a file, and as the value of each kind of key. What was accepted must lie in its bounds. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_file(const uint8_t *data, size_t size)
{
    int fd = memfd_create("config", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct config *c = NULL;
    struct error err = {0};
    if (config_new(&c, &err) != ST_OK)
        abort();
    if (config_read_file(c, path, &err) != ST_OK && (!err.message[0] || strlen(err.message) >= sizeof err.message))
        abort();
    if (c->max_queue_size < 1 || c->max_queue_size > 10000000 || !(c->preview_rate >= 0 && c->preview_rate <= 60))
        abort();
    json_t *j = config_json(c);
    if (json_object_size(j) != CFG_COUNT)
        abort();
    json_decref(j);
    config_free(c);
    close(fd);
}

static void as_values(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"generation_devices", "max_queue_size", "preview_rate", "warm_start", "precision", "models_dir"};
    char *text = malloc(size + 1);
    struct config *c = NULL;
    struct error err;
    if (!text || config_new(&c, &err) != ST_OK)
        abort();
    memcpy(text, data, size);
    text[size] = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        enum status s = config_set(c, keys[i], text, CONFIG_OPTION, &err);
        if (s != ST_OK && s != ST_BAD_CONFIG)
            abort();
    }
    config_free(c);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1 << 16)
        return 0;
    as_file(data, size);
    as_values(data, size);
    return 0;
}
