#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a command under restrictions of a systemd unit where there is no systemd. Needs root. The pid stays the same.

    confine.py SETTINGS COMMAND [ARGUMENT...]

SETTINGS is JSON: writable (folders: all else is read-only), capabilities (what the bounding set keeps), nofile (as far
as this machine allows), calls (the system calls that are allowed; others fail with EPERM), families (of sockets),
no_write_execute. What of these it cannot do is an error, never left out. Not among them: PrivateTmp=, ProtectHome= and
PrivateDevices= (the tests' own files lie there), RestrictNamespaces=, RestrictRealtime=, RestrictSUIDSGID=,
LockPersonality=, ProtectClock=, ProtectHostname= and ProtectKernelLogs= beyond what calls and capabilities cover.
"""
import ctypes
import errno
import json
import os
import resource
import socket
import sys

CLONE_NEWNS = 0x20000
MS_NOSUID_NODEV_NOEXEC, MS_BIND, MS_PRIVATE_RECURSIVE = 0xe, 0x1000, 0x44000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PROT_WRITE, PROT_EXEC, SHM_EXEC = 2, 4, 0o100000
LIBC = ctypes.CDLL(None, use_errno=True)


def check(status, what):
    if status != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind, flags, data=None):
    check(LIBC.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), data), f"mount {target}")


def read_only(path, on, flags=0):
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY if on else 0, 0 if on else MOUNT_ATTR_RDONLY, 0, 0)
    check(LIBC.syscall(ctypes.c_long(SYS_MOUNT_SETATTR), ctypes.c_int(AT_FDCWD), path.encode(), ctypes.c_uint(flags),
                       ctypes.byref(attributes), ctypes.c_size_t(32)), f"mount_setattr {path}")


def confine_files(writable):
    """ProtectSystem=strict, ReadWritePaths=, ProtectProc=invisible, ProtectKernelTunables=yes"""
    check(LIBC.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", None, MS_PRIVATE_RECURSIVE)
    mount("proc", "/proc", b"proc", MS_NOSUID_NODEV_NOEXEC, b"hidepid=invisible")
    for folder in writable:
        mount(folder, folder, None, MS_BIND)
    read_only("/", True, AT_RECURSIVE)
    for folder in writable:
        read_only(folder, False)


def confine_calls(settings):
    """SystemCallFilter= with SystemCallErrorNumber=EPERM, RestrictAddressFamilies=, MemoryDenyWriteExecute=. Two filters:
    the kernel takes the stricter answer. The one that might forbid loading another comes last."""
    import seccomp  # of Debian's python3-seccomp

    deny = seccomp.SyscallFilter(seccomp.ALLOW)
    for family in range(64):
        if family not in settings["families"]:
            deny.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), "socket", seccomp.Arg(0, seccomp.EQ, family))
    if settings["no_write_execute"]:
        both = PROT_WRITE | PROT_EXEC
        no = seccomp.ERRNO(errno.EPERM)
        deny.add_rule(no, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, both, both))
        deny.add_rule(no, "mprotect", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, PROT_EXEC))
        deny.add_rule(no, "pkey_mprotect", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, PROT_EXEC))
        deny.add_rule(no, "shmat", seccomp.Arg(2, seccomp.MASKED_EQ, SHM_EXEC, SHM_EXEC))
    allow = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in settings["calls"]:
        try:
            number = seccomp.resolve_syscall(seccomp.Arch(), name)
        except ValueError:
            continue  # newer than this library
        if number >= 0:  # else of another architecture
            allow.add_rule(seccomp.ALLOW, number)
    deny.load()
    allow.load()


def main(settings_text, *command):
    settings = json.loads(settings_text)
    if "calls_next" in settings:
        confine_calls(settings["calls_next"])
        os.execvp(command[0], command)
    settings["families"] = [int(getattr(socket, name)) for name in settings["families"]]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = min(settings["nofile"], hard) if hard != resource.RLIM_INFINITY else settings["nofile"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    confine_files(settings["writable"])
    keep = "".join(f",+{name}" for name in settings["capabilities"])
    os.execvp("setpriv", ["setpriv", f"--bounding-set=-all{keep}", "--inh-caps=-all", "--no-new-privs", "--",
                          "/usr/bin/python3", "-B", __file__, json.dumps({"calls_next": settings}), *command])


if __name__ == "__main__":
    main(*sys.argv[1:])
