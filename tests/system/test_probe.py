# SPDX-License-Identifier: Apache-2.0
"""Health as servers see it: what is probed, how, from where; what takes a server down and brings it up; what the log
says of it."""
import os
import re
import time

import pytest
from homeport import Site, wait_for
from ike import MARKER, Responder
from netns import own_net

GROUP = {"home": {"plugin": "match_across_services"}}
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace of its own")


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=2) as site:
        yield site


def rule(check="ike", interval="100ms", timeout="80ms", rise=1, fall=2, **more):
    return {"all": {"health": {"check": check, "interval": interval, "timeout": timeout, "rise": rise, "fall": fall,
                               **more}}}


def start(site, pools, **changes):
    site.start(GROUP, "home", pools=pools, **changes)
    return site


def server(site, name):
    return next(one for one in site.daemon.cli("servers")["servers"] if one["name"] == name)


def health(site, name):
    """Port -> up, down or not probed yet."""
    return {probe["port"]: probe["health"] for probe in server(site, name)["probes"]}


def await_health(site, name, **wanted):
    """ike and natt: what is awaited of these ports; both when only one word is given."""
    ports = {"ike": site.ike_port, "natt": site.natt_port}
    wait_for(lambda: all(health(site, name).get(ports[key]) == word for key, word in wanted.items()),
             what=f"{name} {wanted}")


def await_up(site):
    for name in site.names:
        await_health(site, name, ike="up", natt="up")


def probes(responder, port=None):
    return [one for one in responder.of_kind("probe") if port in (None, one.port)]


def marked(seen):
    return seen.data[:4] == MARKER


def deaf_to_probes(responder, deaf=True):
    """From now on it answers clients alone."""
    answer = type(responder)._answer

    def one(datagram, seen):
        return None if deaf and datagram.kind == "probe" else answer(responder, datagram, seen)

    with responder.lock:
        responder._answer = one


# What is sent where

@pytest.mark.parametrize("check", ["auto", "ike"])
def test_high_ports_are_probed_plain_and_marked(site, check):
    start(site, rule(check))
    await_up(site)
    for responder in site.responders.values():
        for port in (site.ike_port, site.natt_port):
            wait_for(lambda r=responder, p=port: {marked(one) for one in probes(r, p)} == {True, False},
                     what="both kinds")


def test_check_none_sends_nothing_and_every_server_serves(site):
    start(site, rule("none"))
    clients = [site.client() for _ in range(4)]
    assert all(client.connect() for client in clients)
    assert {site.server_of(client, "auth") for client in clients} == set(site.names)
    assert site.daemon.cli("status")["counters"]["probes_sent"] == 0
    assert not any(probes(one) for one in site.responders.values())
    assert all(server(site, name)["probes"] == [] for name in site.names)


@ROOT_ONLY
def test_port_500_is_probed_plain_and_port_4500_marked():
    with own_net(), Site(servers=2, responders=False) as site:
        site.ike_port, site.natt_port = 500, 4500
        for name, address in site.addresses.items():
            site.responders[name] = Responder(name, address, [500, 4500])
        start(site, rule("auto"))
        await_up(site)
        client = site.client()
        assert client.connect()
        for one in site.responders.values():
            wait_for(lambda r=one: len(probes(r, 500)) >= 3 and len(probes(r, 4500)) >= 3, what="some probes")
            assert not any(marked(here) for here in probes(one, 500))
            assert all(marked(here) for here in probes(one, 4500))


def test_each_server_and_port_is_probed_once_however_many_services_use_it(site):
    more = {f"more-{number}": {"listen": f"{site.net}.{2 + number}:{site.ike_port}", "protocol": "udp", "pool": "all"}
            for number in range(4)}
    start(site, rule(interval="200ms", timeout="150ms"), services=more)
    await_up(site)
    assert all(len(server(site, name)["probes"]) == 2 for name in site.names)
    responder = site.responders["vpn1"]
    first = len(probes(responder, site.ike_port))
    begun = time.monotonic()
    wait_for(lambda: len(probes(responder, site.ike_port)) >= first + 6, what="three intervals")
    assert time.monotonic() - begun > 0.35, "two datagrams an interval, not ten"


def test_probes_leave_from_health_source_and_sessions_do_not(site):
    source = f"{site.net}.250"
    start(site, rule(source=source))
    await_up(site)
    client = site.client()
    assert client.connect()
    responder = site.responders[site.server_of(client)]
    assert {one.source[0] for one in probes(responder)} == {source}
    assert source not in {one.source[0] for one in responder.of_kind("init")}


