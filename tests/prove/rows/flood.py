# SPDX-License-Identifier: Apache-2.0
"""A flood of valid first messages from spoofed sources, against a small table of records."""
import ipaddress
import time

from field import CLIENTS, FLOODERS, NEWCOMERS, Field, clean, counters, pss
from homeport import wait_for
from prove import Claims, Row

CAPACITY = 10000  # records
FLOOD_RATE, SHORT_FLOOD_RATE = 8000, 5000  # a second; each makes a session, which lives for the 2 s of idle_unproven
PROVEN, PROVEN_RATE = 1000, 2000
NEW_RATE = 50  # clients a second
NOT_FROM_CLIENTS = ("dropped_socket_queue", "dropped_stranger", "dropped_send_to_client")


def flood_rate(context):
    return SHORT_FLOOD_RATE if context.short else FLOOD_RATE


def records(field):
    """Client -> server, of the proven ones; their age in seconds besides."""
    first = int(ipaddress.ip_address(CLIENTS))
    wanted = {str(ipaddress.ip_address(first + number)) for number in range(field.count)}
    return {one["client"]: (one["server"], one["age_s"]) for one in field.daemon.cli("affinity")["records"]
            if one["client"] in wanted and one["proven"]}


def flooded(field, number):
    """The flood and, while it lasts, new clients. Returns PSS at four fifths of it, when every session
    row has been used once, and at its end."""
    load = field.clients_up("newcomers", **{"from": str(ipaddress.ip_address(CLIENTS) + NEWCOMERS), "first": NEWCOMERS,
                                            "clients": NEWCOMERS // 2, "own_ports": "30520,34520", "tries": 3})
    flood = field.begin("flood", "flood", to=field.vip, clients=number, rate=flood_rate(field.context), own_ports="30510,34510",
                        **{"from": FLOODERS})
    load.tell("rate", NEW_RATE)
    load.tell("mode", 1)
    wait_for(lambda: flood.sent >= number * 4 // 5, 600, "four fifths of the flood")
    first = pss(field.pids())
    wait_for(lambda: flood.sent >= number * 0.98, 600, "the flood")
    last = pss(field.pids())
    field.processes["flood"].wait(60)
    load.tell("rate", 1)
    return first, last


def latecomers(claims, field):
    """Those who began during the flood, and whoever gave up tries again now."""
    load = field.boards["newcomers"]
    during, begun, begin = load.connected, load.begun, time.monotonic()
    claims.least("new clients connected during the flood, %", round(100 * during / max(1, begun), 1), 80)
    load.tell("again", 1)
    while load.connected < load.begun and time.monotonic() < begin + 5:
        time.sleep(0.02)
    claims.figure("new clients", load.begun)
    claims.figure("  not known to the server that they came to, datagrams", field.boards["sink"].strangers)
    claims.figure("all connected after the flood, seconds", round(time.monotonic() - begin, 2))
    claims.check(load.connected >= begun, f"{begun - load.connected} of {begun} had not connected 5 s after the flood")
    load.tell("mode", 0)


def exact(claims, field):
    """Every datagram is in homeport's books."""
    now, sink = counters(field), field.boards["sink"]
    sent = sum(board.sent for name, board in field.boards.items() if name != "sink")
    lost = {name: count for name, count in now.items()
            if name.startswith(("refused_", "dropped_")) and name not in NOT_FROM_CLIENTS}
    claims.figure("datagrams sent", sent)
    claims.figure("  read by homeport", now["datagrams_from_clients"])
    claims.figure("  lost in a listener's queue", now["dropped_socket_queue"])
    claims.figure("  sent on to servers", now["datagrams_to_servers"])
    for name, count in lost.items():
        if count:
            claims.figure(f"  {name}", count)
    claims.check(now["datagrams_from_clients"] + now["dropped_socket_queue"] == sent,
                 f"homeport knows of {now['datagrams_from_clients']} read and {now['dropped_socket_queue']} lost in its "
                 f"queues, of {sent} sent")
    claims.check(now["datagrams_to_servers"] + sum(lost.values()) == now["datagrams_from_clients"],
                 f"{now['datagrams_to_servers']} sent on and {lost} are not the {now['datagrams_from_clients']} read")
    claims.check(sink.received == now["datagrams_to_servers"],
                 f"servers got {sink.received} of {now['datagrams_to_servers']} datagrams")
    for name in ("records_created", "records_evicted", "records_table_full"):
        claims.figure(name, now[name])


def run(context):
    number = 100000 if context.short else 1000000
    claims = Claims()
    with Field(context, PROVEN, newcomers=NEWCOMERS // 2) as field:
        field.up(field.planned(affinity={"capacity": CAPACITY}, sessions={"capacity": 60000, "idle_unproven": "2s"}))
        field.connect(2000)
        before = records(field)
        field.talk(PROVEN_RATE)
        first, last = flooded(field, number)
        latecomers(claims, field)
        time.sleep(0.5)  # of traffic on every lane: a datagram tells what was lost in the queue before it
        field.settle()
        after = records(field)
        claims.figure("first messages of the flood", field.boards["flood"].sent)
        claims.figure("  a second", flood_rate(context))
        claims.figure("records there is room for", CAPACITY)
        claims.check(len(before) == PROVEN, f"only {len(before)} of {PROVEN} were proven")
        claims.none("proven clients evicted", sum(
            1 for client, (server, age) in before.items()
            if client not in after or after[client][0] != server or after[client][1] < age))
        flows = field.boards["sink"].flows()[:2 * PROVEN]
        claims.none("proven clients moved, or another source port", sum(one[2] for one in flows) + sum(
            1 for one, two in zip(flows[::2], flows[1::2]) if one[0] != two[0]))
        load = field.boards["load"]
        claims.figure("datagrams of proven clients lost", load.sent - load.answered)
        claims.figure("PSS in KB, after four fifths of the flood and at its end", f"{first} and {last}")
        # In seconds the heaps of the workers have not come to rest.
        claims.check(last <= first * (1.1 if context.short else 1.02), f"PSS has grown from {first} to {last} KB")
        exact(claims, field)
        clean(claims, field)
    return claims.done()


ROWS = [Row("flood", "A flood of first messages from spoofed sources evicts and moves no proven client, costs no memory, is "
            "counted to the datagram, and new clients still connect", run)]
