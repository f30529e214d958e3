"""What the operator makes, keeps, changes and removes, on a real apiserver."""

from typing import Any

import pytest
from layercast_operator.api import kinds
from layercast_operator.api.kinds import CHILD_KINDS, DEPLOYMENT, RESOURCE, SECRET, SERVICE, SERVICE_ACCOUNT, Kind

from tests.operator.apiserver.kube import Kube, Object
from tests.operator.apiserver.scene import CHILDREN, WITHOUT_LABEL, Scene, available, revision_of

pytestmark = [pytest.mark.apiserver, pytest.mark.usefixtures("cluster_operator")]


@pytest.fixture
def scene(kube: Kube, namespace: str) -> Scene:
    return Scene(kube, namespace)


def condition(resource: Object, kind: str) -> dict[str, Any]:
    return next(each for each in resource["status"]["conditions"] if each["type"] == kind)


def test_a_resource_becomes_ready_when_its_pods_are(scene: Scene) -> None:
    scene.create()
    scene.wait_for_children(DEPLOYMENT, 2)
    waiting = scene.wait_for("Ready", "False", "WaitingForDecode")
    assert condition(waiting, "Progressing")["status"] == "True"

    scene.make_available(scene.revision())
    ready = scene.wait_for("Ready", "True", "Serving")
    assert len(scene.children()) == CHILDREN
    assert {child["metadata"]["ownerReferences"][0]["uid"] for child in scene.children()} == {ready["metadata"]["uid"]}
    assert {each["type"]: each["status"] for each in ready["status"]["conditions"]} == {
        "Available": "True",
        "Ready": "True",
        "Progressing": "False",
        "Degraded": "False",
    }
    assert ready["status"]["endpoint"] == f"http://tiny.{scene.namespace}.svc:8000"
    assert ready["status"]["decode"] == {"replicas": 1, "readyReplicas": 1, "summary": "1/1"}
    assert "finalizers" not in ready["metadata"] and "annotations" not in ready["metadata"]


def test_a_changed_engine_comes_up_beside_the_old_one_and_then_replaces_it(scene: Scene) -> None:
    old = scene.start()
    scene.change(engine__maxModelLen=2048)
    scene.wait_for_children(DEPLOYMENT, 4)
    changed = scene.wait_for("Ready", "False", "WaitingForDecode", generation=2)
    new = changed["status"]["currentRevision"]
    assert new != old and changed["status"]["servingRevision"] == old
    assert condition(changed, "Available")["status"] == "True", "the old pods still answer"
    assert scene.kube.get(SERVICE, scene.namespace, "tiny")["spec"]["selector"]["layercast.dev/revision"] == old

    scene.make_available(new)
    scene.wait_for("Ready", "True", generation=2)
    assert {revision_of(each) for each in scene.wait_for_children(DEPLOYMENT, 2)} == {new}
    assert scene.kube.get(SERVICE, scene.namespace, "tiny")["spec"]["selector"]["layercast.dev/revision"] == new
    scene.wait_for_children(SERVICE, 2)
    scene.wait_for_children(kinds.REVISION_RECORD, 1)


def test_other_replica_counts_keep_the_revision(scene: Scene) -> None:
    revision = scene.start()
    scene.change(decode={"replicas": 3})
    scene.wait_for("Ready", "False", generation=2)
    scene.make_available(revision)
    ready = scene.wait_for("Ready", "True", generation=2)
    assert ready["status"]["currentRevision"] == revision
    assert ready["status"]["decode"]["summary"] == "3/3"


@pytest.mark.parametrize("kind", CHILD_KINDS, ids=lambda kind: f"a deleted {kind.name}")
def test_put_back_when_deleted(scene: Scene, kind: Kind) -> None:
    scene.start()
    before = {child["metadata"]["uid"] for child in scene.children(kind)}
    victim = scene.children(kind)[0]
    scene.kube.delete(kind, scene.namespace, victim["metadata"]["name"])
    scene.kube.wait(
        kind,
        scene.namespace,
        lambda found: sum(scene._is_child(each) and each["metadata"]["uid"] not in before for each in found) == 1,
        f"a new {kind.name}",
    )


