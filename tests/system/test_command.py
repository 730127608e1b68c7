# SPDX-License-Identifier: Apache-2.0
"""The command itself: foreign code that crashes or hangs costs its child alone, and explaining needs no daemon."""

import json
import shutil
import socket
import subprocess

import homeport
import pytest

CRASHES = "#include <signal.h>\n__attribute__((constructor)) static void boom(void) { raise(SIGKILL); }\n"
LEAVES = "#include <stdlib.h>\n__attribute__((constructor)) static void gone(void) { _Exit(0); }\n"
CHATTERS = '#include <stdio.h>\n__attribute__((constructor)) static void say(void) { puts("{}"); fflush(stdout); }\n'

CONFIG = """
user: nobody
state: {folder}/state
plugin_path: [ {folder} ]
servers: {{ vpn1: {{ address: 127.0.0.11 }} }}
pools: {{ all: {{ servers: [ vpn1 ], health: {{ check: none }} }} }}
persistence: {{ home: {{ plugin: {plugin} }} }}
services:
  ike: {{ listen: "127.0.0.1:35500", protocol: udp, pool: all, persistence: home }}
  bare: {{ listen: "127.0.0.1:35501", protocol: udp, pool: all }}
"""


def run(*arguments):
    return subprocess.run([homeport.binary(), *arguments], capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def folder(tmp_path_factory):
    """Readable for everybody on the way down: the child has no privileges."""
    path = tmp_path_factory.mktemp("plugins")
    for parent in (path, *path.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o755)
    return path


def compile_plugin(folder, name, text):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here")
    source, plugin = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(text)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", plugin, source], check=True, timeout=60)
    return plugin


def write_config(folder, plugin):
    path = folder / "homeport.yaml"
    path.write_text(CONFIG.format(folder=folder, plugin=plugin))
    return str(path)


@pytest.mark.parametrize("text, words", [(CRASHES, "it crashed"), (LEAVES, "it ended the process")],
                         ids=["crash", "exit"])
def test_a_plugin_that_takes_its_process_down_is_named_and_the_others_are_listed(folder, text, words):
    compile_plugin(folder, "bad", text)
    result = run("plugins", "-c", write_config(folder, "source_address"), "--json")
    assert result.returncode == 1
    assert words in result.stderr and "bad" in result.stderr, result.stderr
    assert "source_address" in [plugin["name"] for plugin in json.loads(result.stdout)["plugins"]]


def test_what_a_plugin_prints_is_not_taken_for_its_description(folder):
    plugin = compile_plugin(folder, "chatter", CHATTERS)
    result = run("plugins", str(plugin), "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["plugins"] == []
    assert "hp_plugin_v1" in result.stderr, result.stderr


def test_explaining_says_the_key_of_each_service_although_no_daemon_runs(folder):
    result = run("affinity", "--explain", "198.51.100.7", "--json", "-c", write_config(folder, "source_address"))
    services = {one["service"]: one for one in json.loads(result.stdout)["services"]}
    assert result.returncode == 1, "the daemon could not be asked for the record"
    assert "not running" in result.stderr
    assert services["ike"]["readable"] == "198.51.100.7 in service ike"
    assert services["ike"]["key"].endswith("c6336407")
    assert "key" not in services["bare"] and services["bare"]["profile"] is None


def test_explaining_survives_a_plugin_that_crashes(folder):
    plugin = compile_plugin(folder, "bad", CRASHES)
    result = run("affinity", "--explain", "198.51.100.7", "-c", write_config(folder, plugin))
    assert result.returncode == 1
    assert "it crashed" in result.stderr and "profile home" in result.stderr, result.stderr


def test_a_file_with_errors_still_says_where_the_daemon_is(folder):
    path = folder / "broken.yaml"
    path.write_text(f"state: '{folder}/here'  # a comment\nservers: [ nonsense\n")
    result = run("status", "-c", str(path))
    assert result.returncode == 1
    assert f"{folder}/here/control.sock" in result.stderr, result.stderr


@pytest.mark.parametrize("verb", [["status"], ["drop", "1.2.3.4"], ["reload"]], ids=lambda verb: verb[0])
def test_a_file_that_is_named_and_not_there_is_not_passed_over_for_the_default_daemon(folder, verb):
    result = run(*verb, "-c", str(folder / "typo.yaml"))
    assert result.returncode == 1
    assert "cannot open the configuration" in result.stderr and "typo.yaml" in result.stderr, result.stderr


def test_a_daemon_that_does_not_answer_is_not_said_to_be_not_running(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "control.sock"))
        listener.listen()
        result = run("status", "--state", str(folder))
    assert result.returncode == 1
    assert "does not answer" in result.stderr and "_monitor" in result.stderr, result.stderr


def test_a_slip_in_a_verb_or_an_option_is_named(folder):
    assert "did you mean status?" in run("statsu").stderr
    assert "there is no option --bogus" in run("status", "--bogus").stderr
    assert "-c: its value is missing" in run("run", "-c").stderr
