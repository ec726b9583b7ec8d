#include "client/doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "client/doctor_devices.h"
#include "client/node.h"
#include "common/config.h"
#include "common/json.h"
#include "common/paths.h"
#include "common/subprocess.h"

void finding(json_t *list, const char *check, const char *level, const char *remedy, const char *fmt, ...)
{
    char text[900];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    json_t *f = json_pack("{s:s s:s s:s}", "check", check, "level", level, "text", text);
    if (f && remedy)
        json_object_set_new(f, "remedy", json_string(remedy));
    json_array_append_new(list, f);
}

static void check_programs(json_t *list)
{
    static const char *const names[] = {"galleyd", "galley-worker"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[PATH_BYTES];
        struct error err;
        if (subprocess_sibling(names[i], path, sizeof path, &err) != ST_OK)
            finding(list, "program", "problem", NULL, "%s: %s", names[i], err.message);
        else if (access(path, X_OK) != 0)
            finding(list, "program", "problem", "build or install all three programs into one folder", "'%s': %s", path, strerror(errno));
        else
            finding(list, "program", "ok", NULL, "%s", path);
    }
}

static struct config *check_config(json_t *list, const struct doctor_options *o, const struct paths *p)
{
    struct config *c = NULL;
    struct error err;
    if (config_load(o->config, p->config, &c, &err) != ST_OK) {
        finding(list, "configuration", "problem", "correct it; 'galley config check' tries again, 'galley config example' shows every key",
                "%s", err.message);
        return NULL;
    }
    finding(list, "configuration", "ok", NULL, "%s", c->file ? c->file : "no file: built-in values and environment");
    for (size_t i = 0; i < c->ignored.n; i++)
        finding(list, "configuration", "note", NULL, "%s is a key of InvokeAI's without meaning here", c->ignored.items[i]);
    for (size_t i = 0; i < c->warnings.n; i++)
        finding(list, "configuration", "note", NULL, "%s", c->warnings.items[i]);
    return c;
}

/* check_folder looks at a folder that a node makes at its first start and that must then be its own. */
static void check_folder(json_t *list, const char *check, const char *dir)
{
    struct stat st;
    char remedy[PATH_BYTES + 64];
    if (stat(dir, &st) != 0 && errno == ENOENT) {
        finding(list, check, "note", "nothing to do: the first start of galleyd makes it", "there is no folder '%s' yet", dir);
    } else if (stat(dir, &st) != 0) {
        finding(list, check, "problem", "give this user the right to enter the folders above it, or set GALLEY_HOME",
                "cannot look at '%s': %s", dir, strerror(errno));
    } else if (!S_ISDIR(st.st_mode)) {
        finding(list, check, "problem", "move the file away", "'%s' is not a folder", dir);
    } else if (st.st_uid != geteuid() && geteuid() != 0) {
        snprintf(remedy, sizeof remedy, "chown -R %ld '%s', or run as its owner", (long)geteuid(), dir);
        finding(list, check, "problem", remedy, "'%s' belongs to user %ld, you are user %ld", dir, (long)st.st_uid, (long)geteuid());
    } else if (st.st_mode & 022) {
        snprintf(remedy, sizeof remedy, "chmod go-w '%s'", dir);
        finding(list, check, "problem", remedy, "others may write to '%s' (mode %04o): galleyd refuses it", dir, st.st_mode & 07777);
    } else if (access(dir, R_OK | W_OK | X_OK) != 0) {
        snprintf(remedy, sizeof remedy, "chmod u+rwx '%s'", dir);
        finding(list, check, "problem", remedy, "'%s' cannot be written (mode %04o): %s", dir, st.st_mode & 07777, strerror(errno));
    } else {
        finding(list, check, "ok", NULL, "'%s', mode %04o", dir, st.st_mode & 07777);
    }
}

/* existing writes the nearest folder at or above DIR that exists. */
static void existing(const char *dir, char ret[PATH_BYTES])
{
    snprintf(ret, PATH_BYTES, "%s", dir);
    while (ret[0] && access(ret, F_OK) != 0) {
        char *slash = strrchr(ret, '/');
        if (!slash || slash == ret) {
            strcpy(ret, "/");
            return;
        }
        *slash = 0;
    }
}

static void check_disk(json_t *list, const char *what, const char *dir, double floor_gb)
{
    char place[PATH_BYTES];
    struct statvfs v;
    existing(dir, place);
    if (statvfs(place, &v) != 0) {
        finding(list, "disk", "problem", "check the file system", "cannot ask for the free space of '%s': %s", place, strerror(errno));
        return;
    }
    double free_gb = (double)v.f_bavail * (double)v.f_frsize / (1 << 30);
    if (free_gb < floor_gb)
        finding(list, "disk", "problem", "free some space, lower min_free_disk_gb, or move the folder",
                "%.2f GiB free for %s ('%s'), min_free_disk_gb is %.2f: nothing would be started", free_gb, what, place, floor_gb);
    else
        finding(list, "disk", "ok", NULL, "%.1f GiB free for %s", free_gb, what);
}

