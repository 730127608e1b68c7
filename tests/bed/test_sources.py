# SPDX-License-Identifier: Apache-2.0
"""Why source addresses matter: strongSwan with its default thresholds counts half-open IKE_SAs by address. Twelve
clients, each most of a second away, connect to one server at once: from one address some are asked for cookies or not
answered at all; from four all connect at the first try."""
import collections

import bed as beds
import pytest

pytestmark = pytest.mark.skipif(bool(beds.missing()), reason=beds.missing())

CLIENTS = 12
ADDRESSES = [f"10.77.2.{number}" for number in range(21, 25)]


def connect_at_once(bed):
    """Every client's daemon is there already: all of them begin within the same moments. Returns who was asked for a
    cookie and who had to repeat himself."""
    beds.all_at_once(lambda client: bed.sh("start", f"c{client}"), bed.clients)
    assert all(beds.all_at_once(lambda client: bed.connect(client, 40), bed.clients)), "in the end each connects"
    cookies = {client for client in bed.clients if bed.charon_log("c", client, r"N\(COOKIE\)")}
    repeats = {client for client in bed.clients if bed.charon_log("c", client, "retransmit .* message ID 0")}
    return cookies, repeats


@pytest.mark.parametrize("count", [1, 4])
def test_twelve_clients_that_connect_at_once(count, capsys):
    with beds.Bed(clients=CLIENTS, servers=1, ROUND_TRIP=700, RETRANSMIT_TIMEOUT=4.0, RETRANSMIT_BASE=1.8,
                  RETRANSMIT_TRIES=5) as bed:
        for address in ADDRESSES[:count]:
            bed.run("lb", "ip", "addr", "add", f"{address}/24", "dev", "servers")
        bed.homeport("match_across_services", source=ADDRESSES[:count])
        cookies, repeats = connect_at_once(bed)
        with capsys.disabled():
            print(f"\n{CLIENTS} clients from {count} source address(es): {CLIENTS - len(cookies | repeats)} connected at the "
                  f"first try, {len(cookies)} were asked for cookies, {len(repeats)} had to repeat themselves")
        ends = collections.Counter(end.rsplit(":", 1)[0] for _, end in bed.associations("v1").values())
        assert ends == {address: CLIENTS // count for address in ADDRESSES[:count]}
        if count == 1:
            assert cookies and repeats
        else:
            assert not cookies and not repeats
            assert beds.all_at_once(bed.ping, bed.clients) == [3] * CLIENTS
