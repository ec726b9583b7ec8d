#include "common/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

enum { FIRST_FREE_FD = 3, KILLED_MS = 3000 };

/* plan_fd has the child get SOURCE as TARGET. A source below 3 could be overwritten by an earlier step, so it is moved first;
 * RET_MOVED is the copy to close after the spawn. */
static int plan_fd(posix_spawn_file_actions_t *actions, int source, int target, int *ret_moved)
{
    *ret_moved = -1;
    if (source < FIRST_FREE_FD && source != target) {
        source = *ret_moved = fcntl(source, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        if (source < 0)
            return errno;
    }
    return posix_spawn_file_actions_adddup2(actions, source, target);
}

static int plan_files(posix_spawn_file_actions_t *actions, const struct spawn_args *a, int moved[3])
{
    const int sources[3] = {a->stdin_fd, a->stdout_fd, a->stderr_fd};
    int e = 0;
    for (int target = 0; target < 3 && !e; target++) {
        if (sources[target] >= 0)
            e = plan_fd(actions, sources[target], target, &moved[target]);
        else if (target < STDERR_FILENO)
            e = posix_spawn_file_actions_addopen(actions, target, "/dev/null", target == STDIN_FILENO ? O_RDONLY : O_WRONLY, 0);
    }
    const int n_keep = (int)(sizeof a->keep_fds / sizeof *a->keep_fds);
    /* A dup2 onto itself clears close-on-exec in the child. Descriptors 0 to 2 cannot be meant: they are given by name. */
    for (int i = 0; i < n_keep && a->keep_fds[i] >= FIRST_FREE_FD && !e; i++)
        e = posix_spawn_file_actions_adddup2(actions, a->keep_fds[i], a->keep_fds[i]);
    if (!e && a->cwd)
        e = posix_spawn_file_actions_addchdir_np(actions, a->cwd);
    return e;
}

static int plan_attributes(posix_spawnattr_t *attributes, const struct spawn_args *a)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int e = posix_spawnattr_setsigmask(attributes, &none);
    if (!e)
        e = posix_spawnattr_setsigdefault(attributes, &all);
    if (!e)
        e = posix_spawnattr_setflags(attributes, (short)(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | (a->new_session ? POSIX_SPAWN_SETSID : 0)));
    return e;
}

static int spawn(const struct spawn_args *a, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    int e = posix_spawn_file_actions_init(&actions);
    if (e)
        return e;
    posix_spawnattr_t attributes;
    e = posix_spawnattr_init(&attributes);
    if (e) {
        posix_spawn_file_actions_destroy(&actions);
        return e;
    }
    int moved[3] = {-1, -1, -1};
    e = plan_files(&actions, a, moved);
    if (!e)
        e = plan_attributes(&attributes, a);
    if (!e)
        e = posix_spawn(ret_pid, a->file, &actions, &attributes, a->argv, a->env ? a->env : environ);
    for (int i = 0; i < 3; i++)
        if (moved[i] >= 0)
            close(moved[i]);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return e;
}

