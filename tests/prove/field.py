# SPDX-License-Identifier: Apache-2.0
"""Where a row is played: a network namespace with loopback alone, servers and clients from homeport-prove, and homeport
between them. A client is an address; it speaks from two ports, to 500 and to 4500, so there are two flows of each."""
import contextlib
import io
import mmap
import os
import pathlib
import re
import shutil
import struct
import subprocess
import time

from homeport import Daemon, Site, wait_for
from netns import own_net
from prove import Skipped

FOLDER = pathlib.Path(__file__).resolve().parent
WORDS = re.findall(r"^ +X\((\w+),", (FOLDER / "board.h").read_text(encoding="ascii"), re.M)
BOARD_OCTETS, LANES, TIMES = 64 * 8, 256, 2048  # as in board.h
LANE_OCTETS = 8 + TIMES * 8
ROW = struct.Struct("IHHIIQII")
CLIENTS, FLOODERS, NEWCOMERS = "127.200.0.0", "127.64.0.0", 65536  # newcomers: their first position as clients
LIMIT = 3600  # seconds after which a process of the field ends by itself


class Board:
    """What a process of homeport-prove tells, each word an attribute."""

    def __init__(self, path):
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)

    def __getattr__(self, name):
        if name not in WORDS:
            raise AttributeError(name)
        return struct.unpack_from("Q", self.map, WORDS.index(name) * 8)[0]

    def tell(self, name, value):
        struct.pack_into("Q", self.map, WORDS.index(name) * 8, value)

    def lane_after(self, lane, time_ns):
        """When the first datagram of a lane came after this time; None: none yet, or too many since."""
        at = BOARD_OCTETS + lane * LANE_OCTETS
        count = struct.unpack_from("Q", self.map, at)[0]
        times = struct.unpack_from(f"{TIMES}Q", self.map, at + 8)
        later = [times[number % TIMES] for number in range(max(0, count - TIMES + 8), count)]
        later = [one for one in later if one > time_ns]
        return later[0] if later and len(later) < TIMES - 8 else None

    def flows(self):
        """(server, source port, changes, highest number, received, time of the last, ...) of each flow."""
        return list(ROW.iter_unpack(self.map[BOARD_OCTETS + LANES * LANE_OCTETS:]))


@contextlib.contextmanager
def patient_loopback():
    """All traffic crosses it, up to four times: what one core has not got round to waits, 1,000 packets as it comes. The
    setting is the whole machine's, and as it was afterwards."""
    path = pathlib.Path("/proc/sys/net/core/netdev_max_backlog")
    before = path.read_text(encoding="ascii")
    path.write_text("20000", encoding="ascii")
    try:
        yield
    finally:
        path.write_text(before, encoding="ascii")


@contextlib.contextmanager
def tmpfs(folder):
    """What the daemon keeps there lies in memory, as under /run, in huge pages as docs/service.md advises."""
    options = "size=1g,mode=755,huge=within_size"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "homeport", folder], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def pss(pids):
    """Kilobytes, each page shared out among those who have it."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text("ascii"), re.M)
            total += int(found[1])
    return total


def kernel():
    """The kernel's counters of UDP here; NoPorts is what came for a port that nobody had open. Backlog: of the whole
    machine, what no core had time for."""
    with open("/proc/thread-self/net/snmp", encoding="ascii") as file:
        names, values = [line.split()[1:] for line in file if line.startswith("Udp:")]
    with open("/proc/net/softnet_stat", encoding="ascii") as file:
        backlog = sum(int(line.split()[1], 16) for line in file)
    return {**dict(zip(names, map(int, values))), "Backlog": backlog}


class Field(Site):
    """clients: that the load has. The daemon's changes to the configuration are those of Site.config()."""

    def __init__(self, context, clients, servers=4, newcomers=0):
        if os.geteuid() != 0:
            raise Skipped("network namespaces and big socket buffers need root")
        self.context, self.count, self.stack = context, clients, contextlib.ExitStack()
        self.places = clients if not newcomers else NEWCOMERS + newcomers
        self.program = os.path.abspath(context.build / "tests/prove/homeport-prove")
        self.processes, self.boards, self.lanes = {}, {}, 8
        self.server_ports, self.command = (500, 4500), None
        self.stack.enter_context(patient_loopback())
        self.stack.enter_context(own_net())
        try:
            super().__init__(servers, responders=False, seed=context.seed)
            self.stack.enter_context(tmpfs(self.folder))
            self.ike_port, self.natt_port = 500, 4500
        except BaseException:
            self.stack.close()
            raise

    def _free_net(self):  # nobody else is here
        return f"127.{self.random.randrange(2, 50)}.{self.random.randrange(2, 250)}"

    def __exit__(self, kind, value, trace):
        try:
            for name in list(self.processes):
                self.end(name)
            if self.daemon is not None:
                (self.context.logs / "daemon.log").write_text(self.daemon.log())
            with contextlib.redirect_stdout(io.StringIO()):  # it prints the log
                super().__exit__(kind, value, trace)
        finally:
            self.stack.close()

    # The processes

    def begin(self, name, role, **options):
        """A role of homeport-prove; returns its board when it is ready."""
        path = os.path.join(self.folder, f"{name}.board")
        words = [self.program, role, "--board", path, "--seconds", str(LIMIT)]
        for key, value in options.items():
            words += [f"--{key.replace('_', '-')}", str(value)]
        self.processes[name] = subprocess.Popen(words, stdin=subprocess.DEVNULL)

        def ready():
            assert self.processes[name].poll() is None, f"{name} ended with {self.processes[name].returncode}"
            return os.path.exists(path) and os.path.getsize(path) > 0 and Board(path).ready and Board(path)
        self.boards[name] = wait_for(ready, what=f"{name}'s sockets")
        return self.boards[name]

    def end(self, name):
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def clients_up(self, name="load", **options):
        defaults = {"to": self.vip, "from": CLIENTS, "clients": self.count, "salt": 1 + self.context.seed % 65535}
        return self.begin(name, "load", **{**defaults, **options})

    def planned(self, workers=4, **changes):
        """The configuration: a pair of services and one record a client."""
        changes = {"workers": workers, "log": {"level": "info"}, "affinity": {"capacity": 262144}, **changes}
        changes["sessions"] = {"capacity": 65536, "ports": "10240-29999", "idle": "2h", **changes.get("sessions", {})}
        changes["pools"] = {"all": {"health": {"check": "ike"}}, **changes.get("pools", {})}
        home = {"home": {"plugin": "match_across_services", "options": {"timeout": "2h"}}}
        return self.config(home, "home", **changes)

    def up(self, config=None):
        """The servers, homeport, and its clients, who say nothing yet."""
        config = config or self.planned()
        self.lanes = max(8, 1 << (2 * config["workers"] - 1).bit_length())
        self.servers_up()
        self.write(config)
        self.daemon_up()
        lanes = self.daemon.cli("status")["segment"]["lanes"]
        assert lanes == self.lanes, f"{lanes} lanes, but the servers count {self.lanes}"
        self.clients_up()

    def daemon_up(self):
        self.daemon = Daemon(self.path, command=self.command)
        return self.daemon.wait_ready()

    def servers_up(self):
        return self.begin("sink", "sink", to=self.addresses[self.names[0]], servers=len(self.names), lanes=self.lanes,
                          clients=self.places, ports=",".join(map(str, self.server_ports)))

    # The traffic

    def connect(self, rate=6000, timeout=60):
        """Every client, all the way through."""
        load = self.boards["load"]
        load.tell("rate", rate)
        load.tell("mode", 1)
        wait_for(lambda: load.connected == self.count, timeout, f"the last of {self.count} clients")

    def talk(self, rate):
        self.boards["load"].tell("rate", rate)
        self.boards["load"].tell("mode", 2)

    def settle(self, name="load", quiet=0.5, timeout=20):
        """Nobody sends any more, and nothing comes any more."""
        load, sink = self.boards[name], self.boards["sink"]
        load.tell("mode", 0)
        last, since, deadline = None, time.monotonic(), time.monotonic() + timeout
        while time.monotonic() < deadline:
            now = (load.sent, load.received, sink.received)
            if now != last:
                last, since = now, time.monotonic()
            if time.monotonic() - since > quiet:
                return
            time.sleep(0.02)

    def pids(self):
        return self.daemon.alive(keepers=False)

    def workers_by_number(self):
        status = self.daemon.cli("status")
        return {one["number"]: one["pid"] for one in status["processes"] if one["role"] == "worker"}

    def children(self):
        """Pids of the master's children that have a place."""
        return self.daemon.children()


