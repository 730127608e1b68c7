# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed at any moment, under load."""
import os
import select
import signal
import time

from field import Field, account, bare, counters, kernel, losses
from homeport import descriptors, wait_for
from prove import Claims, Row, percentile

PAUSE_S = 10.5  # deaths of one worker number that are nearer than 10 s count together: the third makes homeport wait
UNBOUND = "vpn9"  # a server that nobody is behind


class Victims:
    """Which worker dies next: any, but none a third time in a row of deaths that homeport counts together."""

    def __init__(self, field, workers):
        self.random, self.deaths = field.random, {number: [] for number in range(workers)}

    def allowed(self, number, now):
        deaths = self.deaths[number]
        return len(deaths) % 2 == 1 or not deaths or now - deaths[-1] > PAUSE_S

    def died(self, number):
        self.deaths[number].append(time.monotonic())

    def next(self):
        """Waits until one may die."""
        while True:
            now = time.monotonic()
            here = [number for number in self.deaths if self.allowed(number, now)]
            if here:
                number = self.random.choice(here)
                if len(self.deaths[number]) % 2 == 1 and now - self.deaths[number][-1] > PAUSE_S:
                    self.deaths[number] = []  # the row of deaths is over
                return number
            time.sleep(0.05)


def kill(pid):
    """kill -9; returns when it was sent and when the process was gone."""
    watch = os.pidfd_open(pid)
    try:
        sent = time.time_ns()
        os.kill(pid, signal.SIGKILL)
        assert select.select([watch], [], [], 10)[0], f"process {pid} does not die"
        return sent, time.time_ns()
    finally:
        os.close(watch)


class Kills:
    def __init__(self, field, workers, bases):
        self.field, self.workers, self.bases = field, workers, bases
        self.victims = Victims(field, workers)
        self.lane_ms, self.cell_ms, self.cells = [], [], []

    def lanes_of(self, number):
        return range(number, self.field.lanes, self.workers)

    def cells_of(self, number):
        lanes = set(self.lanes_of(number))
        return sum(1 for row in self.field.boards["sink"].flows() if row[0] and row[1] % self.field.lanes in lanes)

    def one(self, pids):
        field, number = self.field, self.victims.next()
        pid, cells = field.daemon.await_spare(), self.cells_of(number)
        sent, gone = kill(pids[number])
        self.victims.died(number)
        waiting = set(self.lanes_of(number))
        open_ns, full = None, self.bases[number] + cells

        def served():
            nonlocal open_ns
            for lane in list(waiting):
                first = field.boards["sink"].lane_after(lane, gone)
                if first is not None:
                    self.lane_ms.append((first - sent) / 1e6)
                    waiting.discard(lane)
            if open_ns is None and descriptors(pid) >= full - 2:
                open_ns = time.time_ns()
            return not waiting and open_ns is not None
        wait_for(served, 20, f"worker {number} with {cells} cells, lanes {sorted(waiting)} and "
                 f"{descriptors(pid)} of {full} descriptors")
        self.cell_ms.append((open_ns - sent) / 1e6)
        self.cells.append(cells)
        pids[number] = pid


def kill_monitor(claims, field):
    """No datagram is lost for it, and what the last one knew of the servers is known to the next."""
    def states():
        return {(one["name"], one.get("state"), one.get("up")) for one in field.daemon.cli("servers")["servers"]}
    field.settle()
    load, before = field.boards["load"], field.boards["load"].sent - field.boards["load"].answered
    known, pid = states(), field.daemon.monitor()
    field.talk(field.context.rate())
    kill(pid)
    wait_for(lambda: [one for one in field.daemon.children("_monitor") if one != pid], 10, "a new monitor")
    after = wait_for(lambda: field.daemon.cli("servers", status=None).returncode == 0 and states(), 10, "its answer")
    time.sleep(0.5)  # of traffic without it and with the next one
    field.settle()
    claims.none("lost when the monitor was killed", load.sent - load.answered - before)
    claims.check(known == after, f"the monitor's successor knows other servers: {known ^ after}")
    return known


def run(context):
    clients, workers, number = (2500, 25, 50) if context.short else (25000, 4, 1000)
    claims = Claims()
    with Field(context, clients) as field:
        field.up(field.planned(workers, servers={UNBOUND: {"address": f"{field.net}.99"}},
                               pools={"all": {"servers": [*field.names, UNBOUND],
                                              "health": {"check": "ike", "interval": "1s", "fall": 2}}}))
        field.daemon.wait_log(rf"server {UNBOUND} is down on udp/4500")
        pids = field.workers_by_number()
        kills = Kills(field, workers, {number: descriptors(pid) for number, pid in pids.items()})
        before = counters(field), kernel()
        field.connect()
        field.talk(field.context.rate())
        bare_ms = bare(field, 12500)
        for _ in range(number):
            kills.one(pids)
        field.settle()
        losses(claims, field, before)
        claims.figure("workers killed", number)
        claims.figure("flows", 2 * clients)
        claims.figure("cells of a killed worker", f"{min(kills.cells)} to {max(kills.cells)}")
        claims.figure("first datagram of a lane again, median ms", round(percentile(kills.lane_ms, 50), 1))
        claims.most("first datagram of a lane again, p99 ms", round(percentile(kills.lane_ms, 99), 1),
                    context.limit(100))
        claims.figure("a bare program opens 12,500 sockets in ms", bare_ms)
        claims.most("all cells open again, p99 ms", round(percentile(kills.cell_ms, 99), 1),
                    context.limit(max(500, round(3 * bare_ms))))
        kill_monitor(claims, field)
        account(claims, field)
    return claims.done()


ROWS = [Row("kills", "Workers that are killed at random under load move no client and change no source port; the next "
            "one serves at once", run)]
