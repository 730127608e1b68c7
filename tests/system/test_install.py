# SPDX-License-Identifier: Apache-2.0
"""homeport installed into the home of somebody who is not root, as the README says: what lies where, that it runs from
there, and that a plugin builds against it. As root the user is nobody; else it is who runs the tests."""
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import homeport
import pytest
import yaml

ROOT = Path(homeport.ROOT)
PLUGINS = ["ike_spi", "match_across_services", "persistency_group", "port_following", "source_address"]
SYSTEM_CONFIG = "/etc/homeport/homeport.yaml"

CXX_PLUGIN = """\
#include <homeport/plugin.h>
#include <homeport/plugin_util.h>
#include <new>
#include <string>

struct Whole { std::string name; };
int not_static() { return 1; }  // must not be exported

static void *create(const struct hp_host *, const struct hp_profile *profile)
{
    return new (std::nothrow) Whole{profile->name};
}
static void destroy(void *self) { delete static_cast<Whole *>(self); }
static int32_t key(void *, const struct hp_flow *, uint8_t *out) { *out = 1; return not_static(); }
static const struct hp_option options[] = {
    {"timeout", HP_OPTION_DURATION, 0, "180s", "1s..4000h", "How long a record outlives its traffic."}};
static const char *const tables[] = {"clients"};

const struct hp_plugin hp_plugin_v1 = {
    HP_ABI_MAJOR, HP_ABI_MINOR, sizeof(struct hp_plugin), 0, "all_one", "1.0", "All are one.", "tests", options, 1,
    sizeof(struct hp_option), nullptr, tables, 0, 1, 0, 0, 0, 0, 0, 0, nullptr, create, destroy, key, nullptr, nullptr,
    nullptr, nullptr, nullptr};
"""


