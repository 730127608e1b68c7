# SPDX-License-Identifier: Apache-2.0
"""The master alone is killed and started again under load; then the same with a worker killed in between."""
import os
import random
import signal
import time

from field import Field, account, counters, kernel, losses, lost
from homeport import descriptors, wait_for
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


def paced(field, context):
    """What has waited meanwhile is served before the next one dies."""
    begin = time.monotonic()
    took = again(field, None)
    time.sleep(max(0, begin + (0 if context.short else 2) - time.monotonic()))
    return took


def run(context):
    clients, number = (2500, 5) if context.short else (25000, 100)
    dice, claims = random.Random(context.seed), Claims()
    with Field(context, clients) as field:
        field.up()
        field.connect()
        before = counters(field), kernel()
        field.talk(context.rate())
        field.descriptors = descriptors(field.daemon.process.pid)
        took = [paced(field, context) for _ in range(number)]
        field.settle()
        claims.figure("killed and started again, times", number)
        claims.figure("  until the next one was ready, ms: median, at most",
                      f"{percentile(took, 50):.0f}, {max(took):.0f}")
        claims.figure("  descriptors of the first master, and at most of the last", field.descriptors)
        requests, answers = losses(claims, field, before)
        claims.check(requests == 0 and answers == 0, f"{requests} requests and {answers} answers were lost")
        field.talk(context.rate())
        for _ in range(number):
            again(field, dice.randrange(4))
        field.settle()
        claims.figure("with a worker killed before the next one came, times", number)
        for what, first, now in zip(("requests", "answers"), (requests, answers), lost(field)):
            claims.figure(f"  {what} lost by that", now - first)
        claims.figure("  datagrams for ports that nobody had open", kernel()["NoPorts"] - before[1]["NoPorts"])
        claims.none("cells that could not be bound", counters(field)["cells_unbindable"])
        account(claims, field)
    return claims.done()


ROWS = [Row("master", "The master is killed and started again: workers serve on, the next one takes them over, no datagram "
            "is lost; a worker that died meanwhile is served again", run)]
