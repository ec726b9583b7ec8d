#include "common/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_table.h"

enum { FILE_BYTES = 1 << 20 };

/* Environment names with the prefix that are not configuration. */
static const char *const own_names[] = {"GALLEY_HOME", "GALLEY_DATA", "GALLEY_CPU_ISA"};

void config_free(struct config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < CFG_COUNT; i++)
        config_member_free(c, &config_rows[i]);
    free(c->file);
    strlist_free(&c->ignored);
    strlist_free(&c->warnings);
    free(c);
}

enum status config_new(struct config **ret, struct error *err)
{
    struct config *c = calloc(1, sizeof *c);
    bool ok = c != NULL;
    for (size_t i = 0; ok && i < CFG_COUNT; i++)
        ok = config_member_default(c, &config_rows[i]);
    if (!ok) {
        config_free(c);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the configuration");
    }
    *ret = c;
    return ST_OK;
}

static enum status config_copy(const struct config *from, struct config **ret, struct error *err)
{
    struct config *c = NULL;
    TRY(config_new(&c, err));
    bool ok = strlist_copy(&from->ignored, &c->ignored) && strlist_copy(&from->warnings, &c->warnings);
    ok = ok && (!from->file || (c->file = strdup(from->file)));
    for (size_t i = 0; ok && i < CFG_COUNT; i++)
        ok = config_member_copy(c, from, &config_rows[i]);
    if (!ok) {
        config_free(c);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the configuration");
    }
    memcpy(c->origin, from->origin, sizeof c->origin);
    *ret = c;
    return ST_OK;
}

/* read_bounded reads a regular file of at most FILE_BYTES. Caller frees. */
static enum status read_bounded(const char *path, char **ret, size_t *ret_len, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot open the configuration '%s'", path);
    struct stat st;
    AUTO_BUF text = BUF_INIT;
    enum status s = ST_OK;
    if (fstat(fd, &st) != 0)
        s = FAIL_ERRNO(err, "cannot look at '%s'", path);
    else if (!S_ISREG(st.st_mode))
        s = FAIL(err, BAD_CONFIG, "'%s' is not a regular file", path);
    while (s == ST_OK) {
        char *at = buf_reserve(&text, 4096);
        ssize_t n = at ? read(fd, at, 4096) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            s = FAIL_ERRNO(err, "cannot read '%s'", path);
        if (n <= 0)
            break;
        text.len += (size_t)n;
        if (text.len > FILE_BYTES)
            s = FAIL(err, BAD_CONFIG, "'%s' is larger than the limit of %d bytes", path, FILE_BYTES);
    }
    close(fd);
    if (s != ST_OK)
        return s;
    *ret = buf_take(&text, ret_len);
    return *ret ? ST_OK : FAIL(err, OUT_OF_MEMORY, "out of memory reading '%s'", path);
}

enum status config_read_file(struct config *c, const char *path, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    struct config *next = NULL;
    TRY(read_bounded(path, &text, &len, err));
    enum status s = config_copy(c, &next, err);
    if (s == ST_OK)
        s = config_yaml_file(next, path, text, len, err);
    char *file = s == ST_OK ? strdup(path) : NULL;
    if (s == ST_OK && !file)
        s = FAIL(err, OUT_OF_MEMORY, "out of memory for the configuration");
    if (s == ST_OK) {
        free(next->file);
        next->file = file;
        struct config old = *c;
        *c = *next;
        *next = old;
    }
    config_free(next);
    free(text);
    return s;
}

enum status config_set(struct config *c, const char *key, const char *text, enum config_origin origin, struct error *err)
{
    return config_yaml_value(c, key, text, "option", origin, err);
}

static bool is_own_name(const char *name)
{
    for (size_t i = 0; i < sizeof own_names / sizeof *own_names; i++)
        if (strcmp(own_names[i], name) == 0)
            return true;
    return strncmp(name, "GALLEY_FAULT", strlen("GALLEY_FAULT")) == 0;     /* switches of builds with GALLEY_FAULTS */
}

enum status config_read_env(struct config *c, char *const *env, struct error *err)
{
    static const char prefix[] = "GALLEY_";
    for (; env && *env; env++) {
        const char *equals = strchr(*env, '=');
        char name[96], key[96];
        if (strncmp(*env, prefix, strlen(prefix)) != 0 || !equals || (size_t)(equals - *env) >= sizeof name)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(equals - *env), *env);
        if (is_own_name(name) || !equals[1])     /* set to nothing: not set */
            continue;
        size_t n = 0;
        for (const char *p = name + strlen(prefix); *p; p++)
            key[n++] = (char)tolower((unsigned char)*p);
        key[n] = 0;
        if (config_find_row(key))
            TRY(config_yaml_value(c, key, equals + 1, name, CONFIG_ENVIRONMENT, err));
        else
            strlist_add(&c->warnings, name);
    }
    return ST_OK;
}

enum status config_load(const char *file, const char *default_file, struct config **ret, struct error *err)
{
    struct config *c = NULL;
    TRY(config_new(&c, err));
    enum status s = ST_OK;
    if (file)
        s = config_read_file(c, file, err);
    else if (default_file && (access(default_file, F_OK) == 0 || errno != ENOENT))
        s = config_read_file(c, default_file, err);
    if (s == ST_OK)
        s = config_read_env(c, environ, err);
    if (s != ST_OK) {
        config_free(c);
        return s;
    }
    *ret = c;
    return ST_OK;
}

enum status config_reload(struct config *c, const struct config *fresh, struct strlist *ret_need_restart, struct error *err)
{
    struct config *next = NULL;
    TRY(config_copy(c, &next, err));
    for (size_t i = 0; i < CFG_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        if (c->origin[i] == CONFIG_OPTION)
            continue;    /* the command line stands over file and environment */
        if (row->apply == CONFIG_RELOAD) {
            if (!config_member_copy(next, fresh, row)) {
                config_free(next);
                return FAIL(err, OUT_OF_MEMORY, "out of memory for the configuration");
            }
            next->origin[i] = fresh->origin[i];
        } else if (ret_need_restart && !config_member_equal(c, fresh, row)) {
            strlist_add(ret_need_restart, row->name);
        }
    }
    struct config old = *c;
    *c = *next;
    *next = old;
    config_free(next);
    return ST_OK;
}
