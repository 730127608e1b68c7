# SPDX-License-Identifier: Apache-2.0
"""What system tests need: the daemon as a user starts it, and around it the responders and clients of ike.py.

Everything lives on loopback, at addresses and ports that are looked for afresh, in a folder of its own, and works with
and without root. Nothing here sleeps for a fixed time where an event can be awaited. The daemon's binary is
$HOMEPORT, or build/core/homeport of the source tree.

    with Site(servers=3) as site:
        site.start(persistence={"aovpn": {"plugin": "match_across_services"}}, profile="aovpn")
        client = site.client()
        assert client.connect()
        assert site.server_of(client) is not None
"""
import atexit
import contextlib
import functools
import glob
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time

import yaml
from ike import Client, Responder, udp_socket
from netns import ip

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@functools.cache
def binary():
    """The daemon under test. As root, its workers and its check child become another user before they load plugins: from
    a build tree that others cannot enter (a checkout in /root) this is a copy of the tree's binary and plugins."""
    built = os.path.abspath(os.environ.get("HOMEPORT", os.path.join(ROOT, "build", "core", "homeport")))
    if os.geteuid() != 0 or not os.path.exists(built) or others_can_enter(os.path.dirname(built)):
        return built
    folder = tempfile.mkdtemp(prefix="homeport-tree-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return copy_tree(built, folder)


def others_can_enter(folder):
    return all(os.stat(part).st_mode & 0o001 for part in (folder, *pathlib.Path(folder).parents))


def copy_tree(built, folder):
    """Copies what a user needs of a build tree to a folder that everybody can read: the binary, its plugins, and the
    sample configurations where the demo looks for them. Returns the path of the binary."""
    target = os.path.join(folder, "build", "core", "homeport")
    plugins = os.path.join(os.path.dirname(os.path.dirname(built)), "plugins")
    copies = {built: target}
    for path in glob.glob(os.path.join(plugins, "*", "*.so")):
        copies[path] = os.path.join(folder, "build", "plugins", os.path.relpath(path, plugins))
    for path in glob.glob(os.path.join(ROOT, "configs", "*.yaml")):
        copies[path] = os.path.join(folder, "configs", os.path.basename(path))
    for source, path in copies.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(source, path)
        os.chmod(path, 0o755)
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)
    return target


def meson_install(folder):
    """Installs the build that is under test below folder (DESTDIR). False: this user has no build to install from."""
    built = os.path.abspath(os.environ.get("HOMEPORT", os.path.join(ROOT, "build", "core", "homeport")))
    build = os.path.dirname(os.path.dirname(built))
    if shutil.which("meson") is None or not os.access(os.path.join(build, "build.ninja"), os.W_OK):
        return False
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", folder], check=True,
                   timeout=60, stdout=subprocess.DEVNULL)
    return True


