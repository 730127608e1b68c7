# SPDX-License-Identifier: Apache-2.0
"""ike_spi: a client is an IKE_SA, from whatever address and port it speaks, and whoever else claims to be it."""
import os
import threading
import time
from collections import Counter

import ike
import pytest
from homeport import Site, cells, connected, wait_for

CHECK = {"all": {"health": {"check": "ike", "interval": "200ms", "timeout": "150ms", "rise": 1, "fall": 2}}}


def profile(**options):
    return {"spi": {"plugin": "ike_spi", "options": options}}


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=3) as site:
        yield site


@pytest.fixture(name="started")
def fixture_started(site):
    site.start(profile(), "spi", pools=CHECK)
    return site


def behind_one_address(site, count):
    """Connected clients that have their address in common, as behind a NAT."""
    return connected(site, count, 0)


def home_of(site, client):
    """The server of the client's whole IKE_SA; fails when it is not one."""
    home = site.server_of(client, "auth")
    assert home is not None and site.servers_of(client, "init") == [home]
    return home


def learnt(client):
    """ESP there and back: the SPI that the server receives is known from here on."""
    assert client.esp()
    return client


def changed_address(site, client):
    """From Wi-Fi to LTE: the same IKE_SA at another address."""
    client.close()
    client.address = site.client_address(200)
    client.ike, client.natt = ike.udp_socket(client.address), ike.udp_socket(client.address)


def esp_seen(site, client):
    """Servers that have seen the client's ESP."""
    return [name for name, one in site.responders.items()
            if any(seen.data[:4] == client.spi_r[:4] for seen in one.of_kind("esp"))]


def rekeyed(site, client, home):
    """An IKE_SA rekeyed: new SPIs that only client and server know (they are encrypted)."""
    client.spi_i, client.spi_r = b"r" + os.urandom(7), b"R" + os.urandom(7)
    site.responders[home].known[client.spi_i] = client.spi_r


def records(site, client=None):
    return [one for one in site.daemon.cli("affinity")["records"] if client in (None, one["client"])]


def test_clients_behind_one_address_spread(started):
    clients = behind_one_address(started, 12)
    assert Counter(home_of(started, client) for client in clients) == {"vpn1": 4, "vpn2": 4, "vpn3": 4}


def test_without_it_they_are_one_client(site):
    site.start({"aovpn": {"plugin": "match_across_services"}}, "aovpn", pools=CHECK)
    clients = behind_one_address(site, 12)
    assert len({home_of(site, client) for client in clients}) == 1


def test_esp_that_comes_first_from_another_port_is_at_home(started):
    for client in map(learnt, behind_one_address(started, 6)):
        client.move_natt()
        assert client.esp()
        assert esp_seen(started, client) == [home_of(started, client)]
        assert client.informational() and started.servers_of(client, "informational") == [home_of(started, client)]


def test_esp_that_comes_first_from_another_address_is_at_home(started):
    for client in map(learnt, behind_one_address(started, 6)):
        changed_address(started, client)
        assert client.esp()
        assert esp_seen(started, client) == [home_of(started, client)]


def test_ike_that_comes_first_from_another_address_is_at_home(started):
    for client in behind_one_address(started, 6):
        changed_address(started, client)
        assert client.informational()
        assert started.servers_of(client, "informational") == [home_of(started, client)]


@pytest.mark.parametrize("fallback", ["source_ip", "scheduler"])
def test_a_keepalive_alone_makes_neither_record_nor_session(site, fallback):
    site.start(profile(fallback=fallback), "spi", pools=CHECK)
    client = learnt(behind_one_address(site, 1)[0])
    before, sessions = len(records(site)), cells(site)
    client.move_natt()
    for _ in range(10):
        client.keepalive()
    assert client.esp(), "the first that says who it is"
    assert len(records(site)) == before
    assert len(cells(site)) == len(sessions) + 1
    assert not any(one.of_kind("keepalive") for one in site.responders.values())


def test_a_keepalive_of_a_known_flow_goes_to_its_server(started):
    client, *_ = behind_one_address(started, 1)
    client.keepalive()
    wait_for(lambda: started.responders[home_of(started, client)].of_kind("keepalive"), what="the keepalive")


@pytest.mark.parametrize("fallback, expected", [("source_ip", 1), ("scheduler", 0)])
def test_unknown_esp_is_left_to_the_fallback(site, fallback, expected):
    site.start(profile(fallback=fallback), "spi", pools=CHECK)
    clients = [site.client(0) for _ in range(6)]
    for client in clients:
        client.spi_r = b"%c" % (1 + len(client.spi_i)) + os.urandom(7)
        client.send_esp()
    wait_for(lambda: len(cells(site)) == 6, what="a session for each")
    assert len(records(site)) == expected
    assert len({server for server, _ in cells(site).values()}) == (1 if fallback == "source_ip" else 3)


