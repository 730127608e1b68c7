# SPDX-License-Identifier: Apache-2.0
"""What is measured: homeport, nginx stream, and no balancer at all. Each can be started and stopped, asked what it has
spent, and has traffic sent through it."""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import time

from bed import INNER, SERVERS, STREAM_SERVERS, STREAM_VIPS, VIPS, Failed, command, end

FIRST_FLOW = {"drive": "10.98.1.0", "ask": "10.98.64.0", "bulk": "10.98.96.0", "connect": "10.98.0.2",
              "push": "10.98.0.2", "pull": "10.98.0.2", "newflows": "10.98.4.0", "hold": "10.98.4.0", "probe": "10.98.0.1"}
CAPACITY = 16384  # clients that a balancer has room for

HOMEPORT_CONFIG = """\
workers: 1
user: nobody
state: {folder}/state
affinity: {{ capacity: {records} }}
sessions: {{ capacity: {capacity} }}
servers:
  a: {{ address: {servers[0]} }}
  b: {{ address: {servers[1]} }}
  c: {{ address: {servers[2]} }}
pools:
  {pools}
persistence:
  clients: {{ plugin: {plugin} }}
services:
  {services}
"""

HOMEPORT_POOL = """\
  sinks-{port}: {{ servers: [ a, b, c ], port: 4500, health: {{ check: none }} }}
"""

HOMEPORT_SERVICE = """\
  nat-t-{port}: {{ listen: "{vip}:{port}", protocol: udp, pool: sinks-{port}, persistence: clients }}
"""

NGINX_CONFIG = """\
load_module {modules}/ngx_stream_module.so;
daemon off;
user nobody nogroup;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
worker_processes 1;
worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
stream {{
    upstream sinks {{
        hash $remote_addr;
        server {servers[0]}:4500;
        server {servers[1]}:4500;
        server {servers[2]}:4500;
    }}
    {services}
}}
"""

NGINX_SERVICE = """\
    server {{
        listen {vip}:{port} udp reuseport rcvbuf=4m sndbuf=4m;
        proxy_pass sinks;
        proxy_timeout 1h;
    }}
"""

HOMEPORT_TCP_CONFIG = """\
workers: 1
user: nobody
state: {folder}/state
servers:
  a: {{ address: {servers[0]} }}
  b: {{ address: {servers[1]} }}
  c: {{ address: {servers[2]} }}
pools:
  sinks: {{ servers: [ a, b, c ], health: {{ check: none }} }}
persistence:
  clients: {{ plugin: match_across_services }}
services:
  sstp: {{ listen: "{vip}:443", protocol: tcp, pool: sinks, persistence: clients }}
"""

NGINX_TCP_CONFIG = """\
load_module {modules}/ngx_stream_module.so;
daemon off;
user nobody nogroup;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
worker_processes 1;
worker_rlimit_nofile {files};
events {{ worker_connections 16384; }}
stream {{
    upstream sinks {{
        hash $remote_addr;
        server {servers[0]}:443;
        server {servers[1]}:443;
        server {servers[2]}:443;
    }}
    server {{
        listen {vip}:443 reuseport backlog=4096;
        proxy_pass sinks;
        proxy_timeout 1h;
    }}
}}
"""

HAPROXY_CONFIG = """\
global
    user nobody
    nbthread 1
    maxconn 8000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen sstp
    bind {vip}:443
    balance source
    {splice}
    server a {servers[0]}:443
    server b {servers[1]}:443
    server c {servers[2]}:443
"""


