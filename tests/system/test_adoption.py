# SPDX-License-Identifier: Apache-2.0
"""The master is killed: workers and monitor serve on, and the next start takes them over."""
import contextlib
import os
import random
import signal
import stat
import subprocess
import threading
import time

import pytest

from test_bad_start import build
from homeport import Daemon, Site, cells, cli, connected, descriptors, processes, wait_for, write_config

WAY = {"way": {"plugin": "match_across_services"}}


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=3) as site:
        site.others = []  # daemons whose master is dead
        try:
            yield site
        finally:
            for one in site.others:
                one.abandon()


def config(site, **changes):
    """However slow the machine is, no session of the test is idle."""
    return site.config(WAY, "way", sessions={"idle": "1h", "idle_unproven": "1h"}, **changes)


def start(site):
    write_config(site.path, config(site))
    return start_again(site)


def kill_master(site):
    """What outlives it: pids by role and number."""
    killed = site.daemon
    pids = {(one["role"], one["number"]): one["pid"] for one in killed.cli("status")["processes"]
            if one["role"] != "spare"}  # which holds nothing, and ends
    killed.process.kill()
    killed.process.wait(5)
    site.others.append(killed)
    del pids["master", 0]
    wait_for(lambda: set(killed.alive(keepers=False)) == set(pids.values()), what="the end of the spare worker")
    return pids


def start_again(site):
    site.daemon = Daemon(site.path)
    return site.daemon.wait_ready()


def successor(site, pids):
    """The next master, once nobody of those is left."""
    start_again(site)
    wait_for(lambda: not [pid for pid, fields, _ in processes() if pid in pids.values() and fields[0] != "Z"], 10,
             "the end of the processes that have been taken over")


@contextlib.contextmanager
def talking(clients):
    """Each client asks its server all the time, each time once, without a second try; yields who got no answer."""
    going, silent, asked = threading.Event(), [], []

    def talk(client):
        while not going.is_set():
            asked.append(client.address)
            if not client.informational(timeout=5, tries=1):
                silent.append(client.address)

    threads = [threading.Thread(target=talk, args=(client,)) for client in clients]
    for one in threads:
        one.start()
    try:
        yield silent
    finally:
        going.set()
        for one in threads:
            one.join()
    assert len(asked) > len(clients), "nobody has said anything"


def test_traffic_goes_on_without_a_master_and_through_its_successor_and_nothing_is_lost(site):
    start(site)
    clients = connected(site, 8)
    before = cells(site)
    with talking(clients) as silent:
        for _ in range(3):
            pids = kill_master(site)
            newcomer = site.client()
            assert newcomer.connect(), "a new client finds a server without a master"
            successor(site, pids)
    assert silent == []
    after = cells(site)
    assert {flow: cell for flow, cell in after.items() if flow in before} == before
    assert site.daemon.cli("status")["healthy"]
    assert "3 processes that have served on are taken over" in site.daemon.log()


def test_no_process_descriptor_or_socket_is_left_over(site):
    start(site)
    connected(site, 4)

    def left():
        state = os.path.join(site.folder, "state")
        return descriptors(site.daemon.process.pid), len(os.listdir(state))

    first = wait_for(lambda: len(site.daemon.cli("status")["processes"]) == 5 and left(), 5, "a quiet start")
    for _ in range(4):
        pids = kill_master(site)
        successor(site, pids)
        wait_for(lambda: left()[0] <= first[0] and left()[1] == first[1], 5, f"no more descriptors and files than {first}")


def test_a_worker_that_dies_without_a_master_is_served_again_after_the_next_start(site):
    start(site)
    clients = connected(site, 12)
    before = cells(site)
    pids = kill_master(site)
    os.kill(pids["worker", 0], signal.SIGKILL)
    for client in clients:
        client.send_esp()  # waits in the queue of a lane that nobody reads, or is answered
    successor(site, pids)
    assert all(client.informational() for client in clients)
    assert cells(site) == before
    assert "2 processes" in site.daemon.log()


