# SPDX-License-Identifier: Apache-2.0
"""IPv6 on either side of the balancer, and between the families: the same promises as over IPv4, and what is its own:
zones, prefix lengths, one port for both families. Where several IPv6 addresses are needed, the test makes a network
namespace, with the real ports 500 and 4500."""
import contextlib
import os
import select
import socket
import struct

import pytest
from homeport import Daemon, Site, cells, cli, connected, endpoint, wait_for
from ike import Client, Responder, peer, place, udp_socket
from netns import ip, neighbour_net, own_net

GROUP = {"home": {"plugin": "match_across_services"}}
FAMILIES = pytest.mark.parametrize("clients, servers", [(6, 6), (4, 6), (6, 4)])
SIZES = (0, 1, 27, 28, 100, 1232, 1400, 1453, 9000, 65507)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace of its own")
HERE_ONLY = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6 on loopback")
PLUGINS = {
    "port_following": ({"follow": "nat-t"}, {"follow": "ike"}),
    "match_across_services": ({}, {}),
    "persistency_group": ({}, {}),
    "ike_spi": ({}, {}),
}


@contextlib.contextmanager
def own_site(clients=6, family=6, real_ports=True, **arguments):
    """A site in a network namespace."""
    with own_net(), Site(family=family, clients=clients, responders=False, **arguments) as site:
        if real_ports:
            site.ike_port, site.natt_port = 500, 4500
        echo = arguments.get("echo", False)
        for name, address in site.addresses.items():
            site.responders[name] = Responder(name, address, [site.ike_port, site.natt_port], echo)
        yield site


def payload(size, number=0):
    """No keepalive, no marker; what it is lies in its first octets."""
    return (struct.pack("!I", 0x58000000 + number) + os.urandom(max(0, size - 4)))[:size]


def receive(one, timeout=5.0):
    assert select.select([one], [], [], timeout)[0], "no answer came"
    data, source = one.recvfrom(65536)
    return data, peer(source)


def asks(one, address, port, data, timeout=5.0):
    """One datagram there, and its echo: from where it was sent to."""
    one.sendto(data, place(address, port))
    assert receive(one, timeout) == (data, (address, port))
    return True


def rows(site):
    return site.daemon.cli("sessions")["sessions"]


def homes_of(site, clients):
    homes = [site.server_of(client, "auth") for client in clients]
    assert None not in homes and homes == [site.server_of(client, "init") for client in clients]
    return homes


def all_at_home(site, clients, homes):
    for client, home in zip(clients, homes):
        assert client.informational(), f"{client.address} is not known any more"
        assert site.servers_of(client, "informational") == [home]


# On the machine's own loopback, without root: one IPv6 address, several ports

@HERE_ONLY
@FAMILIES
def test_datagrams_of_all_sizes_pass_on_loopback(clients, servers):
    with Site(servers=1, responders=False) as site:
        server, vip, client = ("::1" if servers == 6 else site.addresses["vpn1"],
                               *(("::1", "::1") if clients == 6 else (site.vip, site.client_address(0))))
        ports, there = [], []
        for group in (ports, there):
            for _ in range(2):
                with contextlib.closing(udp_socket(vip if group is ports else server)) as one:
                    group.append(one.getsockname()[1])
        site.addresses["vpn1"] = server
        site.responders["vpn1"] = responder = Responder("vpn1", server, there, echo=True)
        pools = {f"to-{port}": {"servers": ["vpn1"], "port": port, "health": {"check": "ike", "interval": "500ms"}}
                 for port in there}
        site.start(GROUP, "home", pools={**pools, "all": None}, services={
            name: {"listen": endpoint(vip, port), "pool": f"to-{other}"}
            for name, port, other in zip(("ike", "nat-t"), ports, there)})
        most = [65527] if clients == servers == 6 else []  # a payload that no IPv4 datagram can hold
        with contextlib.closing(udp_socket(client)) as one:
            for port in ports:
                for size in (*SIZES, *most):
                    assert asks(one, vip, port, payload(size)), f"{size} octets"
        assert {seen.source[0] for seen in responder.seen} == {server if servers == 6 else "127.0.0.1"}
        server = site.daemon.cli("servers")["servers"][0]
        assert server["address"] == site.addresses["vpn1"]
        wait_for(lambda: {probe["health"] for probe in site.daemon.cli("servers")["servers"][0]["probes"]} == {"up"},
                 what="the answer to both probes")


# Every way of knowing a client

