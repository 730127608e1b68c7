# SPDX-License-Identifier: Apache-2.0
"""`homeport trace CLIENT`, and what each lane has refused and dropped: an administrator follows one client through both
its ports and 443, sees why it is not served, and goes on behind a reload, a killed worker and a killed monitor."""
import json
import signal
import subprocess

import pytest
from homeport import binary, cli, endpoint, wait_for
from ike import COOKIE, Responder, message, notify, udp_socket
from netns import ip
from streams import is_refused
from test_bad_start import build, by
from test_ipv6 import ROOT_ONLY, own_site
from test_tcp import TcpSite
from test_transparent import play
from trace import Trace

GROUP = {"home": {"plugin": "match_across_services"}}
IKE = {"all": {"health": {"check": "ike", "interval": "60s"}}}


@pytest.fixture(name="site")
def fixture_site():
    with TcpSite() as site:
        yield site


def lanes(site):
    """(lane, reason) -> count, as status has it."""
    return {(one["lane"], reason): count for one in site.daemon.cli("status")["lanes"]
            for reason, count in one["lost"].items()}


def of_all_lanes(site):
    """Reason -> sum over the lanes."""
    sums = {}
    for (_, reason), count in lanes(site).items():
        sums[reason] = sums.get(reason, 0) + count
    return sums


def losses(site):
    """The same of the counters of all processes."""
    return {name: count for name, count in site.daemon.cli("status")["counters"].items()
            if name.startswith(("refused_", "dropped_")) and count != 0}


def text_of(site, *arguments):
    return site.daemon.cli("status", *arguments, json=False)


# What is told

def test_one_client_through_both_its_ports_and_443(site):
    site.start_tcp(GROUP, pools=IKE)
    client, other = site.client(0), site.client(1)
    with Trace(site, client.address) as trace:
        assert client.connect() and client.esp() and other.connect()
        with site.stream(0) as stream:
            trace.wait("server accepted", service="sstp")
            stream.sendall(b"hello")
            assert stream.recv(64)
        begun = {service: trace.wait("session begun", service=service) for service in ("ike", "nat-t", "sstp")}
        server = site.server_of(client)
        assert {one["server"] for one in begun.values()} == {server}
        assert [begun[service]["reason"] for service in ("ike", "nat-t", "sstp")] == ["new client", "record", "record"]
        ended = trace.wait("session ended", service="sstp")
        assert ended["bytes_to_client"] >= 16 and ended["source_port"] == begun["sstp"]["source_port"]
        rows = {row["service"]: row for row in site.daemon.cli("sessions", client.address)["sessions"]}
        for service in ("ike", "nat-t"):
            assert begun[service]["source_port"] == rows[service]["source_port"]
            assert begun[service]["lane"] == rows[service]["lane"]
            assert begun[service]["client"] == rows[service]["client"]
        assert all(one["client"].startswith(client.address) for one in trace.seen())


