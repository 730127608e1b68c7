# SPDX-License-Identifier: Apache-2.0
"""`source: transparent`: servers see the clients' own addresses and ports. Clients and servers are in network namespaces
of their own (lib/transparent.py)."""
import contextlib
import os
import re
import select
import subprocess

import pytest
import streams
from homeport import Daemon, binary, cli, endpoint, wait_for
from ike import Responder, peer, place, udp_socket
from netns import ip
from transparent import address, play, route, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces of its own")

FAMILIES = pytest.mark.parametrize("family", [4, 6])
NET_RAW, NET_BIND_SERVICE = 1 << 13, 1 << 10
SIZES = (0, 1, 100, 1400, 1473, 9000, 65507)


def capabilities(pid):
    """(permitted, effective, inheritable, ambient)"""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = dict(re.findall(r"^(Cap\w+):\s+(\w+)$", file.read(), re.MULTILINE))
    return tuple(int(found[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"))


def receive(one, timeout=5.0):
    if not select.select([one], [], [], timeout)[0]:
        return None
    data, source = one.recvfrom(65536)
    return data, peer(source)


# What servers see

@FAMILIES
def test_servers_see_clients_at_their_own_addresses_and_ports_and_their_answers_arrive(family):
    with play(family, servers=2) as it:
        for name in ("all", "cable1"):
            with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w", encoding="ascii") as file:
                file.write("1")
        it.start()
        clients = it.connected(6)
        homes = set()
        for one in clients:
            (home, seen), = it.seen(one, "init").items()
            assert seen == {((one.address, 500), 500)}
            assert it.seen(one, "auth") == {home: {((one.address, 4500), 4500)}}
            assert one.esp() and one.esp(size=1400)
            homes.add(home)
        assert homes == {"vpn1", "vpn2"}
        assert {(row["client"], row["source_port"]) for row in it.sessions()} == \
            {(endpoint(one.address, port), port) for one in clients for port in (500, 4500)}


@FAMILIES
def test_datagrams_of_all_sizes_pass_both_ways_in_fragments_too(family):
    with play(family) as it:
        it.start()
        with contextlib.closing(it.outside(udp_socket, address(0, 101, family), 500)) as one:
            for size in SIZES:
                data = (b"\x58" * 4 + os.urandom(size))[:size]
                one.sendto(data, place(it.vip, 4500))
                assert receive(one) == (data, (it.vip, 4500)), f"{size} octets"
        assert {seen.source for seen in it.responders["vpn1"].seen} == {(address(0, 101, family), 500)}


def test_ports_may_be_named_in_the_rules_where_fragments_are_put_together_first():
    with play(routed=False) as it:
        for port in (500, 4500):
            ip("rule", "add", "iif", "cable1", "ipproto", "udp", "sport", str(port), "lookup", "500")
        ip("route", "add", "local", "default", "dev", "lo", "table", "500")
        it.start()
        it.site.daemon.wait_log("ready")
        assert "is transparent, but" not in it.site.daemon.log()
        with contextlib.closing(it.outside(udp_socket, address(0, 101, 4), 500)) as one:
            one.sendto(b"small", (it.vip, 4500))
            assert receive(one) == (b"small", (it.vip, 4500))
            one.sendto(b"\x58" * 9000, (it.vip, 4500))
            assert receive(one, 0.5) is None, "fragments have no ports"
            rules = "type filter hook prerouting priority 0\nct state invalid counter\n"
            subprocess.run(["nft", "-f", "-"], text=True, check=True, timeout=10,
                           input=f"table inet tracking {{\nchain in {{\n{rules}}}\n}}\n")
            one.sendto(b"\x58" * 9000, (it.vip, 4500))
            assert receive(one) == (b"\x58" * 9000, (it.vip, 4500))


def test_too_big_of_an_ipv6_router_behind_finds_the_balancer_though_it_is_for_the_client():
    with play(6, mtus=(1500, 1500, 1300)) as it:
        it.start()
        with contextlib.closing(it.outside(udp_socket, address(0, 101, 6), 500)) as one:
            data = b"\x58" * 1400
            wait_for(lambda: one.sendto(data, place(it.vip, 4500)) and receive(one, 0.3) == (data, (it.vip, 4500)),
                     what="the answer to what is too large for the router, once it has said so")


def test_a_tcp_service_s_server_sees_its_client_too():
    with play() as it:
        sink = it.inside(streams.Server, "vpn1", it.addresses["vpn1"], 443)
        it.start(services={"sstp": {"listen": endpoint(it.vip, 443), "protocol": "tcp", "pool": "all"}})
        sink.behave = lambda one, server: (one.sendall(repr(one.getpeername()).encode().ljust(64)),
                                           streams.greet_and_echo(one, server))
        with contextlib.closing(it.outside(streams.connect, address(0, 101, 4), (it.vip, 443))) as one:
            assert streams.exactly(one, 64).decode().strip() == repr(one.getsockname())
            assert streams.named(one) == "vpn1"
            it.site.daemon.reload()
            one.sendall(b"still here")
            assert streams.exactly(one, 10) == b"still here"
        sink.stop()


# What workers may do

def test_workers_have_two_capabilities_and_only_while_some_service_is_transparent():
    with play() as it:
        it.start("nat")
        assert {capabilities(pid) for pid in it.site.daemon.alive() if pid != it.site.daemon.process.pid} == {(0,) * 4}
        it.reload("nat", services={name: {"listen": endpoint(it.vip, port), "source": "transparent"}
                                   for name, port in (("ike", 500), ("nat-t", 4500))})
        daemon = it.site.daemon
        it.settle(spare=True)
        both = NET_RAW | NET_BIND_SERVICE
        assert {capabilities(pid) for pid in [*daemon.workers(), *daemon.children("spare")]} == {(both, both, 0, 0)}
        assert {capabilities(pid) for pid in [daemon.monitor(), *daemon.keepers()]} == {(0,) * 4}
        one = it.client()
        assert one.connect()
        assert it.seen(one, "init") == {"vpn1": {((one.address, 500), 500)}}
        it.reload("nat")
        it.settle(spare=True)
        assert {capabilities(pid) for pid in daemon.alive() if pid != daemon.process.pid} == {(0,) * 4}


@pytest.mark.parametrize("lacks", ["NET_RAW", "NET_BIND_SERVICE"])
def test_without_a_capability_it_does_not_start_and_says_which_one_it_lacks(lacks):
    with play() as it:
        it.site.write(it.config(services={name: {"listen": endpoint(it.vip, 5000 + number)}
                                          for number, name in enumerate(("ike", "nat-t"))}))
        without = f"-{lacks.lower()}"
        result = subprocess.run(["setpriv", "--bounding-set", without, "--inh-caps", without, binary(), "run", "-c",
                                 it.site.path], capture_output=True, text=True, timeout=20, check=False)
        assert result.returncode == 1
        said = subprocess.run(["setpriv", "--bounding-set", without, "--inh-caps", without, binary(), "check",
                               it.site.path], capture_output=True, text=True, timeout=20, check=False)
        assert said.returncode == 0 and f"warning: who checks could not run this: source: transparent needs the " \
            f"capability {lacks}" in said.stderr
        assert f"source: transparent needs the capability {lacks}, which is missing" in result.stderr
        assert f"--cap-add={lacks}" in result.stderr and "source: nat" in result.stderr


def test_a_user_without_capabilities_is_told_and_one_with_both_serves():
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    with play() as it:
        state = it.site.folder + "/own"
        os.mkdir(state, 0o750)
        os.chown(state, 65534, 65534)
        it.site.write(it.config(state=state, services={"ike": {"listen": endpoint(it.vip, 5000)}, "nat-t": None}))
        result = subprocess.run([*nobody, binary(), "run", "-c", it.site.path], capture_output=True, text=True,
                                timeout=20, check=False)
        assert result.returncode == 1 and "needs the capability NET_RAW" in result.stderr
        both = "+net_raw,+net_bind_service"
        with contextlib.closing(it.outside(udp_socket, address(0, 101, 4), 500)) as one:
            responder = it.inside(Responder, "vpn1", it.addresses["vpn1"], [5000], True)
            it.site.daemon = Daemon(it.site.path, prefix=[*nobody, "--inh-caps", both, "--ambient-caps", both])
            it.site.daemon.wait_ready()
            one.sendto(b"hello", (it.vip, 5000))
            assert receive(one) == (b"hello", (it.vip, 5000))
            assert responder.seen[0].source == (address(0, 101, 4), 500)
            mask = NET_RAW | NET_BIND_SERVICE
            assert {capabilities(pid) for pid in it.site.daemon.workers()} == {(mask, mask, 0, 0)}
            responder.stop()


def test_a_reload_that_asks_for_a_capability_that_is_not_there_is_refused_and_all_runs_on():
    with play() as it:
        it.start("nat", prefix=["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", "--"])
        one, = it.connected(1)
        it.site.write(it.config())
        said = cli("reload", "-c", it.site.path, json=False, status=None)
        assert said.returncode == 1
        assert "needs the capability NET_RAW" in said.stderr and "--cap-add=NET_RAW" in said.stderr
        assert one.informational() and it.client(1).connect()


# The way back

@FAMILIES
def test_check_and_start_say_which_routes_are_missing_and_the_commands_that_they_print_are_right(family):
    with play(family, routed=False) as it:
        it.start(services={"sstp": {"listen": endpoint(it.vip, 443), "protocol": "tcp", "pool": "all"}})
        it.site.daemon.wait_log(r"warning: .ike. is transparent, but what .vpn1. answers")
        one = it.client()
        assert not one.init(timeout=0.5, tries=1), "the answer has no way back"
        said = cli("check", it.site.path, json=False, status=None)
        assert said.returncode == 0
        found = re.findall(r"`(ip [^`]*)`", said.stderr)
        word = "ip" if family == 4 else "ip -6"
        assert found == [f"{word} rule add iif cable1 ipproto udp lookup 500",
                         f"{word} route add local default dev lo table 500",
                         f"{word} rule add iif cable1 ipproto tcp sport 443 lookup 500",
                         f"{word} route add local default dev lo table 500"]
        assert "dev lo" in said.stderr and "source: nat" not in said.stderr
        run("\n".join(found[:3]))
        assert "transparent" not in cli("check", it.site.path, json=False, status=None).stderr
        assert one.connect()


def test_families_that_do_not_fit_are_an_error():
    with play() as it:
        it.site.write(it.config(services={"ike": {"listen": ["[fd00:0::2]:500", endpoint(it.vip, 500)]}}))
        said = cli("check", it.site.path, json=False, status=None)
        assert said.returncode == 1
        assert "`ike` is transparent and has IPv6 clients here, but its server `vpn1` has an IPv4" in said.stderr


# Who else is there

@FAMILIES
def test_a_wildcard_listener_beside_takes_no_answer_and_loses_no_client(family):
    everywhere = "0.0.0.0" if family == 4 else "[::]"
    with play(family) as it:
        it.start(services={name: {"listen": f"{everywhere}:{port}"} for name, port in (("ike", 500), ("nat-t", 4500))},
                 sessions={"idle": "300ms", "idle_unproven": "300ms"})
        one, = it.connected(1)
        assert one.informational() and one.esp()
        it.kill_workers(keepers=True)
        assert one.informational()
        wait_for(lambda: not it.sessions(), what="the end of the sessions")
        for port in (500, 4500):
            with it.responders["vpn1"].lock:
                it.responders["vpn1"].sockets[port].sendto(b"late", place(one.address, port))
        wait_for(lambda: it.counters()["dropped_stranger"] == 2, what="the late answers")
        assert not it.sessions() and one.informational()


def test_the_flows_of_a_service_go_on_in_one_of_another_name():
    everywhere = {name: {"listen": f"0.0.0.0:{port}"} for name, port in (("ike", 500), ("nat-t", 4500))}
    whole = {"protocol": "udp", "pool": "all", "persistence": "home"}
    with play() as it:
        it.start(services=everywhere)
        one, = it.connected(1)
        it.reload(services={"ike": None, "nat-t": None, **{f"new-{name}": {**listen, **whole}
                                                           for name, listen in everywhere.items()}})
        assert one.informational() and one.informational()
        assert it.counters()["refused_shadowed"] == 0


def test_a_wildcard_that_a_reload_adds_stands_beside_the_sessions_of_its_port():
    """The kernel spreads the flows of other listeners anew: a client's own session of before is no obstacle to it."""
    everywhere = {name: {"listen": f"0.0.0.0:{port}"} for name, port in (("ike", 500), ("nat-t", 4500))}
    lasting = {"sessions": {"idle_unproven": "100s"}}
    with play() as it:
        it.start(**lasting)
        one, = it.connected(1)
        it.reload(services=everywhere, **lasting)
        assert one.informational() and it.client(1).connect()
        it.reload("nat", **lasting)
        it.reload("nat", services=everywhere, **lasting)
        it.reload(services=everywhere, **lasting)
        assert one.informational() and it.client(2).connect()
        wait_for(lambda: len(it.sessions()) == 6, what="the end of what came by other lanes")
        assert all(client.informational() for client in it.site.clients)
        wait_for(lambda: len(it.sessions()) == 6, what="the end of what came by other lanes meanwhile")
        assert it.counters()["refused_shadowed"] == 0
        assert it.seen(it.site.clients[-1], "init") == {"vpn1": {((address(0, 103, 4), 500), 500)}}


def test_a_client_at_a_port_that_a_program_of_this_machine_has_is_refused_and_counted():
    with play() as it:
        it.start()
        with contextlib.closing(it.outside(udp_socket, address(0, 101, 4), 7777)) as one:
            with contextlib.closing(udp_socket("0.0.0.0", 7777)):
                one.sendto(b"hello", (it.vip, 4500))
                wait_for(lambda: it.counters()["refused_no_cell"] == 1, what="the refusal")
            one.sendto(b"again", (it.vip, 4500))
            assert receive(one) == (b"again", (it.vip, 4500))


@FAMILIES
def test_of_two_addresses_of_ours_to_one_server_the_second_is_refused_and_counted_until_the_first_has_ended(family):
    with play(family) as it:
        other = address(0, 3, family)
        it.start(services={"nat-t": {"listen": [endpoint(it.vip, 4500), endpoint(other, 4500)]}}, workers=4,
                 sessions={"idle": "1s", "idle_unproven": "1s"})
        ones = [it.outside(udp_socket, address(0, 101 + number, family), 4500) for number in range(8)]
        for one in ones:
            one.sendto(b"first", place(it.vip, 4500))
            assert receive(one) == (b"first", (it.vip, 4500))
            one.sendto(b"second", place(other, 4500))
        wait_for(lambda: it.counters()["refused_shadowed"] == 8, what="the refusals")
        it.kill_workers(keepers=True)  # in several lanes of several workers, whoever comes to hold them
        for one in ones:
            one.sendto(b"second", place(other, 4500))
            one.sendto(b"first", place(it.vip, 4500))
            assert receive(one) == (b"first", (it.vip, 4500)), "its answers are its own"
        assert it.counters()["refused_shadowed"] == 16
        wait_for(lambda: not it.sessions(), what="the end of the first ones")
        for one in ones:
            one.sendto(b"third", place(other, 4500))
            assert receive(one) == (b"third", (other, 4500))
            one.close()
        assert len(it.responders["vpn1"].seen) == 24


# What dies, and what does not

@FAMILIES
@pytest.mark.parametrize("keepers", ["with their keepers", "alone"])
def test_killed_workers_a_reload_and_a_restart_change_nothing(family, keepers):
    with play(family, servers=2) as it:
        it.start()
        clients = it.connected(4)
        before = {one: it.seen(one, "auth") for one in clients}
        for change in (lambda: it.kill_workers(keepers != "alone"), it.site.daemon.reload, it.site.restart,
                       lambda: it.kill_workers(keepers != "alone")):
            change()
            for one in clients:
                assert one.informational() and one.esp()
                assert it.seen(one) == before[one]
        assert it.counters()["sessions_moved"] == 0


def test_a_reload_that_changes_the_source_leaves_sessions_as_they_are():
    with play() as it:
        it.start("nat")
        one = it.client()
        assert one.connect()
        before = it.seen(one, "auth")
        it.reload()
        two = it.client(1)
        assert two.connect() and it.seen(two, "auth") == {"vpn1": {((two.address, 4500), 4500)}}
        it.kill_workers(keepers=True)
        assert one.informational() and it.seen(one) == before
        assert two.informational() and it.seen(two) == it.seen(two, "auth")
        it.reload("nat")
        assert two.informational() and it.seen(two) == it.seen(two, "auth"), "its socket was handed over"
        it.site.restart()
        assert one.informational() and it.seen(one) == before
        assert two.informational(), "from an own address by now"
        assert {source[0] for source, _ in it.seen(two)["vpn1"]} == {two.address, address(1, 1, 4)}
