# SPDX-License-Identifier: Apache-2.0
"""Which base ./dev image takes: its own way between podman and mmdebstrap, which are stand-ins here that write down what they
were asked for. The real ones are in tests/container."""
import os
import shutil
import subprocess

import homeport
import pytest

PODMAN = """#!/bin/sh
echo "podman $*" >>"$CALLS"
case "$1 $2" in
"image exists") grep -qxF "$3" "$IMAGES" ;;
"pull --quiet") [ -n "$REGISTRY" ] && echo "$3" >>"$IMAGES" ;;
"import --quiet") echo "$4" >>"$IMAGES" ;;
"image inspect") echo 2000000 ;;
esac
"""
MMDEBSTRAP = """#!/bin/sh
echo "mmdebstrap $*" >>"$CALLS"
exit "$MMDEBSTRAP"
"""
OWN = "localhost/homeport-base:bookworm"
DEFAULT = "debian:bookworm-slim"


@pytest.fixture
def image(tmp_path):
    """Runs ./dev image; returns its result, and the base of each build."""
    if shutil.which("dpkg-query") and os.geteuid() == 0 and shutil.which("podman") is None:
        pytest.skip("needs the packages of the container image: ./dev deps")
    for name, text in (("podman", PODMAN), ("mmdebstrap", MMDEBSTRAP), ("dpkg-query", "#!/bin/sh\nshift 3\n"
                       "for name; do echo installed $name; done\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    calls, images = tmp_path / "calls", tmp_path / "images"
    images.touch()

    def run(*arguments, base=None, registry="", made=0, there=()):
        calls.write_text("", encoding="utf-8")
        images.write_text("".join(f"{name}\n" for name in there), encoding="utf-8")
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "IMAGES": str(images),
                       "REGISTRY": registry, "MMDEBSTRAP": str(made)}
        environment.pop("BASE", None)
        result = subprocess.run([os.path.join(homeport.ROOT, "dev"), "image", *arguments], capture_output=True, text=True,
                                timeout=60, check=False, env={**environment, **({"BASE": base} if base else {})})
        lines = calls.read_text(encoding="utf-8").splitlines()
        builds = [line for line in lines if line.startswith("podman build ")]
        return result, [word.removeprefix("BASE=") for line in builds for word in line.split() if word.startswith("BASE=")], lines
    return run


def test_the_default_is_pulled_where_a_registry_is_reached(image):
    result, bases, lines = image(registry="yes")
    assert result.returncode == 0 and bases == [DEFAULT, DEFAULT]
    assert not [line for line in lines if line.startswith("mmdebstrap")]


def test_where_none_is_reached_the_base_is_made_of_packages(image):
    result, bases, lines = image()
    assert result.returncode == 0 and bases == [OWN, OWN]
    assert f"cannot pull {DEFAULT}" in result.stderr
    assert [line for line in lines if line.startswith("mmdebstrap") and "bookworm" in line]


def test_what_is_there_is_neither_pulled_nor_made(image):
    for base in (DEFAULT, OWN):
        result, bases, lines = image(base=base, there=[base])
        assert result.returncode == 0 and bases == [base, base]
        assert not [line for line in lines if "pull" in line or line.startswith("mmdebstrap")]


def test_a_base_by_name_that_cannot_be_pulled_is_an_error_and_replaced_by_nothing(image):
    result, bases, _ = image(base="registry.example/base:1")
    assert result.returncode != 0 and bases == []
    assert "cannot pull registry.example/base:1" in result.stderr


def test_a_base_that_cannot_be_made_is_not_imported(image):
    result, bases, lines = image(made=25)
    assert result.returncode != 0 and bases == []
    assert not [line for line in lines if line.startswith("podman import")]


def test_arguments_go_to_both_builds(image):
    _, _, lines = image("--no-cache", registry="yes")
    assert len([line for line in lines if line.startswith("podman build ") and "--no-cache" in line]) == 2
