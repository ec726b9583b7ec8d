/* The program itself against the real daemon: exit codes and the words of messages, private nodes, and what the doctor sees. Graphs are
 * trivial, so that nothing here depends on an engine. */
#include "unit/unit.h"

#include <dirent.h>
#include <glob.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/subprocess.h"

enum { OUT_BYTES = 1 << 16, LIMIT_MS = 30000 };
static char out[OUT_BYTES]; /* of the last command, both streams */
static char *home;
static pid_t running[4]; /* what a failed test leaves behind is ended with it */

/* galley runs the client with ARGS (a shell's words) in HOME, checks its exit code, and leaves what it printed in OUT. */
static void galley(int expected, const char *args)
{
    char command[2048];
    snprintf(command, sizeof command, "exec 2>&1; cd '%s' && exec timeout 30 '%s/galley' %s", home, TEST_BIN_DIR, args);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t n = fread(out, 1, sizeof out - 1, p);
    out[n] = 0;
    int status = pclose(p);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
        fail_msg("galley %s: exit %d, not %d: %s", args, WIFEXITED(status) ? WEXITSTATUS(status) : -1, expected, out);
}

static pid_t start(const char *program, char *const *argv, int *ret_pidfd)
{
    char path[512];
    struct error err;
    pid_t pid;
    snprintf(path, sizeof path, "%s/%s", TEST_BIN_DIR, program);
    struct spawn_args a = {
        .file = path, .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .keep_fds = {-1, -1, -1, -1}, .cwd = home};
    assert_ok(subprocess_spawn(&a, &pid, ret_pidfd, &err), err);
    for (size_t i = 0; i < sizeof running / sizeof *running; i++)
        if (!running[i]) {
            running[i] = pid;
            break;
        }
    return pid;
}

/* eventually runs the client until it exits with EXPECTED. */
static void eventually(int expected, const char *args)
{
    char command[2048];
    int64_t end = clock_ms() + LIMIT_MS;
    int status = -1;
    snprintf(command, sizeof command, "cd '%s' && exec timeout 30 '%s/galley' %s >/dev/null 2>&1", home, TEST_BIN_DIR, args);
    while (clock_ms() < end) {
        status = system(command);
        if (WIFEXITED(status) && WEXITSTATUS(status) == expected)
            return;
        usleep(20000);
    }
    fail_msg("galley %s does not exit with %d (last: %d)", args, expected, status);
}

