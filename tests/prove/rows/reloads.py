# SPDX-License-Identifier: Apache-2.0
"""Reloads under load, each with another change; a new plugin file and a new binary; and reloads that cannot succeed."""
import contextlib
import os
import shutil
import signal
import subprocess
import time

from field import Field, account, counters, kernel, losses, lost, pss
from homeport import binary, cli, foreign_plugin, plugin_folder, wait_for
from prove import Claims, Row

PLUGIN = "match_across_services"
UNUSED = "vpn9"  # a server that comes and goes; whoever is there stays, so nobody uses it


class Changes:
    """The configuration, and one change after the other; after ten of them there is as much as before."""

    def __init__(self, field):
        self.field, self.round = field, 0
        self.weight, self.more, self.specific, self.timeout, self.mask = 1, False, False, 120, 32
        self.server, self.workers, self.scheduler = False, 4, "weighted_round_robin"
        self.steps = [self.another_weight, self.service_more, self.another_plugin, self.service_less,
                      self.another_scheduler, self.another_timeout, self.another_mask, self.another_server,
                      self.another_plugin, self.another_number]

    def another_weight(self):
        self.weight = self.weight % 9 + 1

    def service_more(self):
        self.more = True

    def service_less(self):
        self.more = False

    def another_scheduler(self):
        self.scheduler = "least_clients" if self.scheduler == "weighted_round_robin" else "weighted_round_robin"

    def another_timeout(self):
        self.timeout = 180 if self.timeout == 120 else 120

    def another_mask(self):  # /32 is what it is without the option: the same key
        self.mask = None if self.mask else 32

    def another_server(self):
        self.server = self.round % 3 == 1

    def another_plugin(self):
        install_plugin(self.field)

    def another_number(self):
        self.workers = (4, 3, 5)[self.round % 3]

    def config(self):
        field, options = self.field, {"timeout": f"{self.timeout}m", "match_across_virtuals": True}
        if self.mask:
            options["mask"] = self.mask
        names = [*field.names, *([UNUSED] if self.server else [])]
        pools = {"all": None}
        for name, port in zip(("ike", "nat-t"), field.server_ports):
            pools[name] = {"servers": names, "port": port, "health": {"check": "ike"},
                           "scheduler": self.scheduler}
        services = {name: {"listen": f"0.0.0.0:{port}", "pool": name} for name, port in (("ike", 500), ("nat-t", 4500))}
        if self.specific:
            services["nat-t-here"] = {"listen": f"{field.vip}:4500", "protocol": "udp", "pool": "nat-t",
                                      "persistence": "home"}
        if self.more:
            services["more"] = {"listen": f"{field.vip}:4501", "protocol": "udp", "pool": "more",
                                "persistence": "home"}
            pools["more"] = {**pools["nat-t"], "port": 7451}
        servers = {field.names[0]: {"weight": self.weight}}
        if self.server:
            servers[UNUSED] = {"address": f"{field.net}.99"}
        # A flow that the specific listener takes has two sessions for a while.
        config = field.planned(self.workers, pools=pools, services=services, servers=servers,
                               sessions={"capacity": 131072},
                               plugin_path=[os.path.join(field.folder, "plugins")])
        config["persistence"]["home"]["options"] = options
        return config

    def next(self, number):
        """The change number 1 and so on, in the file."""
        self.round = (number - 1) // len(self.steps) + 1
        step = self.steps[(number - 1) % len(self.steps)]
        step()
        self.field.write(self.config())
        return step.__name__


def replace(source, path):
    """A new file in place of the old one."""
    shutil.copyfile(source, path + ".new")
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)


def install_plugin(field, source=None):
    folder = os.path.join(field.folder, "plugins")
    os.makedirs(folder, exist_ok=True)
    replace(source or os.path.join(plugin_folder(), PLUGIN, f"{PLUGIN}.so"), os.path.join(folder, f"{PLUGIN}.so"))


def reload(field):
    """Milliseconds until it was answered."""
    begin = time.monotonic()
    field.daemon.cli("reload", json=False)
    return (time.monotonic() - begin) * 1000


