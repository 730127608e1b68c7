# SPDX-License-Identifier: Apache-2.0
"""All of homeport's processes killed at once and started again, and stopped and started again, under load."""
import contextlib
import os
import signal
import time

from field import Field, account, counters, kernel, lost
from homeport import wait_for
from prove import Claims, Row, percentile


def killed(field):
    """Every process at once, as a machine or a container would end them."""
    pids = field.daemon.alive()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    field.daemon.process.wait(10)
    wait_for(lambda: not field.daemon.alive(), 10, "the end of every killed process")
    field.daemon.abandon()


def stopped(field):
    """As systemd stops it; fails when the status is not 0 or a process is left."""
    field.daemon.stop()


def again(field, end):
    """(milliseconds without service, descriptors of the new master)"""
    begin = time.time_ns()
    end(field)
    gone = time.time_ns()
    field.daemon_up()
    sink = field.boards["sink"]

    def all_lanes():
        firsts = [sink.lane_after(lane, gone) for lane in range(field.lanes)]
        return None not in firsts and max(firsts)
    served = wait_for(all_lanes, 20, "a datagram of every lane")
    return (served - begin) / 1e6, field.daemon.steady_descriptors()


def run(context):
    clients, number = (2500, 3) if context.short else (25000, 100)
    claims = Claims()
    with Field(context, clients) as field:
        field.up()
        field.connect()
        before = kernel()
        field.talk(context.rate())
        for name, end in (("killed", killed), ("stopped", stopped)):
            results = [again(field, end) for _ in range(number)]
            claims.figure(f"{name} and started again, times", number)
            claims.figure(f"  {name}: until every lane served again, ms: median, at most",
                          f"{percentile([one[0] for one in results], 50):.0f}, {max(one[0] for one in results):.0f}")
            masters = {one[1] for one in results}
            claims.figure(f"  {name}: descriptors of the next master", " or ".join(map(str, sorted(masters))))
            claims.check(len(masters) == 1, f"{name}: the master has {masters} descriptors")
        field.settle()
        now, sessions = field.daemon.cli("status")["segment"], 2 * clients
        claims.figure("flows", sessions)
        claims.check(now["sessions"] == sessions, f"{now['sessions']} sessions of {sessions} are there")
        requests, answers = lost(field)
        claims.figure("requests lost while nobody was there", requests)
        claims.figure("answers lost", answers)
        claims.figure("  datagrams for ports that nobody had open", kernel()["NoPorts"] - before["NoPorts"])
        claims.none("cells that could not be bound", counters(field)["cells_unbindable"])
        account(claims, field)
    return claims.done()


ROWS = [Row("restarts", "All processes killed at once and started again, or stopped and started again: no client moves, no "
            "source port changes, nothing is left over", run)]
