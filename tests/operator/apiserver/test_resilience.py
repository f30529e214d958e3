"""The operator through crashes, lost events and silence. Every test has operators of its own."""

import time
from collections.abc import Callable

import pytest
from layercast_operator.api.kinds import CHILD_KINDS, DEPLOYMENT, RESOURCE, SERVICE, SERVICE_ACCOUNT

from tests.cluster.audit import Audit
from tests.cluster.controlplane import ControlPlane
from tests.operator.apiserver.kube import LEASE, Kube
from tests.operator.apiserver.operator_process import OperatorProcess
from tests.operator.apiserver.scene import CHILDREN, Scene
from tests.operator.builders import manifest

pytestmark = pytest.mark.apiserver

Start = Callable[..., OperatorProcess]
REST_S = 60
SHORT_LEASE = {"leaseSeconds": 8, "renewSeconds": 6, "periodSeconds": 1}


@pytest.fixture
def scene(kube: Kube, namespace: str) -> Scene:
    return Scene(kube, namespace)


def test_no_writes_at_rest(scene: Scene, start_operator: Start, audit: Audit) -> None:
    """With a resource that serves, one that waits, one that is refused, and a sweep in the meantime."""
    start_operator(resyncSeconds=10)
    scene.start()
    waiting, refused = (Scene(scene.kube, scene.namespace, name) for name in ("waiting", "refused"))
    waiting.create()
    waiting.wait_for("Progressing", "True")
    refused.create(engine__args=["--tensor-parallel=4"])
    refused.wait_for("Degraded", "True", "InvalidSpec")
    before = audit.writes(scene.namespace)
    assert before, "the audit log shows writes"

    time.sleep(REST_S)  # what is measured is the passing of time itself
    extra = audit.writes(scene.namespace)[len(before) :]
    assert [f"{entry['verb']} {entry['requestURI']}" for entry in extra] == []


def test_killed_in_the_middle_it_goes_on_where_it_was(scene: Scene, start_operator: Start) -> None:
    operator = start_operator(workers=1)
    operator.wait_until_leading(scene.kube)
    names = [f"model-{number}" for number in range(8)]
    for name in names:
        scene.kube.create(manifest(name, scene.namespace))
    scene.kube.wait(SERVICE_ACCOUNT, scene.namespace, lambda found: len(found) >= 3, "the first children")
    operator.kill()
    made = sum(len(scene.kube.all(kind, scene.namespace)) for kind in CHILD_KINDS)
    assert made < CHILDREN * len(names), "it was killed before it was done"

    operator.start()
    scene.kube.wait(DEPLOYMENT, scene.namespace, lambda found: len(found) == 2 * len(names), "all deployments")
    scene.kube.wait(
        RESOURCE, scene.namespace, lambda found: all("status" in each for each in found), "a status everywhere"
    )
    made = sum(len(scene.kube.all(kind, scene.namespace)) for kind in CHILD_KINDS)
    assert made == CHILDREN * len(names), "nothing twice, nothing missing"


def test_a_restart_changes_nothing(scene: Scene, start_operator: Start) -> None:
    operator = start_operator()
    scene.start()
    before = {child["metadata"]["uid"]: child["metadata"]["resourceVersion"] for child in scene.children()}
    operator.kill()
    operator.start()
    marker = Scene(scene.kube, scene.namespace, "marker")
    marker.create()
    marker.wait_for("Progressing", "True")  # events are worked off in order, so the first is done too
    after = {child["metadata"]["uid"]: child["metadata"]["resourceVersion"] for child in scene.children()}
    assert after == before


def test_a_restart_in_the_middle_of_a_rollout_moves_nobody(scene: Scene, start_operator: Start, audit: Audit) -> None:
    operator = start_operator()
    old = scene.start()
    scene.change(engine__maxModelLen=2048)
    scene.wait_for_children(DEPLOYMENT, 4)
    scene.wait_for("Ready", "False", generation=2)
    operator.kill()
    before = len(audit.writes(scene.namespace))
    operator.start()
    marker = Scene(scene.kube, scene.namespace, "marker")
    marker.create()
    marker.wait_for("Progressing", "True")
    service = scene.kube.get(SERVICE, scene.namespace, "tiny")
    assert service["spec"]["selector"]["layercast.dev/revision"] == old
    assert len(scene.children(DEPLOYMENT)) == 4
    verbs = {entry["verb"] for entry in audit.writes(scene.namespace)[before:]}
    assert "delete" not in verbs