static int ended(pid_t pid)
{
    int status;
    for (int64_t end = clock_ms() + LIMIT_MS; clock_ms() < end; usleep(5000))
        if (waitpid(pid, &status, WNOHANG) == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    fail_msg("process %d did not end", (int)pid);
    return -1;
}

static size_t entries(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static int make_home(void **state)
{
    (void)state;
    char path[300];
    home = temp_dir();
    setenv("GALLEY_HOME", home, 1);
    setenv("GALLEY_GENERATION_DEVICES", "cpu:0", 1);
    setenv("TERM", "dumb", 1);
    unsetenv("GALLEY_MAX_QUEUE_SIZE");
    unsetenv("GALLEY_MIN_FREE_DISK_GB");
    snprintf(path, sizeof path, "%s/x", home); /* where private nodes go */
    assert_int_equal(mkdir(path, 0700), 0);
    setenv("XDG_RUNTIME_DIR", path, 1);
    write_text(home, "add.json", "{\"nodes\":{\"a\":{\"id\":\"a\",\"type\":\"add\",\"a\":1,\"b\":2,\"use_cache\":false}},\"edges\":[]}");
    write_text(home, "ten.json",
               "{\"batch\":{\"graph\":{\"nodes\":{\"a\":{\"id\":\"a\",\"type\":\"add\",\"use_cache\":false}},\"edges\":[]},\"runs\":10}}");
    return 0;
}

static int drop_home(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof running / sizeof *running; i++) {
        if (running[i] && waitpid(running[i], NULL, WNOHANG) == 0) {
            kill(running[i], SIGKILL);
            waitpid(running[i], NULL, 0);
        }
        running[i] = 0;
    }
    temp_dir_remove(home);
    return 0;
}

static void bad_command_lines(void **state)
{
    (void)state;
    static const struct {
        const char *args, *says;
    } bad[] = {
        {"", "galley COMMAND --help"},
        {"rendr x", "is 'render' meant"},
        {"queue lst", "is 'list' meant"},
        {"queue", "queue cancel"},
        {"render", "takes PROMPT"},
        {"render x y", "takes PROMPT"},
        {"render x --steps 0 -o x.png", "--steps"},
        {"render x --size 100x101 -o x.png", "multiples of 8"},
        {"render x --size axb", "--size"},
        {"render x --cfg abc", "--cfg"},
        {"render x --nonsense", "--nonsense"},
        {"render x --seed -1", "--seed"},
        {"render x --scheduler nope", "nope"},
        {"render x -o /proc/nowhere/x.png", "/proc/nowhere"},
        {"render x --count 2 -o x.png", "%d"},
        {"render x --init a.png", "--init is not available"},
        {"render x --lora a:1", "--lora is not available"},
        {"render x --format jpeg", "jpeg"},
        {"render x --json -o -", "stdout"},
        {"users list", "users list' is not available"},
        {"models add x", "models add' is not available"},
        {"queue hold 1", "queue hold' is not available"},
        {"run none.json", "none.json"},
        {"run add.json --wait --detach", "--detach"},
        {"run add.json --detach -o x.png", "--detach"},
        {"queue show x", "'x' is no item id"},
        {"queue cancel", "item ids"},
        {"config show precison", "is 'precision' meant"},
        {"images get", "--item"},
        {"config example --json", "no --json"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        galley(2, bad[i].args);
        assert_says(out, bad[i].says);
    }
    assert_int_equal(entries(home), 3);
}

static void without_a_node(void **state)
{
    (void)state;
    static const char *const need_node[] = {"status",
                                            "status --ready",
                                            "status --live",
                                            "queue list",
                                            "workers list",
                                            "models list",
                                            "images list",
                                            "watch",
                                            "submit add.json",
                                            "run add.json --detach",
                                            "run add.json --node /none/control",
                                            "render x --node ipc:///none/control -o x.png"};
    for (size_t i = 0; i < sizeof need_node / sizeof *need_node; i++)
        galley(3, need_node[i]);
    galley(0, "--version");
    galley(0, "render --help");
    assert_says(out, "--scheduler");
    galley(0, "config show precision");
    galley(0, "--complete render --sched");
    assert_string_equal(out, "--scheduler\n");
}

static void listen_at(const char *path, int *ret_fd)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    *ret_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*ret_fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(*ret_fd, 5), 0);
}

static void doctor_explains(void **state)
{
    (void)state;
    char path[300];
    int fd;
    galley(0, "doctor");
    assert_says(out, "there is no folder");
    assert_says(out, "no node runs here");
    assert_says(out, "CUDA");
    assert_says(out, "driver");
    assert_says(out, "cpu:0");
    setenv("GALLEY_MIN_FREE_DISK_GB", "1000000", 1);
    galley(1, "doctor");
    assert_says(out, "min_free_disk_gb is 1000000");
    unsetenv("GALLEY_MIN_FREE_DISK_GB");
    setenv("GALLEY_GENERATION_DEVICES", "[cpu:0, cuda:7]", 1);
    galley(1, "doctor");
    assert_says(out, "cuda:7");
    setenv("GALLEY_GENERATION_DEVICES", "cpu:0", 1);
    snprintf(path, sizeof path, "%s/state", home);
    assert_int_equal(mkdir(path, 0700) | chmod(path, 0777), 0);
    galley(1, "doctor");
    assert_says(out, "chmod go-w");
    chmod(path, 0700);
    snprintf(path, sizeof path, "%s/run", home);
    assert_int_equal(mkdir(path, 0700), 0);
    write_text(path, "control", "x");
    galley(1, "doctor");
    assert_says(out, "it is no socket");
    snprintf(path, sizeof path, "%s/run/control", home);
    unlink(path);
    listen_at(path, &fd);
    galley(1, "doctor");
    assert_says(out, "in use");
    close(fd);
    galley(0, "doctor");
    assert_says(out, "stale socket");
    write_text(home, "galley.yaml", "precison: float32\n");
    galley(1, "doctor");
    assert_says(out, "precison");
    galley(2, "config check");
    assert_says(out, "precison");
}

