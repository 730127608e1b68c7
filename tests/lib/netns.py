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


class Here:
    """The namespace of the calling thread, as one of a row()."""

    def __call__(self, function, *arguments):
        return function(*arguments)

    def thread(self):
        return threading.get_native_id()


class Net:
    """Another namespace: calls what it is given in there and returns what that returns."""

    def __init__(self):
        self.executor = concurrent.futures.ThreadPoolExecutor(1)
        self(lambda: check(LIBC.unshare(CLONE_NEWNET)))
        self(ip, "link", "set", "lo", "up")

    def __call__(self, function, *arguments):
        return self.executor.submit(function, *arguments).result(20)

    def thread(self):
        return self(threading.get_native_id)


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def batch(lines):
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True, timeout=10)


@contextlib.contextmanager
def row(before, after, mtus):
    """Namespaces in a row, this one (own_net) among them, so many before and after it, each with a cable to the next:
    cable N from namespace N to N + 1 has the addresses 10.0.N.1 and .2, fd00:N::1 and ::2 and this MTU. All forward but
    this one, which is what the others' traffic ends at."""
    nets = [*(Net() for _ in range(before)), Here(), *(Net() for _ in range(after))]
    try:
        for net in nets:
            net(write, "/proc/sys/net/ipv6/conf/default/accept_dad", "0")  # link-local addresses serve at once as well
        for number, (near, far) in enumerate(zip(nets, nets[1:])):
            near(ip, "link", "add", f"cable{number}", "type", "veth", "peer", "name", f"cable{number}", "netns",
                 str(far.thread()))
        for place, net in enumerate(nets):
            lines = []
            for number, end in ((place - 1, 2), (place, 1)):
                if 0 <= number < len(mtus):
                    lines += [f"link set cable{number} mtu {mtus[number]} up",
                              f"addr add 10.0.{number}.{end}/24 dev cable{number}",
                              f"addr add fd00:{number}::{end}/64 dev cable{number} nodad"]
            for number in range(len(mtus)):  # the cables that are not ours, by the neighbour on their side
                if number not in (place - 1, place):
                    cable, end = (place, 2) if number > place else (place - 1, 1)
                    lines += [f"route add 10.0.{number}.0/24 via 10.0.{cable}.{end}",
                              f"route add fd00:{number}::/64 via fd00:{cable}::{end}"]
            net(batch, lines)
            if not isinstance(net, Here):
                net(write, "/proc/sys/net/ipv4/ip_forward", "1")
                net(write, "/proc/sys/net/ipv6/conf/all/forwarding", "1")
        yield nets
    finally:
        for net in nets:
            if isinstance(net, Net):
                net.executor.shutdown()


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
