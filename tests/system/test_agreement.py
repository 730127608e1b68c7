# SPDX-License-Identifier: Apache-2.0
"""Records and sessions never disagree: a client's two flows, on lanes of different workers, through everything that
changes a record or a server under them."""
import pytest
from homeport import Site, wait_for
from ike import udp_socket

CHECK = {"all": {"health": {"check": "ike", "interval": "200ms", "timeout": "150ms", "rise": 1, "fall": 2}}}


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=3) as site:
        yield site


def profile(plugin="match_across_services", **options):
    return {"aovpn": {"plugin": plugin, "options": options}}


def rows_of(site, client):
    rows = site.daemon.cli("sessions")["sessions"]
    return [row for row in rows if row["client"].startswith(client.address + ":")]


def record_of(site, client):
    return next((one for one in site.daemon.cli("affinity")["records"] if one["client"] == client.address), None)


def split_client(site):
    """A connected client whose flows on the two ports are held by different workers."""
    for _ in range(40):
        client = site.client()
        assert client.connect()
        rows = rows_of(site, client)
        if len(rows) == 2 and rows[0]["lane"] % 2 != rows[1]["lane"] % 2:
            return client, site.server_of(client, "auth")
    raise AssertionError("no client's flows came to different workers")


def server_state(site, name):
    return next(one for one in site.daemon.cli("servers")["servers"] if one["name"] == name)


def health_of(site, name):
    return {probe["health"] for probe in server_state(site, name)["probes"]}


def new_init(client):
    """Another IKE_SA from another source port of port 500, as a client that starts anew behind a NAT."""
    client.renew()
    client.ike.close()
    client.ike = udp_socket(client.address)


def test_a_record_does_not_expire_under_a_flow_that_only_keepalives_hold(site):
    site.start(profile(timeout="1s"), "aovpn", pools=CHECK)
    client, home = split_client(site)
    created = record_of(site, client)
    for _ in range(8):
        client.keepalive()
        number = len(site.responders[home].of_kind("keepalive"))
        wait_for(lambda n=number: len(site.responders[home].of_kind("keepalive")) > n or client.keepalive(), 2,
                 "a keepalive at home")
    assert record_of(site, client)["server"] == created["server"] == home
    new_init(client)
    assert client.connect()
    assert site.server_of(client, "init") == home and site.server_of(client, "auth") == home


def test_kemp_records_that_traffic_does_not_extend_are_held_by_a_live_session(site):
    follow = {name: {"persistence": {"profile": "aovpn", "follow": other}}
              for name, other in (("ike", "nat-t"), ("nat-t", "ike"))}
    site.start(profile("port_following", timeout="1s", refresh="new_flows"), "aovpn", pools=CHECK, services=follow)
    client, home = split_client(site)
    born = record_of(site, client)["age_s"]
    wait_for(lambda: (record_of(site, client) or {"age_s": 0})["age_s"] >= born + 4, 15, "four timeouts")
    new_init(client)
    assert client.connect()
    assert site.server_of(client, "init") == home and site.server_of(client, "auth") == home


def test_an_evicted_record_is_put_back_by_its_live_session(site):
    site.start(profile(), "aovpn", pools=CHECK, affinity={"capacity": 8}, sessions={"idle_unproven": "60s"})
    client = site.client()
    assert client.init()
    home = site.server_of(client, "init")
    while len(site.responders[home].of_kind("init", client.spi_i)) > 1:  # it had to ask again: used records stay
        assert len(site.clients) < 40, "each client has to ask again"
        client = site.client()
        assert client.init()
        home = site.server_of(client, "init")
    others = 0
    while record_of(site, client) is not None:
        assert others < 400, "the record was never evicted"
        assert site.client().init()
        others += 1
    client.send_init()  # a repeat: the same flow, whose record has gone
    wait_for(lambda: len(site.responders[home].of_kind("init", client.spi_i)) >= 2, what="the repeat at home")
    wait_for(lambda: record_of(site, client) is not None, what="the record")
    assert record_of(site, client)["server"] == home
    assert client.auth() and site.server_of(client, "auth") == home


def test_a_server_disabled_by_a_reload_gets_nothing_and_the_client_starts_anew_elsewhere(site):
    site.start(profile(), "aovpn", pools=CHECK)
    client, home = split_client(site)
    site.write(site.config(profile(), "aovpn", pools=CHECK, servers={home: {"state": "disabled"}}))
    site.daemon.reload()
    seen = len(site.responders[home].of_kind("esp"))
    dropped = site.daemon.cli("status")["counters"]["dropped_server_disabled"]
    client.send_esp()
    wait_for(lambda: site.daemon.cli("status")["counters"]["dropped_server_disabled"] > dropped, what="the drop")
    assert len(site.responders[home].of_kind("esp")) == seen
    client.renew()
    assert client.connect(), "the same two flows, a new IKE_SA"
    other = site.server_of(client, "auth")
    assert other not in (None, home) and site.server_of(client, "init") == other
    assert {row["server"] for row in rows_of(site, client)} == {other}