static void with_a_node(void **state)
{
    (void)state;
    int fd;
    setenv("GALLEY_MAX_QUEUE_SIZE", "5", 1);
    pid_t node = start("galleyd", (char *[]){"galleyd", NULL}, &fd);
    eventually(0, "status --ready");
    galley(0, "run add.json");
    galley(0, "run add.json --set a.a=7 --json");
    assert_says(out, "\"item_ids\"");
    galley(2, "run add.json --set b.a=7");
    assert_says(out, "no node 'b'");
    galley(2, "run add.json --set a.a=word");
    galley(2, "run add.json -o x.png");
    assert_says(out, "no picture");
    galley(4, "submit ten.json");
    galley(0, "queue pause");
    galley(1, "status --ready");
    galley(0, "status --live");
    galley(0, "submit add.json --key k");
    galley(0, "submit add.json --key k");
    galley(0, "status --json");
    assert_says(out, "\"pending\": 1");
    galley(2, "queue cancel 999");
    assert_says(out, "999");
    galley(0, "queue cancel --pending");
    galley(0, "queue list --status canceled");
    assert_says(out, "canceled");
    galley(2, "render x --model nope -o x.png");
    assert_says(out, "nope");
    galley(0, "doctor --json");
    assert_says(out, "\"problems\": 0");
    galley(0, "queue resume");
    galley(0, "queue prune");
    galley(0, "queue list --json");
    assert_says(out, "\"items\": []");
    kill(node, SIGSTOP);
    galley(1, "status --live");
    galley(3, "run add.json"); /* one that hangs is never a reason for a second node */
    kill(node, SIGCONT);
    eventually(0, "status --live");
    kill(node, SIGTERM);
    assert_int_equal(ended(node), 0);
    close(fd);
}

/* wait_for_item runs until an item is in the queue. */
static void wait_for_item(void)
{
    for (int64_t end = clock_ms() + LIMIT_MS; clock_ms() < end; usleep(20000)) {
        galley(0, "queue list --json");
        if (strstr(out, "\"item_id\""))
            return;
    }
    fail_msg("no item came");
}

static void interrupted_jobs_are_canceled(void **state)
{
    (void)state;
    int fd, node_fd;
    pid_t node = start("galleyd", (char *[]){"galleyd", NULL}, &node_fd);
    eventually(0, "status --ready");
    galley(0, "queue pause");
    pid_t client = start("galley", (char *[]){"galley", "run", "add.json", NULL}, &fd);
    wait_for_item();
    kill(client, SIGINT);
    assert_int_equal(ended(client), 130);
    galley(0, "queue list --json");
    assert_says(out, "\"status\": \"canceled\"");
    kill(node, SIGTERM);
    assert_int_equal(ended(node), 0);
    close(fd);
    close(node_fd);
}

static void a_restart_is_survived(void **state)
{
    (void)state;
    int fd, node_fd;
    char *const daemon_argv[] = {"galleyd", NULL};
    pid_t node = start("galleyd", daemon_argv, &node_fd);
    eventually(0, "status --ready");
    galley(0, "queue pause");
    pid_t client = start("galley", (char *[]){"galley", "run", "add.json", NULL}, &fd);
    wait_for_item();
    kill(node, SIGKILL);
    assert_int_equal(ended(node), -SIGKILL);
    close(node_fd);
    node = start("galleyd", daemon_argv, &node_fd);
    eventually(0, "queue resume");
    assert_int_equal(ended(client), 0);
    kill(node, SIGTERM);
    assert_int_equal(ended(node), 0);
    close(fd);
    close(node_fd);
}

/* read_until adds what the terminal shows to SHOWN until it holds PART, or to its end (PART NULL). */
static void read_until(int terminal, char *shown, size_t room, const char *part)
{
    size_t n = strlen(shown), from = n;
    for (int64_t end = clock_ms() + LIMIT_MS; clock_ms() < end;) {
        struct pollfd p = {.fd = terminal, .events = POLLIN};
        ssize_t got = poll(&p, 1, 1000) > 0 ? read(terminal, shown + n, room - n - 1) : 0;
        if (got < 0)
            return; /* the other side has been closed */
        n += (size_t)got;
        shown[n] = 0;
        if (part && strstr(shown + from, part))
            return;
    }
    fail_msg("the terminal did not show \"%s\" but \"%s\"", part ? part : "its end", shown + from);
}

