# SPDX-License-Identifier: Apache-2.0
"""The nftables example, in network namespaces of the tests' own: source ports that are closed stay silent towards
servers, and no flow of the balancer is tracked."""
import contextlib
import errno
import os
import re
import signal
import socket
import subprocess

import pytest
from homeport import Site, cells, connected, wait_for
from ike import Responder, udp_socket
from netns import ip, own_net
from service import needs, one_file, run

GROUP = {"aovpn": {"plugin": "match_across_services"}}
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace of its own"),
              needs("nft", "conntrack")]


@pytest.fixture(name="snippet")
def fixture_snippet(installed):
    return one_file(installed, "share/homeport/homeport.nft")


# Connection tracking is at work once a rule asks for it. Clients and servers live on the balancer's own machine here:
# what they send is not the balancer's to leave alone, so this does.
SURROUNDINGS = """
table inet surroundings {
    chain input {
        type filter hook input priority filter
        ct state new counter
    }
    chain peers {
        type filter hook output priority raw
        udp dport { 500, 4500 } udp sport != 10240-29999 notrack
        udp sport { 500, 4500 } udp dport 10240-29999 notrack
    }
}
"""


@contextlib.contextmanager
def firewall():
    """A network namespace with connection tracking on. Skips where the kernel lacks it, with its words."""
    with own_net():
        result = subprocess.run(["nft", "-f", "-"], input=SURROUNDINGS, capture_output=True, text=True, timeout=20,
                                check=False)
        if result.returncode != 0:
            pytest.skip(f"this kernel has not what the rules need: {result.stderr.strip()}")
        ip("address", "add", "198.51.100.1/32", "dev", "lo")
        ip("address", "add", "2001:db8::1/128", "dev", "lo", "nodad")
        yield


def tracked_ports():
    """Ports of tracked UDP flows of this namespace, as far as they concern the balancer."""
    ports = {int(port) for port in re.findall(r"[sd]port=(\d+)", run(["conntrack", "-L", "-p", "udp"]).stdout)}
    return {port for port in ports if port in (500, 4500) or 10240 <= port <= 29999}


def refused(server_port, port, server):
    """Does a server that sends to this closed port of ours get port unreachable? On loopback the answer is there when
    send() returns."""
    with contextlib.closing(udp_socket(server, server_port)) as one:
        one.connect(("::1" if ":" in server else "127.0.0.1", port))
        one.send(b"late ESP")
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_the_nft_example_is_well_formed_and_loads_twice(snippet):
    with firewall():
        run(["nft", "-c", "-f", snippet])
        for _ in range(2):
            run(["nft", "-f", snippet])
        listed = run(["nft", "list", "table", "inet", "homeport"]).stdout
        assert listed.count("notrack") == 4 and listed.count("drop") == 2


@pytest.mark.parametrize("server", ["198.51.100.1", "2001:db8::1"])
def test_a_server_learns_nothing_of_a_closed_source_port(snippet, server):
    ours = [(500, 10240), (4500, 10240), (4500, 20000), (500, 29999)]
    others = [(500, 10239), (4500, 30000), (501, 20000), (53, 20000)]
    with firewall():
        assert all(refused(*ports, server) for ports in ours + others), "without the rules each gets port unreachable"
        run(["nft", "-f", snippet])
        assert [refused(*ports, server) for ports in ours] == [False] * 4
        assert all(refused(*ports, server) for ports in others), "and nothing else is hidden"


def test_the_source_port_of_a_killed_worker_stays_silent_and_nothing_is_tracked(snippet):
    with firewall(), Site(servers=2, responders=False) as site, contextlib.ExitStack() as stack:
        site.ike_port, site.natt_port = 500, 4500
        for name, address in site.addresses.items():
            site.responders[name] = Responder(name, address, [500, 4500])
        site.start(GROUP, "aovpn", services={name: {"listen": [f"{site.vip}:{port}", f"[{site.host(1, 6)}]:{port}"]}
                                             for name, port in (("ike", 500), ("nat-t", 4500))})
        heard = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        heard.setblocking(False)

        def unreachable():
            """How many port unreachable have come since the last time. On loopback they are there at once."""
            count = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = heard.recv(2048)
                    count += packet[20:22] == b"\x03\x03"
            return count

        def servers_send():
            for server, port in closed:
                site.responders[server].sockets[4500].sendto(b"\x01\x02\x03\x04ESP", ("127.0.0.1", port))

        clients = connected(site, 4)
        four, site.vip, site.client_family = site.vip, site.host(1, 6), 6
        clients += connected(site, 2)
        site.vip, site.client_family = four, 4
        closed = set(cells(site).values())
        assert {500, 4500} & tracked_ports(), "without the rules they are tracked"
        master = site.daemon.process.pid
        os.kill(master, signal.SIGSTOP)  # nobody is replaced for now
        holders = {*site.daemon.keepers(), *site.daemon.workers()}  # without its keeper a worker's sockets close with it
        for one in holders:
            site.daemon.kill(one)
        wait_for(lambda: not holders & set(site.daemon.alive()), what="the end of workers and keepers")
        servers_send()
        assert unreachable() == len(closed), "without the rules each closed port says so"
        run(["nft", "-f", snippet])
        run(["conntrack", "-F"])
        servers_send()
        assert unreachable() == 0
        os.kill(master, signal.SIGCONT)
        assert all(client.informational() for client in clients + connected(site, 4))
        assert not tracked_ports()
