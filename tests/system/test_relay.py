# SPDX-License-Identifier: Apache-2.0
"""The relay for UDP as clients and servers see it: sizes, order, addresses, capacities, ends, dead servers, strangers,
limits, schedulers, and what the log says of sessions."""
import contextlib
import json
import os
import select
import signal
import socket
import struct

import pytest
from homeport import Daemon, Site, wait_for
from ike import udp_socket
from netns import ip, own_net

GROUP = {"home": {"plugin": "match_across_services"}}
IKE = {"all": {"health": {"check": "ike", "interval": "60s"}}}  # makes high ports IKE services, and keeps quiet
SIZES = (0, 1, 2, 27, 28, 100, 1400, 1473, 9000, 65507)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace of its own")


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=3, echo=True) as site:
        yield site


def counters(site):
    return site.daemon.cli("status")["counters"]


def counted(site, name, at_least=1):
    return wait_for(lambda: counters(site)[name] >= at_least and counters(site)[name], what=f"{name} >= {at_least}")


def rows(site):
    return site.daemon.cli("sessions")["sessions"]


def clients_of(site):
    """Per server, as the monitor has counted them last."""
    return [one["clients"] for one in site.daemon.cli("servers")["servers"]]


def payload(size, number=0):
    """No keepalive, no marker; what it is lies in its first octets."""
    return (struct.pack("!I", 0x58000000 + number) + os.urandom(max(0, size - 4)))[:size]


def receive(one, timeout=5.0):
    assert select.select([one], [], [], timeout)[0], "no answer came"
    return one.recvfrom(65536)


def asks(one, target, data, timeout=5.0):
    """One datagram there, and its echo: from where it was sent to."""
    one.sendto(data, target)
    answer, source = receive(one, timeout)
    assert source == target and answer == data
    return True


def seen(site, data):
    """Names of the responders that have got this."""
    return [name for name, one in site.responders.items() if any(here.data == data for here in list(one.seen))]


def targets(site):
    return [(site.vip, site.ike_port), (site.vip, site.natt_port)]


