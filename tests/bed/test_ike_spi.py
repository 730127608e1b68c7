# SPDX-License-Identifier: Apache-2.0
"""ike_spi with real IKEv2 peers: many clients behind one NAT, and clients that are not where they were.

strongSwan's servers follow a client when it tells them (MOBIKE), never for its ESP: they go on answering the port that
the NAT has forgotten. The client notices at its next liveness check, after DPD, so that is how long pings are to be lost
if everything arrives at the right server at once. RETRANSMIT_TIMEOUT is what one datagram gone astray costs.
"""
import contextlib
import os
import subprocess
import sys

import bed as beds
import homeport
import pytest

pytestmark = pytest.mark.skipif(bool(beds.missing()), reason=beds.missing())

ROUNDS = int(os.environ.get("BED_ROUNDS", "2"))
DPD, RETRANSMIT_TIMEOUT = 1, 1
TIMERS = {"DPD": f"{DPD}s", "RETRANSMIT_TIMEOUT": RETRANSMIT_TIMEOUT, "RETRANSMIT_BASE": 1.0, "RETRANSMIT_TRIES": 5}


@pytest.fixture(name="say")
def fixture_say(capsys):
    """Figures that are worth reading although the test passes."""
    def say(text):
        with capsys.disabled():
            print(f"\n{text}")
    return say


def home_of(bed, client):
    """The one server that holds the client's IKE_SA."""
    spi = bed.spi(client)
    assert spi is not None, f"client {client} has no IKE_SA, or several"
    holders = bed.holders(spi)
    assert len(holders) == 1, f"client {client}: its IKE_SA is on {holders}"
    return holders[0]


def homes_of(bed):
    return dict(zip(bed.clients, beds.all_at_once(lambda client: home_of(bed, client), bed.clients)))


def connected(bed):
    """Every client is connected, to a server of its own, and knows as whom its server sees it; server by client."""
    homes = bed.connect_all()
    assert sorted(homes.values()) == list(bed.servers)[:len(homes)], homes
    beds.all_at_once(bed.await_liveness_check, bed.clients)
    return homes


def retransmits(bed):
    return {client: bed.charon_log("c", client, r"\[IKE\] retransmit \d").count("\n") for client in bed.clients}


def pinging(bed, count, interval=0.1):
    """Pings through every tunnel, and each has been answered five times."""
    pings = [beds.Pinging(bed, client, count, interval) for client in bed.clients]
    for one in pings:
        one.wait_reply(5)
    return pings


def gaps(pings, count):
    """How long each was not answered at most. Fails when one is not answered at the end."""
    answered = [one.replies() for one in pings]
    assert all(numbers and numbers[-1] == count for numbers in answered), f"answered: {answered}"
    return [round(one.gap(), 2) for one in pings]


# --- many behind one address

def test_twelve_clients_behind_one_address_spread_evenly_in_every_round():
    with beds.Bed(clients=12, servers=3, NAT="yes") as bed:
        bed.homeport("ike_spi")
        for _ in range(ROUNDS + 1):
            homes = list(bed.connect_all().values())
            assert [homes.count(server) for server in bed.servers] == [4, 4, 4]
            bed.disconnect_all()
            bed.forget_mappings()  # the next round comes from other ports


def test_twelve_clients_behind_one_address_are_one_client_by_their_address():
    with beds.Bed(clients=12, servers=3, NAT="yes") as bed:
        bed.homeport("match_across_services")
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


def other_ports(bed, _):
    for client in bed.clients:
        bed.rebind(client)
    return beds.NAT


def other_address(bed, number):
    address = f"10.79.0.{10 + number}"
    bed.redial(address)
    return address


@pytest.mark.parametrize("meanwhile, change", [(nothing_else, other_ports), (nothing_else, other_address),
                                               (new_workers, other_ports), (restart, other_ports)],
                         ids=["other_ports", "other_address", "after_workers_were_killed", "while_homeport_is_down"])
