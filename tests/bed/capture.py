#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Remakes the captures of real peers in tests/corpus/bed (as root): capture.py [FOLDER [PLUGIN]]"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, os.pardir, "lib")]

import bed as beds  # noqa: E402 (the path comes first)
import homeport  # noqa: E402


def ping(bed, client, count=3):
    assert bed.ping(client, count) == count, f"client {client}: lost pings"


def rekey(bed, client, what, of):
    """Rekeys and waits until the client has another SPI than before."""
    before = of(client)
    bed.rekey(f"c{client}", what)
    homeport.wait_for(lambda: of(client) not in (before, None), 5, f"client {client}'s new {what} SPI")


def nat(bed):
    """Three clients behind one NAT connect, ping, rekey both their SAs, show life on the new ones and go."""
    bed.connect_all()
    for client in bed.clients:
        rekey(bed, client, "ike", bed.spi)
        ping(bed, client)
        rekey(bed, client, "child", bed.esp_spi)
        ping(bed, client)
    bed.disconnect_all()


def rebind(bed):
    """The NAT gives a live tunnel another port, and ESP is the first to come from there."""
    assert bed.connect_and_ping(1)
    bed.await_liveness_check(1)
    before = bed.mapping(1)
    pings = beds.Pinging(bed, 1, 25, 0.2)
    pings.wait_reply(3)
    bed.rebind(1)
    assert 25 in pings.replies() and bed.mapping(1) != before
    bed.disconnect(1)


def mobike(bed):
    """A client's address changes while it pings. Later its IKE_SA is rekeyed, and its address changes again."""
    assert bed.connect_and_ping(1)
    for address in ("10.78.1.3", "10.78.1.4"):
        pings = beds.Pinging(bed, 1, 15, 0.2)
        pings.wait_reply(3)
        bed.move(1, address)
        assert 15 in pings.replies()
        if address == "10.78.1.3":
            rekey(bed, 1, "ike", bed.spi)
            bed.await_liveness_check(1)
    bed.disconnect(1)


def fragments(bed):
    """Certificates: IKE_AUTH as encrypted fragments, both ways."""
    assert bed.connect_and_ping(1)
    bed.disconnect(1)


PLAYS = {
    "nat": (nat, 3, {"NAT": "yes"}),
    "rebind": (rebind, 1, {"NAT": "yes", "DPD": "1s"}),
    "mobike": (mobike, 1, {"DPD": "2s"}),
    "fragments": (fragments, 1, {"AUTH": "cert"}),
}


def main(folder=os.path.join(HERE, os.pardir, "corpus", "bed"), plugin="ike_spi"):
    for name, (play, clients, settings) in PLAYS.items():
        path = os.path.join(os.path.abspath(folder), f"{name}.pcap")
        with beds.Bed(clients, 3, **settings) as bed:
            bed.homeport(plugin)
            with bed.record(path, None if "NAT" in settings else 1):
                play(bed)
        print(f"{name}.pcap: {os.path.getsize(path)} octets")


if __name__ == "__main__":
    main(*sys.argv[1:])
