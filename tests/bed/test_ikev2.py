# SPDX-License-Identifier: Apache-2.0
"""Real IKEv2 peers (strongSwan) through homeport: what the product is for.

Each test has a bed of its own, because a client that fails leaves half-open IKE_SAs at the servers; what must fail
comes last.
"""
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import bed as beds
import homeport
import ike
import pytest

pytestmark = pytest.mark.skipif(bool(beds.missing()), reason=beds.missing())

VENDORS = {
    "port_following": {"per_service": {"ike": {"follow": "nat-t"}, "nat-t": {"follow": "ike"}}},
    "match_across_services": {},
    "persistency_group": {},
}
ROUNDS = 5


@pytest.fixture(scope="module")
def pki():
    """RSA 4096 keys and certificates, made once."""
    folder = tempfile.mkdtemp(prefix="homeport-pki-")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("plugin", VENDORS)
def test_every_client_comes_home_in_every_round(plugin):
    with beds.Bed(clients=6, servers=3) as bed:
        bed.homeport(plugin, **VENDORS[plugin])
        for _ in range(ROUNDS):
            homes = bed.connect_all()
            assert len(set(homes.values())) == 3, f"6 clients over 3 servers, but all at {homes}"
            bed.disconnect_all()


@pytest.mark.parametrize("vip, family", [(beds.VIP6, 6), (beds.VIP, 6)], ids=["6_to_6", "4_to_6"])
def test_over_ipv6_too_every_client_comes_home_and_stays_there(vip, family):
    with beds.Bed(clients=2, servers=2, family=family, VIP=vip) as bed:
        bed.homeport("match_across_services")
        homes = bed.connect_all()
        assert len(set(homes.values())) == 2
        ends = {server: bed.associations(f"v{server}") for server in bed.servers}
        clients = {address.rsplit(":", 1)[0] for address in bed.tunnels()}
        assert clients == {f"[fd78:{client}::2]" if vip == beds.VIP6 else f"10.78.{client}.2" for client in bed.clients}
        bed.kill_workers()
        assert beds.all_at_once(bed.ping, bed.clients) == [3, 3]
        assert ends == {server: bed.associations(f"v{server}") for server in bed.servers}
        assert bed.homes() == homes


@pytest.mark.parametrize("fragmentation", ["yes", "no"], ids=["ike_fragments", "ip_fragments"])
def test_certificates_that_need_two_datagrams(fragmentation, pki):
    with beds.Bed(clients=6, servers=3, AUTH="cert", PKI=pki, FRAGMENTATION=fragmentation) as bed:
        bed.homeport("match_across_services")
        bed.connect_all()
        used, unused = bed.in_ike_fragments, bed.in_ip_fragments
        if fragmentation == "no":
            used, unused = unused, used
        homeport.wait_for(lambda: used() >= 6, 3, "every client's fragments in the captures")
        assert unused() == 0


def test_workers_killed_between_ike_sa_init_and_ike_auth():
    with beds.Bed(clients=1, servers=3) as bed:
        bed.homeport("match_across_services")
        bed.cut(f"ip daddr {beds.VIP} udp dport 4500")
        with subprocess.Popen([beds.HERE + "/bed.sh", "connect", "1"], env=bed.environment) as connecting:
            homeport.wait_for(bed.dropped, 10, "an IKE_AUTH")
            bed.kill_workers()
            bed.mend()
            assert connecting.wait(20) == 0
        bed.home(1)
        assert bed.ping(1, count=15) == 15


def test_workers_killed_while_tunnels_ping(capsys):
    with beds.Bed(clients=3, servers=3) as bed:
        daemon = bed.homeport("match_across_services")
        bed.connect_all()
        before = {client: bed.spi(client) for client in bed.clients}
        ends = {server: bed.associations(f"v{server}") for server in bed.servers}
        pings = [beds.Pinging(bed, client, 60, 0.1) for client in bed.clients]
        for one in pings:
            one.wait_reply(10)
        killed = daemon.workers()
        for pid in killed:
            daemon.kill(pid)
        replies = [one.replies() for one in pings]
        with capsys.disabled():
            print(f"\npings answered of 60 while all workers were killed: {[len(one) for one in replies]}")
        for one in replies:
            assert one[-1] == 60 and len(one) >= 50  # what was under way is lost, the tunnel is not
        assert before == {client: bed.spi(client) for client in bed.clients}
        # Same server, same source port towards it: no peer has seen anything move.
        assert ends == {server: bed.associations(f"v{server}") for server in bed.servers}
        assert not set(killed) & set(daemon.workers())


