/*
 * floor: measures the minimum cost of remote execution on this machine. A
 * measuring tool in plain C, not a protocol for use.
 *
 *   floor server PORT UID GID      a thread for each connection, 127.0.0.1 only;
 *                                  commands run as UID and GID
 *   floor client PORT auth CMD     authenticated and encrypted: key exchange,
 *                                  both sides sign, then sh -c CMD
 *   floor client PORT true         plain: starts /bin/true
 *   floor client PORT out BYTES    plain: head -c BYTES /dev/zero to stdout
 *   floor client PORT in           plain: stdin to cat >/dev/null
 *   floor nothing                  starts and ends
 *
 * The exchange of `auth` (X25519, Ed25519, ChaCha20-Poly1305, by libsodium;
 * the keys are for this test and built in):
 *   client: its one-time public key
 *   server: its one-time public key; sealed: host key, signature of the hash
 *   client: sealed: user key, signature of the hash, command
 *   server: sealed: exit status
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAG crypto_aead_chacha20poly1305_ietf_ABYTES
#define KEY 32
#define SIGNATURE 64
#define COMMAND 512
#define BLOCK 65536

static uid_t uid;
static gid_t gid;

/* --- sockets ---------------------------------------------------------------- */
static int put(int fd, const void *from, size_t n)
{
	for (const char *p = from; n > 0;) {
		ssize_t k = write(fd, p, n);
		if (k <= 0)
			return -1;
		p += k;
		n -= k;
	}
	return 0;
}

static int get(int fd, void *to, size_t n)
{
	for (char *p = to; n > 0;) {
		ssize_t k = read(fd, p, n);
		if (k <= 0)
			return -1;
		p += k;
		n -= k;
	}
	return 0;
}

static void pump(int from, int to)
{
	char *block = malloc(BLOCK);
	ssize_t n;

	while (block && (n = read(from, block, BLOCK)) > 0 && put(to, block, n) == 0)
		;
	free(block);
}

static struct sockaddr_in address(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void no_delay(int s)
{
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
}

/* --- the sealed channel of `auth` -------------------------------------------- */
enum side { CLIENT, SERVER };
struct identity { unsigned char public[KEY], secret[SIGNATURE]; };
struct channel { unsigned char key[2][KEY], hash[2][KEY]; unsigned long long count[2]; };

static struct identity identity_of(enum side side)
{
	struct identity id;
	unsigned char seed[KEY];

	memset(seed, 1 + side, sizeof seed);
	crypto_sign_seed_keypair(id.public, id.secret, seed);
	return id;
}

static int agree(struct channel *c, const unsigned char *secret, const unsigned char *theirs,
		 const unsigned char *client, const unsigned char *server)
{
	unsigned char all[3 * KEY], out[4 * KEY];

	if (crypto_scalarmult(all, secret, theirs) != 0)
		return -1;
	memcpy(all + KEY, client, KEY);
	memcpy(all + 2 * KEY, server, KEY);
	crypto_generichash(out, 64, all, sizeof all, NULL, 0);
	crypto_generichash(out + 64, 64, out, 64, NULL, 0);
	memcpy(c->key, out, sizeof c->key);
	memcpy(c->hash, out + 64, sizeof c->hash);
	c->count[CLIENT] = c->count[SERVER] = 0;
	return 0;
}

static void next_nonce(struct channel *c, enum side by, unsigned char nonce[12])
{
	memset(nonce, 0, 12);
	memcpy(nonce, &c->count[by], sizeof c->count[by]);
	c->count[by]++;
}

static size_t seal(struct channel *c, enum side by, unsigned char *out, const void *plain, size_t n)
{
	unsigned char nonce[12];

	next_nonce(c, by, nonce);
	crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain, n, NULL, 0, NULL, nonce, c->key[by]);
	return n + TAG;
}

static int unseal(struct channel *c, enum side by, void *plain, const unsigned char *sealed, size_t n)
{
	unsigned char nonce[12];

	next_nonce(c, by, nonce);
	return crypto_aead_chacha20poly1305_ietf_decrypt(plain, NULL, NULL, sealed, n, NULL, 0, nonce, c->key[by]);
}

/* Writes the key and signature that a side sends to the other. */
static void show_identity(const struct channel *c, enum side side, unsigned char *to)
{
	struct identity id = identity_of(side);

	memcpy(to, id.public, KEY);
	crypto_sign_detached(to + KEY, NULL, c->hash[side], KEY, id.secret);
}

static int check_identity(const struct channel *c, enum side side, const unsigned char *shown)
{
	struct identity id = identity_of(side);

	return sodium_memcmp(shown, id.public, KEY) ||
	       crypto_sign_verify_detached(shown + KEY, c->hash[side], KEY, id.public);
}