@ROOT_ONLY
@FAMILIES
@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_client_reaches_one_server_on_500_and_4500(plugin, clients, servers):
    services = {name: {"persistence": {"profile": "home", **options}}
                for name, options in zip(("ike", "nat-t"), PLUGINS[plugin])}
    with own_site(clients, servers, servers=3) as site:
        site.start({"home": {"plugin": plugin}}, "home", services=services)
        here = connected(site, 24)
        homes = homes_of(site, here)
        assert len(set(homes)) == 3
        assert all(client.esp() for client in here)
        all_at_home(site, here, homes)


@ROOT_ONLY
@FAMILIES
@pytest.mark.parametrize("keepers", ["with their keepers", "alone"])
def test_killed_workers_come_back_with_the_same_servers_and_source_ports(clients, servers, keepers):
    with own_site(clients, servers, servers=3) as site:
        site.start(GROUP, "home")
        here = connected(site, 12)
        homes, before = homes_of(site, here), cells(site)
        sources = {client: {seen.source for seen in site.responders[home].of_kind("auth", client.spi_i)}
                   for client, home in zip(here, homes)}
        for _ in range(2):
            dead = site.daemon.workers()
            for pid in [*(site.daemon.keepers() if keepers != "alone" else []), *dead]:
                site.daemon.kill(pid)
            wait_for(lambda gone=set(dead): len(site.daemon.workers()) == 2 and not gone & set(site.daemon.workers()),
                     what="the workers' replacements")
            all_at_home(site, here, homes)
        assert cells(site) == before
        for client, home in zip(here, homes):
            assert {seen.source for seen in site.responders[home].of_kind("informational", client.spi_i)} == \
                sources[client], "the same address and port towards the server"


@ROOT_ONLY
@FAMILIES
def test_reload_and_restart_move_nobody(clients, servers):
    with own_site(clients, servers, servers=3) as site:
        site.start(GROUP, "home")
        here = connected(site, 12)
        homes, before = homes_of(site, here), cells(site)
        site.daemon.reload()
        all_at_home(site, here, homes)
        site.restart()
        all_at_home(site, here, homes)
        assert cells(site) == before


@ROOT_ONLY
def test_an_ipv4_and_an_ipv6_server_serve_both_kinds_of_clients_from_one_source_port_each():
    """One pool, servers of both families; one service, listeners of both."""
    with own_site(servers=2) as site:
        site.addresses["vpn2"] = site.host(12, 4)
        site.responders["vpn2"].stop()
        site.responders["vpn2"] = Responder("vpn2", site.addresses["vpn2"], [500, 4500])
        both = {name: {"listen": [endpoint(site.host(1, 6), port), endpoint(site.host(1, 4), port)]}
                for name, port in (("ike", 500), ("nat-t", 4500))}
        site.start(GROUP, "home", services=both, sessions={"ports": "20000-20063"})  # so few that they meet
        here = connected(site, 4)
        site.client_family, site.vip = 4, site.host(1, 4)
        here += connected(site, 4)
        homes = homes_of(site, here)
        assert {(":" in client.address, home) for client, home in zip(here, homes)} == \
            {(six, name) for six in (False, True) for name in site.names}
        ports = {home: [port for server, port in cells(site).values() if server == home] for home in site.names}
        assert sorted(len(set(own)) for own in ports.values()) == [8, 8], "each of its own, towards each server"
        all_at_home(site, here, homes)


# Addresses

@ROOT_ONLY
def test_replies_leave_from_the_written_address_through_both_wildcards_on_one_port():
    with own_site(servers=2, echo=True, real_ports=False) as site:
        pools = {f"{name}-servers": {"servers": site.names, "port": port, "health": {"check": "none"}}
                 for name, port in (("ike", site.ike_port), ("nat-t", site.natt_port))}
        services = {name: {"listen": [f"[::]:{port}", f"0.0.0.0:{port}"], "pool": f"{name}-servers"}
                    for name, port in (("ike", 500), ("nat-t", 4500))}
        site.start(GROUP, "home", pools={**pools, "all": None}, services=services)
        for family in (6, 4):
            with contextlib.closing(udp_socket(site.host(200 + family, family))) as one:
                for port in (500, 4500):
                    for number in (1, 77, 201):
                        for size in SIZES:
                            assert asks(one, site.host(number, family), port, payload(size))
        assert len(rows(site)) == 12, "each address is a flow of its own"
        listeners = [one["address"] for one in site.daemon.cli("status")["listeners"]]
        assert listeners == ["[::]:500", "0.0.0.0:500", "[::]:4500", "0.0.0.0:4500"]


