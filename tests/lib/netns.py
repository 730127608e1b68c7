# SPDX-License-Identifier: Apache-2.0
"""A network namespace for one test: real ports 500 and 4500, addresses of one's own, fragments. Needs root."""
import contextlib
import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, timeout=10)


def check(status):
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def own_net():
    """Inside, this thread and whatever it starts have loopback and nothing else; sockets stay where they were made."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        check(LIBC.unshare(CLONE_NEWNET))
        try:
            ip("link", "set", "lo", "up")
            yield
        finally:
            check(LIBC.setns(before, 0))
    finally:
        os.close(before)
