# SPDX-License-Identifier: Apache-2.0
"""What each network mode leaves of the client's address, and what a restart of the container costs in it. The clients are
in a network of their own, with the host between them and the container, as docs/container.md has it."""
import os
import signal
import subprocess

import pytest
from containers import CAPABILITIES
from homeport import parse, wait_for
from ike import Client
from netns import ip, neighbour_net

VIP = "198.51.100.1"
CLIENTS = [f"198.51.100.{10 + number}" for number in range(6)]


@pytest.fixture
def clients(host):
    with neighbour_net(f"{VIP}/24", *(f"{address}/24" for address in CLIENTS)) as inside:
        made = [inside(Client, address, VIP, 500, 4500) for address in CLIENTS]
        for number, name in enumerate(host.names):  # servers that a container's own network can reach
            ip("addr", "add", f"192.0.2.{11 + number}/32", "dev", "lo")
            host.responders[name].address = f"192.0.2.{11 + number}"
            host.responders[name].close()
            host.responders[name].open()
        yield made
        for one in made:
            one.close()


class Published:
    """The image with a network of its own and both ports published."""

    def __init__(self, podman, host, name, *network):
        self.podman, self.name = podman, name
        host.addresses = {server: f"192.0.2.{11 + number}" for number, server in enumerate(host.names)}
        host.vip = "0.0.0.0"
        host.write(host.config({"aovpn": {"plugin": "match_across_services"}}, "aovpn"))
        state = os.path.join(host.folder, "state")
        os.makedirs(state, 0o750, exist_ok=True)
        podman.podman("run", "--detach", "--name", name, *network, f"--publish={VIP}:500:500/udp",
                      f"--publish={VIP}:4500:4500/udp", "--read-only", "--cap-drop=all",
                      *(f"--cap-add={one}" for one in CAPABILITIES), f"--volume={state}:/run/homeport",
                      f"--volume={host.etc}:/etc/homeport:ro", "homeport")
        self.await_health()

    def await_health(self):
        wait_for(lambda: self.podman.run("podman", "healthcheck", "run", self.name, status=None).returncode == 0,
                 what="a healthy container")

    def seen_addresses(self):
        rows = parse(self.podman.podman("exec", self.name, "/usr/bin/homeport", "sessions", "--json"))["sessions"]
        return {row["client"].rsplit(":", 1)[0] for row in rows}


@pytest.fixture
def publish(podman, host, clients):
    made = []

    def run(*network):
        made.append(Published(podman, host, f"homeport-{len(made)}-{os.getpid()}", *network))
        return made[-1]
    yield run
    for one in made:
        podman.run("podman", "rm", "-f", "-t", "0", one.name, status=None)


def connect(host, clients):
    for client in clients:
        assert client.connect(), f"{client.address} did not connect"
    return {client: host.server_of(client, "auth") for client in clients}


def test_a_network_of_its_own_keeps_the_clients_addresses(publish, host, clients):
    container = publish()
    connect(host, clients)
    assert container.seen_addresses() == set(CLIENTS)


def test_with_another_address_a_restart_cuts_clients_off_until_their_tracking_is_deleted(publish, host, clients, podman):
    container = publish()
    homes = connect(host, clients)
    podman.podman("restart", container.name)
    container.await_health()
    assert not clients[0].informational(timeout=1, tries=2)
    for port in ("500", "4500"):
        subprocess.run(["conntrack", "-D", "-p", "udp", "--orig-port-dst", port], check=False, timeout=20, capture_output=True)
    for client, home in homes.items():
        assert client.informational() and host.servers_of(client, "informational") == [home]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_with_a_fixed_address_a_restart_moves_nobody(publish, host, clients, podman, number):
    container = publish("--network=podman", "--ip=10.88.0.45")
    homes = connect(host, clients)
    podman.podman("kill", f"--signal={number}", container.name)
    podman.podman("wait", container.name)
    podman.podman("start", container.name)
    container.await_health()
    for client, home in homes.items():
        assert client.informational() and host.servers_of(client, "informational") == [home]


def test_user_mode_networks_hide_the_clients_addresses(publish, host, clients):
    container = publish("--network=slirp4netns")
    connect(host, clients)
    assert len(container.seen_addresses()) == 1 and not container.seen_addresses() & set(CLIENTS)
    assert len({host.server_of(client, "auth") for client in clients}) == 1  # all are one client