def test_a_server_that_is_down_and_up_again_was_not_noticed(site):
    site.start(profile(), "aovpn", pools=CHECK)
    client, home = split_client(site)
    site.responders[home].close()
    wait_for(lambda: "down" in health_of(site, home), what="the server down")
    before = rows_of(site, client)
    client.send_esp()
    client.keepalive()
    site.responders[home].open()
    wait_for(lambda: health_of(site, home) == {"up"}, what="the server up")
    assert client.informational(), "the IKE_SA lives on"
    assert [(row["server"], row["source_port"]) for row in rows_of(site, client)] == \
        [(row["server"], row["source_port"]) for row in before]


def test_an_ike_sa_init_while_the_server_is_down_moves_the_record_and_both_flows(site):
    site.start(profile(), "aovpn", pools=CHECK)
    client, home = split_client(site)
    site.responders[home].close()
    wait_for(lambda: "down" in health_of(site, home), what="the server down")
    client.renew()
    assert client.connect(), "the same two flows, a new IKE_SA"
    other = site.server_of(client, "auth")
    assert other not in (None, home) and site.server_of(client, "init") == other
    site.responders[home].open()
    wait_for(lambda: health_of(site, home) == {"up"}, what="the server up")
    assert client.informational() and site.servers_of(client, "informational") == [other]
    client.renew()
    assert client.connect() and site.server_of(client, "auth") == other, "nobody goes back by himself"


def test_only_new_clients_avoid_a_server_whose_other_port_is_down(site):
    site.start(profile(), "aovpn", pools=CHECK)
    client, home = split_client(site)
    responder = site.responders[home]
    with responder.lock:
        responder.sockets.pop(site.natt_port).close()
    wait_for(lambda: "down" in health_of(site, home), what="one port down")
    for _ in range(9):
        newcomer = site.client()
        assert newcomer.connect()
        assert site.server_of(newcomer, "auth") != home
    assert client.keepalive() is None
    assert record_of(site, client)["server"] == home


def test_drain_keeps_its_clients_and_takes_no_new_ones(site):
    site.start(profile(), "aovpn", pools=CHECK)
    client, home = split_client(site)
    site.write(site.config(profile(), "aovpn", pools=CHECK, servers={home: {"state": "drain"}}))
    site.daemon.reload()
    new_init(client)
    assert client.connect() and site.server_of(client, "auth") == home
    for _ in range(6):
        newcomer = site.client()
        assert newcomer.connect() and site.server_of(newcomer, "auth") != home


def test_all_servers_down_serves_as_if_all_were_up(site):
    site.start(profile(), "aovpn", pools=CHECK)
    for one in site.responders.values():
        one.close()
    for name in site.responders:
        wait_for(lambda n=name: "down" in health_of(site, n), what=f"{name} down")
    for one in site.responders.values():
        with one.lock:
            one.silent = False
        one.ports = [site.natt_port]
    client = site.client()
    client.send_init()
    wait_for(lambda: site.daemon.cli("status")["counters"]["datagrams_to_servers"] > 0, what="a datagram on its way")


def test_drop_ends_a_clients_sessions_and_record(site):
    site.start(profile(), "aovpn", pools=CHECK)
    client, _ = split_client(site)
    answer = site.daemon.cli("drop", client.address)
    assert answer["sessions_ended"] == 2 and answer["records_deleted"] == 1
    assert not rows_of(site, client) and record_of(site, client) is None


def test_a_reload_that_joins_clients_under_one_mask_splits_none_of_them(site):
    site.start(profile(), "aovpn", pools=CHECK, sessions={"idle_unproven": "1s"})
    clients = [site.client() for _ in range(8)]
    assert all(client.connect() and client.informational() for client in clients)
    homes = [site.server_of(client, "auth") for client in clients]
    assert len(set(homes)) > 1
    site.write(site.config(profile(mask="255.255.255.0"), "aovpn", pools=CHECK, sessions={"idle_unproven": "1s"}))
    site.daemon.reload()
    for client, home in zip(clients, homes):
        assert client.informational(), "the IKE_SA that was there before"
        assert {row["server"] for row in rows_of(site, client)} == {home}
    wait_for(lambda: all(len(rows_of(site, client)) == 1 for client in clients), 5, "the end of the port 500 flows")
    for client in clients:  # the flow of port 500 is a new one, that of port 4500 is not
        client.renew()
        assert client.connect()
        assert site.server_of(client, "init") == site.server_of(client, "auth")
