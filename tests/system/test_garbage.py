# SPDX-License-Identifier: Apache-2.0
"""Garbage on every listener, the short form of `./dev soak garbage`: all of it is accounted for, and nobody is hurt."""
import os
import subprocess

from homeport import ROOT, binary

DATAGRAMS = 200_000


def test_garbage_is_relayed_or_dropped_and_counted_and_hurts_nobody():
    result = subprocess.run([os.path.join(ROOT, "tests", "bench", "soak_garbage"), str(DATAGRAMS)], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
                            env={**os.environ, "HOMEPORT": binary()}, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stdout[-4000:]
    assert f"sent {DATAGRAMS}" in result.stdout and "all accounted for" in result.stdout
