"""One vLLM engine on loopback: its command line, its environment, its life."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.engines import metrics
from tests.engines.env import engine_python
from tests.engines.process import Process
from tests.engines.wait import WaitTimeout, until
from tests.ports import free_ports

HOST = "127.0.0.1"
SERVED_NAME = "tiny"
START_TIMEOUT = 300.0

# Design §7. One thread per engine: two engines share two cores, and OpenMP threads that spin would starve the other.
ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_HOST_IP": HOST,
    "VLLM_LOOPBACK_IP": HOST,
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class EngineSpec:
    """What one engine is started with. `max_batched_tokens` is also the longest chunk of a prompt."""

    name: str
    model: Path
    kv_transfer: Mapping[str, object] | None = None
    max_batched_tokens: int = 512
    max_model_len: int = 4608
    max_seqs: int = 64
    block_size: int = 16
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def command(self, python: Path, port: int) -> list[str]:
        command = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
        flags = {
            "model": self.model,
            "served-model-name": SERVED_NAME,
            "host": HOST,
            "port": port,
            "dtype": "float32",
            "max-model-len": self.max_model_len,
            "max-num-batched-tokens": self.max_batched_tokens,
            "max-num-seqs": self.max_seqs,
            "block-size": self.block_size,
        }
        command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        command += ["--enforce-eager", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log", *self.args]
        if self.kv_transfer is not None:
            command += ["--kv-transfer-config", json.dumps(self.kv_transfer)]
        return command


class Engine:
    """Started when made; `wait()` before the first request. Use it as a context manager."""

    def __init__(self, spec: EngineSpec, log: Path, port: int | None = None) -> None:
        self.spec = spec
        self.port = free_ports(1) if port is None else port
        self.url = f"http://{HOST}:{self.port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "PYTHON"))}
        self.process = Process(
            spec.command(engine_python(), self.port), env=inherited | ENVIRONMENT | dict(spec.env), log=log
        )

    def wait(self, timeout: float = START_TIMEOUT) -> None:
        """Until /health answers; a dead or a slow engine fails with the end of its log."""
        try:
            until(f"{self.spec.name} is healthy", self._healthy_or_dead, within=timeout)
        except WaitTimeout as error:
            raise RuntimeError(f"{error}\n{self.process.log_tail()}") from error
        if not self.process.running():
            raise RuntimeError(f"{self.spec.name} ended ({self.process.log}):\n{self.process.log_tail()}")

    def healthy(self, timeout: float = 5.0) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=timeout).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def metrics(self) -> metrics.Metrics:
        return metrics.scrape(self.url)

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()

    def _healthy_or_dead(self) -> bool:
        return not self.process.running() or self.healthy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
