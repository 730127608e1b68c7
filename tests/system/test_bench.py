# SPDX-License-Identifier: Apache-2.0
"""The benches in their short form: what they would measure is there, of every balancer. No figure is judged: on a machine
that does other things as well they say nothing."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest
from homeport import ROOT, binary

MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
PEERS = {"requests": {"nginx", "kernel routing"}, "bulk": {"nginx", "kernel routing"}, "flows": {"nginx"},
         "fair": {"nginx"}, "tcp": {"nginx", "haproxy"}}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("nginx") is None or not os.path.exists(MODULE),
                       reason="nginx or its stream module is missing: apt-get install nginx-core libnginx-mod-stream")]


@pytest.mark.parametrize("kind", PEERS)
def test_measures_every_balancer(kind, tmp_path):
    if kind == "tcp" and shutil.which("haproxy") is None:
        pytest.skip("haproxy is missing: apt-get install haproxy")
    build = pathlib.Path(binary()).resolve().parents[1]
    words = [os.path.join(ROOT, "tests/bench/run"), "--build", build, "--short", "--only", kind, "--json", tmp_path / "found"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found").read_text())
    assert {"cpu", "cpus", "kernel"} <= set(found["machine"])
    balancers = {"homeport", *PEERS[kind]}
    rows = found["comparisons"][0]["rows"]
    assert rows and all(set(row["values"]) == balancers for row in rows if row["cpu_ns"]), rows
    assert all(set(row["ratios"]) == PEERS[kind] for row in rows), rows
    for name in balancers:  # in a moment on a busy machine one figure may be nothing, but not all
        assert any(max(row["values"].get(name, [0])) > 0 for row in rows), (name, rows)