def big_buffer(one):
    """Room for whatever a test sends at once."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    return one


# Datagrams

def pass_all_sizes(site):
    with contextlib.closing(udp_socket(site.client_address(0))) as one:
        for target in targets(site):
            for size in SIZES:
                assert asks(one, target, payload(size)), f"{size} octets to port {target[1]}"
    assert counters(site)["datagrams_to_clients"] == 2 * len(SIZES)
    assert counters(site)["bytes_to_servers"] == counters(site)["bytes_to_clients"] == 2 * sum(SIZES)


def test_all_sizes_pass_both_ways_unharmed_on_both_services(site):
    site.start(GROUP, "home")
    pass_all_sizes(site)


@ROOT_ONLY
def test_all_sizes_pass_in_ip_fragments_too():
    with own_net(), Site(servers=2, echo=True) as site:
        ip("link", "set", "lo", "mtu", "1500")
        site.start(GROUP, "home")
        pass_all_sizes(site)
        with open("/proc/thread-self/net/snmp", encoding="ascii") as file:
            names, values = [line.split() for line in file if line.startswith("Ip:")]
        assert int(values[names.index("FragCreates")]) > 4 * 44, "the datagrams were in fragments"


def test_replies_leave_from_the_address_that_was_written_to_through_a_wildcard(site):
    ports = []
    while len(ports) < 2:  # the servers' own ports are taken on this machine
        with contextlib.closing(udp_socket("0.0.0.0")) as one:
            ports.append(one.getsockname()[1])
    pools = {"ike-servers": {"servers": site.names, "port": site.ike_port, "health": {"check": "none"}},
             "nat-t-servers": {"servers": site.names, "port": site.natt_port, "health": {"check": "none"}}, "all": None}
    site.start(GROUP, "home", pools=pools, services={
        name: {"listen": f"0.0.0.0:{port}", "pool": f"{name}-servers"} for name, port in zip(("ike", "nat-t"), ports)})
    with contextlib.closing(udp_socket(site.client_address(0))) as one:
        for port in ports:
            for address in (f"{site.net}.1", f"{site.net}.77", f"{site.net}.201"):
                for size in SIZES:
                    assert asks(one, (address, port), payload(size))
    assert len(rows(site)) == 6, "each address is a flow of its own"
    with contextlib.closing(udp_socket(site.client_address(1))) as one:
        one.connect((f"{site.net}.88", ports[1]))  # hears nothing from any other address
        one.send(b"connected")
        assert select.select([one], [], [], 5)[0] and one.recv(100) == b"connected"


def test_one_service_listens_on_several_addresses(site):
    listen = [f"{site.net}.{last}:{site.ike_port}" for last in (1, 2, 3)]
    site.start(GROUP, "home", services={"ike": {"listen": listen}})
    with contextlib.closing(udp_socket(site.client_address(0))) as one:
        for last in (1, 2, 3):
            assert asks(one, (f"{site.net}.{last}", site.ike_port), payload(50))


def test_each_client_gets_its_own_answers(site):
    site.start(GROUP, "home")
    clients = [udp_socket(site.client_address(number)) for number in range(24)]
    with contextlib.ExitStack() as stack:
        for one in clients:
            stack.enter_context(contextlib.closing(one))
        for turn in range(5):
            sent = {}
            for number, one in enumerate(clients):
                for target in targets(site):
                    data = payload(60 + number, 1000 * turn + number)
                    sent.setdefault(one, set()).add((data, target))
                    one.sendto(data, target)
            for one in clients:
                assert {receive(one) for _ in range(2)} == sent[one]


def test_a_burst_longer_than_a_vector_arrives_whole_and_in_order(site):
    site.start(GROUP, "home")
    for responder in site.responders.values():
        for one in responder.sockets.values():
            big_buffer(one)
    with contextlib.closing(big_buffer(udp_socket(site.client_address(0)))) as one:
        target = targets(site)[1]
        assert asks(one, target, payload(20))
        # Small: the socket towards the server has the kernel's buffer, and all answers may come at once.
        for size in (lambda number: 150, lambda number: 40 + number * 7 % 160):
            for pid in site.daemon.workers():
                site.daemon.kill(pid, signal.SIGSTOP)
            sent = [payload(size(number), number) for number in range(150)]
            for data in sent:
                one.sendto(data, target)
            for pid in site.daemon.workers():
                site.daemon.kill(pid, signal.SIGCONT)
            assert [receive(one)[0] for _ in sent] == sent
    home = next(one for one in site.responders.values() if one.seen)
    got = [here.data for here in home.seen if len(here.data) > 20]
    assert got[-150:] == sent, "in order at the server as well"
    assert counters(site)["gso_runs"] > 0, "runs of one size leave in one call"


def test_no_datagram_is_touched_whatever_it_holds(site):
    """What looks like IKE, a marker, a keepalive of another length, or nothing at all."""
    site.start(GROUP, "home")
    odd = [bytes(4), bytes(28), bytes(32), b"\xff\xff", b"\xff" * 500, bytes(27) + b"\x01",
           bytes(16) + b"\x21\x20\x22\x08" + bytes(4) + b"\xff\xff\xff\xff", b"\x00\x00\x00\x00\x00\x00\x00\x01"]
    with contextlib.closing(udp_socket(site.client_address(0))) as one:
        for target in targets(site):
            for data in odd:
                one.sendto(data, target)
                wait_for(lambda d=data: seen(site, d), what=f"{data!r} at the server")


# Capacities

def test_a_full_session_table_refuses_new_flows_counts_them_and_keeps_the_old_ones(site):
    site.start(GROUP, "home", sessions={"capacity": 16})
    flows, refused = [], 0
    with contextlib.ExitStack() as stack:
        while not refused:
            one = stack.enter_context(contextlib.closing(udp_socket(site.client_address(len(flows)))))
            data, target = payload(40, len(flows)), targets(site)[0]
            one.sendto(data, target)
            wait_for(lambda d=data: seen(site, d) or counters(site)["refused_sessions_full"], what="one or the other")
            refused = counters(site)["refused_sessions_full"]
            if not refused:
                flows.append(one)
            assert len(flows) <= 16
        status = wait_for(lambda: (lambda now: now["segment"]["sessions"] == len(flows) and now)(
            site.daemon.cli("status")), what="the recount")
        assert status["counters"]["datagrams_from_clients"] == status["counters"]["datagrams_to_servers"] + refused
        assert status["segment"]["records"] == len(flows), "no record was made for a flow that got nowhere"
        for one in flows:
            receive(one)
            assert asks(one, target, payload(44))


def test_no_free_source_port_refuses_and_counts_and_an_ended_session_gives_its_port_back(site):
    first = int(site.port_range.split("-", maxsplit=1)[0])
    site.start(GROUP, "home", servers={"vpn2": None, "vpn3": None}, pools={"all": {"servers": ["vpn1"]}},
               sessions={"ports": f"{first}-{first + 7}", "idle_unproven": "200ms"})
    sent = 0
    with contextlib.ExitStack() as stack:
        while counters(site)["refused_no_cell"] == 0:
            one = stack.enter_context(contextlib.closing(udp_socket(site.client_address(sent % 60))))
            one.sendto(payload(40, sent), targets(site)[0])
            sent += 1
            wait_for(lambda n=sent: counters(site)["datagrams_from_clients"] == n, what="the datagram read")
            assert sent < 200
    now = counters(site)
    assert now["datagrams_from_clients"] == now["datagrams_to_servers"] + now["refused_no_cell"]
    wait_for(lambda: not rows(site), what="the end of the unproven sessions")
    with contextlib.closing(udp_socket(site.client_address(61))) as one:
        assert asks(one, targets(site)[0], payload(30))


def proven_clients(site, wanted, limit=400):
    """Clients with IKE_SAs until there are so many records that nothing may evict; each is asked for its record."""
    clients = []
    while len(clients) < limit and not wanted(counters(site)):
        client = site.client()
        client.connected = client.connect(timeout=0.6)
        clients.append(client)
    return clients


def test_when_full_refuse_drops_new_clients_and_counts_them(site):
    site.start(GROUP, "home", affinity={"capacity": 8, "when_full": "refuse"}, pools=IKE)
    clients = proven_clients(site, lambda now: now["refused_records_full"] > 0)
    assert counters(site)["refused_records_full"] > 0 and counters(site)["records_evicted"] == 0
    assert not clients[-1].connected
    assert all(client.connected for client in clients[:-1])
    for client in clients[:8]:
        assert client.informational(), "who is there goes on"


def test_when_full_evict_serves_new_clients_without_a_record_and_still_at_one_server(site):
    """Only proven records left: maglev over the key, so that 500 and 4500 agree all the same."""
    site.start(GROUP, "home", affinity={"capacity": 8, "when_full": "evict"}, pools=IKE)
    clients = proven_clients(site, lambda now: now["records_table_full"] >= 8)
    assert all(client.connected for client in clients), "maglev brings both ports to one server"
    assert counters(site)["records_evicted"] == 0, "no proven record was evicted"
    for client in clients:
        assert client.informational()


# Ends

def test_unproven_sessions_end_early_proven_ones_by_the_service_s_idle_time(site):
    site.start(GROUP, "home", sessions={"idle": "60s", "idle_unproven": "500ms"}, services={"nat-t": {"idle": "2s"}},
               log={"sessions": True}, pools=IKE)
    client = site.client()
    assert client.connect()
    place = site.daemon.mark()
    ended = site.daemon.wait_log(r"session ended .*client=(\S+) service=(\S+) .*reason=idle", after=place)
    assert ended[2] == "ike", "nothing encrypted came on this port: unproven"
    assert [row["service"] for row in rows(site)] == ["nat-t"] and rows(site)[0]["proven"]
    for _ in range(3):  # traffic keeps it
        assert client.informational()
    place = site.daemon.mark()
    ended = site.daemon.wait_log(r"session ended .*service=(\S+) .*reason=idle", after=place)
    assert ended[1] == "nat-t"
    assert rows(site) == [] and counters(site)["sessions_ended_idle"] == 2
    assert client.informational(), "the record outlives the session: the same server knows the IKE_SA"


# Dead servers

def one_server():
    return {"servers": {"vpn2": None, "vpn3": None}, "pools": {"all": {"servers": ["vpn1"]}}}


def test_the_first_datagram_after_a_dead_server_is_back_arrives(site):
    """Neither deaf nor eaten: an ICMP error waits on the socket when the next datagram is sent."""
    site.start(GROUP, "home", **one_server())
    server, target = site.responders["vpn1"], targets(site)[1]
    with contextlib.closing(udp_socket(site.client_address(0))) as one:
        assert asks(one, target, payload(30))
        for turn in range(20):
            server.close()
            sent = counters(site)["datagrams_to_servers"]
            for number in range(turn % 3 + 1):
                one.sendto(payload(100, number), target)
            counted(site, "datagrams_to_servers", sent + turn % 3 + 1)
            server.open()
            assert asks(one, target, payload(90, turn)), "the very next one"
    now = counters(site)
    assert now["icmp_errors"] > 0 and now["dropped_send_to_server"] == 0
    assert now["datagrams_from_clients"] == now["datagrams_to_servers"]


def test_no_datagram_of_a_burst_is_lost_when_the_one_before_it_met_a_dead_port(site):
    """An ICMP error comes between its turns, or between two calls of one: the kernel would eat the next."""
    site.start(GROUP, "home", **one_server())
    server, target = site.responders["vpn1"], targets(site)[1]
    with contextlib.closing(big_buffer(udp_socket(site.client_address(0)))) as one:
        assert asks(one, target, payload(30))
        server.close()
        for pid in site.daemon.workers():
            site.daemon.kill(pid, signal.SIGSTOP)
        for number in range(150):  # growing, so that each is a call of its own
            one.sendto(payload(100 + number, number), target)
        for pid in site.daemon.workers():
            site.daemon.kill(pid, signal.SIGCONT)
        counted(site, "datagrams_to_servers", 151)
        server.open()
        assert asks(one, target, payload(30))
    now = counters(site)
    assert now["dropped_send_to_server"] == 0 and now["icmp_errors"] > 0


def test_a_dead_server_deafens_no_other_client(site):
    site.start(GROUP, "home")
    clients = [site.client() for _ in range(9)]
    assert all(client.connect() for client in clients)
    dead = site.server_of(clients[0], "auth")
    site.responders[dead].close()
    for _ in range(20):
        for client in clients:
            client.keepalive()
    for client in clients:
        if site.server_of(client, "auth") != dead:
            assert client.informational()
    site.responders[dead].open()
    for client in clients:
        assert client.informational()


# Strangers

def test_nothing_but_the_session_s_server_is_accepted_on_its_port(site):
    site.start(GROUP, "home")
    with contextlib.closing(udp_socket(site.client_address(0))) as one:
        data = payload(50)
        assert asks(one, targets(site)[1], data)
        home = seen(site, data)[0]
        cell = next(here.source for here in site.responders[home].seen if here.data == data)
        assert cell[1] == rows(site)[0]["source_port"]
        others = [address for name, address in site.addresses.items() if name != home]
        for address in (others[0], site.addresses[home], site.client_address(7)):
            with contextlib.closing(udp_socket(address)) as stranger:
                stranger.sendto(b"I am not your server", cell)
        with site.responders[home].lock:
            site.responders[home].sockets[site.ike_port].sendto(b"nor is my other port", cell)
        assert asks(one, targets(site)[1], payload(51)), "the first thing that comes is the server's"
    assert counters(site)["datagrams_to_clients"] == 2


# Addresses that come later

@ROOT_ONLY
def test_an_address_that_comes_later_is_listened_on_already():
    with own_net(), Site(servers=2) as site:
        services = {name: {"listen": f"192.0.2.77:{port}"}
                    for name, port in (("ike", site.ike_port), ("nat-t", site.natt_port))}
        site.start(GROUP, "home", services=services)
        assert [one["here"] for one in site.daemon.cli("status")["listeners"]] == [False, False]
        site.vip = "192.0.2.77"
        ip("address", "add", "192.0.2.77/32", "dev", "lo")
        assert site.client().connect()
        wait_for(lambda: all(one["here"] for one in site.daemon.cli("status")["listeners"]), what="its address here")


# Limits

def test_max_clients_of_a_server_sends_the_next_one_elsewhere_and_refuses_when_all_are_full(site):
    site.start(GROUP, "home", servers={name: {"max_clients": 2} for name in site.names})
    clients = [site.client() for _ in range(6)]
    assert all(client.connect() for client in clients)
    assert sorted(site.server_of(client, "auth") for client in clients) == sorted(site.names * 2)
    wait_for(lambda: clients_of(site) == [2, 2, 2], what="the recount")
    late = site.client()
    late.send_init()
    counted(site, "refused_no_server")
    assert not site.servers_of(late)
    assert all(client.informational() for client in clients)
    site.daemon.cli("drop", clients[0].address)
    wait_for(lambda: late.init(timeout=0.3, tries=1), what="the free place")
    assert site.server_of(late) == site.server_of(clients[0])


def test_max_clients_of_a_service_refuses_new_clients_there_and_nobody_else(site):
    site.start(GROUP, "home", services={"ike": {"max_clients": 3}})
    clients = [site.client() for _ in range(3)]
    assert all(client.connect() for client in clients)
    wait_for(lambda: sum(clients_of(site)) == 3, what="the recount")
    late = site.client()
    late.send_init()
    counted(site, "refused_service_limit")
    assert not site.servers_of(late)
    with contextlib.closing(udp_socket(site.client_address(50))) as one:
        assert asks(one, targets(site)[1], payload(40)), "the other service has no limit"
    for client in clients:
        client.renew()
        assert client.connect()


def test_all_down_refuse_drops_new_clients_until_one_is_up(site):
    health = {"check": "ike", "interval": "200ms", "timeout": "150ms", "rise": 1, "fall": 1}
    site.start(GROUP, "home", pools={"all": {"all_down": "refuse", "health": health}})
    for one in site.responders.values():
        one.close()
    wait_for(lambda: all(one["health"] == "down" for one in site.daemon.cli("servers")["servers"]), what="all down")
    client = site.client()
    client.send_init()
    counted(site, "refused_no_server")
    assert counters(site)["datagrams_to_servers"] == 0
    site.responders["vpn2"].open()
    wait_for(lambda: client.init(timeout=0.3, tries=1), what="a server that is up")
    assert site.server_of(client) == "vpn2" and client.auth()


# Schedulers

def spread(site, count, scheduler, **changes):
    site.start(GROUP, "home", pools={"all": {"scheduler": scheduler}}, **changes)
    clients = [site.client() for _ in range(count)]
    assert all(client.connect() for client in clients)
    return {client: site.server_of(client, "auth") for client in clients}


def numbers(site, homes):
    return [list(homes.values()).count(name) for name in site.names]


def test_weighted_round_robin_gives_by_weight(site):
    homes = spread(site, 24, scheduler="weighted_round_robin", servers={"vpn1": {"weight": 4}, "vpn2": {"weight": 3}})
    assert numbers(site, homes) == [12, 9, 3]


def test_least_clients_fills_what_is_emptiest(site):
    homes = spread(site, 12, scheduler="least_clients", workers=1)  # two know of each other's once a second
    counts = numbers(site, homes)
    assert max(counts) - min(counts) <= 2, "who came while the monitor counted is counted a second later"
    for client, home in homes.items():
        if home == "vpn2":
            site.daemon.cli("drop", client.address)
    wait_for(lambda: clients_of(site) == [counts[0], 0, counts[2]], what="the recount")
    for _ in range(3):  # the others have three at least
        client = site.client()
        assert client.connect() and site.server_of(client, "auth") == "vpn2"


def test_random_uses_every_server_and_splits_nobody(site):
    homes = spread(site, 60, scheduler="random")
    assert min(numbers(site, homes)) >= 5, "the chance of less is below one in a million"


def test_maglev_gives_a_client_the_same_server_again_without_any_memory(site):
    homes = spread(site, 24, scheduler="maglev")
    assert None not in homes.values() and len(set(homes.values())) > 1
    site.daemon.stop()
    for name in os.listdir(os.path.join(site.folder, "state")):
        os.unlink(os.path.join(site.folder, "state", name))
    site.start(GROUP, "home", pools={"all": {"scheduler": "maglev"}})
    for client, home in homes.items():
        client.renew()
        assert client.connect() and site.server_of(client, "auth") == home


# Without persistence, and the log

def test_a_service_without_persistence_has_sessions_and_no_records(site):
    site.start()
    sockets = [udp_socket(site.client_address(0)) for _ in range(6)]
    with contextlib.ExitStack() as stack:
        for one in sockets:
            stack.enter_context(contextlib.closing(one))
            assert asks(one, targets(site)[0], payload(30))
        here = rows(site)
        assert sorted(row["server"] for row in here) == sorted(site.names * 2), "the scheduler picks per flow"
        assert not any(row["record"] for row in here) and site.daemon.cli("affinity")["records"] == []
        site.restart()
        for one in sockets:
            assert asks(one, targets(site)[0], payload(30))
        assert sorted((row["client"], row["server"], row["source_port"]) for row in rows(site)) == \
            sorted((row["client"], row["server"], row["source_port"]) for row in here)


def test_the_json_log_is_one_object_a_line_and_tells_each_session_s_life(site):
    config = {"log": {"level": "debug", "format": "json", "sessions": True}, "sessions": {"idle_unproven": "500ms"}}
    site.start(GROUP, "home", **config)
    client = site.client()
    assert client.init()
    home = site.server_of(client)
    site.daemon.wait_log('"session ended"')
    client.renew()
    assert client.connect()
    config["servers"] = {home: {"state": "disabled"}}
    site.write(site.config(GROUP, "home", **config))
    site.daemon.reload()
    client.renew()
    assert client.connect()
    site.daemon.wait_log('"session moved"')
    site.daemon.stop()
    lines = [json.loads(line) for line in site.daemon.log().splitlines() if line]
    assert all({"time", "level", "process", "message"} <= set(line) for line in lines)
    site.daemon = None
    about = [line for line in lines if line["message"].startswith("session ")]
    kinds = [line["message"] for line in about]
    assert {"session begun", "session moved", "session ended"} <= set(kinds)
    begun = about[kinds.index("session begun")]
    assert begun["client"].startswith(client.address + ":") and begun["service"] == "ike"
    assert begun["server"] == home and begun["reason"] == "new client"
    moved = about[kinds.index("session moved")]
    assert moved["server"] != home and moved["reason"] in ("record moved", "record")
    ended = about[kinds.index("session ended")]
    assert ended["reason"] == "idle" and int(ended["bytes_to_server"]) > 300 and int(ended["bytes_to_client"]) > 300


def test_log_sessions_is_silent_when_off_and_the_level_hides_what_is_below(site):
    site.write(site.config(GROUP, "home", log={"level": "error"}))
    site.daemon = Daemon(site.path)
    client = site.client()
    wait_for(lambda: client.init(timeout=0.3, tries=1), 20, "an answer")
    site.daemon.stop()
    lines = [line for line in site.daemon.log().splitlines() if line.startswith("homeport ")]
    site.daemon = None
    assert [line for line in lines if " error: " not in line] == []
