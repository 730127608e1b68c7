# SPDX-License-Identifier: Apache-2.0
"""The table of verbs, each verb's --help and homeport(8) say the same."""

import re
import shutil
import subprocess
from pathlib import Path

import homeport
import pytest

PAGE = Path(homeport.ROOT) / "docs" / "man" / "homeport.8"


@pytest.fixture
def command():
    return homeport.binary()


def help_of(command, *arguments):
    result = subprocess.run([command, *arguments, "--help"], capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def verbs_of(command):
    return re.findall(r"^  ([a-z]+) +\S", help_of(command), re.MULTILINE)


def page_verbs():
    """Each verb of the page with the text of its items, in order."""
    section = PAGE.read_text().split(".Sh VERBS")[1].split(".Sh ENVIRONMENT")[0]
    verbs = {}
    for item in re.split(r"^\.It ", section, flags=re.MULTILINE)[1:]:
        verb = re.match(r"Cm (\w+)", item).group(1)
        verbs[verb] = verbs.get(verb, "") + item
    return verbs


def test_the_page_lists_the_verbs_of_the_table_in_its_order(command):
    assert list(page_verbs()) == verbs_of(command)


def test_every_verb_has_help_with_usage_and_an_example(command):
    for verb in verbs_of(command):
        text = help_of(command, verb)
        assert f"homeport {verb}" in text.splitlines()[0], verb
        assert "example:" in text, verb


def test_the_page_names_every_option_of_every_verb(command):
    pages = page_verbs()
    for verb in verbs_of(command):
        if verb == "demo":  # the page sends its reader to --help
            continue
        for option in set(re.findall(r"--([a-z]+)", help_of(command, verb))) - {"help", "config"}:
            assert f"Fl -{option}" in pages[verb], f"homeport(8) does not say that {verb} has --{option}"


def test_the_page_promises_no_option_that_a_verb_lacks(command):
    for verb, text in page_verbs().items():
        if verb == "demo":
            continue
        usage = help_of(command, verb)
        for option in re.findall(r"Fl -([a-z]+)", text):
            assert f"--{option}" in usage, f"homeport(8) says that {verb} has --{option}"


def test_wrong_usage_is_status_2(command):
    for arguments in (["fly"], [], ["status", "--fast"], ["drop"], ["servers", "one-too-many"], ["run", "-c"]):
        result = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=20, check=False)
        assert result.returncode == 2, arguments
        assert result.stderr, arguments


def test_without_a_daemon_the_answer_is_one_line_and_status_1(command, tmp_path):
    for verb in ("status", "servers", "sessions", "affinity", "reload"):
        result = subprocess.run(
            [command, verb, "--state", str(tmp_path)], capture_output=True, text=True, timeout=20, check=False
        )
        assert result.returncode == 1, verb
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert "not running" in result.stderr and "homeport run" in result.stderr, result.stderr


def test_mandoc_has_nothing_to_say():
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    result = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)], capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == 0, result.stdout
