#include "tests/unit/unit.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/subprocess.h"

/* sh returns the arguments for `/bin/sh -c SCRIPT` (static storage). */
static struct spawn_args sh(const char *script)
{
    static char *argv[4];
    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = (char *)script;
    return (struct spawn_args){.file = "/bin/sh", .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .keep_fds = {-1}};
}

static int output(const char *script, struct buf *out)
{
    struct spawn_args a = sh(script);
    struct error err = {0};
    int code = -1;
    assert_ok(subprocess_output(&a, 20000, 1 << 20, out, &code, &err), err);
    return code;
}

static void output_and_exit_code(void **state)
{
    (void)state;
    AUTO_BUF out = BUF_INIT;
    assert_int_equal(output("echo one; echo two; exit 3", &out), 3);
    assert_string_equal(out.data, "one\ntwo\n");
    buf_reset(&out);
    assert_int_equal(output("kill -SEGV $$", &out), 128 + SIGSEGV);
    buf_reset(&out);
    assert_int_equal(output("head -c 300000 /dev/zero | tr '\\0' x", &out), 0);
    assert_int_equal(out.len, 300000);
}

static void a_grandchild_on_the_pipe_does_not_delay_the_end(void **state)
{
    (void)state;
    AUTO_BUF out = BUF_INIT;
    int64_t start = clock_real_ms();
    assert_int_equal(output("tail -f /dev/null & echo $!", &out), 0);
    assert_true(clock_real_ms() - start < 10000);
    /* It was in the child's session and ended with it. */
    pid_t grandchild = (pid_t)atol(out.data);
    int64_t end = clock_real_ms() + 10000;
    while (subprocess_start_time(grandchild) && clock_real_ms() < end)
        sched_yield();
    assert_int_equal(subprocess_start_time(grandchild), 0);
}

static void limits_end_the_child(void **state)
{
    (void)state;
    AUTO_BUF out = BUF_INIT;
    struct error err = {0};
    int code = -1;
    struct spawn_args a = sh("trap '' TERM; tail -f /dev/null; tail -f /dev/null");
    assert_int_equal(subprocess_output(&a, 100, 100, &out, &code, &err), ST_TIMEOUT);
    assert_says(err.message, "100 ms");
    a = sh("cat /dev/zero");
    assert_int_equal(subprocess_output(&a, 20000, 5000, &out, &code, &err), ST_TOO_LARGE);
    assert_int_equal(code, -1);
    a.file = "/nonexistent/program";
    assert_int_equal(subprocess_output(&a, 1000, 100, &out, &code, &err), ST_NOT_FOUND);
    assert_says(err.message, "/nonexistent/program");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);     /* no zombie stays */
}

static void only_what_is_meant_is_inherited(void **state)
{
    (void)state;
    AUTO_BUF out = BUF_INIT;
    int kept = open("/dev/null", O_RDONLY | O_CLOEXEC), closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct spawn_args a = sh("ls /proc/self/fd | tr '\\n' ' '; readlink /proc/$$/fd/0");
    a.keep_fds[0] = kept;
    a.keep_fds[1] = -1;
    struct error err = {0};
    int code = -1;
    assert_ok(subprocess_output(&a, 20000, 1000, &out, &code, &err), err);
    char expected[64], unexpected[64];
    snprintf(expected, sizeof expected, " %d ", kept);
    snprintf(unexpected, sizeof unexpected, " %d ", closed);
    assert_says(out.data, expected);
    if (closed != kept + 1)     /* ls itself opens the next free number */
        assert_null(strstr(out.data, unexpected));
    assert_says(out.data, "/dev/null\n");
    assert_true(fcntl(kept, F_GETFD) & FD_CLOEXEC);
    close(kept);
    close(closed);
}

