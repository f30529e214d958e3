"""Which requests are prefilled remotely: an ordered list of named checks; the first that fails is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """What the checks look at; built from vLLM's request by `describe`."""

    uncached_tokens: int
    min_remote_tokens: int
    attempted: bool
    resumed: bool
    prompt_logprobs: bool
    multimodal: bool
    prompt_embeds: bool
    lora: bool
    pooling: bool
    no_pod: bool


CHECKS: tuple[tuple[str, Callable[[Candidate], bool]], ...] = (
    ("short", lambda c: c.uncached_tokens < c.min_remote_tokens),
    ("failed_once", lambda c: c.attempted),
    ("resumed", lambda c: c.resumed),
    ("prompt_logprobs", lambda c: c.prompt_logprobs),
    ("prompt_embeds", lambda c: c.prompt_embeds),
    ("multimodal", lambda c: c.multimodal),
    ("lora", lambda c: c.lora),
    ("pooling", lambda c: c.pooling),
    ("no_prefill_pod", lambda c: c.no_pod),
)
"""(reason, whether it forbids remote prefill). `prompt_logprobs` would be read from uninitialised memory; the others
can't be reproduced from token ids alone, or must not be tried twice."""


def local_reason(candidate: Candidate) -> str | None:
    """Why this prompt is prefilled here, or None if it may go to a prefill pod."""
    return next((reason for reason, forbids in CHECKS if forbids(candidate)), None)


def describe(request: Any, computed_tokens: int, *, min_remote_tokens: int, attempted: bool, no_pod: bool) -> Candidate:
    """A candidate from vLLM's `Request`."""
    sampling = request.sampling_params
    return Candidate(
        uncached_tokens=request.num_prompt_tokens - computed_tokens,
        min_remote_tokens=min_remote_tokens,
        attempted=attempted,
        resumed=request.num_tokens != request.num_prompt_tokens or request.num_preemptions > 0,
        prompt_logprobs=sampling is not None and sampling.prompt_logprobs is not None,
        multimodal=bool(request.mm_features),
        prompt_embeds=request.prompt_token_ids is None or getattr(request, "prompt_embeds", None) is not None,
        lora=request.lora_request is not None,
        pooling=sampling is None,
        no_pod=no_pod,
    )
