# SPDX-License-Identifier: Apache-2.0
"""Time that does strange things: the wall clock jumps, processes are stopped for long, alone and all together as in a
paused virtual machine, and the pid of one that has ended comes back as a stranger's. Nobody is taken for dead, hung or
alive who is not; no session ends, no record goes."""
import contextlib
import json
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import time

import pytest
from homeport import Daemon, Site, cells, cli, connected, wait_for
from test_bad_start import build, quarantined

# Those on the first port stay unproven: none ends within these tests.
LONG = {"sessions": {"idle": "120s", "idle_unproven": "120s"}}
GROUP = {"home": {"plugin": "match_across_services"}}
YEAR_S = 365 * 86400
PAUSE_S = 10.0  # longer than what the master allows a hand-over, or a process that was told to stop
TROUBLE = r"hung|killed|died|quarantined|ended with|not given|not taken"

# The wall clock alone is changed, by as much as a shared word says. Mapped before anything is sandboxed.
WALL_CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;

__attribute__((constructor)) static void map(void)
{
    int fd = open(getenv("WALL_CLOCK"), O_RDONLY | O_CLOEXEC);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);

    if (fd >= 0)
        close(fd);
    shift = at == MAP_FAILED ? NULL : at;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = (int)syscall(SYS_clock_gettime, clock, now);

    if (status == 0 && shift != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *shift;
    return status;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec fine;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &fine);
    *now = (struct timeval){.tv_sec = fine.tv_sec, .tv_usec = fine.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}
"""


def compiled(site, name, source, *arguments):
    path = os.path.join(site.folder, name)
    subprocess.run(["cc", "-x", "c", "-", "-o", path, *arguments], input=source, text=True, check=True, timeout=60)
    os.chmod(path, 0o755)
    return path


class WallClock:
    """Of a daemon that is started with environment()."""

    def __init__(self, site):
        self.library = compiled(site, "wall_clock.so", WALL_CLOCK, "-shared", "-fPIC")
        self.path = os.path.join(site.folder, "wall_clock")
        with open(self.path, "wb") as file:
            file.write(bytes(8))
        os.chmod(self.path, 0o644)
        with open(self.path, "r+b") as file:
            self.word = mmap.mmap(file.fileno(), 8)

    def environment(self):
        # AddressSanitizer minds that another library is loaded before it; this one calls nothing that it watches.
        sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        return {"LD_PRELOAD": self.library, "WALL_CLOCK": self.path, "ASAN_OPTIONS": sanitizer.lstrip(":")}

    def jump(self, seconds):
        self.word[:] = struct.pack("=q", seconds)

    def is_in(self, pid):
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
            return self.path + "\n" in maps.read()


def everybody(site):
    return [site.daemon.process.pid, *site.daemon.children()]


def records(site):
    return {(one["client"], one["server"]) for one in site.daemon.cli("affinity")["records"]}


def expect_no_trouble(site, after=0):
    with site.daemon.changed:
        trouble = [line for line in site.daemon.lines[after:] if re.search(TROUBLE, line)]
    assert not trouble, trouble


def logged_year(site):
    """Of a line that a reload writes now."""
    place = site.daemon.mark()
    site.daemon.reload()
    line = site.daemon.wait_log(r'.*"reloaded.*', after=place).group(0)
    return int(json.loads(line)["time"][:4])


def test_a_wall_clock_that_jumps_by_years_ends_nothing(site):
    clock = WallClock(site)
    site.start(GROUP, "home", environment=clock.environment(), log={"format": "json"}, **LONG)
    clients = connected(site, 6)
    before, known, year = cells(site), records(site), time.gmtime().tm_year
    assert all(clock.is_in(pid) for pid in everybody(site)), "not every process has the other clock"
    for years in (20, -30, 5, 0):
        pids = wait_for(lambda: len(everybody(site)) == 4 and everybody(site), 10, "the end of whom a reload replaced")
        clock.jump(years * YEAR_S)
        for client in clients:
            assert client.informational()
        time.sleep(1.2)  # a sweep of every row, a look of the watchdog, a recount
        assert everybody(site) == pids, "nobody was replaced"
        assert cells(site) == before and records(site) == known
        assert abs(logged_year(site) - (year + years)) <= 1, "the log tells the wall clock's time"
        assert connected(site, 1)[0].informational()
        before, known = cells(site), records(site)
    expect_no_trouble(site)


# Processes that are stopped.

def stop(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def wake(pids, order=None):
    pids = list(pids)
    (order or random).shuffle(pids)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
        time.sleep(random.uniform(0, 0.03))


def slow_site(stack):
    """Its plugin takes 0.7 s for a client whose address is odd."""
    site = stack.enter_context(Site(servers=2))
    plugin = build(site, "ON_KEY=if (IS_ODD(flow)) usleep(700000)")
    site.start({"home": {"plugin": plugin}}, "home", **LONG)
    return site


def plain_site(stack):
    site = stack.enter_context(Site(servers=2))
    site.start(GROUP, "home", **LONG)
    return site


def even_clients(site):
    return [site.client(number) for number in (0, 2, 4, 6)]


def odd(address):
    return int(address.rsplit(".", 1)[1]) % 2 == 1


def test_processes_that_were_stopped_are_neither_dead_nor_hung():
    """Four daemons in one pause: all of one stopped, in the middle of a call of a plugin; all of one, in the middle of a
    hand-over; the master alone; the workers alone, for 3 s."""
    with contextlib.ExitStack() as stack:
        whole, handing, headless, handless = slow_site(stack), *(plain_site(stack) for _ in range(3))
        sites = [whole, handing, headless, handless]
        clients = {}
        for site in sites:
            clients[site] = [one for one in even_clients(site) if not odd(one.address)]
            assert all(one.connect() for one in clients[site])
        pids, before = {site: everybody(site) for site in sites}, {site: cells(site) for site in sites}

        stop(headless.daemon.process.pid)
        stop(*handless.daemon.workers())
        slow = whole.client(1)
        assert odd(slow.address)
        slow.send_init()  # its worker is inside the plugin now
        holder, other = handing.daemon.workers()
        stop(holder)  # gives nothing
        with subprocess.Popen([*handing.daemon.command, "reload", "-c", handing.path], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as reload:
            wait_for(lambda: other not in handing.daemon.workers(), what="the hand-over by the other one")
            stop(*everybody(handing))
            stop(*pids[whole])
            begun = time.monotonic()
            time.sleep(3)
            wake(handless.daemon.workers())
            assert all(one.informational() for one in clients[handless])
            assert all(one.informational() for one in clients[headless]), "workers need no master"
            time.sleep(max(0.0, PAUSE_S - (time.monotonic() - begun)))
            wake(pids[whole])
            os.kill(handing.daemon.process.pid, signal.SIGCONT)  # and wakes up before those that it waits for
            time.sleep(0.3)
            wake(handing.daemon.children())
            os.kill(headless.daemon.process.pid, signal.SIGCONT)
            assert reload.wait(10) == 0, "the reload goes on"
        time.sleep(2.5)  # the watchdog looks twice
        for site in sites:
            expect_no_trouble(site)
            assert all(one.informational() for one in clients[site])
            if site is not handing:
                assert everybody(site) == pids[site], "nobody was replaced"
            assert before[site].items() <= cells(site).items(), "every session, at its server and port"
            assert quarantined(site) == []


# A pid that comes back.

STRANGER = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* stranger PID: a process of exactly that pid, which waits until this one is told to end it. */
int main(int argc, char **argv)
{
    pid_t pid = argc > 1 ? (pid_t)atoi(argv[1]) : 0, got;
    int tries = 500;
    struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};

    do /* as long as it is the number of a session or a group that is just ending */
        got = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    while (got < 0 && errno == EEXIST && tries-- > 0 && usleep(10000) == 0);
    if (got == 0)
        for (;;)
            pause();
    printf("%d\n", got);
    fflush(stdout);
    getchar();
    if (got > 0)
        kill(got, SIGKILL);
    return 0;
}
"""


