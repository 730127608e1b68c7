# SPDX-License-Identifier: Apache-2.0
"""A plugin of one's own: compiled in homeport-build, mounted, chosen by name."""
import os

import pytest
from containers import Container, options
from homeport import ROOT

@pytest.fixture
def compile_plugin(podman, host):
    """In homeport-build, as docs/container.md says; returns the options that mount it."""
    def make(name, source):
        folder = os.path.join(host.folder, "plugins", name)
        os.makedirs(folder, 0o755)
        with open(os.path.join(folder, "plugin.c"), "w", encoding="utf-8") as file:
            file.write(source)
        podman.run("podman", "run", "--rm", "--network=none", "--volume", f"{folder}:/plugin", "--workdir=/plugin",
                   "homeport-build", "sh", "-c",
                   f"cc $(pkg-config --cflags --libs homeport-plugin) -O2 -Wall -Werror -o {name}.so plugin.c")
        return ["--volume", f"{folder}:/usr/lib/homeport/plugins/{name}:ro"]
    return make


def test_is_mounted_chosen_by_name_and_the_boxes_own_stay(podman, host, compile_plugin):
    with open(os.path.join(ROOT, "examples", "proxy_map", "plugin.c"), encoding="utf-8") as file:
        mount = compile_plugin("proxy_map", file.read())
    with open(os.path.join(host.etc, "proxies.txt"), "w", encoding="utf-8") as file:
        file.write(f"{host.client_address(0)}/28 office\n")
    offices = {"plugin": "proxy_map", "options": {"file": "/etc/homeport/proxies.txt"}}
    host.write(host.config({"offices": offices}, "offices"))
    host.daemon = Container(podman, *options(host, *mount)).wait_ready()
    office = [host.client(number) for number in range(4)]
    for one in office:
        assert one.connect()
    assert len({host.server_of(one) for one in office}) == 1
    strangers = [host.client(number) for number in range(40, 44)]
    for one in strangers:
        assert one.connect()
    assert len({host.server_of(one) for one in strangers}) == 3
    listed = host.daemon.cli("plugins", json=False)
    assert "proxy_map" in listed and "match_across_services" in listed
