"""A prefill and a decode engine that know each other, with a connector secret between them."""

import json
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.engines.client import COMPLETIONS, Ask
from tests.engines.engine import HOST, Engine, EngineSpec
from tests.engines.wait import until
from tests.ports import free_ports

REMOTE = "layercast_remote_prefills_total"
LOCAL = "layercast_local_prefills_total"
MIN_REMOTE_TOKENS = 64
READY_TIMEOUT = 60.0


@dataclass(frozen=True)
class ConnectorChoice:
    """Which connector class the engines load, and the environment that makes it importable."""

    name: str = "LayercastConnector"
    module: str = "layercast_connector.connector"
    env: Mapping[str, str] = field(default_factory=dict)

    def kv_transfer(self, role: str, extra: Mapping[str, object]) -> dict[str, object]:
        """The value of `--kv-transfer-config`, as docs/contracts.md has it."""
        return {
            "kv_connector": self.name,
            "kv_connector_module_path": self.module,
            "kv_role": {"prefill": "kv_producer", "decode": "kv_consumer"}[role],
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": {"role": role, **extra},
        }


@dataclass(frozen=True)
class PairSpec:
    """`settings` go to both connectors; `args` and `max_batched_tokens` to both engines."""

    model: Path
    folder: Path
    logs: Path
    connector: ConnectorChoice = ConnectorChoice()
    settings: Mapping[str, object] = field(default_factory=dict)
    max_batched_tokens: int = 512
    args: tuple[str, ...] = ()


class Pair:
    """Both engines start at once when it is entered, and are gone when it is left, whatever happened in between."""

    def __init__(self, spec: PairSpec) -> None:
        self.spec = spec
        self._stack = ExitStack()
        self._salts = 0
        self.secret = spec.folder / "connector-secret"
        self._prefill_control, self._decode_control = free_ports(2), free_ports(2)
        self._prefill_port = free_ports(1)

    def __enter__(self) -> Self:
        self.secret.write_text(secrets.token_hex(32))
        self.secret.chmod(0o600)
        with ExitStack() as stack:
            self.prefill = stack.enter_context(self._engine("prefill", self._prefill_control, self._prefill_port))
            self.decode = stack.enter_context(self._engine("decode", self._decode_control, free_ports(1)))
            self.prefill.wait()
            self.decode.wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def salt(self) -> str:
        """A cache salt that nobody used before."""
        self._salts += 1
        return f"salt-{self._salts}"

    def wait_remote_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Until a prompt that decode was asked for was prefilled by the prefill engine."""
        before = self.decode.metrics().total(REMOTE)
        until("a remote prefill", lambda: self._ask_and_count() > before, within=timeout)

    def settled(self) -> bool:
        """Nothing runs, nothing waits, and neither engine holds a block for a request."""
        gauges = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        scrapes = [engine.metrics() for engine in (self.prefill, self.decode)]
        return all(scrape.total(gauge) == 0 for scrape in scrapes for gauge in gauges)

    def wait_settled(self, timeout: float = READY_TIMEOUT) -> None:
        until("both engines are idle and hold no blocks", self.settled, within=timeout)

    def _ask_and_count(self) -> float:
        prompt = tuple(range(10, 10 + 2 * MIN_REMOTE_TOKENS))
        body = Ask(prompt, self.salt(), max_tokens=1).body()
        httpx.post(self.decode.url + COMPLETIONS, json=body, timeout=READY_TIMEOUT).raise_for_status()
        return self.decode.metrics().total(REMOTE)

    def _engine(self, role: str, control_port: int, port: int) -> Engine:
        extra: dict[str, Any] = {
            "control_port": control_port,
            "advertise_host": HOST,
            "secret_file": str(self.secret),
            "min_remote_tokens": MIN_REMOTE_TOKENS,
            **self.spec.settings,
        }
        if role == "decode":
            address = {"host": HOST, "api_port": self._prefill_port, "control_port": self._prefill_control}
            extra["prefill_pods"] = {"static": [address]}
        kv_transfer = self.spec.connector.kv_transfer(role, extra)
        (self.spec.folder / f"{role}.json").write_text(json.dumps(kv_transfer, indent=2))
        spec = EngineSpec(
            role,
            self.spec.model,
            kv_transfer,
            max_batched_tokens=self.spec.max_batched_tokens,
            args=self.spec.args,
            env=self.spec.connector.env,
        )
        return Engine(spec, self.spec.logs / f"{role}.log", port)