@ROOT_ONLY
def test_the_ipv6_wildcard_leaves_ipv4_on_its_port_to_others():
    with own_site(servers=1, real_ports=False) as site:
        with contextlib.closing(udp_socket("0.0.0.0", 500)) as other, \
                contextlib.closing(udp_socket("127.0.0.1")) as one:
            pools = {"all": {"port": site.ike_port}}
            site.start(GROUP, "home", pools=pools, services={"ike": {"listen": "[::]:500"}, "nat-t": None})
            one.sendto(b"not for the balancer", ("127.0.0.1", 500))
            assert receive(other)[0] == b"not for the balancer"
            site.vip, site.ike_port = site.host(1, 6), 500
            assert site.client().init()
            config = site.config(GROUP, "home", pools=pools,
                                 services={"ike": {"listen": ["[::]:500", "0.0.0.0:500"]}, "nat-t": None})
            site.write(config)
            said = cli("reload", "-c", site.path, json=False, status=None)
            assert said.returncode == 1 and "0.0.0.0:500 is in use" in said.stdout + said.stderr
        site.daemon.reload()
        site.vip = site.host(1, 4)
        site.client_family = 4
        assert site.client().init(), "the listener that a reload has added"


@ROOT_ONLY
def test_an_ipv6_address_that_comes_later_is_listened_on_already():
    with own_site(servers=2) as site:
        site.start(GROUP, "home", services={"ike": {"listen": "[2001:db8::77]:500"},
                                            "nat-t": {"listen": "[2001:db8::77]:4500"}})
        site.daemon.wait_log(r"warning: 2001:db8::77 is not an address of this machine now")
        assert [one["here"] for one in site.daemon.cli("status")["listeners"]] == [False, False]
        ip("address", "add", "2001:db8::77/128", "dev", "lo", "nodad")
        site.vip = "2001:db8::77"
        assert site.client().connect()
        wait_for(lambda: all(one["here"] for one in site.daemon.cli("status")["listeners"]), what="its address here")


@ROOT_ONLY
def test_nothing_but_the_session_s_server_is_accepted_on_its_port():
    with own_site(servers=3, echo=True) as site:
        site.start(GROUP, "home")
        with contextlib.closing(udp_socket(site.client_address(0))) as one:
            assert asks(one, site.vip, 4500, payload(50))
            home = next(name for name, responder in site.responders.items() if responder.seen)
            cell = place(*site.responders[home].seen[0].source)
            for address in (*(other for name, other in site.addresses.items() if name != home), site.addresses[home]):
                with contextlib.closing(udp_socket(address)) as stranger:
                    stranger.sendto(b"I am not your server", cell)
            assert asks(one, site.vip, 4500, payload(51)), "the first thing that comes is the server's"


# Zones

@contextlib.contextmanager
def linked_site(listen):
    """The balancer at fe80::1 of a cable; at its other end a server, fe80::11, and clients."""
    with own_net(), neighbour_net("fe80::1/64", "fe80::11/64", "fe80::91/64", "fe80::92/64", "fd00::91/64") as inside, \
            Site(servers=1, responders=False) as site:
        site.inside = inside
        site.responders["vpn1"] = responder = inside(Responder, "vpn1", "fe80::11%cable", [500, 4500])
        site.start(GROUP, "home", servers={"vpn1": {"address": "fe80::11%cable"}},
                   pools={"all": {"health": {"check": "ike", "interval": "500ms"}}},
                   services={name: {"listen": f"[{listen}]:{port}"} for name, port in (("ike", 500), ("nat-t", 4500))})
        site.index = socket.if_nametoindex("cable")
        try:
            yield site, responder
        finally:
            inside(responder.stop)
            del site.responders["vpn1"]


def linked_client(site, address):
    client = site.inside(Client, address, "fe80::1%cable", 500, 4500)
    site.clients.append(client)
    return client