/* reap waits for a child that is dead or about to be. */
static int reap(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

enum status subprocess_spawn(const struct spawn_args *a, pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
    pid_t pid;
    errno = spawn(a, &pid);
    if (errno)
        return FAIL_ERRNO(err, "cannot start '%s'", a->file);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);     /* close-on-exec by itself; the child is not reaped yet, so the pid is its own */
    if (pidfd < 0) {
        enum status s = FAIL_ERRNO(err, "cannot open a pidfd for '%s' (Linux 5.3 or newer is needed)", a->file);
        kill(pid, SIGKILL);
        reap(pid);
        return s;
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return ST_OK;
}

struct collector {
    const struct spawn_args *args;
    int pipe_fd, pidfd;
    struct buf *out;
    size_t max_bytes, got;
};

/* read_some moves what the pipe holds into the buffer. RET_END is set at the end of the output. */
static enum status read_some(struct collector *c, bool *ret_end, struct error *err)
{
    for (;;) {
        char chunk[4096];
        ssize_t n = read(c->pipe_fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return ST_OK;
        if (n < 0)
            return FAIL_ERRNO(err, "cannot read the output of '%s'", c->args->file);
        if (n == 0) {
            *ret_end = true;
            return ST_OK;
        }
        c->got += (size_t)n;
        if (c->got > c->max_bytes)
            return FAIL(err, TOO_LARGE, "'%s' wrote more than %zu bytes", c->args->file, c->max_bytes);
        buf_put(c->out, chunk, (size_t)n);
        if (!buf_ok(c->out))
            return FAIL(err, OUT_OF_MEMORY, "out of memory for the output of '%s'", c->args->file);
    }
}

/* collect reads until the child ends (a grandchild may hold the pipe for ever, so its end does not count) or the limit. */
static enum status collect(struct collector *c, int64_t limit_ms, struct error *err)
{
    int64_t end_ms = clock_real_ms() + limit_ms;
    bool output_ended = false;
    for (;;) {
        int64_t left_ms = end_ms - clock_real_ms();
        if (left_ms <= 0)
            return FAIL(err, TIMEOUT, "'%s' did not end within %lld ms and was killed", c->args->file, (long long)limit_ms);
        struct pollfd fds[2] = {{.fd = c->pidfd, .events = POLLIN}, {.fd = output_ended ? -1 : c->pipe_fd, .events = POLLIN}};
        int n = poll(fds, 2, left_ms > 1000000 ? 1000000 : (int)left_ms);
        if (n < 0 && errno != EINTR)
            return FAIL_ERRNO(err, "cannot wait for '%s'", c->args->file);
        if (n <= 0)
            continue;
        bool ended = fds[0].revents != 0;
        if (!output_ended)
            TRY(read_some(c, &output_ended, err));
        if (ended)
            return ST_OK;
    }
}

enum status subprocess_output(const struct spawn_args *a, int64_t limit_ms, size_t max_bytes, struct buf *ret_out, int *ret_exit, struct error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return FAIL_ERRNO(err, "cannot make a pipe for '%s'", a->file);
    struct spawn_args args = *a;
    args.stdout_fd = ends[1];
    args.new_session = true;     /* so that the kill reaches what the child started */
    pid_t pid;
    struct collector c = {.args = &args, .pipe_fd = ends[0], .out = ret_out, .max_bytes = max_bytes};
    enum status s = subprocess_spawn(&args, &pid, &c.pidfd, err);
    close(ends[1]);
    if (s == ST_OK) {
        fcntl(c.pipe_fd, F_SETFL, O_NONBLOCK);
        s = collect(&c, limit_ms, err);
        kill(-pid, SIGKILL);     /* before the reaping: until then the group is surely the child's */
        bool gone = s == ST_OK || poll(&(struct pollfd){.fd = c.pidfd, .events = POLLIN}, 1, KILLED_MS) > 0;
        int status = gone ? reap(pid) : 0;    /* one that hangs in the kernel is left: it must not take its parent along */
        if (s == ST_OK)
            *ret_exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        close(c.pidfd);
    }
    close(c.pipe_fd);
    return s;
}

uint64_t subprocess_start_time(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    const char *p = strrchr(text, ')');     /* the name in field 2 may hold anything */
    if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X')
        return 0;
    p += 2;
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (!p)
            return 0;
        p++;
    }
    return strtoull(p, NULL, 10);
}

enum status subprocess_sibling(const char *name, char *ret, size_t size, struct error *err)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return FAIL_ERRNO(err, "cannot read /proc/self/exe");
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (!slash)
        return FAIL(err, NOT_FOUND, "the program's own path '%s' has no folder", self);
    *slash = 0;
    if ((size_t)(slash - self) + 1 + strlen(name) >= size)
        return FAIL(err, TOO_LARGE, "the path '%s/%s' is longer than %zu bytes", self, name, size - 1);
    snprintf(ret, size, "%s/%s", self, name);
    return ST_OK;
}

/* same_name tells whether two "NAME=value" (or "NAME") settings speak of one variable. */
static bool same_name(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return n == strcspn(b, "=") && memcmp(a, b, n) == 0;
}

char **env_with(const char *const *settings, size_t n)
{
    size_t have = 0;
    while (environ && environ[have])
        have++;
    char **env = calloc(have + n + 1, sizeof *env);
    if (!env)
        return NULL;
    size_t at = 0;
    for (size_t i = 0; i < have + n; i++) {
        const char *s = i < have ? environ[i] : settings[i - have];
        bool replaced = i >= have && !strchr(s, '=');
        for (size_t later = i < have ? 0 : i - have + 1; later < n && !replaced; later++)
            replaced = same_name(s, settings[later]);
        if (replaced)
            continue;
        env[at] = strdup(s);
        if (!env[at++]) {
            env_free(env);
            return NULL;
        }
    }
    return env;
}

void env_free(char **env)
{
    for (char **e = env; e && *e; e++)
        free(*e);
    free(env);
}