static void signals_are_default_and_unblocked(void **state)
{
    (void)state;
    sigset_t block, before;
    sigfillset(&block);
    sigprocmask(SIG_BLOCK, &block, &before);
    signal(SIGPIPE, SIG_IGN);
    AUTO_BUF out = BUF_INIT;
    output("grep -E '^Sig(Blk|Ign)' /proc/self/status", &out);
    sigprocmask(SIG_SETMASK, &before, NULL);
    signal(SIGPIPE, SIG_DFL);
    unsigned long long blocked = 1, ignored = 1;
    assert_int_equal(sscanf(out.data, "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2);
    const unsigned long long of_the_c_library = 3ull << 31;     /* 32 and 33 cannot be set through it */
    assert_int_equal(blocked, 0);
    assert_int_equal(ignored & ~of_the_c_library, 0);
}

static void pidfd_session_and_start_time(void **state)
{
    (void)state;
    int in[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    struct spawn_args a = sh("read line");
    a.stdin_fd = in[0];
    a.new_session = true;
    pid_t pid = -1;
    int pidfd = -1;
    struct error err = {0};
    assert_ok(subprocess_spawn(&a, &pid, &pidfd, &err), err);
    assert_int_equal(getsid(pid), pid);
    assert_true(fcntl(pidfd, F_GETFD) & FD_CLOEXEC);
    uint64_t born = subprocess_start_time(pid);
    assert_true(born > 0);
    assert_int_equal(subprocess_start_time(pid), born);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_int_equal(write(in[1], "\n", 1), 1);
    assert_int_equal(poll(&p, 1, 20000), 1);
    assert_int_equal(subprocess_start_time(pid), 0);     /* a zombie is gone */
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(subprocess_start_time(pid), 0);
    close(pidfd);
    close(in[0]);
    close(in[1]);
}

static void streams_below_three_are_moved_safely(void **state)
{
    (void)state;
    /* The child's stdout is this process's descriptor 0, and its stdin another pipe: nothing may be overwritten on the way. */
    int data[2], result[2], saved = fcntl(0, F_DUPFD_CLOEXEC, 3);
    assert_int_equal(pipe2(data, O_CLOEXEC), 0);
    assert_int_equal(pipe2(result, O_CLOEXEC), 0);
    dup2(result[1], 0);
    struct spawn_args a = sh("cat");
    a.stdin_fd = data[0];
    a.stdout_fd = 0;
    pid_t pid = -1;
    int pidfd = -1;
    struct error err = {0};
    enum status s = subprocess_spawn(&a, &pid, &pidfd, &err);
    if (saved >= 0)
        dup2(saved, 0);
    else
        close(0);
    assert_ok(s, err);
    assert_int_equal(write(data[1], "hello", 5), 5);
    close(data[1]);
    close(result[1]);
    char text[8] = "";
    assert_int_equal(read(result[0], text, sizeof text), 5);
    assert_string_equal(text, "hello");
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(pidfd);
    close(data[0]);
    close(result[0]);
    if (saved >= 0)
        close(saved);
}

static void the_working_folder_is_set(void **state)
{
    (void)state;
    AUTO_BUF out = BUF_INIT;
    struct spawn_args a = sh("pwd");
    a.cwd = "/usr";
    struct error err = {0};
    int code = -1;
    assert_ok(subprocess_output(&a, 20000, 100, &out, &code, &err), err);
    assert_string_equal(out.data, "/usr\n");
}

static const char *find(char **env, const char *name)
{
    const char *found = NULL;
    for (; *env; env++)
        if (strncmp(*env, name, strlen(name)) == 0 && (*env)[strlen(name)] == '=') {
            assert_null(found);     /* no name twice */
            found = *env + strlen(name) + 1;
        }
    return found;
}

static void environments_are_copied_with_changes(void **state)
{
    (void)state;
    setenv("UNIT_KEEP", "1", 1);
    setenv("UNIT_CHANGE", "old", 1);
    setenv("UNIT_DROP", "x", 1);
    const char *settings[] = {"UNIT_CHANGE=new", "UNIT_DROP", "UNIT_ADD=a=b", "UNIT_TWICE=1", "UNIT_TWICE=2"};
    char **env = env_with(settings, 5);
    assert_non_null(env);
    assert_string_equal(find(env, "UNIT_KEEP"), "1");
    assert_string_equal(find(env, "UNIT_CHANGE"), "new");
    assert_null(find(env, "UNIT_DROP"));
    assert_string_equal(find(env, "UNIT_ADD"), "a=b");
    assert_string_equal(find(env, "UNIT_TWICE"), "2");
    env_free(env);
    env_free(NULL);
}

static void siblings(void **state)
{
    (void)state;
    char path[512], tiny[8];
    struct error err = {0};
    assert_ok(subprocess_sibling("unit_common_subprocess", path, sizeof path, &err), err);
    assert_int_equal(access(path, X_OK), 0);
    assert_int_equal(subprocess_sibling("x", tiny, sizeof tiny, &err), ST_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_and_exit_code),
        cmocka_unit_test(a_grandchild_on_the_pipe_does_not_delay_the_end),
        cmocka_unit_test(limits_end_the_child),
        cmocka_unit_test(only_what_is_meant_is_inherited),
        cmocka_unit_test(signals_are_default_and_unblocked),
        cmocka_unit_test(pidfd_session_and_start_time),
        cmocka_unit_test(streams_below_three_are_moved_safely),
        cmocka_unit_test(the_working_folder_is_set),
        cmocka_unit_test(environments_are_copied_with_changes),
        cmocka_unit_test(siblings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
