/*
 * times: runs a command many times and prints how long each run took, from
 * before its start until it has been waited for, as a script sees it.
 *
 *   times COUNT SIDE_BY_SIDE LIMIT_SECONDS COMMAND [ARGUMENT...]
 *
 * The command's standard input, output and error are /dev/null. Prints one line
 * for each run: microseconds, and the exit status or 128 + signal. A run that
 * takes longer than the limit is killed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double microseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

/* Runs once and returns the status. SIGCHLD is blocked, so sigtimedwait is the timer. */
static int run(char **argv, posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, int limit)
{
	struct timespec left = { limit, 0 };
	sigset_t child;
	pid_t pid;
	int st;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	if (posix_spawnp(&pid, argv[0], files, attr, argv, environ) != 0)
		return 127;
	while (sigtimedwait(&child, NULL, &left) < 0 && errno == EINTR)
		;
	if (waitpid(pid, &st, WNOHANG) == 0) {
		kill(pid, SIGKILL);
		waitpid(pid, &st, 0);
		sigtimedwait(&child, NULL, &(struct timespec){ 0, 0 });
	}
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

static int worker(char **argv, int count, int limit)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t child, none;

	sigemptyset(&child);
	sigemptyset(&none);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
	while (count-- > 0) {
		double begin = microseconds();
		int status = run(argv, &files, &attr, limit);
		double took = microseconds() - begin;
		char line[64];
		int n = snprintf(line, sizeof line, "%.1f %d\n", took, status);

		/* one write, so that lines of several workers do not mix */
		if (write(1, line, n) != n)
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 5) {
		fprintf(stderr, "usage: times COUNT SIDE_BY_SIDE LIMIT_SECONDS COMMAND...\n");
		return 2;
	}
	int count = atoi(argv[1]), side = atoi(argv[2]), limit = atoi(argv[3]);

	for (int i = 0; i < side; i++) {
		if (fork() == 0)
			_exit(worker(argv + 4, count / side + (i < count % side), limit));
	}
	while (wait(NULL) > 0)
		;
	return 0;
}
