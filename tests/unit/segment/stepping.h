/* SPDX-License-Identifier: Apache-2.0 */
/* A process that is stopped at each of its instructions, or copied there.
 *
 * victim_start() forks; the child runs `body`, which prepares, says stepping_here(), does what is to be stepped through
 * and says stepping_end(). The parent lets it go on by an instruction at a time. A system call is one instruction.
 * Stepper and victim share one core, so that nothing but the steps decides who has come how far.
 *
 * Plain programs alone use this: what single-steps and kills is no place for Criterion. */
#ifndef STEPPING_H
#define STEPPING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct stepping_shared {       /* of the stepper, the victim and its copies */
    _Atomic uint64_t words[4]; /* for what the victim has to say; a program's own */
    _Atomic int32_t copy;      /* pid of the newest copy */
    _Atomic int32_t done;      /* the operation has ended */
};
extern struct stepping_shared *stepping;

void stepping_open(void); /* before anything else: one core, shared memory, the program's output line by line */
void require(bool fine, const char *what); /* or the program bails out */
double stepping_ms(void);

/* In the victim. */
void stepping_here(void);
void stepping_over(void); /* what follows is not stepped through */
_Noreturn void stepping_end(void);

/* Returns when the victim is at stepping_here(). It dies with the stepper. */
pid_t victim_start(void (*body)(void *arg), void *arg);
bool victim_step(pid_t victim); /* one instruction; false: the operation is at its end */
/* A copy of the victim as it is now, stopped, as a child of the stepper. It has the victim's descriptors: what it does
 * to a socket or an epoll instance, once it is woken, it does to the victim's. */
pid_t victim_copy(pid_t victim);
bool copy_run_to_end(pid_t copy);                          /* wakes it up; true: its end was a good one */
void victim_kill(pid_t victim);                            /* or a copy; and waits for it */
unsigned victim_count(void (*body)(void *arg), void *arg); /* the instructions from beginning to end */

#endif
