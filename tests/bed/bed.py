# SPDX-License-Identifier: Apache-2.0
"""A bed (bed.sh) with homeport in the middle, and what its peers and its own captures say about each client."""
import collections
import concurrent.futures
import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading

import homeport
import ike

HERE = os.path.dirname(os.path.abspath(__file__))
VIP, BALANCER, PROBER = "10.77.1.1", "10.77.2.1", "10.77.2.2"
VIP6, SERVER_NETS = "fd77:1::1", {4: "10.77.2.", 6: "fd77:2::"}
NEEDED = {"ip": "iproute2", "ping": "iputils-ping", "nft": "nftables",
          "conntrack": "conntrack", "tcpdump": "tcpdump", "swanctl": "strongswan-swanctl",
          "charon-systemd": "charon-systemd", "pki": "strongswan-pki"}
PLUGINS = {"openssl": "libstrongswan-standard-plugins", "kernel-libipsec": "libcharon-extra-plugins"}

# What came to a server: when, from which address and port, to which port. fragment: a part of a datagram.
Packet = collections.namedtuple("Packet", "time source port fragment body")


def missing():
    """Why no bed can be built here; empty: one can."""
    if os.geteuid() != 0:
        return "the bed needs root (network namespaces)"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [package for command, package in NEEDED.items() if shutil.which(command, path=path) is None]
    for plugin, package in PLUGINS.items():
        if not os.path.exists(f"/usr/lib/ipsec/plugins/libstrongswan-{plugin}.so"):
            absent.append(package)
    return "not installed: " + " ".join(absent) if absent else ""


def all_at_once(function, items):
    """Calls function for each item in a thread of its own; returns the results in order."""
    items = list(items)
    with concurrent.futures.ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(function, items))


