# SPDX-License-Identifier: Apache-2.0
"""`source: [ADDRESS, …]`: which of our own addresses a client comes from at its server, through everything that happens
to processes, configuration and addresses; and servers that are silent to one of them."""
import contextlib
import os
import pathlib
import signal
import socket

import pytest
import yaml
from homeport import Site, cells, cli, connected, wait_for
from ike import udp_socket
from netns import ip, own_net

GROUP = {"home": {"plugin": "match_across_services"}}
IKE = {"health": {"check": "ike", "interval": "60s"}}  # makes high ports IKE services, and keeps quiet
NOT_HERE = "203.0.113.77"
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace of its own")


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=1) as site:
        yield site


def ours(site, count, first=40):
    return [site.host(first + number, 4) for number in range(count)]


def start(site, source, **changes):
    site.start(GROUP, "home", pools={"all": {**IKE, "source": source, **changes.pop("pool", {})}}, **changes)


def reload(site, source, **changes):
    site.write(site.config(GROUP, "home", pools={"all": {**IKE, "source": source}}, **changes))
    site.daemon.reload()


def seen_from(site, client):
    """The addresses that the client's present IKE_SA has come from, at all its servers, on both ports."""
    found = set()
    for one in site.responders.values():
        with one.lock:
            found |= {here.source[0] for here in one.seen if here.spi_i == client.spi_i}
    return found


def source_of(site, client):
    """The one address that all of it comes from."""
    found = seen_from(site, client)
    assert len(found) == 1, f"{client.address} came from {found}"
    return found.pop()


def sources(site, server="vpn1"):
    """address -> what `servers` says of it at the server; that of the route's choice under 127.0.0.1."""
    found = next(one for one in site.daemon.cli("servers")["servers"] if one["name"] == server)["sources"]
    return {one["address"] or "127.0.0.1": one for one in found}


def counters(site):
    return site.daemon.cli("status")["counters"]


def clients_counted(site, number):
    wait_for(lambda: sum(one["clients"] for one in sources(site).values()) == number, what=f"{number} clients counted")


def alive_as_before(site, clients, homes):
    for client, home in zip(clients, homes):
        assert client.informational(), f"{client.address} is not known any more"
        assert client.esp() and source_of(site, client) == home
        client.ike.close()  # a flow of its own on port 500, as behind a NAT that has forgotten
        client.ike = udp_socket(client.address)
        client.renew()
        assert client.connect() and source_of(site, client) == home


# Who comes from where

def test_clients_that_come_at_once_are_spread_evenly_and_each_comes_from_one_address_on_both_ports(site):
    addresses = ours(site, 4)
    start(site, addresses)
    clients = [site.client() for _ in range(12)]
    for client in clients:
        client.send_init()
    wait_for(lambda: len({one.spi_i for one in site.responders["vpn1"].of_kind("init")}) == 12, what="all of them")
    homes = [source_of(site, client) for client in clients]
    assert sorted(homes.count(address) for address in addresses) == [3, 3, 3, 3]
    for client, home in zip(clients, homes):
        assert client.connect() and source_of(site, client) == home
    rows = site.daemon.cli("sessions")["sessions"]
    assert len(rows) == 24
    for client, home in zip(clients, homes):
        assert {row["source_address"] for row in rows if row["client"].startswith(f"{client.address}:")} == {home}


def test_a_new_client_takes_the_address_with_the_fewest_that_are_not_proven(site):
    addresses = ours(site, 2)
    start(site, addresses)
    first = site.client()
    assert first.init()
    busy = source_of(site, first)
    idle = next(one for one in addresses if one != busy)
    for _ in range(3):  # each is proven, and counted as such, before the next one comes
        client, = connected(site, 1)
        assert source_of(site, client) == idle
        wait_for(lambda: sources(site)[idle]["unproven"] == 0 and sources(site)[busy]["unproven"] == 1,
                 what="the recount")
    assert sources(site)[idle]["clients"] == 3 and sources(site)[busy]["clients"] == 1
    text = site.daemon.cli("servers", json=False)
    assert "OWN ADDRESS" in text and idle in text


def test_each_server_is_counted_for_itself():
    with Site(servers=2) as site:
        addresses = ours(site, 2)
        start(site, addresses)
        clients = connected(site, 8)
        for name in site.names:
            homes = [source_of(site, client) for client in clients if site.server_of(client, "auth") == name]
            assert sorted(homes.count(address) for address in addresses) == [2, 2], name


def test_a_service_says_it_for_itself_and_wins_over_its_pool(site):
    pool, service = ours(site, 1), ours(site, 1, 50)
    start(site, pool, services={name: {"source": service} for name in ("ike", "nat-t")})
    client, = connected(site, 1)
    assert source_of(site, client) == service[0]


