# SPDX-License-Identifier: Apache-2.0
"""DSCP and ECN are carried both ways, datagram by datagram, within and between the families, also where many datagrams
leave in one call. Everything on the machine's own loopback, without root."""
import contextlib
import os
import select
import signal
import socket
import struct

import pytest
from homeport import Site, endpoint, wait_for
from ike import place, udp_socket

GROUP = {"home": {"plugin": "match_across_services"}}
RECEIVE = {socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS, 13), socket.AF_INET6: (socket.IPPROTO_IPV6, 67, 66)}
EF_ECT0, AF41_ECT1, CE, CS6 = 0xB8 | 2, 0x88 | 1, 3, 0xC0
FAMILIES = pytest.mark.parametrize("clients, servers", [
    (4, 4), *(pytest.param(*pair, marks=pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"),
                                                           reason="this machine has no IPv6 on loopback"))
              for pair in ((6, 6), (4, 6), (6, 4)))])


class Marked:
    """A UDP socket that says how it sends, and how what comes was sent."""

    def __init__(self, address, port=0):
        self.socket = udp_socket(address, port)
        self.level, self.kind, wish = RECEIVE[self.socket.family]
        self.socket.setsockopt(self.level, wish, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.port = self.socket.getsockname()[1]

    def send(self, data, mark, target):
        self.socket.sendmsg([data], [(self.level, self.kind, struct.pack("=i", mark))], 0, target)

    def receive(self, timeout=5.0):
        """(data, mark, source)"""
        assert select.select([self.socket], [], [], timeout)[0], "nothing came"
        data, messages, _, source = self.socket.recvmsg(65536, 256)
        found = [value for level, kind, value in messages if (level, kind) == (self.level, self.kind)]
        return data, found[0][0], source

    def close(self):
        self.socket.close()


@contextlib.contextmanager
def play(clients, servers):
    """A client, a server and the daemon between them: (site, client, where to write to, server)."""
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(Site(servers=1, responders=False))
        vip, own = ("::1", "::1") if clients == 6 else (site.vip, site.client_address(0))
        server = stack.enter_context(contextlib.closing(Marked("::1" if servers == 6 else site.addresses["vpn1"])))
        client = stack.enter_context(contextlib.closing(Marked(own)))
        with contextlib.closing(udp_socket(vip)) as one:
            port = one.getsockname()[1]
        site.addresses["vpn1"] = server.socket.getsockname()[0]
        site.start(GROUP, "home", pools={"all": {"port": server.port}},
                   services={"ike": {"listen": endpoint(vip, port)}, "nat-t": None})
        yield site, client, place(vip, port), server


@FAMILIES
def test_every_mark_arrives_as_it_was_sent_both_ways(clients, servers):
    with play(clients, servers) as (_, client, vip, server):
        for mark in range(256):
            client.send(b"there %d" % mark, mark, vip)
            data, seen, cell = server.receive()
            assert (data, seen) == (b"there %d" % mark, mark)
            server.send(b"back %d" % mark, 255 - mark, cell)
            data, seen, source = client.receive()
            assert (data, seen, source) == (b"back %d" % mark, 255 - mark, vip)


@contextlib.contextmanager
def held(site):
    """What is sent meanwhile is read by the workers all at once."""
    for pid in site.daemon.workers():
        site.daemon.kill(pid, signal.SIGSTOP)
        wait_for(lambda one=pid: open(f"/proc/{one}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()[0] == "T",
                 what="a worker that has stopped")
    yield
    for pid in site.daemon.workers():
        site.daemon.kill(pid, signal.SIGCONT)


@FAMILIES
@pytest.mark.parametrize("marks", [[EF_ECT0], [EF_ECT0, 0], [0, 0, 0, EF_ECT0, EF_ECT0, AF41_ECT1, AF41_ECT1, AF41_ECT1,
                                                             CE, CS6, CS6, 0, 0]],
                         ids=["one", "alternating", "in_groups"])
def test_marks_of_datagrams_that_leave_together_stay_their_own(clients, servers, marks):
    with play(clients, servers) as (site, client, vip, server):
        client.send(b"hello", 0, vip)
        cell = server.receive()[2]
        sent = [(struct.pack("!I", number) + bytes(96), marks[number % len(marks)]) for number in range(130)]
        with held(site):
            for data, mark in sent:
                client.send(data, mark, vip)
        assert [server.receive()[:2] for _ in sent] == sent
        with held(site):
            for data, mark in sent:
                server.send(data, mark, cell)
        assert [client.receive()[:2] for _ in sent] == sent
        runs = site.daemon.cli("status")["counters"]["gso_runs"]
        assert runs >= 4 if len(marks) != 2 else runs == 0, "a run is of one mark"


@FAMILIES
def test_marks_are_carried_after_workers_were_killed_and_after_a_reload(clients, servers):
    with play(clients, servers) as (site, client, vip, server):
        client.send(b"before", EF_ECT0, vip)
        cell = server.receive()[2]
        for change in ("kill", "kill with keepers", "reload"):
            if change == "reload":
                site.daemon.reload()
            else:
                dead = site.daemon.workers()
                for pid in [*(site.daemon.keepers() if change != "kill" else []), *dead]:
                    with contextlib.suppress(ProcessLookupError):  # a dead worker's keeper, which has given all
                        site.daemon.kill(pid)
            client.send(change.encode(), EF_ECT0, vip)
            assert server.receive() == (change.encode(), EF_ECT0, cell)
            server.send(change.encode(), AF41_ECT1, cell)
            assert client.receive() == (change.encode(), AF41_ECT1, vip)