def test_the_monitor_dies_as_well(site):
    start(site)
    clients = connected(site, 6)
    before = cells(site)
    pids = kill_master(site)
    os.kill(pids["monitor", 0], signal.SIGKILL)
    with talking(clients) as silent:
        successor(site, pids)
    assert silent == []
    assert cells(site) == before


def test_monitor_and_a_worker_die_so_that_nobody_has_its_listening_sockets_any_more(site):
    start(site)
    clients = connected(site, 12)
    homes = [site.server_of(client) for client in clients]
    pids = kill_master(site)
    os.kill(pids["monitor", 0], signal.SIGKILL)
    os.kill(pids["worker", 1], signal.SIGKILL)
    successor(site, pids)
    for client, home in zip(clients, homes):
        assert client.informational() and site.servers_of(client, "informational") == [home]


def test_all_die_one_after_the_other(site):
    start(site)
    clients = connected(site, 6)
    before = cells(site)
    for pid in kill_master(site).values():
        os.kill(pid, signal.SIGKILL)
    start_again(site)
    assert all(client.informational() for client in clients)
    assert cells(site) == before
    assert "taken over" not in site.daemon.log()


def test_one_that_is_stopped_is_killed_and_its_sessions_go_on(site):
    start(site)
    clients = connected(site, 8)
    before = cells(site)
    pids = kill_master(site)
    os.kill(pids["worker", 1], signal.SIGSTOP)
    successor(site, pids)
    assert f"process {pids['worker', 1]} of the last master does not answer: killed" in site.daemon.log()
    assert all(client.informational() for client in clients)
    assert cells(site) == before


@pytest.mark.parametrize("bad", ["file", "address", "plugin"])
def test_a_start_that_fails_leaves_them_as_they_are(site, bad):
    start(site)
    clients = connected(site, 4)
    before = cells(site)
    pids = kill_master(site)
    good = config(site)
    taken = {"listen": f"{site.addresses['vpn1']}:{site.ike_port}", "protocol": "udp", "pool": "all"}
    worse = {"file": "workers: none\n", "address": {**good, "services": {**good["services"], "more": taken}}}
    if bad == "plugin":  # one that crashes in every successor, and not when it is checked
        worse["plugin"] = {**good, "persistence": {"way": {"plugin": build(site, "ON_CREATE=CRASH")}}}
    write_config(site.path, worse[bad])
    failed = Daemon(site.path)
    assert failed.process.wait(20) == 1
    failed.abandon()
    assert set(site.others[0].alive(keepers=False)) == set(pids.values())
    assert all(client.informational(timeout=5, tries=1) for client in clients)
    write_config(site.path, good)
    assert cells(site) == before, "the control socket still answers"
    successor(site, pids)
    assert cells(site) == before


def test_what_the_verbs_say_without_a_master(site):
    start(site)
    connected(site, 1)
    kill_master(site)
    wait_for(lambda: not cli("status", "-c", site.path, status=None).returncode == 0, 10, "status noticing it")
    result = cli("reload", "-c", site.path, json=False, status=None)
    assert result.returncode == 1 and "the master has gone" in result.stderr and "start homeport again" in result.stderr
    assert cli("sessions", "-c", site.path)["sessions"]
    start_again(site)
    cli("status", "-c", site.path)


def test_stop_ends_what_a_dead_master_has_left(site):
    start(site)
    connected(site, 2)
    pids = kill_master(site)
    os.kill(pids["worker", 0], signal.SIGSTOP)
    cli("stop", "-c", site.path, json=False)
    assert not site.others[0].alive()
    cli("stop", "-c", site.path, json=False)
    start_again(site)
    assert "taken over" not in site.daemon.log()


def test_stop_kills_a_master_that_hangs_and_what_it_leaves(site):
    start(site)
    site.daemon.kill(site.daemon.process.pid, signal.SIGSTOP)
    cli("stop", "-c", site.path, json=False)
    assert not site.daemon.alive()
    start_again(site)


