# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the system tests; the helpers themselves are in tests/lib/homeport.py."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))

import homeport  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def built():
    """Every test here runs the daemon as a user does; without it there is nothing to test."""
    if not os.access(homeport.binary(), os.X_OK):
        pytest.fail(f"{homeport.binary()} is not there: build it, or set HOMEPORT")


@pytest.fixture
def site():
    """Three servers, no daemon yet: site.start(...) starts it."""
    with homeport.Site(servers=3) as one:
        yield one


@pytest.fixture
def make_site():
    """For tests that need other numbers: make_site(servers=2, echo=True)."""
    sites = []

    def make(**arguments):
        sites.append(homeport.Site(**arguments).__enter__())
        return sites[-1]

    yield make
    for one in reversed(sites):
        one.__exit__(None, None, None)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Name of an installed file -> its path."""
    folder = tmp_path_factory.mktemp("installed")
    if not homeport.meson_install(folder):
        pytest.skip("there is no build folder of meson that this user can install from")
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
