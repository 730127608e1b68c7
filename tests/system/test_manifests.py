# SPDX-License-Identifier: Apache-2.0
"""The compose file and the Kubernetes manifest against the schemas of docker-compose and of Kubernetes' client, against each
other, and with mistakes in them, which must not pass."""
import copy
import json
import shutil
import subprocess
from pathlib import Path

import homeport
import pytest
import yaml

FOLDER = Path(homeport.ROOT) / "configs" / "container"
KINDS = {"ConfigMap": "V1ConfigMap", "DaemonSet": "V1DaemonSet"}


@pytest.fixture
def compose_check(tmp_path):
    if shutil.which("docker-compose") is None:
        pytest.skip("needs the package docker-compose: ./dev deps")

    def run(text):
        path = tmp_path / "compose.yaml"
        path.write_text(text, encoding="utf-8")
        return subprocess.run(["docker-compose", "-f", path, "config"], capture_output=True, text=True, timeout=60,
                              check=False)
    return run


class Answer:
    def __init__(self, content):
        self.data = json.dumps(content)


@pytest.fixture
def kubernetes_check():
    client = pytest.importorskip("kubernetes.client", reason="needs the package python3-kubernetes: ./dev deps")

    def run(document):
        """None, or what is wrong: a key that is not known is not in the typed object."""
        api = client.ApiClient()
        try:
            typed = api.sanitize_for_serialization(api.deserialize(Answer(document), KINDS[document["kind"]]))
        except ValueError as error:
            return str(error)
        return None if typed == document else "unknown keys"
    return run


def compose():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]["homeport"]


def manifests():
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")))


def pod():
    return manifests()[1]["spec"]["template"]["spec"]


def test_compose_file_passes_its_schema(compose_check):
    result = compose_check((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert result.returncode == 0, result.stderr
    assert yaml.safe_load(result.stdout)["services"]["homeport"]["network_mode"] == "host"


def test_compose_file_with_a_mistake_does_not(compose_check):
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    assert compose_check(text.replace("cap_add:", "cap_ad:")).returncode != 0


def test_kubernetes_manifest_passes_its_schema(kubernetes_check):
    assert [one["kind"] for one in manifests()] == list(KINDS)
    for document in manifests():
        assert kubernetes_check(document) is None


@pytest.mark.parametrize("mistake", ["unknown", "missing"])
def test_kubernetes_manifest_with_a_mistake_does_not(kubernetes_check, mistake):
    document = copy.deepcopy(manifests()[1])
    if mistake == "unknown":
        document["spec"]["template"]["spec"]["hostNetwrk"] = True
    else:
        del document["spec"]["selector"]
    assert kubernetes_check(document) is not None


def test_pods_are_those_that_the_daemon_set_selects_and_its_configuration_is_there():
    configuration, daemon_set = manifests()
    assert daemon_set["spec"]["selector"]["matchLabels"] == daemon_set["spec"]["template"]["metadata"]["labels"]
    mounts = {one["name"]: one["mountPath"] for one in pod()["containers"][0]["volumeMounts"]}
    volumes = {one["name"]: one for one in pod()["volumes"]}
    assert set(mounts) == set(volumes)
    assert volumes["configuration"]["configMap"]["name"] == configuration["metadata"]["name"]
    assert list(configuration["data"]) == ["homeport.yaml"] and mounts["configuration"] == "/etc/homeport"


def test_configuration_of_the_manifest_passes_homeports_check(tmp_path, site):
    config = yaml.safe_load(manifests()[0]["data"]["homeport.yaml"])
    site.path = str(tmp_path / "homeport.yaml")
    tmp_path.chmod(0o755)
    homeport.cli("check", site.write({**site.config(), **config}), json=False)


def test_both_ask_for_the_same_as_the_page():
    page = (Path(homeport.ROOT) / "docs" / "container.md").read_text(encoding="utf-8")
    security = pod()["containers"][0]["securityContext"]
    assert compose()["cap_add"] == security["capabilities"]["add"]
    assert compose()["cap_drop"] == security["capabilities"]["drop"] == ["ALL"]
    for one in compose()["cap_add"]:
        assert f"--cap-add={one}" in page
    assert compose()["security_opt"] == ["no-new-privileges:true"] and security["allowPrivilegeEscalation"] is False
    assert compose()["stop_grace_period"] == "10s" and pod()["terminationGracePeriodSeconds"] == 10
    assert compose()["restart"] == "always" and "--restart=always" in page and "restartPolicy" not in pod()
    assert compose()["read_only"] and security["readOnlyRootFilesystem"] and "--read-only" in page
    assert compose()["network_mode"] == "host" and pod()["hostNetwork"] and "--network=host" in page
    assert pod()["volumes"][1]["hostPath"]["path"] == "/run/homeport" and "/run/homeport:/run/homeport" in compose()["volumes"]