def test_flows_without_persistence_and_with_a_full_table_keep_to_one_address_for_each_client(site):
    site.start(pools={"all": {**IKE, "source": ours(site, 4)}})
    clients = connected(site, 8)
    assert len({source_of(site, client) for client in clients}) > 1


def test_both_flows_that_begin_at_once_in_different_workers_come_from_one_address(site):
    start(site, ours(site, 4))
    clients = [site.client() for _ in range(60)]
    for client in clients:
        client.send_init()
        client.keepalive()
    wait_for(lambda: len(site.daemon.cli("sessions")["sessions"]) == 120, what="both flows of each")
    found, lanes = {}, set()
    for row in site.daemon.cli("sessions")["sessions"]:
        found.setdefault(row["client"].rsplit(":", 1)[0], []).append((row["source_address"], row["lane"] % 2))
    for pair in found.values():
        assert len({address for address, _ in pair}) == 1
        lanes.add(pair[0][1] == pair[1][1])
    assert lanes == {True, False}, "some had flows in both workers"


def test_clients_behind_one_nat_that_are_known_by_their_spi_keep_theirs_each(site):
    site.start({"home": {"plugin": "ike_spi"}}, "home", pools={"all": {**IKE, "source": ours(site, 4)}})
    clients = connected(site, 12, number=0)
    homes = [source_of(site, client) for client in clients]
    assert len(set(homes)) == 4
    for client, home in zip(clients, homes):
        client.renew()  # a new IKE_SA by the same flows
        assert client.connect() and client.esp() and source_of(site, client) == home
        client.move_natt()
        assert client.informational() and source_of(site, client) == home


def test_a_record_that_its_session_puts_back_keeps_the_address(site):
    start(site, ours(site, 4), affinity={"capacity": 8}, sessions={"idle_unproven": "60s"})
    client = site.client()
    assert client.init()
    home = source_of(site, client)

    def is_there():
        return any(one["client"] == client.address for one in site.daemon.cli("affinity")["records"])

    for _ in range(400):
        if not is_there():
            break
        assert site.client().init()
    assert not is_there(), "the record was never evicted"
    client.send_init()
    wait_for(is_there, what="the record")
    assert client.auth() and source_of(site, client) == home


def test_tcp_comes_from_the_same_address_as_its_clients_datagrams(site):
    addresses = ours(site, 4)
    with contextlib.closing(socket.create_server((site.addresses["vpn1"], 0))) as server:
        port = server.getsockname()[1]
        start(site, addresses, services={"sstp": {"listen": f"{site.vip}:{port}", "protocol": "tcp", "pool": "all",
                                                  "persistence": "home"}},
              pool={"health": {"check": "auto", "interval": "60s"}})
        server.settimeout(10)
        for client in connected(site, 5):
            with contextlib.closing(socket.socket()) as one:
                one.bind((client.address, 0))
                one.connect((site.vip, port))
                peer = None
                while peer not in addresses:  # probes come from elsewhere
                    accepted, (peer, _) = server.accept()
                    accepted.close()
                assert peer == source_of(site, client)


# Through deaths, restarts and reloads

def test_killed_workers_and_a_killed_monitor_change_no_address(site):
    start(site, ours(site, 4))
    clients = connected(site, 8)
    homes = [source_of(site, client) for client in clients]
    for pid in [*site.daemon.workers(), site.daemon.monitor()]:
        site.daemon.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(site.daemon.workers()) == 2, what="the replacements")
    alive_as_before(site, clients, homes)
    clients_counted(site, 8)


def test_a_restart_changes_no_address(site):
    start(site, ours(site, 4))
    clients = connected(site, 8)
    homes = [source_of(site, client) for client in clients]
    site.restart()
    alive_as_before(site, clients, homes)


def test_a_changed_list_is_for_new_clients_and_the_others_keep_their_address(site):
    old, new = ours(site, 2), ours(site, 2, 50)
    start(site, old)
    clients = connected(site, 4)
    homes = [source_of(site, client) for client in clients]
    assert set(homes) == set(old)
    half = site.client()  # has sent its IKE_SA_INIT; the rest of its handshake comes after the reload
    assert half.init()
    reload(site, new)
    assert half.auth() and source_of(site, half) in old
    alive_as_before(site, clients, homes)
    assert {source_of(site, client) for client in connected(site, 4)} == set(new)
    reload(site, "nat")
    alive_as_before(site, clients, homes)
    client, = connected(site, 1)
    assert source_of(site, client) == "127.0.0.1"


