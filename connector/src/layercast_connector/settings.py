"""Settings of the connector: one place, typed, refused with a message that says what to change.

They come in `kv_connector_extra_config` (docs/contracts.md lists them for the operator).
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import msgspec

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of every wait, in seconds."""

    dispatch: Positive = 5.0
    """Connecting to the prefill pod's API."""
    first_layer: Positive = 120.0
    """From dispatch to the first layer's bytes: the queue in front of prefill is in here."""
    progress: Positive = 30.0
    """Between two signs of progress once bytes have begun to come."""
    done: Positive = 30.0
    """From the prefill side's report, or its HTTP answer, to proven arrival."""
    lease: Positive = 4.0
    """How long a grant lasts without renewal: a stopped writer is stopped for good after this."""
    transfer: Annotated[float, msgspec.Meta(ge=1, le=86_400, multiple_of=1)] = 10.0
    """The longest that one write may take, in whole seconds as Mooncake counts them; the quarantine of blocks is
    `lease + transfer`."""


class PodAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a prefill pod listens: its OpenAI API and its control port."""

    host: str
    api_port: Port
    control_port: Port


def url_host(host: str) -> str:
    """A host name or address as it stands in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


class PrefillPods(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where decode finds prefill pods: behind a headless Service (`dns`, resolved again and again) or a fixed list."""

    dns: str = ""
    api_port: Port = 8000
    control_port: Port = 36000
    static: list[PodAddress] = []


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set; see docs/contracts.md for the meaning of each."""

    role: Literal["prefill", "decode"]
    control_port: Port = 36000
    advertise_host: str = ""
    prefill_pods: PrefillPods = PrefillPods()
    layer_sync: Literal["relocated", "sender_event", "sender_stream"] = "relocated"
    lookahead: Annotated[int, msgspec.Meta(ge=0, le=2)] = 1
    min_remote_tokens: Annotated[int, msgspec.Meta(ge=1)] = 64
    on_prefill_failure: Literal["recompute", "fail"] = "recompute"
    protocol: Literal["tcp", "ascend"] = "tcp"
    secret_file: str | None = None
    api_key_file: str | None = None
    timeouts: Timeouts = Timeouts()
    report_in_response: bool = False


class SettingsError(ValueError):
    """The configuration can't work; the message says what to change."""


def parse_settings(extra_config: dict[str, Any], failure_policy: str = "recompute") -> Settings:
    """Typed settings from vLLM's `kv_connector_extra_config`.

    Args:
        extra_config: the dict as vLLM parsed it.
        failure_policy: vLLM's engine-wide `kv_load_failure_policy`, which must say the same as ours.

    Raises:
        SettingsError: an unknown key, a wrong type or value, or a combination that can't work.
    """
    try:
        settings = msgspec.convert(extra_config, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"kv_connector_extra_config: {error}") from None
    pods = settings.prefill_pods
    if settings.role == "decode" and bool(pods.dns) == bool(pods.static):
        raise SettingsError(
            "kv_connector_extra_config: role 'decode' needs 'prefill_pods', exactly one of "
            '{"dns": NAME} or {"static": [{"host": ..., "api_port": ..., "control_port": ...}]}'
        )
    if settings.role == "decode" and failure_policy != settings.on_prefill_failure:
        raise SettingsError(
            f"on_prefill_failure is {settings.on_prefill_failure!r} but kv_load_failure_policy is {failure_policy!r}: "
            "set both in --kv-transfer-config to the same value"
        )
    if not settings.advertise_host:
        settings = msgspec.structs.replace(settings, advertise_host=os.environ.get("VLLM_HOST_IP") or "127.0.0.1")
    return settings
