# SPDX-License-Identifier: Apache-2.0
"""ike_spi with real IKEv2 peers: many clients behind one NAT, and clients that are not where they were.

strongSwan's servers follow a client when it tells them (MOBIKE), never for its ESP: they go on answering the port that
the NAT has forgotten. The client notices at its next liveness check, after DPD: so long are pings to be lost if all
arrives at the right server at once. RETRANSMIT_TIMEOUT is what one datagram gone astray costs.
"""
import contextlib
import os
import subprocess
import sys

import bed as beds
import homeport
import pytest

pytestmark = pytest.mark.skipif(bool(beds.missing()), reason=beds.missing())

ROUNDS = int(os.environ.get("BED_ROUNDS", "1"))
DPD, RETRANSMIT_TIMEOUT = 1, 1
PATIENCE = 5 * (DPD + RETRANSMIT_TIMEOUT)  # one retransmission is what it is to take; machines are busy
TIMERS = {"DPD": f"{DPD}s", "RETRANSMIT_TIMEOUT": RETRANSMIT_TIMEOUT, "RETRANSMIT_BASE": 1.0, "RETRANSMIT_TRIES": 5}


@pytest.fixture(name="say")
def fixture_say(capsys):
    """Figures that are worth reading although the test passes."""
    def say(text):
        with capsys.disabled():
            print(f"\n{text}")
    return say


def connected(bed):
    """Every client is connected, to a server of its own, and knows as whom its server sees it; server by client."""
    homes = bed.connect_all()
    assert sorted(homes.values()) == list(bed.servers)[:len(homes)], homes
    beds.all_at_once(bed.await_liveness_check, bed.clients)
    return homes


def retransmits(bed):
    return {client: bed.charon_log("c", client, r"\[IKE\] retransmit \d").count("\n") for client in bed.clients}


def pinging(bed):
    """Pings through every tunnel, each of which has been answered five times."""
    pings = [beds.Pinging(bed, client, None, 0.1) for client in bed.clients]
    for one in pings:
        one.wait_reply(5)
    return pings


def gaps(pings):
    """Waits until all are answered again; how long each was not."""
    beds.all_at_once(beds.Pinging.stop, pings)
    return [round(one.gap(), 2) for one in pings]


def none_lost(pings):
    answered = beds.all_at_once(beds.Pinging.stop, pings)
    return all(numbers == list(range(1, len(numbers) + 1)) for numbers in answered)


# --- many behind one address

def test_twelve_clients_behind_one_address_spread_evenly_in_every_round():
    with beds.Bed(clients=12, servers=3, NAT="yes") as bed:
        daemon = bed.homeport("ike_spi")
        for _ in range(ROUNDS + 1):
            homes = list(bed.connect_all().values())
            assert [homes.count(server) for server in bed.servers] == [4, 4, 4]
            bed.hang_up_all()
            bed.forget_mappings()  # the next round comes from other ports: of 511 for port 500, so one may come back
            bed.daemon.cli("drop", bed.nat_address())  # as a stranger's, not as a flow that has its server
        daemon.stop()
        bed.homeport("match_across_services")  # to which they are one client
        homes = bed.connect_all(at_once=4)  # a server that has five half-open IKE_SAs of one address is silent
        assert len(set(homes.values())) == 1, homes


# --- the NAT forgets

@contextlib.contextmanager
def nothing_else(_):
    yield


@contextlib.contextmanager
def new_workers(bed):
    bed.kill_workers()
    yield


@contextlib.contextmanager
def restart(bed):
    with bed.homeport_down():
        yield


def other_ports(bed):
    beds.all_at_once(bed.rebind, bed.clients)


def other_address(bed):
    taken = bed.nat_address()
    bed.redial(f"10.79.0.{int(taken.rsplit('.', 1)[1]) + 1}")


def names_of(bed, client):
    return bed.mapping(client), bed.spi(client), bed.esp_spi(client)


PLAYS = {"other ports": (nothing_else, other_ports), "another address": (nothing_else, other_address),
         "other ports after all workers were killed": (new_workers, other_ports),
         "other ports while homeport is down": (restart, other_ports)}


def test_esp_from_where_nobody_was_comes_home(say):
    with beds.Bed(clients=3, servers=3, NAT="yes", **TIMERS) as bed:
        bed.homeport("ike_spi")
        homes = connected(bed)
        esp_first = 0
        for play in [*PLAYS] * ROUNDS:
            meanwhile, change = PLAYS[play]
            names = dict(zip(bed.clients, beds.all_at_once(lambda client: names_of(bed, client), bed.clients)))
            before = retransmits(bed)
            pings = pinging(bed)
            with meanwhile(bed):
                change(bed)
            lost = gaps(pings)
            again = [retransmits(bed)[client] - before[client] for client in bed.clients]
            say(f"{play}: pings unanswered for {lost} s (liveness check after {DPD} s), retransmits {again}")
            assert bed.homes() == homes
            for client, (port, spi, esp) in names.items():
                assert bed.mapping(client) not in (port, None), "the NAT was to choose another port"
                server, heard = bed.heard_of(f"{bed.nat_address()}:{bed.mapping(client)}")
                assert server == homes[client] and bed.spi(client) == spi
                assert servers_that_saw(bed, spi, esp) == [server]
                esp_first += heard[0].body[:4] == bytes.fromhex(esp)
            if meanwhile is not restart:
                assert max(lost) <= PATIENCE and max(again) <= 5
        say(f"ESP came first {esp_first} of {ROUNDS * len(PLAYS) * len(homes)} times")
        assert esp_first > 0, "a liveness check was faster each time: this has not tested what it is for"


