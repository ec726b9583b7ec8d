/* galleyd: the supervisor's command line. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log.h"
#include "supervisor/supervisor.h"

extern char **environ;

static const char usage[] =
    "usage: galleyd [--config FILE] [--system] [--set KEY=VALUE]...\n"
    "       galleyd --example-config | --version | --help\n"
    "Runs a galley node in the foreground. TERM drains, a second TERM or INT stops now, HUP reads the configuration again.\n"
    "Configuration: built-in < file < GALLEY_<KEY> environment < --set. See man galleyd.\n";

struct options {
    const char *config_file, *home;
    enum paths_kind kind;
    int private_fd, ready_fd;
    const char *sets[64];
    int n_sets;
};

static int bad(const char *what, const char *arg)
{
    LOGE(what, "argument=\"%s\"", arg);
    fputs(usage, stderr);
    return 2;
}

/* read_options returns -1 to go on, or the exit code. */
static int read_options(int argc, char **argv, struct options *o)
{
    *o = (struct options){.private_fd = -1, .ready_fd = -1};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(a, "--version") == 0)
            return puts("galleyd " GALLEY_VERSION) == EOF;
        if (strcmp(a, "--help") == 0)
            return fputs(usage, stdout) == EOF;
        if (strcmp(a, "--example-config") == 0) {
            AUTO_BUF b = BUF_INIT;
            config_example(&b);
            return !buf_ok(&b) || fputs(b.data, stdout) == EOF;
        }
        if (strcmp(a, "--system") == 0) {
            o->kind = PATHS_SYSTEM;
            continue;
        }
        if (!value)
            return bad("unknown option, or its value is missing", a);
        i++;
        if (strcmp(a, "--config") == 0)
            o->config_file = value;
        else if (strcmp(a, "--home") == 0)
            o->home = value;
        else if (strcmp(a, "--private") == 0)
            o->private_fd = atoi(value);
        else if (strcmp(a, "--ready-fd") == 0)
            o->ready_fd = atoi(value);
        else if (strcmp(a, "--set") == 0 && strchr(value, '=') && o->n_sets < 64)
            o->sets[o->n_sets++] = value;
        else
            return bad("unknown option", a);
    }
    return -1;
}

static enum status apply_sets(struct config *c, const struct options *o, struct error *err)
{
    for (int i = 0; i < o->n_sets; i++) {
        const char *eq = strchr(o->sets[i], '=');
        char key[64];
        snprintf(key, sizeof key, "%.*s", (int)(eq - o->sets[i]), o->sets[i]);
        TRY(config_set(c, key, eq + 1, CONFIG_OPTION, err));
    }
    return ST_OK;
}

/* private_paths puts a private node's state, sockets and outputs into its own folder; configuration and models stay where they are. */
static enum status private_paths(struct supervisor *sup, const char *home, struct error *err)
{
    TRY(paths_join(sup->paths.state, PATH_BYTES, home, "state", err));
    TRY(paths_join(sup->paths.run, PATH_BYTES, home, "run", err));
    TRY(paths_join(sup->paths.outputs, PATH_BYTES, home, "outputs", err));
    snprintf(sup->private_dir, sizeof sup->private_dir, "%s", home);
    return ST_OK;
}

static enum status configure(struct supervisor *sup, const struct options *o, struct error *err)
{
    TRY(paths_find(o->kind, &sup->paths, err));
    TRY(config_load(o->config_file, sup->paths.config, &sup->config, err));
    TRY(apply_sets(sup->config, o, err));
    snprintf(sup->config_file, sizeof sup->config_file, "%s", o->config_file ? o->config_file : "");
    snprintf(sup->models_dir, sizeof sup->models_dir, "%s", sup->config->models_dir);
    if (sup->config->outputs_dir[0])
        snprintf(sup->paths.outputs, sizeof sup->paths.outputs, "%s", sup->config->outputs_dir);
    if (o->home)
        TRY(private_paths(sup, o->home, err));
    if (strcmp(sup->config->session_queue_mode, "round_robin") == 0 && sup->config->origin[CFG_session_queue_mode] != CONFIG_BUILT_IN)
        LOGW("session_queue_mode round_robin acts between users only, and this node has one", NULL);
    return ST_OK;
}

/* raise_descriptors takes what the system grants: connections and links cost a descriptor each. */
static void raise_descriptors(void)
{
    enum { WANTED = 65536 };
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= WANTED)
        return;
    r.rlim_cur = r.rlim_max < WANTED ? r.rlim_max : WANTED;
    (void)setrlimit(RLIMIT_NOFILE, &r);
}

static void tell_ignored(const struct config *c)
{
    for (size_t i = 0; i < c->ignored.n; i++)
        LOGI("key of InvokeAI's without meaning here", "key=%s", c->ignored.items[i]);
    for (size_t i = 0; i < c->warnings.n; i++)
        LOGW("unknown variable", "name=\"%s\"", c->warnings.items[i]);
}

int main(int argc, char **argv)
{
    static struct supervisor sup;
    struct options o;
    struct error err;
    enum log_level level = LOG_INFO;
    signal(SIGPIPE, SIG_IGN);
    log_setup("galleyd", level, false);
    int code = read_options(argc, argv, &o);
    if (code >= 0)
        return code;
    sup.private_fd = o.private_fd;
    sup.ready_fd = o.ready_fd;
    for (int i = 0; i < 2; i++)    /* they say that this process lives: no child may hold them */
        (void)fcntl(i ? o.ready_fd : o.private_fd, F_SETFD, FD_CLOEXEC);
    if (configure(&sup, &o, &err) != ST_OK) {
        LOGE("bad configuration", "error=\"%s\"", err.message);
        return 2;
    }
    log_level_from_name(sup.config->log_level, &level);
    log_setup("galleyd", level, strcmp(sup.config->log_format, "json") == 0);
    tell_ignored(sup.config);
    raise_descriptors();
    code = supervisor_run(&sup, &err);
    if (code != 0)
        LOGE("galleyd ends", "error=\"%s\"", err.message);
    if (sup.private_dir[0])
        tree_remove(sup.private_dir);
    fflush(NULL);
    _exit(code);
}
