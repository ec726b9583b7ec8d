#include "client/private_node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/command.h"
#include "client/node.h"
#include "client/terminal.h"
#include "common/clock.h"
#include "common/paths.h"
#include "common/subprocess.h"

#define PREFIX "galley-private-"
enum {
    START_LIMIT_MS = 60000,
    STOP_LIMIT_MS = 5000,
    RETRY_MS = 5,
    YOUNG_S = 60,    /* a folder without a lock is left alone so long: its owner may be about to make one */
    BASE_BYTES = 48, /* longest base folder under which the sockets' paths fit */
    LOG_TAIL = 700,
};

struct private_node {
    char dir[128];
    int lock, life, log, pidfd; /* life: write end of the pipe */
    pid_t pid;
};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    (void)!remove(path);
    return 0;
}

static void remove_tree(const char *dir) { nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT); }

static void sweep_one(int base_fd, const char *base, const char *name)
{
    struct stat st;
    char path[PATH_MAX];
    if (fstatat(base_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return;
    snprintf(path, sizeof path, "%s/%s/lock", base, name);
    int lock = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool gone = lock >= 0 ? flock(lock, LOCK_EX | LOCK_NB) == 0 : errno == ENOENT && st.st_mtime + YOUNG_S < time(NULL);
    if (gone) {
        snprintf(path, sizeof path, "%s/%s", base, name);
        remove_tree(path);
    }
    if (lock >= 0)
        close(lock);
}

void private_folders_sweep(const char *base)
{
    DIR *d = opendir(base);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0)
            sweep_one(dirfd(d), base, e->d_name);
    if (d)
        closedir(d);
}

/* base_folder returns XDG_RUNTIME_DIR if it is this user's and short enough for sockets, else /tmp. */
static const char *base_folder(void)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    if (runtime && runtime[0] == '/' && strlen(runtime) <= BASE_BYTES && stat(runtime, &st) == 0 && S_ISDIR(st.st_mode) &&
        st.st_uid == geteuid() && access(runtime, W_OK | X_OK) == 0)
        return runtime;
    return "/tmp";
}

