/* Preloaded into galleyd: the file named by SLOW_SYNC says what a sync of the queue's log does. "go": as always; "hold": it waits until the
 * file says otherwise; "fail": EIO. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int is_log(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    return n > 4 && memcmp(path + n - 4, "-wal", 4) == 0;
}

static void order(char ret[8])
{
    const char *name = getenv("SLOW_SYNC");
    FILE *f = name ? fopen(name, "re") : NULL;
    strcpy(ret, "go");
    if (!f)
        return;
    if (fscanf(f, "%7s", ret) != 1)
        strcpy(ret, "hold");     /* it is being written */
    fclose(f);
}

static int refused(int fd)
{
    char what[8];
    if (!is_log(fd))
        return 0;
    for (order(what); strcmp(what, "hold") == 0; order(what))
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    return strcmp(what, "fail") == 0;
}

static int really(const char *call, int fd)
{
    int (*sync)(int);
    *(void **)&sync = dlsym(RTLD_NEXT, call);
    if (refused(fd)) {
        errno = EIO;
        return -1;
    }
    return sync(fd);
}

int fdatasync(int fd) { return really("fdatasync", fd); }
int fsync(int fd) { return really("fsync", fd); }
