# SPDX-License-Identifier: Apache-2.0
"""A plugin that has been taken over: what it can reach with its process's descriptors harms nobody else."""
import pytest
from homeport import Site, wait_for
from test_bad_start import build, by

GRAB = "for (int fd = 3; fd < 64; fd++) (void)!ftruncate(fd, 0)"


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=3) as site:
        yield site


def test_worker_that_truncates_all_it_holds_harms_neither_master_nor_segment(site):
    site.start(by(build(site, f"ON_KEY={GRAB}")), "home")
    clients = [site.client() for _ in range(6)]
    for client in clients:
        assert client.connect()
    homes = [site.server_of(client, "auth") for client in clients]
    assert site.daemon.cli("status", status=None).returncode == 0
    site.restart()
    for client, home in zip(clients, homes):
        assert client.informational() and site.servers_of(client, "informational") == [home]


def test_check_child_that_truncates_its_plan_ends_no_master(site):
    site.start({"home": {"plugin": "source_address"}}, "home")
    before = site.daemon.process.pid
    site.write(site.config(by(build(site, f"ON_CHECK={GRAB}")), "home"))
    site.daemon.cli("reload", json=False, status=None)
    wait_for(lambda: site.daemon.cli("status", status=None).returncode == 0, what="a healthy daemon")
    assert site.daemon.process.poll() is None and site.daemon.process.pid == before
    assert site.client().init()
