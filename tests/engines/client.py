"""Asks an engine as a user would, and keeps token ids and log-probabilities of what came back."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.engines.engine import SERVED_NAME

TIMEOUT = 300.0
ANSWER_TOKENS = 6
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True)
class Answer:
    """One choice. `logprobs` are of the chosen tokens, as float32 that JSON kept in full."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str | None


@dataclass(frozen=True)
class Reply:
    """All choices of one request, and what the engine says about how it was served."""

    answers: tuple[Answer, ...]
    prompt_tokens: int
    cached_tokens: int
    transfer: dict[str, Any]
    parts: int = 1


@dataclass(frozen=True)
class Ask:
    """One completion of token ids. Equal salts share prefix-cache blocks, different ones never do.

    Always the most likely token. vLLM refuses `n` above 1 at temperature 0, so several choices are sampled from the one
    best token; a fixed `seed` is no way out, since it kills vLLM 0.23's CPU engine when the prompt is split in chunks.
    """

    prompt: tuple[int, ...]
    salt: str
    max_tokens: int = ANSWER_TOKENS
    n: int = 1

    def body(self) -> dict[str, Any]:
        sampling = {"temperature": 0} if self.n == 1 else {"n": self.n, "temperature": 1, "top_k": 1}
        return _common(self.salt, self.max_tokens) | sampling | {"prompt": list(self.prompt), "logprobs": 0}


@dataclass(frozen=True)
class AskChat:
    """One greedy chat completion of (role, content) messages."""

    messages: tuple[tuple[str, str], ...]
    salt: str
    max_tokens: int = ANSWER_TOKENS

    def body(self) -> dict[str, Any]:
        messages = [{"role": role, "content": content} for role, content in self.messages]
        wanted = {"messages": messages, "temperature": 0, "logprobs": True, "top_logprobs": 0}
        return _common(self.salt, self.max_tokens) | wanted


class Client:
    """Connections to one engine; use it as an async context manager."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits)

    async def ask(self, ask: Ask | AskChat) -> Reply:
        response = await self._http.post(_path(ask), json=ask.body())
        if response.status_code != httpx.codes.OK:
            raise RuntimeError(f"{response.status_code}: {response.text}")
        return _reply([response.json()])

    async def ask_streaming(self, ask: Ask | AskChat) -> Reply:
        return _reply([part async for part in self.parts(ask)])

    async def parts(self, ask: Ask | AskChat) -> AsyncIterator[dict[str, Any]]:
        """The stream's parts as they come; leaving the loop early is a client that disconnects."""
        body = ask.body() | {"stream": True, "stream_options": {"include_usage": True}}
        async with self._http.stream("POST", _path(ask), json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise RuntimeError(f"{response.status_code}: {(await response.aread()).decode()}")
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line.removeprefix("data: "))

    async def ask_all(self, asks: Iterable[Ask], *, at_once: int) -> list[Reply]:
        """Every answer, in the order of `asks`, with at most `at_once` in flight."""
        slots = asyncio.Semaphore(at_once)

        async def one(ask: Ask) -> Reply:
            async with slots:
                return await self.ask(ask)

        return await asyncio.gather(*(one(ask) for ask in asks))

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


def _path(ask: Ask | AskChat) -> str:
    return CHAT if isinstance(ask, AskChat) else COMPLETIONS


def _common(salt: str, max_tokens: int) -> dict[str, Any]:
    return {
        "model": SERVED_NAME,
        "cache_salt": salt,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "return_token_ids": True,
    }


def _reply(parts: Sequence[dict[str, Any]]) -> Reply:
    choices = [choice for part in parts for choice in part["choices"]]
    answers = [_answer([c for c in choices if c["index"] == index]) for index in sorted({c["index"] for c in choices})]
    usage = next(part["usage"] for part in reversed(parts) if part.get("usage"))
    transfer: dict[str, Any] = next(
        (part["kv_transfer_params"] for part in parts if part.get("kv_transfer_params")), {}
    )
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Reply(tuple(answers), usage["prompt_tokens"], cached, transfer, len(parts))


def _answer(choices: Sequence[dict[str, Any]]) -> Answer:
    """One choice from its parts; a reply that isn't streamed is a single part."""
    token_ids = [token for choice in choices for token in choice.get("token_ids") or ()]
    logprobs = [value for choice in choices for value in _logprobs(choice.get("logprobs"))]
    text = "".join(_text(choice) for choice in choices)
    return Answer(tuple(token_ids), tuple(logprobs), text, choices[-1]["finish_reason"])


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message") or choice.get("delta") or {}
    return choice.get("text") or message.get("content") or ""


def _logprobs(found: dict[str, Any] | None) -> list[float]:
    if found is None:
        return []
    if "token_logprobs" in found:
        return list(found["token_logprobs"])
    return [entry["logprob"] for entry in found["content"] or ()]