EDITS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "another replica count": (DEPLOYMENT, {"spec": {"replicas": 5}}),
    "a removed label": (DEPLOYMENT, {"metadata": {"labels": {"layercast.dev/role": None}}}),
    "a removed label that the watch selects by": (SERVICE, WITHOUT_LABEL),
    "a removed owner": (SERVICE, {"metadata": {"ownerReferences": None}}),
    "another selector": (SERVICE, {"spec": {"selector": {"layercast.dev/role": "nobody"}}}),
    "another secret": (SECRET, {"data": {"secret": "bm8="}}),
    "a token for the pods": (SERVICE_ACCOUNT, {"automountServiceAccountToken": True}),
}


@pytest.mark.parametrize(("kind", "edit"), EDITS.values(), ids=EDITS.keys())
def test_put_back_when_edited(scene: Scene, kind: Kind, edit: dict[str, Any]) -> None:
    scene.start()
    before = scene.children(kind)[0]
    name = before["metadata"]["name"]
    edited = scene.kube.patch(kind, scene.namespace, name, edit)
    assert wanted_part(edited) != wanted_part(before)
    scene.kube.wait(
        kind,
        scene.namespace,
        lambda found: any(wanted_part(each) == wanted_part(before) for each in found),
        f"{name} as it was",
    )


def wanted_part(child: Object) -> Object:
    metadata = {key: child["metadata"].get(key) for key in ("name", "labels", "ownerReferences")}
    rest = {key: child.get(key) for key in ("spec", "data", "automountServiceAccountToken")}
    return {"metadata": metadata, **rest}


def test_another_managers_field_is_left_alone(scene: Scene) -> None:
    revision = scene.start()
    name = f"tiny-decode-{revision}"
    theirs = {"metadata": {"annotations": {"example.org/theirs": "1"}}, "spec": {"minReadySeconds": 7}}
    scene.kube.patch(DEPLOYMENT, scene.namespace, name, theirs)
    # A change of ours in the same object, so that the operator certainly writes it.
    scene.change(decode={"replicas": 2})
    scene.kube.wait(
        DEPLOYMENT,
        scene.namespace,
        lambda found: any(each["spec"]["replicas"] == 2 for each in found),
        "two decode replicas",
    )
    after = scene.kube.get(DEPLOYMENT, scene.namespace, name)
    assert after["metadata"]["annotations"]["example.org/theirs"] == "1"
    assert after["spec"]["minReadySeconds"] == 7


def test_a_name_that_is_taken_is_not_taken_over(scene: Scene) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "tiny", "namespace": scene.namespace},
        "spec": {"ports": [{"port": 1}]},
    }
    before = scene.kube.create(foreign)
    scene.create()
    degraded = scene.wait_for("Degraded", "True", "NameTaken")
    assert "Service tiny exists and does not belong to this resource" in condition(degraded, "Degraded")["message"]
    after = scene.kube.get(SERVICE, scene.namespace, "tiny")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]

    scene.kube.delete(SERVICE, scene.namespace, "tiny")
    scene.wait_for("Degraded", "False")


def test_what_only_looks_like_ours_is_not_pruned(scene: Scene) -> None:
    labels = {"app.kubernetes.io/managed-by": "layercast-operator", "layercast.dev/resource": "tiny"}
    scene.kube.create(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "lookalike", "namespace": scene.namespace, "labels": labels},
        }
    )
    scene.start()
    scene.change(engine__maxModelLen=2048)  # a rollout, which ends in pruning
    scene.wait_for_children(DEPLOYMENT, 4)
    scene.wait_for("Progressing", "True", generation=2)
    scene.make_available(scene.revision())
    scene.wait_for_children(DEPLOYMENT, 2)
    assert scene.kube.get(SERVICE_ACCOUNT, scene.namespace, "lookalike")


