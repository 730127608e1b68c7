/* SPDX-License-Identifier: Apache-2.0 */
#include "process/sandbox.h"

#include "base/clock.h"
#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

int sandbox_enter(uid_t uid, gid_t gid, pid_t parent, struct error *error)
{
    if (geteuid() == 0) {
        capng_clear(CAPNG_SELECT_BOTH);
        /* Needs CAP_SETPCAP, which a container may not have: with uid 0 gone and no_new_privs nothing comes back. */
        capng_apply(CAPNG_SELECT_BOUNDS);
        if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0) {
            error_set(error, -errno, "cannot become user %u group %u: %s", uid, gid, strerror(errno));
            return error_next(error, "started as root, homeport needs the capabilities SETUID and SETGID");
        }
    }
    /* Of an ordinary user as well: AmbientCapabilities= may have given it some. What is not permitted is not ambient.
     */
    capng_clear(CAPNG_SELECT_CAPS);
    if (capng_apply(CAPNG_SELECT_CAPS) < 0)
        return error_set(error, -EPERM, "cannot drop capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set(error, -errno, "cannot set no_new_privs: %s", strerror(errno));
    /* After the last change of credentials: each of those clears it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_set(error, -errno, "cannot set the parent's death signal: %s", strerror(errno));
    if (getppid() != parent)
        return error_set(error, -ESRCH, "the parent has gone");
    return 0;
}

void sandbox_untie(void)
{
    (void)prctl(PR_SET_PDEATHSIG, 0);
}

int sandbox_enter_nobody(pid_t parent, struct error *error)
{
    const struct passwd *nobody = geteuid() == 0 ? getpwnam("nobody") : NULL;

    return sandbox_enter(nobody != NULL ? nobody->pw_uid : 65534, nobody != NULL ? nobody->pw_gid : 65534, parent,
                         error);
}

void sandbox_signals(void)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

/* A signal handler is given nothing: what it needs can only be static. Written once, before the signals are caught. */
static struct {
    struct process_slot *slot;
    struct sigaction before[NSIG];
} dying;

static void write_last_words(int number)
{
    static const char text[] = "signal ";
    char *to = dying.slot->last_words;

    for (unsigned i = 0; i < sizeof text - 1; i++)
        *to++ = text[i];
    if (number >= 10)
        *to++ = (char)('0' + number / 10 % 10);
    *to++ = (char)('0' + number % 10);
    *to = '\0';
    sigaction(number, &dying.before[number], NULL); /* returning repeats the fault, with the old action in place */
    if (number == SIGABRT)
        raise(number);
}

void last_words_install(struct process_slot *slot)
{
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction action = {.sa_handler = write_last_words, .sa_flags = SA_ONSTACK};

    dying.slot = slot;
    for (unsigned i = 0; i < sizeof deadly / sizeof deadly[0]; i++)
        sigaction(deadly[i], &action, &dying.before[deadly[i]]);
}

bool sandbox_has_capability(unsigned number)
{
    return capng_get_caps_process() == 0 && capng_have_capability(CAPNG_EFFECTIVE, number) != 0;
}

unsigned long sandbox_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1024;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return (unsigned long)limit.rlim_cur;
}
