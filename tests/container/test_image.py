# SPDX-License-Identifier: Apache-2.0
"""The image as docs/container.md runs it: clients on 500 and 4500 with the host's network, whatever dies or restarts."""
import os
import signal
import time

import pytest
from containers import CAPABILITIES, Container, await_dead, options
from homeport import cells, parse, wait_for

GROUP = {"aovpn": {"plugin": "match_across_services"}}
NOBODY = 65534
MASKED = ("/usr/bin/dash", "/usr/bin/bash")  # what the base has of shells


@pytest.fixture
def start(podman, host):
    """Starts the image on the host's configuration; returns the container when it is ready."""
    def begin(*more, persistence=None, profile="aovpn", changes=None, **how):
        host.write(host.config(persistence or GROUP, profile, **(changes or {})))
        host.daemon = Container(podman, *options(host, *more, **how))
        return host.daemon.wait_ready()
    return begin


def connected(host, count):
    clients = [host.client() for _ in range(count)]
    for client in clients:
        assert client.connect(), f"{client.address} did not connect"
    return {client: host.server_of(client, "auth") for client in clients}


def all_at_home(host, homes):
    for client, home in homes.items():
        assert client.informational() and host.servers_of(client, "informational") == [home]


def again(podman, host, *more, **how):
    """The next container on the same state and configuration."""
    host.daemon.abandon()
    host.daemon = Container(podman, *options(host, *more, **how))
    return host.daemon.wait_ready()


def test_image_adds_thirty_megabytes_at_most_to_its_base(podman):
    size, base = (int(podman.podman("image", "inspect", "-f", "{{.Size}}", name))
                  for name in ("homeport", "localhost/homeport-base:bookworm"))
    print(f"{(size - base) / 1e6:.1f} MB over its base of {base / 1e6:.0f} MB")
    assert 0 < size - base <= 30_000_000


def test_image_holds_no_build_tools_and_no_package_lists(podman):
    folder = podman.podman("image", "mount", "homeport")
    unwanted = ("cc", "gcc", "ninja", "meson", "plugin.h", "*.a", "*_Packages*", "*.deb")
    names = podman.run("find", folder, "-xdev", "!", "-type", "d", "(", "-false",
                       *(word for name in unwanted for word in ("-o", "-name", name)), ")")
    assert names.stdout == ""
    podman.podman("image", "umount", "homeport")


def test_clients_come_home_on_500_and_4500_and_workers_are_the_user_homeport_without_capabilities(start, host):
    start()
    homes = connected(host, 12)
    assert sorted(list(homes.values()).count(name) for name in host.names) == [4, 4, 4]
    for pid in host.daemon.children():
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert set(fields["Uid"].split()) == {"450"} and fields["NoNewPrivs"] == "1"
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(fields[name], 16) == 0, f"{name} of {pid} is {fields[name]}"


def test_runs_without_a_shell_in_the_image(start, host):
    start(*(f"--volume=/dev/null:{path}:ro" for path in MASKED))
    all_at_home(host, connected(host, 3))
    host.daemon.reload()
    assert host.daemon.healthy()


def test_killed_worker_is_replaced_with_the_same_servers_and_source_ports(start, host):
    start()
    homes = connected(host, 12)
    before = cells(host)
    for dead in host.daemon.workers():
        os.kill(dead, signal.SIGKILL)
        wait_for(lambda gone=dead: gone not in host.daemon.workers() and len(host.daemon.workers()) == 2,
                 what="the replacement of a worker")
    all_at_home(host, homes)
    assert cells(host) == before


def test_sighup_reloads(start, host, podman):
    start()
    homes = connected(host, 3)
    place = host.daemon.mark()
    host.write(host.config(GROUP, "aovpn", workers=1))
    podman.podman("kill", "--signal=HUP", host.daemon.name)
    host.daemon.wait_log("reloaded: 1 workers", after=place)
    all_at_home(host, homes)


def test_a_configuration_that_is_wrong_changes_nothing(start, host):
    start()
    homes = connected(host, 3)
    host.write("workerz: 3\n")
    result = host.daemon.cli("reload", json=False, status=None)
    assert result.returncode == 1 and "/etc/homeport/homeport.yaml:1:1" in result.stderr
    all_at_home(host, homes)


def test_sigterm_ends_in_order_within_the_grace_time(start, host):
    start()
    connected(host, 3)
    pids = [host.daemon.init(), *host.daemon.children()]
    host.daemon.stop()
    await_dead(pids)
    assert host.daemon.wait_log("stopped")