@ROOT_ONLY
@pytest.mark.parametrize("listen", ["fe80::1%cable", "::"])
def test_link_local_clients_and_servers_are_told_apart_by_their_zone(listen):
    with linked_site(listen) as (site, responder):
        clients = [linked_client(site, f"fe80::9{number}%cable") for number in (1, 2)]
        for client in clients:
            assert site.inside(client.connect) and site.inside(client.esp)
        wait_for(lambda: {probe["health"] for probe in site.daemon.cli("servers")["servers"][0]["probes"]} == {"up"},
                 what="the answer to both probes")
        assert {row["client"].rsplit(":", 1)[0] for row in rows(site)} == \
            {f"[fe80::91%{site.index}]", f"[fe80::92%{site.index}]"}
        before = cells(site)
        for pid in [*site.daemon.keepers(), *site.daemon.workers()]:
            site.daemon.kill(pid)
        for client in clients:
            assert site.inside(client.informational)
        site.daemon.reload()
        for client in clients:
            assert site.inside(client.informational)
        assert cells(site) == before
        assert {seen.source[0] for seen in responder.of_kind("auth")} == {"fe80::1%cable"}
        for name in ("fe80::91%cable", f"fe80::91%{site.index}", "fe80::91"):
            assert len(site.daemon.cli("sessions", name)["sessions"]) == 2
            assert len(site.daemon.cli("affinity", name)["records"]) == 1
        assert site.daemon.cli("sessions", "fe80::91%lo")["sessions"] == []
        dropped = site.daemon.cli("drop", "fe80::91%cable")
        assert (dropped["sessions_ended"], dropped["records_deleted"]) == (2, 1)
        assert len(rows(site)) == 2


@ROOT_ONLY
def test_a_client_with_a_global_address_may_write_to_a_link_local_one():
    with linked_site("::") as (site, _):
        ip("route", "add", "fd00::/64", "dev", "cable")
        client = linked_client(site, "fd00::91")
        assert site.inside(client.connect)


@ROOT_ONLY
def test_check_names_a_zone_that_is_not_here():
    with own_site(servers=1) as site:
        site.write(site.config(servers={"vpn1": {"address": "fe80::11%nothere"}},
                               services={"ike": {"listen": "[fe80::1%4711]:500"}}))
        result = cli("check", site.path, json=False, status=None)
        said = result.stdout + result.stderr
        assert result.returncode == 1, said
        assert said.count("is no interface of this machine") == 2 and "(ip link)" in said, said
        site.write(site.config(servers={"vpn1": {"address": "fe80::11%lo"}}))
        cli("check", site.path, json=False)


# Masks

@ROOT_ONLY
@pytest.mark.parametrize("plugin", [name for name in PLUGINS if name != "ike_spi"])
def test_mask6_joins_the_clients_of_a_network_and_leaves_ipv4_alone(plugin):
    services = {name: {"persistence": {"profile": "home", **options}}
                for name, options in zip(("ike", "nat-t"), PLUGINS[plugin])}
    with own_site(servers=3) as site:
        site.start({"home": {"plugin": plugin, "options": {"mask6": 64}}}, "home", services=services)
        here = connected(site, 9)
        assert len(set(homes_of(site, here))) == 1 and len(site.daemon.cli("affinity")["records"]) == 1
        site.net6 = "fd00:1:2:3"
        others = connected(site, 3)
        assert len(set(homes_of(site, others))) == 1 and len(site.daemon.cli("affinity")["records"]) == 2
        services = {name: {"listen": [endpoint(site.vip, port), endpoint(site.host(1, 4), port)], **services[name]}
                    for name, port in (("ike", 500), ("nat-t", 4500))}
        site.write(site.config({"home": {"plugin": plugin, "options": {"mask6": 128}}}, "home", services=services))
        site.daemon.reload()
        all_at_home(site, here + others, [homes_of(site, [client])[0] for client in here + others])
        site.client_family, site.vip = 4, site.host(1, 4)
        assert len(set(homes_of(site, connected(site, 6)))) == 3, "each IPv4 client by itself"


# What is said

@ROOT_ONLY
def test_verbs_take_and_show_ipv6_addresses():
    with own_site(servers=2) as site:
        site.start(GROUP, "home", log={"sessions": True})
        clients = connected(site, 2)
        one = clients[0].address
        shown = site.daemon.cli("sessions", one)["sessions"]
        assert sorted(row["client"] for row in shown) == \
            sorted(endpoint(one, sock.getsockname()[1]) for sock in (clients[0].ike, clients[0].natt))
        assert site.daemon.cli("affinity", one)["records"][0]["client"] == one
        explained = site.daemon.cli("affinity", "--explain", one)["services"]
        assert [service["record"]["server"] for service in explained] == [homes_of(site, clients)[0]] * 2
        assert all(service["readable"].startswith(f"{one} in ") for service in explained)
        table = site.daemon.cli("sessions", json=False).splitlines()[1:]
        assert [line.split()[0].rsplit(":", 1)[0] for line in table] == \
            sorted(f"[{client.address}]" for client in clients for _ in range(2)), "a client's rows stand together"
        site.daemon.wait_log(rf"session begun.*client={endpoint(one, 0)[:-2]}".replace("[", r"\[").replace("]", r"\]"))
        dropped = site.daemon.cli("drop", one)
        assert (dropped["sessions_ended"], dropped["records_deleted"]) == (2, 1)
        assert [row["client"].rsplit(":", 1)[0] for row in rows(site)] == [f"[{clients[1].address}]"] * 2