def test_esp_from_where_nobody_was_comes_home(meanwhile, change, say):
    lost = []
    with beds.Bed(clients=3, servers=3, NAT="yes", **TIMERS) as bed:
        bed.homeport("ike_spi")
        homes = connected(bed)
        for number in range(ROUNDS):
            names = {client: (bed.mapping(client), bed.spi(client), bed.esp_spi(client)) for client in bed.clients}
            pings = pinging(bed, 60)
            with meanwhile(bed):
                address = change(bed, number)
            lost += gaps(pings, 60)
            assert homes_of(bed) == homes
            for client, (port, spi, esp) in names.items():
                assert bed.spi(client) == spi, "it was to go on with the same IKE_SA"
                assert bed.mapping(client) not in (port, None), "the NAT was to choose another port"
                server, heard = bed.heard_of(f"{address}:{bed.mapping(client)}")
                assert server == homes[client]
                assert heard[0].body[:4] == bytes.fromhex(esp), "ESP was to come first"
                assert servers_that_saw(bed, spi, esp) == [server]
        again = retransmits(bed)
    say(f"pings unanswered for {lost} s (liveness check after {DPD} s), retransmits by client: {again}")
    if meanwhile is not restart:
        assert max(lost) <= 2 * DPD + RETRANSMIT_TIMEOUT, lost
        assert max(again.values()) <= ROUNDS, "one datagram may be lost with the mapping, no more"


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
        for number in range(ROUNDS):
            pings = pinging(bed, 40)
            for client in bed.clients:
                bed.move(client, f"10.78.{client}.{3 + number}")
            lost += gaps(pings, 40)
            assert homes_of(bed) == homes
            for client in bed.clients:
                assert bed.heard_of(f"10.78.{client}.{3 + number}:4500")[0] == homes[client]
                before = bed.spi(client)
                bed.rekey(f"c{client}", "ike")  # in the next round the new IKE_SA moves
                homeport.wait_for(lambda: bed.spi(client) not in (before, None), 5, "the rekeyed IKE_SA")
            beds.all_at_once(bed.await_liveness_check, bed.clients)  # the new SPI is heard once where it is known
    say(f"pings unanswered for {lost} s")
    assert max(lost) <= 2 * RETRANSMIT_TIMEOUT, lost


# --- the names change

@pytest.mark.parametrize("by", ["client", "server"])
def test_rekeying_costs_no_ping(by):
    with beds.Bed(clients=3, servers=3) as bed:
        bed.homeport("ike_spi")
        homes = bed.connect_all()
        for _ in range(ROUNDS):
            names = {client: (bed.spi(client), bed.esp_spi(client)) for client in bed.clients}
            pings = pinging(bed, 60)
            for what, of in (("ike", bed.spi), ("child", bed.esp_spi), ("ike", bed.spi)):
                for client, home in homes.items():
                    before = of(client)
                    bed.rekey(f"c{client}" if by == "client" else f"v{home}", what)
                    homeport.wait_for(lambda: of(client) not in (before, None), 5, f"client {client}'s new {what} SPI")
            assert [one.replies() for one in pings] == [list(range(1, 61))] * 3
            assert homes_of(bed) == homes
            for client, (spi, esp) in names.items():
                assert bed.spi(client) != spi and bed.esp_spi(client) != esp
                assert servers_that_saw(bed, bed.spi(client), bed.esp_spi(client)) == [homes[client]]


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
        for victim in bed.clients:
            with impostor(bed, "c4", victim):
                pings = pinging(bed, 25)
                assert [one.replies() for one in pings] == [list(range(1, 26))] * 3
                assert before.items() <= bed.tunnels().items(), "the clients' own sessions were to stay as they were"
                assert homes_of(bed) == homes
                pings = pinging(bed, 50)
                if nat == "yes":
                    bed.rebind(victim)
                else:
                    bed.move(victim, f"10.78.{victim}.3")
                lost = gaps(pings, 50)
                assert homes_of(bed) == homes
            before = bed.tunnels()
            say(f"client {victim} changed its end while it had an impostor: pings unanswered for {lost[victim - 1]} s")
            assert lost[victim - 1] <= 2 * DPD + RETRANSMIT_TIMEOUT
