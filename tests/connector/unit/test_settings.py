"""Settings: what is understood, and what a refusal tells the user to change."""

from __future__ import annotations

from typing import Any

import pytest
from layercast_connector.settings import PodAddress, SettingsError, Timeouts, parse_settings

PODS = {"prefill_pods": {"dns": "prefill.ns.svc"}}
POD = {"host": "10.0.0.1", "api_port": 8000, "control_port": 36000}
DECODE: dict[str, Any] = {"role": "decode", **PODS}


def test_a_role_is_enough_for_prefill() -> None:
    settings = parse_settings({"role": "prefill"}, "fail")
    assert (settings.layer_sync, settings.lookahead, settings.timeouts) == ("relocated", 1, Timeouts())


def test_decode_takes_pods_by_name_or_by_list() -> None:
    assert parse_settings(DECODE).prefill_pods.dns == "prefill.ns.svc"

    settings = parse_settings({"role": "decode", "prefill_pods": {"static": [POD]}})
    assert settings.prefill_pods.static == [PodAddress("10.0.0.1", 8000, 36000)]


@pytest.mark.parametrize(
    ("given", "env", "expected"),
    [
        pytest.param({"advertise_host": "10.1.1.1"}, "10.2.2.2", "10.1.1.1", id="what is set"),
        pytest.param({}, "10.2.2.2", "10.2.2.2", id="else the pod's address"),
        pytest.param({}, None, "127.0.0.1", id="else this machine"),
    ],
)
def test_the_address_for_peers_is(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], env: str | None, expected: str
) -> None:
    monkeypatch.delenv("VLLM_HOST_IP", raising=False)
    if env is not None:
        monkeypatch.setenv("VLLM_HOST_IP", env)
    assert parse_settings({"role": "prefill"} | given).advertise_host == expected


@pytest.mark.parametrize(
    ("extra", "policy", "message"),
    [
        pytest.param({}, "recompute", "role", id="no role"),
        pytest.param({"role": "both"}, "recompute", r"both.*\$\.role", id="an unknown role"),
        pytest.param(DECODE | {"typo": 1}, "recompute", "typo", id="an unknown key"),
        pytest.param(DECODE | {"lookahead": 3}, "recompute", r"<= 2.*\$\.lookahead", id="too much lookahead"),
        pytest.param(DECODE | {"lookahead": "1"}, "recompute", r"\$\.lookahead", id="text for a number"),
        pytest.param(DECODE | {"control_port": 0}, "recompute", r">= 1.*control_port", id="port zero"),
        pytest.param(DECODE | {"layer_sync": "never"}, "recompute", r"never.*layer_sync", id="an unknown strategy"),
        pytest.param(DECODE | {"timeouts": {"lease": 0}}, "recompute", r"timeouts\.lease", id="no lease"),
        pytest.param(DECODE | {"timeouts": {"transfer": 0.5}}, "recompute", r"timeouts\.transfer", id="half a second"),
        pytest.param(DECODE | {"timeouts": {"transfer": 2.5}}, "recompute", r"timeouts\.transfer", id="two and a half"),
        pytest.param(DECODE | {"timeouts": {"leese": 1}}, "recompute", "leese", id="an unknown wait"),
        pytest.param({"role": "decode"}, "recompute", "needs 'prefill_pods'", id="decode without pods"),
        pytest.param(
            {"role": "decode", "prefill_pods": {"dns": "a", "static": [POD]}},
            "recompute", "exactly one of", id="decode with pods of both kinds",
        ),
        pytest.param(DECODE, "fail", "'recompute' but kv_load_failure_policy is 'fail'.*set both", id="two policies"),
        pytest.param(
            DECODE | {"on_prefill_failure": "fail"}, "recompute", "'fail' but.*'recompute'", id="two policies, reversed"
        ),
    ],
)  # fmt: skip
def test_is_refused_with_what_to_change(extra: dict[str, Any], policy: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings(extra, policy)
