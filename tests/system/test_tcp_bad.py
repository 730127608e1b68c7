# SPDX-License-Identifier: Apache-2.0
"""What the ends of a TCP stream do that they should not: reset at any moment, never accept, take nothing for a minute.
$HOMEPORT_STALL is for how many seconds nothing is taken, as in test_tcp.py: 60 for the whole minute."""
import contextlib
import os
import socket
import threading
import time

import pytest
from homeport import descriptors, wait_for
from streams import connect, exactly, is_reset, named, read_all, reset, tcp_socket
from test_tcp import GROUP, MIB, TcpSite, cpu_seconds, is_pattern, run, send_pattern
from trace import Trace

STALL = float(os.environ.get("HOMEPORT_STALL", 3))


@pytest.fixture(name="site")
def fixture_site():
    with TcpSite(servers=1) as site:
        yield site


@contextlib.contextmanager
def deaf(site):
    """The server's queue is full, so that it does not answer a SYN any more."""
    site.tcp["vpn1"].stop()
    site.open_server("vpn1", backlog=0, accept=False)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            one = stack.enter_context(contextlib.closing(tcp_socket(site.client_address(9))))
            one.setblocking(False)
            one.connect_ex(site.tcp["vpn1"].address)
        yield


def of_workers(site):
    return sum(descriptors(pid) for pid in site.daemon.workers())


def test_a_client_that_resets_while_its_server_does_not_accept_leaves_nothing(site):
    site.start_tcp()
    with deaf(site), Trace(site, site.client_address(0)) as trace:
        before = of_workers(site)
        one = site.stream(0)
        one.sendall(b"are you there?")
        trace.wait("session begun")
        assert of_workers(site) == before + 2
        reset(one)
        assert trace.wait("session ended")["reason"] == "reset by its client"
        wait_for(lambda: of_workers(site) == before, what="its sockets' end")
        assert not site.rows() and not trace.seen("server accepted") and not trace.seen("refused")


def test_a_client_is_reset_in_the_end_when_no_server_accepts(site):
    site.start_tcp(GROUP)
    with deaf(site), Trace(site, site.client_address(0)) as trace:
        began = time.monotonic()
        with connect(site.client_address(0), site.target, 60) as one:
            assert is_reset(one)
        assert 4.0 < time.monotonic() - began < 30.0
        assert trace.wait("session ended")["reason"] == "its server does not accept"
        assert trace.wait("refused")["reason"] == "refused_no_server"
    assert not site.rows()


@pytest.mark.parametrize("at", [0, 1, 65536, 5 * MIB])
def test_a_client_that_resets_amid_its_octets_takes_its_server_along(site, at):
    """Whatever is on the way then: the server learns of it, and nothing is left."""
    ends = []

    def swallow(one, _):
        try:
            read_all(one)
            ends.append("in peace")
        except ConnectionResetError:
            ends.append("reset")

    site.tcp["vpn1"].behave = swallow
    site.start_tcp()
    with Trace(site, site.client_address(0)) as trace:
        one = site.stream(0)
        trace.wait("server accepted")
        send_pattern(one, at)
        reset(one)
        assert trace.wait("session ended")["reason"] == "reset by its client"
        wait_for(lambda: ends, what="the end at the server")
        assert ends == ["reset"] and not site.rows()


def test_a_server_that_resets_amid_its_octets_takes_its_client_along(site):
    def say_some(one, _):
        exactly(one, 2)
        send_pattern(one, MIB)
        reset(one)

    site.tcp["vpn1"].behave = say_some
    site.start_tcp()
    with Trace(site, site.client_address(0)) as trace:
        with site.stream(0) as one, pytest.raises(ConnectionResetError):
            one.sendall(b"go")
            read_all(one)
        assert trace.wait("session ended")["reason"] == "reset by its server"


def test_a_server_that_stands_still_costs_nothing_and_loses_nothing(site):
    """A window of zero at the server, while its client has more to say than all sockets hold; then a reload."""
    size, go_on, came = 24 * MIB, threading.Event(), []

    def wait_then_read(one, _):
        one.sendall(b"ready")
        go_on.wait(120)
        came.append(read_all(one))

    site.tcp["vpn1"].behave = wait_then_read
    site.tcp["vpn1"].listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    site.start_tcp(sstp={"idle": "10m"})
    one = site.stream(0)
    assert exactly(one, 5) == b"ready"
    one.settimeout(STALL + 60)  # it is to wait longer than nothing is taken
    writer = run(lambda: (send_pattern(one, size), one.shutdown(socket.SHUT_WR)))
    stood = [-1]

    def stands():
        before, stood[0] = stood[0], site.rows()[0]["bytes_to_server"]
        return stood[0] == before > 0

    wait_for(stands, what="the end of what the server's socket takes")
    before = cpu_seconds(site.daemon.workers())
    time.sleep(STALL)  # nothing happens: that is what is looked at
    used = cpu_seconds(site.daemon.workers()) - before
    assert used < 0.1 * STALL, f"{used} s of {STALL}"
    assert site.rows()[0]["bytes_to_server"] == stood[0] < size, "the server has taken no more"
    site.daemon.reload()
    go_on.set()
    wait_for(lambda: came, 60, "what the server reads")
    assert len(came[0]) == size and is_pattern(came[0])
    writer.join(20)
    assert one.recv(1) == b""
    one.close()
    site.wait_rows(0)


def test_one_that_stands_still_holds_up_nobody_else(site):
    site.start_tcp(workers=1)
    with site.stream(0, buffer=4096) as still:
        still.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                still.send(bytes(65536))  # the echo is not read
        for number in range(1, 21):
            with site.stream(number) as one:
                assert named(one) == "vpn1"
                send_pattern(one, 65536)
                assert is_pattern(exactly(one, 65536))
