"""What the apiserver itself refuses, and that its message says what to change. No operator runs."""

import pytest
from layercast_operator.api.kinds import RESOURCE

from tests.operator.apiserver.kube import Kube, Refused
from tests.operator.builders import example, manifest

pytestmark = pytest.mark.apiserver

HUB = "hf://org/name"
REFUSED = {
    "a model URI without a known scheme is refused with the known ones": (
        {"model__uri": "s3://bucket/model"},
        "model.uri must be hf://ORG/NAME, pvc://CLAIM/PATH, file:///PATH",
    ),
    "a model path that climbs out is refused": ({"model__uri": "pvc://claim/../other"}, "without '..'"),
    "a model revision outside the hub is refused": (
        {"model__revision": "main"},
        "model.revision works with hf:// only: remove it",
    ),
    "a hub token for a local model is refused": (
        {"model__tokenSecretRef": {"name": "a", "key": "b"}},
        "model.tokenSecretRef works with hf:// only: remove it",
    ),
    "an owned flag is refused": ({"engine__args": ["--port=1"]}, "engine.args must not set a flag that the operator"),
    "an owned flag with underscores is refused": ({"engine__args": ["--kv_transfer_config={}"]}, "engine.args must"),
    "an owned flag with a sub-key is refused": (
        {"engine__args": ["--kv-transfer-config.kv_role=both"]},
        "engine.args must",
    ),
    "a file of flags is refused": ({"prefill__engineArgs": ["--config", "f"]}, "prefill.engineArgs must not set"),
    "an owned short flag is refused": ({"decode__engineArgs": ["-tp", "2"]}, "decode.engineArgs must not set"),
    "an owned variable is refused": (
        {"engine__env": [{"name": "VLLM_HOST_IP", "value": "1.2.3.4"}]},
        "engine.env must not set DO_NOT_TRACK, HF_HOME",
    ),
    "a variable with two sources is refused": (
        {"engine__env": [{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
        "give value or valueFrom, not both",
    ),
    "roles of different shape are refused": (
        {"prefill__parallelism__tensor": 2},
        "prefill.parallelism.tensor and decode.parallelism.tensor must be equal",
    ),
    "no decode pods are refused": ({"decode__replicas": 0}, "should be greater than or equal to 1"),
    "an unknown platform is refused": ({"platform": "TPU"}, 'supported values: "Ascend", "CPU"'),
    "a list without bound is refused": ({"engine__args": ["--x"] * 65}, "must have at most 64 items"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(kube: Kube, namespace: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(Refused) as refused:
        kube.create(manifest("tiny", namespace, **changes))
    assert message in str(refused.value)


ACCEPTED = {
    "a hub model with its revision and token": {
        "model": {"uri": HUB, "revision": "0123abc", "tokenSecretRef": {"name": "a", "key": "b"}}
    },
    "a claim without a path": {"model__uri": "pvc://weights"},
    "flags that only look like owned ones": {"engine__args": ["--max-num-seqs=4", "--port-x", "-O3", "--modeling"]},
    "an argument as long as the bound": {"engine__args": ["--x=" + "x" * 4092] * 64},
    "prefill at zero": {"prefill__replicas": 0},
}


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(kube: Kube, namespace: str, changes: dict[str, object]) -> None:
    kube.create(manifest("tiny", namespace, **changes))


@pytest.mark.parametrize("file", ["tiny-cpu.yaml", "ascend-minimal.yaml"])
def test_the_examples_are_accepted_and_defaulted(kube: Kube, namespace: str, file: str) -> None:
    data = example(file)
    data["metadata"]["namespace"] = namespace
    kube.create(data)
    spec = kube.get(RESOURCE, namespace, data["metadata"]["name"])["spec"]
    assert spec["prefill"]["replicas"] == spec["decode"]["replicas"] == 1
    defaults = {
        "layerSync": "Relocated",
        "lookahead": 1,
        "minRemoteTokens": 64,
        "onPrefillFailure": "Recompute",
        "reportInResponse": False,
        "timeouts": {},
    }
    assert spec["connector"] == defaults | data["spec"].get("connector", {})
    assert spec["endpoint"] == {"serviceType": "ClusterIP", "port": 8000}
