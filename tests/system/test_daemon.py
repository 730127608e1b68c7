# SPDX-License-Identifier: Apache-2.0
"""Processes: start, stop, respawn, reload, restart, as a user sees them."""
import os
import signal
import subprocess
import time

import pytest
from homeport import Daemon, Site, binary, cells, connected, descriptors, parse, processes, wait_for

GROUP = {"aovpn": {"plugin": "match_across_services"}}


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=3) as site:
        yield site


def at_home(site, client, server):
    """The client's IKE_SA is answered, and only its own server has seen it."""
    return client.informational() and site.servers_of(client, "informational") == [server]


def test_sixty_clients_over_three_servers_and_two_workers_are_twenty_each(site):
    site.start(GROUP, "aovpn")
    for client in connected(site, 60):
        assert site.server_of(client, "init") == site.server_of(client, "auth")
    counts = [len({seen.spi_i for seen in one.of_kind("auth")}) for one in site.responders.values()]
    assert counts == [20, 20, 20]


def test_sigterm_ends_everything_and_the_next_start_finds_records_sessions_and_ports(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 12)
    homes = [site.server_of(client, "auth") for client in clients]
    before = cells(site)
    site.restart()
    assert cells(site) == before
    for client, home in zip(clients, homes):
        assert at_home(site, client, home)
    assert cells(site) == before


def test_killed_workers_are_replaced_and_go_on_with_the_same_server_and_source_port(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 12)
    homes = [site.server_of(client, "auth") for client in clients]
    before = cells(site)
    for _ in range(3):
        for pid in site.daemon.workers():
            site.daemon.kill(pid)
            wait_for(lambda dead=pid: dead not in site.daemon.workers() and len(site.daemon.workers()) == 2,
                     what="the replacement of a worker")
        for client, home in zip(clients, homes):
            assert at_home(site, client, home)
    assert cells(site) == before


def kill_workers(site):
    """All at once; the master, who is stopped meanwhile, replaces them as soon as it goes on."""
    site.daemon.kill(site.daemon.process.pid, signal.SIGSTOP)
    for pid in site.daemon.workers():
        site.daemon.kill(pid)
        wait_for(lambda dead=pid: dead not in site.daemon.alive(), what="a worker's death")


def by_number(site):
    """Pids of the workers. One may be missing: then the status is not that of a healthy homeport."""
    said = parse(site.daemon.cli("status", status=None).stdout)
    return {one["number"]: one["pid"] for one in said["processes"] if one["role"] == "worker" and one["pid"] > 0}


def test_the_spare_worker_takes_the_place_of_one_that_dies_and_another_spare_one_comes(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 6)
    before = cells(site)
    for number in (1, 0, 1):
        spare, workers = site.daemon.await_spare(), by_number(site)
        site.daemon.kill(workers[number])
        wait_for(lambda at=number, pid=spare: by_number(site).get(at) == pid, 10, "the spare worker at its place")
        for client in clients:
            assert client.informational() and client.esp()
        assert by_number(site) == {**workers, number: spare}
        assert spare in site.daemon.workers(), "its command line says its number"
        assert site.daemon.cli("status", json=False)
    assert cells(site) == before


def test_two_workers_that_die_at_once_are_both_replaced(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 6)
    before, spare = cells(site), site.daemon.await_spare()
    kill_workers(site)
    site.daemon.kill(site.daemon.process.pid, signal.SIGCONT)
    for client in clients:
        assert client.informational() and client.esp()
    assert cells(site) == before
    assert spare in by_number(site).values() and len(by_number(site)) == 2


def test_a_spare_worker_that_dies_or_hangs_costs_nobody_anything(site):
    site.start(GROUP, "aovpn")
    client = connected(site, 1)[0]
    first = site.daemon.await_spare()
    site.daemon.kill(first)
    wait_for(lambda: site.daemon.await_spare() != first, 10, "another spare worker")  # the master has to see it die
    assert client.informational()
    site.daemon.kill(site.daemon.await_spare(), signal.SIGSTOP)
    assert site.daemon.cli("status")["healthy"] and client.informational()
    site.daemon.reload()
    wait_for(lambda: site.daemon.await_spare() in site.daemon.children("spare"), 10, "the spare worker of the reload")
    kill_workers(site)
    site.daemon.kill(site.daemon.process.pid, signal.SIGCONT)
    assert client.informational()


