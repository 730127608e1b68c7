# SPDX-License-Identifier: Apache-2.0
"""What keeps homeport from starting, or a reload from being taken: each time one line that names cause and next step,
exit status 1, nothing half-started, and the mended file starts. Then plugins that crash or hang while it runs."""
import contextlib
import os
import re
import signal
import socket
import subprocess

import pytest
from homeport import (ROOT, Daemon, Site, binary, cli, descriptors, foreign_plugin, plugin_folder, processes, udp_socket,
                      wait_for)

NOBODY = 65534
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: users and mounts of its own")

# A plugin whose steps misbehave as the compiler's -D says. It keys by the client's address.
SOURCE = """
#include <homeport/plugin.h>
#include <homeport/plugin_util.h>
#include <signal.h>
#include <unistd.h>

#ifndef SYMBOL
#define SYMBOL hp_plugin_v1
#endif
#ifndef DESCRIPTOR
#define DESCRIPTOR
#endif
#ifndef ON_LOAD
#define ON_LOAD
#endif
#ifndef ON_CHECK
#define ON_CHECK
#endif
#ifndef ON_CREATE
#define ON_CREATE
#endif
#ifndef ON_KEY
#define ON_KEY
#endif
#define CRASH (*(volatile int *)0 = 1)
#define HANG for (;;) pause()
#define IS_ODD(flow) ((flow)->client.address[3] % 2 == 1)

static const struct hp_option options[] = {{"timeout", HP_OPTION_DURATION, 0, "60s", "1s..4000h", "Of a record."}};
static const char *const tables[] = {"clients"};

__attribute__((constructor)) static void load(void)
{
    ON_LOAD;
}

static int check(const struct hp_host *host, const struct hp_profile *profile)
{
    (void)host, (void)profile;
    ON_CHECK;
    return 0;
}

static void *create(const struct hp_host *host, const struct hp_profile *profile)
{
    (void)host;
    ON_CREATE;
    return (void *)(uintptr_t)profile;
}

static int32_t derive_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    (void)self;
    ON_KEY;
    for (int i = 0; i < 4; i++)
        key[i] = flow->client.address[i];
    return 4;
}

static int32_t select_server(void *self, const struct hp_flow *flow)
{
    (void)self, (void)flow;
    ON_KEY;
    return HP_NOTHING;
}

extern HP_PLUGIN_EXPORT const struct hp_plugin SYMBOL;
const struct hp_plugin SYMBOL = {
    .abi_major = HP_ABI_MAJOR, .abi_minor = HP_ABI_MINOR, .size = sizeof SYMBOL, .name = "odd", .version = "1.0",
    .summary = "Misbehaves as asked.", .author = "tests", .options = options, .option_count = 1,
    .option_size = sizeof options[0], .tables = tables, .table_count = 1, .check = check, .create = create,
#ifdef BY_SELECT
    .select = select_server,
#else
    .derive_key = derive_key,
#endif
    DESCRIPTOR};
#ifndef BY_SELECT
int32_t (*const unused)(void *, const struct hp_flow *) = select_server;
#else
int32_t (*const unused)(void *, const struct hp_flow *, uint8_t *) = derive_key;
#endif
"""


@pytest.fixture(name="site")
def fixture_site():
    with Site(servers=2) as site:
        yield site


def build(site, *defines, name="odd"):
    """NAME.so in the site's folder; renamed into place, because the file before it may be mapped."""
    source, path = os.path.join(site.folder, f"{name}.c"), os.path.join(site.folder, f"{name}.so")
    with open(source, "w", encoding="utf-8") as file:
        file.write(SOURCE)
    subprocess.run(["cc", "-w", "-fPIC", "-shared", "-I", os.path.join(ROOT, "sdk", "include"),
                    *[f"-D{one}" for one in defines], "-o", path + ".new", source], check=True, timeout=60)
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)
    return path


def by(plugin, **changes):
    return {"home": {"plugin": plugin, **changes}}


def has(needle):
    """Pids whose command line has it."""
    return [pid for pid, fields, command in processes() if fields[0] != "Z" and any(needle in one for one in command)]