def test_a_flow_that_began_with_unknown_esp_goes_home_with_its_first_ike(started):
    strays = 0
    for client in behind_one_address(started, 6):
        home = home_of(started, client)
        spi_r, client.spi_r = client.spi_r, b"?" + os.urandom(7)
        client.move_natt()
        client.send_esp()
        strays += wait_for(lambda one=client: esp_seen(started, one), what="the ESP at some server") != [home]
        client.spi_r = spi_r
        assert client.informational() and started.servers_of(client, "informational") == [home]
        assert client.esp() and esp_seen(started, client) == [home]
    assert strays


def test_a_new_ike_sa_on_a_known_flow_stays_with_its_server(started):
    for client in behind_one_address(started, 6):
        home = home_of(started, client)
        client.renew()
        client.ike, client.ike_port, kept = client.natt, started.natt_port, client.ike  # reauthentication is on 4500
        marked = ike.MARKER + ike.init_request(client.spi_i)
        client.natt.sendto(marked, (started.vip, started.natt_port))
        client.ike, client.ike_port = kept, started.ike_port
        wait_for(lambda one=client: started.servers_of(one, "init"), what="the IKE_SA_INIT")
        client.spi_r = started.responders[home].known[client.spi_i]
        assert client.auth() and home_of(started, client) == home


def test_a_client_that_starts_again_takes_its_old_flow_along(started):
    """New IKE_SA, new port of 500, old port of 4500 (the NAT still knows it): the flow goes where the IKE_SA is."""
    moved = 0
    for client in behind_one_address(started, 5):  # so that the next round begins with another server
        learnt(client)
        before = home_of(started, client)
        client.renew()
        client.ike.close()
        client.ike = ike.udp_socket(client.address)
        assert client.connect(), "its first IKE_AUTH"
        assert len(started.responders[home_of(started, client)].of_kind("auth", client.spi_i)) == 1
        moved += home_of(started, client) != before
        assert client.esp()
    assert moved


def test_spis_of_a_rekeyed_ike_sa_are_learnt_from_the_flow(started):
    for client in behind_one_address(started, 6):
        home = home_of(started, client)
        rekeyed(started, client, home)
        assert client.informational(), "on its flow"
        changed_address(started, client)
        assert client.informational(), "from elsewhere"
        assert started.servers_of(client, "informational") == [home]
        assert learnt(client) and esp_seen(started, client) == [home]


def test_every_esp_spi_of_a_client_is_learnt(started):
    """A CHILD_SA rekeyed: for a while ESP of the old and of the new one alternates."""
    for client in behind_one_address(started, 3):
        home, first = home_of(started, client), learnt(client).spi_r
        second = b"%c" % (first[0] ^ 1) + first[1:]
        started.responders[home].known[b"child" + client.spi_i[5:]] = second
        count = len(records(started))
        client.spi_r = second
        wait_for(lambda one=client, before=count: one.esp() and len(records(started)) > before, what="its record")
        for client.spi_r in (first, second):
            client.move_natt()
            assert client.esp() and esp_seen(started, client) == [home]


def brought_back(site, client, home):
    """At home by its IKE; and by its ESP, after one excursion at most."""
    for _ in range(2):
        assert client.informational() and site.servers_of(client, "informational") == [home]
        if client.esp(timeout=0.7):
            break
    for _ in range(3):
        assert client.esp() and client.informational()
    assert site.servers_of(client, "informational") == [home]


def two_apart(site):
    """Two connected clients of one address, at two servers, whose ESP is known."""
    one, other = [learnt(client) for client in behind_one_address(site, 2)]
    assert home_of(site, one) != home_of(site, other)
    return one, other


def with_the_same_esp_spi(site, one, other):
    """Servers choose without asking each other."""
    other.spi_r = one.spi_r[:4] + other.spi_r[4:]
    site.responders[home_of(site, other)].known[other.spi_i] = other.spi_r


def test_equal_esp_spis_at_two_addresses_part_by_address(started):
    one, other = two_apart(started)
    changed_address(started, other)
    assert other.informational()
    with_the_same_esp_spi(started, one, other)
    other.send_esp()
    brought_back(started, other, home_of(started, other))
    for client in (one, other):
        home = home_of(started, client)
        seen = len(started.responders[home].of_kind("esp"))
        client.move_natt()
        assert client.esp() and len(started.responders[home].of_kind("esp")) == seen + 1


def test_equal_esp_spis_behind_one_address_cost_one_excursion(started):
    one, other = two_apart(started)
    with_the_same_esp_spi(started, one, other)
    other.send_esp()
    brought_back(started, other, home_of(started, other))
    assert learnt(one), "the first one is at home as before"


