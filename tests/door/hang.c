/* Has a program wait when it opens a file, as on a network folder that hangs; for the tests.
 *   HANG_ON=FILE    the file
 *   HANG_WHILE=FILE  as long as this file exists
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void hang(const char *path)
{
    const char *on = getenv("HANG_ON"), *as_long = getenv("HANG_WHILE");
    while (on && as_long && path && strcmp(path, on) == 0 && access(as_long, F_OK) == 0)
        usleep(10000);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        static int (*real)(const char *, int, ...); \
        if (real == NULL) \
            real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        hang(path); \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
