# SPDX-License-Identifier: Apache-2.0
"""homeport among its peers, in many small measurements. All of them run at the same time, and each figure is taken of
one after the other, so that what is slow is slow for all; which is first changes from round to round. A ratio is of one
round; what is shown is the rounds' median. Datagrams are counted at the sink, never by a balancer."""
import contextlib
import dataclasses
import json
import statistics
import sys
import time

from balancers import (CAPACITY, Direct, HaproxyStreams, Homeport, HomeportStreams, NginxBeside, NginxStreams, slab)
from bed import Failed

SIZES, FLOWS = (100, 576, 1400), (1, 16, 200, 5000)
IN_FLIGHT = {"ask": 1024, "bulk": 512}  # in all
EACH = 8  # of one flow that asks


@dataclasses.dataclass
class Goal:
    what: str  # "ratio", "value" or "cost"
    limit: float
    least: bool = True
    peer: str = ""

    def text(self):
        sign = "≥" if self.least else "≤"
        return f"{sign} {self.limit:g}" + (f" × {self.peer}" if self.peer else "")

    def reached(self, value):
        return value >= self.limit if self.least else value <= self.limit


class Figure:
    """One row: of each balancer a value a round, and what it cost: nanoseconds of its processes, and of its CPU."""

    def __init__(self, name, digits=0, goal=None):
        self.name, self.digits, self.goal = name, digits, goal
        self.values, self.costs, self.busy = {}, {}, {}

    def note(self, balancer, value, cost=None, busy=None):
        self.values.setdefault(balancer.name, []).append(value)
        if cost is not None:
            self.costs.setdefault(balancer.name, []).append(cost)
        if busy is not None:
            self.busy.setdefault(balancer.name, []).append(busy)

    def ratios(self, peer, of="values"):
        mine, its = getattr(self, of).get("homeport", []), getattr(self, of).get(peer, [])
        return [first / second for first, second in zip(mine, its) if second]

    def judged(self):
        """None: nothing was promised, or nothing measured."""
        if self.goal is None:
            return None
        if self.goal.what == "value":
            values = self.values.get("homeport", [])
        else:
            better = [self.ratios(peer) for peer in self.goal.peer.split(" and ") if peer in self.values]
            values = [min(round_) for round_ in zip(*better)]
        return statistics.median(values) if values else None