/* --- the server --------------------------------------------------------------- */
static unsigned char reap(pid_t pid)
{
	int st = 0;

	if (pid < 0 || waitpid(pid, &st, 0) < 0)
		return 127;
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

static pid_t start(char *const argv[], int in, int out)
{
	pid_t pid = vfork();

	if (pid == 0) {
		/* direct system calls: the C library's functions change every thread */
		if (syscall(SYS_setgroups, 1, &gid) || syscall(SYS_setresgid, gid, gid, gid) ||
		    syscall(SYS_setresuid, uid, uid, uid))
			_exit(126);
		if (in >= 0)
			dup2(in, 0);
		if (out >= 0)
			dup2(out, 1);
		signal(SIGPIPE, SIG_DFL);
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static void serve_auth(int s)
{
	unsigned char theirs[KEY], secret[KEY], out[KEY + KEY + SIGNATURE + TAG];
	unsigned char in[KEY + SIGNATURE + COMMAND + TAG], plain[sizeof in + 1], shown[KEY + SIGNATURE];
	struct channel c;

	if (get(s, theirs, KEY) < 0)
		return;
	randombytes_buf(secret, KEY);
	crypto_scalarmult_base(out, secret);
	if (agree(&c, secret, theirs, theirs, out) < 0)
		return;
	show_identity(&c, SERVER, shown);
	size_t n = KEY + seal(&c, SERVER, out + KEY, shown, sizeof shown);
	if (put(s, out, n) < 0)
		return;
	ssize_t k = read(s, in, sizeof in);
	if (k < (ssize_t)(KEY + SIGNATURE + TAG) || unseal(&c, CLIENT, plain, in, k) ||
	    check_identity(&c, CLIENT, plain))
		return;
	plain[k - TAG] = 0;
	char *sh[] = { "/bin/sh", "-c", (char *)plain + KEY + SIGNATURE, NULL };
	unsigned char status = reap(start(sh, -1, -1));
	n = seal(&c, SERVER, out, &status, 1);
	put(s, out, n);
}

static void serve_pipe(int s, char *const argv[], int inwards)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return;
	pid_t pid = inwards ? start(argv, p[0], -1) : start(argv, -1, p[1]);
	close(p[inwards ? 0 : 1]);
	if (inwards)
		pump(s, p[1]);
	else
		pump(p[0], s);
	close(p[inwards ? 1 : 0]);
	unsigned char status = reap(pid);
	if (inwards)
		put(s, &status, 1);
}

static void *serve(void *arg)
{
	int s = (int)(long)arg;
	char head[32];

	no_delay(s);
	if (get(s, head, sizeof head) == 0) {
		char *bytes = head + 1;
		char *yes[] = { "/bin/true", NULL };
		char *out[] = { "/usr/bin/head", "-c", bytes, "/dev/zero", NULL };
		char *in[] = { "/bin/sh", "-c", "cat >/dev/null", NULL };
		unsigned char status;

		head[sizeof head - 1] = 0;
		switch (head[0]) {
		case 'a': serve_auth(s); break;
		case 't': status = reap(start(yes, -1, -1)); put(s, &status, 1); break;
		case 'o': serve_pipe(s, out, 0); break;
		case 'i': serve_pipe(s, in, 1); break;
		}
	}
	close(s);
	return NULL;
}

static int server(int port)
{
	struct sockaddr_in a = address(port);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_attr_t attr;

	signal(SIGPIPE, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(listener, (void *)&a, sizeof a) < 0 || listen(listener, 1024) < 0) {
		perror("floor");
		return 1;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 128 * 1024);
	for (;;) {
		pthread_t thread;
		int s = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (s >= 0 && pthread_create(&thread, &attr, serve, (void *)(long)s) != 0)
			close(s);
	}
}

/* --- the client --------------------------------------------------------------- */
static int ask_auth(int s, const char *command)
{
	unsigned char mine[KEY], secret[KEY], in[KEY + KEY + SIGNATURE + TAG], shown[KEY + SIGNATURE];
	unsigned char plain[KEY + SIGNATURE + COMMAND], out[sizeof plain + TAG], status = 255;
	size_t length = strnlen(command, COMMAND);
	struct channel c;

	randombytes_buf(secret, KEY);
	crypto_scalarmult_base(mine, secret);
	if (put(s, mine, KEY) < 0 || get(s, in, sizeof in) < 0 || agree(&c, secret, in, mine, in) < 0)
		return 255;
	if (unseal(&c, SERVER, shown, in + KEY, sizeof in - KEY) || check_identity(&c, SERVER, shown))
		return 255;
	show_identity(&c, CLIENT, plain);
	memcpy(plain + KEY + SIGNATURE, command, length);
	size_t n = seal(&c, CLIENT, out, plain, KEY + SIGNATURE + length);
	if (put(s, out, n) < 0 || get(s, in, 1 + TAG) < 0 || unseal(&c, SERVER, &status, in, 1 + TAG))
		return 255;
	return status;
}

static int client(int port, const char *what, const char *argument)
{
	struct sockaddr_in a = address(port);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char head[32] = { what[0] };
	unsigned char status = 255;

	if (connect(s, (void *)&a, sizeof a) < 0) {
		perror("floor");
		return 255;
	}
	no_delay(s);
	if (what[0] == 'o')
		snprintf(head + 1, sizeof head - 1, "%s", argument);
	if (put(s, head, sizeof head) < 0)
		return 255;
	switch (what[0]) {
	case 'a':
		return ask_auth(s, argument);
	case 'o':
		pump(s, 1);
		return 0;
	case 'i':
		pump(0, s);
		shutdown(s, SHUT_WR);
		break;
	}
	return get(s, &status, 1) < 0 ? 255 : status;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "nothing") == 0)
		return 0;
	if (sodium_init() < 0)
		return 255;
	if (argc == 5 && strcmp(argv[1], "server") == 0) {
		uid = atoi(argv[3]);
		gid = atoi(argv[4]);
		return server(atoi(argv[2]));
	}
	if (argc >= 4 && strcmp(argv[1], "client") == 0)
		return client(atoi(argv[2]), argv[3], argc > 4 ? argv[4] : "");
	fprintf(stderr, "floor: see the top of floor.c\n");
	return 2;
}