def test_the_ike_messages_both_ways_in_their_order(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    with Trace(site, client.address) as trace:
        assert client.connect() and client.esp() and client.esp()
        trace.wait("ESP to client")
        ike = [(one["event"], one["service"], one["exchange"], one["response"], one["message_id"])
               for one in trace.seen() if "exchange" in one]
        assert ike == [("IKE to server", "ike", "IKE_SA_INIT", False, 0), ("IKE to client", "ike", "IKE_SA_INIT", True, 0),
                       ("IKE to server", "nat-t", "IKE_AUTH", False, 1), ("IKE to client", "nat-t", "IKE_AUTH", True, 1)]
        events = [(one["event"], one.get("service")) for one in trace.seen()]
        assert events.index(("IKE to server", "ike")) < events.index(("session begun", "ike")) < \
            events.index(("IKE to client", "ike")) < events.index(("session begun", "nat-t")) < \
            events.index(("proven", "nat-t"))
        assert client.informational()
        trace.wait("IKE to client", exchange="INFORMATIONAL")
        assert len(trace.seen("ESP to server")) == len(trace.seen("ESP to client")) == 1
        shown = json.dumps(trace.seen())
        assert client.spi_i.hex() not in shown and client.spi_r.hex() not in shown


def test_why_a_server_does_not_go_on(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    for one in site.responders.values():
        one.refuse_init = True
    with Trace(site, client.address) as trace:
        client.init(timeout=0.2, tries=1)
        assert trace.wait("IKE to client")["notify"] == "NO_PROPOSAL_CHOSEN"


class CookieResponder(Responder):
    def _answer(self, datagram, seen):
        return message(datagram.spi_i, bytes(8), 41, 34, 0x20, 0, notify(COOKIE))


def test_that_a_server_asks_for_a_cookie():
    with TcpSite(responders=False) as site:
        responders = [CookieResponder(name, address, [site.ike_port, site.natt_port])
                      for name, address in site.addresses.items()]
        try:
            site.start_tcp(GROUP, pools=IKE)
            client = site.client(0)
            with Trace(site, client.address) as trace:
                client.send_init()
                assert trace.wait("IKE to client")["notify"] == "COOKIE"
        finally:
            for one in responders:
                one.stop()


def test_what_there_is_already_comes_first(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    assert client.connect()
    with Trace(site, client.address) as trace:
        assert trace.wait("record")["server"] == site.server_of(client)
        assert {trace.wait("session", count=number)["service"] for number in (1, 2)} == {"ike", "nat-t"}
        assert client.informational()
        trace.wait("IKE to client")
        assert not trace.seen("session begun")


def test_one_port_alone(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    port = client.natt.getsockname()[1]
    assert client.connect()
    with Trace(site, f"{client.address}:{port}") as trace:
        assert trace.wait("session")["service"] == "nat-t"
        client.renew()
        assert client.connect()
        trace.wait("IKE to client", service="nat-t")
        assert {one["client"] for one in trace.seen() if one["event"] != "record"} == {f"{client.address}:{port}"}


def test_in_words(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    with Trace(site, client.address, json=False) as trace:
        assert client.connect()
        trace.wait("session begun: new client, server vpn")
        trace.wait("IKE_AUTH response 1")
        assert " own port " in trace.wait("session begun: record")
    with Trace(site, client.address, json=False) as trace:
        trace.wait("record: server ")
        assert "octets to the client" in trace.wait("session: server ")


def test_record_that_expires(site):
    site.start_tcp({"home": {"plugin": "match_across_services", "options": {"timeout": "1s"}}},
                   sessions={"idle_unproven": "200ms", "idle": "200ms"})
    client = site.client(0)
    with Trace(site, client.address) as trace:
        client.send_init()
        assert trace.wait("session ended")["reason"] == "idle"
        assert trace.wait("record expired")["server"] == trace.seen("session begun")[0]["server"]


def test_drop_of_the_client(site):
    site.start_tcp(GROUP)
    client = site.client(0)
    assert client.connect()
    with Trace(site, client.address) as trace:
        site.daemon.cli("drop", client.address)
        trace.wait("session ended", count=2, reason="drop")


def test_move_to_another_server(site):
    site.start_tcp(GROUP)
    client = site.client(0)
    assert client.connect()
    home = site.server_of(client)
    with Trace(site, client.address) as trace:
        site.reload_tcp(GROUP, servers={home: {"state": "disabled"}})
        client.renew()
        assert client.connect()
        moved = trace.wait("session moved", service="ike")
        assert moved["reason"] == "record moved" and moved["server"] == site.server_of(client) != home


@ROOT_ONLY
def test_ipv6_client():
    with own_site(servers=2) as site:
        site.start(GROUP, "home")
        client = site.client(0)
        text = endpoint(client.address, client.natt.getsockname()[1])
        with Trace(site, client.address) as trace, Trace(site, text) as narrow:
            assert client.connect()
            assert trace.wait("session begun", service="nat-t")["client"] == text
            narrow.wait("IKE to client", exchange="IKE_AUTH", client=text)
            assert {one["client"] for one in narrow.seen() if one["event"] != "record"} == {text}


# Why it is not served

def expect_losses(site, trace, reason, sent, event="refused"):
    """So many were sent, told, and counted: in all, and by lane."""
    told = trace.wait(event, count=sent, reason=reason)
    assert told["why"] and told["service"]
    by_lane = {}
    for one in trace.seen(event, reason=reason):
        by_lane[one["lane"]] = by_lane.get(one["lane"], 0) + 1
    wait_for(lambda: of_all_lanes(site).get(reason) == sent, what=f"{sent} times {reason}")
    assert {lane: count for (lane, name), count in lanes(site).items() if name == reason} == by_lane
    assert of_all_lanes(site) == losses(site)


def test_refused_because_no_server_may_serve(site):
    site.start_tcp(GROUP, servers={name: {"state": "disabled"} for name in site.names})
    client = site.client(0)
    with Trace(site, client.address) as trace:
        for _ in range(5):
            client.send_init()
        client.keepalive()
        expect_losses(site, trace, "refused_no_server", 6)
        assert is_refused(site.client_address(0), site.target)
        trace.wait("refused", service="sstp")
        expect_losses(site, trace, "refused_no_server", 7)
        assert "refused_no_server" in text_of(site)


def test_refused_by_the_plugin(site):
    path = build(site, "ON_KEY=if (IS_ODD(flow)) return HP_FAILED")
    site.start_tcp(by(path, on_failure="refuse"))
    client, served = site.client(1), site.client(2)
    with Trace(site, client.address) as trace:
        for _ in range(3):
            client.send_init()
        assert served.connect()
        expect_losses(site, trace, "refused_by_plugin", 3)


def test_refused_by_the_limit_of_the_service(site):
    site.start_tcp(GROUP, services={"ike": {"max_clients": 1}})
    first, late = site.client(0), site.client(1)
    assert first.connect()
    wait_for(lambda: sum(one["clients"] for one in site.daemon.cli("servers")["servers"]) == 1, what="the recount")
    with Trace(site, late.address) as trace:
        late.send_init()
        expect_losses(site, trace, "refused_service_limit", 1)
    assert first.informational()


def test_refused_because_the_rows_of_its_lane_are_full(site):
    site.start_tcp(sessions={"capacity": 8}, workers=1)
    client = site.client(0)
    ones = [udp_socket(client.address) for _ in range(64)]
    with Trace(site, client.address) as trace:
        for one in ones:
            one.sendto(b"some datagram", (site.vip, site.natt_port))
        trace.wait("session begun")
        sent = len(ones)
        wait_for(lambda: site.counter("datagrams_from_clients") == sent, what="all of them")
        refused = site.counter("refused_sessions_full")
        assert refused == sent - site.counter("sessions_begun") > 0
        expect_losses(site, trace, "refused_sessions_full", refused)
    for one in ones:
        one.close()


def test_dropped_because_its_server_is_disabled(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    assert client.connect()
    with Trace(site, client.address) as trace:
        site.reload_tcp(GROUP, pools=IKE, servers={site.server_of(client): {"state": "disabled"}})
        for _ in range(4):
            client.send_esp()
        expect_losses(site, trace, "dropped_server_disabled", 4, "dropped")


@ROOT_ONLY
def test_answers_that_the_kernel_does_not_take_towards_the_client():
    with play() as it:
        it.start("nat")
        client, other = it.client(0), it.client(1)
        assert client.connect() and other.connect()
        with Trace(it.site, client.address) as trace:
            ip("route", "add", "unreachable", client.address)
            for _ in range(3):
                client.send_esp()
                assert other.esp()
            expect_losses(it.site, trace, "dropped_send_to_client", 3, "dropped")
            ip("route", "delete", "unreachable", client.address)
            assert client.esp()


def test_server_that_does_not_accept_a_stream(site):
    site.start_tcp(GROUP)
    for one in site.tcp.values():
        one.stop()
    with Trace(site, site.client_address(0)) as trace:
        assert is_refused(site.client_address(0), site.target)
        assert len({trace.wait("session begun")["server"], *(trace.wait("session moved", count=number)["server"]
                                                            for number in (1, 2))}) == 3
        assert trace.wait("session ended")["reason"] == "its server does not accept"
        expect_losses(site, trace, "refused_no_server", 1)


def test_nothing_is_said_of_lanes_that_have_lost_nothing(site):
    site.start_tcp(GROUP)
    assert site.client(0).connect()
    assert site.daemon.cli("status")["lanes"] == []
    assert "REFUSED OR DROPPED" not in text_of(site)


def test_the_lanes_figures_survive_workers_reload_and_restart(site):
    site.start_tcp(servers={name: {"state": "disabled"} for name in site.names})
    clients = [site.client(number) for number in range(12)]
    for client in clients:
        client.send_init()
    wait_for(lambda: of_all_lanes(site).get("refused_no_server") == 12, what="twelve refusals")
    before = lanes(site)
    assert len(before) > 1
    workers = site.daemon.workers()
    site.daemon.kill(workers[0])
    wait_for(lambda: len(site.daemon.workers()) == 2 and site.daemon.workers() != workers, what="another worker")
    assert lanes(site) == before
    site.daemon.reload()
    assert lanes(site) == before
    site.restart()
    assert lanes(site) == before
    for client in clients:
        client.send_init()
    wait_for(lambda: of_all_lanes(site).get("refused_no_server") == 24, what="twelve more")


# What happens meanwhile

def test_killed_worker_during_a_trace(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    with Trace(site, client.address) as trace:
        assert client.connect()
        workers = site.daemon.workers()
        for pid in workers:
            site.daemon.kill(pid)
        assert client.informational(timeout=20, tries=40)
        trace.wait("IKE to client", exchange="INFORMATIONAL")
        assert not trace.seen("session ended") and not trace.seen("another monitor goes on")
        numbers = [one["sequence"] for one in trace.seen() if "sequence" in one]
        assert numbers == sorted(set(numbers))


def test_reload_during_a_trace(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    with Trace(site, client.address) as trace:
        assert client.connect()
        for number in range(3):
            site.daemon.reload()
            assert client.informational()
            trace.wait("another monitor goes on", count=number + 1)
            trace.wait("IKE to client", exchange="INFORMATIONAL", message_id=client.message_id)
        numbers = [one["sequence"] for one in trace.seen() if "sequence" in one]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "none is lost, none comes twice"


def test_killed_monitor_during_a_trace(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    assert client.connect()
    with Trace(site, client.address) as trace:
        site.daemon.kill(site.daemon.monitor())
        assert client.informational()
        trace.wait("another monitor goes on")
        trace.wait("IKE to client", exchange="INFORMATIONAL")


def test_monitor_that_hangs_is_told_and_traffic_goes_on(site):
    site.start_tcp(GROUP)
    client = site.client(0)
    with Trace(site, client.address) as trace:
        monitor = site.daemon.monitor()
        site.daemon.kill(monitor, signal.SIGSTOP)
        assert client.connect()
        status, words = trace.end(60)
        assert status == 1 and "the monitor does not answer" in words and "kill -9" in words
        site.daemon.kill(monitor, signal.SIGCONT)


def test_stop_during_a_trace_says_so(site):
    site.start_tcp(GROUP)
    with Trace(site, "198.51.100.7") as trace:
        site.daemon.stop()
        status, words = trace.end()
        assert status == 1
        assert words == "homeport trace: homeport has stopped; start it, then follow the client again\n"


def test_two_traces_and_as_many_as_there_may_be(site):
    site.start_tcp(GROUP)
    clients = [site.client(number) for number in range(8)]
    traces = [Trace(site, client.address) for client in clients]
    try:
        assert all(client.connect() for client in clients)
        for client, trace in zip(clients, traces):
            trace.wait("session begun", service="nat-t")
            assert all(one["client"].split(":")[0] == client.address for one in trace.seen())
        result = cli("trace", "-c", site.path, "198.51.100.7", json=False, status=None)
        assert result.returncode == 1 and result.stdout == ""
        assert "there is no room" in result.stderr and "end another" in result.stderr
        assert site.daemon.cli("status")["healthy"]
        traces.pop().close()
        traces.append(wait_for(lambda: may_follow(site, clients[0].address), what="room for another"))
        site.daemon.cli("drop", clients[0].address)
        for trace in (traces[0], traces[-1]):
            trace.wait("session ended", count=2, reason="drop")
    finally:
        for one in traces:
            one.close()


def may_follow(site, client):
    trace = Trace(site, client, begin=False)
    wait_for(lambda: trace.seen("following") or trace.process.poll() is not None, 20, "an answer")
    if trace.seen("following"):
        return trace
    trace.close()
    return None


def test_reader_that_is_interrupted_is_followed_no_more(site):
    site.start_tcp(GROUP, pools=IKE)
    client = site.client(0)
    with Trace(site, client.address) as trace:
        assert client.connect()
        trace.wait("IKE to client", exchange="IKE_AUTH")
        trace.process.send_signal(signal.SIGINT)
        assert trace.process.wait(20) == -signal.SIGINT
    with Trace(site, client.address) as trace:
        assert client.informational()
        trace.wait("IKE to client", exchange="INFORMATIONAL")
        assert not trace.seen("IKE to client", exchange="IKE_AUTH"), "what came before is not told again"


@pytest.mark.parametrize("text", ["nobody", "", "198.51.100.300", "198.51.100.7:99999", "2001:db8::zz", "198.51.100.0/24"])
def test_client_that_is_no_address(site, text):
    site.start_tcp(GROUP)
    result = cli("trace", "-c", site.path, text, json=False, status=None)
    assert result.returncode == 1 and result.stdout == ""
    assert "the client is no address" in result.stderr and "198.51.100.7" in result.stderr


def test_nobody_to_ask(site):
    site.write(site.tcp_config())
    result = subprocess.run([binary(), "trace", "-c", site.path, "198.51.100.7"], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1 and "homeport is not running" in result.stderr
