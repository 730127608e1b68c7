# SPDX-License-Identifier: Apache-2.0
"""Each size of a datagram once each way: one by one, and in pairs that the kernel carries as one packet, as it does with
GRO (a sender with UDP_SEGMENT, a receiver with UDP_GRO). $HOMEPORT_SIZES is the step from one size to the next: 1 for
all of them, which takes minutes; what lies around the ends and a usual MTU is always among it."""
import contextlib
import os
import select
import socket
import struct
import threading

import pytest
from homeport import Site
from ike import udp_socket

UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
LARGEST = 65507
STEP = int(os.environ.get("HOMEPORT_SIZES", "31"))
SIZES = sorted({*range(0, LARGEST + 1, STEP), *range(64), *range(1400, 1480), *range(LARGEST // 2 - 8, LARGEST // 2 + 8),
                *range(LARGEST - 32, LARGEST + 1)})
NOISE = os.urandom(LARGEST)


def payloads(size, pairs):
    """One datagram of the size, or two that differ where they fit one packet. None is IKE, ESP marker or keepalive."""
    head = struct.pack("!HHI", 0x5853, 0, size)
    first = (head + NOISE)[:size]
    return [first, (head + NOISE[::-1])[:size]] if pairs and 0 < size <= LARGEST // 2 else [first]


def send(one, data, target, pairs):
    """All in one call, and one packet, if they are a pair."""
    control = [(UDP, UDP_SEGMENT, struct.pack("=H", len(data[0])))] if pairs and len(data) > 1 else []
    one.sendmsg(data, control, 0, target)


def receive(one):
    """What one read gives, cut where the kernel has put it together; and where it came from."""
    data, control, _, source = one.recvmsg(1 << 17, 128)
    for level, kind, value in control:
        if (level, kind) == (UDP, UDP_GRO):
            size = struct.unpack("=H", value[:2])[0]
            return [data[at:at + size] for at in range(0, len(data), size)], source
    return [data], source


class Echo:
    """Sends back what comes, in the pieces in which it came."""

    def __init__(self, address, port, pairs):
        self.one, self.pairs, self.coalesced, self.stopping = socket_of(address, port, pairs), pairs, 0, False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping:
            if select.select([self.one], [], [], 0.2)[0]:
                data, source = receive(self.one)
                self.coalesced += len(data) > 1
                send(self.one, data, source, self.pairs)

    def stop(self):
        self.stopping = True
        self.thread.join(5)
        self.one.close()


def socket_of(address, port, pairs):
    one = udp_socket(address, port)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if pairs:
        one.setsockopt(UDP, UDP_GRO, 1)
    return one


def asks(one, target, data, pairs):
    send(one, data, target, pairs)
    answers = []
    while len(answers) < len(data):
        assert select.select([one], [], [], 10)[0], f"{len(answers)} of {len(data)} answers of {len(data[0])} octets came"
        pieces, source = receive(one)
        assert source == target
        answers += pieces
    assert answers == data, f"{len(data[0])} octets came back as others"


@pytest.mark.parametrize("pairs", [False, True], ids=["singly", "with GRO"])
def test_every_size_passes_once_each_way(pairs):
    with Site(servers=1, responders=False) as site:
        site.start()
        echo = Echo(site.addresses["vpn1"], site.natt_port, pairs)
        with contextlib.closing(socket_of(site.client_address(0), 0, pairs)) as one:
            for size in SIZES:
                asks(one, (site.vip, site.natt_port), payloads(size, pairs), pairs)
        echo.stop()
        sent = [len(data) for size in SIZES for data in payloads(size, pairs)]
        status = site.daemon.cli("status")
        for name, wanted in (("datagrams_from_clients", len(sent)), ("datagrams_to_servers", len(sent)),
                             ("datagrams_from_servers", len(sent)), ("datagrams_to_clients", len(sent)),
                             ("bytes_to_servers", sum(sent)), ("bytes_to_clients", sum(sent)), ("sessions_begun", 1)):
            assert status["counters"][name] == wanted, name
        assert status["lanes"] == []
        if pairs:
            assert echo.coalesced > len(SIZES) // 4, "pairs have come as one packet"
            assert status["counters"]["gso_runs"] > len(SIZES) // 4
