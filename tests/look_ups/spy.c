/* An NSS module that says what the process in which it runs is, has and can do. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <nss.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <unistd.h>

/* The complement of the key's bytes, so that the key itself is not here. */
static const unsigned char inverted[32] = {INVERTED};

static int is_key(const unsigned char *at)
{
    for (int i = 0; i < 32; i++)
        if ((at[i] ^ inverted[i]) != 255)
            return 0;
    return 1;
}

static int is_text(const unsigned char *at)
{
    for (int i = 0; i < 64; i++) {
        int byte = inverted[i / 2] ^ 255;
        int digit = i % 2 ? byte & 15 : byte >> 4;
        if (at[i] != (digit < 10 ? '0' + digit : 'a' + digit - 10))
            return 0;
    }
    return 1;
}

/* Whether this process has the key anywhere in its memory. */
static int has_key(void)
{
    static char maps[1 << 18];
    size_t used = 0;
    ssize_t n;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while ((n = read(fd, maps + used, sizeof maps - 1 - used)) > 0)
        used += n;
    close(fd);
    maps[used] = 0;
    for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long from, to;
        char may[5];
        if (sscanf(line, "%lx-%lx %4s", &from, &to, may) != 3 || may[0] != 'r')
            continue;
        if (strstr(line, "[v"))
            continue;
        for (unsigned long at = from; at + 64 <= to; at++)
            if (is_key((void *)at) || is_text((void *)at))
                return 1;
    }
    return 0;
}

static int can_open(const char *file, int flags)
{
    int fd = open(file, flags | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* What can be done to the other children of the monitor, and to itself. */
static void reach(char *could)
{
    char path[64], all[4096] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", getppid(), getppid());
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, all, sizeof all - 1);
        all[n < 0 ? 0 : n] = 0;
        close(fd);
    }
    if (kill(getppid(), 0) == 0)
        strcat(could, "signal the monitor,");
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) {
        pid_t pid = atoi(word);
        struct rlimit limit;
        if (pid == getpid())
            continue;
        if (kill(pid, 0) == 0)
            strcat(could, "signal,");
        if (prlimit(pid, RLIMIT_NOFILE, NULL, &limit) == 0)
            strcat(could, "limit,");
        if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0)
            strcat(could, "trace,");
    }
    if (unshare(CLONE_NEWUSER) == 0)
        strcat(could, "unshare,");
}

static unsigned long long capabilities(void)
{
    char status[8192] = "";
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, status, sizeof status - 1);
    close(fd);
    status[n < 0 ? 0 : n] = 0;
    char *at = strstr(status, "CapEff:");
    return at ? strtoull(at + 7, NULL, 16) : ~0ULL;
}

/* What of its environment the resolver would heed, or whatever else stands there. */
static void heed(char *could)
{
    extern char **environ;
    for (char **at = environ; at && *at; at++)
        if (strncmp(*at, "GLIBC_TUNABLES=", 15) != 0)
            strcat(could, "heed the environment,");
}

static int is_harmless(char *report, size_t length)
{
    static char could[8192];
    could[0] = 0;
    heed(could);
    if (can_open(HOST_KEY, O_RDONLY))
        strcat(could, "read the key,");
    if (can_open("/etc/shadow", O_RDONLY))
        strcat(could, "read shadow,");
    if (can_open(WRITABLE, O_CREAT | O_WRONLY))
        strcat(could, "write,");
    reach(could);
    int key = has_key();
    could[64] = 0;
    snprintf(report, length, "/pid=%d;uid=%d;gid=%d;caps=%llx;key=%d;could=%s;", getpid(),
             geteuid(), getegid(), capabilities(), key, could);
    return geteuid() != 0 && !key && !could[0];
}

enum nss_status _nss_spy_getpwnam_r(const char *name, struct passwd *p, char *b, size_t n, int *e)
{
    (void)e;
    if (strncmp(name, "hang", 4) == 0)
        for (;;)
            pause();
    if (strncmp(name, "crash", 5) == 0)
        abort();
    if (strncmp(name, "spy", 3) != 0 || n < 512)
        return NSS_STATUS_NOTFOUND;
    strcpy(b, name);
    is_harmless(b + 64, 400);
    *p = (struct passwd){.pw_name = b, .pw_passwd = "x", .pw_uid = 40100 + atoi(name + 3),
                         .pw_gid = 40100, .pw_gecos = "", .pw_dir = b + 64, .pw_shell = "/bin/sh"};
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_spy_getpwuid_r(uid_t uid, struct passwd *p, char *b, size_t n, int *e)
{
    char name[32];
    if (uid < 40100 || uid > 40199)
        return NSS_STATUS_NOTFOUND;
    snprintf(name, sizeof name, "spy%d", (int)uid - 40100);
    return _nss_spy_getpwnam_r(name, p, b, n, e);
}

/* Every host is here, where this process is what it should be; else there is none. */
enum nss_status _nss_spy_gethostbyname4_r(const char *name, struct gaih_addrtuple **found, char *b,
                                          size_t n, int *e, int *h, int32_t *ttl)
{
    char report[512];
    (void)ttl;
    if (strncmp(name, "hang", 4) == 0)
        for (;;)
            pause();
    if (n < 512 || !is_harmless(report, sizeof report)) {
        *e = ENOENT;
        *h = HOST_NOT_FOUND;
        return NSS_STATUS_NOTFOUND;
    }
    if (!*found)
        *found = (void *)b;
    **found = (struct gaih_addrtuple){.name = (char *)name, .family = AF_INET};
    (*found)->addr[0] = htonl(INADDR_LOOPBACK);
    return NSS_STATUS_SUCCESS;
}