def test_who_has_moved_and_gets_anothers_port_is_at_home(started):
    """Both have come to an address where neither began, and the NAT gives the one's live port to the other."""
    one, other = two_apart(started)
    home = home_of(started, other)
    for client in (one, other):
        changed_address(started, client)
        assert client.esp()
    one.natt, other.natt = other.natt, one.natt
    assert other.esp(), "ESP first"
    brought_back(started, other, home)
    other.move_natt()
    assert other.esp(), "and from another port again"
    brought_back(started, other, home)


def test_a_flow_that_was_forged_away_comes_home(started):
    """An IKE_AUTH of another IKE_SA, from the client's own address and port."""
    victim, attacker = two_apart(started)
    home = home_of(started, victim)
    changed_address(started, victim)
    assert victim.esp()
    for _ in range(3):
        forged = ike.message(attacker.spi_i, attacker.spi_r, 46, ike.AUTH, ike.INITIATOR, 9, ike.encrypted())
        victim.natt.sendto(ike.MARKER + forged, (started.vip, started.natt_port))
        brought_back(started, victim, home)


def test_two_ike_sas_on_one_flow_cost_no_session_a_datagram(started):
    one, other = two_apart(started)
    before, began = started.daemon.cli("status")["counters"]["sessions_moved"], time.monotonic()
    other.natt = one.natt
    for _ in range(300):
        one.send_esp()
        other.send_esp()
    assert one.informational()
    moved = started.daemon.cli("status")["counters"]["sessions_moved"] - before
    assert moved <= 8 * (time.monotonic() - began + 2)


def test_a_nat_that_shuffles_its_ports_moves_nobody(started):
    clients = [learnt(client) for client in behind_one_address(started, 6)]
    homes = [home_of(started, client) for client in clients]
    sockets = [client.natt for client in clients]
    for client, natt in zip(clients, sockets[1:] + sockets[:1]):
        client.natt = natt
    for client, home in zip(clients, homes):
        assert client.esp(), "ESP first, on what was another client's flow"
        assert client.informational() and started.servers_of(client, "informational") == [home]


def test_names_live_as_long_as_their_tunnel(site):
    """ESP alone for much longer than the timeout: the IKE SPI still leads home."""
    site.start(profile(timeout="2s"), "spi", pools=CHECK)
    client = learnt(behind_one_address(site, 1)[0])
    home = home_of(site, client)
    for _ in range(12):
        client.await_esp(client.send_esp(), 0.5)
        client._wait(client.natt, lambda answer: False, 0.5)  # half a second of nothing
    changed_address(site, client)
    assert client.informational() and site.servers_of(client, "informational") == [home]


@pytest.mark.parametrize("what", ["workers", "restart", "everything"])
def test_names_outlive_processes(started, what):
    clients = [learnt(client) for client in behind_one_address(started, 6)]
    homes, before = [home_of(started, client) for client in clients], cells(started)
    if what == "workers":
        killed = started.daemon.workers()
        for pid in killed:
            started.daemon.kill(pid)
        wait_for(lambda: len(set(started.daemon.workers()) - set(killed)) == 2, what="new workers")
    elif what == "restart":
        started.restart()
    else:
        started.daemon.abandon()
        started.daemon = type(started.daemon)(started.path).wait_ready()
    for client, home in zip(clients, homes):
        assert client.esp() and esp_seen(started, client) == [home]
    assert {key: cell for key, cell in cells(started).items() if key in before and key[1] == "nat-t"} == \
        {key: cell for key, cell in before.items() if key[1] == "nat-t"}
    for client, home in zip(clients[:3], homes):
        client.move_natt()
        assert client.esp() and esp_seen(started, client) == [home]
    for client, home in zip(clients[3:], homes[3:]):
        changed_address(started, client)
        assert client.informational() and started.servers_of(client, "informational") == [home]
        client.close()


def test_a_reload_from_a_vendors_way_keeps_everybody(site):
    site.start({"aovpn": {"plugin": "match_across_services"}}, "aovpn", pools=CHECK)
    clients = connected(site, 6)
    homes, before = [home_of(site, client) for client in clients], cells(site)
    site.write(site.config(profile(), "spi", pools=CHECK))
    site.daemon.reload()
    for client, home in zip(clients, homes):
        assert client.esp() and client.informational()
        client.move_natt()
        assert client.esp() and esp_seen(site, client) == [home]
        changed_address(site, client)
        assert client.informational() and site.servers_of(client, "informational") == [home]
        client.close()
    after = cells(site)
    assert all(after[key] == cell for key, cell in before.items() if key[1] == "nat-t")


def impersonate(site, victim, number=90):
    """Another client with the victim's SPIi, at another address."""
    attacker = site.client(number)
    attacker.spi_i = victim.spi_i
    return attacker


