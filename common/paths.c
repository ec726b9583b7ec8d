#include "common/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/subprocess.h"

/* A unix socket's path holds 107 bytes (unix(7)); under run/ the longest is worker/SLOT-LAUNCH. */
enum { SOCKET_PATH_BYTES = 107, SOCKET_NAME_BYTES = 20 };

static const char *absolute_env(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] == '/' ? value : NULL;     /* the XDG specification: a relative path is to be ignored */
}

enum status paths_join(char *ret, size_t size, const char *dir, const char *name, struct error *err)
{
    const char *slash = dir[0] && dir[strlen(dir) - 1] == '/' ? "" : "/";
    if (strlen(dir) + strlen(slash) + strlen(name) >= size)
        return FAIL(err, TOO_LARGE, "the path '%s%s%s' is longer than %zu bytes: use a shorter folder", dir, slash, name, size - 1);
    snprintf(ret, size, "%s%s%s", dir, slash, name);
    return ST_OK;
}

/* join is paths_join for configured places: what is too long there is BAD_CONFIG. */
static enum status join(char ret[PATH_BYTES], const char *dir, const char *name, struct error *err)
{
    enum status s = paths_join(ret, PATH_BYTES, dir, name, err);
    if (s != ST_OK && err)
        err->code = ST_BAD_CONFIG;
    return s == ST_OK ? ST_OK : ST_BAD_CONFIG;
}

static enum status home_of_user(char ret[PATH_BYTES], struct error *err)
{
    const char *home = absolute_env("HOME");
    struct passwd entry, *found = NULL;
    char scratch[4096];
    if (!home && getpwuid_r(geteuid(), &entry, scratch, sizeof scratch, &found) == 0 && found && found->pw_dir && found->pw_dir[0] == '/')
        home = found->pw_dir;
    if (!home)
        return FAIL(err, BAD_CONFIG, "no home folder: HOME is not set and user %ld has none; set HOME or GALLEY_HOME", (long)geteuid());
    if (strlen(home) >= PATH_BYTES)
        return FAIL(err, BAD_CONFIG, "HOME is longer than %d bytes: set GALLEY_HOME to a shorter folder", PATH_BYTES - 1);
    strcpy(ret, home);
    return ST_OK;
}

/* under_xdg writes $VARIABLE/REST, or HOME/FALLBACK/REST. */
static enum status under_xdg(const char *variable, const char *fallback, const char *rest, char ret[PATH_BYTES], struct error *err)
{
    const char *base = absolute_env(variable);
    if (base)
        return join(ret, base, rest, err);
    char home[PATH_BYTES], folder[PATH_BYTES];
    TRY(home_of_user(home, err));
    TRY(join(folder, home, fallback, err));
    return join(ret, folder, rest, err);
}

/* In /tmp anybody may have made the folder first: one that is not ours alone is refused before a socket in it is trusted. */
static enum status check_tmp_folder(const char *dir, struct error *err)
{
    struct stat st;
    if (lstat(dir, &st) != 0)
        return errno == ENOENT ? ST_OK : FAIL_ERRNO(err, "cannot look at '%s'", dir);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return FAIL(err, FORBIDDEN, "'%s' is not a folder of this user with mode 0700: remove it, or set XDG_RUNTIME_DIR or GALLEY_HOME", dir);
    return ST_OK;
}

static enum status find_user(struct paths *p, struct error *err)
{
    TRY(under_xdg("XDG_STATE_HOME", ".local/state", "galley", p->state, err));
    TRY(under_xdg("XDG_CONFIG_HOME", ".config", "galley/galley.yaml", p->config, err));
    TRY(join(p->outputs, p->state, "outputs", err));
    const char *runtime = absolute_env("XDG_RUNTIME_DIR");
    if (runtime)
        return join(p->run, runtime, "galley", err);
    snprintf(p->run, sizeof p->run, "/tmp/galley-%ld", (long)geteuid());
    return check_tmp_folder(p->run, err);
}

/* first_dir writes the first of systemd's colon-separated folders in VARIABLE, or FALLBACK. */
static enum status first_dir(const char *variable, const char *fallback, char ret[PATH_BYTES], struct error *err)
{
    const char *list = absolute_env(variable);
    if (!list)
        list = fallback;
    size_t n = strcspn(list, ":");
    if (n >= PATH_BYTES)
        return FAIL(err, BAD_CONFIG, "%s is longer than %d bytes", variable, PATH_BYTES - 1);
    memcpy(ret, list, n);
    ret[n] = 0;
    return ST_OK;
}

static enum status find_system(struct paths *p, struct error *err)
{
    char config_dir[PATH_BYTES];
    TRY(first_dir("STATE_DIRECTORY", "/var/lib/galley", p->state, err));
    TRY(first_dir("RUNTIME_DIRECTORY", "/run/galley", p->run, err));
    TRY(first_dir("CONFIGURATION_DIRECTORY", "/etc/galley", config_dir, err));
    TRY(join(p->config, config_dir, "galley.yaml", err));
    return join(p->outputs, p->state, "outputs", err);
}

