"""A revision stands for its pods: the same pods the same name, and pinned against everything but the spec."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layercast_operator.api.observed import Observed
from layercast_operator.api.spec import parse_spec
from layercast_operator.desired.build import build_desired
from layercast_operator.desired.revision import digest, read_record, spec_hash

from tests.operator.builders import platforms, recorded, resource

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def revision(**changes: Any) -> str:
    return build_desired(resource(**changes), Observed(), platforms(), "key").plan.wanted


@given(value=st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


NOT_IN_PODS = {
    "replicas of prefill": {"prefill__replicas": 7},
    "replicas of decode": {"decode__replicas": 7},
    "the port of the Service": {"endpoint__port": 80},
    "the type of the Service": {"endpoint__serviceType": "NodePort"},
    "a default that is written out": {"connector__lookahead": 1},
    "an empty object": {"prefill__resources": {}},
}


@pytest.mark.parametrize("changes", NOT_IN_PODS.values(), ids=NOT_IN_PODS.keys())
def test_same_revision(changes: dict[str, Any]) -> None:
    assert revision(**changes) == revision()
    assert spec_hash(parse_spec(resource(**changes).spec)) == spec_hash(parse_spec(resource().spec))


IN_PODS = {
    "the model": {"model__uri": "image:///other"},
    "the served name": {"model__servedName": "other"},
    "the image": {"image": "other"},
    "an argument": {"engine__args": ["--seed=1"]},
    "a role's argument": {"decode__engineArgs": ["--seed=1"]},
    "a variable": {"engine__env": [{"name": "A", "value": "1"}]},
    "the block size": {"engine__blockSize": 32},
    "a connector setting": {"connector__lookahead": 0},
    "a timeout": {"connector__timeouts__leaseSeconds": 9},
    "the shape": {"prefill__parallelism__tensor": 2, "decode__parallelism__tensor": 2},
    "memory": {"decode__resources__requests": {"memory": "4Gi"}},
    "a node selector": {"prefill__scheduling__nodeSelector": {"a": "b"}},
    "a pull secret": {"imagePullSecrets": [{"name": "a"}]},
}


@pytest.mark.parametrize("changes", IN_PODS.values(), ids=IN_PODS.keys())
def test_new_revision(changes: dict[str, Any]) -> None:
    assert revision(**changes) != revision()
    assert spec_hash(parse_spec(resource(**changes).spec)) != spec_hash(parse_spec(resource().spec))


def test_a_new_preset_or_operator_restarts_no_fleet() -> None:
    newer = {name: msgspec.structs.replace(preset, image="newer") for name, preset in platforms().items()}
    pinned = build_desired(resource(), Observed(records=(recorded(),)), newer, "key")
    assert pinned == build_desired(resource(), Observed(), platforms(), "key")


def test_a_changed_spec_takes_the_new_preset() -> None:
    newer = {name: msgspec.structs.replace(preset, image="newer") for name, preset in platforms().items()}
    desired = build_desired(resource(engine__maxModelLen=1), Observed(records=(recorded(),)), newer, "key")
    deployments = [child for child in desired.children if child["kind"] == "Deployment"]
    assert {child["spec"]["template"]["spec"]["containers"][0]["image"] for child in deployments} == {"newer"}


def test_a_record_of_another_shape_is_not_used() -> None:
    assert read_record("0", {"something": "else"}) is None
    odd = replace(recorded(), spec_hash="other")
    assert build_desired(resource(), Observed(records=(odd,)), platforms(), "key").plan.wanted == revision()