def test_a_client_whose_address_has_left_the_list_takes_another_once_its_sessions_have_ended(site):
    old, new = ours(site, 1), ours(site, 1, 50)
    short = {"sessions": {"idle": "1s"}}
    start(site, old, **short)
    client, = connected(site, 1)
    reload(site, new, **short)
    wait_for(lambda: not site.daemon.cli("sessions")["sessions"], what="the end of its sessions")
    record, = site.daemon.cli("affinity")["records"]
    wait_for(lambda: site.daemon.cli("affinity")["records"][0]["unused_s"] > 1, what="the idle time")
    assert record["left"] != 0
    client.renew()
    assert client.connect() and source_of(site, client) == new[0]


def test_clients_of_nat_keep_its_address_when_a_list_comes(site):
    start(site, "nat")
    clients = connected(site, 4)
    half = site.client()
    assert half.init()
    reload(site, ours(site, 2))
    assert half.auth() and source_of(site, half) == "127.0.0.1"
    alive_as_before(site, clients, ["127.0.0.1"] * 4)
    client, = connected(site, 1)
    assert source_of(site, client) in ours(site, 2)


# An address that is not here

def test_check_and_start_name_an_address_that_is_not_here_and_the_others_serve(site):
    address, = ours(site, 1)
    site.write(site.config(GROUP, "home", pools={"all": {**IKE, "source": [NOT_HERE, address]}}))
    result = cli("check", site.path, json=False, status=None)
    assert result.returncode == 0
    assert f"{NOT_HERE} is not an address of this machine" in result.stderr and "ip address add" in result.stderr
    assert f"{address} is not" not in result.stderr
    start(site, [NOT_HERE, address])
    site.daemon.wait_log(f"source address {NOT_HERE} is not on this machine.*ip address add {NOT_HERE}/32")
    for client in connected(site, 4):
        assert source_of(site, client) == address
    assert not sources(site)[NOT_HERE]["here"] and sources(site)[address]["here"]
    assert "no: not an address of this machine" in site.daemon.cli("servers", json=False)


def test_no_address_that_is_here_refuses_and_counts(site):
    start(site, [NOT_HERE])
    client = site.client()
    assert not client.init(timeout=1)
    counted = counters(site)
    assert counted["refused_no_source"] + counted["refused_no_server"] >= 1 and counted["sessions_begun"] == 0


@ROOT_ONLY
def test_an_address_that_goes_and_comes_again():
    with own_net(), Site(servers=1) as site:
        goes, stays = "10.99.7.1", "10.99.7.2"
        for address in (goes, stays):
            ip("address", "add", f"{address}/32", "dev", "lo")
        start(site, [goes, stays])
        clients = connected(site, 4)
        moving = [client for client in clients if source_of(site, client) == goes]
        staying = [client for client in clients if source_of(site, client) == stays]
        assert len(moving) == len(staying) == 2
        ip("address", "del", f"{goes}/32", "dev", "lo")
        site.daemon.wait_log(f"source address {goes} is not on this machine")
        for client in moving:
            assert client.informational(), "the next datagrams go on from another address"
            assert seen_from(site, client) == {goes, stays}
            client.renew()
            assert client.connect() and source_of(site, client) == stays
        alive_as_before(site, staying, [stays, stays])
        ip("address", "add", f"{goes}/32", "dev", "lo")
        site.daemon.wait_log(f"source address {goes} is on this machine again")
        assert {source_of(site, client) for client in connected(site, 4)} == {goes, stays}


@ROOT_ONLY
@pytest.mark.parametrize("nonlocal_bind", ["0", "1"])
def test_sessions_wait_for_their_only_address_and_go_on_as_before(nonlocal_bind):
    with own_net(), Site(servers=1) as site:
        pathlib.Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text(nonlocal_bind, encoding="ascii")
        only = "10.99.7.1"
        ip("address", "add", f"{only}/32", "dev", "lo")
        start(site, [only])
        client, = connected(site, 1)
        before = cells(site)
        ip("address", "del", f"{only}/32", "dev", "lo")
        site.daemon.wait_log(f"source address {only} is not on this machine")
        assert not client.informational(timeout=1) and not client.informational(timeout=1)
        assert counters(site)["refused_no_source"] >= 1 and cells(site) == before
        ip("address", "add", f"{only}/32", "dev", "lo")
        site.daemon.wait_log(f"source address {only} is on this machine again")
        assert client.informational() and cells(site) == before