class Home:
    """A home folder that only its owner may enter, and homeport built for and installed below .local in it."""

    def __init__(self, folder, build):
        self.folder, self.prefix, self.build = Path(folder), Path(folder) / ".local", Path(build)
        self.owner = []  # the command that becomes the owner
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.owner = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        self.environment = ["env", "-i", f"HOME={folder}", f"PATH={os.environ['PATH']}"]
        self.command = [*self.owner, *self.environment, str(self.prefix / "bin" / "homeport")]

    def install(self):
        """With the README's own line, only that the build folder is not in the tree: it may not be writable. Whoever
        has a strict umask has everybody's modes all the same."""
        line = only_line(ROOT / "README.md", "meson setup build-home ")
        line = line.replace("build-home", shlex.quote(str(self.build)))
        environment = {key: value for key, value in os.environ.items() if key != "DESTDIR"}
        environment["HOME"] = str(self.folder)
        result = subprocess.run(["sh", "-c", line], cwd=ROOT, env=environment, umask=0o077, timeout=500,
                                capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
        if self.owner:
            subprocess.run(["chown", "-R", "--reference", self.folder, self.prefix], check=True, timeout=30)

    def shell(self, script, status=0):
        """The owner runs lines of a shell, in the home folder. Returns the finished process."""
        result = subprocess.run([*self.owner, *self.environment, "sh", "-c", f"cd && {script}"], capture_output=True,
                                text=True, timeout=120, check=False)
        assert status in (None, result.returncode), f"{script}\n{result.stdout}{result.stderr}"
        return result

    def cli(self, verb, *arguments, **options):
        return homeport.cli(verb, *map(str, arguments), command=self.command, **options)

    def put(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    def files(self):
        return {str(path.relative_to(self.prefix)): path for path in self.prefix.rglob("*") if not path.is_dir()}


def only_line(path, begin):
    """The one indented line of a document that begins like this."""
    lines = re.findall(rf"^    ({re.escape(begin)}.*)$", path.read_text(), re.MULTILINE)
    assert len(lines) == 1, (path, begin, lines)
    return lines[0]


def need(*commands):
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    need("meson", "ninja", shlex.split(os.environ.get("CC", "cc"))[0], *(["setpriv"] if os.geteuid() == 0 else []))
    with tempfile.TemporaryDirectory(prefix="homeport-home-") as folder:  # mode 0700
        one = Home(folder, tmp_path_factory.mktemp("install") / "build")
        one.install()
        yield one


@pytest.fixture
def moved(home, site):
    """site's servers, addresses and high ports for the installed homeport: nothing in it names a folder of plugins."""
    site.path = str(home.folder / "homeport.yaml")

    def config(*arguments, **changes):
        return site.config(*arguments, plugin_path=None, user=None, state=str(home.folder / "state"), **changes)

    return config


def expected_files():
    """Relative path: mode."""
    files = {f"share/homeport/configs/{path.name}": 0o644 for path in (ROOT / "configs").glob("*.yaml")}
    files.update({f"include/homeport/{path.name}": 0o644 for path in (ROOT / "sdk/include/homeport").glob("*.h")})
    files.update({f"lib/homeport/plugins/{name}/{name}.so": 0o755 for name in PLUGINS})
    files.update({f"share/homeport/configs/container/{path.name}": 0o644 for path in (ROOT / "configs/container").iterdir()})
    files.update({f"lib/{name}": 0o644 for name in ("systemd/system/homeport.service", "sysusers.d/homeport.conf",
                                                    "tmpfiles.d/homeport.conf", "sysctl.d/50-homeport.conf")})
    files["share/homeport/homeport.nft"] = 0o644
    return files | {"bin/homeport": 0o755, "share/pkgconfig/homeport-plugin.pc": 0o644,
                    "share/man/man8/homeport.8": 0o644, "share/man/man5/homeport.yaml.5": 0o644}


def test_every_file_is_in_its_place_and_no_other(home):
    assert {name: path.stat().st_mode & 0o7777 for name, path in home.files().items()} == expected_files()
    for path in home.prefix.rglob("*"):
        assert not path.is_dir() or path.stat().st_mode & 0o7777 == 0o755, path


def test_headers_are_those_of_the_sdk_and_no_text_names_where_it_was_built(home):
    for name, path in home.files().items():
        if path.suffix == ".h":
            assert path.read_bytes() == (ROOT / "sdk" / name).read_bytes()
        if path.suffix != ".so" and name != "bin/homeport":
            # the unit names its command by its path
            for folder in (ROOT, home.build, *([] if path.suffix == ".service" else [home.folder])):
                assert os.fsencode(folder) not in path.read_bytes(), (name, folder)


def test_without_tests_there_is_no_criterion_in_the_build(home):
    def says(what):
        command = ["meson", "introspect", home.build, f"--{what}"]
        return json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)

    assert "libuv" in [one["name"] for one in says("dependencies")]
    assert "criterion" not in [one["name"] for one in says("dependencies")]
    assert says("tests") == []
    assert not [one["name"] for one in says("targets") if str(ROOT / "tests") in one["defined_in"]]


def test_staged_for_a_package_it_is_the_same_and_found_by_pkg_config_there(home, tmp_path):
    need("pkg-config")
    subprocess.run(["meson", "install", "-C", home.build, "--no-rebuild", "--quiet", "--destdir", tmp_path], check=True,
                   timeout=60, stdout=subprocess.DEVNULL)
    stage = tmp_path / home.prefix.relative_to("/")
    assert {str(path.relative_to(stage)) for path in tmp_path.rglob("*") if path.is_file()} == set(expected_files())
    said = subprocess.run(["pkg-config", "--variable=plugindir", "homeport-plugin"], capture_output=True, text=True,
                          env={**os.environ, "PKG_CONFIG_PATH": str(stage / "share/pkgconfig")}, timeout=20, check=True)
    assert Path(said.stdout.strip()).resolve() == stage / "lib/homeport/plugins"


def test_pkg_config_file_is_valid_and_has_the_versions_of_the_command(home):
    need("pkg-config")
    ask = "export PKG_CONFIG_PATH=~/.local/share/pkgconfig; pkg-config homeport-plugin"
    assert home.shell(f"{ask} --validate").stderr == ""
    version, major, minor = (home.shell(f"{ask} --{what}").stdout.strip()
                             for what in ("modversion", "variable=abi_major", "variable=abi_minor"))
    assert home.cli("version", json=False) == f"homeport {version}, plugin ABI {major}.{minor}\n"


def test_plugins_are_found_without_a_configuration(home):
    if os.path.exists(SYSTEM_CONFIG):
        pytest.skip(f"this machine has a {SYSTEM_CONFIG}, which is read")
    found = home.cli("plugins")["plugins"]
    assert [one["name"] for one in found] == PLUGINS
    for one in found:
        assert one["path"] == str(home.prefix / "lib/homeport/plugins" / one["name"] / f"{one['name']}.so")


def test_samples_of_the_installation_pass_check_on_high_ports(home, site):
    samples = sorted((home.prefix / "share/homeport/configs").glob("*.yaml"))
    assert len(samples) == 7
    for sample in samples:
        config = yaml.safe_load(sample.read_text())
        assert "plugin_path" not in config, sample
        config["sessions"] = {"ports": site.port_range}
        for name, port in (("ike", site.ike_port), ("nat-t", site.natt_port)):
            config["services"][name]["listen"] = f"{site.vip}:{port}"
        path = home.put(sample.name, yaml.dump(config))
        home.cli("check", path, json=False)
        assert [one["name"] for one in home.cli("plugins", "-c", path)["plugins"]] == PLUGINS


def test_runs_from_there_without_root_and_brings_a_client_home(home, site, moved):
    site.write(moved({"home": {"plugin": "match_across_services"}}, "home"))
    site.daemon = homeport.Daemon(site.path, command=home.command).wait_ready()
    client = site.client()
    assert client.connect()
    assert site.server_of(client) is not None
    processes = site.daemon.alive()
    assert len(site.daemon.alive(keepers=False)) == 4  # master, two workers, monitor
    for pid in processes:
        assert os.path.samefile(f"/proc/{pid}/exe", home.prefix / "bin/homeport")
        assert os.stat(f"/proc/{pid}").st_uid == home.folder.stat().st_uid != 0
    assert [one["client"] for one in site.daemon.cli("affinity")["records"]] == [client.address]
    site.daemon.reload()
    assert client.informational()


def test_demo_shows_its_table_from_there(home):
    home.cli("demo", "--once", json=False, timeout=150)


@pytest.fixture
def build(home):
    """Runs the READMEs' command in the owner's home: another compiler for cc, other flags for -O2. Returns the path of
    the plugin, or with a status what the compiler said; where it succeeds, a word of it is too much."""
    need("pkg-config")
    readme, example = (ROOT / "README.md").read_text(), ROOT / "examples/proxy_map"
    path = only_line(example / "README.md", "export PKG_CONFIG_PATH=")
    command = only_line(example / "README.md", "cc $(pkg-config ")
    assert command == only_line(ROOT / "README.md", "cc $(pkg-config ") and f"`{path.split('#')[0].strip()}`" in readme

    def run(compiler="cc", source="plugin.c", text=None, flags="-O2", status=0):
        need(compiler)
        (home.folder / "proxy_map.so").unlink(missing_ok=True)
        home.put(source, text or (example / source).read_text())
        line = command.replace("cc ", f"{compiler} ", 1).replace("-O2", flags).replace("plugin.c", source)
        result = home.shell(f"{path}\n{line}", status)
        assert status or result.stdout + result.stderr == ""
        return result.stderr if status else home.folder / "proxy_map.so"

    return run


def looked_at(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout


def expect_hidden_and_hardened(plugin):
    need("nm", "readelf")
    defined = looked_at("nm", "-D", "--defined-only", plugin).splitlines()
    assert [line.split()[-1] for line in defined] == ["hp_plugin_v1"]
    segments = looked_at("readelf", "--program-headers", "--wide", plugin)
    assert "GNU_RELRO" in segments
    assert re.search(r"^ *GNU_STACK .* RW +0x", segments, re.MULTILINE), segments
    dynamic = looked_at("readelf", "--dynamic", "--wide", plugin)
    assert "BIND_NOW" in dynamic and "TEXTREL" not in dynamic, dynamic


@pytest.mark.parametrize("flags", ["-O2", "", "-O2 -Wall -Wextra -pedantic -std=c11"])
@pytest.mark.parametrize("compiler", ["cc", "gcc", "clang"])
def test_example_builds_outside_the_tree(home, build, compiler, flags):
    plugin = build(compiler, flags=flags)
    expect_hidden_and_hardened(plugin)
    assert "__stack_chk_fail" in looked_at("nm", "-D", "--undefined-only", plugin)
    assert home.cli("plugins", plugin)["plugins"][0]["name"] == "proxy_map"


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_plugin_in_cxx_builds_outside_the_tree(home, build, compiler):
    plugin = build(compiler, "plugin.cc", CXX_PLUGIN, "-O2 -Wall -Wextra")
    expect_hidden_and_hardened(plugin)
    assert home.cli("plugins", plugin)["plugins"][0]["name"] == "all_one"


def test_missing_symbol_is_an_error_of_the_link(build):
    text = "#include <homeport/plugin.h>\nint missing(void);\nHP_PLUGIN_EXPORT int (*const f)(void) = missing;\n"
    assert "missing" in build(source="undefined.c", text=text, status=1)


def test_example_brings_an_office_home_in_the_installed_homeport(home, site, moved, build):
    networks = home.put("proxies.txt", f"{site.client_address(0)}/28 office\n")
    offices = {"plugin": str(build()), "options": {"file": str(networks)}}
    site.write(moved({"offices": offices}, "offices"))
    site.daemon = homeport.Daemon(site.path, command=home.command).wait_ready()
    office = [site.client(number) for number in range(3)]
    for one in office:
        assert one.connect()
    assert len({site.server_of(one) for one in office} - {None}) == 1
