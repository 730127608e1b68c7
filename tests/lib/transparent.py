# SPDX-License-Identifier: Apache-2.0
"""A site for `source: transparent`: clients and servers in network namespaces of their own, and the routing commands of
docs/transparent.md as they are written there.

    clients --cable 0-- balancer --cable 1-- servers
"""
import contextlib
import ipaddress
import os
import pathlib
import re
import subprocess

from homeport import ROOT, Daemon, Site, endpoint, wait_for
from ike import Client, Responder
from netns import ip, own_net, row

GROUP = {"home": {"plugin": "match_across_services"}}
PAGE = pathlib.Path(ROOT) / "docs" / "transparent.md"


def address(cable, end, family):
    return f"10.0.{cable}.{end}" if family == 4 else str(ipaddress.ip_address(f"fd00:{cable}::{end}"))


def commands_of_the_page():
    """Each `sh` block, for the interface that leads to the servers here."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3 and all(" eth1 " in block for block in blocks)
    return [block.replace("eth1", "cable1") for block in blocks]


def run(commands):
    for line in commands.strip().splitlines():
        subprocess.run(["sh", "-ec", line], check=True, timeout=10)


def route():
    for block in commands_of_the_page():
        run(block)


class Play:
    """A site whose servers and clients are in namespaces of their own."""

    def __init__(self, site, nets, family, servers):
        self.site, self.family, self.vip, self.workers = site, family, address(0, 2, family), 0
        self.outside, self.inside, last = nets[0], nets[-1], len(nets) - 2
        self.addresses = {f"vpn{number}": address(last, 10 + number, family) for number in range(1, servers + 1)}
        prefix = 24 if family == 4 else 64
        more = [] if family == 4 else ["nodad"]
        for one in self.addresses.values():
            self.inside(ip, "addr", "add", f"{one}/{prefix}", "dev", f"cable{last}", *more)
        for end in range(101, 113):
            self.outside(ip, "addr", "add", f"{address(0, end, family)}/{prefix}", "dev", "cable0", *more)
        ip("addr", "add", f"{address(0, 3, family)}/{prefix}", "dev", "cable0", *more)
        self.responders = {name: self.inside(Responder, name, one, [500, 4500], True)
                           for name, one in self.addresses.items()}

    def close(self):
        for one in self.responders.values():
            one.stop()

    def config(self, source="transparent", **changes):
        self.workers = changes.get("workers", 2)
        service = {name: {"listen": endpoint(self.vip, port)} for name, port in (("ike", 500), ("nat-t", 4500))}
        changes["services"] = {**service, **changes.get("services", {})}
        changes["pools"] = {"all": {"servers": list(self.addresses), "source": source}, **changes.get("pools", {})}
        return self.site.config(GROUP, "home", servers={"vpn1": None, **{name: {"address": one} for name, one in
                                                                          self.addresses.items()}}, **changes)

    def start(self, source="transparent", prefix=(), **changes):
        self.site.write(self.config(source, **changes))
        self.site.daemon = Daemon(self.site.path, prefix=prefix)
        return self.site.daemon.wait_ready()

    def reload(self, source="transparent", **changes):
        self.site.write(self.config(source, **changes))
        return self.site.daemon.reload()

    def client(self, number=0):
        """At ports 500 and 4500 of its address."""
        one = self.outside(Client, address(0, 101 + number, self.family), self.vip, 500, 4500, (500, 4500))
        self.site.clients.append(one)
        return one

    def connected(self, count):
        clients = [self.client(number) for number in range(count)]
        for one in clients:
            assert one.connect(), f"{one.address} did not connect"
        return clients

    def seen(self, client, kind="informational"):
        """server -> {(source, port there)} of this kind of the client's datagrams, in all servers."""
        found = {name: {(one.source, one.port) for one in responder.of_kind(kind, client.spi_i)}
                 for name, responder in self.responders.items()}
        return {name: all_of_it for name, all_of_it in found.items() if all_of_it}

    def counters(self):
        return self.site.daemon.cli("status")["counters"]

    def sessions(self):
        return self.site.daemon.cli("sessions")["sessions"]

    def settle(self, spare=False):
        """Until those before a reload have ended, a keeper is beside each, and, if asked for, a spare worker stands by."""
        def settled():
            daemon = self.site.daemon
            spares = len(daemon.children("spare"))
            return len(daemon.workers()) == self.workers and len(daemon.keepers()) == self.workers + spares and spares >= spare
        wait_for(settled, 30, "the end of those before a reload")

    def kill_workers(self, keepers):
        daemon = self.site.daemon
        self.settle()
        dead = daemon.workers()
        for pid in [*(daemon.keepers() if keepers else []), *dead]:
            daemon.kill(pid)
        wait_for(lambda: len(daemon.workers()) == len(dead) and not set(dead) & set(daemon.workers()),
                 30, "the workers' replacements")


@contextlib.contextmanager
def play(family=4, servers=1, routed=True, mtus=(1500, 1500)):
    """A third cable puts a router before the servers."""
    with own_net(), row(1, len(mtus) - 1, mtus) as nets, Site(servers=1, responders=False) as site:
        if routed:
            route()
        with contextlib.closing(Play(site, nets, family, servers)) as it:
            yield it