def test_who_repeats_an_spi_from_elsewhere_is_another_client(started):
    """Both live: the victim stays where it is, with its session; the other one is served like any new client."""
    for victim in behind_one_address(started, 6):
        learnt(victim)
        home, before = home_of(started, victim), cells(started)
        attacker = impersonate(started, victim)
        assert attacker.init(), "an IKE_SA_INIT with the same SPIi"
        assert attacker.auth(), "it goes to where its own IKE_SA_INIT went"
        assert {key: cell for key, cell in cells(started).items() if key in before} == before
        started.responders[home].known[victim.spi_i] = victim.spi_r  # the responder keeps one per SPIi
        assert victim.informational() and victim.esp()
        assert started.servers_of(victim, "informational") == [home]
        victim.move_natt()
        assert victim.informational(), "from another port it is still itself"
        assert started.servers_of(victim, "informational") == [home]
        attacker.close()


def test_forged_messages_of_an_ike_sa_end_and_move_nothing(started):
    victim = learnt(behind_one_address(started, 1)[0])
    home, before = home_of(started, victim), cells(started)
    attacker = impersonate(started, victim)
    for exchange in (ike.AUTH, 36, ike.INFORMATIONAL):
        for spi_r in (victim.spi_r, b"nonsense"):
            forged = ike.message(victim.spi_i, spi_r, 46, exchange, ike.INITIATOR, 77, ike.encrypted())
            attacker.ike.sendto(forged, (started.vip, started.ike_port))
            attacker.natt.sendto(ike.MARKER + forged, (started.vip, started.natt_port))
    attacker.natt.sendto(victim.spi_r[:4] + bytes(60), (started.vip, started.natt_port))
    wait_for(lambda: len(cells(started)) == len(before) + 2, what="the attacker's sessions")
    assert {key: cell for key, cell in cells(started).items() if key in before} == before
    assert victim.informational() and victim.esp()
    assert started.servers_of(victim, "informational") == [home]


def test_a_flood_of_random_spis_evicts_no_proven_record(site):
    site.start(profile(), "spi", pools=CHECK, affinity={"capacity": 256})
    clients = [learnt(client) for client in behind_one_address(site, 12)]
    homes = [home_of(site, client) for client in clients]
    wait_for(lambda: sum(one["proven"] for one in records(site)) == 24, 60, "two proven names of each client")
    flooding = threading.Event()

    def flood():
        while not flooding.is_set():
            with ike.udp_socket(site.client_address(150)) as one:  # a flow is heard 32 times a second
                for _ in range(30):
                    one.sendto(ike.init_request(os.urandom(8)), (site.vip, site.ike_port))
                    one.sendto(os.urandom(40), (site.vip, site.natt_port))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        wait_for(lambda: site.daemon.cli("status")["counters"]["records_evicted"] > 2000, 60, "a flood that evicts")
    finally:
        flooding.set()
        thread.join()
    for client, home in zip(clients, homes):
        client.move_natt()
        wait_for(lambda one=client: one.esp(timeout=1), what="ESP behind the rest of the flood")
        assert esp_seen(site, client) == [home]
        changed_address(site, client)
        assert client.informational(timeout=6) and site.servers_of(client, "informational") == [home]
        client.close()


def test_forged_spis_on_a_clients_own_flow_are_not_proven(started):
    """A proven session is no licence: its flood is learnt four times a second, and proven by none at once."""
    client = learnt(behind_one_address(started, 1)[0])
    before, began = records(started), time.monotonic()
    for _ in range(500):
        client.natt.sendto(os.urandom(40), (started.vip, started.natt_port))
        client.send_esp()
    assert client.informational()
    after = records(started)
    seconds = time.monotonic() - began
    assert len(after) - len(before) <= 4 * (seconds + 2)
    if seconds < 8:  # else some are old enough
        assert sum(one["proven"] for one in after) == sum(one["proven"] for one in before)


def test_a_flow_teaches_no_more_than_32_ike_spis_a_second(started):
    client = behind_one_address(started, 1)[0]
    before, began = records(started), time.monotonic()
    for _ in range(1000):
        forged = ike.message(os.urandom(8), os.urandom(8), 46, ike.INFORMATIONAL, ike.INITIATOR, 5, ike.encrypted())
        client.natt.sendto(ike.MARKER + forged, (started.vip, started.natt_port))
    wait_for(client.informational, what="the end of the flood")
    assert len(records(started)) - len(before) <= 32 * (time.monotonic() - began + 2)


def test_check_says_when_a_service_is_not_read_as_ike(site):
    daemon = site.start(profile(), "spi")
    daemon.wait_log("is not read as IKE, so all its clients are left to `fallback`")
