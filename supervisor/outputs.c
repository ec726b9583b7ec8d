/* Pictures on disk: staged by a worker, published when the finish is committed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/supervisor.h"

enum { PICTURE_MAX = 200 << 20 };

void outputs_staging(const char *outputs, int64_t item, int64_t epoch, char *ret, size_t size)
{
    snprintf(ret, size, "%s/.staging/%lld.%lld", outputs, (long long)item, (long long)epoch);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    remove(path);
    return 0;
}

void tree_remove(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void outputs_discard(const char *outputs, int64_t item, int64_t epoch)
{
    char dir[700];
    outputs_staging(outputs, item, epoch, dir, sizeof dir);
    tree_remove(dir);
}

static bool is_picture(const char *name)
{
    return name[0] != '.' && !strchr(name, '/') && strlen(name) < QUEUE_ID_BYTES;
}

static enum status publish_folder(const char *outputs, const char *dir, struct error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? ST_OK : FAIL_ERRNO(err, "cannot open '%s'", dir);
    enum status s = ST_OK;
    for (struct dirent *e; s == ST_OK && (e = readdir(d));) {
        char from[1024], to[1024];
        if (!is_picture(e->d_name))
            continue;
        snprintf(from, sizeof from, "%s/%s", dir, e->d_name);
        snprintf(to, sizeof to, "%s/images/%s", outputs, e->d_name);
        if (rename(from, to) != 0)
            s = FAIL_ERRNO(err, "cannot move '%s' to '%s'", from, to);
    }
    closedir(d);
    if (s == ST_OK)
        rmdir(dir);
    return s;
}

enum status outputs_publish(const char *outputs, int64_t item, int64_t epoch, struct error *err)
{
    char dir[700];
    outputs_staging(outputs, item, epoch, dir, sizeof dir);
    return publish_folder(outputs, dir, err);
}

static enum status settle_folder(const char *outputs, const char *name, struct queue *q, struct error *err)
{
    long long item, epoch;
    char end;
    bool finished = false;
    if (sscanf(name, "%lld.%lld%c", &item, &epoch, &end) != 2)
        return ST_OK;
    TRY(queue_finished_epoch(q, item, epoch, &finished, err));
    if (finished)
        return outputs_publish(outputs, item, epoch, err);
    outputs_discard(outputs, item, epoch);
    return ST_OK;
}

enum status outputs_prepare(const char *outputs, struct queue *q, struct error *err)
{
    char dir[700];
    snprintf(dir, sizeof dir, "%s/images", outputs);
    TRY(paths_make_private(outputs, err));
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return FAIL_ERRNO(err, "cannot make '%s'", dir);
    snprintf(dir, sizeof dir, "%s/.staging", outputs);
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return FAIL_ERRNO(err, "cannot make '%s'", dir);
    if (access(dir, W_OK) != 0)
        return FAIL_ERRNO(err, "outputs_dir '%s' cannot be written", outputs);
    DIR *d = opendir(dir);
    if (!d)
        return FAIL_ERRNO(err, "cannot open '%s'", dir);
    enum status s = ST_OK;
    for (struct dirent *e; s == ST_OK && (e = readdir(d));)
        if (e->d_name[0] != '.')
            s = settle_folder(outputs, e->d_name, q, err);
    closedir(d);
    return s;
}

void outputs_delete(const char *outputs, const char *image_name)
{
    char path[1024];
    if (!is_picture(image_name))
        return;
    snprintf(path, sizeof path, "%s/images/%s", outputs, image_name);
    unlink(path);
}

enum status outputs_read(const char *outputs, const char *image_name, struct buf *out, struct error *err)
{
    char path[1024];
    struct stat st;
    if (!is_picture(image_name))
        return FAIL(err, BAD_ARGUMENT, "argument 'image_name': '%s' cannot be the name of a picture", image_name);
    snprintf(path, sizeof path, "%s/images/%s", outputs, image_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return FAIL_ERRNO(err, "no picture file '%s'", path);
    enum status s = ST_OK;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > PICTURE_MAX)
        s = FAIL(err, TOO_LARGE, "picture '%s' is no regular file of at most %d bytes", image_name, (int)PICTURE_MAX);
    else if (!buf_reserve(out, (size_t)st.st_size))
        s = FAIL(err, OUT_OF_MEMORY, "out of memory reading picture '%s'", image_name);
    while (s == ST_OK && out->len < (size_t)st.st_size) {
        ssize_t n = read(fd, out->data + out->len, (size_t)st.st_size - out->len);
        if (n <= 0)
            s = FAIL_ERRNO(err, "cannot read picture '%s'", image_name);
        else
            out->len += (size_t)n;
    }
    close(fd);
    return s;
}