def refused(site, config, *words, prefix=(), timeout=20):
    """homeport run with this file (None: the one that is there) ends with status 1, and with one line that has all the
    words; nothing is left. Returns the line."""
    if config is not None:
        site.write(config)
    result = subprocess.run([*prefix, binary(), "run", "-c", site.path], stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, errors="replace", timeout=timeout, check=False)
    lines = [line for line in result.stderr.splitlines() if re.search(r"\berror: ", line)]
    assert result.returncode == 1, f"status {result.returncode}:\n{result.stderr}"
    named = [line for line in lines if all(word in line for word in words)]
    assert named, f"no line says {words}:\n{result.stderr}"
    # Findings in the file are followed by one line of the master; anything else is one line alone.
    rest = [line for line in lines if not line.startswith(site.path + ":")]
    assert len(rest) == 1, f"more than one line:\n{result.stderr}"
    wait_for(lambda: not has(site.folder), what="the end of a killed worker's keeper, which is the last")
    state = os.path.join(site.folder, "state")
    if os.path.isdir(state) and not os.path.islink(state):
        assert "control.sock" not in os.listdir(state)
        assert "segment.new" not in os.listdir(state)
    return named[0]


GROUP = {"home": {"plugin": "match_across_services"}}


def starts(site, persistence=None, **changes):
    """The mended file: it starts, and a client connects."""
    site.start(persistence or GROUP, "home", **changes)
    client = site.client()
    assert client.connect()
    return client


# Plugin files

def test_missing_plugin_is_named_with_the_folders_that_were_searched(site):
    line = refused(site, site.config(by("no_such_plugin"), "home"), "no_such_plugin", "homeport plugins", "error:")
    assert plugin_folder() in line
    starts(site)


def test_missing_plugin_file_is_named(site):
    path = os.path.join(site.folder, "nowhere.so")
    refused(site, site.config(by(path), "home"), path, "correct the path")


def test_text_file_is_no_plugin(site):
    path = os.path.join(site.folder, "text.so")
    with open(path, "w", encoding="utf-8") as file:
        file.write("this is no shared object, however long it is\n" * 40)
    os.chmod(path, 0o755)
    refused(site, site.config(by(path), "home"), path, "ELF", "sdk/")
    starts(site)


def test_folder_and_empty_file_are_no_plugins(site):
    path = os.path.join(site.folder, "empty.so")
    with open(path, "wb"):
        os.chmod(path, 0o755)
    refused(site, site.config(by(path), "home"), path, "sdk/")
    folder = os.path.join(site.folder, "folder.so")
    os.mkdir(folder, 0o755)
    refused(site, site.config(by(folder), "home"), folder)


def test_plugin_for_another_architecture_is_named_as_such(site):
    path = foreign_plugin(site.folder)
    line = refused(site, site.config(by(path), "home"), path, "machine")
    assert "No such file" not in line, line


def test_cut_off_plugin_is_refused(site):
    path = build(site)
    with open(path, "r+b") as file:
        file.truncate(700)
    refused(site, site.config(by(path), "home"), path, "home")


def test_shared_object_without_the_symbol_is_no_plugin(site):
    path = build(site, "SYMBOL=something_else")
    refused(site, site.config(by(path), "home"), path, "no hp_plugin_v1", "<homeport/plugin.h>")


def test_plugin_of_a_later_major_is_named_with_both_sides(site):
    path = build(site, "SYMBOL=hp_plugin_v2")
    refused(site, site.config(by(path), "home"), path, "ABI 2", "speaks 1")


def test_plugin_of_an_older_abi_whose_descriptor_is_shorter_is_refused(site):
    path = build(site, "DESCRIPTOR=.size = 96")
    refused(site, site.config(by(path), "home"), path, "size", "rebuild it")


def test_plugin_that_needs_a_newer_homeport_says_which(site):
    path = build(site, "DESCRIPTOR=.abi_minor = 9, .needs_minor = 9")
    refused(site, site.config(by(path), "home"), "odd", "1.9", "1.0", "update homeport")
    path = build(site, "DESCRIPTOR=.abi_minor = 9")
    starts(site, by(path))


def test_plugin_with_a_symbol_that_nobody_has_is_refused(site):
    path = build(site, "ON_LOAD=extern void nobody_has_this(void); nobody_has_this()")
    refused(site, site.config(by(path), "home"), path, "nobody_has_this", "-z,defs")


@ROOT_ONLY
def test_root_refuses_a_plugin_that_others_can_write(site):
    path = build(site)
    os.chmod(path, 0o777)
    refused(site, site.config(by(path), "home"), path, "written by others", "chmod go-w")
    os.chmod(path, 0o755)
    starts(site, by(path))


# Plugins that misbehave before anything runs