class Bed:
    """clients 1..N and servers 1..M; every process and namespace is gone after close().

    family: 6 lets the balancer speak IPv6 with the servers; VIP=VIP6 lets the clients speak it.
    settings go to bed.sh (VIP, NAT, AUTH, FRAGMENTATION, PKI, DPD, RETRANSMIT_...).
    """

    def __init__(self, clients=6, servers=3, family=4, **settings):
        self.vip, self.server_net = settings.get("VIP", VIP), SERVER_NETS[family]
        self.folder = tempfile.mkdtemp(prefix="homeport-bed-")
        os.chmod(self.folder, 0o755)
        self.clients, self.servers, self.daemon = range(1, clients + 1), range(1, servers + 1), None
        self.namespace = "hp" + os.path.basename(self.folder)[-6:]
        self.environment = {**os.environ, "BED": os.path.join(self.folder, "bed"), "NS": self.namespace,
                            **{name: str(value) for name, value in settings.items()}}
        self.captures = []
        try:
            self.sh("up", clients, servers)
            for server in self.servers:
                self._capture(server)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if self.daemon is not None:
                print("homeport's log was:\n" + self.daemon.log())  # shown by pytest when the test fails
                if kind is None:
                    self.daemon.stop()
        finally:
            self.close()

    def close(self):
        if self.daemon is not None and self.daemon.process.poll() is None:
            self.daemon.abandon()
        for process in self.captures:
            process.terminate()
            process.wait()
        self.sh("down", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- running things

    def sh(self, *arguments, check=True, timeout=60):
        result = subprocess.run([os.path.join(HERE, "bed.sh"), *map(str, arguments)], env=self.environment, text=True,
                                capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False)
        if check and result.returncode != 0:
            raise AssertionError(f"bed.sh {arguments} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
        return result

    def within(self, name):
        """The prefix that runs a command in a namespace (lb, v1, c1, ...)."""
        return ["ip", "netns", "exec", f"{self.namespace}-{name}"]

    def run(self, name, *command):
        return subprocess.run([*self.within(name), *command], text=True, capture_output=True, check=True,
                              timeout=60).stdout

    def nft(self, rules):
        """Loads an nft ruleset into the balancer's namespace."""
        subprocess.run([*self.within("lb"), "nft", "-f", "-"], input=rules, text=True, check=True, timeout=10)

    def cut(self, match, hook="input"):
        """Drops and counts in the balancer's namespace what matches, until mend()."""
        chain = f"type filter hook {hook} priority 0\n{match} counter drop"
        self.nft(f"table inet cut {{\nchain dropped {{\n{chain}\n}}\n}}\n")

    def dropped(self):
        return int(re.search(r"packets (\d+)", self.run("lb", "nft", "list", "table", "inet", "cut")).group(1))

    def mend(self):
        self.nft("delete table inet cut\n")

    # --- homeport

    def config(self, plugin, options=None, per_service=None, health=None, pools=("vpn", "vpn"), source=None):
        names = [f"vpn{server}" for server in self.servers]
        services = {}
        for name, port, pool in (("ike", 500, pools[0]), ("nat-t", 4500, pools[1])):
            persistence = {"profile": "way", **(per_service or {}).get(name, {})}
            services[name] = {"listen": homeport.endpoint(self.vip, port), "protocol": "udp", "pool": pool,
                              "persistence": persistence}
        return {
            "workers": 2, "user": "nobody", "state": os.path.join(self.folder, "state"),
            "plugin_path": [os.environ.get("HOMEPORT_PLUGINS", homeport.plugin_folder())],
            "servers": {f"vpn{server}": {"address": f"{self.server_net}{10 + server}"} for server in self.servers},
            "pools": {pool: {"servers": names, **({"health": health} if health else {}),
                             **({"source": source} if source else {})} for pool in set(pools)},
            "persistence": {"way": {"plugin": plugin, **({"options": options} if options else {})}},
            "services": services,
        }

    def homeport(self, *arguments, **named):
        """Starts homeport in the middle; the arguments are those of config()."""
        path = homeport.write_config(os.path.join(self.folder, "homeport.yaml"), self.config(*arguments, **named))
        return self._start(path)

    def _start(self, path):
        self.daemon = homeport.Daemon(path, prefix=self.within("lb"))
        return self.daemon.wait_ready()

    @contextlib.contextmanager
    def homeport_down(self):
        """homeport is not there meanwhile, and starts again with the same file and state."""
        self.daemon.stop()
        yield
        self._start(self.daemon.path)

    def kill_workers(self):
        """Kills every worker and waits for the new ones."""
        killed = self.daemon.workers()
        for pid in killed:
            self.daemon.kill(pid)
        homeport.wait_for(lambda: len(self.daemon.workers()) == len(killed) and
                          not set(killed) & set(self.daemon.workers()), 10, "new workers")

    # --- clients

    def connect(self, client, seconds=15):
        """True: client N's tunnel is up. If not, what its charon says is printed, for who reads the failed test."""
        result = self.sh("connect", client, seconds, check=False)
        if result.returncode != 0:
            print(f"client {client}: {result.stderr}{self.charon_log('c', client)}")
        return result.returncode == 0

    def charon_log(self, kind, number, lines="packet: |retransmit|giving up|error|IKE_SA"):
        """The exchanges in a charon's log, without the payloads."""
        try:
            with open(os.path.join(self.folder, "bed", f"{kind}{number}", "charon.log"), encoding="utf-8") as file:
                return "".join(line for line in file if re.search(lines, line))
        except OSError as error:
            return f"{error}\n"

    def disconnect(self, client):
        self.sh("disconnect", client)

    def ping(self, client, count=3, interval=0.2):
        """How many of the pings through the client's tunnel were answered."""
        result = self.sh("ping", client, "-c", count, "-i", interval, "-W", 2, check=False,
                         timeout=count * interval + 30)
        return int(re.search(r"(\d+) received", result.stdout).group(1)) if "received" in result.stdout else 0

    def connect_and_ping(self, client):
        return self.connect(client) and self.ping(client) == 3

    def connect_all(self, at_once=None):
        """Every client from scratch, at the same time or so many at once; returns server by client."""
        clients, up = list(self.clients), []
        for first in range(0, len(clients), at_once or len(clients)):
            up += all_at_once(self.connect_and_ping, clients[first:first + (at_once or len(clients))])
        failed = [client for client, good in zip(clients, up) if not good]
        assert not failed, f"no tunnel or no pings: clients {failed}"
        return self.homes(came_on_500=True)

    def disconnect_all(self):
        all_at_once(self.disconnect, self.clients)

    def hang_up_all(self):
        """Closes every tunnel. The clients' daemons stay: to connect again takes a tenth of the time."""
        all_at_once(lambda client: self.sh("swan", f"c{client}", "--terminate", "--ike", "vpn"), self.clients)

    def rekey(self, name, what):
        """A peer (c1, v1, ...) starts the rekeying of its IKE_SAs ("ike") or of their CHILD_SAs ("child")."""
        self.sh("swan", name, "--rekey", *(["--ike", "vpn"] if what == "ike" else ["--child", "net"]))

    def rebind(self, client):
        """The NAT forgets the mapping of the client's port 4500: what it sends next comes from another port."""
        self.sh("rebind", client)

    def redial(self, address):
        """The NAT gets another address: every client comes from there, and from another port."""
        self.sh("redial", address)

    def forget_mappings(self):
        """Every flow through the NAT begins anew."""
        self.run("nat", "conntrack", "-F")

    def move(self, client, address):
        """The client's own address changes."""
        self.sh("move", client, address)

    # --- facts

    def associations(self, name):
        """IKE_SAs of one peer: initiator SPI -> (state, the other end's address and port), as its charon says."""
        try:
            text = self.sh("swan", name, "--list-sas", "--raw", check=False).stdout
        except subprocess.TimeoutExpired:
            return {}
        found = {}
        for one in re.finditer(r"state=(\w+) .*?remote-host=(\S+) remote-port=(\d+) .*?initiator-spi=(\w+)", text):
            found[one.group(4)] = (one.group(1), f"{one.group(2)}:{one.group(3)}")
        return found

    def esp_spi(self, client):
        """The SPI of the ESP that the client sends: what its one CHILD_SA's server receives."""
        text = self.sh("swan", f"c{client}", "--list-sas", "--raw").stdout
        found = re.findall(r"state=INSTALLED .*?spi-out=(\w+)", text)
        assert len(found) == 1, f"client {client} has the CHILD_SAs {found}"
        return found[0]

    def mapping(self, client):
        """The port that the NAT gives the client's port 4500; None: it has not sent anything since."""
        text = self.run("nat", "conntrack", "-L", "-p", "udp", "-s", f"10.80.0.{10 + client}", "--dport", "4500")
        found = re.search(r" dport=4500 src=\S+ dst=\S+ sport=4500 dport=(\d+)", text)
        return int(found.group(1)) if found else None

    def nat_address(self):
        """The one address that all clients have in common."""
        return re.search(r"inet ([\d.]+)/", self.run("nat", "ip", "-4", "addr", "show", "dev", "eth0")).group(1)

    def await_liveness_check(self, client):
        """Waits until a liveness check of the client is answered.

        By the first one the client learns as whom the server sees it; by a later one that this has changed, which it
        then tells the server (MOBIKE). strongSwan's servers follow nothing else, least of all ESP."""
        answered = r"parsed INFORMATIONAL response \d+ \[ N\(NATD"
        before = self.charon_log("c", client, answered)
        homeport.wait_for(lambda: self.charon_log("c", client, answered) != before, 5,
                          f"client {client}'s liveness check")

    def spis(self, client):
        """Both SPIs, initiator's and responder's, of the client's one IKE_SA."""
        text = self.sh("swan", f"c{client}", "--list-sas", "--raw").stdout
        return re.search(r"initiator-spi=(\w+) responder-spi=(\w+)", text).groups()

    def spi(self, client):
        """The initiator SPI of the client's one IKE_SA, None when there is not exactly one established."""
        spis = [spi for spi, (state, _) in self.associations(f"c{client}").items() if state == "ESTABLISHED"]
        return spis[0] if len(spis) == 1 else None

    def holders(self, spis):
        """For each IKE_SA, by its initiator's SPI: the servers whose charon has it established."""
        held = dict(zip(self.servers, all_at_once(lambda server: self.associations(f"v{server}"), self.servers)))
        return [[server for server in self.servers if held[server].get(spi, ("",))[0] == "ESTABLISHED"]
                for spi in spis]

    def homes(self, came_on_500=False):
        """Server by client. Fails unless each client has one IKE_SA, and one server it; came_on_500: and unless it was
        made by way of that server's port 500 alone."""
        spis = all_at_once(self.spi, self.clients)
        assert None not in spis, f"not one IKE_SA each: {dict(zip(self.clients, spis))}"
        holders = dict(zip(self.clients, self.holders(spis)))
        assert all(len(servers) == 1 for servers in holders.values()), f"not on one server each: {holders}"
        for client, spi in zip(self.clients, spis):
            if came_on_500:
                self._came_on_500(client, spi, holders[client])
        return {client: servers[0] for client, servers in holders.items()}

    def home(self, client, dead=None):
        """The server that has the client's IKE_SA. Fails unless the captures saw its port 500 at that server alone (and
        at a dead one before, while nobody knew)."""
        spi = self.spi(client)
        assert spi is not None, f"client {client} has no IKE_SA"
        holders = self.holders([spi])[0]
        self._came_on_500(client, spi, holders, dead)
        return holders[0]

    def _came_on_500(self, client, spi, servers, dead=None):
        seen = homeport.wait_for(lambda: self.seen_on_500(spi), 3, f"port 500 of client {client} in the captures")
        assert len(servers) == 1 and servers == [server for server in seen if server != dead], \
            f"client {client}: its IKE_SA is on {servers}, its port 500 came to {seen}"

    def _capture(self, server):
        """What comes to a server, as tcpdump in its namespace has it."""
        self._tcpdump(f"v{server}", os.path.join(self.folder, f"v{server}.pcap"), "-i", "eth0", "-Q", "in", "-s", "96",
                      "udp port 500 or udp port 4500 or ip[6:2] & 0x3fff != 0")

    def _tcpdump(self, name, path, *arguments):
        command = [*self.within(name), "tcpdump", "--immediate-mode", "-U", "-Z", "root", "-w", path, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE)
        self.captures.append(process)
        process.stderr.readline()  # "listening on eth0"
        return process

    @contextlib.contextmanager
    def record(self, path, client=None):
        """Captures both directions between the balancer and a client, or the NAT, in full."""
        interface = "hpnat" if client is None else f"hpc{client}"
        # What homeport hands to the kernel as one with the request to cut it up is to be seen as the client gets it.
        self.run("lb", "ip", "link", "set", interface, "gso_max_segs", "1")
        process = self._tcpdump("lb", path, "-i", interface, "-s", "0", f"udp and host {VIP}")
        yield
        self.captures.remove(process)
        process.terminate()
        process.wait()
        process.stderr.close()

    def heard_of(self, client_end):
        """(server, Packets) of the live session of a client's address and port, as the server's capture has them."""
        rows = [row for row in self.daemon.cli("sessions")["sessions"] if row["client"] == client_end]
        assert len(rows) == 1, f"sessions of {client_end}: {rows}"
        server, source = int(rows[0]["server"].removeprefix("vpn")), (BALANCER, rows[0]["source_port"])
        return server, [one for one in self.packets(server) if one.source == source]

    def tunnels(self):
        """Live sessions on 4500 that a server has proven: client's end -> (server, source port)."""
        return {row["client"]: (row["server"], row["source_port"]) for row in self.daemon.cli("sessions")["sessions"]
                if row["service"] == "nat-t" and row["proven"]}

    def packets(self, server):
        """Every Packet that came to a server so far."""
        with open(os.path.join(self.folder, f"v{server}.pcap"), "rb") as file:
            data = file.read()
        at = 24
        while at + 16 <= len(data):
            seconds, micros, size = struct.unpack("=III", data[at:at + 12])
            packet = data[at + 16 + 14:at + 16 + size]  # behind the Ethernet header
            at += 16 + size
            if at > len(data):
                return  # not all written yet
            if len(packet) >= 48 and packet[0] >> 4 == 6:
                ports = struct.unpack("!HH", packet[40:44]) if packet[6] == socket.IPPROTO_UDP else (0, 0)
                yield Packet(seconds + micros / 1e6, (socket.inet_ntop(socket.AF_INET6, packet[8:24]), ports[0]), ports[1],
                             packet[6] == 44, packet[48:])
            elif len(packet) >= 28:
                header = 4 * (packet[0] & 15)
                where = struct.unpack("!H", packet[6:8])[0] & 0x3FFF
                ports = (0, 0) if where & 0x1FFF else struct.unpack("!HH", packet[header:header + 4])
                yield Packet(seconds + micros / 1e6, (socket.inet_ntoa(packet[12:16]), ports[0]), ports[1], where != 0,
                             packet[header + 8:])

    def seen_on_500(self, spi):
        """Servers to whose port 500 an IKE message with this initiator SPI came."""
        wanted = bytes.fromhex(spi)
        return [server for server in self.servers
                if any(one.port == 500 and one.body[:8] == wanted for one in self.packets(server))]

    def in_ip_fragments(self):
        """How many datagrams came to the servers as IP fragments (the first one has the port)."""
        return sum(one.fragment and one.port == 4500 for server in self.servers for one in self.packets(server))

    def in_ike_fragments(self):
        """How many IKE_SAs came to the servers as encrypted fragments (RFC 7383: payload 53, then number and total).

        Not how many fragments: homeport may hand several to the kernel at once, and the capture has them as one."""
        spis = set()
        for server in self.servers:
            for _, _, port, _, body in self.packets(server):
                if port == 4500 and body[:4] == ike.MARKER and len(body) >= 40 and body[20] == 53:
                    if struct.unpack("!H", body[38:40])[0] >= 2:
                        spis.add(body[4:12])
        return len(spis)


class Pinging:
    """Pings through a client's tunnel in the background: so many, or until stop()."""

    def __init__(self, bed, client, count, interval):
        self.lines = []
        limit = ["-c", str(count)] if count else []
        self.process = subprocess.Popen([*bed.within(f"c{client}"), "ping", *limit, "-i", str(interval), "-W", "2",
                                         "-D", "10.98.0.1"], stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def _answered(self):
        """(sequence number, time) of each reply so far."""
        found = map(re.compile(r"^\[([\d.]+)\] .*icmp_seq=(\d+) ttl").search, list(self.lines))
        return [(int(match.group(2)), float(match.group(1))) for match in found if match]

    def last(self):
        return max([number for number, _ in self._answered()], default=0)

    def wait_reply(self, number, timeout=30):
        """Waits until reply `number` (or a later one) has come."""
        homeport.wait_for(lambda: self.last() >= number or not self.reader.is_alive(), timeout, f"reply {number}")
        assert self.last() >= number, f"ping ended before reply {number}:\n" + "".join(self.lines)

    def stop(self):
        """Waits until pings sent from now on are answered, and ends it; the sequence numbers that were answered."""
        self.wait_reply(self.last() + 10)
        self.process.send_signal(signal.SIGINT)
        return self.replies()

    def replies(self):
        """Waits for the end; the sequence numbers that were answered."""
        self.reader.join(60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        return [number for number, _ in self._answered()]

    def gap(self):
        """The longest time between two replies."""
        times = [time for _, time in self._answered()]
        return max(later - earlier for earlier, later in zip(times, times[1:]))