static void check_database(json_t *list, const struct paths *p)
{
    char path[PATH_BYTES], head[16] = "";
    if (paths_join(path, sizeof path, p->state, "galley.db", NULL) != ST_OK || access(path, F_OK) != 0)
        return;
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (!f)
        finding(list, "database", "problem", "give it to the user that runs galleyd", "cannot open '%s': %s", path, strerror(errno));
    else if (n && (n != sizeof head || memcmp(head, "SQLite format 3", sizeof head) != 0))
        finding(list, "database", "problem", "move it away: galleyd makes a new, empty queue", "'%s' is no SQLite database", path);
    else
        finding(list, "database", "ok", NULL, "'%s'", path);
    if (f)
        fclose(f);
}

static void check_answers(json_t *list, galley_client *c)
{
    AUTO_JSON *st = NULL;
    struct error err;
    size_t i;
    json_t *w;
    if (node_call(c, "status", NULL, &st, &err) != ST_OK) {
        finding(list, "node", "problem", "look at its log; kill it if it hangs", "a node listens on %s but does not answer: %s",
                galley_url(c), err.message);
        return;
    }
    const json_t *node = json_object_get(st, "node");
    if (json_flag(st, "ready", false))
        finding(list, "node", "ok", NULL, "a node runs on %s: galleyd %s, pid %lld, ready", galley_url(c), json_str(node, "version", "?"),
                json_int(node, "pid", 0));
    else
        finding(list, "node", json_flag(node, "paused", false) ? "note" : "problem", "see the reason; 'galley status' shows more",
                "a node runs on %s but is not ready: %s", galley_url(c), json_str(st, "reason", "no reason given"));
    json_array_foreach (json_object_get(st, "workers"), i, w) {
        const char *reason = json_str(w, "reason", "");
        if (reason[0])
            finding(list, "worker", strcmp(json_str(w, "state", ""), "quarantined") == 0 ? "problem" : "note", NULL, "%s is %s: %s",
                    json_str(w, "device", "?"), json_str(w, "state", "?"), reason);
    }
}

/* check_socket says whether a node is behind the control socket, and if not, what is. The node is asked as a client would: a mere connect
 * and close can disturb a listener. */
static void check_socket(json_t *list, const struct doctor_options *o, const struct paths *p)
{
    char path[PATH_BYTES], url[PATH_BYTES + 32];
    struct stat st;
    struct error err;
    galley_client *c = NULL;
    snprintf(url, sizeof url, "ipc://%s/control", p->run);
    snprintf(path, sizeof path, "%.500s/control", p->run);
    bool there = lstat(path, &st) == 0;
    if (!o->node && there && !S_ISSOCK(st.st_mode)) {
        finding(list, "socket", "problem", "move it away", "'%s' is in the way: it is no socket", path);
        return;
    }
    enum status s = node_connect(o->node ? o->node : url, &c, &err);
    if (s == ST_OK)
        check_answers(list, c);
    else if (s == ST_FORBIDDEN)
        finding(list, "socket", "problem", "run as its owner, or join its group", "%s", err.message);
    else if (s == ST_TIMEOUT)
        finding(list, "socket", "problem", "another program has the socket, or the node hangs: 'ss -xlp' shows who listens; end it",
                "socket in use: %s", err.message);
    else if (o->node)
        finding(list, "socket", "problem", "start galleyd, or give another --node", "%s", err.message);
    else if (there)
        finding(list, "socket", "note", "nothing to do: the next start of galleyd replaces it",
                "stale socket '%s': its node is gone without a goodbye (killed, or a power failure)", path);
    else
        finding(list, "node", "note", "'galleyd' starts one; 'galley render' does without", "no node runs here (no socket '%s')", path);
    galley_close(c);
}

json_t *doctor_examine(const struct doctor_options *o)
{
    json_t *list = json_array();
    struct paths p;
    struct error err;
    check_programs(list);
    if (paths_find(o->system ? PATHS_SYSTEM : PATHS_AUTO, &p, &err) != ST_OK) {
        finding(list, "paths", "problem", "see the message", "%s", err.message);
        return list;
    }
    struct config *c = check_config(list, o, &p);
    const char *outputs = c && c->outputs_dir[0] ? c->outputs_dir : p.outputs;
    double floor_gb = c ? c->min_free_disk_gb : 0;
    check_folder(list, "state folder", p.state);
    check_folder(list, "socket folder", p.run);
    check_folder(list, "outputs", outputs);
    check_disk(list, "the state folder", p.state, floor_gb);
    check_disk(list, "outputs", outputs, floor_gb);
    check_database(list, &p);
    check_socket(list, o, &p);
    doctor_devices(list, c, &p);
    config_free(c);
    return list;
}
