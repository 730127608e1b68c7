# SPDX-License-Identifier: Apache-2.0
"""The relay for TCP as clients and servers see it: octets both ways, ends of every kind, back-pressure, one home for a
client's UDP and TCP, dead servers, dead workers, reloads in mid-stream, no descriptors left."""
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest
from homeport import Daemon, Site, wait_for
from streams import (Server, connect, exactly, greet_and_echo, is_refused, is_reset, named, pattern, read_all, reset, tcp_socket)

SECONDS = 20.0  # for what comes at once
GROUP = {"home": {"plugin": "match_across_services"}}
POOL = {"health": {"interval": "200ms", "timeout": "150ms", "rise": 1, "fall": 2}}
QUIET = {"health": {"check": "none"}}
MIB = 1 << 20
STREAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib", "streams.py")


class TcpSite(Site):
    """A site with a TCP service, sstp, beside the IKE pair, and a server behind it at each address."""

    def __init__(self, servers=3, behave=greet_and_echo, apart=False, **arguments):
        super().__init__(servers=servers, **arguments)
        self.tcp_port = self.server_port = self.free_tcp_port()
        while apart and self.server_port == self.tcp_port:  # so that all addresses can be listened at
            self.server_port = self.free_tcp_port()
        self.behave, self.tcp = behave, {}
        for name in self.names:
            self.open_server(name)

    def __exit__(self, kind, value, trace):
        for one in self.tcp.values():
            one.stop()
        super().__exit__(kind, value, trace)

    def free_tcp_port(self):
        for _ in range(1000):
            port = self.random.randrange(3000, 9000)
            with contextlib.suppress(OSError):
                for address in (self.vip, *self.addresses.values()):
                    tcp_socket(address, port).close()
                return port
        raise OSError("no port is free")

    def open_server(self, name, **arguments):
        self.tcp[name] = Server(name, self.addresses[name], self.server_port, self.behave, **arguments)
        return self.tcp[name]

    def tcp_config(self, persistence=None, pool=None, sstp=None, **changes):
        service = {"listen": self.target_text, "protocol": "tcp", "pool": "tls", **(sstp or {})}
        port = {"port": self.server_port} if self.server_port != self.tcp_port else {}
        if persistence:
            changes.setdefault("profile", "home")
            service["persistence"] = changes["profile"]
        pools = {"tls": {"servers": self.names, **port, **(pool or QUIET)}, "all": QUIET, **changes.pop("pools", {})}
        return self.config(persistence=persistence, pools=pools,
                           services={"sstp": service, **changes.pop("services", {})}, **changes)

    def start_tcp(self, *arguments, prefix=(), **changes):
        self.write(self.tcp_config(*arguments, **changes))
        self.daemon = Daemon(self.path, prefix=prefix)
        return self.daemon.wait_ready()

    def reload_tcp(self, *arguments, **changes):
        self.write(self.tcp_config(*arguments, **changes))
        return self.daemon.reload()

    @property
    def target_text(self):
        return f"{self.vip}:{self.tcp_port}"

    @property
    def target(self):
        return self.vip, self.tcp_port

    def stream(self, number=0, **arguments):
        return connect(self.client_address(number), self.target, SECONDS, **arguments)

    def rows(self, service="sstp"):
        return [row for row in self.daemon.cli("sessions")["sessions"] if row["service"] == service]

    def wait_rows(self, count, service="sstp"):
        return wait_for(lambda: len(self.rows(service)) == count, what=f"{count} sessions of {service}")

    def counter(self, name):
        return self.daemon.cli("status")["counters"][name]


@pytest.fixture(name="site")
def fixture_site():
    with TcpSite() as site:
        yield site


def send_pattern(one, size, stream=0):
    for at in range(0, size, 32768):
        one.sendall(pattern(stream, at, min(32768, size - at)))


def is_pattern(data, stream=0):
    return all(data[at:at + 32768] == pattern(stream, at, len(data[at:at + 32768])) for at in range(0, len(data), 32768))


