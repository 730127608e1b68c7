# SPDX-License-Identifier: Apache-2.0
"""Which balancers are compared, in which turns, and what is noted of each. What is counted is what the client got back
and what the sink saw, never what a balancer says of itself."""
import json
import statistics
import sys
import time

from balancers import CAPACITY, Homeport, slab
from bed import SERVERS, VIPS, Failed

SIZES = (100, 1400)  # octets
WINDOW = {"drive": 8, "open": 256}


class Comparison:
    """Two balancers. Rows: what is measured, how many times the second the first has to reach, or at most how much."""

    idle = "session"  # whose memory is measured

    def __init__(self, options, load):
        self.options, self.load = options, load
        self.results = {}

    def note(self, what, balancer, value):
        self.results.setdefault(what, {}).setdefault(balancer.name, []).append(value)

    def drive(self, balancer, size, seconds, warmup=0, begin="esp"):
        return balancer.role("drive", flows=200, window=WINDOW["drive"], size=size, warmup=warmup, seconds=seconds,
                             begin=begin)

    def new_flows(self, balancer):
        seen = balancer.role("newflows", flows=self.options.flows, window=WINDOW["open"], size=100, seconds=30,
                             begin=balancer.begin)
        if seen["answered"] < self.options.flows:
            raise Failed(f"{balancer.name} answered {seen['answered']} of {self.options.flows} new flows")
        self.note(self.new, balancer, seen["answered"] / seen["seconds"])

    def idle_memory(self, balancer):
        """What they add; and in all, with the processes' fixed size and nginx's table of connections."""
        time.sleep(2)  # until the kernel has freed what the balancer before this one had
        before, slab_before = balancer.memory(), slab()
        holder = self.load.client("hold", balancer.target, flows=self.options.sessions, window=WINDOW["open"],
                                  keepalive=60, seconds=120, begin=balancer.begin)
        try:
            opened = json.loads(holder.stdout.readline())["answered"]
            if opened < self.options.sessions:
                raise Failed(f"{balancer.name} holds {opened} of {self.options.sessions} {self.idle}s")
            self.settle(balancer)
            after = balancer.memory()
            self.note(f"PSS per idle {self.idle}, octets", balancer, (after - before) / opened)
            self.note(f"kernel slab per idle {self.idle}, octets", balancer, (slab() - slab_before) * 1024 / opened)
            self.note(f"PSS in all per idle {self.idle}, octets", balancer, after / opened)
        finally:
            holder.kill()
            holder.communicate()

    def settle(self, _):
        time.sleep(1)  # idle is what is measured

    def say(self, number, what):
        print(f"{self.title}: round {number + 1} of {self.options.rounds}: {what}", file=sys.stderr, flush=True)


class Profile(Homeport):
    """homeport with one plugin; two can run at the same time."""

    begin = "ike"

    def __init__(self, bed, folder, load, binary, name, number, plugin, records):
        self.name, self.target, self.servers = name, VIPS[number], SERVERS[number]
        super().__init__(bed, folder, load, binary)
        self.plugin, self.records = plugin, records

    def start(self):
        super().start(self.plugin, self.records)

    def tables(self):
        return self.ask("status")["segment"]


