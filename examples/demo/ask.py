"""Prompts through the public Service, and what the pods say about how each was served."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace

from examples.demo.resource import Resource
from tests.cluster import wait
from tests.cluster.errors import ClusterError
from tests.engines.client import Ask, AskChat, Client, Reply
from tests.engines.metrics import Metrics

PREFIX = "layercast_"
REMOTE_TIMEOUT_S = 60.0
_TEXT = "the harbour light turns over slow water while small boats wait for the tide and gulls argue on the wall"


@dataclass(frozen=True)
class Served:
    """One prompt's answer with its evidence. Times in seconds; `same_as_local` compares token ids."""

    kind: str
    reply: Reply
    ttft: float
    layers: int
    bytes_pushed: int
    exposed: float
    remote: bool
    same_as_local: bool


def prompt_of(tokens: int) -> tuple[int, ...]:
    """Token ids that no other prompt begins with."""
    start = secrets.randbelow(1000)
    return tuple(300 + (start * 31 + index * 7) % 1500 for index in range(tokens))


def chat_of(words: int) -> tuple[tuple[str, str], ...]:
    """A conversation of about that many words."""
    vocabulary = _TEXT.split()
    text = " ".join(vocabulary[index % len(vocabulary)] for index in range(words))
    return (("system", "You answer briefly."), ("user", f"{secrets.token_hex(4)} {text}"))


@dataclass(frozen=True)
class Counters:
    """What both pods have counted, as of one moment."""

    prefill: Metrics
    decode: Metrics

    @classmethod
    def now(cls, resource: Resource) -> Counters:
        """One scrape of each."""
        return cls(resource.metrics("prefill"), resource.metrics("decode"))

    def since(self, before: Counters) -> Counters:
        """What was added."""
        return Counters(self.prefill.since(before.prefill), self.decode.since(before.decode))

    @property
    def remote(self) -> int:
        """Prompts that decode got from prefill."""
        return int(self.decode.total(f"{PREFIX}remote_prefills_total"))

    @property
    def settled(self) -> bool:
        """Whether prefill has counted every push that decode has: vLLM publishes counts a step later."""
        return self.prefill.total(f"{PREFIX}pushes_total", outcome="done") >= self.remote


def added(resource: Resource, before: Counters) -> Counters:
    """What both pods counted since `before`, once they agree."""
    found = Counters.now(resource).since(before)

    def agreed() -> bool:
        nonlocal found
        found = Counters.now(resource).since(before)
        return found.settled

    wait.until("prefill has counted its pushes", agreed, timeout_s=30, blame=resource.reasons)
    return found


async def serve(resource: Resource, public: str, prefill: str, kind: str, ask: Ask | AskChat) -> Served:
    """Asks the public Service, then asks the prefill pod itself for a purely local answer, and compares.

    The prefill pod is asked with another cache salt, so it prefills again, on its own, as plain vLLM does.
    """
    before = Counters.now(resource)
    async with Client(public) as client:
        reply = await (client.ask_streaming(ask) if kind == "streaming" else client.ask(ask))
    counted = added(resource, before)
    async with Client(prefill) as client:
        local = await client.ask(replace(ask, salt=secrets.token_hex(8)))
    return Served(
        kind=kind,
        reply=reply,
        ttft=counted.decode.total("vllm:time_to_first_token_seconds_sum"),
        layers=int(counted.prefill.total(f"{PREFIX}pushed_layers_total")),
        bytes_pushed=int(counted.prefill.total(f"{PREFIX}pushed_bytes_total")),
        exposed=counted.decode.total(f"{PREFIX}exposed_seconds_sum"),
        remote=counted.remote > 0,
        same_as_local=[a.token_ids for a in local.answers] == [a.token_ids for a in reply.answers],
    )


async def await_remote(resource: Resource, public: str) -> None:
    """Asks until an answer came over pushed KV: decode has then found its prefill pod."""
    before = Counters.now(resource)
    deadline = time.monotonic() + REMOTE_TIMEOUT_S
    async with Client(public) as client:
        while time.monotonic() < deadline:
            await client.ask(Ask(prompt_of(200), secrets.token_hex(8), max_tokens=1))
            if added(resource, before).remote > 0:
                return
    raise ClusterError(f"no answer over pushed KV within {REMOTE_TIMEOUT_S:.0f} s\n{resource.reasons()}")
