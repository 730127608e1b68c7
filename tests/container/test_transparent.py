# SPDX-License-Identifier: Apache-2.0
"""`source: transparent` in a container: it takes NET_RAW besides, and nothing else (docs/transparent.md)."""
import pytest
from containers import CAPABILITIES, Container, for_image, make_etc, options, refused
from transparent import play

NEEDED = (*CAPABILITIES, "NET_RAW")


@pytest.fixture(name="here")
def fixture_here():
    """Servers behind a cable, and the routes to their answers."""
    with play(servers=2) as here:
        make_etc(here.site)
        here.site.write(for_image(here.config()))
        yield here


@pytest.fixture(name="start")
def fixture_start(podman, here):
    def start():
        here.site.daemon = Container(podman, *options(here.site, capabilities=NEEDED))
        return here.site.daemon.wait_ready()
    return start


def all_at_home(here, clients):
    for client in clients:
        assert client.informational()
        (home, seen), = here.seen(client).items()
        assert seen == {((client.address, 4500), 4500)} and here.seen(client, "init") == {home: {((client.address, 500), 500)}}


def test_servers_see_the_clients_and_a_killed_container_moves_nobody(podman, here, start):
    start()
    clients = here.connected(4)
    all_at_home(here, clients)
    podman.podman("kill", here.site.daemon.name)
    here.site.daemon.process.wait(20)
    here.site.daemon.abandon()
    start()
    all_at_home(here, clients)


def test_without_net_raw_it_does_not_start_and_says_so(podman, here, start):
    refused(podman, options(here.site), "transparent", "NET_RAW", "--cap-add=NET_RAW")
    start()
    all_at_home(here, here.connected(1))