def wait_for(predicate, timeout=10.0, what="the awaited thing"):
    """Returns the first true value of predicate(); fails with `what` after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {timeout} s")
        time.sleep(0.01)


def descriptors(pid):
    """How many a process has."""
    path = f"/proc/{pid}/fd"
    return os.stat(path).st_size or len(os.listdir(path))  # 0 before Linux 6.2


class Daemon:
    """homeport as a user starts it: `homeport run -c FILE`, its log on standard error. prefix: a command that runs it
    elsewhere ("ip netns exec NAME"). command: another homeport than binary(), for run and for cli()."""

    def __init__(self, path, environment=None, prefix=(), command=None):
        self.path, self.lines, self.changed = path, [], threading.Condition()
        self.command = command or [binary()]
        self.process = subprocess.Popen([*prefix, *self.command, "run", "-c", path], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
                                        env={**os.environ, **(environment or {})}, start_new_session=True)
        self.session = self.process.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.lines.append("")  # the end: wakes whoever waits
            self.changed.notify_all()

    def log(self):
        with self.changed:
            return "\n".join(self.lines)

    def mark(self):
        """A place in the log, for wait_log(after=...)."""
        with self.changed:
            return len(self.lines)

    def wait_log(self, pattern, timeout=10.0, after=0):
        """Waits for a log line that the regular expression matches; returns the match."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                for line in self.lines[after:]:
                    match = re.search(pattern, line)
                    if match:
                        return match
                left = deadline - time.monotonic()
                if left <= 0 or (not self.reader.is_alive() and self.process.poll() is not None):
                    raise AssertionError(f"no log line matches {pattern!r}; the log was:\n" + "\n".join(self.lines))
                self.changed.wait(min(left, 0.2))

    def wait_ready(self, timeout=20.0):
        self.wait_log(r'(^|[\s:"])ready\b', timeout)
        return self

    def cli(self, verb, *arguments, json=True, status=0):
        """Runs a verb against this daemon. json: the parsed answer of --json, else standard output's text."""
        return cli(verb, "-c", self.path, *arguments, json=json, status=status, command=self.command)

    def children(self, role=None):
        """Pids of the daemon's processes besides the master, by role (_worker, _monitor), in order of their pids. The
        spare worker, who comes a moment later than they, is asked for by name (spare) alone."""
        found = []
        for pid, fields, command in processes():
            if int(fields[1]) == self.process.pid and (role is None or role in command) and \
                    ("spare" in command) == (role == "spare"):
                found.append(pid)
        return sorted(found)

    def workers(self):
        return self.children("_worker")

    def spare(self):
        """The pid of the spare worker that is ready to take the place of one that dies; None: there is none yet."""
        for one in self.cli("status")["processes"]:
            if one["role"] == "spare" and one["loop_age_ms"] < one["age_ms"]:  # its loop has turned
                return one["pid"]
        return None

    def await_spare(self):
        return wait_for(self.spare, 10, "a spare worker")

    def steady_descriptors(self):
        """Of the master, when its spare worker is there; it learns of a new keeper at its next tick."""
        self.await_spare()
        seen = [descriptors(self.process.pid)]

        def is_steady():
            time.sleep(0.5)
            seen.append(descriptors(self.process.pid))
            return seen[-1] == seen[-2]
        wait_for(is_steady, 10, "an end of the changes in the master's descriptors")
        return seen[-1]

    def monitor(self):
        return self.children("_monitor")[0]

    def kill(self, pid, number=signal.SIGKILL):
        assert pid > 1  # 0 is a whole group, ours too
        os.kill(pid, number)

    def reload(self, timeout=10.0):
        """By the verb, which answers when the new configuration serves."""
        return self.cli("reload", json=False)

    def alive(self, keepers=True):
        """keepers: those as well who keep the workers' sockets; each has its worker's memory and command line."""
        return [pid for pid, fields, _ in processes() if int(fields[3]) == self.session and fields[0] != "Z" and
                (keepers or not is_keeper(pid))]

    def keepers(self):
        return sorted(set(self.alive()) - set(self.alive(keepers=False)))

    def stop(self, timeout=10.0, status=0):
        """SIGTERM; checks the exit status and that nobody is left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            ended = self.process.wait(timeout)
            wait_for(lambda: not self.alive(), 5, "the end of every process of the daemon")
        finally:
            self.abandon()
        assert ended == status, f"exit status {ended}, not {status}; the log was:\n{self.log()}"

    def abandon(self):
        """Ends whatever is left, for tests that fail."""
        kill_all(self.alive)
        self.process.wait(10)
        close_behind(self.reader, self.process.stderr)


def kill_all(alive):
    """Those that alive() names, until it names nobody: one may be born of another while they are killed."""
    def nobody_is_left():
        left = alive()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left
    wait_for(nobody_is_left, 10, "the end of every process that was killed")


def close_behind(reader, pipe):
    """A pipe that a thread reads to its end. If somebody has the other end still, it stays: to close it would wait, too."""
    reader.join(5)
    if not reader.is_alive():
        pipe.close()


def is_keeper(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "homeport-keeper"
    return False


def processes():
    """(pid, fields of /proc/PID/stat from the state on, command line) of every process."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
                with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as line:
                    yield int(entry), fields, line.read().split("\0")


