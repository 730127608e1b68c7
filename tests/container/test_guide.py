# SPDX-License-Identifier: Apache-2.0
"""docs/container.md: each command of the page, as it is written, in the page's order, on a host that has the page's
addresses; between the sections clients connect and must stay at home. Then the compose file and the Kubernetes pod, run
for real."""
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from homeport import ROOT, wait_for
from ike import Client, Responder
from netns import ip, own_net

PAGE = Path(ROOT) / "docs" / "container.md"
VIP = "203.0.113.10"
OFFICE = [f"198.51.100.{16 + number}" for number in range(4)]
OTHERS = [f"198.51.100.{40 + number}" for number in range(6)]


def sections(page):
    """(heading, [command block, ...]) in order."""
    parts = re.split(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(heading, re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
            for heading, text in zip(parts[1::2], parts[2::2])]


class Peers:
    """Servers and clients at the addresses of the page and of the manifests."""

    def __init__(self):
        for network in ("192.0.2.0/24", "203.0.113.0/24", "198.51.100.0/24"):
            ip("addr", "add", network, "dev", "lo")
        self.servers = {f"vpn{number}": Responder(f"vpn{number}", f"192.0.2.{10 + number}", [500, 4500])
                        for number in (1, 2, 3)}
        self.clients, self.homes = [], {}

    def home(self, client, kind):
        names = [name for name, server in self.servers.items() if server.of_kind(kind, client.spi_i)]
        return names[0] if len(names) == 1 else None

    def connect(self, addresses):
        for address in addresses:
            client = Client(address, VIP, 500, 4500)
            self.clients.append(client)
            assert client.connect(), f"{address} did not connect"
            self.homes[client] = self.home(client, "auth")
        return [self.homes[client] for client in self.clients[-len(addresses):]]

    def stay(self):
        for client in self.clients:
            assert client.informational() and self.home(client, "informational") == self.homes[client]

    def close(self):
        for one in self.clients:
            one.close()
        for one in self.servers.values():
            one.stop()


@pytest.fixture
def peers():
    with own_net():
        one = Peers()
        yield one
        one.close()


@pytest.fixture
def checkout(podman, tmp_path):
    """The files of this tree, as a newcomer has them."""
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (Path(ROOT) / name).exists():
            shutil.copy(Path(ROOT) / name, target)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o711)
    yield tmp_path
    podman.run("podman", "rm", "-fa", "-t", "0", status=None)


def healthy(podman, name):
    return podman.run("podman", "exec", name, "/usr/bin/homeport", "status", status=None).returncode == 0


def kill_master(podman, name):
    """Process 1 dies; returns when the restart policy has brought the container back."""
    master = podman.podman("inspect", "-f", "{{.State.Pid}}", name)
    os.kill(int(master), signal.SIGKILL)
    wait_for(lambda: podman.podman("inspect", "-f", "{{.State.Pid}}", name) not in ("0", master), 20,
             "the restart by podman")
    wait_for(lambda: healthy(podman, name), 20, "a healthy container")


def test_every_block_of_the_page(podman, checkout, peers):
    (image, *rest) = sections(PAGE)
    assert image[0] == "The image" and image[1][0].startswith("./dev image\n")
    after = {
        "Run it": lambda: (peers.connect(OFFICE), peers.connect(OTHERS)),
        "Change it": peers.stay,
    }
    seen = []
    for heading, blocks in (image, *rest):
        for block in blocks:
            if "podman stop homeport" in block:  # the restart before it moves nobody
                block, end = block.split("podman stop homeport", 1)
                podman.run("bash", "-euc", block, folder=str(checkout), timeout=120)
                peers.stay()
                kill_master(podman, "homeport")
                peers.stay()
                block = "podman stop homeport" + end
            podman.run("bash", "-euc", block, folder=str(checkout), timeout=300)
        seen.append(heading)
        after.get(heading, lambda: None)()
    assert set(after) <= set(seen)
    assert len({peers.homes[client] for client in peers.clients[:len(OFFICE)]}) == 1  # the plugin's doing
    assert len({peers.homes[client] for client in peers.clients}) == 3


@pytest.fixture
def engine(podman, peers):  # in the network of peers
    """docker-compose's engine: podman behind Docker's interface, on a socket."""
    if shutil.which("docker-compose") is None:
        pytest.skip("needs the package docker-compose: ./dev deps")
    socket = os.path.join(podman.folder, "engine.sock")
    service = subprocess.Popen([*podman.prefix(), "podman", "system", "service", "--time=0", f"unix://{socket}"])
    wait_for(lambda: os.path.exists(socket), what="the engine's socket")
    yield f"unix://{socket}"
    service.terminate()
    service.wait(10)


def test_compose_file_runs_and_a_killed_container_comes_back_without_moving_anybody(podman, checkout, peers, engine):
    folder = checkout / "site"
    (folder / "etc").mkdir(parents=True)
    (copied,) = dict(sections(PAGE))["Compose and Kubernetes"]
    podman.run("bash", "-euc", copied, folder=str(checkout))
    shutil.copy(checkout / "configs" / "quickstart.yaml", folder / "etc" / "homeport.yaml")
    podman.run("mkdir", "-p", "/run/homeport")
    compose = ["env", f"DOCKER_HOST={engine}", "docker-compose", "--project-directory", str(folder), "-f",
               str(folder / "compose.yaml")]
    podman.run(*compose, "up", "-d", folder=str(folder))
    (name,) = podman.podman("ps", "--format", "{{.Names}}").split()
    wait_for(lambda: healthy(podman, name), 20, "a healthy container")
    peers.connect(OTHERS)
    kill_master(podman, name)
    peers.stay()
    podman.run(*compose, "down", folder=str(folder))


@pytest.mark.parametrize("state", ["hostPath", "emptyDir"])
def test_kubernetes_pod_runs_and_a_killed_container_moves_nobody(podman, checkout, peers, state):
    """podman knows no DaemonSet and no probes by exec: the pod template is played as a pod. Its emptyDir lies on the disk."""
    with open(checkout / "configs" / "container" / "kubernetes.yaml", encoding="utf-8") as file:
        configuration, daemon_set = yaml.safe_load_all(file)
    spec = daemon_set["spec"]["template"]["spec"]
    container = spec["containers"][0]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container.pop(probe)["exec"]["command"] == ["/usr/bin/homeport", "status"]
    spec.pop("nodeSelector")
    if state == "emptyDir":  # as the manifest's comment says
        spec["volumes"][1] = {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}}
        container["volumeMounts"][1]["mountPath"] = "/run"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "homeport", **daemon_set["spec"]["template"]["metadata"]},
           "spec": spec}
    played = checkout / "pod.yaml"
    played.write_text(yaml.safe_dump_all([configuration, pod]), encoding="utf-8")
    podman.podman("kube", "play", str(played), timeout=120)
    name = "homeport-homeport"
    wait_for(lambda: healthy(podman, name), 20, "a healthy pod")
    peers.connect(OTHERS)
    kill_master(podman, name)
    peers.stay()
    podman.podman("kube", "down", str(played))