@pytest.mark.parametrize("step", ["ON_LOAD", "ON_CHECK"])
def test_plugin_that_crashes_in_the_check_is_named(site, step):
    path = build(site, f"{step}=CRASH")
    refused(site, site.config(by(path), "home"), "signal 11", path, "home", "mended")
    build(site)
    starts(site, by(path))


def test_plugin_that_ends_its_process_in_the_check_is_named(site):
    path = build(site, "ON_LOAD=_exit(0)")
    refused(site, site.config(by(path), "home"), path, "home")


def test_plugin_that_crashes_in_create_is_named(site):
    path = build(site, "ON_CREATE=CRASH")
    refused(site, site.config(by(path), "home"), "create", "home", "signal 11", "mended")
    build(site)
    starts(site, by(path))


def test_plugin_that_hangs_in_create_is_named(site):
    path = build(site, "ON_CREATE=HANG")
    refused(site, site.config(by(path), "home"), "create", "home", "hung", "mended")


def test_plugin_that_hangs_in_check_is_ended_at_the_limit_and_named(site):
    path = build(site, "ON_CHECK=HANG")
    refused(site, site.config(by(path), "home"), "20 s", path, "home", timeout=40)


def test_plugin_whose_create_says_no_is_named(site):
    path = build(site, 'ON_CREATE=host->problem(host, UINT32_MAX, 0, "the moon is full"); return NULL')
    refused(site, site.config(by(path), "home"), "the moon is full", "homeport.yaml:")


# Ports and users

def test_port_in_use_is_named_with_how_to_see_by_whom(site):
    with contextlib.closing(udp_socket(site.vip, site.natt_port)):
        refused(site, site.config(), "service nat-t", f"{site.vip}:{site.natt_port}", "in use", "ss -lunp")
    starts(site)


def test_port_that_another_homeport_serves_is_in_use(site):
    client = starts(site)
    with Site(servers=2, responders=False) as other:
        config = site.config(state=os.path.join(other.folder, "state"))
        refused(other, config, f"{site.vip}:{site.ike_port}", "in use", "ss -lunp")
    assert client.informational() and site.client().connect()


def test_port_that_is_taken_on_all_addresses_is_in_use(site):
    with contextlib.closing(udp_socket("0.0.0.0")) as taken:
        port = taken.getsockname()[1]
        config = site.config(services={"ike": {"listen": f"{site.vip}:{port}"}})
        refused(site, config, "service ike", f"{site.vip}:{port}", "in use", "ss -lunp")


def test_reload_onto_a_port_in_use_leaves_everything_as_it_is(site):
    client = starts(site)
    with contextlib.closing(udp_socket(site.vip)) as taken:
        services = {"more": {"listen": "%s:%u" % taken.getsockname(), "protocol": "udp", "pool": "all"}}
        site.write(site.config(GROUP, "home", services=services))
        result = site.daemon.cli("reload", json=False, status=None)
    assert result.returncode == 1
    assert "in use" in result.stderr and "service more" in result.stderr, result.stderr
    assert client.informational()
    site.daemon.reload()
    assert client.informational()


def test_reload_may_add_a_wildcard_beside_an_address_and_take_it_away(site):
    with contextlib.closing(udp_socket("0.0.0.0")) as free:  # on the servers' own port it could feed itself
        servers_port, site.natt_port = site.natt_port, free.getsockname()[1]
    pools = {"apart": {"servers": site.names, "port": servers_port, "health": {"check": "none"}}}
    exact, wildcard = f"{site.vip}:{site.natt_port}", f"0.0.0.0:{site.natt_port}"
    client = starts(site, pools=pools, services={"nat-t": {"listen": exact, "pool": "apart"}})
    for listen in ([exact, wildcard], exact):
        services = {"nat-t": {"listen": listen, "pool": "apart"}}
        site.write(site.config(GROUP, "home", pools=pools, services=services))
        site.daemon.reload()
        assert client.informational()


@ROOT_ONLY
def test_low_port_without_root_names_the_remedies(site):
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        if int(file.read()) <= 79:
            pytest.skip("here everybody may bind low ports")
    os.chown(site.folder, NOBODY, NOBODY)
    config = site.config(services={"ike": {"listen": f"{site.vip}:79"}})
    refused(site, config, f"{site.vip}:79", "CAP_NET_BIND_SERVICE", prefix=as_nobody())


@ROOT_ONLY
def test_missing_user_is_named_with_how_to_make_it(site):
    refused(site, site.config(user="no-such-user"), "no-such-user", "useradd", "homeport.yaml:")
    starts(site)