def test_a_health_source_that_is_not_here_is_said_once_and_changes_no_state(site):
    start(site, rule(source="192.0.2.250"))
    site.daemon.wait_log(r"cannot probe server vpn1 on udp/\d+: .*health\.source")
    sent = site.daemon.cli("status")["counters"]["probes_sent"]
    wait_for(lambda: site.daemon.cli("status")["counters"]["probes_sent"] > sent + 12, what="some more tries")
    assert len(re.findall(r"cannot probe server vpn1", site.daemon.log())) == 2, "once for each of two ports"
    assert site.client().connect(), "not known is not down"
    assert "down" not in health(site, "vpn1").values()


def test_a_probe_costs_the_server_no_half_open_sa_and_every_one_has_an_spi_of_its_own(site):
    start(site, rule())
    responder = site.responders["vpn1"]
    wait_for(lambda: len(probes(responder)) >= 8, what="some probes")
    plain = [one for one in probes(responder, site.ike_port) if not marked(one)]
    assert len({one.spi_i for one in plain}) == len(plain)
    assert responder.known == {}, "none of them offers what a server accepts"


# Down and up

def test_fall_probes_in_a_row_take_a_server_down_and_rise_bring_it_up_each_with_its_reason(site):
    start(site, rule(rise=3, fall=4))
    await_up(site)
    responder = site.responders["vpn1"]
    deaf_to_probes(responder)
    before = len(probes(responder, site.ike_port))
    site.daemon.wait_log(rf"warning: server vpn1 is down on udp/{site.ike_port}: no answer to 4 probes in a row")
    assert len(probes(responder, site.ike_port)) - before >= 4 * 2 - 2, "four intervals of a plain and a marked one"
    await_health(site, "vpn1", ike="down", natt="down")
    assert "no answer to 4" in server(site, "vpn1")["probes"][0]["reason"]
    assert health(site, "vpn2") == {site.ike_port: "up", site.natt_port: "up"}
    place = site.daemon.mark()
    before = len(probes(responder, site.ike_port))
    deaf_to_probes(responder, False)
    site.daemon.wait_log(rf"info: server vpn1 is up on udp/{site.ike_port}: answered 3 probes in a row", after=place)
    assert len(probes(responder, site.ike_port)) - before >= 3 * 2 - 2
    await_health(site, "vpn1", ike="up", natt="up")


def test_one_lost_probe_takes_nobody_down(site):
    start(site, rule(fall=3))
    await_up(site)
    responder = site.responders["vpn1"]
    for _ in range(4):
        deaf_to_probes(responder)
        missed = len(probes(responder, site.ike_port))
        wait_for(lambda n=missed: len(probes(responder, site.ike_port)) > n, what="a probe that goes unanswered")
        deaf_to_probes(responder, False)
        answered = site.daemon.cli("status")["counters"]["probes_answered"]
        wait_for(lambda n=answered: site.daemon.cli("status")["counters"]["probes_answered"] > n + 4, what="answers")
    assert "is down" not in site.daemon.log()


def test_icmp_port_unreachable_takes_a_server_down_at_once(site):
    start(site, rule(interval="300ms", timeout="250ms", fall=100))
    await_up(site)
    site.responders["vpn1"].close()
    site.daemon.wait_log(r"server vpn1 is down on udp/\d+: port unreachable \(ICMP\)", timeout=3)
    await_health(site, "vpn1", ike="down", natt="down")
    place = site.daemon.mark()
    site.responders["vpn1"].open()
    site.daemon.wait_log(r"server vpn1 is up", after=place)


def test_answers_that_are_not_the_server_s_do_not_count(site):
    """From another address; another SPI; no IKE at all."""
    start(site, rule())
    await_up(site)
    responder = site.responders["vpn1"]
    answer = type(responder)._answer

    def other_spi(datagram, seen):
        text = answer(responder, datagram, seen)
        return os.urandom(8) + text[8:] if datagram.kind == "probe" else text

    def garbage(datagram, seen):
        return os.urandom(60) if datagram.kind == "probe" else answer(responder, datagram, seen)

    for wrong in (other_spi, garbage, None):
        with responder.lock:
            responder._answer = wrong or (lambda datagram, seen: answer(responder, datagram, seen))
            responder.reply_address = f"{site.net}.99" if wrong is None else None
        await_health(site, "vpn1", ike="down", natt="down")
        with responder.lock:
            responder._answer = lambda datagram, seen: answer(responder, datagram, seen)
            responder.reply_address = None
        await_health(site, "vpn1", ike="up", natt="up")