static enum status find_under_home(const char *home, struct paths *p, struct error *err)
{
    char top[PATH_BYTES], cwd[PATH_BYTES];
    if (home[0] == '/') {
        if (strlen(home) >= sizeof top)
            return FAIL(err, BAD_CONFIG, "GALLEY_HOME is longer than %zu bytes", sizeof top - 1);
        strcpy(top, home);
    } else {
        if (!getcwd(cwd, sizeof cwd))
            return FAIL_ERRNO(err, "cannot make GALLEY_HOME='%s' absolute", home);
        TRY(join(top, cwd, home, err));
    }
    TRY(join(p->state, top, "state", err));
    TRY(join(p->run, top, "run", err));
    TRY(join(p->outputs, top, "outputs", err));
    return join(p->config, top, "galley.yaml", err);
}

enum status paths_find(enum paths_kind kind, struct paths *ret, struct error *err)
{
    struct paths p = {0};
    const char *home = getenv("GALLEY_HOME");
    if (kind == PATHS_AUTO && home && home[0])
        TRY(find_under_home(home, &p, err));
    else if (kind == PATHS_SYSTEM || (kind == PATHS_AUTO && absolute_env("STATE_DIRECTORY")))
        TRY(find_system(&p, err));
    else
        TRY(find_user(&p, err));
    size_t socket_bytes = strlen(p.run) + strlen("/worker/") + SOCKET_NAME_BYTES;
    if (socket_bytes > SOCKET_PATH_BYTES)
        return FAIL(err, BAD_CONFIG, "the socket folder '%s' has %zu bytes, at most %zu fit (a socket's path has at most %d): set GALLEY_HOME or XDG_RUNTIME_DIR to a shorter folder",
                    p.run, strlen(p.run), (size_t)SOCKET_PATH_BYTES - SOCKET_NAME_BYTES - strlen("/worker/"), SOCKET_PATH_BYTES);
    if (paths_data(p.data, NULL) != ST_OK)
        p.data[0] = 0;
    *ret = p;
    return ST_OK;
}

static bool holds_models(const char *dir)
{
    char path[PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/models/emoji", dir);
    return access(path, F_OK) == 0;
}

enum status paths_data(char ret[PATH_BYTES], struct error *err)
{
    const char *given = getenv("GALLEY_DATA");
    if (given && given[0]) {
        if (strlen(given) >= PATH_BYTES)
            return FAIL(err, BAD_CONFIG, "GALLEY_DATA is longer than %d bytes", PATH_BYTES - 1);
        if (!holds_models(given))
            return FAIL(err, NOT_FOUND, "GALLEY_DATA='%s' has no models/emoji", given);
        strcpy(ret, given);
        return ST_OK;
    }
    static const char *const places[] = {"../../..", "../share/galley"};     /* from build/PRESET/bin, from PREFIX/bin */
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char path[PATH_BYTES], *real;
        TRY(subprocess_sibling(places[i], path, sizeof path, err));
        if (!holds_models(path) || !(real = realpath(path, NULL)))
            continue;
        bool fits = strlen(real) < PATH_BYTES;
        if (fits)
            strcpy(ret, real);
        free(real);
        if (fits)
            return ST_OK;
    }
    return FAIL(err, NOT_FOUND, "the shipped models are neither in the source tree nor in PREFIX/share/galley of this program: set GALLEY_DATA to the folder that holds models/emoji");
}

enum status paths_make_private(const char *dir, struct error *err)
{
    char path[PATH_BYTES];
    if (!dir[0] || strlen(dir) >= sizeof path)
        return FAIL(err, BAD_CONFIG, "the folder '%.64s' must have 1 to %zu bytes", dir, sizeof path - 1);
    strcpy(path, dir);
    for (char *p = path + 1; ; p++) {
        if (*p != '/' && *p != 0)
            continue;
        bool last = *p == 0;
        *p = 0;
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return FAIL_ERRNO(err, "cannot make the folder '%s'", path);
        if (last)
            break;
        *p = '/';
    }
    struct stat st;
    if (stat(dir, &st) != 0)
        return FAIL_ERRNO(err, "cannot look at '%s'", dir);
    if (!S_ISDIR(st.st_mode))
        return FAIL(err, BAD_CONFIG, "'%s' is not a folder", dir);
    if (st.st_uid != geteuid())
        return FAIL(err, FORBIDDEN, "'%s' belongs to user %ld, not to user %ld: give it to this user or choose another folder", dir, (long)st.st_uid, (long)geteuid());
    if (st.st_mode & 022)
        return FAIL(err, FORBIDDEN, "others may write to '%s' (mode %04o): chmod go-w '%s'", dir, st.st_mode & 07777, dir);
    return ST_OK;
}
