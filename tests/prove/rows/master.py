# SPDX-License-Identifier: Apache-2.0
"""The master alone is killed and started again under load; in every second round a worker dies in between."""
import os
import random
import signal
import time

from field import Field, account, counters, descriptors, kernel
from homeport import wait_for
from prove import Claims, Row, percentile


def again(field, victim):
    """Kills the master, and one of its workers if asked to; returns the milliseconds until the next one is ready. Fails
    when anybody of the old ones is left, or a descriptor of the new master is one too many."""
    last = field.daemon
    workers = last.workers()
    os.kill(last.process.pid, signal.SIGKILL)
    last.process.wait(10)
    if victim is not None:
        os.kill(workers[victim % len(workers)], signal.SIGKILL)
    begin = time.monotonic()
    field.daemon_up()
    took = (time.monotonic() - begin) * 1000
    wait_for(lambda: not last.alive(), 10, "the end of the processes that were taken over")
    last.abandon()
    wait_for(lambda: descriptors(field.daemon.process.pid) <= field.descriptors, 5, f"{field.descriptors} descriptors")
    return took


def run(context):
    clients, number = (2500, 5) if context.short else (25000, 100)
    dice, claims = random.Random(context.seed), Claims()
    with Field(context, clients) as field:
        field.up()
        field.connect()
        before, load, sink = kernel(), field.boards["load"], field.boards["sink"]
        field.talk(context.rate())
        field.descriptors = descriptors(field.daemon.process.pid)
        took = [again(field, None) for _ in range(number)]
        field.settle()
        claims.figure("killed and started again, times", number)
        claims.figure("  until the next one was ready, ms: median, at most",
                      f"{percentile(took, 50):.0f}, {max(took):.0f}")
        claims.figure("  descriptors of the first master, and at most of the last", field.descriptors)
        claims.none("  requests lost", load.sent - sink.received)
        claims.none("  answers lost", sink.answered - sink.probes - load.received)
        field.talk(context.rate())
        for _ in range(number):
            again(field, dice.randrange(4))
        field.settle()
        claims.figure("with a worker killed before the next one came, times", number)
        claims.figure("  requests lost by that", load.sent - sink.received)
        claims.figure("  answers lost by that", sink.answered - sink.probes - load.received)
        claims.figure("  datagrams for ports that nobody had open", kernel()["NoPorts"] - before["NoPorts"])
        claims.none("cells that could not be bound", counters(field)["cells_unbindable"])
        account(claims, field)
    return claims.done()


ROWS = [Row("master", "The master is killed and started again: workers serve on, the next one takes them over, no datagram "
            "is lost; a worker that died meanwhile is served again", run)]
