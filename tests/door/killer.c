/* Kills its own process (SIGKILL) in the midst of what it writes; for the tests.
 *   KILL_IN=FOLDER  what is done to files in this folder counts: writing, cutting,
 *                   syncing, removing, renaming and linking them
 *   KILL_AT=N       the N-th of these is not done any more
 *   KILL_TORN=1     of a write the first half still is
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long count;

static int is_there(const char *path)
{
    const char *folder = getenv("KILL_IN");
    size_t n = folder ? strlen(folder) : 0;
    return n > 0 && path && strncmp(path, folder, n) == 0;
}

static int is_open_there(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return is_there(path);
}

static int is_last(void)
{
    const char *at = getenv("KILL_AT");
    return at && atomic_fetch_add(&count, 1) + 1 == atol(at);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (real == NULL) \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *bytes, size_t n)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    if (is_open_there(fd) && is_last()) {
        if (getenv("KILL_TORN"))
            real(fd, bytes, n / 2);
        die();
    }
    return real(fd, bytes, n);
}

#define PWRITE(name, offset) \
    ssize_t name(int fd, const void *bytes, size_t n, offset at) \
    { \
        REAL(ssize_t, #name, int, const void *, size_t, offset); \
        if (is_open_there(fd) && is_last()) { \
            if (getenv("KILL_TORN")) \
                real(fd, bytes, n / 2, at); \
            die(); \
        } \
        return real(fd, bytes, n, at); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FILE(name, takes, gives, ...) \
    int name takes \
    { \
        REAL(int, #name, __VA_ARGS__); \
        if (is_open_there(fd) && is_last()) \
            die(); \
        return real gives; \
    }
ON_FILE(fsync, (int fd), (fd), int)
ON_FILE(fdatasync, (int fd), (fd), int)
ON_FILE(ftruncate, (int fd, off_t n), (fd, n), int, off_t)
ON_FILE(ftruncate64, (int fd, off64_t n), (fd, n), int, off64_t)

int unlink(const char *path)
{
    REAL(int, "unlink", const char *);
    if (is_there(path) && is_last())
        die();
    return real(path);
}

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    if ((is_there(from) || is_there(to)) && is_last())
        die();
    return real(from, to);
}

int link(const char *from, const char *to)
{
    REAL(int, "link", const char *, const char *);
    if ((is_there(from) || is_there(to)) && is_last())
        die();
    return real(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags)
{
    REAL(int, "linkat", int, const char *, int, const char *, int);
    if ((is_there(from) || is_there(to)) && is_last())
        die();
    return real(a, from, b, to, flags);
}
