"""What helm makes of the chart, without a cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from layercast_operator.api.kinds import OPERATOR_NAME
from layercast_operator.wiring.config import load_config

from tests.chart.helm import CHART, Helm
from tests.chart.installs import CLUSTER_WIDE, GIVEN, NAMESPACED, SCHEDULED, Values

# helm is one of the tools that this phase of the tests has at hand; no apiserver is started.
pytestmark = pytest.mark.apiserver

NAMESPACED_KINDS = {"ConfigMap", "Deployment", "Lease", "Role", "RoleBinding", "Secret", "Service", "ServiceAccount"}


def test_lint_has_nothing_to_say(helm: Helm, values: Values) -> None:
    told = helm.lint(values)

    assert "0 chart(s) failed" in told
    assert "[WARNING]" not in told and "[ERROR]" not in told


def test_every_object_has_the_release_in_its_labels_and_a_namespace_of_its_own(helm: Helm, values: Values) -> None:
    for each in helm.template(values).objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "layercast", each
        # The operator takes what has its own name here for a child.
        assert labels["app.kubernetes.io/managed-by"] == "Helm", each
        assert ("namespace" in each["metadata"]) == (each["kind"] in NAMESPACED_KINDS), each


def test_the_operator_reads_the_rendered_config(helm: Helm, values: Values, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(helm.template(values).config()))
    chart = yaml.safe_load((CHART / "values.yaml").read_text())

    config = load_config(file)

    assert list(config.namespaces) == values.get("watchNamespaces", [])
    assert set(config.platforms) == set(chart["platforms"])
    assert helm.template(values).config()["platforms"] == chart["platforms"]


def test_the_files_named_in_the_config_are_mounted(helm: Helm, values: Values) -> None:
    manifests = helm.template(values)
    spec = manifests.pod()["spec"]
    folders = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}

    assert spec["containers"][0]["args"] == ["--config", f"{folders['config']}/config.yaml"]
    assert volumes["config"]["configMap"]["name"] == manifests.one("ConfigMap")["metadata"]["name"]
    items = volumes["root-secret"]["secret"]["items"]
    assert manifests.config()["rootSecretFile"] == f"{folders['root-secret']}/{items[0]['path']}"


def test_the_pod_has_nothing_that_it_does_not_need(helm: Helm, values: Values) -> None:
    spec = helm.template(values).pod()["spec"]
    (container,) = spec["containers"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]
    assert all(container[probe]["httpGet"]["path"] == "/healthz" for probe in container if probe.endswith("Probe"))
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_only_the_pod_itself_mounts_the_token(helm: Helm) -> None:
    manifests = helm.template()

    assert manifests.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert manifests.pod()["spec"]["automountServiceAccountToken"] is True


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        pytest.param(65532, {"runAsUser": 65532, "runAsGroup": 65532}, id="the image's user"),
        pytest.param(1000650000, {"runAsUser": 1000650000, "runAsGroup": 1000650000}, id="a number that YAML rounds"),
        pytest.param(None, {}, id="whom the platform chooses"),
    ],
)
def test_the_pod_runs_as(helm: Helm, user: int | None, expected: dict[str, int]) -> None:
    context = helm.template({"runAsUser": user}).pod()["spec"]["securityContext"]

    assert {key: context[key] for key in ("runAsUser", "runAsGroup") if key in context} == expected


def test_scheduling_values_reach_the_pod(helm: Helm) -> None:
    manifests = helm.template(SCHEDULED)
    pod = manifests.pod()

    for field in ("imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations", "affinity"):
        assert pod["spec"][field] == SCHEDULED[field]
    assert pod["spec"]["containers"][0]["image"] == f"registry.example/layercast/operator@sha256:{'0' * 64}"
    assert pod["metadata"]["annotations"]["note"] == "kept"
    assert manifests.one("Deployment")["metadata"]["name"] == "serving-operator"
    assert manifests.one("Deployment")["spec"]["replicas"] == 2


def test_pod_labels_can_not_break_the_selector(helm: Helm) -> None:
    manifests = helm.template({"podLabels": {"team": "serving", "app.kubernetes.io/name": "other"}})
    labels = manifests.pod()["metadata"]["labels"]

    assert labels["team"] == "serving"
    assert manifests.one("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert manifests.one("Service")["spec"]["selector"].items() <= labels.items()


def test_another_config_restarts_the_operator_and_the_same_does_not(helm: Helm) -> None:
    def checksum(values: Values) -> Any:
        return helm.template(values).pod()["metadata"]["annotations"]["layercast.dev/config"]

    assert checksum({}) == checksum({"replicas": 2})
    assert checksum({}) != checksum({"platforms": {"CPU": {"startupSeconds": 901}}})


def test_the_definition_is_the_file_and_stays_behind(helm: Helm) -> None:
    crd = helm.template().one("CustomResourceDefinition")
    file = yaml.safe_load((CHART / "files/crd.yaml").read_text())

    assert (crd["spec"], crd["metadata"]["name"]) == (file["spec"], file["metadata"]["name"])
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize(
    ("values", "annotations"),
    [
        pytest.param({"crds": {"keep": False}}, [{}], id="goes with the release"),
        pytest.param({"crds": {"install": False}}, [], id="is somebody else's"),
    ],
)
def test_the_definition(helm: Helm, values: Values, annotations: list[dict[str, str]]) -> None:
    found = helm.template(values).of("CustomResourceDefinition")

    assert [crd["metadata"].get("annotations", {}) for crd in found] == annotations


def test_cluster_wide_rights_only_for_a_cluster_wide_install(helm: Helm) -> None:
    wide, narrow, none = (helm.template(values) for values in (CLUSTER_WIDE, NAMESPACED, GIVEN))

    assert len(wide.of("ClusterRole")) == len(wide.of("ClusterRoleBinding")) == 1
    assert [role["metadata"]["namespace"] for role in wide.of("Role")] == ["layercast-system"]
    assert not narrow.of("ClusterRole") and not narrow.of("ClusterRoleBinding")
    expected = ["layercast-system", "team-a", "team-b"]
    assert sorted(role["metadata"]["namespace"] for role in narrow.of("Role")) == expected
    assert not [each for each in none.objects if each["apiVersion"].startswith("rbac.")]


def test_the_lease_is_the_one_that_the_operator_takes(helm: Helm, values: Values) -> None:
    lease = helm.template(values).one("Lease")

    assert (lease["metadata"]["name"], lease["spec"]) == (OPERATOR_NAME, {})


def test_a_secret_of_ones_own_is_mounted_and_none_made(helm: Helm) -> None:
    manifests = helm.template(GIVEN)
    volumes = {volume["name"]: volume for volume in manifests.pod()["spec"]["volumes"]}

    assert not manifests.of("Secret")
    assert volumes["root-secret"]["secret"] == {
        "secretName": "from-the-vault",
        "items": [{"key": "root", "path": "secret"}],
    }


@pytest.mark.parametrize(
    ("release", "name"),
    [
        pytest.param("layercast", "layercast-operator", id="named like the chart"),
        pytest.param("prod", "prod-layercast-operator", id="named otherwise"),
        pytest.param("a" * 53, f"{'a' * 40}-operator", id="as long as helm allows"),
    ],
)
def test_names_of_a_release(helm: Helm, release: str, name: str) -> None:
    assert helm.template(release=release).one("Deployment")["metadata"]["name"] == name
