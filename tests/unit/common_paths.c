#include "tests/unit/unit.h"

#include <sys/stat.h>

#include "common/paths.h"

static const char *const variables[] = {"GALLEY_HOME", "GALLEY_DATA", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CONFIGURATION_DIRECTORY", "XDG_STATE_HOME", "XDG_CONFIG_HOME",
                                        "XDG_RUNTIME_DIR"};

static int clean(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    return setenv("HOME", "/home/u", 1);
}

static struct paths find(enum paths_kind kind)
{
    struct paths p;
    struct error err = {0};
    assert_ok(paths_find(kind, &p, &err), err);
    return p;
}

static void a_users_places(void **state)
{
    (void)state;
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    struct paths p = find(PATHS_AUTO);
    assert_string_equal(p.state, "/home/u/.local/state/galley");
    assert_string_equal(p.run, "/run/user/7/galley");
    assert_string_equal(p.outputs, "/home/u/.local/state/galley/outputs");
    assert_string_equal(p.config, "/home/u/.config/galley/galley.yaml");
    setenv("XDG_STATE_HOME", "/s", 1);
    setenv("XDG_CONFIG_HOME", "relative/is/ignored", 1);
    p = find(PATHS_USER);
    assert_string_equal(p.state, "/s/galley");
    assert_string_equal(p.config, "/home/u/.config/galley/galley.yaml");
}

static void the_services_places(void **state)
{
    (void)state;
    struct paths p = find(PATHS_SYSTEM);
    assert_string_equal(p.state, "/var/lib/galley");
    assert_string_equal(p.run, "/run/galley");
    assert_string_equal(p.config, "/etc/galley/galley.yaml");
    setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b", 1);
    setenv("RUNTIME_DIRECTORY", "/run/a", 1);
    p = find(PATHS_AUTO);
    assert_string_equal(p.state, "/var/lib/a");
    assert_string_equal(p.run, "/run/a");
    assert_string_equal(p.outputs, "/var/lib/a/outputs");
}

static void galley_home_overrides(void **state)
{
    (void)state;
    setenv("GALLEY_HOME", "/g", 1);
    setenv("STATE_DIRECTORY", "/var/lib/a", 1);
    struct paths p = find(PATHS_AUTO);
    assert_string_equal(p.state, "/g/state");
    assert_string_equal(p.run, "/g/run");
    assert_string_equal(p.outputs, "/g/outputs");
    assert_string_equal(p.config, "/g/galley.yaml");
    setenv("GALLEY_HOME", "rel", 1);
    p = find(PATHS_AUTO);
    assert_int_equal(p.state[0], '/');
    assert_says(p.state, "/rel/state");
}

static void long_socket_folders_are_refused(void **state)
{
    (void)state;
    char home[200] = "/";
    struct paths p;
    struct error err = {0};
    while (strlen(home) < 75)
        strcat(home, "x");
    setenv("GALLEY_HOME", home, 1);     /* 75 + "/run" = 79, the most that leaves room for /worker/ and 20 bytes in 107 */
    assert_ok(paths_find(PATHS_AUTO, &p, &err), err);
    strcat(home, "x");
    setenv("GALLEY_HOME", home, 1);
    assert_int_equal(paths_find(PATHS_AUTO, &p, &err), ST_BAD_CONFIG);
    assert_says(err.message, "at most 79 fit");
    char *huge = malloc(5000);
    memset(huge, 'x', 4999);
    huge[0] = '/';
    huge[4999] = 0;
    setenv("GALLEY_HOME", huge, 1);
    assert_int_equal(paths_find(PATHS_AUTO, &p, &err), ST_BAD_CONFIG);
    free(huge);
}

static void no_runtime_folder_means_tmp(void **state)
{
    (void)state;
    char expected[64];
    snprintf(expected, sizeof expected, "/tmp/galley-%ld", (long)geteuid());
    struct stat st;
    struct paths p;
    struct error err = {0};
    bool there = lstat(expected, &st) == 0;
    if (there && (!S_ISDIR(st.st_mode) || (st.st_mode & 077))) {
        assert_int_equal(paths_find(PATHS_USER, &p, &err), ST_FORBIDDEN);
        return;
    }
    p = find(PATHS_USER);
    assert_string_equal(p.run, expected);
    if (there)
        return;
    assert_int_equal(mkdir(expected, 0755), 0);     /* others may look in: not trusted */
    enum status s = paths_find(PATHS_USER, &p, &err);
    rmdir(expected);
    assert_int_equal(s, ST_FORBIDDEN);
    assert_says(err.message, expected);
}

static void data_is_found_by_variable_and_tree(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[PATH_BYTES];
    char ret[PATH_BYTES];
    struct error err = {0};
    setenv("GALLEY_DATA", dir, 1);
    assert_int_equal(paths_data(ret, &err), ST_NOT_FOUND);
    assert_says(err.message, dir);
    snprintf(path, sizeof path, "%s/models", dir);
    mkdir(path, 0700);
    strcat(path, "/emoji");
    mkdir(path, 0700);
    assert_ok(paths_data(ret, &err), err);
    assert_string_equal(ret, dir);
    unsetenv("GALLEY_DATA");
    assert_ok(paths_data(ret, &err), err);     /* this program lies in build/PRESET/tests */
    assert_string_equal(ret, TEST_SOURCE_DIR);
    temp_dir_remove(dir);
}

static void private_folders(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[PATH_BYTES];
    struct error err = {0};
    struct stat st;
    assert_ok(paths_join(path, sizeof path, dir, "a/b/c", &err), err);
    assert_ok(paths_make_private(path, &err), err);
    assert_ok(paths_make_private(path, &err), err);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    chmod(path, 0770);
    assert_int_equal(paths_make_private(path, &err), ST_FORBIDDEN);
    assert_says(err.message, "chmod");
    char file[PATH_BYTES];
    strcpy(file, write_text(dir, "file", ""));
    assert_int_equal(paths_make_private(file, &err), ST_BAD_CONFIG);
    assert_int_equal(paths_make_private("", &err), ST_BAD_CONFIG);
    strcat(file, "/below");
    assert_int_equal(paths_make_private(file, &err), ST_NOT_FOUND);
    temp_dir_remove(dir);
}

static void join_checks_the_room(void **state)
{
    (void)state;
    char ret[8];
    struct error err = {0};
    assert_ok(paths_join(ret, sizeof ret, "/ab", "cde", &err), err);
    assert_string_equal(ret, "/ab/cde");
    assert_ok(paths_join(ret, sizeof ret, "/ab/", "cde", &err), err);
    assert_string_equal(ret, "/ab/cde");
    assert_int_equal(paths_join(ret, sizeof ret, "/ab", "cdef", &err), ST_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_users_places, clean),
        cmocka_unit_test_setup(the_services_places, clean),
        cmocka_unit_test_setup(galley_home_overrides, clean),
        cmocka_unit_test_setup(long_socket_folders_are_refused, clean),
        cmocka_unit_test_setup(no_runtime_folder_means_tmp, clean),
        cmocka_unit_test_setup(data_is_found_by_variable_and_tree, clean),
        cmocka_unit_test_setup(private_folders, clean),
        cmocka_unit_test_setup(join_checks_the_room, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