@pytest.mark.parametrize("text, message", [
    ("[]", "wants 1 to 63 own addresses, not 0"),
    ("[127.0.0.5, 127.0.0.5]", "127.0.0.5 is in this list twice"),
    ('["127.0.0.5:500"]', "own addresses, each without a port"),
    ("[0.0.0.0]", "own addresses, each without a port"),
    ('["fd00::1"]', "none of these source addresses is IPv4"),
    ("[here]", "is not an address"),
    ("natt", "did you mean `nat`?"),
    ("{ a: b }", "nat, transparent, or a list of own addresses"),
])
def test_what_is_no_list_of_own_addresses_is_said_with_its_place(site, text, message):
    site.write(site.config(GROUP, "home", pools={"all": {**IKE, "source": yaml.safe_load(text)}}))
    result = cli("check", site.path, json=False, status=None)
    assert result.returncode == 1 and message in result.stderr and f"{site.path}:" in result.stderr


def test_two_ports_of_one_profile_with_different_sources_are_an_error(site):
    site.write(site.config(GROUP, "home", pools={"all": IKE}, services={"ike": {"source": ours(site, 1)}}))
    errors = cli("check", site.path, json=False, status=None)
    assert errors.returncode == 1 and "share records, but not their `source`" in errors.stderr


# Refuses clients

def refuse(site, address, server="vpn1"):
    """Clients come until the server is known to refuse the address; it answers all others. Returns how many came."""
    with site.responders[server].lock:
        site.responders[server].mute = {address}
    for number in range(1, 200):
        site.client().send_init()
        state = sources(site, server).get(address)
        if state and state["refuses"]:
            return number
        wait_for(lambda n=number: sum(len(one.of_kind("init")) for one in site.responders.values()) >= n,
                 what="its IKE_SA_INIT")
        if number % 16 == 0:
            with contextlib.suppress(AssertionError):
                wait_for(lambda: (sources(site, server).get(address) or {}).get("refuses"), 4, "the refusal")
                return number
    raise AssertionError("the server was never known to refuse")


def test_a_server_that_is_silent_to_one_address_gets_new_clients_from_the_others(site):
    silent, other = ours(site, 2)
    start(site, [silent, other])
    refuse(site, silent)
    line = site.daemon.wait_log(f"server vpn1 refuses clients from {silent}: .*IKE_SA_INITs were not answered").string
    assert "source: [ADDRESS" in line
    state = sources(site)
    assert 0 < state[silent]["refuses"]["left_ms"] <= 30000 and "IKE_SA_INITs" in state[silent]["refuses"]["reason"]
    assert state[other]["refuses"] is None
    for client in connected(site, 8):
        assert source_of(site, client) == other
    answer = site.daemon.cli("servers")
    assert any(f"refuses clients from {silent}" in note for note in answer["notes"])
    assert "IKE_SA_INITs not answered" in site.daemon.cli("servers", json=False)
    assert counters(site)["sa_init_unanswered"] >= 8


def test_a_server_that_refuses_its_only_address_gets_no_new_clients_and_keeps_the_old_ones():
    with Site(servers=2) as site:
        start(site, "nat")
        old = connected(site, 4)
        homes = [site.server_of(client, "auth") for client in old]
        refuse(site, "127.0.0.1")
        site.daemon.wait_log("server vpn1 refuses clients from our address")
        for client in connected(site, 6):
            assert site.server_of(client, "auth") == "vpn2"
        with site.responders["vpn1"].lock:
            site.responders["vpn1"].mute = set()
        for client, home in zip(old, homes):
            assert client.informational()
            client.renew()
            assert client.connect() and site.server_of(client, "auth") == home, "a known client is honoured"


def test_where_all_servers_refuse_all_serve_unless_the_pool_says_otherwise(site):
    start(site, "nat")
    refuse(site, "127.0.0.1")
    with site.responders["vpn1"].lock:
        site.responders["vpn1"].mute = set()
    connected(site, 2)
    assert sources(site)["127.0.0.1"]["refuses"] is not None
    site.write(site.config(GROUP, "home", pools={"all": {**IKE, "all_down": "refuse"}}))
    site.daemon.reload()
    assert not site.client().init(timeout=1)
    assert counters(site)["refused_no_server"] >= 1


def test_repeats_of_one_client_count_once(site):
    start(site, "nat")
    with site.responders["vpn1"].lock:
        site.responders["vpn1"].mute = {"127.0.0.1"}
    client = site.client()
    for number in range(1, 20):
        client.send_init()
        wait_for(lambda n=number: len(site.responders["vpn1"].of_kind("init")) >= n, what="the repeat")
    wait_for(lambda: counters(site)["sa_init_unanswered"] == 1, what="the one that is counted")
    for _ in range(10):
        client.send_init()
    assert sources(site)["127.0.0.1"]["refuses"] is None and counters(site)["sa_init_unanswered"] == 1
