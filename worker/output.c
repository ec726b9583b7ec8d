#include "worker/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hash.h"
#include "common/json.h"

struct output {
    char dir[600];
    bool made;
    json_t *files;
};

enum status output_new(const char *staging, struct output **ret, struct error *err)
{
    struct output *o = calloc(1, sizeof *o);
    if (!o || !(o->files = json_array())) {
        free(o);
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the item's outputs");
    }
    if (strlen(staging) >= sizeof o->dir) {
        output_free(o);
        return FAIL(err, TOO_LARGE, "path of the staging folder '%s' exceeds %zu bytes", staging, sizeof o->dir - 1);
    }
    strcpy(o->dir, staging);
    *ret = o;
    return ST_OK;
}

void output_free(struct output *o)
{
    if (!o)
        return;
    json_decref(o->files);
    free(o);
}

static enum status write_synced(const char *path, const struct buf *bytes, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot create '%s'", path);
    enum status s = ST_OK;
    for (size_t done = 0; s == ST_OK && done < bytes->len;) {
        ssize_t n = write(fd, bytes->data + done, bytes->len - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            s = FAIL_ERRNO(err, "cannot write %zu bytes to '%s'", bytes->len, path);
    }
    if (s == ST_OK && fdatasync(fd) != 0)
        s = FAIL_ERRNO(err, "cannot sync '%s'", path);
    close(fd);
    return s;
}

enum status output_put(struct output *o, const struct picture *p, const struct output_file *f, const char **ret_name, struct error *err)
{
    AUTO_BUF png = BUF_INIT;
    TRY(png_write(p, f->texts, f->n_texts, &png, err));
    if (!o->made && mkdir(o->dir, 0700) != 0 && errno != EEXIST)
        return FAIL_ERRNO(err, "cannot make the staging folder '%s'", o->dir);
    o->made = true;
    char uuid[UUID_TEXT], name[UUID_TEXT + 4], path[700], digest[2 * SHA256_BYTES + 1];
    uint8_t sum[SHA256_BYTES];
    uuid_new(uuid);
    snprintf(name, sizeof name, "%s.png", uuid);
    snprintf(path, sizeof path, "%s/%s", o->dir, name);
    TRY(write_synced(path, &png, err));
    sha256(png.data, png.len, sum);
    hex(sum, sizeof sum, digest);
    json_t *row = json_pack("{s:s s:I s:s s:i s:i s:s s:b}", "name", name, "bytes", (json_int_t)png.len, "sha256", digest, "width", p->width,
                            "height", p->height, "node_id", f->node_id, "is_intermediate", f->is_intermediate);
    if (!row || json_array_append_new(o->files, row) != 0)
        return FAIL(err, OUT_OF_MEMORY, "out of memory for the item's outputs");
    *ret_name = json_str(row, "name", "");
    return ST_OK;
}

bool output_find(const struct output *o, const char *name, char *ret_path, size_t size)
{
    size_t i;
    json_t *row;
    json_array_foreach(o->files, i, row)
        if (strcmp(json_str(row, "name", ""), name) == 0)
            return snprintf(ret_path, size, "%s/%s", o->dir, name) < (int)size;
    return false;
}

enum status output_seal(struct output *o, struct error *err)
{
    if (!o->made)
        return ST_OK;
    int fd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return FAIL_ERRNO(err, "cannot open the staging folder '%s'", o->dir);
    enum status s = fsync(fd) == 0 ? ST_OK : FAIL_ERRNO(err, "cannot sync the staging folder '%s'", o->dir);
    close(fd);
    return s;
}

const json_t *output_files(const struct output *o)
{
    return o->files;
}
