/* SPDX-License-Identifier: Apache-2.0 */
/* What a started process gives up before it touches anything from outside, and what it leaves behind when it dies. */
#ifndef PROCESS_SANDBOX_H
#define PROCESS_SANDBOX_H

#include "base/error.h"
#include "segment/layout.h"
#include <stdbool.h>
#include <sys/types.h>

/* [worker, monitor, check] Becomes uid:gid without supplementary groups, with no capability left to get back
 * (bounding set empty where the kernel lets us), no_new_privs, and killed when its parent dies, until sandbox_untie. An
 * ordinary user stays who it is, without capabilities. transparent: but those two that sandbox_check_transparent is
 * about. Errors: -EPERM. */
int sandbox_enter(uid_t uid, gid_t gid, bool transparent, pid_t parent, struct error *error);
/* [master] Can a worker of ours speak as its clients? Tried as well as looked up: what counts is what the owner of this
 * network lets us do. -EPERM: NET_RAW or NET_BIND_SERVICE is missing; error says which and how to get it. */
int sandbox_check_transparent(struct error *error);
/* [check] The same, as `nobody`: for who runs foreign code before anybody knows whom to become. */
int sandbox_enter_nobody(pid_t parent, struct error *error);
/* [worker, monitor] It is made: from now on it may outlive its parent. */
void sandbox_untie(void);
/* [worker, monitor] SIGINT, SIGTERM and SIGHUP are the master's: a Ctrl-C reaches the whole group, but only the master
 * ends things, in order. SIGPIPE is an error code here. */
void sandbox_signals(void);
/* Catches the deadly signals, writes which one into the slot's last words, and dies of it all the same. */
void last_words_install(struct process_slot *slot);
/* Of this process, effective. number: CAP_KILL and so on. */
bool sandbox_has_capability(unsigned number);
/* Raises the soft limit of descriptors to the hard one and returns it. */
unsigned long sandbox_descriptors(void);

#endif