def as_nobody():
    return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]


# The state folder

def test_state_folder_that_is_a_file_or_a_link_or_below_nothing_is_refused(site):
    path = os.path.join(site.folder, "elsewhere")
    config = site.config(state=path)
    with open(path, "wb"):
        refused(site, config, path, "state folder", "folder of its own")
    os.unlink(path)
    os.mkdir(path + ".real")
    os.symlink(path + ".real", path)
    refused(site, config, path, "state folder", "not a link")
    assert os.listdir(path + ".real") == []
    os.unlink(path)
    refused(site, site.config(state=os.path.join(path, "deeper")), "deeper", "make the folder above it")
    starts(site, state=path)


def test_state_folder_that_others_can_write_is_refused(site):
    path = os.path.join(site.folder, "state")
    os.mkdir(path)
    os.chmod(path, 0o770)
    refused(site, site.config(), path, "written by others", f"chmod go-w {path}")
    os.chmod(path, 0o750)
    starts(site)


@ROOT_ONLY
def test_state_folder_of_somebody_else_is_refused(site):
    path = os.path.join(site.folder, "state")
    os.mkdir(path, 0o750)
    os.chown(path, 1, 1)
    refused(site, site.config(), path, "belongs to user 1", "`state:`")
    os.chown(path, 0, 0)
    starts(site)
    site.daemon.stop()
    site.daemon = None
    refused(site, site.config(), path, "Permission denied", f"give it to user {NOBODY}", prefix=as_nobody())


def in_mounts(site, commands):
    """A prefix that runs the daemon with mounts of its own."""
    return ["unshare", "-m", "--propagation", "private", "sh", "-ec", f"{commands}\nexec \"$@\"", "sh"]


@ROOT_ONLY
def test_read_only_file_system_is_refused(site):
    path = os.path.join(site.folder, "fixed")
    os.mkdir(path)
    prefix = in_mounts(site, f"mount -t tmpfs -o ro none {path}")
    refused(site, site.config(state=os.path.join(path, "state")), path, "Read-only", "`state:`", prefix=prefix)
    os.mkdir(os.path.join(path, "state"), 0o750)
    prefix = in_mounts(site, f"mount --bind {path} {path}; mount -o remount,ro,bind {path}")
    refused(site, site.config(state=os.path.join(path, "state")), path, "Read-only", "`state:`", prefix=prefix)


@ROOT_ONLY
def test_no_room_for_the_segment_is_said_with_how_much_it_needs(site):
    path = os.path.join(site.folder, "small")
    os.mkdir(path)
    prefix = in_mounts(site, f"mount -t tmpfs -o size=1m,mode=0750 none {path}")
    refused(site, site.config(state=path), "KiB", path, "affinity.capacity", prefix=prefix)
    starts(site, state=path)


def test_segment_that_is_a_link_or_a_folder_or_writable_by_others_is_refused(site):
    state = os.path.join(site.folder, "state")
    segment, target = os.path.join(state, "segment"), os.path.join(site.folder, "target")
    os.mkdir(state, 0o750)
    with open(target, "wb") as file:
        file.write(b"precious")
    os.symlink(target, segment)
    refused(site, site.config(), segment, "symbolic link", "remove it")
    with open(target, "rb") as file:
        assert file.read() == b"precious"
    os.unlink(segment)
    os.mkdir(segment)
    refused(site, site.config(), segment)
    os.rmdir(segment)
    with open(segment, "wb"):
        os.chmod(segment, 0o666)
    refused(site, site.config(), segment, "written by others", "remove it")
    os.unlink(segment)
    starts(site)


@ROOT_ONLY
def test_segment_of_somebody_else_is_refused(site):
    state = os.path.join(site.folder, "state")
    segment = os.path.join(state, "segment")
    os.mkdir(state, 0o750)
    with open(segment, "wb"):
        os.chown(segment, NOBODY, NOBODY)
        os.chmod(segment, 0o600)
    refused(site, site.config(), segment, f"user {NOBODY}", "remove it")
    os.unlink(segment)
    starts(site)


def test_a_state_folder_with_a_name_too_long_for_a_socket_is_refused(site):
    refused(site, site.config(state=os.path.join(site.folder, "x" * 120)), "state", "homeport.yaml:")


