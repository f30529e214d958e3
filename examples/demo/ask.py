"""Prompts through the public Service, and what the pods say about how each was served."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace

from examples.demo.resource import Resource
from tests.cluster.errors import ClusterError
from tests.engines.client import Ask, AskChat, Client, Reply

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


async def serve(resource: Resource, public: str, prefill: str, kind: str, ask: Ask | AskChat) -> Served:
    """Asks the public Service, then asks the prefill pod itself for a purely local answer, and compares.

    The prefill pod is asked with another cache salt, so it prefills again, on its own, as plain vLLM does.
    """
    before_prefill, before_decode = resource.metrics("prefill"), resource.metrics("decode")
    async with Client(public) as client:
        reply = await (client.ask_streaming(ask) if kind == "streaming" else client.ask(ask))
    decode = resource.metrics("decode").since(before_decode)
    prefill_side = resource.metrics("prefill").since(before_prefill)
    async with Client(prefill) as client:
        local = await client.ask(replace(ask, salt=secrets.token_hex(8)))
    return Served(
        kind=kind,
        reply=reply,
        ttft=decode.total("vllm:time_to_first_token_seconds_sum"),
        layers=int(prefill_side.total(f"{PREFIX}pushed_layers_total")),
        bytes_pushed=int(prefill_side.total(f"{PREFIX}pushed_bytes_total")),
        exposed=decode.total(f"{PREFIX}exposed_seconds_sum"),
        remote=decode.total(f"{PREFIX}remote_prefills_total") > 0,
        same_as_local=[a.token_ids for a in local.answers] == [a.token_ids for a in reply.answers],
    )


async def await_remote(resource: Resource, public: str) -> None:
    """Asks until an answer came over pushed KV: decode has then found its prefill pod."""
    deadline = time.monotonic() + REMOTE_TIMEOUT_S
    async with Client(public) as client:
        while time.monotonic() < deadline:
            await client.ask(Ask(prompt_of(200), secrets.token_hex(8), max_tokens=1))
            if resource.metrics("decode").total(f"{PREFIX}remote_prefills_total") > 0:
                return
    raise ClusterError(f"no answer over pushed KV within {REMOTE_TIMEOUT_S:.0f} s\n{resource.reasons()}")
