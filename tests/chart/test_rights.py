"""The operator has the rights that it needs and no others: asked of a real apiserver, of everything it knows."""

from collections.abc import Callable

import pytest
import yaml
from layercast_operator.api.kinds import CHILD_KINDS, GROUP, OPERATOR_NAME, RESOURCE

from tests.chart.conftest import Install
from tests.chart.helm import CHART
from tests.chart.release import Release
from tests.chart.rights import Right, Rights, expand
from tests.cluster.controlplane import ControlPlane
from tests.cluster.errors import ClusterError

pytestmark = pytest.mark.apiserver

RULES = yaml.safe_load((CHART / "files/operator-rules.yaml").read_text())
RBAC, APPS, LEASES = "rbac.authorization.k8s.io", "apps", "coordination.k8s.io"
CHILD_VERBS = ("get", "list", "watch", "create", "patch", "delete")

# Tempting, dangerous or near what it has. None is needed.
FOREIGN = [
    *(Right(verb, "pods") for verb in ("get", "list", "create", "delete", "patch")),
    *(Right("create", f"pods/{what}") for what in ("exec", "attach", "portforward", "eviction")),
    Right("get", "pods/log"),
    *(Right(verb, "nodes") for verb in ("get", "list", "patch")),
    *(Right("get", f"{what}/proxy") for what in ("nodes", "services", "pods")),
    *(Right(verb, "namespaces") for verb in ("list", "watch", "delete")),
    *(Right(verb, "configmaps") for verb in ("get", "list", "create", "delete")),
    *(Right(verb, "persistentvolumeclaims") for verb in ("get", "list", "delete")),
    *(Right("deletecollection", kind.plural, kind.group) for kind in (RESOURCE, *CHILD_KINDS)),
    *(Right("update", kind.plural, kind.group) for kind in (RESOURCE, *CHILD_KINDS)),
    *(Right(verb, RESOURCE.plural, GROUP) for verb in ("get", "create", "patch", "delete")),
    *(Right(verb, f"{RESOURCE.plural}/status", GROUP) for verb in ("get", "update")),
    Right("update", f"{RESOURCE.plural}/finalizers", GROUP),
    *(Right(verb, kind, APPS) for kind in ("daemonsets", "statefulsets", "replicasets") for verb in ("list", "delete")),
    *(Right("patch", f"deployments/{what}", APPS) for what in ("scale", "status")),
    *(Right(verb, "customresourcedefinitions", "apiextensions.k8s.io") for verb in ("create", "patch", "delete")),
    *(Right(verb, "clusterroles", RBAC) for verb in ("create", "patch", "bind", "escalate")),
    *(
        Right(verb, kind, RBAC)
        for kind in ("roles", "rolebindings", "clusterrolebindings")
        for verb in ("create", "get")
    ),
    Right("create", "serviceaccounts/token"),
    *(Right("impersonate", kind) for kind in ("users", "groups", "serviceaccounts")),
    Right("create", "validatingwebhookconfigurations", "admissionregistration.k8s.io"),
    *(Right("create", "events", group) for group in ("", "events.k8s.io")),
    *(Right(verb, "leases", LEASES) for verb in ("get", "list", "update", "delete")),
    Right("*", "*", "*"),
]


@pytest.fixture(scope="module")
def wide(install: Install) -> Release:
    return install()


@pytest.fixture(scope="module")
def narrow(install: Install, wide: Release, watched: str) -> Release:
    """Beside the other one: each has its own rights, and the definition is there already."""
    return install({"watchNamespaces": [watched], "crds": {"install": False}})


@pytest.fixture(scope="module")
def watched(make_namespace: Callable[[], str]) -> str:
    return make_namespace()


def needed(namespace: str) -> list[Right]:
    """Derived from what the operator's code deals with, not from the chart's list."""
    return [
        *(Right(verb, RESOURCE.plural, RESOURCE.group, namespace) for verb in ("list", "watch")),
        Right("patch", f"{RESOURCE.plural}/status", RESOURCE.group, namespace),
        *(Right(verb, kind.plural, kind.group, namespace) for kind in CHILD_KINDS for verb in CHILD_VERBS),
    ]