class WithIkeSpi(Comparison):
    """A difference of a few per cent, in a machine whose speed varies by more. Each round: both start and run at the
    same time, and traffic goes through one and then the other in short turns, so that what is slow is slow for both;
    then new clients through both; then each alone, its memory with 10,000 idle clients. A round has one ratio."""

    key = "spi"
    idle = "client"
    new = "new clients a second"
    TURNS = "ABBABAAB"
    RECORDS = {"ike_spi": 2, "match_across_services": 1}  # of a client, that there has to be room for

    def __init__(self, options, load):
        super().__init__(options, load)
        plugins = ["match_across_services" if options.null else "ike_spi", "match_across_services"]
        self.plugins = plugins
        self.names = (plugins[0] + " again" if options.null else plugins[0], plugins[1])
        self.heads = (*self.names, " : ".join(self.names))
        self.title = " and ".join(self.names)
        self.rows = [
            *((f"{what}, {size:,} octets{unit}", times, None) for size in SIZES for what, unit, times in (
                ("ESP responses a second", "", 0.97), ("ESP at the sink a second", "", 0.97),
                ("its CPU time per response", ", ns", None))),
            (self.new, None, None),
            ("its CPU time per new client, ns", None, None),
            ("records per client", None, None),
            ("PSS per idle client, octets", None, None),
            ("kernel slab per idle client, octets", None, None),
            ("PSS in all per idle client, octets", None, None),
        ]

    def ratios(self, row):
        return [first / second for first, second in zip(*(self.results[row][name] for name in self.names)) if second]

    def traffic(self, balancers):
        turns = self.TURNS[:4] if self.options.short else self.TURNS
        for size in SIZES:
            sums = {balancer: dict.fromkeys(("seconds", "responses", "sink", "all", "spent"), 0)
                    for balancer in balancers}
            for balancer in balancers:
                self.drive(balancer, size, self.options.warmup, begin=balancer.begin)
            for turn in turns:
                balancer = balancers["AB".index(turn)]
                before = balancer.processor_time()
                seen = self.drive(balancer, size, self.options.turn, warmup=0.2)  # until the other's last are gone
                seen["spent"] = balancer.processor_time() - before
                for what, much in seen.items():
                    sums[balancer][what] += much
            for balancer, summed in sums.items():
                seconds = summed["seconds"]
                self.note(f"ESP responses a second, {size:,} octets", balancer, summed["responses"] / seconds)
                self.note(f"ESP at the sink a second, {size:,} octets", balancer, summed["sink"] / seconds)
                self.note(f"its CPU time per response, {size:,} octets, ns", balancer,
                          summed["spent"] * 1e9 / max(1, summed["all"]))

    def new_clients(self, balancer):
        before = balancer.processor_time()
        self.new_flows(balancer)
        spent = balancer.processor_time() - before
        self.note("its CPU time per new client, ns", balancer, spent * 1e9 / self.options.flows)

    def settle(self, balancer):
        """Until no record comes any more, nor goes."""
        seen, deadline = [], time.monotonic() + 60
        while len(seen) < 4 or len(set(seen[-4:])) > 1:
            if time.monotonic() > deadline:
                raise Failed(f"{balancer.name}: the number of records does not come to rest: {seen}")
            time.sleep(1)
            seen.append(balancer.tables()["records"])
        sessions = balancer.tables()["sessions"]
        if sessions < self.options.sessions:
            raise Failed(f"{balancer.name} has {sessions} sessions of {self.options.sessions} clients")
        self.note("records per client", balancer, seen[-1] / self.options.sessions)

    def run(self, bed, folder):
        balancers = [Profile(bed, folder, self.load, self.options.homeport, name, number, plugin, self.RECORDS[plugin])
                     for number, (name, plugin) in enumerate(zip(self.names, self.plugins))]
        for number in range(self.options.rounds):
            self.say(number, "traffic")
            try:
                for balancer in balancers:
                    balancer.start()
                self.traffic(balancers)
                for balancer in balancers:
                    self.new_clients(balancer)
            finally:
                for balancer in balancers:
                    balancer.stop()
            for balancer in balancers:
                self.say(number, f"memory of {balancer.name}")
                try:
                    balancer.start()
                    self.idle_memory(balancer)
                finally:
                    balancer.stop()
            balancers.reverse()

    def remarks(self):
        turns = len(self.TURNS) // (4 if self.options.short else 2)
        return [f"{self.options.rounds} rounds; in each both run at the same time and have {turns} turns of "
                f"{self.options.turn:g} s at each size, {self.TURNS[:2 * turns]}, and B first in every other round; a "
                "ratio is the median (least-most) of the rounds' own",
                f"a client has an address of its own and begins with IKE_SA_INIT, IKE_AUTH and ESP, each answered; its "
                f"ESP always has the same SPI; 200 clients with {WINDOW['drive']} ESP packets in flight each; "
                f"{self.options.flows:,} new clients with {WINDOW['open']} in flight; {self.options.sessions:,} idle "
                f"clients, their IKE and ESP on one session; room for {CAPACITY:,} clients configured in both, records "
                "per client: " + ", ".join(f"{self.RECORDS[plugin]} with {plugin}" for plugin in self.plugins)]