def test_a_bad_spec_leaves_the_pods_alone_and_says_what_to_change(scene: Scene) -> None:
    scene.start()
    before = versions(scene)
    # An abbreviation passes the schema; the engine's parser would take it.
    scene.change(engine__args=["--tensor-parallel=4"])
    degraded = scene.wait_for("Degraded", "True", "InvalidSpec", generation=2)
    message = condition(degraded, "Degraded")["message"]
    assert "engine.args: remove '--tensor-parallel=4': set parallelism of the role instead" in message
    assert condition(degraded, "Ready")["status"] == "False"
    assert condition(degraded, "Available")["status"] == "True"
    assert versions(scene) == before

    scene.change()
    scene.wait_for("Ready", "True", generation=3)
    assert versions(scene) == before


def test_an_apply_that_is_refused_is_reported_and_tried_again(scene: Scene) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": scene.namespace},
        "spec": {"hard": {"count/deployments.apps": "0"}},
    }
    path = f"/api/v1/namespaces/{scene.namespace}/resourcequotas"
    scene.kube.call("POST", path, quota)
    scene.kube.call(
        "PATCH",
        f"{path}/none/status",
        {"status": quota["spec"] | {"used": {"count/deployments.apps": "0"}}},
        "application/merge-patch+json",
    )
    scene.create()
    degraded = scene.wait_for("Degraded", "True", "ApplyRejected")
    assert "exceeded quota" in condition(degraded, "Degraded")["message"]

    scene.kube.call("DELETE", f"{path}/none")
    scene.wait_for_children(DEPLOYMENT, 2)
    scene.wait_for("Degraded", "False")


def test_a_deployment_that_gets_no_pods_is_reported(scene: Scene) -> None:
    scene.create()
    deployment = scene.wait_for_children(DEPLOYMENT, 2)[0]
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "pods are forbidden"}
    status = {**available(deployment)["status"], "conditions": [failure]}
    name = deployment["metadata"]["name"]
    scene.kube.patch(DEPLOYMENT, scene.namespace, name, {"status": status}, subresource="status")
    degraded = scene.wait_for("Degraded", "True", "PodsNotCreated")
    assert "pods are forbidden" in condition(degraded, "Degraded")["message"]


def test_a_name_longer_than_any_label_works(kube: Kube, namespace: str) -> None:
    scene = Scene(kube, namespace, "7b." + "long-name." * 24 + "x")
    scene.create()
    for deployment in scene.wait_for_children(DEPLOYMENT, 2):
        assert len(deployment["metadata"]["name"]) <= 63


def test_a_deleted_resource_takes_everything_with_it(scene: Scene) -> None:
    scene.start()
    scene.delete()
    scene.kube.wait(RESOURCE, scene.namespace, lambda found: not found, "the resource is gone")
    for kind in CHILD_KINDS:
        # The garbage collector looks for new kinds of owners every 30 s, and this may be the first.
        scene.wait_for_children(kind, 0, timeout_s=90)


def versions(scene: Scene) -> dict[str, str]:
    return {
        f"{kind.name} {child['metadata']['name']}": child["metadata"]["resourceVersion"]
        for kind in CHILD_KINDS
        for child in scene.children(kind)
    }


def test_a_resource_made_anew_at_once_gets_children_of_its_own(scene: Scene) -> None:
    scene.start()
    scene.delete()
    new = scene.create()["metadata"]["uid"]

    def are_new(found: list[Object]) -> bool:
        return [child["metadata"]["ownerReferences"][0]["uid"] for child in found] == [new, new]

    scene.kube.wait(DEPLOYMENT, scene.namespace, are_new, "deployments of the new resource", timeout_s=90)
    scene.wait_for("Degraded", "False")
    assert len(scene.children()) == CHILDREN