@pytest.mark.parametrize("family", [4, 6])
def test_servers_see_the_clients_and_killed_workers_change_nothing(family):
    """source: transparent, with the routing commands of its page."""
    page = pathlib.Path(homeport.ROOT, "docs", "transparent.md").read_text(encoding="utf-8")
    with beds.Bed(clients=6, servers=2, family=family, **({"VIP": beds.VIP6} if family == 6 else {})) as bed:
        for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
            bed.run("lb", "sh", "-ec", block.replace("eth1", "servers"))
        daemon = bed.homeport("match_across_services", source="transparent")
        homes = bed.connect_all()
        assert len(set(homes.values())) == 2
        addresses = {client: f"fd78:{client}::2" if family == 6 else f"10.78.{client}.2" for client in bed.clients}
        for client, server in homes.items():
            state, end = bed.associations(f"v{server}")[bed.spi(client)]
            assert (state, end) == ("ESTABLISHED", f"{addresses[client]}:4500")
        for server in bed.servers:
            seen = {packet.source for packet in bed.packets(server) if packet.source[1] in (500, 4500)}
            assert seen == {(addresses[client], port) for client, home in homes.items() if home == server
                            for port in (500, 4500)}
        ends = {server: bed.associations(f"v{server}") for server in bed.servers}
        pings = [beds.Pinging(bed, client, 60, 0.1) for client in list(bed.clients)[:3]]
        for one in pings:
            one.wait_reply(10)
        for pid in [*daemon.keepers(), *daemon.workers()]:
            daemon.kill(pid)
        replies = [one.replies() for one in pings]
        for one in replies:
            assert one[-1] == 60 and len(one) >= 50  # what was under way is lost, the tunnel is not
        assert ends == {server: bed.associations(f"v{server}") for server in bed.servers}
        assert beds.all_at_once(bed.ping, bed.clients) == [3] * 6 and bed.homes() == homes


def test_killed_servers_client_comes_up_elsewhere(capsys):
    interval, fall, times = 1, 2, 5
    took = []
    with beds.Bed(clients=1, servers=3, RETRANSMIT_TIMEOUT=0.5, RETRANSMIT_BASE=1.0, RETRANSMIT_TRIES=12) as bed:
        bed.homeport("match_across_services",
                     health={"interval": f"{interval}s", "timeout": "900ms", "rise": 2, "fall": fall})
        assert bed.connect_and_ping(1)
        home = bed.home(1)
        for _ in range(times):
            dead = home
            began = time.monotonic()
            bed.sh("kill", f"v{dead}")
            bed.sh("kill", "c1")
            assert bed.connect(1, 20)
            took.append(round(time.monotonic() - began, 2))
            home = bed.home(1, dead)
            assert home != dead and bed.ping(1) == 3
            bed.sh("start", f"v{dead}")
    with capsys.disabled():
        print(f"\nup on another server after {took} s (at most interval x fall + 2 s = {interval * fall + 2} s)")
    assert max(took) <= interval * fall + 2, took


def test_silent_server_and_blind_monitor_cost_no_ping():
    with beds.Bed(clients=3, servers=3) as bed:
        bed.run("lb", "ip", "addr", "add", f"{beds.PROBER}/24", "dev", "servers")
        bed.homeport("match_across_services",
                     health={"interval": "1s", "timeout": "900ms", "fall": 2, "source": beds.PROBER})
        homes = bed.connect_all()
        answers = bed.run("lb", beds.HERE + "/half_open.py", beds.BALANCER, f"10.77.2.{10 + homes[1]}", "10").split()
        assert "SILENCE" in answers, f"the server was to block the balancer's address: {answers}"
        bed.cut(f"ip saddr {beds.PROBER}", hook="output")
        pings = [beds.Pinging(bed, client, 110, 0.2) for client in bed.clients]
        began = time.monotonic()
        pings[0].wait_reply(100)
        assert time.monotonic() - began >= 19.5
        assert bed.dropped() >= 20, "the monitor's path was to be cut"
        bed.mend()
        assert [len(one.replies()) for one in pings] == [110] * 3


def test_source_address_per_service_must_fail():
    """Proves that the tests above can fail: two pools, each with its own round robin, out of step by one stranger."""
    with beds.Bed(clients=6, servers=3) as bed:
        bed.homeport("source_address", pools=("ike", "nat-t"))
        stranger = ike.init_request(b"stranger")
        script = f"from ike import udp_socket; udp_socket('').sendto({stranger!r}, ({beds.VIP!r}, 500))"
        bed.run("c6", "env", f"PYTHONPATH={homeport.ROOT}/tests/lib", "/usr/bin/python3", "-c", script)
        up = beds.all_at_once(bed.connect, list(bed.clients)[:5])
        assert not all(up), "500 and 4500 unrelated, and every client came up"