def test_a_dead_socket_and_a_damaged_segment_of_the_last_run_do_not_matter(site):
    state = os.path.join(site.folder, "state")
    os.mkdir(state, 0o750)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(os.path.join(state, "control.sock"))
    with open(os.path.join(state, "segment"), "wb") as file:
        os.chmod(file.name, 0o600)
        file.write(os.urandom(100000))
    starts(site)
    site.daemon.wait_log("segment.old")


# The configuration

def test_reload_of_a_file_that_is_gone_is_answered_with_the_cause(site):
    client = starts(site)
    os.unlink(site.path)
    result = cli("reload", "--state", os.path.join(site.folder, "state"), json=False, status=None)
    assert result.returncode == 1
    assert site.path in result.stderr and "No such file" in result.stderr, result.stderr
    assert client.informational()


def test_missing_configuration_and_one_that_is_a_folder_are_refused(site):
    refused(site, None, site.path, "No such file", "-c FILE")
    os.mkdir(site.path)
    refused(site, None, site.path, "not a regular file")
    os.rmdir(site.path)
    starts(site)


@ROOT_ONLY
def test_unreadable_configuration_and_one_that_others_can_write_are_refused(site):
    site.write(site.config())
    os.chmod(site.path, 0o600)
    refused(site, None, site.path, "Permission denied", prefix=as_nobody())
    os.chmod(site.path, 0o646)
    refused(site, None, site.path, "written by others", f"chmod go-w {site.path}")
    starts(site)


def test_empty_and_hostile_configurations_are_refused(site):
    refused(site, "", "homeport.yaml:")
    refused(site, "a: &a [b, c]\nd: [*a, *a]\n", "homeport.yaml:1:")
    refused(site, "[" * 5000, "homeport.yaml:1:")
    refused(site, "\0" * 100, "homeport.yaml:")
    refused(site, "# " + "x" * (2 << 20), "larger than")


def test_more_workers_than_lanes_is_refused_by_a_reload(site):
    client = starts(site)
    site.write(site.config(GROUP, "home", workers=9))
    result = site.daemon.cli("reload", json=False, status=None)
    assert result.returncode == 1
    assert "9 workers" in result.stderr and "8 lanes" in result.stderr and "stop homeport" in result.stderr
    assert client.informational() and len(site.daemon.workers()) == 2


def test_no_reload_that_fails_leaves_processes_or_descriptors_behind(site):
    path = build(site)
    client = starts(site, by(path))
    before, children, master = site.daemon.steady_descriptors(), site.daemon.children(), site.daemon.process.pid
    for define in ("ON_LOAD=CRASH", "ON_CREATE=CRASH", "SYMBOL=hp_plugin_v2"):
        build(site, define)
        assert site.daemon.cli("reload", json=False, status=None).returncode == 1
    wait_for(lambda: site.daemon.children() == children, what="the end of the successors")
    wait_for(lambda: descriptors(master) <= before, what="flat descriptors")
    site.daemon.kill(site.daemon.await_spare())
    wait_for(lambda: "a worker that dies now is likely to meet the same" in site.daemon.log(), what="the warning")
    assert site.daemon.log().count("spare worker cannot start") <= 3, "whom nobody waits for fills no log"
    assert site.daemon.cli("status")["quarantined"] == [], "the running plugin is not to blame for another file"
    assert client.informational()
    build(site)
    site.daemon.reload()
    assert client.informational()


# Plugins that misbehave while homeport runs: a client with an odd address sets them off

def quarantined(site):
    return site.daemon.cli("status", status=None).stdout and \
        [one if isinstance(one, str) else one["profile"] for one in site.daemon.cli("status")["quarantined"]]


def odd_and_even(site):
    """Clients at 127.A.B.97 and 127.A.B.98."""
    return site.client(1), site.client(2)


def set_off(site, client, words):
    """A new flow of the client takes its worker down; waits for the replacement."""
    place, before = site.daemon.mark(), site.daemon.workers()
    client.renew()
    client.send_init()
    line = site.daemon.wait_log(words, after=place)
    wait_for(lambda: len(site.daemon.workers()) == 2 and site.daemon.workers() != before, what="the next worker")
    return line