def counters(field):
    return field.daemon.cli("status")["counters"]


def bare(field, sockets):
    """Milliseconds that binding and connecting as many sockets takes here and now, without any balancer."""
    result = subprocess.run([field.program, "bare", "--clients", str(sockets), "--from", "127.0.0.2", "--to",
                             field.addresses[field.names[0]], "--servers", "4", "--own-ports", "10240,29999"],
                            stdout=subprocess.PIPE, check=True, text=True, timeout=60)
    return float(result.stdout)


def split_clients(field):
    """Clients whose two flows are at two servers."""
    flows = field.boards["sink"].flows()
    return sum(1 for first, second in zip(flows[::2], flows[1::2])
               if first[0] and second[0] and first[0] != second[0])


def clean(claims, field):
    """Void when generator or servers dropped something themselves."""
    for name, board in field.boards.items():
        claims.check(board.queue_drops == 0, f"void: {name} lost {board.queue_drops} datagrams in its own queue")
        claims.check(board.send_errors == 0, f"void: the kernel took {board.send_errors} datagrams of {name} not")
        claims.check(board.stray == 0, f"{name} saw {board.stray} datagrams that were not for it")


def account(claims, field, port_changes=None):
    """Who stayed where they were. port_changes: how the figure is called where a source port may change."""
    sink, load = field.boards["sink"], field.boards["load"]
    clean(claims, field)
    claims.figure("datagrams sent", load.sent)
    if load.behind:
        claims.figure("datagrams left out, the generator was late", load.behind)
    claims.none("clients moved", sink.moved + split_clients(field))
    if port_changes:
        claims.figure(port_changes, sink.port_changed)
    else:
        claims.none("source ports changed", sink.port_changed)


def lost(field):
    """(requests, answers) so far."""
    sink, load = field.boards["sink"], field.boards["load"]
    return load.sent - sink.received, sink.answered - sink.probes - load.received


def losses(claims, field, before):
    """Where what was lost was lost, by everybody's own books. before: (counters(), kernel()) of the start."""
    now, udp = counters(field), kernel()
    refused = {name: now[name] - before[0][name] for name in now if re.match("(refused|dropped)_", name)}
    queue = refused.pop("dropped_socket_queue")
    said, heard = lost(field)
    closed = udp["NoPorts"] - before[1]["NoPorts"]
    backlog = udp["Backlog"] - before[1]["Backlog"]
    claims.figure("requests lost", said)
    claims.figure("  in a listener's queue", queue)
    for name, count in refused.items():
        if count:
            claims.figure(f"  {name}", count)
    if backlog:
        claims.figure("datagrams of either lost in the kernel's backlog, for want of a core", backlog)
    claims.figure("answers lost", heard)
    claims.figure("  at a closed source port", closed)
    return said, heard
