/* SPDX-License-Identifier: Apache-2.0 */
#include "process/sandbox.h"

#include "base/clock.h"
#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* What is permitted goes with uid 0 unless it is asked to stay. */
static int become(uid_t uid, gid_t gid, bool transparent, struct error *error)
{
    capng_clear(CAPNG_SELECT_BOTH);
    /* Needs CAP_SETPCAP, which a container may not have: with uid 0 gone and no_new_privs nothing comes back. */
    capng_apply(CAPNG_SELECT_BOUNDS);
    if ((transparent && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) || setgroups(0, NULL) < 0 ||
        setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0) {
        error_set(error, -errno, "cannot become user %u group %u: %s", uid, gid, strerror(errno));
        return error_next(error, "started as root, homeport needs the capabilities SETUID and SETGID");
    }
    (void)prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    return 0;
}

int sandbox_enter(uid_t uid, gid_t gid, bool transparent, pid_t parent, struct error *error)
{
    int status = geteuid() == 0 ? become(uid, gid, transparent, error) : 0;

    if (status < 0)
        return status;
    /* Of an ordinary user as well: AmbientCapabilities= may have given it some. What is not inheritable is not ambient.
     */
    capng_clear(CAPNG_SELECT_CAPS);
    if (transparent)
        capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_RAW, CAP_NET_BIND_SERVICE, -1);
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

/* As a client at port 1 of an address that is not ours (RFC 5737). NULL: it can be done. */
static const char *lacks_for_clients(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr = {.s_addr = htonl(0xc6336407u)}};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1;
    const char *lacks = NULL;

    if (!sandbox_has_capability(CAP_NET_RAW) ||
        (fd >= 0 && setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on) < 0))
        lacks = "NET_RAW";
    else if (!sandbox_has_capability(CAP_NET_BIND_SERVICE) ||
             (fd >= 0 && bind(fd, (const struct sockaddr *)&name, sizeof name) < 0 && errno == EACCES))
        lacks = "NET_BIND_SERVICE";
    if (fd >= 0)
        close(fd);
    return lacks;
}

int sandbox_check_transparent(struct error *error)
{
    const char *lacks = lacks_for_clients();

    if (lacks == NULL)
        return 0;
    error_set(error, -EPERM, "source: transparent needs the capability %s, which is missing", lacks);
    return error_next(error,
                      "add it (systemd: CapabilityBoundingSet=, without root AmbientCapabilities= too; container: "
                      "--cap-add=%s), or write source: nat",
                      lacks);
}

void sandbox_untie(void)
{
    (void)prctl(PR_SET_PDEATHSIG, 0);
}

int sandbox_enter_nobody(pid_t parent, struct error *error)
{
    const struct passwd *nobody = geteuid() == 0 ? getpwnam("nobody") : NULL;

    return sandbox_enter(nobody != NULL ? nobody->pw_uid : 65534, nobody != NULL ? nobody->pw_gid : 65534, false,
                         parent, error);
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
