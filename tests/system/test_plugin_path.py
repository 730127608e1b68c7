# SPDX-License-Identifier: Apache-2.0
"""Started as root, homeport loads plugins as another user: folders that this one may not enter are passed over, and named
when the plugin is nowhere else."""
import os
import tempfile

import homeport
import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
NAME = "match_across_services"


@pytest.fixture
def closed(monkeypatch):
    """A checkout in a folder that root alone may enter; it is what is tested."""
    with tempfile.TemporaryDirectory(prefix="homeport-closed-") as folder:  # mode 0700
        tree = os.path.join(folder, "checkout")
        os.mkdir(tree)
        monkeypatch.setenv("HOMEPORT", homeport.copy_tree(homeport.binary(), tree))
        monkeypatch.setattr(homeport, "binary", lambda: os.environ["HOMEPORT"])
        yield folder


def check(site, plugin, **changes):
    path = site.write(site.config({"home": {"plugin": plugin}}, "home", **changes))
    return homeport.cli("check", path, json=False, status=None)


def test_build_tree_that_others_may_not_enter_is_passed_over(site, closed):
    reachable = homeport.copy_tree(os.environ["HOMEPORT"], site.folder)
    plugins = os.path.join(os.path.dirname(os.path.dirname(reachable)), "plugins")
    site.start({"home": {"plugin": NAME}}, "home", plugin_path=[plugins])
    assert site.client().connect()


@pytest.mark.parametrize("by_path", [False, True], ids=["name", "path"])
def test_folder_that_bars_the_way_is_named_with_the_remedy(site, closed, by_path):
    path = os.path.join(homeport.plugin_folder(), NAME, f"{NAME}.so")
    result = check(site, path if by_path else NAME)
    assert result.returncode == 1
    assert f"may not enter {closed}:" in result.stderr and f"chmod o+x {closed}," in result.stderr, result.stderr
    os.chmod(closed, 0o711)
    assert check(site, path if by_path else NAME).returncode == 0


def test_plugin_file_that_others_may_not_read_is_named_with_the_remedy(site):
    path = os.path.join(homeport.copy_tree(homeport.binary(), site.folder), "..", "..", "plugins", NAME, f"{NAME}.so")
    path = os.path.realpath(path)
    os.chmod(path, 0o700)
    result = check(site, path)
    assert result.returncode == 1
    assert "Permission denied" in result.stderr and f"chmod o+r {path}" in result.stderr, result.stderr
    os.chmod(path, 0o704)
    assert check(site, path).returncode == 0


def test_missing_plugin_where_every_folder_is_open_speaks_of_no_barrier(site):
    result = check(site, "no_such_plugin")
    assert result.returncode == 1
    assert "may not enter" not in result.stderr, result.stderr