@pytest.mark.parametrize("on_failure", ["scheduler", "refuse"])
def test_plugin_that_crashes_twice_is_quarantined_until_the_next_reload(site, on_failure):
    path = build(site, "ON_KEY=if (IS_ODD(flow)) CRASH")
    site.start(by(path, on_failure=on_failure), "home")
    odd, even = odd_and_even(site)
    assert even.connect()
    set_off(site, odd, r"worker \d died by signal 11 inside derive_key of the plugin of profile home")
    assert quarantined(site) == []
    assert even.informational(), "the first time costs a restart and nothing else"
    place = site.daemon.mark()
    set_off(site, odd, r"worker \d died by signal 11 inside derive_key")
    site.daemon.wait_log("profile home is quarantined", after=place)
    wait_for(lambda: quarantined(site) == ["home"], what="the quarantine")
    assert even.informational(), "a live session goes on"
    if on_failure == "scheduler":
        assert odd.init()
    else:
        refusals = site.daemon.cli("status")["counters"]["refused_by_plugin"]
        odd.renew()
        odd.send_init()
        wait_for(lambda: site.daemon.cli("status")["counters"]["refused_by_plugin"] > refusals, what="the refusal")
        assert not any(one.of_kind("init", odd.spi_i) for one in site.responders.values())
    build(site)
    site.daemon.reload()
    wait_for(lambda: quarantined(site) == [], what="the end of the quarantine")
    assert site.client(3).connect()


def test_plugin_that_hangs_in_select_is_ended_by_the_watchdog_and_named(site):
    path = build(site, "BY_SELECT", "ON_KEY=if (IS_ODD(flow)) HANG")
    site.start(by(path), "home")
    odd, even = odd_and_even(site)
    assert even.init()
    set_off(site, odd, r"worker \d hung and was killed inside select of the plugin of profile home")
    even.renew()
    assert even.init(timeout=6.0, tries=6)


def test_plugin_that_only_one_profile_uses_costs_nobody_else_anything(site):
    path = build(site, "ON_KEY=CRASH")
    config = {"bad": {"plugin": path}, "good": {"plugin": "match_across_services"}}
    site.start(config, "good", services={"other": {"listen": f"{site.vip}:{site._free_port()}", "protocol": "udp",
                                                   "pool": "all", "persistence": "bad"}})
    client = site.client()
    assert client.connect()
    port = int(site.config(config, "good")["services"]["ike"]["listen"].rsplit(":", 1)[1])
    assert port == site.ike_port
    other = next(one for one in site.daemon.cli("status")["listeners"] if one["service"] == "other")["address"]
    with contextlib.closing(udp_socket(site.client_address(9))) as one:
        for _ in range(2):
            before = site.daemon.workers()
            one.sendto(b"x" * 40, (site.vip, int(other.rsplit(":", 1)[1])))
            wait_for(lambda b=before: site.daemon.workers() != b and len(site.daemon.workers()) == 2,
                     what="the next worker")
    wait_for(lambda: quarantined(site) == ["bad"], what="the quarantine of the one")
    assert client.informational()
    newcomer = site.client()
    assert newcomer.connect() and site.server_of(newcomer, "init") == site.server_of(newcomer, "auth")


def test_worker_that_dies_in_our_own_code_again_and_again_is_started_with_a_growing_pause(site):
    client = starts(site)
    for _ in range(5):
        pid = site.daemon.workers()[0]
        site.daemon.kill(pid, signal.SIGABRT)
        wait_for(lambda dead=pid: dead not in site.daemon.workers() and len(site.daemon.workers()) == 2,
                 what="the next worker")
    site.daemon.wait_log("its last words: signal 6")
    assert client.informational()


def test_a_stopped_process_holds_up_no_reload_and_does_not_stay(site):
    client = starts(site)
    stopped = [site.daemon.workers()[0], site.daemon.monitor()]
    for pid in stopped:
        site.daemon.kill(pid, signal.SIGSTOP)
    place = site.daemon.mark()
    site.daemon.process.send_signal(signal.SIGHUP)
    site.daemon.wait_log("reloaded", after=place)
    assert client.informational()
    wait_for(lambda: not set(stopped) & set(site.daemon.children()), what="the end of those that were stopped")
    assert len(site.daemon.children()) == 3


def test_a_closed_standard_error_stops_nobody(site):
    site.write(site.config(by("match_across_services"), "home"))
    process = subprocess.Popen(["sh", "-c", 'exec "$0" "$@" 2>&-', binary(), "run", "-c", site.path],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        client = site.client()
        wait_for(lambda: client.init(timeout=0.3, tries=1), 20, "an answer")
        assert client.auth()
        process.terminate()
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_working_folder_that_is_gone_stops_nobody(site):
    site.write(site.config(GROUP, "home"))
    gone = os.path.join(site.folder, "gone")
    os.mkdir(gone)
    site.daemon = Daemon(site.path, prefix=["sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh"]).wait_ready()
    assert site.client().connect()
