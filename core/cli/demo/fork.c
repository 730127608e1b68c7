/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/fork.h"

#include <signal.h>
#include <unistd.h>

pid_t fork_clean(void)
{
    sigset_t all, before;
    pid_t pid;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0) {
        (void)setpgid(0, 0);
        for (int number = 1; number < NSIG; number++)
            signal(number, SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}
