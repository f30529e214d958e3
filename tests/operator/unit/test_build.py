"""The children that a resource gets."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layercast_operator.api.decode import Invalid
from layercast_operator.api.observed import Manifest, Observed
from layercast_operator.desired.build import Desired, build_desired
from layercast_operator.presets.preset import Preset

from tests.operator.builders import observed, pair, platforms, recorded, resource


def build(seen: Observed | None = None, presets: dict[str, Preset] | None = None, **changes: Any) -> Desired:
    return build_desired(resource(**changes), seen or Observed(), presets or platforms(), "key")


def child_of(desired: Desired, kind: str, name: str) -> Manifest:
    return next(c for c in desired.children if (c["kind"], c["metadata"]["name"]) == (kind, name))


def pod(role: str, presets: dict[str, Preset] | None = None, **changes: Any) -> Manifest:
    deployments = (child for child in build(None, presets, **changes).children if child["kind"] == "Deployment")
    return next(
        child["spec"]["template"]["spec"]
        for child in deployments
        if child["metadata"]["labels"]["layercast.dev/role"] == role
    )


def engine(role: str, presets: dict[str, Preset] | None = None, **changes: Any) -> Manifest:
    container: Manifest = pod(role, presets, **changes)["containers"][0]
    return container


def env(role: str, **changes: Any) -> dict[str, Any]:
    entries = engine(role, **changes)["env"]
    assert len({entry["name"] for entry in entries}) == len(entries), "an apply fails on doubled names"
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


def value_of(flag: str, role: str, **changes: Any) -> str:
    args = engine(role, **changes)["args"]
    found: str = args[args.index(flag) + 1]
    return found


def connector(role: str, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(value_of("--kv-transfer-config", role, **changes))
    return config


@given(replicas=st.integers(1, 5), args=st.lists(st.sampled_from(["--seed=1", "--enforce-eager"]), max_size=3))
def test_equal_input_gives_equal_output(replicas: int, args: list[str]) -> None:
    changes = {"decode__replicas": replicas, "engine__args": args}
    assert json.dumps(build(**changes).children) == json.dumps(build(**changes).children)


def test_a_pair_of_one_revision_finds_itself() -> None:
    desired = build()
    config = connector("decode")["kv_connector_extra_config"]
    revision = desired.plan.wanted
    assert config["prefill_pods"] == {
        "dns": f"tiny-prefill-{revision}.default.svc",
        "api_port": 8000,
        "control_port": 36000,
    }
    service = child_of(desired, "Service", f"tiny-prefill-{revision}")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {
        "layercast.dev/resource": "tiny",
        "layercast.dev/role": "prefill",
        "layercast.dev/revision": revision,
    }


@pytest.mark.parametrize(("role", "kv_role"), [("prefill", "kv_producer"), ("decode", "kv_consumer")])
def test_the_connector_gets_its_role_and_its_settings(role: str, kv_role: str) -> None:
    changes = {
        "connector__layerSync": "SenderEvent",
        "connector__onPrefillFailure": "Fail",
        "connector__timeouts": {"leaseSeconds": 3},
    }
    config = connector(role, **changes)
    extra = config["kv_connector_extra_config"]
    assert (config["kv_role"], config["kv_load_failure_policy"]) == (kv_role, "fail")
    assert (extra["role"], extra["layer_sync"], extra["on_prefill_failure"]) == (role, "sender_event", "fail")
    assert extra["timeouts"] == {"lease": 3}
    assert extra["secret_file"] == "/var/run/secrets/layercast/secret"
    assert ("prefill_pods" in extra) == (role == "decode")


def test_a_users_variable_beats_the_preset_and_the_operators_beats_all() -> None:
    found = env("decode", engine__env=[{"name": "OMP_NUM_THREADS", "value": "9"}])
    assert found["OMP_NUM_THREADS"] == "9"
    assert found["VLLM_HOST_IP"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert found["HF_HUB_OFFLINE"] == "1"


def test_the_hub_is_online_and_gets_its_token_only_for_hub_models() -> None:
    found = env("decode", model={"uri": "hf://a/b", "tokenSecretRef": {"name": "hub", "key": "token"}})
    assert "HF_HUB_OFFLINE" not in found
    assert found["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


MODELS = {
    "hf://org/name": ("org/name", None),
    "image:///opt/m": ("/opt/m", None),
    "pvc://claim/a/b": ("/models/a/b", {"persistentVolumeClaim": {"claimName": "claim", "readOnly": True}}),
    "file:///srv/m": ("/models", {"hostPath": {"path": "/srv/m", "type": "Directory"}}),
}


@pytest.mark.parametrize("uri", MODELS)
def test_models_are_mounted_where_the_engine_looks(uri: str) -> None:
    argument, volume = MODELS[uri]
    assert value_of("--model", "prefill", model__uri=uri) == argument
    found = {each["name"]: each for each in pod("prefill", model__uri=uri)["volumes"]}
    assert found.get("model") == (volume and {"name": "model", **volume})


def test_the_operators_flags_come_last() -> None:
    args = engine("decode", engine__args=["--seed=1"], decode__engineArgs=["--seed=2"])["args"]
    assert args.index("--seed=1") < args.index("--seed=2") < args.index("--model")


def test_tensor_parallel_size_asks_for_accelerators_and_control_ports() -> None:
    changes = {"platform": "Ascend", "prefill__parallelism__tensor": 2, "decode__parallelism__tensor": 2}
    container = engine("prefill", **changes)
    assert container["resources"]["limits"] == {"huawei.com/Ascend910": "2"}
    assert value_of("--tensor-parallel-size", "prefill", **changes) == "2"
    assert [port["containerPort"] for port in container["ports"]] == [8000, 36000, 36001, 36002]


def test_a_users_resources_are_merged_into_the_presets() -> None:
    resources = engine("decode", decode__resources={"requests": {"memory": "5Gi"}, "limits": {"cpu": 2}})["resources"]
    assert resources == {"requests": {"cpu": "250m", "memory": "5Gi"}, "limits": {"cpu": "2"}}


def test_on_the_hosts_network_roles_have_ports_of_their_own() -> None:
    presets = {"CPU": msgspec.structs.replace(platforms()["CPU"], host_network=True)}
    spec = pod("prefill", presets)
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    ports = {role: {p["containerPort"] for p in engine(role, presets)["ports"]} for role in ("prefill", "decode")}
    assert not ports["prefill"] & ports["decode"]
    assert engine("prefill", presets)["readinessProbe"]["httpGet"]["port"] == 8100
    args = engine("decode", presets)["args"]
    config = json.loads(args[args.index("--kv-transfer-config") + 1])["kv_connector_extra_config"]
    assert config["prefill_pods"]["api_port"] == 8100 and config["prefill_pods"]["control_port"] == 36500


def test_a_users_affinity_replaces_the_soft_spread() -> None:
    assert "podAntiAffinity" in pod("decode")["affinity"]
    mine = {"nodeAffinity": {}}
    assert pod("decode", decode__scheduling__affinity=mine)["affinity"] == mine


def test_during_a_rollout_both_revisions_are_there_and_clients_stay() -> None:
    first = build()
    old = first.plan.wanted
    seen = observed(*pair(old), serving=old, records=(recorded(),))
    desired = build(seen, engine__maxModelLen=1)
    names = {child["metadata"]["name"] for child in desired.children if child["kind"] == "Deployment"}
    assert names == {f"tiny-{role}-{rev}" for role in ("prefill", "decode") for rev in (old, desired.plan.wanted)}
    public = child_of(desired, "Service", "tiny")
    assert public["spec"]["selector"]["layercast.dev/revision"] == old


def test_a_platform_without_a_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Invalid, match="no preset for 'Ascend'; it has: CPU"):
        build(None, {"CPU": platforms()["CPU"]}, platform="Ascend")


def test_the_record_holds_the_pods_of_the_deployments() -> None:
    desired = build()
    record = child_of(desired, "ControllerRevision", f"tiny-{desired.plan.wanted}")
    for role, template in record["data"]["pods"].items():
        assert child_of(desired, "Deployment", f"tiny-{role}-{desired.plan.wanted}")["spec"]["template"] == template


def test_every_child_is_owned_labelled_and_named_once() -> None:
    children = build().children
    assert len({(child["kind"], child["metadata"]["name"]) for child in children}) == len(children)
    for child in children:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-of-tiny", True, False)
        assert child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "layercast-operator"
        assert child["metadata"]["namespace"] == "default"
