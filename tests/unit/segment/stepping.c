/* SPDX-License-Identifier: Apache-2.0 */
#include "stepping.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct stepping_shared *stepping; /* static because a signal handler needs it */

void require(bool fine, const char *what)
{
    if (fine)
        return;
    printf("Bail out! %s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static void pin_to_one_core(void)
{
    int here = sched_getcpu(); /* where there was time for us just now */
    cpu_set_t one;

    if (here < 0)
        return;
    CPU_ZERO(&one);
    CPU_SET((unsigned)here, &one);
    sched_setaffinity(0, sizeof one, &one);
}

void stepping_open(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* nothing in a buffer that a child could print once more */
    pin_to_one_core();
    stepping = mmap(NULL, sizeof *stepping, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(stepping != MAP_FAILED, "mmap");
}

double stepping_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Delivered to the victim between two of its instructions: a copy of it, the stepper's child, lies stopped here. When
 * it is woken, it returns to the very next instruction and runs on to the end. */
static void copy_here(int signal)
{
    long copy = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0L, 0L, 0L, 0L);

    (void)signal;
    if (copy != 0)
        atomic_store(&stepping->copy, (int32_t)copy);
    else
        syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
    syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
}

void stepping_here(void)
{
    struct sigaction action = {.sa_handler = copy_here};

    sigaction(SIGUSR2, &action, NULL);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
}

void stepping_over(void)
{
    atomic_store(&stepping->done, 1);
}

void stepping_end(void)
{
    stepping_over();
    _exit(0);
}

/* Lets the victim run on as asked (with a signal) until it stops; the signal that stopped it, -1: it has ended. */
static int proceed(pid_t victim, enum __ptrace_request request, int signal)
{
    int status;

    if (ptrace(request, victim, NULL, (void *)(intptr_t)signal) < 0 || waitpid(victim, &status, 0) != victim ||
        !WIFSTOPPED(status))
        return -1;
    return WSTOPSIG(status);
}

pid_t victim_start(void (*body)(void *arg), void *arg)
{
    int status;
    pid_t victim;

    atomic_store(&stepping->done, 0);
    victim = fork();
    if (victim == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body(arg);
        stepping_end();
    }
    require(victim > 0 && waitpid(victim, &status, 0) == victim && WIFSTOPPED(status), "cannot trace a victim");
    ptrace(PTRACE_SETOPTIONS, victim, NULL, (void *)PTRACE_O_EXITKILL);
    return victim;
}

bool victim_step(pid_t victim)
{
    return proceed(victim, PTRACE_SINGLESTEP, 0) == SIGTRAP && atomic_load(&stepping->done) == 0;
}

/* The victim itself comes back from its handler (two stops: into the system call sigreturn and out of it) to where it
 * was. */
pid_t victim_copy(pid_t victim)
{
    pid_t copy;
    int status;

    require(proceed(victim, PTRACE_CONT, SIGUSR2) == SIGSTOP, "the victim did not stop in its handler");
    copy = atomic_load(&stepping->copy);
    require(waitpid(copy, &status, WUNTRACED) == copy && WIFSTOPPED(status), "no copy of the victim");
    require(proceed(victim, PTRACE_SYSCALL, 0) == SIGTRAP && proceed(victim, PTRACE_SYSCALL, 0) == SIGTRAP,
            "the victim did not come back from its handler");
    return copy;
}

bool copy_run_to_end(pid_t copy)
{
    int status;

    kill(copy, SIGCONT);
    return waitpid(copy, &status, 0) == copy && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void victim_kill(pid_t victim)
{
    kill(victim, SIGKILL);
    waitpid(victim, NULL, 0);
}

unsigned victim_count(void (*body)(void *arg), void *arg)
{
    pid_t victim = victim_start(body, arg);
    unsigned count = 0;

    while (victim_step(victim))
        count++;
    victim_kill(victim);
    return count;
}