def descendants(pid):
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = pathlib.Path(entry.path, "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += parents.get(found[-1], [])
    return found


def kilobytes(path, name):
    found = re.search(rf"^{name}:\s+(\d+) kB", pathlib.Path(path).read_text(), re.M)
    return int(found[1]) if found else 0


def slab():
    return kilobytes("/proc/meminfo", "Slab")


class Load:
    """homeport-load, as client of a balancer and as what is behind it."""

    def __init__(self, bed, folder, binary):
        self.bed, self.binary, self.count = bed, binary, folder / "count"

    def sink(self):
        return self.bed.start("server", self.binary, "sink", "--hardware", INNER, "--count", self.count,
                              "--seconds", 3600)

    def server(self):
        """For TCP."""
        return self.bed.start("server", self.binary, "serve", "--count", self.count, "--port", 443, "--seconds", 3600)

    def client(self, role, to, first=None, **options):
        words = [self.binary, role, "--hardware", INNER, "--to", to, "--from", FIRST_FLOW[first or role], "--count",
                 self.count]
        for name, value in options.items():
            words += [f"--{name}", value]
        return self.bed.start("client", *words, stdout=subprocess.PIPE, text=True)


class Balancer:
    target, servers = VIPS[0], SERVERS[0]
    services = 1  # at port 4500 and those behind it
    begin = "esp"  # what its clients say first
    ends_with = (0,)

    def __init__(self, bed, folder, load):
        self.bed, self.load = bed, load
        self.folder = folder / self.name.replace(" ", "-")
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)  # its workers are somebody else
        self.process = self.errors = None

    def of_services(self, template):
        return "".join(template.format(vip=self.target, port=4500 + number) for number in range(self.services)).strip()

    def answers(self):
        return self.role("newflows", flows=1, seconds=0.5, size=100, first="probe", begin=self.begin)["answered"] > 0

    def launch(self, *words):
        self.errors = open(self.folder / "stderr", "w+")
        self.process = self.bed.start("lb", *words, stdout=self.errors, stderr=self.errors)
        deadline = time.monotonic() + 15
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.name} does not serve:\n{(self.folder / 'stderr').read_text()}")

    def stop(self):
        process, self.process = self.process, None
        if process is None:
            return
        end(process)
        if process.returncode not in self.ends_with:
            said = (self.folder / "stderr").read_text()[-2000:]
            raise Failed(f"{self.name} ended with {process.returncode}:\n{said}")

    def role(self, role, **options):
        process = self.load.client(role, self.target, **options)
        output, _ = process.communicate()
        if process.returncode != 0:
            raise Failed(f"{role} ended with {process.returncode}")
        return json.loads(output)

    def measured(self, role, **options):
        """What a role says, and the processor time that was spent meanwhile: spent, of the balancer's processes, and
        busy, of its CPU."""
        process = self.load.client(role, self.target, **options)
        try:
            process.stdout.readline()  # it is warm
            before = self.processor_time(), self.bed.processors.busy()
            output = process.stdout.readline()
            after = self.processor_time(), self.bed.processors.busy()
        finally:
            process.communicate()
        if process.returncode != 0:
            raise Failed(f"{role} ended with {process.returncode}")
        return {**json.loads(output), "spent": after[0] - before[0], "busy": after[1] - before[1]}

    def processor_time(self):
        """Seconds that its processes have spent: what the kernel does in their context, and what it does in interrupts
        while they run, is in it."""
        if self.process is None:
            return 0
        spent_ns = 0
        for one in descendants(self.process.pid):
            try:
                for task in os.scandir(f"/proc/{one}/task"):
                    spent_ns += int(pathlib.Path(task.path, "schedstat").read_text().split()[0])
            except OSError:
                continue  # has ended
        return spent_ns / 1e9

    def memory(self):
        """Proportional set size of its processes, in octets. A keeper has its worker's memory, and none of its own."""
        total = 0
        for one in descendants(self.process.pid):
            try:
                if pathlib.Path(f"/proc/{one}/comm").read_text().strip() == "homeport-keeper":
                    continue
                total += kilobytes(f"/proc/{one}/smaps_rollup", "Pss")
            except OSError:
                continue  # has ended
        return total * 1024


class Direct(Balancer):
    """No balancer: the same wires, the lb namespace only routes. What the load generator itself can do."""

    name, target = "kernel routing", SERVERS[0][0]

    def start(self):
        pass


class Homeport(Balancer):
    name = "homeport"

    def __init__(self, bed, folder, load, binary):
        super().__init__(bed, folder, load)
        self.binary, self.config = binary, self.folder / "homeport.yaml"

    def start(self, plugin="match_across_services", records=1):
        """records: that a client has."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        self.config.write_text(HOMEPORT_CONFIG.format(folder=self.folder, servers=self.servers, plugin=plugin,
                                                      pools=self.of_services(HOMEPORT_POOL),
                                                      services=self.of_services(HOMEPORT_SERVICE),
                                                      records=records * CAPACITY, capacity=CAPACITY))
        self.launch(self.binary, "run", "-c", self.config)

    def ask(self, verb):
        return json.loads(command(self.binary, verb, "-c", self.config, "--json"))


class Nginx(Balancer):
    name = "nginx"

    def start(self):
        config = self.folder / "nginx.conf"
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        (self.folder / "error.log").write_text("")
        config.write_text(NGINX_CONFIG.format(folder=self.folder, servers=self.servers, files=files,
                                              services=self.of_services(NGINX_SERVICE),
                                              connections=2 * CAPACITY, modules="/usr/lib/nginx/modules"))
        self.launch("nginx", "-e", self.folder / "error.log", "-c", config)

    def stop(self):
        super().stop()
        log = (self.folder / "error.log").read_text()
        if log:
            raise Failed(f"nginx wrote to its error log, so its numbers do not count:\n{log[:2000]}")


class NginxBeside(Nginx):
    """At the same time as a homeport."""

    target, servers = VIPS[1], SERVERS[1]


class Streams:
    """A balancer of TCP, beside others at the same time."""

    number = 0

    def __init__(self, bed, folder, load):
        self.target, self.servers = STREAM_VIPS[self.number], STREAM_SERVERS[self.number]
        super().__init__(bed, folder, load)

    def answers(self):
        seen = self.role("connect", window=1, warmup=0, seconds=0.2, port=443)
        return seen["connections"] > 0 and seen["octets"] > 0

    def role(self, role, **options):
        return self.measured(role, **options)

    def write(self, name, template, **more):
        path = self.folder / name
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        path.write_text(template.format(folder=self.folder, vip=self.target, servers=self.servers, files=files,
                                        modules="/usr/lib/nginx/modules", **more))
        return path


class HomeportStreams(Streams, Balancer):
    name = "homeport"

    def __init__(self, bed, folder, load, binary):
        super().__init__(bed, folder, load)
        self.binary = binary

    def start(self):
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        self.launch(self.binary, "run", "-c", self.write("homeport-tcp.yaml", HOMEPORT_TCP_CONFIG))


class NginxStreams(Streams, Balancer):
    name, number = "nginx", 1

    def start(self):
        (self.folder / "error.log").write_text("")
        self.launch("nginx", "-e", self.folder / "error.log", "-c", self.write("nginx-tcp.conf", NGINX_TCP_CONFIG))


class HaproxyStreams(Streams, Balancer):
    name, number, splice = "haproxy", 2, ""
    ends_with = (0, -signal.SIGTERM)

    def start(self):
        self.launch("haproxy", "-db", "-f", self.write("haproxy.cfg", HAPROXY_CONFIG, splice=self.splice))
