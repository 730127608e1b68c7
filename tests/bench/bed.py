# SPDX-License-Identifier: Apache-2.0
"""Three network namespaces in a row, client - lb - server, and who has which CPU. The balancer is a machine with one
CPU, and it is what limits: one worker, pinned, and the kernel receives there what comes for it."""
import os
import pathlib
import shlex
import signal
import subprocess

# Two balancers can run at the same time: each has an address, and servers of its own, because nothing keeps two
# homeports from taking the same source port towards the same server.
VIPS = ["10.99.1.2", "10.99.1.3"]
SERVERS = [[f"10.99.3.{ten + one}" for one in (1, 2, 3)] for ten in (10, 20)]
OUTER, INNER = "02:00:00:00:00:02", "02:00:00:00:00:01"  # hardware addresses, of load and sink, and of lb
FLOW_NET = "10.98.0.0"  # /16: flow N comes from 10.98.0.0 + N
# TCP has wires of its own, with an IP stack at each end, and addresses for up to three balancers at the same time.
STREAM_CLIENT, STREAM_VIPS = "10.99.5.1", ["10.99.5.2", "10.99.5.3", "10.99.5.4"]
STREAM_SERVERS = [[f"10.99.6.{ten + one}" for one in (1, 2, 3)] for ten in (10, 20, 30)]


class Failed(Exception):
    pass


class Processors:
    """The balancer's machine has one CPU. All others are the world's: load generator, sink, and what the kernel does
    for them. A machine with one CPU cannot do that: everybody shares it."""

    def __init__(self):
        have = sorted(os.sched_getaffinity(0))
        self.balancer, self.world = {have[0]}, set(have[1:]) or {have[0]}

    def of(self, end):
        return self.balancer if end == "lb" else self.world

    def busy(self):
        """Seconds that the balancer's CPU was not idle, whoever had it, the kernel's interrupts included."""
        names = {f"cpu{number}" for number in self.balancer}
        lines = [line.split() for line in pathlib.Path("/proc/stat").read_text().splitlines()]
        ticks = sum(int(field) for line in lines if line[0] in names for field in line[1:4] + line[6:9])
        return ticks / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def mask(numbers):
        """As sysfs has it: 32 bits a word."""
        words, bits = [], sum(1 << number for number in numbers)
        while bits or not words:
            words.insert(0, f"{bits & 0xffffffff:08x}")
            bits >>= 32
        return ",".join(words)


def command(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Bed:
    """The client owns a whole network of addresses, one for each flow."""

    def __init__(self, processors):
        self.processors = processors
        self.names = {end: f"hpbench{os.getpid()}-{end}" for end in ("client", "lb", "server")}

    def up(self):
        for name in self.names.values():
            command("ip", "netns", "add", name)
            self.inside(name, "ip", "link", "set", "lo", "up")
        client, lb, server = self.names["client"], self.names["lb"], self.names["server"]
        self.wire(client, lb, [f"{vip}/24" for vip in VIPS], "client")
        self.wire(server, lb, ["10.99.3.1/24"], "server")
        for device in ("client", "server"):
            self.receive_on(lb, device, self.processors.of("lb"))
        for address, device in [("10.99.1.1", "client"), *((address, "server") for address in sum(SERVERS, []))]:
            self.inside(lb, "ip", "neighbour", "add", address, "lladdr", OUTER, "dev", device, "nud", "permanent")
        self.inside(lb, "ip", "route", "add", f"{FLOW_NET}/16", "via", "10.99.1.1")
        self.inside(lb, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
                    "net.ipv4.conf.default.rp_filter=0")

        self.stream_wires(client, lb, server)

    def stream_wires(self, client, lb, server):
        """Devices of today take TCP in super-packets: so do these."""
        for outer, device, here, there in (
                (client, "client", [STREAM_CLIENT], STREAM_VIPS),
                (server, "server", sum(STREAM_SERVERS, []), ["10.99.6.1"])):
            command("ip", "link", "add", "tcp", "netns", outer, "type", "veth", "peer", "name", f"{device}tcp",
                    "netns", lb)
            for name, end, addresses in ((outer, "tcp", here), (lb, f"{device}tcp", there)):
                self.inside(name, "ip", "link", "set", end, "up")
                for address in addresses:
                    self.inside(name, "ip", "address", "add", f"{address}/24", "dev", end)
                self.receive_on(name, end, self.processors.of("lb" if name == lb else device))
        for name in (client, lb):
            self.inside(name, "sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 65000")
        for device, to in (("client", "10.99.6.0/24 via 10.99.5.2"), ("server", "10.99.5.0/24 via 10.99.6.1")):
            self.inside(self.names[device], "ip", "route", "add", *to.split())

    def wire(self, outer, lb, addresses, device):
        """A veth pair: `lb` at the outer end, named after the outer end in lb. The outer ends have no addresses:
        homeport-load speaks frames. gso_max_segs: what a balancer sends in one go is cut up before the wire and on
        its account, as with a network card that cannot; super-packets travel through no real network."""
        command("ip", "link", "add", "lb", "netns", outer, "type", "veth", "peer", "name", device, "netns", lb)
        self.inside(outer, "ip", "link", "set", "lb", "up")
        self.inside(lb, "ip", "link", "set", device, "address", INNER, "gso_max_segs", "1", "up")
        for address in addresses:
            self.inside(lb, "ip", "address", "add", address, "dev", device)

    def receive_on(self, name, device, numbers):
        """What comes costs the CPU of its receiver, and not its sender's. At the outer ends of the wires for frames that
        would be wrong: an interrupt for the other CPU, which a sender pays for each of its system calls, costs in a
        virtual machine more than a network card does; a frame that is copied into homeport-load's ring costs less."""
        self.inside(name, "sh", "-c", f"echo {Processors.mask(numbers)} >/sys/class/net/{device}/queues/rx-0/rps_cpus")

    @staticmethod
    def inside(name, *words):
        return command("ip", "netns", "exec", name, *words)

    def start(self, end, *words, **options):
        return subprocess.Popen(["ip", "netns", "exec", self.names[end], *map(str, words)],
                                preexec_fn=lambda: os.sched_setaffinity(0, self.processors.of(end)), **options)

    def down(self):
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def end(process, within=10):
    """`ip netns exec` becomes what it runs, so the signal reaches the program itself."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"{process.args[4]} had to be killed")
