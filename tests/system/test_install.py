# SPDX-License-Identifier: Apache-2.0
"""What `meson install` puts where."""
import os
from pathlib import Path

import homeport
import pytest

PLUGINS = ["match_across_services", "persistency_group", "port_following", "source_address"]


@pytest.fixture
def root(tmp_path):
    if not homeport.meson_install(tmp_path):
        pytest.skip("there is no build folder of meson that this user can install from")
    return tmp_path


def test_everything_that_is_used_is_installed_readable_by_all_and_writable_by_the_owner(root):
    files = {path.name: path for path in root.rglob("*") if path.is_file()}
    for path in files.values():
        assert path.stat().st_mode & 0o777 == (0o755 if path.name == "homeport" or path.suffix == ".so" else 0o644), path
    assert files["homeport"].parent.name == "bin"
    for name in PLUGINS:
        assert files[f"{name}.so"].parts[-4:] == ("homeport", "plugins", name, f"{name}.so")
    samples = sorted(path.name for path in (Path(homeport.ROOT) / "configs").glob("*.yaml"))
    assert sorted(name for name in files if name.endswith(".yaml")) == samples
    for name in samples:
        assert files[name].parts[-4:] == ("share", "homeport", "configs", name)
    assert files["plugin.h"].parts[-3:] == ("include", "homeport", "plugin.h")
    assert files["homeport.service"].parts[-4:] == ("lib", "systemd", "system", "homeport.service")
    assert files["50-homeport.conf"].parts[-3:-1] == ("lib", "sysctl.d")
    assert files["homeport.nft"].parts[-3:-1] == ("share", "homeport")
    for folder in ("sysusers.d", "tmpfiles.d"):
        assert list(root.rglob(f"lib/{folder}/homeport.conf")), folder
    assert files["homeport.8"].parent.name == "man8" and files["homeport.yaml.5"].parent.name == "man5"


def test_headers_are_those_of_the_sdk(root):
    sdk = Path(homeport.ROOT) / "sdk" / "include" / "homeport"
    installed = {path.name: path.read_bytes() for path in root.rglob("*.h")}
    assert installed == {path.name: path.read_bytes() for path in sdk.glob("*.h")}


def test_nothing_of_the_tests_or_the_build_tree_is_installed(root):
    tree = os.fsencode(homeport.ROOT) + b"/"
    for path in root.rglob("*"):
        assert path.suffix not in (".a", ".py", ".o"), path
        if path.suffix in (".yaml", ".8", ".5", ".h", ".service", ".conf", ".nft"):
            assert tree not in path.read_bytes(), path