def lease(namespace: str) -> list[Right]:
    named = [Right(verb, "leases", LEASES, namespace, OPERATOR_NAME) for verb in ("get", "update")]
    return [Right("create", "leases", LEASES, namespace), *named]


SCANNING = [Right(verb, "customresourcedefinitions", "apiextensions.k8s.io") for verb in ("list", "watch")]


def in_namespace(right: Right, namespace: str) -> Right:
    return Right(right.verb, right.resource, right.group, namespace, right.name)


def test_a_cluster_wide_operator_has_what_it_needs(control_plane: ControlPlane, wide: Release) -> None:
    wanted = {*needed(""), *SCANNING, *lease(wide.namespace)}

    assert Rights(control_plane, wide.user).granted(wanted) == wanted


def test_a_cluster_wide_operator_has_nothing_else(control_plane: ControlPlane, wide: Release, watched: str) -> None:
    rights = Rights(control_plane, wide.user)
    other_lease = Right("update", "leases", LEASES, wide.namespace, "another")

    assert rights.granted([*FOREIGN, *lease(watched), other_lease]) == set()


def test_a_namespaced_operator_has_what_it_needs(control_plane: ControlPlane, narrow: Release, watched: str) -> None:
    wanted = {*needed(watched), *lease(narrow.namespace)}

    assert Rights(control_plane, narrow.user).granted(wanted) == wanted


def test_a_namespaced_operator_has_nothing_else(control_plane: ControlPlane, narrow: Release, watched: str) -> None:
    rights = Rights(control_plane, narrow.user)
    elsewhere = ["", "default", narrow.namespace]
    foreign = [in_namespace(right, namespace) for right in FOREIGN for namespace in (watched, *elsewhere)]

    assert rights.granted([*foreign, *SCANNING, *lease(watched)]) == set()
    assert rights.granted(right for namespace in elsewhere for right in needed(namespace)) == set()


@pytest.mark.parametrize("scope", ["cluster", "namespace"])
def test_all_rights_are_those_of_the_chart_s_list(
    control_plane: ControlPlane, wide: Release, narrow: Release, watched: str, scope: str
) -> None:
    """Not a list of questions but the apiserver's own answer, without what everybody may do."""
    release, namespace = (wide, wide.namespace) if scope == "cluster" else (narrow, watched)
    listed = RULES["resource"] + (RULES["cluster"] + RULES["lease"] if scope == "cluster" else [])
    everybody = Rights(control_plane, f"system:serviceaccount:{namespace}:nobody").all_in(namespace)

    has = Rights(control_plane, release.user).all_in(namespace) - everybody

    assert has == {right for rule in listed for right in expand(rule, namespace)}


def test_the_chart_s_list_is_what_the_code_needs() -> None:
    def listed(scope: str) -> set[Right]:
        return {right for rule in RULES[scope] for right in expand(rule, "")}

    assert listed("resource") == set(needed(""))
    assert listed("cluster") == set(SCANNING)
    assert listed("lease") == set(lease(""))


def test_the_pod_is_admitted_where_only_restricted_pods_are(wide: Release) -> None:
    """The namespace enforces the strictest Pod Security standard; nothing stays, it is a dry run."""
    template = wide.manifests.pod()
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**template["metadata"], "name": "operator"}

    assert "created" in wide.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))


def test_only_an_owner_reference_that_blocks_deletion_would_take_another_right(wide: Release) -> None:
    """OpenShift checks it, and so does this apiserver. The operator's references don't block."""

    def create(blocking: bool) -> str:
        owner = {"apiVersion": RESOURCE.api_version, "kind": RESOURCE.name, "name": "tiny", "uid": "0-0"}
        owners = [{**owner, "controller": True, "blockOwnerDeletion": blocking}]
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "tiny", "ownerReferences": owners},
        }
        return wide.kubectl("create", "--dry-run=server", f"--as={wide.user}", "-f", "-", stdin=yaml.safe_dump(account))

    assert "created" in create(blocking=False)
    with pytest.raises(ClusterError, match="cannot set blockOwnerDeletion"):
        create(blocking=True)