def test_the_dead_are_taken_out_of_the_process_table_when_their_places_are_filled(site):
    site.start(GROUP, "aovpn")
    client, master = connected(site, 1)[0], site.daemon.process.pid
    dead = lambda: [pid for pid, fields, _ in processes() if int(fields[1]) == master and fields[0] == "Z"]
    for _ in range(2):
        site.daemon.await_spare()
        kill_workers(site)
        site.daemon.kill(site.daemon.monitor())
        site.daemon.kill(master, signal.SIGCONT)
        assert client.informational()
        wait_for(lambda: not dead(), 10, "the end of the zombies")
        site.daemon.reload()
        wait_for(lambda: not dead(), 10, "the end of those that a reload has replaced")


@pytest.mark.parametrize("first", ["stop", "reload"])
def test_no_reload_begins_once_homeport_is_stopping(site, first):
    """It is asked for at the same moment; the monitor, which passes it on, is late."""
    daemon = site.start(GROUP, "aovpn") or site.daemon
    monitor = daemon.monitor()
    daemon.kill(monitor, signal.SIGSTOP)
    asked = subprocess.Popen([binary(), "reload", "-c", site.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if first == "stop":
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_log("stopping: SIGTERM")
    daemon.kill(monitor, signal.SIGCONT)
    if first == "reload":
        daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(20) == 0
    asked.wait(20)
    stopping = daemon.log().index("stopping: SIGTERM")
    assert "reloaded" not in daemon.log()[stopping:] and not daemon.alive()


def test_what_servers_send_while_no_worker_lives_waits_for_the_next(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 6)
    homes = [site.responders[site.server_of(client, "auth")] for client in clients]
    kill_workers(site)
    for client, home in zip(clients, homes):
        cell = home.of_kind("auth", client.spi_i)[-1].source
        client.waits = client.spi_r[:4] + os.urandom(60)
        with home.lock:
            home.sockets[site.natt_port].sendto(client.waits, cell)
    site.daemon.kill(site.daemon.process.pid, signal.SIGCONT)
    for client in clients:
        assert client.await_esp(client.waits), f"{client.address} has lost what its server sent"


def test_where_the_keepers_are_killed_too_servers_and_ports_stay(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 6)
    before = cells(site)
    site.daemon.await_spare()
    keepers = site.daemon.keepers()
    assert len(keepers) == len(site.daemon.workers() + site.daemon.children("spare")) == 3
    for pid in keepers:
        site.daemon.kill(pid)
    for client in clients:
        assert client.informational(), "nobody misses a keeper"
    kill_workers(site)
    site.daemon.kill(site.daemon.process.pid, signal.SIGCONT)
    for client in clients:
        assert client.informational() and client.esp()
    assert cells(site) == before


def test_a_datagram_that_waits_while_no_worker_lives_is_served_by_the_next(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 8)
    homes = [site.server_of(client, "auth") for client in clients]
    for pid in site.daemon.workers():
        site.daemon.kill(pid)
    for client in clients:
        client.send_esp()
    for client, home in zip(clients, homes):
        wait_for(lambda c=client, h=home: any(seen.data[:4] == c.spi_r[:4] for seen in
                                              site.responders[h].of_kind("esp")), what="the queued ESP")


def test_the_monitor_is_replaced_and_traffic_does_not_notice(site):
    site.start(GROUP, "aovpn")
    client = connected(site, 1)[0]
    old = site.daemon.monitor()
    site.daemon.kill(old)
    assert client.informational()
    wait_for(lambda: site.daemon.children("_monitor") not in ([], [old]), what="the next monitor")
    wait_for(lambda: site.daemon.cli("status", status=None).returncode == 0, what="a healthy status")


def test_reload_moves_nobody_and_closes_nothing(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 12)
    homes = [site.server_of(client, "auth") for client in clients]
    before = cells(site)
    for workers in (1, 3, 2):
        old = set(site.daemon.workers())
        site.write(site.config(GROUP, "aovpn", workers=workers))
        site.daemon.reload()
        wait_for(lambda gone=old: not gone & set(site.daemon.workers()), what="the end of the old workers")
        assert len(site.daemon.workers()) == workers
        for client, home in zip(clients, homes):
            assert at_home(site, client, home)
    assert cells(site) == before


def test_reload_under_load_loses_no_datagram(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 6)
    for _ in range(5):
        place = site.daemon.mark()
        site.daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while not any("reloaded" in line for line in site.daemon.log().splitlines()[place:]):
            assert time.monotonic() < deadline, "no reload"
            for client in clients:
                client.sent = client.send_esp(40)
            for client in clients:  # each is echoed by the server that has the IKE_SA
                assert client.await_esp(client.sent), f"{client.address} lost a datagram"


def test_a_bad_file_leaves_everything_as_it_is(site):
    site.start(GROUP, "aovpn")
    client = connected(site, 1)[0]
    before = site.daemon.children()
    site.write(site.config(GROUP, "aovpn", workers=2).__repr__() + "\nworkerz: 3\n")
    result = site.daemon.cli("reload", json=False, status=None)
    assert result.returncode != 0
    site.write(site.config({"aovpn": {"plugin": "no_such_plugin"}}, "aovpn"))
    result = site.daemon.cli("reload", json=False, status=1)
    assert site.daemon.children() == before
    os.unlink(site.path)
    place = site.daemon.mark()
    site.daemon.process.send_signal(signal.SIGHUP)
    site.daemon.wait_log("runs on", after=place)
    assert site.daemon.children() == before
    assert client.informational()


def test_sigterm_during_a_reload_ends_everything(site):
    site.start(GROUP, "aovpn")
    connected(site, 2)
    site.daemon.process.send_signal(signal.SIGHUP)
    site.daemon.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_more_signals_while_it_ends_change_nothing(site, number):
    site.start(GROUP, "aovpn")
    connected(site, 2)
    site.daemon.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while site.daemon.process.poll() is None:
        assert time.monotonic() < deadline, "it does not end"
        site.daemon.process.send_signal(number)
        time.sleep(0.0005)  # as fast as they can be sent, nobody gets further than to the end of their handler
    site.daemon.stop()
    assert not os.path.exists(os.path.join(site.folder, "state", "control.sock"))


def test_a_second_daemon_on_the_same_folder_is_refused_with_the_pid_of_the_first(site):
    site.start(GROUP, "aovpn")
    second = subprocess.run([binary(), "run", "-c", site.path], capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert str(site.daemon.process.pid) in second.stderr
    assert connected(site, 1)


def test_all_processes_killed_at_once_and_started_again_move_nobody(site):
    site.start(GROUP, "aovpn")
    clients = connected(site, 9)
    homes = [site.server_of(client, "auth") for client in clients]
    before = cells(site)
    for pid in [site.daemon.process.pid, *site.daemon.children()]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not site.daemon.alive(), what="the end of all")
    site.daemon.abandon()
    site.daemon = Daemon(site.path).wait_ready()
    for client, home in zip(clients, homes):
        assert at_home(site, client, home)
    assert cells(site) == before


def test_processes_are_unprivileged(site):
    if os.geteuid() != 0:
        pytest.skip("needs root: only then there is something to give up")
    site.start(GROUP, "aovpn")
    for pid in site.daemon.children():
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert set(fields["Uid"].split()) == {"65534"} and fields["Groups"].strip() == ""
        assert fields["NoNewPrivs"] == "1"
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(fields[name], 16) == 0, f"{name} of {pid} is {fields[name]}"


def test_nothing_is_left_over_after_many_kills(site):
    site.start(GROUP, "aovpn")
    for _ in range(10):
        site.daemon.kill(site.daemon.workers()[0])
        wait_for(lambda: len(site.daemon.workers()) == 2 and site.daemon.cli("status", status=None).returncode == 0,
                 what="a healthy daemon")
    before = descriptors(site.daemon.process.pid)
    for _ in range(5):
        site.daemon.kill(site.daemon.workers()[0])
        wait_for(lambda: len(site.daemon.workers()) == 2 and site.daemon.cli("status", status=None).returncode == 0,
                 what="a healthy daemon")
    wait_for(lambda: descriptors(site.daemon.process.pid) <= before, what="flat descriptors")
    assert not [pid for pid, fields, _ in processes() if int(fields[1]) == site.daemon.process.pid and fields[0] == "Z"]


def test_no_worker_can_cut_the_segment_under_the_others(site):
    site.start(GROUP, "aovpn")
    for pid in site.daemon.workers():
        folder = f"/proc/{pid}/fd"
        files = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
        assert files and not [file for file in files if file.endswith("/segment")]