def test_a_worker_that_serves_nobody_yet_goes_with_its_master(site):
    """One killed in the middle of its start leaves nobody behind that waits for it. How far it came by then depends on
    the machine: who serves already serves on."""
    write_config(site.path, config(site))
    for delay in (0.001, 0.003, 0.01, 0.03):
        daemon = Daemon(site.path)
        time.sleep(delay)
        daemon.process.kill()
        daemon.process.wait(5)
        site.others.append(daemon)
        wait_for(lambda last=daemon: not last.alive() or site.client().connect(0.5), 10,
                 "the end of all that do not serve: until then they have the listening sockets")
        if daemon.alive():
            break
    start_again(site)
    assert connected(site, 2)


def test_killed_at_any_moment_of_a_reload(site):
    seed = int(os.environ.get("SEED", time.time_ns() % 1000000))
    print(f"SEED={seed}")
    dice = random.Random(seed)
    start(site)
    clients = connected(site, 12)
    before = cells(site)
    for turn in range(int(os.environ.get("HOMEPORT_TURNS", "12"))):
        write_config(site.path, config(site, workers=dice.choice([1, 2, 3, 4])))
        site.daemon.process.send_signal(signal.SIGHUP)
        time.sleep(dice.uniform(0, 0.15))
        site.daemon.process.kill()
        site.daemon.process.wait(5)
        site.others.append(site.daemon)
        start_again(site)
        wait_for(lambda: not [one for one in site.others if one.alive()], 10, f"the end in turn {turn}")
        while site.others:
            site.others.pop().abandon()
        assert all(client.informational() for client in clients), f"turn {turn}"
        assert cells(site) == before, f"turn {turn}"
        assert site.daemon.cli("status")["segment"]["lanes_held"] == 8


def test_another_capacity_waits_for_a_start_with_nobody_left(site):
    start(site)
    clients = connected(site, 2)
    before = cells(site)
    pids = kill_master(site)
    write_config(site.path, config(site, affinity={"capacity": 100000}))
    successor(site, pids)
    assert "other capacities take effect at the next start" in site.daemon.log()
    assert cells(site) == before and all(client.informational() for client in clients)


def test_a_damaged_segment_ends_them(site):
    start(site)
    connected(site, 2)
    pids = kill_master(site)
    with open(os.path.join(site.folder, "state", "segment"), "r+b") as file:
        file.write(b"not this")
    successor(site, pids)
    assert "cannot be taken over and are ended" in site.daemon.log()
    assert connected(site, 2)


def test_only_the_daemons_own_user_and_root_reach_its_processes(site):
    start(site)
    state = os.path.join(site.folder, "state")
    names = [name for name in os.listdir(state) if name.startswith("process-")]
    assert len(names) == 3
    for name in names:
        assert stat.S_IMODE(os.stat(os.path.join(state, name)).st_mode) & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_worker_turns_a_strange_user_away(site):
    start(site)
    clients = connected(site, 4)
    state = os.path.join(site.folder, "state")
    os.chmod(state, 0o755)
    name = sorted(name for name in os.listdir(state) if name.startswith("process-"))[0]
    os.chmod(os.path.join(state, name), 0o777)  # as somebody would who knows no better
    program = ("import socket,sys; one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
               f"one.connect({os.path.join(state, name)!r}); one.settimeout(5); sys.exit(len(one.recv(100)))")
    result = subprocess.run(["/usr/bin/setpriv", "--reuid=65533", "--clear-groups", "/usr/bin/python3", "-c", program],
                            timeout=20, check=False, capture_output=True)
    assert result.returncode == 0, "it was closed without a word"
    os.chmod(state, 0o750)
    assert all(client.informational(timeout=5, tries=1) for client in clients)
    assert site.daemon.cli("status")["healthy"]