def is_of_a_file_that_is_gone(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe").endswith("(deleted)")
    except FileNotFoundError:  # it has just ended
        return False


def quiet_children(field):
    """When the last of the old processes has gone."""
    status = field.daemon.cli("status")
    wait_for(lambda: len(field.children()) == status["workers"] + 1, 10, "the end of the old workers")


def measure(field):
    quiet_children(field)
    return field.daemon.steady_descriptors(), pss(field.pids())


def in_time(claims, field, changes, number, spacing):
    """So many reloads. Returns (descriptors, PSS) after the tenth and after the last."""
    times, marks, begin = [], {}, time.monotonic()
    for one in range(1, number + 1):
        changes.next(one)
        times.append(reload(field))
        seconds = time.monotonic() - begin
        if one in (10, number):
            marks[one] = measure(field)
            begin += time.monotonic() - begin - seconds  # which waits until all is quiet
        time.sleep(max(0, begin + one * spacing - time.monotonic()))
    claims.figure("reloads", number)
    claims.most("in seconds", round(seconds, 1), field.context.limit(600 * number) / 1000)
    claims.figure("a reload takes ms, at most", round(max(times)))
    return marks[10], marks[number]


def refused(claims, field, what, wanted):
    """A reload that must fail: one message, and nobody notices."""
    before, place = field.children(), field.daemon.mark()
    result = cli("reload", "--state", os.path.join(field.folder, "state"), json=False, status=None,
                 command=field.daemon.command)
    claims.check(result.returncode == 1 and wanted in result.stderr,
                 f"{what}: status {result.returncode}, said {result.stderr[:500]!r}")
    claims.check(field.children() == before, f"{what}: other processes run now")
    field.daemon.wait_log("master: error:", after=place)
    lines = [line for line in field.daemon.log().splitlines()[place:] if "master: error:" in line]
    claims.check(len(lines) == 1, f"{what}: {len(lines)} messages in the log: {lines}")


def that_fail(claims, field, changes):
    good = changes.config()
    field.write("servers: [\n")
    refused(claims, field, "a bad file", f"{field.path}:")
    os.unlink(field.path)
    refused(claims, field, "a file that vanished", "No such file")
    field.write(good)
    install_plugin(field, foreign_plugin(field.folder))
    refused(claims, field, "a plugin that cannot be loaded", f"{PLUGIN}.so")
    install_plugin(field)


def during_another(claims, field):
    """Both are answered; the second runs afterwards."""
    place = field.daemon.mark()
    words = [*field.daemon.command, "reload", "-c", field.path]
    both = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=30)[1] for one in both]
    claims.check([one.returncode for one in both] == [0, 0], f"a reload during a reload: {said}")
    lines = [line for line in field.daemon.log().splitlines()[place:] if ": error:" in line]
    claims.check(not lines, f"a reload during a reload: {lines}")
    quiet_children(field)


def more_specific(claims, field, changes, rounds):
    """A listener that is more specific than the wildcard takes over half of the flows under load, and goes again."""
    rate = field.context.rate()
    changes.workers = 4  # three would need more descriptors than a process may have here
    field.write(changes.config())
    reload(field)
    field.settle()
    before = lost(field)
    field.talk(rate)
    for _ in range(rounds):
        for changes.specific in (True, False):
            field.write(changes.config())
            reload(field)
            time.sleep(field.count / rate)  # for half of the flows to speak
    field.settle()
    claims.figure("a listener more specific than a wildcard came and went, times", rounds)
    requests, answers = lost(field)
    claims.none("  requests lost", requests - before[0])
    claims.none("  answers lost", answers - before[1])


def ended(claims, field):
    """SIGTERM during a reload: everything ends, with status 0."""
    asked = subprocess.Popen([*field.daemon.command, "reload", "-c", field.path], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    time.sleep(field.random.uniform(0, 0.1))
    begin = time.monotonic()
    field.daemon.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(AssertionError):
        field.daemon.process.wait(10)
    claims.figure("SIGTERM during a reload: ended after ms", round((time.monotonic() - begin) * 1000))
    claims.check(field.daemon.process.returncode == 0,
                 f"SIGTERM during a reload: exit status {field.daemon.process.returncode}")
    wait_for(lambda: not field.daemon.alive(), 5, "the end of every process")
    asked.wait(20)


def growth(claims, first, last):
    claims.figure("descriptors of the master, after reload 10 and after the last", f"{first[0]} and {last[0]}")
    claims.check(first[0] == last[0], f"descriptors of the master: {first[0]}, then {last[0]}")
    claims.figure("PSS in KB, after reload 10 and after the last", f"{first[1]} and {last[1]}")
    claims.check(last[1] <= first[1] * 1.01, f"PSS has grown from {first[1]} to {last[1]} KB")


def run(context):
    clients, number, spacing = (2500, 10, 0.3) if context.short else (25000, 100, 0.59)
    claims = Claims()
    with Field(context, clients) as field:
        field.server_ports = (7500, 7450)
        field.command = [os.path.join(field.folder, "homeport")]
        replace(binary(), field.command[0])
        install_plugin(field)
        changes = Changes(field)
        field.up(changes.config())
        before = counters(field), kernel()
        field.connect()
        field.talk(field.context.rate())
        first, last = in_time(claims, field, changes, number, spacing)
        growth(claims, first, last)
        replace(binary(), field.command[0])
        claims.figure("a new binary: the reload takes ms", round(reload(field)))
        wait_for(lambda: not any(is_of_a_file_that_is_gone(pid) for pid in field.children()), 10,
                 "processes of the new binary alone")
        quiet_children(field)
        that_fail(claims, field, changes)
        during_another(claims, field)
        field.settle()
        said, heard = losses(claims, field, before)
        claims.check(said == 0 and heard == 0, f"{said} requests and {heard} answers were lost")
        claims.none("source ports changed", field.boards["sink"].port_changed)
        more_specific(claims, field, changes, 1 if context.short else 5)
        account(claims, field, port_changes="  source ports changed by it")
        ended(claims, field)
        field.daemon = None
    return claims.done()


ROWS = [Row("reloads", "Reloads under load, each with another change, a new plugin file and a new binary lose no datagram "
            "and move no client; one that fails changes nothing", run)]