class Peers:
    """A comparison: its balancers, its figures, and what is to be said of them."""

    title = key = ""
    peers = ()
    unit = "datagram"

    def __init__(self, options, load):
        self.options, self.load, self.figures = options, load, {}

    def figure(self, name, **arguments):
        return self.figures.setdefault(name, Figure(name, **arguments))

    def say(self, number, what):
        print(f"{self.title}: round {number + 1} of {self.options.rounds}: {what}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def started(self, balancers):
        try:
            for balancer in balancers:
                balancer.start()
            time.sleep(0 if self.options.short else 2)  # homeport makes its spare worker ready on the same CPU
            yield
        finally:
            for balancer in balancers:
                balancer.stop()

    def turns(self, balancers, number):
        first = number % len(balancers)
        return balancers[first:] + balancers[:first]

    def remarks(self):
        return []


class Datagrams(Peers):
    """Over sizes and flows, against nginx stream and what the kernel routes without any balancer."""

    peers = ("nginx", "kernel routing")
    role = what = ""

    def balancers(self, bed, folder):
        return [Homeport(bed, folder, self.load, self.options.homeport), NginxBeside(bed, folder, self.load),
                Direct(bed, folder, self.load)]

    def cells(self):
        sizes, flows = (SIZES, FLOWS) if not self.options.short else (SIZES[::2], FLOWS[1::2])
        return [(size, flow) for size in sizes for flow in flows]

    def measure(self, balancer, size, flows):
        window = IN_FLIGHT[self.role]
        if self.role == "ask":
            window = min(window, EACH * flows)
        seen = balancer.measured(self.role, flows=flows, window=window, size=size, warmup=self.options.warmup / 5,
                                 seconds=self.options.seconds)
        count = seen["sink"] + (seen["responses"] if self.role == "ask" else 0)
        if count == 0:
            raise Failed(f"{balancer.name}: nothing came of {flows} flows with {size} octets")
        rate = (seen["responses"] if self.role == "ask" else seen["sink"]) / seen["seconds"]
        goal = Goal("ratio", 3, peer="nginx")
        row = self.figure(f"{size:,} octets, {flows:,} flow{'s' * (flows > 1)}", goal=goal)
        row.note(balancer, rate, seen["spent"] * 1e9 / count, seen["busy"] * 1e9 / count)

    def run(self, bed, folder):
        balancers = self.balancers(bed, folder)
        with self.started(balancers):
            for number in range(self.options.rounds):
                self.say(number, self.what)
                for size, flows in self.cells():
                    for balancer in self.turns(balancers, number):
                        self.measure(balancer, size, flows)
        self.compare_costs()

    def compare_costs(self):
        """What many flows make a datagram cost."""
        for size in dict.fromkeys(size for size, _ in self.cells()):
            many, few = (self.figures.get(f"{size:,} octets, {flows:,} flows") for flows in (5000, 16))
            if many is None or few is None:
                continue
            row = self.figure(f"CPU per datagram at 5,000 flows : at 16, {size:,} octets", digits=2,
                              goal=Goal("value", 1.3, least=False))
            for name in many.costs:
                row.values[name] = [a / b for a, b in zip(many.costs[name], few.costs[name]) if b]


class Requests(Datagrams):
    key, role, what = "requests", "ask", "requests and responses"
    title = "requests and responses: responses a second"

    def remarks(self):
        return [f"{EACH} requests in flight of each flow, at most {IN_FLIGHT['ask']:,} in all, the flows in turns; a "
                "response is two datagrams, and CPU time is per datagram"]


class Bulk(Datagrams):
    key, role, what = "bulk", "bulk", "bulk"
    title = "bulk one way: datagrams a second at the sink"

    def remarks(self):
        return [f"at most {IN_FLIGHT['bulk']:,} that the sink has not seen yet, the flows in turns, one datagram each: "
                "with many flows no two of one flow come together"]


class Flows(Peers):
    """New flows, latency at half load, memory."""

    key, title = "flows", "new flows, latency, memory"
    peers = ("nginx",)
    unit = "new flow"
    LATENCY_FLOWS, LATENCY_SIZE = 200, 576

    def new_flows(self, balancer):
        before, busy = balancer.processor_time(), self.bed.processors.busy()
        seen = balancer.role("newflows", flows=self.options.flows, window=256, size=100, seconds=30)
        spent, busy = balancer.processor_time() - before, self.bed.processors.busy() - busy
        if seen["answered"] < self.options.flows:
            raise Failed(f"{balancer.name} answered {seen['answered']} of {self.options.flows} new flows")
        row = self.figure("new flows a second", goal=Goal("ratio", 5, peer="nginx"))
        row.note(balancer, seen["answered"] / seen["seconds"], spent * 1e9 / self.options.flows,
                 busy * 1e9 / self.options.flows)

    def ask(self, balancer, rate=0):
        return balancer.measured("ask", flows=self.LATENCY_FLOWS, window=1024, size=self.LATENCY_SIZE, rate=rate,
                                 warmup=self.options.warmup / 2, seconds=self.options.seconds)

    def latency(self, balancers, bare):
        """What a balancer adds to a round trip, at half of what nginx can do and at half of its own most."""
        most = {}
        for balancer in balancers:
            seen = self.ask(balancer)
            most[balancer.name] = seen["responses"] / seen["seconds"]
        for name, rates in (("nginx's", dict.fromkeys(most, most["nginx"] / 2)),
                            ("its own", {name: rate / 2 for name, rate in most.items()})):
            for balancer in balancers:
                rate = rates[balancer.name]
                wire, seen = self.ask(bare, rate), self.ask(balancer, rate)
                lost = 1 - seen["responses"] / max(1, seen["sent"])
                for share in ("p50", "p99"):
                    self.figure(f"{share} added at half of {name} most, µs").note(balancer, seen[share] - wire[share])
                self.figure(f"lost at half of {name} most, per cent", digits=2).note(balancer, max(0, lost * 100))

    def memory(self, balancer):
        """What idle sessions add; and in all, with the processes' fixed size and nginx's table of connections."""
        time.sleep(1)  # until the kernel has freed what the balancer before this one had
        before, slab_before = balancer.memory(), slab()
        holder = self.load.client("hold", balancer.target, flows=self.options.sessions, window=256, keepalive=60,
                                  seconds=120, begin=balancer.begin)
        try:
            opened = json.loads(holder.stdout.readline())["answered"]
            if opened < self.options.sessions:
                raise Failed(f"{balancer.name} holds {opened} of {self.options.sessions} sessions")
            time.sleep(1)  # idle is what is measured
            after = balancer.memory()
            self.figure("PSS per idle session, octets", goal=Goal("value", 1024, least=False)).note(
                balancer, (after - before) / opened)
            self.figure("PSS in all per idle session, octets").note(balancer, after / opened)
            self.figure("kernel slab per idle session, octets").note(balancer, (slab() - slab_before) * 1024 / opened)
        finally:
            holder.kill()
            holder.communicate()

    def run(self, bed, folder):
        self.bed = bed
        balancers = [Homeport(bed, folder, self.load, self.options.homeport), NginxBeside(bed, folder, self.load)]
        bare = Direct(bed, folder, self.load)
        for number in range(self.options.rounds):
            self.say(number, "new flows")
            for again in range(1 if self.options.short else 3):
                for balancer in self.turns(balancers, number + again):
                    with self.started([balancer]):
                        self.new_flows(balancer)
            self.say(number, "latency")
            with self.started(balancers):
                self.latency(self.turns(balancers, number), bare)
            self.say(number, "memory")
            for balancer in self.turns(balancers, number):
                with self.started([balancer]):
                    self.memory(balancer)

    def remarks(self):
        return [f"{self.options.flows:,} new flows with 256 in flight, into tables that are empty",
                f"latency: {self.LATENCY_FLOWS} flows, {self.LATENCY_SIZE} octets at a steady rate; from the send call "
                "to the arrival of the answer, less the same without a balancer at the same rate",
                f"{self.options.sessions:,} idle sessions; room for {CAPACITY:,} configured in both"]


class Fair(Peers):
    """What one client's bulk does to the others."""

    key, title = "fair", "one client floods: what the others notice"
    peers = ("nginx",)
    FLOWS, SIZE, SERVICES = 200, 576, 32
    PLACES = {"": 4500, ", at another of 32 services": 4500 + SERVICES - 1}  # of the others; the flood's is the first

    def others(self, balancer, port, rate=0):
        return balancer.measured("ask", flows=self.FLOWS, window=512, size=self.SIZE, rate=rate, port=port,
                                 warmup=self.options.warmup / 2, seconds=self.options.seconds)

    def flooded(self, balancer, port, rate):
        """Until the others have been measured; the flood is ended, and what is left of it waited for."""
        seconds = self.options.seconds + self.options.warmup + 1
        flood = self.load.client("bulk", balancer.target, flows=1, window=IN_FLIGHT["bulk"], size=1400, warmup=0.2,
                                 seconds=seconds)
        try:
            flood.stdout.readline()  # it is warm
            seen = self.others(balancer, port, rate)
            return seen, json.loads(flood.stdout.readline())
        finally:
            flood.kill()
            flood.communicate()

    def run(self, bed, folder):
        balancers = [Homeport(bed, folder, self.load, self.options.homeport), NginxBeside(bed, folder, self.load)]
        for balancer in balancers:
            balancer.services = self.SERVICES
        with self.started(balancers):
            for number in range(self.options.rounds):
                self.say(number, "flood")
                for place, port in self.PLACES.items():
                    for balancer in self.turns(balancers, number):
                        self.one(balancer, place, port)

    def one(self, balancer, place, port):
        most = self.others(balancer, port)
        rate = most["responses"] / most["seconds"] / 4
        alone = self.others(balancer, port, rate)
        seen, flood = self.flooded(balancer, port, rate)
        for share in ("p50", "p99"):
            self.figure(f"{share} of the others alone, µs{place}").note(balancer, alone[share])
            self.figure(f"{share} of the others during the flood, µs{place}").note(balancer, seen[share])
        self.figure(f"p99 during the flood : alone{place}", digits=2, goal=Goal("value", 3, least=False)).note(
            balancer, seen["p99"] / alone["p99"])
        self.figure(f"lost of the others, per cent{place}", digits=2).note(
            balancer, 100 * max(0, 1 - seen["responses"] / seen["sent"]))
        self.figure(f"the flood's datagrams a second{place}").note(balancer, flood["sink"] / flood["seconds"])

    def remarks(self):
        return [f"the others: {self.FLOWS} flows, {self.SIZE} octets at a quarter of what the balancer can do; the "
                f"flood: one flow, 1,400 octets, one way, as fast as it goes with {IN_FLIGHT['bulk']} on their way; "
                "both at one service, or at two of 32; times are those of the whole round trip"]


class Tcp(Peers):
    """Streams through all, in turns; so many that they are there at the same time."""

    key, title, unit = "tcp", "TCP", "KiB, or per connection"
    peers = ("nginx", "haproxy")
    STREAMS, AT_A_TIME = (1, 16), 64

    def bulk(self, balancer, role, streams):
        seen = balancer.measured(role, flows=streams, port=443, warmup=self.options.warmup / 4,
                                 seconds=self.options.seconds)
        octets = seen["octets"] if role == "pull" else seen["sink"]
        if octets == 0 or seen["failures"]:
            raise Failed(f"{balancer.name}: {octets} octets and {seen['failures']} failures of {streams} streams")
        which = "to the client" if role == "pull" else "to the server"
        row = self.figure(f"MB a second {which}, {streams} stream{'s' * (streams > 1)}",
                          goal=Goal("ratio", 1, peer="nginx and haproxy"))
        row.note(balancer, octets / seen["seconds"] / 1e6, seen["spent"] * 1e9 / (octets / 1024),
                 seen["busy"] * 1e9 / (octets / 1024))

    def connections(self, balancer):
        seen = balancer.measured("connect", window=self.AT_A_TIME, port=443, warmup=self.options.warmup / 4,
                                 seconds=self.options.seconds)
        if seen["connections"] == 0 or seen["failures"] or \
                seen["octets"] < 64 * (seen["connections"] - self.AT_A_TIME):  # answered before, ended within
            raise Failed(f"{balancer.name}: of {seen['connections']} connections {seen['failures']} failed, and "
                         f"{seen['octets']} octets came")
        self.figure("connections a second", goal=Goal("ratio", 1, peer="nginx and haproxy")).note(
            balancer, seen["connections"] / seen["seconds"], seen["spent"] * 1e9 / seen["connections"],
            seen["busy"] * 1e9 / seen["connections"])

    def run(self, bed, folder):
        balancers = [HomeportStreams(bed, folder, self.load, self.options.homeport),
                     NginxStreams(bed, folder, self.load), HaproxyStreams(bed, folder, self.load)]
        server = self.load.server()
        try:
            with self.started(balancers):
                for number in range(self.options.rounds):
                    self.say(number, "streams")
                    for role in ("pull", "push"):
                        for streams in self.STREAMS:
                            for balancer in self.turns(balancers, number):
                                self.bulk(balancer, role, streams)
                    self.say(number, "connections")
                    for balancer in self.turns(balancers, number):
                        self.connections(balancer)
        finally:
            server.kill()
            server.wait()

    def remarks(self):
        return [f"connections: {self.AT_A_TIME} at a time, each asks with 64 octets, is answered with 64, and ends",
                "TCP has wires with super-packets, as cards of today make them (TSO, GRO)"]
