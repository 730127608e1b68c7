# SPDX-License-Identifier: Apache-2.0
"""homeport under a service manager: what it tells one, and the shipped systemd unit with its snippets. No systemd runs
here: the tests do what it would do, with the files as they are installed."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from homeport import Daemon, ROOT, Site, binary, cells, connected, cli, wait_for
from netns import own_net
from service import NotifySocket, Unit, needs, one_file, run

GROUP = {"aovpn": {"plugin": "match_across_services"}}
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces, capabilities, other users")


def can_filter():
    result = subprocess.run(["/usr/bin/python3", "-c", "import seccomp"], capture_output=True, timeout=20, check=False)
    return result.returncode == 0


CONFINED = [ROOT_ONLY, needs("systemd-analyze", "setpriv", "ss"),
            pytest.mark.skipif(not can_filter(), reason="python3-seccomp is not installed: see packages.txt")]


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=2) as site:
        yield site


@pytest.fixture(name="unit")
def fixture_unit(installed):
    return Unit(one_file(installed, "lib/systemd/system/homeport.service"))


def break_file(site):
    """A file with an error; who reads no more of it than the state folder still finds that."""
    site.write(f"workerz: 3\nstate: {os.path.join(site.folder, 'state')}\n")


# What a service manager is told

@pytest.fixture(name="manager", params=["path", "abstract"])
def fixture_manager(request, site):
    name = os.path.join(site.folder, "notify") if request.param == "path" else f"@homeport-test-{os.getpid()}"
    with NotifySocket(name) as manager:
        yield manager


def start(site, manager, **variables):
    site.write(site.config(GROUP, "aovpn"))
    site.daemon = Daemon(site.path, manager.environment(**variables))


def test_ready_is_said_when_the_daemon_serves_and_not_before(site, manager):
    start(site, manager)
    ready = manager.wait("READY")
    assert site.client().connect(), "served at once"
    assert cli("status", "-c", site.path)["healthy"]
    assert ready["STATUS"] == "ready: 2 workers, 8 lanes, 2 listening addresses"
    assert manager.states() == ["READY"]


def test_a_reload_is_told_from_its_beginning_to_its_end(site, manager):
    start(site, manager)
    manager.wait("READY")
    before = time.monotonic()
    assert site.daemon.reload() == "reloaded\n"
    reloading, ready = manager.wait("RELOADING"), manager.wait("READY")
    assert before <= int(reloading["MONOTONIC_USEC"]) / 1e6 <= reloading.time
    assert ready["STATUS"].startswith("reloaded: 2 workers")
    print(f"from RELOADING to READY: {1000 * (ready.time - int(reloading['MONOTONIC_USEC']) / 1e6):.0f} ms")


def test_a_refused_reload_ends_in_ready_too_and_says_why(site, manager):
    start(site, manager)
    manager.wait("READY")
    break_file(site)
    site.daemon.cli("reload", json=False, status=1)
    manager.wait("RELOADING")
    assert manager.wait("READY")["STATUS"] == "reload refused, everything runs on: the configuration has errors"
    os.unlink(site.path)
    site.daemon.process.send_signal(signal.SIGHUP)
    manager.wait("RELOADING")
    assert site.path in manager.wait("READY")["STATUS"]
    site.write(site.config(GROUP, "aovpn"))
    site.daemon.reload()
    assert manager.wait("READY")["STATUS"].startswith("reloaded")


def test_two_reloads_at_once_are_told_as_two(site, manager):
    start(site, manager)
    manager.wait("READY")
    for _ in range(2):
        site.daemon.process.send_signal(signal.SIGHUP)
        manager.wait("RELOADING")
        site.daemon.process.send_signal(signal.SIGHUP)  # while it is under way: once more afterwards
        manager.wait("READY")
    manager.wait("READY")
    assert manager.states()[:5] == ["READY", "RELOADING", "READY", "RELOADING", "READY"]


def test_stopping_is_said_before_anything_ends(site, manager):
    start(site, manager)
    manager.wait("READY")
    worker = site.daemon.workers()[0]
    os.kill(worker, signal.SIGSTOP)
    site.daemon.process.send_signal(signal.SIGTERM)
    manager.wait("STOPPING")
    assert site.daemon.process.poll() is None
    os.kill(worker, signal.SIGCONT)
    site.daemon.stop()
    assert manager.states() == ["READY", "STOPPING"]


def test_a_start_that_fails_never_says_ready_and_says_why(site, manager):
    break_file(site)
    site.daemon = Daemon(site.path, manager.environment())
    assert manager.wait("STOPPING")["STATUS"] == "the configuration has errors"
    assert site.daemon.process.wait(10) == 1
    site.daemon.abandon()
    site.daemon = None
    assert "READY" not in manager.states()


def test_the_watchdog_is_pinged_at_half_of_its_time_unless_the_master_is_stopped(site, manager):
    start(site, manager, WATCHDOG_USEC="1000000")
    manager.wait("READY")
    last = manager.wait("WATCHDOG").time
    for _ in range(5):
        ping = manager.wait("WATCHDOG", timeout=5 * 0.5)
        assert ping.time - last < 5 * 0.5
        last = ping.time
    site.daemon.process.send_signal(signal.SIGSTOP)
    while manager.receive(0.05):  # what was on its way
        pass
    assert manager.receive(5 * 0.5) is None, "no ping of a master that is stopped, though its workers run"
    site.daemon.process.send_signal(signal.SIGCONT)
    manager.wait("WATCHDOG", timeout=5 * 0.5)


def test_the_watchdog_of_another_process_is_not_pinged(site, manager):
    start(site, manager, WATCHDOG_USEC="200000", WATCHDOG_PID=str(os.getpid()))
    manager.wait("READY")
    assert manager.receive(1.0) is None


def test_nothing_comes_from_children_and_they_know_nothing_of_the_manager(site, manager):
    start(site, manager, WATCHDOG_USEC="400000")
    manager.wait("READY")
    for pid in site.daemon.children():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"NOTIFY" not in environment and b"WATCHDOG" not in environment
    site.daemon.kill(site.daemon.workers()[0])
    wait_for(lambda: len(site.daemon.workers()) == 2, what="the replacement of a worker")
    run([binary(), "reload", "-c", site.path], env={**os.environ, **manager.environment()})
    manager.wait("RELOADING")
    manager.wait("READY")
    site.daemon.stop()
    manager.wait("STOPPING")
    assert {message.pid for message in manager.seen} == {site.daemon.process.pid}


@pytest.mark.parametrize("name", ["/nowhere/notify", "@nobody-listens-here", "vsock:2:1234", "relative",
                                  "@" + "x" * 200, ""])
def test_a_manager_that_cannot_be_reached_costs_one_line_of_the_log(site, name):
    site.start(GROUP, "aovpn", environment={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"})
    connected(site, 1)
    site.daemon.reload()
    site.daemon.stop()
    assert len([line for line in site.daemon.lines if "NOTIFY_SOCKET" in line]) == 1


def test_a_manager_that_does_not_read_stops_nothing_and_learns_the_last_state_later(site, manager):
    start(site, manager, WATCHDOG_USEC="200000")
    site.daemon.wait_ready()
    for _ in range(20):  # more than a queue holds
        site.daemon.reload()
    connected(site, 1)
    held = []
    while (message := manager.receive(0)) is not None:
        held.append(message)
    assert 0 < len(held) < 40, "its queue was full"
    wait_for(lambda: manager.receive(1.0) and manager.states()[-1] == "READY", what="the last state")


# The unit, as systemd would use it

def start_service(site, unit, **options):
    """ExecStart= with Type=notify."""
    assert unit.one("Type") == "notify"
    site.manager = NotifySocket(f"@homeport-unit-{os.urandom(8).hex()}")
    command = unit.command("ExecStart", site.path)
    assert command[1:] == ["run", "-c", site.path]
    site.daemon = Daemon(site.path, site.manager.environment(), command=command[:1], **options)
    site.manager.wait("READY")


def stop_service(site, unit):
    return run(unit.command("ExecStop", site.path))


def test_exec_reload_waits_for_the_outcome_and_fails_with_a_bad_file(site, unit):
    site.write(site.config(GROUP, "aovpn"))
    start_service(site, unit)
    client = connected(site, 1)[0]
    old = site.daemon.workers()
    reload = unit.command("ExecReload", site.path)
    run(reload)
    wait_for(lambda: not set(old) & set(site.daemon.workers()), what="the end of the old workers")
    break_file(site)
    assert "workerz" in run(reload, status=1).stderr
    assert client.informational()


@pytest.mark.parametrize("stopped", ["nobody", "a worker", "the monitor", "the master"])
def test_exec_stop_ends_all_and_returns_when_they_have_gone(site, unit, stopped):
    site.write(site.config(GROUP, "aovpn"))
    start_service(site, unit)
    connected(site, 1)
    pid = site.daemon.process.pid
    victims = {"a worker": site.daemon.workers()[0], "the monitor": site.daemon.monitor(), "the master": pid}
    victim = victims.get(stopped)
    if victim:
        os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    stop_service(site, unit)
    took = time.monotonic() - began
    assert took < int(unit.one("TimeoutStopSec"))
    if stopped == "the master":
        assert site.daemon.process.wait(5) == -signal.SIGKILL
        wait_for(lambda: not site.daemon.alive(), what="the end of the processes of a killed master")
    else:
        assert site.daemon.process.wait(5) == 0
        assert not site.daemon.alive(), "nobody is left when it returns"
    site.daemon.abandon()
    site.daemon = None


def test_stop_without_a_daemon_is_done_already(site):
    site.write(site.config(GROUP, "aovpn"))
    run([binary(), "stop", "-c", site.path])
    site.start(GROUP, "aovpn")
    site.daemon.stop()
    run([binary(), "stop", "-c", site.path])


@ROOT_ONLY
def test_stop_by_a_stranger_is_refused_with_a_reason(site):
    site.start(GROUP, "aovpn")
    result = run([binary(), "stop", "-c", site.path], status=1, user=65534, group=65534, extra_groups=[])
    assert result.stderr.startswith("homeport stop: ") and "only root and the daemon's own user" in result.stderr
    assert site.daemon.process.poll() is None


def test_a_killed_master_and_the_restart_that_systemd_makes_cost_no_client_its_server_or_port(site, unit):
    assert (unit.one("Restart"), unit.one("RestartSec"), unit.one("KillMode")) == ("always", "100ms", "process")
    site.write(site.config(GROUP, "aovpn"))
    start_service(site, unit)
    clients = connected(site, 8)
    homes = [site.server_of(client, "auth") for client in clients]
    before = cells(site)
    for _ in range(2):
        began = time.monotonic()
        site.daemon.process.kill()
        site.daemon.process.wait(5)
        killed, site.daemon = site.daemon, None
        for client in clients:
            assert client.informational(tries=1), "its processes serve on"
        time.sleep(0.1)  # RestartSec=
        start_service(site, unit)
        print(f"from the death of the master to READY: {1000 * (time.monotonic() - began):.0f} ms")
        wait_for(lambda: not killed.alive(), 10, "the end of those that have been taken over")
        killed.abandon()
        for client, home in zip(clients, homes):
            assert client.informational() and site.servers_of(client, "informational") == [home]
        assert cells(site) == before


# The unit's restrictions, really enforced

def state_folder(site):
    """As tmpfiles.d makes it."""
    folder = os.path.join(site.folder, "state")
    os.makedirs(folder, exist_ok=True)
    os.chown(folder, 0, 65534)
    os.chmod(folder, 0o750)
    return folder


def confined(*marks):
    def decorate(test):
        for mark in (*CONFINED, *marks):
            test = mark(test)
        return test
    return decorate


@confined()
def test_the_restrictions_of_these_tests_restrict(unit, tmp_path):
    """Else the tests below would say nothing."""
    prefix = unit.confined(str(tmp_path))

    def tries(program):
        result = run([*prefix, "/usr/bin/python3", "-c", f"import os, socket, mmap, ctypes\n{program}"], status=None)
        return "fine" if result.returncode == 0 else result.stderr.strip().splitlines()[-1]

    assert tries(f"open({str(tmp_path / 'file')!r}, 'w')") == "fine"
    assert "Read-only file system" in tries("open('/tmp/homeport-test', 'w')")
    assert "Read-only file system" in tries("open('/proc/sys/net/ipv4/ip_forward', 'w')")
    assert "Address family not supported" in tries("socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)")
    assert "Operation not permitted" in tries("os.sched_setaffinity(0, [0])")
    assert "Operation not permitted" in tries("mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)")
    assert "Operation not permitted" in tries("os.chroot('/')")
    assert "Permission denied" in tries(f"os.chown({str(tmp_path)!r}, 65534, 0); open({str(tmp_path / 'mine')!r}, 'w')")
    assert "No such file" in tries("os.setgid(65534); os.setuid(65534); open('/proc/1/stat')")


def has_given_up_everything(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return False  # has ended
    return bool(re.search(r"CapBnd:\t0+\n", status)) and "Uid:\t65534\t65534" in status


@confined()
def test_the_daemon_lives_under_the_restrictions_of_its_unit(site, unit):
    site.write(site.config(GROUP, "aovpn"))
    prefix = unit.confined(state_folder(site))
    start_service(site, unit, prefix=prefix)
    pid = site.daemon.process.pid
    status = dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{pid}/status").read_text("ascii")))
    assert bin(int(status["CapEff"], 16)).count("1") == len(unit.capabilities())
    assert status["CapEff"] == status["CapBnd"]
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    limit = re.search(r"Max open files\s+(\d+)", Path(f"/proc/{pid}/limits").read_text("ascii"))[1]
    print(f"LimitNOFILE= as far as this machine allows: {limit}")
    allowed = min(4 << 20, int(Path("/proc/sys/net/core/rmem_max").read_text("ascii")))
    buffers = run(["ss", "-Hluanm", f"src {site.vip}:{site.ike_port}"]).stdout
    assert set(re.findall(r",rb(\d+)", buffers)) == {str(2 * allowed)}, "rmem_max does what NET_ADMIN would do"

    clients = connected(site, 8)
    homes = [site.server_of(client, "auth") for client in clients]
    before = cells(site)
    reload = [*prefix, *unit.command("ExecReload", site.path)]
    run(reload)
    wait_for(lambda: len(site.daemon.workers()) == 2, what="the end of the old workers")
    killed = site.daemon.workers()
    for worker in killed:
        site.daemon.kill(worker)
    wait_for(lambda: len(replaced := set(site.daemon.workers()) - set(killed)) == len(killed)
             and all(map(has_given_up_everything, replaced)), what="new workers without root and capabilities")
    for client, home in zip(clients, homes):
        assert client.informational() and site.servers_of(client, "informational") == [home]
    assert cells(site) == before
    break_file(site)
    run(reload, status=1)
    site.write(site.config(GROUP, "aovpn"))
    connected(site, 2)

    os.kill(site.daemon.workers()[0], signal.SIGSTOP)  # to end it takes CAP_KILL
    run([*prefix, *unit.command("ExecStop", site.path)])
    assert site.daemon.process.wait(5) == 0 and not site.daemon.alive()
    assert not re.search(r"cannot|not permitted|denied|Read-only", site.daemon.log()), site.daemon.log()
    site.daemon.abandon()
    site.daemon = None


@confined(needs("sysctl"))
def test_check_sees_boot_ports_and_addresses_under_the_restrictions(site, unit):
    """boot_id, ip_local_port_range and netlink are not hidden: what would warn outside warns inside."""
    with own_net():
        run(["sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=10000 30000"])
        services = {"ike": {"listen": "192.0.2.77:500"}}
        site.write(site.config(GROUP, "aovpn", services=services))
        said = run([*unit.confined(state_folder(site)), binary(), "check", site.path], status=0).stderr
    assert "ip_local_reserved_ports=" in said
    assert "192.0.2.77 is not an address of this machine" in said and site.vip + " is not" not in said


def attempt(site, unit, without, **changes):
    """Starts the daemon with one capability less; returns what it says when it ends, or None when it gets ready."""
    site.write(site.config(GROUP, "aovpn", **changes))
    prefix = unit.confined(os.path.dirname(state_folder(site)), without)
    daemon = Daemon(site.path, prefix=prefix)
    with contextlib.suppress(AssertionError):
        daemon.wait_ready()
        site.daemon = daemon
        return None
    assert daemon.process.wait(10) == 1
    daemon.abandon()
    return daemon.log()


@confined()
@pytest.mark.parametrize("capability, cause", [
    ("net_bind_service", r"cannot bind 127\.\S+:500: Permission denied"),
    ("setuid", "cannot become user"), ("setgid", "cannot become user")])
def test_without_a_capability_the_start_fails_and_says_so(site, unit, capability, cause):
    services = {"ike": {"listen": f"{site.vip}:500"}}
    with own_net():
        said = attempt(site, unit, [capability], services=services)
        assert said is not None and re.search(cause, said), said
        assert attempt(site, unit, [], services=services) is None, "with it, all is well"
        site.daemon.stop()
        site.daemon = None


@confined()
def test_without_kill_a_process_that_hangs_is_never_ended(site, unit):
    assert attempt(site, unit, ["kill"]) is None
    worker = site.daemon.workers()[0]
    os.kill(worker, signal.SIGSTOP)
    site.daemon.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        site.daemon.process.wait(5)  # the master waits 3 s before it kills
    os.kill(worker, signal.SIGKILL)
    site.daemon.stop()
    site.daemon = None


@confined()
def test_without_chown_only_root_may_ask_and_a_notice_says_so(site, unit):
    assert attempt(site, unit, ["chown"]) is None
    site.daemon.wait_log("without the capability CHOWN only root")
    assert Path(site.folder, "state", "control.sock").stat().st_gid == 0
    connected(site, 2)
    site.daemon.reload()


@confined()
def test_without_setpcap_workers_keep_a_bounding_set_and_all_works(site, unit):
    assert attempt(site, unit, ["setpcap"]) is None
    status = Path(f"/proc/{site.daemon.workers()[0]}/status").read_text("ascii")
    assert re.search(r"CapEff:\t0+\n", status) and not re.search(r"CapBnd:\t0+\n", status)
    connected(site, 2)


# What systemd's own tools say

@pytest.fixture(name="checkable")
def fixture_checkable(unit, tmp_path):
    """The unit with a binary that is there: systemd-analyze looks for it."""
    path = tmp_path / "homeport.service"
    path.write_text(re.sub(r"(?m)^(Exec\w+=)\S+", rf"\1{binary()}", Path(unit.path).read_text("utf-8")))
    return path


@needs("systemd-analyze")
def test_systemd_finds_nothing_to_say_about_the_unit(checkable):
    result = run(["systemd-analyze", "verify", "--man=no", checkable])
    assert result.stdout + result.stderr == ""
    checkable.write_text(checkable.read_text("utf-8").replace("WatchdogSec=", "WatchdogSecs="))
    result = run(["systemd-analyze", "verify", "--man=no", checkable], status=None)
    assert "WatchdogSecs" in result.stdout + result.stderr, "it would have said so"


@needs("systemd-analyze")
def test_the_units_exposure_is_at_most_2_5(checkable):
    said = run(["systemd-analyze", "security", "--offline=yes", "--threshold=25", "--no-pager", checkable]).stdout
    print(said.strip().splitlines()[-1])


@ROOT_ONLY
@needs("systemd-sysusers", "systemd-tmpfiles")
def test_user_and_state_folder_are_made_as_the_daemon_wants_them(installed, tmp_path):
    root = tmp_path / "root"
    for folder in ("etc", "run"):
        (root / folder).mkdir(parents=True)
    users, folders = one_file(installed, "sysusers.d/homeport.conf"), one_file(installed, "tmpfiles.d/homeport.conf")
    for path, place in ((users, "usr/lib/sysusers.d"), (folders, "usr/lib/tmpfiles.d")):
        (root / place).mkdir(parents=True)
        shutil.copy(path, root / place)
    said = run(["systemd-sysusers", f"--root={root}", "homeport.conf"])
    user = next(line for line in (root / "etc/passwd").read_text("utf-8").splitlines() if line.startswith("homeport:"))
    _, _, uid, gid, _, _, shell = user.split(":")
    assert 0 < int(uid) < 1000 and shell.endswith("nologin"), said
    said = run(["systemd-tmpfiles", "--create", f"--root={root}", "homeport.conf"])
    assert said.stderr == ""
    state = (root / "run/homeport").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (0, int(gid), 0o750)


def test_the_unit_its_folder_and_the_daemons_defaults_name_the_same_places(unit, installed):
    assert unit.one("ReadWritePaths") == "/run/homeport"
    assert "d /run/homeport 0750 root homeport -" in one_file(installed, "tmpfiles.d/homeport.conf").read_text("utf-8")
    assert "u homeport " in one_file(installed, "sysusers.d/homeport.conf").read_text("utf-8")
    assert unit.one("ExecStart").split()[1:] == ["run"], "of /etc/homeport/homeport.yaml"


@ROOT_ONLY
@needs("sysctl")
def test_reserved_ports_are_those_that_check_asks_for(site, installed):
    """In a network namespace: there the kernel would give our ports to anybody, until the snippet is loaded."""
    snippet = one_file(installed, "sysctl.d/50-homeport.conf")
    lines = [line for line in snippet.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    values = dict(re.fullmatch(r"([a-z0-9_.]+) = (\S+)", line).groups() for line in lines)
    assert sorted(values) == ["net.core.rmem_max", "net.core.wmem_max", "net.ipv4.ip_local_reserved_ports"]
    for name in values:
        assert os.path.exists("/proc/sys/" + name.replace(".", "/")), name
    assert int(values["net.core.rmem_max"]) == int(values["net.core.wmem_max"]) == 4 << 20, "what listeners ask for"
    site.write(site.config(GROUP, "aovpn", sessions={"ports": None}))  # the default range
    ports = Path(site.folder, "ports.conf")
    ports.write_text("".join(f"{line}\n" for line in lines if "ip_local" in line), encoding="utf-8")
    with own_net():
        run(["sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=10000 40000"])
        warned = run([binary(), "check", site.path]).stderr
        assert f"net.ipv4.ip_local_reserved_ports={values['net.ipv4.ip_local_reserved_ports']}" in warned
        run(["sysctl", "-q", "-p", ports])
        assert "ip_local_reserved_ports" not in run([binary(), "check", site.path]).stderr