def test_a_server_that_answers_a_client_is_not_taken_down_by_a_silent_probe_alone(site):
    start(site, rule(interval="200ms", timeout="150ms", fall=2))
    await_up(site)
    client = site.client()
    assert client.connect()
    home = site.server_of(client, "auth")
    deaf_to_probes(site.responders[home])
    place = site.daemon.mark()
    until = time.monotonic() + 2.5
    while time.monotonic() < until:  # a client that is answered all the time: more than ten probes go silent
        assert client.informational()
    site.daemon.wait_log(rf"server {home} does not answer probes on udp/\d+, but answers clients: not taken down",
                         after=place)
    assert "is down" not in site.daemon.log()
    site.daemon.wait_log(rf"server {home} is down on udp/\d+: no answer", after=place)  # now that nobody asks it


def test_a_down_server_s_new_clients_go_elsewhere_and_its_group_goes_with_it(site):
    start(site, rule())
    await_up(site)
    responder = site.responders["vpn1"]
    with responder.lock:
        responder.sockets.pop(site.natt_port).close()
    await_health(site, "vpn1", natt="down", ike="up")
    for _ in range(6):
        client = site.client()
        assert client.connect() and site.server_of(client, "init") == "vpn2"


def test_a_service_out_of_its_group_takes_nobody_else_down(site):
    start(site, rule(), services={"nat-t": {"health": {"group": False}}})
    await_up(site)
    with site.responders["vpn1"].lock:
        site.responders["vpn1"].sockets.pop(site.natt_port).close()
    await_health(site, "vpn1", natt="down", ike="up")
    clients = [site.client() for _ in range(6)]
    assert all(client.init() for client in clients)
    assert {site.server_of(client) for client in clients} == set(site.names), "500 is up on both"


def test_the_next_monitor_goes_on_with_what_was_known(site):
    start(site, rule(fall=3))
    await_up(site)
    deaf_to_probes(site.responders["vpn1"])
    await_health(site, "vpn1", ike="down", natt="down")
    place, old = site.daemon.mark(), site.daemon.monitor()
    site.daemon.kill(old)
    wait_for(lambda: site.daemon.children("_monitor") not in ([], [old]), what="the next monitor")
    wait_for(lambda: site.daemon.cli("status", status=None).returncode == 0, what="a healthy status")
    assert health(site, "vpn1") == {site.ike_port: "down", site.natt_port: "down"}
    before = len(probes(site.responders["vpn1"]))
    wait_for(lambda: len(probes(site.responders["vpn1"])) > before + 8, what="some more probes")
    assert not re.search(r"server vpn\d is (up|down)", "\n".join(site.daemon.log().splitlines()[place:]))
    for _ in range(3):
        client = site.client()
        assert client.connect() and site.server_of(client) == "vpn2"


def test_a_reload_to_check_none_forgets_what_was_down(site):
    start(site, rule())
    await_up(site)
    site.responders["vpn1"].close()
    await_health(site, "vpn1", ike="down", natt="down")
    site.responders["vpn1"].open()
    deaf_to_probes(site.responders["vpn1"])
    site.write(site.config(GROUP, "home", pools=rule("none")))
    site.daemon.reload()
    wait_for(lambda: server(site, "vpn1")["probes"] == [], what="no probe")

    def serves():
        client = site.client()
        return client.connect() and site.server_of(client) == "vpn1"

    wait_for(serves, what="a client at vpn1")


def test_a_reload_changes_the_rule_and_keeps_the_state(site):
    start(site, rule(fall=50, interval="100ms"))
    await_up(site)
    deaf_to_probes(site.responders["vpn1"])
    site.write(site.config(GROUP, "home", pools=rule(fall=2)))
    place = site.daemon.mark()
    site.daemon.reload()
    site.daemon.wait_log(r"server vpn1 is down on udp/\d+: no answer", after=place)
    assert not re.search(r"server vpn2", "\n".join(site.daemon.log().splitlines()[place:]))


def test_a_server_nobody_ever_heard_serves_until_fall_probes_have_failed(site):
    for one in site.responders.values():
        deaf_to_probes(one)
    start(site, rule(fall=30))
    client = site.client()
    assert client.connect(), "not probed yet is not down"


@ROOT_ONLY
def test_a_server_without_a_route_goes_down_with_the_kernel_s_reason():
    with own_net(), Site(servers=2) as site:
        site.addresses["vpn2"] = "198.51.100.9"
        start(site, rule())
        site.daemon.wait_log(r"server vpn2 is down on udp/\d+: (Network is unreachable|No route to host)")
        client = site.client()
        assert client.connect() and site.server_of(client) == "vpn1"
