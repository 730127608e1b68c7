# SPDX-License-Identifier: Apache-2.0
"""One image for all tests of the run; each test has a network namespace of its own with three servers."""
import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))

import containers  # noqa: E402
from homeport import Site  # noqa: E402
from ike import Responder  # noqa: E402
from netns import own_net  # noqa: E402


@pytest.fixture(scope="session")
def podman():
    missing = [name for name in ("podman", "crun", "mmdebstrap", "netavark")
               if shutil.which(name) is None and not os.path.exists(f"/usr/lib/podman/{name}")]
    if os.geteuid() != 0:
        pytest.skip("needs root: containers with a host network of their own")
    if missing:
        pytest.skip(f"needs the packages {' '.join(missing)}: ./dev deps")
    one = containers.Podman()
    try:
        one.build()
        yield one
    finally:
        one.close()


class Host(Site):
    """The machine that the container shares its network with: servers and clients on the real ports, and the folder
    that becomes /etc/homeport."""

    def __init__(self):
        super().__init__(servers=3, responders=False)
        self.ike_port, self.natt_port = 500, 4500
        for name, address in self.addresses.items():
            self.responders[name] = Responder(name, address, [500, 4500])
        containers.make_etc(self)

    def config(self, *arguments, **changes):
        """As Site's, with what the image has by default."""
        return containers.for_image(super().config(*arguments, **changes))


@pytest.fixture
def host():
    with own_net(), Host() as one:
        yield one
