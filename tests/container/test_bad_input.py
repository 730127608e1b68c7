# SPDX-License-Identifier: Apache-2.0
"""What keeps the container from starting: each time one line with cause and next step, and the mended one starts."""
import os

import pytest
from containers import CAPABILITIES, Container, options, refused
from homeport import foreign_plugin

GROUP = {"aovpn": {"plugin": "match_across_services"}}
NOBODY = 65534


@pytest.fixture(autouse=True)
def configuration(host):
    host.write(host.config(GROUP, "aovpn"))


def starts(podman, host, *more):
    host.daemon = Container(podman, *options(host, *more)).wait_ready()
    assert host.client().connect()


@pytest.mark.parametrize("lacks, words", [("NET_BIND_SERVICE", ["cannot bind", ":500", "--cap-add=NET_BIND_SERVICE"]),
                                          ("SETUID", ["cannot become user", "SETUID and SETGID"]),
                                          ("SETGID", ["cannot become user", "SETUID and SETGID"])])
def test_a_capability_that_is_needed_and_not_there(podman, host, lacks, words):
    refused(podman, options(host, capabilities=[one for one in CAPABILITIES if one != lacks]), *words)
    starts(podman, host)


def without(run_options, volume):
    """The options without the volume that is mounted there."""
    place = next(i for i, one in enumerate(run_options) if volume in one)
    return run_options[:place - 1] + run_options[place + 1:]


def test_no_state_folder_on_a_read_only_root(podman, host):
    refused(podman, without(options(host), ":/run/homeport"), "/run/homeport", "Read-only file system", "mount",
            "-v /run/homeport:/run/homeport")


def test_state_folder_that_is_mounted_read_only(podman, host):
    state = os.path.join(host.folder, "state")
    os.mkdir(state, 0o750)
    refused(podman, [*without(options(host), ":/run/homeport"), "--volume", f"{state}:/run/homeport:ro"],
            "/run/homeport/master.lock", "Read-only file system", "mount it so that it can be written")
    starts(podman, host)


def test_state_folder_of_another_user(podman, host):
    refused(podman, options(host, f"--user={NOBODY}:{NOBODY}"), "/run/homeport", "give it to user 65534")


def test_state_folder_that_another_container_uses(podman, host):
    starts(podman, host)
    refused(podman, options(host), "another container", "/run/homeport", "`state:`")
    assert host.client().connect()


def test_port_that_another_container_has(podman, host):
    starts(podman, host)
    refused(podman, options(host, state=os.path.join(host.folder, "second")), f"{host.vip}:500 is in use", "on the host",
            "ss -lunp")
    assert host.client().connect()


def test_plugin_for_another_architecture(podman, host):
    path = foreign_plugin(host.folder)
    host.write(host.config({"home": {"plugin": "foreign"}}, "home"))
    line = refused(podman, options(host, "--volume", f"{path}:/usr/lib/homeport/plugins/foreign.so:ro"), "foreign.so",
                   "machine", "sdk/")
    assert line.startswith("/etc/homeport/homeport.yaml:")


def test_configuration_that_its_user_may_not_read(podman, host):
    os.chmod(host.path, 0o600)
    os.chown(host.path, NOBODY, NOBODY)  # whom the container's root may not overrule: it has no DAC_OVERRIDE
    refused(podman, options(host), "/etc/homeport/homeport.yaml", "Permission denied", "let user 0 read it")
    os.chmod(host.path, 0o644)
    starts(podman, host)


def test_configuration_that_is_not_mounted(podman, host):
    refused(podman, without(options(host), ":/etc/homeport"), "/etc/homeport/homeport.yaml", "No such file", "mount")
