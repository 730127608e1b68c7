# SPDX-License-Identifier: Apache-2.0
"""A plugin of one's own: compiled in homeport-build, mounted, chosen by name; and what a bad one leaves behind."""
import os
import signal

import pytest
from containers import Container, options
from homeport import ROOT, processes, wait_for

# Leaves a process behind in each worker that loads it: it lives until the worker dies, and then becomes process 1's.
FORKS = """
#include <homeport/plugin.h>
#include <poll.h>
#include <unistd.h>
static void *create(const struct hp_host *host, const struct hp_profile *profile)
{
    int ends[2];
    (void)host;
    if (pipe(ends) == 0 && fork() == 0) {
        struct pollfd end = {.fd = ends[0], .events = POLLIN};
        close(ends[1]);
        while (poll(&end, 1, -1) != 1);
        _exit(7);
    }
    return (void *)(uintptr_t)profile;
}
static int32_t derive_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    (void)self;
    for (int i = 0; i < 4; i++) key[i] = flow->client.address[i];
    return 4;
}
static const struct hp_option options[] = {{"timeout", HP_OPTION_DURATION, 0, "60s", "1s..4000h", "Of a record."}};
static const char *const tables[] = {"clients"};
extern HP_PLUGIN_EXPORT const struct hp_plugin hp_plugin_v1;
const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR, .abi_minor = HP_ABI_MINOR, .size = sizeof hp_plugin_v1, .name = "forks", .version = "1.0",
    .summary = "Leaves processes behind.", .author = "tests", .options = options, .option_count = 1,
    .option_size = sizeof options[0], .tables = tables, .table_count = 1, .create = create, .derive_key = derive_key};
"""


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


def test_what_a_plugin_leaves_behind_is_reaped_by_process_1(podman, host, compile_plugin):
    mount = compile_plugin("forks", FORKS)
    host.write(host.config({"home": {"plugin": "forks"}}, "home"))
    host.daemon = Container(podman, *options(host, *mount)).wait_ready()
    for _ in range(3):
        worker = host.daemon.workers()[0]
        orphans = [pid for pid, fields, _ in processes() if int(fields[1]) == worker]
        assert orphans
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda gone=[worker, *orphans]: not [pid for pid in gone if os.path.exists(f"/proc/{pid}")],
                 what="the end of the worker and of what it left behind")
        wait_for(lambda: len(host.daemon.workers()) == 2, what="the replacement of a worker")
    assert host.client().connect()
