# SPDX-License-Identifier: Apache-2.0
"""A smaller link on either side of the balancer, at its own interface or beyond a router: whatever the sender says of
fragments, nothing vanishes for good. Who has to learn of the smaller link is the kernel that sends into that path:
before the balancer the client's or the server's, behind it the balancer's.

    client --cable 0-- router --cable 1-- balancer --cable 2-- router --cable 3-- server
"""
import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess

import pytest
from homeport import Site, endpoint, wait_for
from ike import place, udp_socket
from netns import own_net, row

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces of its own")

GROUP = {"home": {"plugin": "match_across_services"}}
FAMILIES = pytest.mark.parametrize("clients, servers", [(4, 4), (6, 6), (4, 6), (6, 4)])
SMALL = 1300
DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 24)}
DONT, DO = 0, 2
# Fits a link of 1500, does not fit one of 1300; and what is in fragments from the start.
SIZES = {DO: (1000, 1240, 1273, 1400, 1452), DONT: (1000, 1240, 1273, 1400, 1452, 4000, 20000, 65507)}


def address(cable, end, family):
    return f"10.0.{cable}.{end}" if family == 4 else f"fd00:{cable}::{end}"


def discover(one, how):
    level, option, _ = DISCOVER[one.family]
    one.setsockopt(level, option, how)


def path_mtu(one):
    level, _, option = DISCOVER[one.family]
    return one.getsockopt(level, option)


class Play:
    """A client and a server, and the daemon between them. down: the row's direction towards the server."""

    def __init__(self, site, nets, client, server, vip):
        self.site, self.nets, self.client, self.server, self.vip = site, nets, client, server, vip
        self.client.connect(vip)
        assert self.arrives(self.client, b"hello", self.server)
        self.cell = self.source

    def receive(self, one, timeout):
        if not select.select([one], [], [], timeout)[0]:
            return None
        data, self.source = one.recvfrom(65536)
        return data

    def arrives(self, one, data, there, target=None, timeout=5.0):
        one.sendto(data, target) if target else one.send(data)
        return self.receive(there, timeout) == data

    def down(self, data, timeout=5.0):
        return self.arrives(self.client, data, self.server, None, timeout)

    def up(self, data, timeout=5.0):
        return self.arrives(self.server, data, self.client, self.cell, timeout)


@contextlib.contextmanager
def play(clients, servers, mtus):
    with own_net(), row(2, 2, mtus) as nets, Site(servers=1, responders=False) as site, contextlib.ExitStack() as stack:
        vip = address(1, 2, clients)
        server = stack.enter_context(contextlib.closing(nets[4](udp_socket, address(3, 2, servers), 4500)))
        client = stack.enter_context(contextlib.closing(nets[0](udp_socket, address(0, 1, clients))))
        for one in (server, client):
            one.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        site.start(GROUP, "home", servers={"vpn1": {"address": address(3, 2, servers)}},
                   services={"ike": None, "nat-t": {"listen": endpoint(vip, 4500)}})
        yield Play(site, nets, client, server, place(vip, 4500))


def payload(size, number=0):
    return (struct.pack("!I", 0x58000000 + number) + os.urandom(max(0, size - 4)))[:size]


@FAMILIES
@pytest.mark.parametrize("side, where, small", [("server", "next_link", 2), ("server", "beyond_a_router", 3),
                                                ("client", "next_link", 1), ("client", "beyond_a_router", 0)])
def test_no_size_is_a_black_hole_behind_the_balancer(clients, servers, side, where, small):
    with play(clients, servers, [SMALL if number == small else 1500 for number in range(4)]) as it:
        send, family = (it.down, servers) if side == "server" else (it.up, clients)
        # IPv6 routers do not cut: the first that is too large is lost, and tells the balancer's kernel so.
        lost = family == 6 and where == "beyond_a_router"
        for how in (DO, DONT):
            for one in (it.client, it.server):
                discover(one, how)
            for number, size in enumerate(SIZES[how]):
                if lost and size > SMALL - 48:
                    lost = send(payload(size, number), 0.5)
                    assert not lost, "the router had something to say"
                for _ in range(3):
                    assert send(payload(size, number)), f"{size} octets"
        one, there, target = (it.client, it.server, it.vip) if side == "server" else (it.server, it.client, it.cell)
        for size in (1400, 1200):  # of one size in a row: they would leave in one call
            sent = [payload(size, number) for number in range(40)]
            for pid in it.site.daemon.workers():
                it.site.daemon.kill(pid, signal.SIGSTOP)
            for data in sent:
                one.sendto(data, target)
            for pid in it.site.daemon.workers():
                it.site.daemon.kill(pid, signal.SIGCONT)
            assert [it.receive(there, 5) for _ in sent] == sent
        assert it.down(b"and the other way") and it.up(b"too")
        counters = it.site.daemon.cli("status")["counters"]
        assert (counters["dropped_send_to_server"], counters["dropped_send_to_client"]) == (0, 0)
        assert counters["gso_runs"] > 0


@FAMILIES
@pytest.mark.parametrize("side", ["server", "client"])
def test_a_smaller_link_before_the_balancer_is_told_to_the_sender(clients, servers, side):
    """The router tells it, and what says so passes the balancer by; what fits then arrives."""
    with play(clients, servers, [1500, SMALL, 1500, 1500] if side == "client" else [1500, 1500, SMALL, 1500]) as it:
        one = it.client if side == "client" else it.server
        send, family = (it.down, clients) if side == "client" else (it.up, servers)
        if side == "server":
            one.connect(it.cell)  # so that its own path is asked about
        discover(one, DO)
        assert not send(payload(1400), 0.5), "too large for the link"
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE and path_mtu(one) == SMALL
        with pytest.raises(OSError) as refused:
            one.send(payload(1400))
        assert refused.value.errno == errno.EMSGSIZE
        most = SMALL - (28 if family == 4 else 48)
        assert send(payload(most))
        discover(one, DONT)
        assert send(payload(1400)) and send(payload(9000))


def test_too_big_from_behind_the_balancer_reaches_the_balancer_s_kernel():
    with play(6, 6, [1500, 1500, 1500, SMALL]) as it:
        assert not it.down(payload(1400), 0.5)

        def learnt():
            return f"mtu {SMALL}" in subprocess.run(["ip", "-6", "route", "get", address(3, 2, 6)], capture_output=True,
                                                    text=True, timeout=10, check=True).stdout

        wait_for(learnt, what="the smaller MTU among the balancer's routes")
        assert it.down(payload(1400))
        before = it.cell
        for pid in [*it.site.daemon.keepers(), *it.site.daemon.workers()]:
            it.site.daemon.kill(pid)
        assert it.down(payload(1400, 1)) and it.source == before, "a worker's successor knows it as well"
