# SPDX-License-Identifier: Apache-2.0
"""The segment over restarts with other capacities, and while somebody writes nonsense into it.

HOMEPORT_FLIPS: random bit flips of a storm, default 200000. HOMEPORT_SEED: repeats one."""
import mmap
import os
import random
import threading
import time

import pytest
from homeport import Daemon, Site, cells, connected, wait_for

GROUP = {"aovpn": {"plugin": "match_across_services"}}
FLIPS = int(os.environ.get("HOMEPORT_FLIPS", "200000"))
HEADER = 4096
VERBS = (["status"], ["servers"], ["sessions"], ["affinity"])


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=3) as site:
        yield site


def restart_with(site, **changes):
    site.daemon.stop()
    site.write(site.config(GROUP, "aovpn", **changes))
    site.daemon = Daemon(site.path).wait_ready()


def homes_by_record(site):
    return {row["client"]: row["server"] for row in site.daemon.cli("affinity")["records"]}


@pytest.mark.parametrize("affinity, sessions", [(262144, 131072), (4096, 1024)], ids=["raised", "lowered"])
def test_other_capacities_move_nobody(site, affinity, sessions):
    site.start(GROUP, "aovpn")
    clients = connected(site, 24)
    homes = [site.server_of(client, "auth") for client in clients]
    before = cells(site)
    records = homes_by_record(site)
    received = site.daemon.cli("status")["counters"]["datagrams_from_clients"]
    restart_with(site, affinity={"capacity": affinity}, sessions={"capacity": sessions})
    site.daemon.wait_log("is copied: .*24 of 24 records and 48 of 48 sessions are carried over")
    assert cells(site) == before
    assert homes_by_record(site) == records
    assert site.daemon.cli("status")["counters"]["datagrams_from_clients"] >= received
    for client, home in zip(clients, homes):
        assert client.informational() and site.servers_of(client, "informational") == [home]
    assert cells(site) == before
    left = {name for name in os.listdir(os.path.join(site.folder, "state")) if not name.startswith("process-")}
    assert left == {"control.sock", "master.lock", "segment"}
    assert connected(site, 2)


def test_a_capacity_changed_three_times_moves_nobody(site):
    site.start(GROUP, "aovpn")
    client = connected(site, 1)[0]
    home, before = site.server_of(client, "auth"), cells(site)
    for capacity in (1000, 500000, 65536):
        restart_with(site, affinity={"capacity": capacity})
        assert client.informational()
        assert site.servers_of(client, "informational") == [home] and cells(site) == before


def overwrite(site, where, octets):
    """where: an offset, or a name that stands in the segment, to overwrite the identity before it."""
    with open(os.path.join(site.folder, "state", "segment"), "r+b") as file, mmap.mmap(file.fileno(), 0) as segment:
        at = where if isinstance(where, int) else segment.find(where + b"\0") - 8
        segment[at:at + len(octets)] = octets


@pytest.mark.parametrize("where, size", [(0, 72), (b"ike", 8), (b"nat-t", 8), (b"aovpn", 8), (b"vpn2", 8)])
def test_what_a_new_worker_looks_for_is_there_again_after_it_was_overwritten(site, where, size):
    site.start(GROUP, "aovpn")
    clients = connected(site, 6)
    homes, before = [site.server_of(client, "auth") for client in clients], cells(site)
    overwrite(site, where, os.urandom(size))
    for pid in [*site.daemon.workers(), site.daemon.monitor()]:
        site.daemon.kill(pid)
    wait_for(lambda: len(site.daemon.workers()) == 2 and site.daemon.cli("status", status=None).returncode == 0,
             what="a healthy daemon")
    assert "cannot start" not in site.daemon.log()
    if where != b"vpn2":  # its sessions are of a server that nobody knows
        for client, home in zip(clients, homes):
            assert client.informational() and site.servers_of(client, "informational") == [home]
        assert cells(site) == before
    assert connected(site, 2)


class Storm(threading.Thread):
    """Flips random bits of the segment's body, as a hostile worker could, in 200 gusts."""

    def __init__(self, path, flips, seed):
        super().__init__(daemon=True)
        self.path, self.flips, self.random = path, flips, random.Random(seed)

    def run(self):
        with open(self.path, "r+b") as file, mmap.mmap(file.fileno(), 0) as octets:
            size = len(octets)
            for number in range(self.flips):
                bit = self.random.randrange(HEADER * 8, size * 8)
                octets[bit // 8] ^= 1 << bit % 8
                if number % (self.flips // 200 + 1) == 0:
                    time.sleep(0.02)


def ask(site, verbs=VERBS):
    """Every verb answers, whatever it says about this segment."""
    for verb in verbs:
        result = site.daemon.cli(*verb, status=None)
        assert result.returncode in (0, 1), f"{verb}: {result.returncode}\n{result.stdout[-500:]}{result.stderr}"
        assert result.stdout.startswith("{"), f"{verb} did not answer: {result.stderr}"


# A body so small that most octets of it are hit, and one of the usual size.
@pytest.mark.parametrize("capacity", [60, 65536], ids=["dense", "usual"])
def test_a_storm_of_bit_flips_ends_neither_master_nor_monitor(site, capacity):
    seed = int(os.environ.get("HOMEPORT_SEED", random.randrange(1 << 32)))
    print(f"HOMEPORT_SEED={seed}")
    site.start(GROUP, "aovpn", affinity={"capacity": capacity}, sessions={"capacity": capacity},
               pools={"all": {"health": {"check": "ike", "interval": "200ms", "timeout": "100ms"}}})
    clients = connected(site, 8)
    master, monitor = site.daemon.process, site.daemon.monitor()
    storm = Storm(os.path.join(site.folder, "state", "segment"), FLIPS, seed)
    storm.start()
    rounds = 0
    while storm.is_alive() or rounds < 3:
        ask(site)
        for client in clients:
            client.send_esp(40)
        rounds += 1
        assert master.poll() is None and site.daemon.children("_monitor") == [monitor], f"after {rounds} rounds"
    ask(site, [*VERBS, ["drop", clients[0].address]])
    assert site.daemon.children("_monitor") == [monitor]
    site.daemon.reload()  # gives every name that is lost a slot again
    wait_for(lambda: len(site.daemon.workers()) == 2, 20, "both workers")
    ask(site)
    site.daemon.stop(timeout=30)
