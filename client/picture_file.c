#include "client/picture_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/node.h"
#include "common/json.h"

enum { FETCH_LIMIT_MS = 60000 };

/* number_place finds %d, %Nd or %0Nd: its start and its end, and the width. */
static const char *number_place(const char *pattern, const char **ret_end, int *ret_width, bool *ret_zeros)
{
    for (const char *p = strchr(pattern, '%'); p; p = strchr(p + 1, '%')) {
        const char *at = p + 1;
        int width = 0;
        bool zeros = *at == '0';
        while (*at >= '0' && *at <= '9' && width < 100)
            width = 10 * width + *at++ - '0';
        if (*at == 'd' && width <= 20) {
            *ret_end = at + 1;
            *ret_width = width;
            *ret_zeros = zeros;
            return p;
        }
    }
    return NULL;
}

bool pattern_numbers(const char *pattern)
{
    const char *end;
    int width;
    bool zeros;
    return number_place(pattern, &end, &width, &zeros) != NULL;
}

enum status pattern_name(const char *pattern, int64_t number, char ret[FILE_NAME_BYTES], struct error *err)
{
    const char *end = pattern + strlen(pattern);
    int width = 0;
    bool zeros = false;
    const char *place = number_place(pattern, &end, &width, &zeros);
    char digits[32] = "";
    if (place)
        snprintf(digits, sizeof digits, zeros ? "%0*lld" : "%*lld", width, (long long)number);
    int head = (int)((place ? place : end) - pattern);
    if (snprintf(ret, FILE_NAME_BYTES, "%.*s%s%s", head, pattern, digits, end) >= FILE_NAME_BYTES)
        return FAIL(err, TOO_LARGE, "-o: the file name is longer than %d bytes", FILE_NAME_BYTES - 1);
    return ST_OK;
}

static bool is_stdout(const char *path) { return strcmp(path, "-") == 0; }

/* is_special is true for what exists and is neither a regular file nor a folder: a device, a pipe. */
static bool is_special(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

static enum status temporary_beside(const char *path, char ret[FILE_NAME_BYTES + 32], int *ret_fd, struct error *err)
{
    char copy[FILE_NAME_BYTES];
    snprintf(copy, sizeof copy, "%s", path);
    snprintf(ret, FILE_NAME_BYTES + 32, "%s/.galley-XXXXXX", dirname(copy));
    *ret_fd = mkostemp(ret, O_CLOEXEC);
    return *ret_fd < 0 ? FAIL_ERRNO(err, "cannot write '%s'", path) : ST_OK;
}

static enum status check_extension(const char *name, struct error *err)
{
    static const char *const others[] = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < COUNT_OF(others); i++)
        if (strcasecmp(dot, others[i]) == 0)
            return FAIL(err, NOT_AVAILABLE,
                        "-o '%s': pictures are written as PNG, another format is not available in this version: end the name in .png",
                        name);
    return ST_OK;
}

enum status pattern_check(const char *pattern, int64_t count, struct error *err)
{
    char name[FILE_NAME_BYTES], temporary[FILE_NAME_BYTES + 32];
    struct stat st;
    int fd;
    if (!pattern[0])
        return FAIL(err, BAD_ARGUMENT, "-o: the file name is empty");
    if (count > 1 && is_stdout(pattern))
        return FAIL(err, BAD_ARGUMENT, "-o -: only one picture can go to stdout, not %lld", (long long)count);
    if (is_stdout(pattern))
        return ST_OK;
    TRY(pattern_name(pattern, 1, name, err));
    if (is_special(name))
        return ST_OK;
    if (count > 1 && !pattern_numbers(pattern))
        return FAIL(err, BAD_ARGUMENT, "-o '%s' names one file for %lld pictures: put %%d where the number goes", pattern,
                    (long long)count);
    TRY(check_extension(name, err));
    if ((stat(name, &st) == 0 && S_ISDIR(st.st_mode)) || name[strlen(name) - 1] == '/')
        return FAIL(err, BAD_ARGUMENT, "-o '%s' is a folder: add a file name", name);
    enum status s = temporary_beside(name, temporary, &fd, err);
    if (s != ST_OK)
        return error_prefix(err, "-o");
    close(fd);
    unlink(temporary);
    return ST_OK;
}

static enum status write_all(int fd, const char *path, const char *bytes, size_t n, struct error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t w = write(fd, bytes + done, n - done);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return FAIL_ERRNO(err, "cannot write '%s' (%zu bytes)", path, n);
        done += (size_t)w;
    }
    return ST_OK;
}

static enum status write_directly(const char *path, const void *bytes, size_t n, struct error *err)
{
    int fd = is_stdout(path) ? STDOUT_FILENO : open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot open '%s'", path);
    enum status s = write_all(fd, is_stdout(path) ? "stdout" : path, bytes, n, err);
    if (fd != STDOUT_FILENO)
        close(fd);
    return s;
}

enum status picture_write(const char *path, const void *bytes, size_t n, struct error *err)
{
    char temporary[FILE_NAME_BYTES + 32];
    int fd;
    if (is_stdout(path) || is_special(path))
        return write_directly(path, bytes, n, err);
    TRY(temporary_beside(path, temporary, &fd, err));
    mode_t mask = umask(0);
    umask(mask);
    enum status s = write_all(fd, path, bytes, n, err);
    if (s == ST_OK && (fchmod(fd, 0666 & ~mask) != 0 || fdatasync(fd) != 0))
        s = FAIL_ERRNO(err, "cannot write '%s'", path);
    if (close(fd) != 0 && s == ST_OK)
        s = FAIL_ERRNO(err, "cannot write '%s'", path);
    if (s == ST_OK && rename(temporary, path) != 0)
        s = FAIL_ERRNO(err, "cannot put the picture in place as '%s'", path);
    if (s != ST_OK)
        unlink(temporary);
    return s;
}

enum status picture_of_item(galley_client *c, int64_t item_id, json_t **ret, struct error *err)
{
    AUTO_JSON *page = NULL;
    size_t i;
    json_t *row;
    TRY(node_call(c, "images", json_pack("{s:I s:i}", "item_id", (json_int_t)item_id, "limit", 1000), &page, err));
    json_array_foreach (json_object_get(page, "images"), i, row) /* newest first */
        if (!json_flag(row, "is_intermediate", false)) {
            *ret = json_incref(row);
            return ST_OK;
        }
    return FAIL(err, NOT_FOUND, "item %lld made no picture that is not intermediate", (long long)item_id);
}

enum status picture_fetch(galley_client *c, const char *image_name, const char *path, struct error *err)
{
    void *bytes;
    size_t n;
    galley_error fault;
    if (galley_image(c, image_name, FETCH_LIMIT_MS, &bytes, &n, &fault) != 0)
        return error_from(&fault, err);
    enum status s = picture_write(path, bytes, n, err);
    galley_free(bytes);
    return s;
}
