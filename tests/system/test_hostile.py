# SPDX-License-Identifier: Apache-2.0
"""A plugin that has been taken over: what it can reach with its process's descriptors harms nobody else."""
import os
import signal

import pytest
from homeport import Daemon, Site, processes, wait_for
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


# In create(): a process that lives until its worker has died, and then is nobody's child.
ORPHAN = """int ends[2]; char octet;
if (pipe(ends) == 0 && fork() == 0) { close(ends[1]); while (read(ends[0], &octet, 1) < 0); _exit(7); }"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a pid namespace of its own")
def test_what_a_plugin_leaves_behind_is_reaped_where_the_master_is_process_1(site):
    site.write(site.config(by(build(site, "ON_CREATE=" + ORPHAN.replace("\n", " "))), "home"))
    site.daemon = InOwnPids(site.path).wait_ready()
    for _ in range(3):
        worker = site.daemon.workers()[0]
        orphans = [pid for pid, fields, _ in processes() if int(fields[1]) == worker]
        assert orphans
        site.daemon.kill(worker)
        wait_for(lambda gone=[worker, *orphans]: not [pid for pid in gone if os.path.exists(f"/proc/{pid}")],
                 what="the end of the worker and of what it left behind, out of the process table")
        wait_for(lambda: len(site.daemon.workers()) == 2, what="the replacement of a worker")
    assert site.client().connect()


class InOwnPids(Daemon):
    """The master is process 1 of a pid namespace, as in a container."""

    def __init__(self, path):
        super().__init__(path, prefix=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])

    def children(self, role=None):
        (master,) = [pid for pid, fields, _ in processes() if int(fields[1]) == self.process.pid]
        return sorted(pid for pid, fields, command in processes()
                      if int(fields[1]) == master and (role is None or role in command))

    def stop(self, timeout=10.0, status=0):
        (master,) = [pid for pid, fields, _ in processes() if int(fields[1]) == self.process.pid]
        os.kill(master, signal.SIGTERM)
        self.process.wait(timeout)
        super().stop(timeout, status)
