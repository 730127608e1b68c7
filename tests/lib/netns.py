# SPDX-License-Identifier: Apache-2.0
"""A network namespace for one test: real ports 500 and 4500, addresses of one's own, fragments. Needs root."""
import concurrent.futures
import contextlib
import ctypes
import os
import subprocess
import threading

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


@contextlib.contextmanager
def neighbour_net(own, *theirs):
    """One more, at the other end of a cable from here. own: ADDRESS/LENGTH of this end; theirs: those of the other, whose
    default route is this end. Yields a function that calls what it is given in there and returns what that returns.
    IPv6 addresses are usable at once; a link-local one of the kernel's own is not made."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        def inside(function, *arguments):
            return thread.submit(function, *arguments).result(20)

        inside(lambda: check(LIBC.unshare(CLONE_NEWNET)))
        ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(inside(threading.get_native_id)))
        for run, addresses in (lambda *words: ip(*words), [own]), (lambda *words: inside(ip, *words), theirs):
            run("link", "set", "cable", "addrgenmode", "none")
            for address in addresses:
                run("addr", "add", address, "dev", "cable", *(["nodad"] if ":" in address else []))
            run("link", "set", "cable", "up")
        inside(ip, *(["-6"] if ":" in own else []), "route", "add", "default", "via", own.split("/")[0], "dev", "cable")
        yield inside
