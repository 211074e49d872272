/* A PAM module for the tests. What it does stands in its arguments:
 *   ask          asks for a code, with echo; 4711 is right
 *   hush         the same without echo
 *   tell         gives an error text and an information text
 *   wait=FIFO    is content once something has been written there, and says that it waits
 *   hang, crash  when asked to authenticate
 *   hang=open    when asked to open the session; so does crash=open
 *   hang=close   when asked to close it
 *   until=FIFO   opens the session once something has been written there
 *   ask=open     asks when it opens the session
 *   fail=open    refuses to open the session
 *   rename=USER  makes USER of whoever comes
 *   env=N=V      sets a variable
 *   log=FILE     writes a line for each session and credential, opened or closed
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <security/pam_modules.h>
#include <security/pam_ext.h>

static const char *argument(int argc, const char **argv, const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], name, n) == 0 && (argv[i][n] == '=' || argv[i][n] == 0))
            return argv[i][n] ? argv[i] + n + 1 : "";
    return NULL;
}

/* One write: lines of several processes do not mix. */
static void note(pam_handle_t *pam, int argc, const char **argv, const char *what)
{
    const char *file = argument(argc, argv, "log"), *user = NULL, *rhost = NULL, *tty = NULL, *ruser = NULL;
    if (file == NULL)
        return;
    pam_get_user(pam, &user, NULL);
    pam_get_item(pam, PAM_RHOST, (const void **)&rhost);
    pam_get_item(pam, PAM_TTY, (const void **)&tty);
    pam_get_item(pam, PAM_RUSER, (const void **)&ruser);
    const char *tag = pam_getenv(pam, "TAG");
    char line[512];
    int n = snprintf(line, sizeof line, "%s user=%s rhost=%s tty=%s ruser=%s tag=%s pid=%d\n", what,
        user ? user : "?", rhost ? rhost : "?", tty ? tty : "?", ruser ? ruser : "?", tag ? tag : "-", (int)getpid());
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, line, (size_t)n) != n)
        abort();
    close(fd);
}

static int ask(pam_handle_t *pam, int style)
{
    char *answer = NULL;
    if (pam_prompt(pam, style, &answer, "Code: ") != PAM_SUCCESS || answer == NULL)
        return PAM_AUTH_ERR;
    int right = strcmp(answer, "4711") == 0;
    free(answer);
    return right ? PAM_SUCCESS : PAM_AUTH_ERR;
}

static void hang_or_crash(int argc, const char **argv, const char *when)
{
    const char *hang = argument(argc, argv, "hang"), *crash = argument(argc, argv, "crash");
    while (hang != NULL && strcmp(hang, when) == 0)
        pause();
    if (crash != NULL && strcmp(crash, when) == 0)
        abort();
}

static int tell(pam_handle_t *pam, int argc, const char **argv)
{
    if (argument(argc, argv, "tell") != NULL) {
        pam_error(pam, "an error text\033[2J");
        pam_info(pam, "an information text");
    }
    return PAM_SUCCESS;
}

/* Waits until somebody has written to a FIFO; what he wrote is left for others. */
static int is_open(const char *fifo)
{
    struct pollfd written = {.fd = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC), .events = POLLIN};
    int ready = written.fd >= 0 && poll(&written, 1, -1) == 1;
    close(written.fd);
    return ready;
}

int pam_sm_authenticate(pam_handle_t *pam, int flags, int argc, const char **argv)
{
    (void)flags;
    hang_or_crash(argc, argv, "");
    tell(pam, argc, argv);
    const char *wait = argument(argc, argv, "wait");
    if (wait != NULL) {
        note(pam, argc, argv, "waits");
        if (!is_open(wait))
            return PAM_AUTH_ERR;
    }
    const char *name = argument(argc, argv, "rename"), *variable = argument(argc, argv, "env");
    if (name != NULL && pam_set_item(pam, PAM_USER, name) != PAM_SUCCESS)
        return PAM_AUTH_ERR;
    if (variable != NULL && pam_putenv(pam, variable) != PAM_SUCCESS)
        return PAM_AUTH_ERR;
    if (argument(argc, argv, "ask") != NULL)
        return ask(pam, PAM_PROMPT_ECHO_ON);
    if (argument(argc, argv, "hush") != NULL)
        return ask(pam, PAM_PROMPT_ECHO_OFF);
    return PAM_SUCCESS;
}

int pam_sm_setcred(pam_handle_t *pam, int flags, int argc, const char **argv)
{
    note(pam, argc, argv, flags & PAM_DELETE_CRED ? "cred-deleted" : "cred-established");
    return PAM_SUCCESS;
}

int pam_sm_acct_mgmt(pam_handle_t *pam, int flags, int argc, const char **argv)
{
    const char *name = argument(argc, argv, "rename");
    (void)flags;
    if (name != NULL && pam_set_item(pam, PAM_USER, name) != PAM_SUCCESS)
        return PAM_AUTH_ERR;
    return tell(pam, argc, argv);
}

int pam_sm_chauthtok(pam_handle_t *pam, int flags, int argc, const char **argv)
{
    (void)pam, (void)flags, (void)argc, (void)argv;
    return PAM_SUCCESS;
}

int pam_sm_open_session(pam_handle_t *pam, int flags, int argc, const char **argv)
{
    (void)flags;
    hang_or_crash(argc, argv, "open");
    const char *until = argument(argc, argv, "until"), *asks = argument(argc, argv, "ask");
    if (until != NULL && !is_open(until))
        return PAM_SESSION_ERR;
    if (asks != NULL && strcmp(asks, "open") == 0 && ask(pam, PAM_PROMPT_ECHO_OFF) != PAM_SUCCESS)
        return PAM_SESSION_ERR;
    const char *fail = argument(argc, argv, "fail");
    if (fail != NULL && strcmp(fail, "open") == 0)
        return PAM_SESSION_ERR;
    note(pam, argc, argv, "opened");
    return tell(pam, argc, argv);
}

int pam_sm_close_session(pam_handle_t *pam, int flags, int argc, const char **argv)
{
    (void)flags;
    hang_or_crash(argc, argv, "close");
    note(pam, argc, argv, "closed");
    return PAM_SUCCESS;
}