@contextlib.contextmanager
def stranger(site, pid):
    """A process that has nothing to do with homeport and has this pid. Skips when the kernel gives it to nobody."""
    command = compiled(site, f"stranger{pid}", STRANGER)
    with subprocess.Popen([command, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        try:
            if parent.stdout.readline().strip() != str(pid):
                pytest.skip("this kernel lets us choose no pid, or another process was faster")
            yield
            assert os.path.exists(f"/proc/{pid}"), "the stranger has been ended"
            with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
                assert stat.read().rsplit(")", 1)[1].split()[0] == "S", "the stranger was touched"
        finally:
            parent.stdin.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to choose a pid")
def test_a_strangers_process_with_a_workers_pid_is_not_taken_for_the_worker(site):
    site.start(GROUP, "home", **LONG)
    clients = connected(site, 4)
    before, dead = cells(site), site.daemon.workers()[0]
    site.daemon.kill(dead)
    wait_for(lambda: dead not in site.daemon.workers() and len(site.daemon.workers()) == 2, what="the next worker")
    with stranger(site, dead):
        assert all(one.informational() for one in clients)
        site.daemon.reload()
        assert dead not in [one["pid"] for one in site.daemon.cli("status")["processes"]]
        assert cells(site) == before
        site.daemon.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to choose a pid")
def test_a_strangers_process_with_the_masters_pid_is_neither_stopped_nor_taken_for_the_master(site):
    site.start(GROUP, "home", **LONG)
    clients = connected(site, 4)
    before, dead = cells(site), site.daemon.process.pid
    site.daemon.kill(dead)
    site.daemon.abandon()
    with stranger(site, dead):
        with open(os.path.join(site.folder, "state", "master.lock"), encoding="ascii") as lock:
            assert lock.read().strip() == str(dead), "the state folder names the stranger's pid"
        cli("stop", "-c", site.path, json=False)  # done already
        site.daemon = Daemon(site.path).wait_ready()
        assert cells(site) == before
        assert all(one.informational() for one in clients)
        site.daemon.stop()
