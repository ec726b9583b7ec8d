/* Picture files: numbered names, refusals before the work, whole files or none; and the sweep of private folders. */
#include "unit/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <utime.h>

#include "client/picture_file.h"
#include "client/private_node.h"

static void numbered_names(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        long long number;
        const char *name;
        bool numbers;
    } t[] = {
        {"a.png", 7, "a.png", false},     {"a-%d.png", 7, "a-7.png", true},         {"%03d.png", 7, "007.png", true},
        {"%3d", 7, "  7", true},          {"100%.png", 7, "100%.png", false},       {"100%-%d", 12, "100%-12", true},
        {"%s%n%d%d", 1, "%s%n1%d", true}, {"%099999999d", 1, "%099999999d", false},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char name[FILE_NAME_BYTES];
        struct error err;
        assert_ok(pattern_name(t[i].pattern, t[i].number, name, &err), err);
        assert_string_equal(name, t[i].name);
        assert_int_equal(pattern_numbers(t[i].pattern), t[i].numbers);
    }
    char *longest = calloc(1, FILE_NAME_BYTES + 1), name[FILE_NAME_BYTES];
    struct error err;
    memset(longest, 'x', FILE_NAME_BYTES);
    assert_int_equal(pattern_name(longest, 1, name, &err), ST_TOO_LARGE);
    free(longest);
}

static size_t entries(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void refused_before_the_work(void **state)
{
    (void)state;
    struct error err;
    char *dir = temp_dir(), path[200];
    assert_int_equal(pattern_check("/proc/nowhere/x.png", 1, &err) == ST_OK, 0);
    assert_says(err.message, "/proc/nowhere/x.png");
    assert_int_equal(pattern_check(dir, 1, &err), ST_BAD_ARGUMENT);
    assert_says(err.message, "folder");
    assert_int_equal(pattern_check("", 1, &err), ST_BAD_ARGUMENT);
    assert_int_equal(pattern_check("-", 2, &err), ST_BAD_ARGUMENT);
    snprintf(path, sizeof path, "%s/a.jpeg", dir);
    assert_int_equal(pattern_check(path, 1, &err), ST_NOT_AVAILABLE);
    snprintf(path, sizeof path, "%s/a.png", dir);
    assert_int_equal(pattern_check(path, 2, &err), ST_BAD_ARGUMENT);
    assert_says(err.message, "%d");
    assert_ok(pattern_check(path, 1, &err), err);
    assert_ok(pattern_check("-", 1, &err), err);
    assert_ok(pattern_check("/dev/null", 3, &err), err);
    assert_int_equal(entries(dir), 0);
    temp_dir_remove(dir);
}

static void whole_or_none(void **state)
{
    (void)state;
    struct error err;
    struct stat st;
    char *dir = temp_dir(), path[200], got[16] = "";
    snprintf(path, sizeof path, "%s/a.png", dir);
    mode_t mask = umask(027);
    assert_ok(picture_write(path, "one", 3, &err), err);
    assert_ok(picture_write(path, "three", 5, &err), err);
    umask(mask);
    FILE *f = fopen(path, "r");
    assert_int_equal(fread(got, 1, sizeof got, f), 5);
    fclose(f);
    assert_memory_equal(got, "three", 5);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(entries(dir), 1);
    snprintf(path, sizeof path, "%s/none/a.png", dir);
    assert_int_equal(picture_write(path, "x", 1, &err), ST_NOT_FOUND);
    assert_says(err.message, path);
    assert_int_equal(picture_write("/dev/full", "x", 1, &err), ST_DISK_FULL);
    assert_says(err.message, "/dev/full");
    temp_dir_remove(dir);
}

static void make_private(const char *dir, const char *name, bool with_lock, int *ret_lock)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/%s/state", dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/%s/lock", dir, name);
    *ret_lock = with_lock ? open(path, O_RDWR | O_CREAT, 0600) : -1;
}

static bool there(const char *dir, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void sweep(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[300];
    int held, dead, young, old, other;
    make_private(dir, "galley-private-held00", true, &held);
    make_private(dir, "galley-private-dead00", true, &dead);
    make_private(dir, "galley-private-young0", false, &young);
    make_private(dir, "galley-private-old000", false, &old);
    make_private(dir, "something-else", true, &other);
    assert_int_equal(flock(held, LOCK_EX | LOCK_NB), 0);
    snprintf(path, sizeof path, "%s/galley-private-old000", dir);
    assert_int_equal(utime(path, &(struct utimbuf){1000, 1000}), 0);
    snprintf(path, sizeof path, "%s/galley-private-link00", dir);
    assert_int_equal(symlink("something-else", path), 0);
    private_folders_sweep(dir);
    assert_true(there(dir, "galley-private-held00/state"));
    assert_false(there(dir, "galley-private-dead00"));
    assert_true(there(dir, "galley-private-young0"));
    assert_false(there(dir, "galley-private-old000"));
    assert_true(there(dir, "something-else/state"));
    close(held);
    private_folders_sweep(dir);
    assert_false(there(dir, "galley-private-held00"));
    close(dead);
    close(other);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbered_names), cmocka_unit_test(refused_before_the_work),
                                       cmocka_unit_test(whole_or_none), cmocka_unit_test(sweep)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
