# SPDX-License-Identifier: Apache-2.0
"""The example plugin, built outside the tree with a C compiler and sdk/ alone, as from a checkout, and loaded by path;
against an installed homeport test_install.py builds it."""
import os
import shutil
import subprocess

import homeport
import pytest

SOURCE = os.path.join(homeport.ROOT, "examples", "proxy_map", "plugin.c")


@pytest.fixture
def plugin(site):
    """proxy_map.so in the site's own folder, and a file of networks beside it."""
    source = os.path.join(site.folder, "plugin.c")
    shutil.copy(SOURCE, source)
    path = os.path.join(site.folder, "proxy_map.so")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden",
                    "-Wl,-z,defs", "-I", os.path.join(homeport.ROOT, "sdk", "include"), "-o", path, source], check=True,
                   timeout=60)
    os.chmod(path, 0o755)
    write_networks(site, f"# the first 16 client addresses are one office\n\n{site.client_address(0)}/28 office\n")
    return path


def write_networks(site, text):
    path = os.path.join(site.folder, "proxies.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)


def persistence(site, plugin):
    return {"offices": {"plugin": plugin, "options": {"file": os.path.join(site.folder, "proxies.txt")}}}


def test_exports_one_symbol_and_needs_libc_alone(plugin):
    defined = subprocess.run(["nm", "-D", "--defined-only", plugin], capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in defined.splitlines()] == ["hp_plugin_v1"]


def test_is_described_by_the_plugins_verb(plugin):
    text = homeport.cli("plugins", plugin, json=False)
    assert "proxy_map" in text and "file" in text and "NETWORK/LENGTH" in text


def test_passes_check_by_path(site, plugin):
    homeport.cli("check", site.write(site.config(persistence(site, plugin), "offices")), json=False)


def test_wrong_option_is_found_by_check(site, plugin):
    config = site.config(persistence(site, plugin), "offices")
    config["persistence"]["offices"]["options"]["fil"] = config["persistence"]["offices"]["options"].pop("file")
    result = homeport.cli("check", site.write(config), json=False, status=None)
    assert result.returncode == 1
    assert "homeport.yaml:" in result.stderr and "file" in result.stderr


def test_brings_an_office_home_to_one_server(site, plugin):
    site.start(persistence(site, plugin), "offices")
    office = [site.client(number) for number in range(4)]
    for one in office:
        assert one.connect()
    assert len({site.server_of(one) for one in office}) == 1
    strangers = [site.client(number) for number in range(40, 43)]
    for one in strangers:
        assert one.connect()
    assert len({site.server_of(one) for one in office[:1] + strangers}) == 3


def test_broken_file_of_networks_stops_the_start_with_its_line(site, plugin):
    write_networks(site, "192.0.2.0/28 berlin\n192.0.2.16/99 berlin\n")
    site.write(site.config(persistence(site, plugin), "offices"))
    result = homeport.cli("run", "-c", site.path, json=False, status=None)
    assert result.returncode == 1
    assert "proxies.txt:2: the length is no number of bits" in result.stderr
