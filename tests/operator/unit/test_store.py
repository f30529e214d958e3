"""The store believes the same whatever order news arrives in, and keeps no secrets."""

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from layercast_operator.api.kinds import DEPLOYMENT, OPERATOR_NAME, SECRET, SERVICE
from layercast_operator.engine.projection import ObjectId, Seen, project
from layercast_operator.engine.store import Store

ID = ObjectId(SERVICE, "default", "tiny")
OWNER = ("default", "tiny")


def seen(version: int, uid: str = "u1", **more: Any) -> Seen:
    return Seen(id=ID, uid=uid, version=version, owner=OWNER, owner_uid="owner", **more)


def after(*news: tuple[str, Seen]) -> Seen | None:
    store = Store()
    for what, each in news:
        store.forget(each) if what == "deleted" else store.observe(each)
    return store.get(ID)


# One object deleted, its label taken away and put back, and the next object of the same name.
NEWS = [
    ("seen", seen(1)),
    ("seen", seen(3)),
    ("deleted", seen(4)),
    ("seen", seen(6)),
    ("deleted", seen(7)),
    ("seen", seen(9, uid="u2")),
]


@given(order=st.permutations(NEWS))
def test_the_order_of_news_does_not_matter(order: list[tuple[str, Seen]]) -> None:
    assert after(*order) == seen(9, uid="u2")


@given(order=st.permutations(NEWS[:5]))
def test_what_is_deleted_stays_deleted(order: list[tuple[str, Seen]]) -> None:
    assert after(*order) is None


@given(order=st.permutations(NEWS[:4]))
def test_what_left_the_watch_comes_back_with_a_newer_version(order: list[tuple[str, Seen]]) -> None:
    assert after(*order) == seen(6)


def test_a_sweep_forgets_what_is_not_listed_unless_it_is_newer_than_the_listing() -> None:
    store = Store()
    for name, uid in (("kept", "u1"), ("gone", "u2"), ("changed", "u3")):
        store.observe(replace(seen(1, uid), id=replace(ID, name=name)))
    before = store.of_kind(SERVICE)
    store.observe(replace(seen(2, "u3"), id=replace(ID, name="changed")))
    store.observe(replace(seen(2, "u4"), id=replace(ID, name="new")))
    assert [each.id.name for each in store.sweep(before, {"u1"})] == ["gone"]
    assert sorted(each.id.name for each in store.of_kind(SERVICE)) == ["changed", "kept", "new"]


def test_children_are_found_by_their_owner_and_follow_a_change_of_it() -> None:
    store = Store()
    store.observe(seen(1))
    assert store.children("owner") == [seen(1)]
    orphan = replace(seen(2), owner=None, owner_uid="")
    store.observe(orphan)
    assert store.children("owner") == []


def raw(kind: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": "tiny", "namespace": "default", "uid": "u", "resourceVersion": "1"}
    return {"kind": kind, "metadata": metadata | more.pop("metadata", {}), **more}


def test_a_secrets_data_is_not_kept() -> None:
    assert "hidden" not in repr(project(SECRET, raw("Secret", data={"secret": "hidden"})))


def managed(fields: dict[str, Any], **more: str) -> dict[str, Any]:
    entry = {"manager": OPERATOR_NAME, "operation": "Apply", "fieldsV1": fields, **more}
    return {"managedFields": [entry, {"manager": "other", "operation": "Update", "fieldsV1": {"f:x": {}}}]}


def test_the_fingerprint_is_of_our_applied_fields_only() -> None:
    def fingerprint(metadata: dict[str, Any]) -> str:
        return project(SERVICE, raw("Service", metadata=metadata)).fingerprint

    ours = fingerprint(managed({"f:spec": {"f:type": {}, "f:ports": {}}}))
    assert ours == fingerprint(managed({"f:spec": {"f:ports": {}, "f:type": {}}}, time="later"))
    assert ours != fingerprint(managed({"f:spec": {"f:ports": {}}})), "somebody took a field"
    assert fingerprint({}) == "" == fingerprint(managed({"f:status": {}}, subresource="status"))


def test_a_deployments_status_counts_once_it_is_about_its_spec() -> None:
    labels = {"layercast.dev/role": "decode", "layercast.dev/revision": "r"}
    for generation, updated in itertools.product((1, 2), (1, 2)):
        status = {"observedGeneration": generation, "updatedReplicas": updated, "availableReplicas": 2}
        metadata = {"labels": labels, "generation": 2}
        found = project(DEPLOYMENT, raw("Deployment", metadata=metadata, spec={"replicas": 2}, status=status)).content
        assert found.is_available() == ((generation, updated) == (2, 2))  # type: ignore[union-attr]