static enum status make_folder(struct private_node *p, struct error *err)
{
    char path[160], made[160];
    snprintf(p->dir, sizeof p->dir, "%s/" PREFIX "XXXXXX", base_folder());
    if (!mkdtemp(p->dir)) {
        enum status s = FAIL_ERRNO(err, "cannot make the private node's folder '%s'", p->dir);
        p->dir[0] = 0;
        return s;
    }
    /* Locked before it has its name, so that no sweep ever finds it free. */
    snprintf(path, sizeof path, "%s/lock", p->dir);
    snprintf(made, sizeof made, "%s/lock.new", p->dir);
    p->lock = open(made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (p->lock < 0 || flock(p->lock, LOCK_EX | LOCK_NB) != 0 || rename(made, path) != 0)
        return FAIL_ERRNO(err, "cannot lock '%s'", path);
    snprintf(path, sizeof path, "%s/galleyd.log", p->dir);
    p->log = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return p->log < 0 ? FAIL_ERRNO(err, "cannot write '%s'", path) : ST_OK;
}

/* last_words writes what galleyd said last, without the dressing of a log line, into RET. */
static void last_words(const struct private_node *p, char ret[LOG_TAIL + 1])
{
    static const char field[] = "error=\"";
    off_t size = lseek(p->log, 0, SEEK_END), from = size > LOG_TAIL ? size - LOG_TAIL : 0;
    ssize_t n = pread(p->log, ret, LOG_TAIL, from);
    n = n > 0 ? n : 0;
    ret[n] = 0;
    while (n > 0 && ret[n - 1] == '\n')
        ret[--n] = 0;
    char *line = strrchr(ret, '\n'), *words = strstr(line ? line : ret, field);
    if (words) {
        words += strlen(field);
        char *end = strrchr(words, '"');
        if (end)
            *end = 0;
    } else {
        words = line ? line + 1 : ret;
    }
    memmove(ret, words, strlen(words) + 1);
}

/* fail_with_log is the error of a galleyd that ended at its start. */
static enum status fail_with_log(const struct private_node *p, int exit_code, struct error *err)
{
    char words[LOG_TAIL + 1];
    last_words(p, words);
    if (exit_code == EXIT_USAGE)
        return FAIL(err, BAD_CONFIG, "the private node did not start: %.600s",
                    words[0] ? words : "its configuration is refused: try 'galley config check'");
    return FAIL(err, IO, "the private node ended at its start (%d): %.600s; 'galley doctor' looks for causes", exit_code,
                words[0] ? words : "it said nothing");
}

enum status private_node_death(const struct private_node *p, struct error *err)
{
    char words[LOG_TAIL + 1];
    last_words(p, words);
    return FAIL(err, UNREACHABLE, "the private node is gone in the middle of the job; its last words: %.500s", words[0] ? words : "none");
}

static int reap(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* spawn starts galleyd. It inherits the read end of the life pipe, the write end of RET_READY's pipe, and the lock, which is so held as
 * long as either of the two processes lives. */
static enum status spawn(struct private_node *p, const char *config, int *ret_ready, struct error *err)
{
    char program[PATH_BYTES], life_text[16], ready_text[16];
    int life[2], ready[2];
    TRY(subprocess_sibling("galleyd", program, sizeof program, err));
    if (pipe2(life, O_CLOEXEC) != 0)
        return FAIL_ERRNO(err, "cannot make a pipe");
    if (pipe2(ready, O_CLOEXEC) != 0) {
        close(life[0]), close(life[1]);
        return FAIL_ERRNO(err, "cannot make a pipe");
    }
    snprintf(life_text, sizeof life_text, "%d", life[0]);
    snprintf(ready_text, sizeof ready_text, "%d", ready[1]);
    /* The --set: what a configuration says for a service must not stop a picture on the way, and nothing here outlives a power failure. */
    char *argv[] = {program,
                    "--private",
                    life_text,
                    "--home",
                    p->dir,
                    "--ready-fd",
                    ready_text,
                    "--set",
                    "start_paused=false",
                    "--set",
                    "min_free_disk_gb=0",
                    "--set",
                    "db_synchronous=OFF",
                    "--set",
                    "warm_start=true",
                    config ? "--config" : NULL,
                    (char *)config,
                    NULL};
    struct spawn_args args = {.file = program,
                              .argv = argv,
                              .stdin_fd = -1,
                              .stdout_fd = p->log,
                              .stderr_fd = p->log,
                              .keep_fds = {life[0], ready[1], p->lock, -1}};
    enum status s = subprocess_spawn(&args, &p->pid, &p->pidfd, err);
    close(life[0]), close(ready[1]);
    if (s != ST_OK) {
        close(life[1]), close(ready[0]);
        return s;
    }
    p->life = life[1];
    *ret_ready = ready[0];
    return ST_OK;
}

/* wait_ready returns when galleyd has said that it listens, or has closed the pipe without a word. */
static enum status wait_ready(struct private_node *p, int ready, int64_t end_ms, struct error *err)
{
    struct pollfd fds[] = {{.fd = ready, .events = POLLIN}, {.fd = p->pidfd, .events = POLLIN}};
    for (;;) {
        int64_t left = end_ms - clock_ms();
        if (interrupted())
            return FAIL(err, CANCELED, "interrupted");
        if (left <= 0)
            return FAIL(err, TIMEOUT, "the private node did not get ready within %d s: 'galley doctor' looks for causes",
                        START_LIMIT_MS / 1000);
        int n = poll(fds, COUNT_OF(fds), (int)left);
        if (n > 0 && fds[1].revents) {
            int code = reap(p->pid);
            p->pid = 0;
            return fail_with_log(p, code, err);
        }
        if (n > 0 && fds[0].revents)
            return ST_OK;
    }
}

/* connect_soon tries until the socket is there: galleyd may be a moment from listening when it has closed the pipe without a word. */
static enum status connect_soon(struct private_node *p, int64_t end_ms, galley_client **ret, struct error *err)
{
    char url[192];
    snprintf(url, sizeof url, "ipc://%s/run/control", p->dir);
    for (;;) {
        struct pollfd dead = {.fd = p->pidfd, .events = POLLIN};
        enum status s = node_connect(url, ret, err);
        if (s != ST_UNREACHABLE || clock_ms() >= end_ms)
            return s;
        if (interrupted())
            return FAIL(err, CANCELED, "interrupted");
        if (poll(&dead, 1, RETRY_MS) > 0) {
            int code = reap(p->pid);
            p->pid = 0;
            return fail_with_log(p, code, err);
        }
    }
}

enum status private_node_start(const char *config, struct private_node **ret, galley_client **ret_client, struct error *err)
{
    int ready = -1;
    struct private_node *p = calloc(1, sizeof *p);
    if (!p)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for a private node");
    p->lock = p->life = p->log = p->pidfd = -1;
    private_folders_sweep("/tmp");
    if (strcmp(base_folder(), "/tmp") != 0)
        private_folders_sweep(base_folder());
    int64_t end_ms = clock_ms() + START_LIMIT_MS;
    enum status s = make_folder(p, err);
    if (s == ST_OK)
        s = spawn(p, config, &ready, err);
    if (s == ST_OK)
        s = wait_ready(p, ready, end_ms, err);
    if (ready >= 0)
        close(ready);
    if (s == ST_OK)
        s = connect_soon(p, end_ms, ret_client, err);
    if (s != ST_OK) {
        private_node_stop(p);
        return s;
    }
    *ret = p;
    return ST_OK;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void private_node_stop(struct private_node *p)
{
    if (!p)
        return;
    close_fd(p->life);
    if (p->pid > 0) {
        struct pollfd dead = {.fd = p->pidfd, .events = POLLIN};
        int64_t end_ms = clock_ms() + STOP_LIMIT_MS;
        int n = 0;
        for (int64_t left = STOP_LIMIT_MS; left > 0 && n <= 0; left = end_ms - clock_ms())
            n = poll(&dead, 1, (int)left);
        if (n <= 0)
            kill(p->pid, SIGKILL); /* its workers see their link break and end */
        reap(p->pid);
    }
    if (p->dir[0])
        remove_tree(p->dir);
    close_fd(p->pidfd);
    close_fd(p->log);
    close_fd(p->lock);
    free(p);
}
