/* Measures how long PAM itself takes for a login: pam_start to pam_end in one process that has
 * loaded its libraries. Usage: pam SERVICE USER PASSWORD; for each line on standard input it does
 * one login, and writes the microseconds that it took to standard output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <security/pam_appl.h>

static int converse(int n, const struct pam_message **messages, struct pam_response **replies, void *password)
{
    struct pam_response *all = calloc((size_t)n, sizeof *all);
    if (all == NULL)
        return PAM_BUF_ERR;
    for (int i = 0; i < n; i++)
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF || messages[i]->msg_style == PAM_PROMPT_ECHO_ON)
            all[i].resp = strdup(password);
    *replies = all;
    return PAM_SUCCESS;
}

static int log_in(const char *service, const char *user, char *password)
{
    struct pam_conv conversation = {converse, password};
    pam_handle_t *pam = NULL;
    int r = pam_start(service, user, &conversation, &pam);
    if (r == PAM_SUCCESS)
        r = pam_set_item(pam, PAM_RHOST, "127.0.0.1");
    if (r == PAM_SUCCESS)
        r = pam_authenticate(pam, PAM_DISALLOW_NULL_AUTHTOK);
    if (r == PAM_SUCCESS)
        r = pam_acct_mgmt(pam, 0);
    if (r == PAM_SUCCESS)
        r = pam_setcred(pam, PAM_ESTABLISH_CRED);
    if (r == PAM_SUCCESS)
        r = pam_open_session(pam, 0);
    if (r == PAM_SUCCESS)
        r = pam_close_session(pam, 0);
    if (r == PAM_SUCCESS)
        r = pam_setcred(pam, PAM_DELETE_CRED);
    return pam_end(pam, r) == PAM_SUCCESS ? r : PAM_ABORT;
}

int main(int argc, char **argv)
{
    char line[16];
    if (argc != 4)
        return 2;
    while (fgets(line, sizeof line, stdin)) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        int r = log_in(argv[1], argv[2], argv[3]);
        clock_gettime(CLOCK_MONOTONIC, &b);
        if (r != PAM_SUCCESS) {
            fprintf(stderr, "pam: %d\n", r);
            return 1;
        }
        printf("%ld\n", (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000);
        fflush(stdout);
    }
    return 0;
}
