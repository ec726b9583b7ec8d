/* Child processes by posix_spawn only (a forked child aborts inside nng). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/buf.h"
#include "common/error.h"

struct spawn_args {
    const char *file;            /* path, no PATH search */
    char *const *argv;           /* NULL-terminated */
    char *const *env;            /* NULL-terminated; NULL: this process's */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null for stdin and stdout, inherited for stderr */
    bool new_session;            /* setsid in the child */
    int keep_fds[4];             /* further descriptors the child keeps under the same numbers; end with -1 */
    const char *cwd;             /* NULL: inherited */
};

/* subprocess_spawn starts the child with all signals unblocked and default. PIDFD (caller closes) becomes readable when it ends. */
NODISCARD enum status subprocess_spawn(const struct spawn_args *a, pid_t *ret_pid, int *ret_pidfd, struct error *err);
/* subprocess_output runs a child to its end, at most LIMIT_MS (then killed: TIMEOUT), and collects at most MAX_BYTES of its stdout. */
NODISCARD enum status subprocess_output(const struct spawn_args *a, int64_t limit_ms, size_t max_bytes, struct buf *ret_out, int *ret_exit, struct error *err);
/* subprocess_start_time returns the start time of PID in clock ticks since boot (field 22 of /proc/PID/stat), 0 if it is gone or a zombie. */
uint64_t subprocess_start_time(pid_t pid);
/* subprocess_sibling writes the path of program NAME beside this executable into RET. */
NODISCARD enum status subprocess_sibling(const char *name, char *ret, size_t size, struct error *err);
/* env_with returns a copy of this process's environment with the N given "NAME=value" settings put over it (NAME alone removes).
 * Caller frees with env_free. NULL when out of memory. */
char **env_with(const char *const *settings, size_t n);
void env_free(char **env);