def run(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def cpu_seconds(pids):
    """That these processes have used so far."""
    used = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Octets that a process has for itself."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


def test_octets_go_both_ways_unharmed(site):
    site.start_tcp()
    one = site.stream()
    assert named(one) in site.names
    size = 8 * MIB
    writer = run(send_pattern, one, size)
    assert is_pattern(exactly(one, size))
    writer.join(SECONDS)
    row = site.rows()[0]
    assert row["bytes_to_server"] == size and row["bytes_to_client"] == size + 16
    assert row["client"] == "{}:{}".format(*one.getsockname())
    one.close()
    site.wait_rows(0)


def test_the_clients_end_is_passed_on_and_the_server_may_still_speak(site):
    def answer_behind_the_end(one, server):
        data = read_all(one)
        one.sendall(data + b" and the answer")

    site.tcp["vpn1"].behave = site.tcp["vpn2"].behave = site.tcp["vpn3"].behave = answer_behind_the_end
    site.start_tcp()
    one = site.stream()
    send_pattern(one, MIB)
    one.shutdown(socket.SHUT_WR)
    data = read_all(one)
    assert is_pattern(data[:MIB]) and data[MIB:] == b" and the answer"
    site.wait_rows(0)


def test_the_servers_end_is_passed_on_and_the_client_may_still_speak(site):
    heard = []

    def end_first(one, server):
        one.sendall(b"all I say")
        one.shutdown(socket.SHUT_WR)
        heard.append(read_all(one))

    for server in site.tcp.values():
        server.behave = end_first
    site.start_tcp()
    one = site.stream()
    assert read_all(one) == b"all I say"
    site.wait_rows(1)
    send_pattern(one, MIB)
    one.shutdown(socket.SHUT_WR)
    wait_for(lambda: heard, what="the client's words behind the server's end")
    assert len(heard[0]) == MIB and is_pattern(heard[0])
    site.wait_rows(0)


def test_a_reset_of_the_client_reaches_the_server(site):
    ends = []
    for server in site.tcp.values():
        server.behave = lambda one, _: ends.append(is_reset(one))
    site.start_tcp()
    one = site.stream()
    site.wait_rows(1)
    one.sendall(b"hello")
    reset(one)
    wait_for(lambda: ends, what="the server's end of it")
    assert ends == [True]
    site.wait_rows(0)


def test_a_reset_of_the_server_reaches_the_client(site):
    def reset_after_hello(one, server):
        exactly(one, 5)
        reset(one)

    for server in site.tcp.values():
        server.behave = reset_after_hello
    site.start_tcp()
    one = site.stream()
    one.sendall(b"hello")
    assert is_reset(one)
    site.wait_rows(0)


def test_who_does_not_read_stops_who_writes(site):
    """Neither homeport's memory nor its sockets take what a client does not: what the server may send comes to rest."""
    written, full = [0], threading.Event()

    def write_for_ever(one, server):
        one.settimeout(2)
        try:
            while True:
                written[0] += one.send(pattern(0, written[0], 32768))
        except TimeoutError:
            full.set()
        one.settimeout(60)
        one.sendall(pattern(0, written[0], 32768))

    for server in site.tcp.values():
        server.behave = write_for_ever
    site.start_tcp(log={"level": "info"})
    before = sum(memory(pid) for pid in site.daemon.workers())
    one = site.stream(buffer=65536)
    assert full.wait(120), "the server was never stopped"
    grown = sum(memory(pid) for pid in site.daemon.workers()) - before
    assert grown < 2 * MIB, f"{grown} octets more than before"
    size, at = written[0] + 32768, 0
    while at < size:  # all of it comes, once it is wanted
        data = one.recv(32768)
        assert data and data == pattern(0, at, len(data))
        at += len(data)
    assert at == size
    one.close()
    site.wait_rows(0)


def test_a_stream_ends_when_it_is_idle(site):
    site.start_tcp(sstp={"idle": "2s"}, sessions={"idle_unproven": "1s"})
    one = site.stream()
    named(one)
    began = time.monotonic()
    assert is_reset(one) and time.monotonic() - began > 1.0
    assert site.counter("sessions_ended_idle") == 1


def test_a_stream_without_a_word_ends_before_its_idle_time(site):
    for server in site.tcp.values():
        server.behave = lambda one, _: is_reset(one)
    site.start_tcp(sstp={"idle": "1h"}, sessions={"idle_unproven": "300ms"})
    silent, speaking = site.stream(0), site.stream(1)
    speaking.sendall(b"hello")
    assert is_reset(silent)
    site.wait_rows(1)
    speaking.sendall(b"still here")


def test_drop_ends_the_streams_of_a_client(site):
    site.start_tcp(GROUP)
    mine, other = site.stream(0), site.stream(1)
    named(mine), named(other)
    site.daemon.cli("drop", site.client_address(0), json=False)
    assert is_reset(mine)
    other.sendall(b"hello")
    assert exactly(other, 5) == b"hello"


@pytest.mark.parametrize("plugin", ["match_across_services", "port_following", "persistency_group"])
def test_a_clients_ports_reach_one_server(site, plugin):
    """UDP 500 and 4500, and TCP 443 when it falls back; or TCP first."""
    profile = {"home": {"plugin": plugin}}
    services = {}
    if plugin == "port_following":
        services = {"nat-t": {"persistence": {"profile": "home", "follow": "ike"}}}
    sstp = {"persistence": {"profile": "home", "follow": "ike"}} if services else {}
    site.write(site.config())
    site.start_tcp(profile, services=services, log={"level": "info"}, sstp=sstp, pool=QUIET)
    for number in range(12):
        client = site.client(number)
        if number % 2 == 0:
            assert client.connect()
            home = site.server_of(client)
            with site.stream(number) as one:
                assert named(one) == home
        else:
            with site.stream(number) as one:
                home = named(one)
            assert client.connect()
            assert site.server_of(client) == home


def test_a_streams_port_down_means_elsewhere_and_the_record_stays(site):
    site.start_tcp(GROUP, pool=POOL, sstp={"idle": "60s"})
    client = site.client(0)
    assert client.connect()
    home = site.server_of(client)
    with site.stream(0) as running:
        assert named(running) == home
        site.tcp[home].listener.close()
        with contextlib.suppress(OSError):
            site.tcp[home].listener.shutdown(socket.SHUT_RDWR)
        site.daemon.wait_log(f"server {home} is down on tcp/{site.tcp_port}")
        running.sendall(b"hello")
        assert exactly(running, 5) == b"hello", "a stream runs on while its server is down"
        for _ in range(3):
            with site.stream(0) as one:
                assert named(one) != home
    assert client.connect() and site.server_of(client) == home, "the record has stayed"
    site.open_server(home)
    site.daemon.wait_log(f"server {home} is up on tcp/{site.tcp_port}", after=site.daemon.mark() - 1)
    with site.stream(0) as one:
        assert named(one) == home


def test_a_server_that_refuses_is_passed_over(site):
    """Before any probe has noticed; and what the record says stays."""
    site.start_tcp(GROUP)
    with site.stream(0) as one:
        home = named(one)
    site.tcp[home].stop()
    with site.stream(0) as one:
        assert named(one) != home
    site.open_server(home)
    with site.stream(0) as one:
        assert named(one) == home
    for server in site.tcp.values():
        server.stop()
    assert is_refused(site.client_address(0), site.target)
    assert site.counter("refused_no_server") == 1
    site.wait_rows(0)


def test_a_server_that_never_accepts_is_passed_over(make_tcp_site):
    """Its queue is full, so that it does not answer a SYN any more."""
    site = make_tcp_site(servers=2)
    site.start_tcp(GROUP)
    with site.stream(0) as one:
        home = named(one)
    site.tcp[home].stop()
    site.open_server(home, backlog=0, accept=False)
    fill = []
    for _ in range(4):
        fill.append(tcp_socket(site.client_address(9)))
        fill[-1].setblocking(False)
        fill[-1].connect_ex(site.tcp[home].address)
    began = time.monotonic()
    with connect(site.client_address(0), site.target, 60) as one:
        assert named(one) != home
    assert 4.0 < time.monotonic() - began < 30.0
    for one in fill:
        one.close()


def test_a_disabled_servers_streams_end(site):
    site.start_tcp(GROUP)
    one = site.stream(0)
    home = named(one)
    site.reload_tcp(GROUP, servers={home: {"state": "disabled"}})
    assert is_reset(one)
    with site.stream(0) as again:
        assert named(again) != home


def test_a_killed_workers_streams_end_and_the_record_stays(site):
    site.start_tcp(GROUP)
    streams = [site.stream(number) for number in range(16)]
    homes = [named(one) for one in streams]
    site.wait_rows(16)
    mark = site.daemon.mark()
    victim = site.daemon.workers()[0]
    site.daemon.kill(victim)
    site.daemon.wait_log("replac|started again|worker 0", after=mark)
    wait_for(lambda: len(site.daemon.workers()) == 2 and victim not in site.daemon.workers(), what="its replacement")
    lived, died = 0, 0
    for one in streams:
        try:
            one.sendall(b"hello")
            lived += one.recv(5) == b"hello"
        except (ConnectionResetError, BrokenPipeError):
            died += 1
    assert 0 < lived < 16 and lived + died == 16, f"{lived} live, {died} were reset; the others ended as if in peace"
    site.wait_rows(lived)
    for number, home in enumerate(homes):
        with site.stream(number) as one:
            assert named(one) == home


def test_a_client_that_stands_still_costs_nothing_and_loses_nothing(site):
    """A window of zero, for $HOMEPORT_STALL seconds; the server has said all and gone, and the client has said its end:
    what is left is what homeport and its sockets keep."""
    stall, size, gone = float(os.environ.get("HOMEPORT_STALL", 3)), 3 * MIB, threading.Event()

    def say_all(one, server):
        send_pattern(one, size)
        gone.set()

    for server in site.tcp.values():
        server.behave = say_all
    site.start_tcp(sstp={"idle": "10m"})
    one = site.stream(buffer=4096)
    one.shutdown(socket.SHUT_WR)
    site.wait_rows(1)
    time.sleep(0.5)
    before = cpu_seconds(site.daemon.workers())
    time.sleep(stall)  # nothing happens: that is what is looked at
    used = cpu_seconds(site.daemon.workers()) - before
    assert used < 0.1 * stall, f"{used} s of {stall}"
    site.daemon.reload()
    data = read_all(one)
    assert len(data) == size and is_pattern(data) and gone.is_set()
    site.wait_rows(0)


def test_without_descriptors_clients_are_reset_at_once_and_nothing_spins(site):
    """A worker with a limit of descriptors that some clients use up."""
    site.start_tcp(prefix=["prlimit", "--nofile=96:96"], workers=1, sessions={"capacity": 1024})
    with contextlib.ExitStack() as stack:
        served = []
        for number in range(64):
            with contextlib.suppress(ConnectionResetError):
                one = stack.enter_context(site.stream(number))
                named(one)
                served.append(one)
        assert 8 < len(served) < 56
        assert site.counter("refused_no_descriptor") == 64 - len(served)
        pids = site.daemon.workers()
        before = cpu_seconds(pids)
        time.sleep(1)  # nothing happens: that is what is looked at
        assert cpu_seconds(pids) - before < 0.2 and site.daemon.workers() == pids
        for one in served:
            one.sendall(b"hello")
            assert exactly(one, 5) == b"hello"
    site.wait_rows(0)
    with site.stream(70) as one:
        assert named(one) in site.names


@contextlib.contextmanager
def connecting_for_ever(site, numbers, talk):
    """Clients of these numbers connect, talk and go meanwhile, again and again. What they have had so far: how many
    were served, and who was not."""
    stop, failed, served = threading.Event(), [], [0]

    def connect(number):
        while not stop.is_set():
            try:
                with site.stream(number) as one:
                    talk(one)
                    served[0] += 1
            except (OSError, AssertionError) as error:
                failed.append(f"client {number}: {error!r}")

    threads = [run(connect, number) for number in numbers]
    try:
        yield served, failed
    finally:
        stop.set()
        for one in threads:
            one.join(SECONDS)


def test_each_connection_in_a_reload_is_served(site):
    site.start_tcp(GROUP)
    def talk(one):
        named(one)
        one.sendall(b"hello")
        assert exactly(one, 5) == b"hello"

    with connecting_for_ever(site, range(8), talk) as (served, failed):
        for _ in range(5):
            site.daemon.reload()
            so_far = served[0]
            wait_for(lambda: served[0] > so_far + 50 or failed, what="connections behind the reload")
    assert failed == [] and served[0] > 250


def test_a_listener_that_gives_way_to_a_wildcard_loses_nobody(make_tcp_site):
    """Those who wait in its queue are served, those who come later go to the other."""
    site = make_tcp_site(apart=True)
    site.start_tcp(GROUP)
    early = site.stream(0)
    named(early)
    with connecting_for_ever(site, range(1, 5), named) as (served, failed):
        for listen in (f"0.0.0.0:{site.tcp_port}", site.target_text, f"0.0.0.0:{site.tcp_port}"):
            site.reload_tcp(GROUP, sstp={"listen": listen})
            so_far = served[0]
            wait_for(lambda: served[0] > so_far + 20 or failed, what="connections behind the reload")
    early.sendall(b"hello")
    assert exactly(early, 5) == b"hello"
    assert failed == []


def test_streams_survive_the_master(site):
    site.start_tcp(GROUP)
    streams = [site.stream(number) for number in range(8)]
    homes = [named(one) for one in streams]
    site.daemon.kill(site.daemon.process.pid)
    site.daemon.process.wait()
    for one in streams:
        one.sendall(b"alone")
        assert exactly(one, 5) == b"alone"
    first = site.daemon
    site.daemon = Daemon(site.path)
    site.daemon.wait_ready()
    for number, one in enumerate(streams):
        one.sendall(b"hello")
        assert exactly(one, 5) == b"hello"
        with site.stream(number) as other:
            assert named(other) == homes[number]
    wait_for(lambda: not first.alive(), what="the end of the first master's processes")
    first.abandon()


def test_the_log_of_sessions_tells_of_streams(site):
    site.start_tcp(GROUP, log={"sessions": True})
    with site.stream(0) as one:
        home, client = named(one), "{}:{}".format(*one.getsockname())
        one.sendall(b"hello")
        exactly(one, 5)
    begun = site.daemon.wait_log(f"session begun.*{client}.*")
    ended = site.daemon.wait_log(f"session ended.*{client}.*")
    assert home in begun.group() and "new client" in begun.group()
    assert "closed" in ended.group() and "bytes_to_server=5" in ended.group() and "bytes_to_client=21" in ended.group()


@pytest.fixture(name="make_tcp_site")
def fixture_make_tcp_site():
    with contextlib.ExitStack() as stack:
        yield lambda **arguments: stack.enter_context(TcpSite(**arguments))


class Process:
    """streams.py in a process of its own."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([sys.executable, "-B", STREAMS, *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def wait_ready(self):
        assert self.process.stdout.readline().strip() == "ready"
        return self

    def tell(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self):
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()


def reload_under(site, kind, count, reloads, behind_each):
    """So many streams between processes of their own, and so many reloads; every octet is looked at."""
    for server in site.tcp.values():
        server.stop()
    parts = max(2, -(-count // 4000))
    processes = [Process("sink", f"{address}:{site.tcp_port}") for address in site.addresses.values()]
    try:
        for one in processes:
            one.wait_ready()
        site.start_tcp(sessions={"capacity": max(4096, 2 * count)})
        shares = [count // parts + (part < count % parts) for part in range(parts)]
        loads = [Process(kind, site.client_address(part), site.target_text, share)
                 for part, share in enumerate(shares)]
        processes += loads
        for one in loads:
            one.wait_ready()
        for _ in range(reloads):
            site.daemon.reload()
            behind_each()
        for one in loads:
            one.tell()
        results = [one.result() for one in loads]
        assert [result["wrong"] for result in results] == [[]] * parts
        assert sum(result["streams"] for result in results) == count
        assert all(result["least"] > 0 for result in results)
    finally:
        for one in processes:
            one.stop()


def test_reloads_in_mid_stream_lose_no_octet(make_tcp_site):
    """$HOMEPORT_STREAMS and $HOMEPORT_RELOADS: how many; 10,000 and 20 is the whole proof."""
    site = make_tcp_site(servers=4)

    def more_comes():
        moved = site.counter("bytes_to_servers")
        wait_for(lambda: site.counter("bytes_to_servers") > moved + 10 * MIB, 60, "traffic behind the reload")

    reload_under(site, "load", int(os.environ.get("HOMEPORT_STREAMS", 200)),
                 int(os.environ.get("HOMEPORT_RELOADS", 5)), more_comes)


def test_reloads_of_streams_that_are_full_lose_no_octet(make_tcp_site):
    """Both ends have stopped reading: each worker has unsent octets of every stream, and both directions."""
    site = make_tcp_site(servers=4)
    pids = []

    def somebody_else_has_them():
        wait_for(lambda: not set(site.daemon.workers()) & set(pids), what="the end of the workers before")
        pids[:] = site.daemon.workers()

    reload_under(site, "stuff", int(os.environ.get("HOMEPORT_STUFFED", 60)),
                 int(os.environ.get("HOMEPORT_RELOADS", 5)), somebody_else_has_them)