static void on_a_terminal(void **state)
{
    (void)state;
    static char shown[1 << 18];
    int node_fd, terminal, status;
    struct winsize wide = {.ws_row = 10, .ws_col = 100}, narrow = {.ws_row = 6, .ws_col = 30};
    pid_t node = start("galleyd", (char *[]){"galleyd", NULL}, &node_fd);
    eventually(0, "status --ready");
    galley(0, "queue pause");
    char program[512], graph[300];
    snprintf(program, sizeof program, "%s/galley", TEST_BIN_DIR);
    snprintf(graph, sizeof graph, "%s/add.json", home);
    pid_t client = forkpty(&terminal, NULL, NULL, &wide);
    if (client == 0) {
        setenv("TERM", "xterm", 1);
        execl(program, "galley", "run", graph, (char *)NULL);
        _exit(127);
    }
    read_until(terminal, shown, sizeof shown, "'galley queue resume' lets it go on (1 pending)");
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &narrow), 0);
    read_until(terminal, shown, sizeof shown, "the queue is paused: 'galle..");
    galley(0, "queue resume");
    read_until(terminal, shown, sizeof shown, NULL);
    assert_int_equal(waitpid(client, &status, 0), client);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    const char *last = strrchr(shown, '\033');
    assert_non_null(last);
    assert_memory_equal(last, "\033[J", 3); /* the block has been removed */
    for (const char *p = shown; (p = strchr(p, '\033')); p++)
        assert_non_null(strchr("AKJm", p[2 + strspn(p + 2, "0123456789;")])); /* nothing that would have to be undone */
    kill(node, SIGTERM);
    assert_int_equal(ended(node), 0);
    close(terminal);
    close(node_fd);
}

static void private_nodes(void **state)
{
    (void)state;
    char path[300];
    snprintf(path, sizeof path, "%s/x", home);
    write_text(home, "galley.yaml", "start_paused: true\nmin_free_disk_gb: 900000\n"); /* a service's settings */
    galley(0, "run add.json");
    assert_int_equal(entries(path), 0);
    galley(2, "run add.json --config none.yaml");
    assert_says(out, "none.yaml");
    assert_int_equal(entries(path), 0);
    write_text(home, "bad.yaml", "generation_devices: [cuda:99]\n");
    unsetenv("GALLEY_GENERATION_DEVICES");
    galley(2, "run add.json --config bad.yaml");
    assert_says(out, "cuda:99");
    assert_int_equal(entries(path), 0);
}

static bool private_node_listens(void)
{
    char pattern[300];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/x/galley-private-*/run/control", home);
    bool yes = glob(pattern, 0, NULL, &found) == 0;
    if (yes)
        globfree(&found);
    return yes;
}

static void a_killed_client_leaves_nothing(void **state)
{
    (void)state;
    char path[300];
    int fd, status;
    snprintf(path, sizeof path, "%s/x", home);
    pid_t client = start("galley", (char *[]){"galley", "run", "add.json", NULL}, &fd);
    for (int64_t end = clock_ms() + LIMIT_MS; clock_ms() < end && !private_node_listens();)
        usleep(200);
    kill(client, SIGKILL);
    assert_int_equal(waitpid(client, &status, 0), client);
    assert_true(WIFSIGNALED(status)); /* else it was too late to show anything */
    for (int64_t end = clock_ms() + LIMIT_MS; clock_ms() < end && entries(path) > 0;)
        usleep(5000);
    assert_int_equal(entries(path), 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bad_command_lines, make_home, drop_home),
        cmocka_unit_test_setup_teardown(without_a_node, make_home, drop_home),
        cmocka_unit_test_setup_teardown(doctor_explains, make_home, drop_home),
        cmocka_unit_test_setup_teardown(with_a_node, make_home, drop_home),
        cmocka_unit_test_setup_teardown(interrupted_jobs_are_canceled, make_home, drop_home),
        cmocka_unit_test_setup_teardown(a_restart_is_survived, make_home, drop_home),
        cmocka_unit_test_setup_teardown(on_a_terminal, make_home, drop_home),
        cmocka_unit_test_setup_teardown(private_nodes, make_home, drop_home),
        cmocka_unit_test_setup_teardown(a_killed_client_leaves_nothing, make_home, drop_home),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