def servers_that_saw(bed, spi, esp):
    """Servers to which a datagram of this IKE_SA or with this ESP SPI came."""
    spi, esp = bytes.fromhex(spi), bytes.fromhex(esp)

    def is_of_it(body):
        return spi in (body[:8], body[4:12]) or body[:4] == esp
    return [server for server in bed.servers if any(is_of_it(one.body) for one in bed.packets(server))]


# --- the client moves

def test_a_client_that_changes_its_address_stays_at_home(say):
    lost = []
    with beds.Bed(clients=3, servers=3, **TIMERS) as bed:
        bed.homeport("ike_spi")
        homes = connected(bed)
        for number in range(ROUNDS + 1):
            spis = {client: bed.spi(client) for client in bed.clients}
            pings = pinging(bed)
            for client in bed.clients:
                bed.move(client, f"10.78.{client}.{3 + number}")
            lost += gaps(pings)
            assert bed.homes() == homes
            for client in bed.clients:
                assert bed.heard_of(f"10.78.{client}.{3 + number}:4500")[0] == homes[client]
                bed.rekey(f"c{client}", "ike")  # in the next round the new IKE_SA moves
            homeport.wait_for(lambda: all(bed.spi(client) not in (spis[client], None) for client in bed.clients), 5,
                              "rekeyed IKE_SAs")
            beds.all_at_once(bed.await_liveness_check, bed.clients)  # the new SPI is heard once where it is known
    say(f"pings unanswered for {lost} s")
    assert max(lost) <= PATIENCE, lost


# --- the names change

def test_rekeying_costs_no_ping():
    with beds.Bed(clients=3, servers=3) as bed:
        bed.homeport("ike_spi")
        homes = bed.connect_all()

        def rekey(client, by_server, what, of):
            before = of(client)
            bed.rekey(f"v{homes[client]}" if by_server else f"c{client}", what)
            homeport.wait_for(lambda: of(client) not in (before, None), 5, f"client {client}'s new {what} SPI")

        for by_server in [False, True] * ROUNDS:
            names = {client: (bed.spi(client), bed.esp_spi(client)) for client in bed.clients}
            pings = pinging(bed)
            for what, of in (("ike", bed.spi), ("child", bed.esp_spi)):  # the second one is heard by the new IKE SPI
                beds.all_at_once(lambda client: rekey(client, by_server, what, of), bed.clients)
            assert none_lost(pings)
            assert bed.homes() == homes
            for client, (spi, esp) in names.items():
                now = bed.spi(client), bed.esp_spi(client)
                assert now[0] != spi and now[1] != esp
                assert servers_that_saw(bed, *now) == [homes[client]]


# --- somebody else uses them

@contextlib.contextmanager
def impostor(bed, namespace, victim):
    """Repeats the victim's SPIs from a namespace of another client."""
    spi_i, spi_r = bed.spis(victim)
    command = [sys.executable, "-B", beds.HERE + "/impostor.py", beds.VIP, spi_i, spi_r, bed.esp_spi(victim)]
    with subprocess.Popen([*bed.within(namespace), *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "repeating\n"
            yield
            assert process.poll() is None, "it was to go on all the time"
        finally:
            process.terminate()


@pytest.mark.parametrize("nat", ["no", "yes"], ids=["from_another_address", "from_behind_the_same_nat"])
def test_who_repeats_a_clients_spis_moves_nobody_and_ends_nothing(nat, say):
    with beds.Bed(clients=4, servers=3, NAT=nat, **TIMERS) as bed:
        bed.clients = range(1, 4)  # the fourth one's namespace is the impostor's
        bed.homeport("ike_spi")
        homes = connected(bed)
        before = bed.tunnels()
        for victim in list(bed.clients)[:ROUNDS]:
            with impostor(bed, "c4", victim):
                pings = pinging(bed)
                pings[0].wait_reply(20)
                assert none_lost(pings)
                assert before.items() <= bed.tunnels().items(), "the clients' own sessions were to stay as they were"
                assert bed.homes() == homes
                pings = pinging(bed)
                if nat == "yes":
                    bed.rebind(victim)
                else:
                    bed.move(victim, f"10.78.{victim}.3")
                lost = gaps(pings)[victim - 1]
                assert bed.homes() == homes
            before = bed.tunnels()
            say(f"client {victim} changed its end while it had an impostor: pings unanswered for {lost} s")
            assert lost <= PATIENCE