def without_leaks():
    """For who only asks the daemon: to look for its leaks takes a sanitizer longer than all that it does."""
    options = os.environ.get("ASAN_OPTIONS")
    return {**os.environ, "ASAN_OPTIONS": f"{options}:detect_leaks=0"} if options else None


def cli(verb, *arguments, json=True, status=0, timeout=20, command=None):
    """Runs `homeport VERB ARGUMENTS [--json]`. Checks the exit status (None: any; then returns the whole result).
    command: another homeport than binary()."""
    command = [*(command or [binary()]), verb, *arguments, *(["--json"] if json else [])]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                            check=False, env=None if verb == "check" else without_leaks())
    if status is None:
        return result
    assert result.returncode == status, f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    return parse(result.stdout) if json else result.stdout


def parse(text):
    return json.loads(text)


class Site:
    """A folder, loopback addresses and ports that nobody else uses, responders, clients and a daemon.

    Addresses are 127.A.B.x with random A and B: .1 is where the daemon listens, .11 and so on are the servers, clients
    begin at .96 and go on in 127.A.B+1.

    family: of the servers, clients: of the listener and the clients. 6 needs a network namespace of the test's own:
    addresses fd00:A:B:C::x, numbered in the same way, are added to its loopback.
    """

    def __init__(self, servers=2, responders=True, echo=False, seed=None, family=4, clients=None):
        self.random = random.Random(seed)
        self.net = self._free_net()
        self.net6 = ":".join(["fd00", *(f"{self.random.randrange(1, 65536):x}" for _ in range(3))])
        self.client_family, self.added = clients or family, set()
        self.vip = self.host(1, self.client_family)
        self.ike_port, self.natt_port = self._free_port(), self._free_port()
        first = self.random.randrange(10240, 28000)
        self.port_range = f"{first}-{first + 1999}"
        self.names = [f"vpn{number + 1}" for number in range(servers)]
        self.addresses = {name: self.host(11 + number, family) for number, name in enumerate(self.names)}
        self.folder = tempfile.mkdtemp(prefix="homeport-test-")
        os.chmod(self.folder, 0o755)
        self.path = os.path.join(self.folder, "homeport.yaml")
        self.clients, self.responders, self.daemon = [], {}, None
        if responders:
            for name, address in self.addresses.items():
                self.responders[name] = Responder(name, address, [self.ike_port, self.natt_port], echo)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if self.daemon is not None:
                if kind is None:
                    self.daemon.stop()
                else:
                    self.daemon.abandon()
        finally:
            if self.daemon is not None:
                print("the daemon's log was:\n" + self.daemon.log())  # shown by pytest when the test fails
            for one in [*self.clients]:
                one.close()
            for one in self.responders.values():
                one.stop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _free_net(self):
        for _ in range(1000):
            net = f"127.{self.random.randrange(20, 250)}.{self.random.randrange(2, 250)}"
            with contextlib.suppress(OSError):
                udp_socket(f"{net}.1", 20001).close()
                return net
        raise OSError("no loopback network is free")

    def host(self, number, family):
        """The address of this number."""
        if family == 4:
            prefix, third = self.net.rsplit(".", 1)
            return f"{prefix}.{int(third) + number // 256}.{number % 256}"
        address = f"{self.net6}::{number:x}"
        if address not in self.added:
            ip("address", "add", f"{address}/128", "dev", "lo", "nodad")  # at once
        self.added.add(address)
        return address

    def _free_port(self):
        with contextlib.closing(udp_socket(self.vip)) as one:
            return one.getsockname()[1]

    def config(self, persistence=None, profile=None, **changes):
        """The configuration as a mapping: an IKE pair over all servers. changes replace whole top-level keys; servers,
        pools, services and persistence are merged one level deep, None takes a name out."""
        service = {"protocol": "udp", "pool": "all"}
        config = {
            "workers": 2,
            "state": os.path.join(self.folder, "state"),
            "plugin_path": [os.environ.get("HOMEPORT_PLUGINS", plugin_folder())],
            "log": {"level": "debug"},
            "sessions": {"ports": self.port_range},
            "servers": {name: {"address": address} for name, address in self.addresses.items()},
            "pools": {"all": {"servers": list(self.names), "health": {"check": "none"}}},
            "services": {
                "ike": {"listen": endpoint(self.vip, self.ike_port), **service},
                "nat-t": {"listen": endpoint(self.vip, self.natt_port), **service},
            },
        }
        if os.geteuid() == 0:
            config["user"] = "nobody"
        if persistence:
            config["persistence"] = dict(persistence)
        for name in ("ike", "nat-t"):
            if profile:
                config["services"][name]["persistence"] = profile
        for key, value in changes.items():
            if key in ("servers", "pools", "services", "sessions", "log") and isinstance(value, dict):
                for name, one in value.items():
                    if one is None:
                        config[key].pop(name, None)
                    elif isinstance(config[key].get(name), dict) and isinstance(one, dict):
                        config[key][name] = {**config[key][name], **one}
                    else:
                        config[key][name] = one
            elif value is None:
                config.pop(key, None)
            else:
                config[key] = value
        return config

    def write(self, config):
        """config: a mapping as from config(), or YAML text. The file that the daemon reads."""
        return write_config(self.path, config)

    def start(self, *arguments, environment=None, **changes):
        """Writes the configuration (see config()) and starts the daemon; returns when it is ready."""
        self.write(self.config(*arguments, **changes))
        self.daemon = Daemon(self.path, environment)
        return self.daemon.wait_ready()

    def restart(self):
        """Stops the daemon and starts it again on the same file and state."""
        self.daemon.stop()
        self.daemon = Daemon(self.path)
        return self.daemon.wait_ready()

    def client_address(self, number):
        return self.host(number // 128 * 256 + 96 + number % 128, self.client_family)

    def client(self, number=None, ports=(0, 0)):
        """A client at the next address, or at the address of that number (from 0)."""
        address = self.client_address(len(self.clients) if number is None else number)
        one = Client(address, self.vip, self.ike_port, self.natt_port, ports)
        self.clients.append(one)
        return one

    def servers_of(self, client, kind="init"):
        """Names of the servers that have seen this kind of datagram of the client's present IKE_SA."""
        return [name for name, one in self.responders.items() if one.of_kind(kind, client.spi_i)]

    def server_of(self, client, kind="init"):
        """The one server of it; None: no server, or more than one."""
        names = self.servers_of(client, kind)
        return names[0] if len(names) == 1 else None


def endpoint(address, port):
    """As in configuration and answers."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def connected(site, count, number=None):
    """So many new clients, each all the way through; all at the address of that number, else each at its own."""
    clients = [site.client(number) for _ in range(count)]
    for client in clients:
        assert client.connect(), f"{client.address} did not connect"
    return clients


def cells(site):
    """(client, service) -> (server, source port) of every session."""
    rows = site.daemon.cli("sessions")["sessions"]
    return {(row["client"], row["service"]): (row["server"], row["source_port"]) for row in rows}


class PlainDumper(yaml.SafeDumper):
    """Writes a list that stands in two places twice; the daemon reads no anchors."""

    def ignore_aliases(self, data):
        return True


def write_config(path, config):
    """config: a mapping or YAML text. Written beside and renamed, so that a reload never reads half of it."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(config if isinstance(config, str) else yaml.dump(config, Dumper=PlainDumper, sort_keys=False))
    os.chmod(path + ".new", 0o644)
    os.rename(path + ".new", path)
    return path


def foreign_plugin(folder):
    """foreign.so: a shared object for another machine than this one."""
    path = os.path.join(folder, "foreign.so")
    machine = 183 if os.uname().machine != "aarch64" else 62
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 4096, 4096, 4096)
    with open(path, "wb") as file:
        file.write((header + segment).ljust(4096, b"\0"))
    os.chmod(path, 0o755)
    return path


def plugin_folder():
    """The plugins of the build tree that the binary comes from."""
    return os.path.join(os.path.dirname(os.path.dirname(binary())), "plugins")