# Dead servers

@ROOT_ONLY
@FAMILIES
def test_icmp_port_unreachable_makes_no_client_deaf(clients, servers):
    with own_site(clients, servers, servers=2) as site:
        site.start(GROUP, "home")
        here = connected(site, 8)
        homes = homes_of(site, here)
        dead = site.responders[homes[0]]
        for _ in range(3):
            dead.close()
            for _ in range(10):
                for client in here:
                    client.keepalive()
            for client, home in zip(here, homes):
                assert home == homes[0] or client.informational(), "deaf, and its server lives"
            dead.open()
            all_at_home(site, here, homes)
        assert site.daemon.cli("status")["counters"]["icmp_errors"] > 0


@ROOT_ONLY
def test_icmpv6_port_unreachable_takes_a_server_down_at_once():
    rule = {"check": "ike", "interval": "100ms", "timeout": "80ms", "rise": 1, "fall": 100}
    with own_site(servers=2) as site:
        site.start(GROUP, "home", pools={"all": {"health": rule}})

        def health(name):
            server = next(one for one in site.daemon.cli("servers")["servers"] if one["name"] == name)
            return {probe["health"] for probe in server["probes"]}

        wait_for(lambda: health("vpn1") == health("vpn2") == {"up"}, what="both up")
        site.responders["vpn1"].close()
        wait_for(lambda: health("vpn1") == {"down"}, what="vpn1 down")
        site.daemon.wait_log(r"vpn1 is down on udp/4500: port unreachable")
        assert set(homes_of(site, connected(site, 4))) == {"vpn2"}
        site.responders["vpn1"].open()
        wait_for(lambda: health("vpn1") == {"up"}, what="vpn1 up")


# Fragments

@ROOT_ONLY
@FAMILIES
def test_all_sizes_pass_in_fragments(clients, servers):
    with own_site(clients, servers, servers=2, echo=True) as site:
        ip("link", "set", "lo", "mtu", "1500")
        site.start(GROUP, "home")
        with contextlib.closing(udp_socket(site.client_address(0))) as one:
            for port in (500, 4500):
                for size in SIZES:
                    assert asks(one, site.vip, port, payload(size)), f"{size} octets"


@ROOT_ONLY
def test_a_daemon_of_ipv4_alone_gets_ipv6_by_a_reload_and_loses_it_again():
    with own_site(4, 4, servers=2) as site:
        site.start(GROUP, "home")
        here = connected(site, 4)
        homes, before = homes_of(site, here), cells(site)
        more = {name: {"listen": [endpoint(site.vip, port), endpoint(site.host(1, 6), port)]}
                for name, port in (("ike", 500), ("nat-t", 4500))}
        site.write(site.config(GROUP, "home", services=more))
        site.daemon.reload()
        four, site.vip, site.client_family = site.vip, site.host(1, 6), 6
        assert connected(site, 4) and homes_of(site, site.clients[4:])
        site.vip = four
        site.write(site.config(GROUP, "home"))
        site.daemon.reload()
        all_at_home(site, here, homes)
        assert cells(site) == before, "sessions of the listener that has gone have ended"


@ROOT_ONLY
def test_the_master_s_death_and_the_next_start_keep_ipv6_listeners_and_sessions():
    with own_site(servers=2) as site:
        site.start(GROUP, "home")
        here = connected(site, 6)
        homes, before = homes_of(site, here), cells(site)
        site.daemon.kill(site.daemon.process.pid)
        site.daemon.process.wait(10)
        all_at_home(site, here, homes)
        last, site.daemon = site.daemon, Daemon(site.path)
        try:
            site.daemon.wait_ready()
            all_at_home(site, here, homes)
            assert cells(site) == before
        finally:
            last.abandon()