def test_what_was_deleted_while_it_was_away_is_put_back(scene: Scene, start_operator: Start) -> None:
    operator = start_operator()
    scene.start()
    operator.kill()
    for kind in CHILD_KINDS:
        for child in scene.children(kind):
            scene.kube.delete(kind, scene.namespace, child["metadata"]["name"])
    operator.start()
    scene.wait_for_children(DEPLOYMENT, 2)
    scene.wait_for("Progressing", "True")
    assert len(scene.children()) == CHILDREN


def test_what_was_deleted_while_the_watch_was_down_is_put_back(
    scene: Scene, start_operator: Start, control_plane: ControlPlane
) -> None:
    """The apiserver forgets its past in between, so no event will ever tell of these deletions."""
    operator = start_operator()
    scene.start()
    gone = Scene(scene.kube, scene.namespace, "gone")
    gone.create()
    gone.wait_for("Progressing", "True")
    operator.freeze()
    control_plane.restart_apiserver()  # ends the watches, so that nothing waits for the operator in a socket
    for child in scene.children(DEPLOYMENT):
        scene.kube.delete(DEPLOYMENT, scene.namespace, child["metadata"]["name"])
    gone.delete()
    control_plane.restart_apiserver()
    operator.thaw()
    scene.wait_for_children(DEPLOYMENT, 2)
    metrics = operator.get("/metrics")
    assert 'swept_objects_total{kind="Deployment"}' in metrics
    assert 'swept_objects_total{kind="DisaggregatedLLM"} 1.0' in metrics
    assert operator.process.poll() is None, "it is the same process"


def test_of_two_operators_one_acts_and_the_other_follows(scene: Scene, start_operator: Start) -> None:
    first = start_operator("first", leaderElection=SHORT_LEASE)
    first.wait_until_leading(scene.kube)
    second = start_operator("second", leaderElection=SHORT_LEASE)
    second.wait_until_up()
    scene.start()
    assert "layercast_operator_leader 1.0" in first.get("/metrics")
    assert "layercast_operator_leader 0.0" in second.get("/metrics")
    assert "writes_total{" not in second.get("/metrics"), "the second has written nothing"

    first.kill()
    second.wait_until_leading(scene.kube)
    scene.change(decode={"replicas": 2})
    scene.wait_for("Progressing", "True", generation=2)


def test_a_lease_without_holder_is_taken_and_given_back_at_a_clean_end(scene: Scene, start_operator: Start) -> None:
    metadata = {"name": "layercast-operator", "namespace": scene.namespace}
    scene.kube.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
    operator = start_operator()
    operator.wait_until_leading(scene.kube)
    assert operator.stop() == 0
    lease = scene.kube.get(LEASE, scene.namespace, "layercast-operator")
    assert lease["spec"].get("holderIdentity", "") == ""


def test_it_ends_when_the_apiserver_hangs_longer_than_its_lease(
    scene: Scene, start_operator: Start, control_plane: ControlPlane
) -> None:
    operator = start_operator(leaderElection=SHORT_LEASE)
    operator.wait_until_leading(scene.kube)
    with control_plane.paused_apiserver():
        assert operator.process.wait(timeout=60) == 1
    assert any("was not renewed in time" in entry["message"] for entry in operator.logs())


def test_health_and_metrics_are_served(scene: Scene, start_operator: Start) -> None:
    operator = start_operator()
    operator.wait_until_leading(scene.kube)
    scene.start()
    assert operator.get("/healthz") == "ok\n"
    metrics = operator.get("/metrics")
    for name in ("queue_depth", "reconcile_seconds_count", "writes_total", "leader"):
        assert f"layercast_operator_{name}" in metrics


def test_one_broken_resource_does_not_hold_up_another(scene: Scene, start_operator: Start) -> None:
    start_operator(workers=1)
    broken = [Scene(scene.kube, scene.namespace, f"broken-{number}") for number in range(5)]
    for each in broken:
        foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": each.name, "namespace": scene.namespace}}
        scene.kube.create({**foreign, "spec": {"ports": [{"port": 1}]}})
        each.create()
    for each in broken:
        each.wait_for("Degraded", "True", "NameTaken")
    scene.start()