def test_a_volume_of_type_tmpfs_is_gone_when_the_container_has_stopped(start, host, podman):
    """Why the page wants a folder of the host."""
    podman.podman("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=mode=0755", "memory")
    start("--volume=memory:/run/homeport", state=False)
    connected(host, 3)
    podman.podman("stop", host.daemon.name)
    again(podman, host, "--volume=memory:/run/homeport", state=False)
    assert cells(host) == {}
    host.daemon.stop()
    podman.podman("volume", "rm", "memory")


def test_in_a_run_that_everybody_may_write_it_makes_a_folder_of_its_own(start, host):
    """As an emptyDir of Kubernetes is."""
    start("--tmpfs=/run:mode=0777", state=False)
    all_at_home(host, connected(host, 3))


@pytest.mark.parametrize("way", ["stop", "kill", "restart"])
def test_no_client_moves_when_the_container_is_started_again(start, host, podman, way):
    start()
    homes = connected(host, 12)
    before = cells(host)
    pids = [host.daemon.init(), *host.daemon.children()]
    if way == "restart":
        began = time.monotonic()
        podman.podman("restart", host.daemon.name)
        assert next(iter(homes)).informational(timeout=10.0, tries=100)
        print(f"podman restart, until the first client is answered: {1000 * (time.monotonic() - began):.0f} ms")
    else:
        podman.podman(*{"stop": ["stop"], "kill": ["kill", "--signal=KILL"]}[way], host.daemon.name)
        again(podman, host)
    await_dead(pids)  # when process 1 dies, all die
    all_at_home(host, homes)
    assert cells(host) == before


def test_a_stopped_worker_is_unhealthy_within_ten_seconds_until_it_goes_on(start, host):
    start()
    wait_for(lambda: host.daemon.healthy(), what="a healthy container")
    worker = host.daemon.workers()[0]
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_for(lambda: not host.daemon.healthy(), 50, "the health check's failure")
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_for(lambda: host.daemon.healthy(), what="a healthy container")


def test_health_check_of_the_image_asks_often_enough_for_that(podman):
    """Five seconds without a turn of the loop, then the next look: in nanoseconds."""
    check = parse(podman.podman("image", "inspect", "-f", "{{json .HealthCheck}}", "homeport"))
    assert check["Test"] == ["CMD", "/usr/bin/homeport", "status"] and check["Retries"] == 1
    assert 5_000_000_000 + check["Interval"] < 10_000_000_000
    assert check["Timeout"] > 5_000_000_000, "long enough for what status says of a monitor that hangs"


def test_a_stopped_monitor_is_unhealthy(start, host):
    start()
    monitor = host.daemon.monitor()
    os.kill(monitor, signal.SIGSTOP)
    try:
        assert not host.daemon.healthy()
    finally:
        os.kill(monitor, signal.SIGCONT)


def test_as_another_user_without_any_capability_on_high_ports(start, host, podman):
    state = os.path.join(host.folder, "state")
    os.mkdir(state, 0o750)
    os.chown(state, NOBODY, NOBODY)
    host.ike_port, host.natt_port = 30500, 34500
    for one in host.responders.values():
        one.close()
        one.ports = [30500, 34500]
        one.open()
    start(f"--user={NOBODY}:{NOBODY}", capabilities=())
    homes = connected(host, 6)
    with open(f"/proc/{host.daemon.init()}/status", encoding="ascii") as file:
        assert "CapEff:\t0000000000000000" in file.read()
    host.daemon.reload()
    assert host.daemon.healthy()
    all_at_home(host, homes)


def test_without_kill_a_notice_says_what_is_lost(start, host):
    start(capabilities=[one for one in CAPABILITIES if one != "KILL"])
    assert host.daemon.wait_log("without the capability KILL")
    all_at_home(host, connected(host, 3))


def test_with_the_capabilities_that_are_not_needed_there_is_no_notice(start, host):
    start(capabilities=(*CAPABILITIES, "CHOWN", "SETPCAP", "NET_ADMIN"))
    connected(host, 1)
    assert "capability" not in host.daemon.log() and "receive buffer" not in host.daemon.log()
    assert os.stat(os.path.join(host.folder, "state", "control.sock")).st_gid == 450


def test_the_demo_runs_in_the_image_without_any_network(podman):
    result = podman.run("podman", "run", "--rm", "--network=none", "--read-only", "homeport", "demo", "--once")
    assert result.stdout.count("60           0") == 3, result.stdout
