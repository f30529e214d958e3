"""Which prefill pod gets a prompt: rendezvous hashing for prefix-cache locality, bounded by load.

Prompts that begin alike rank the pods alike (highest random weight, Thaler and Ravishankar 1998), so a shared prefix
is cached on one pod. A pod above its share of the load is passed over (bounded loads, Mirrokni et al. 2018), so a hot
prefix spreads instead of queueing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

_LOAD_FACTOR = 1.5
_PREFIX_TOKENS = 256


@dataclass(frozen=True)
class PodLoad:
    """A pod that can take prompts, and the prompt tokens it still has before it (ours included)."""

    name: str
    outstanding_tokens: int


def prefix_key(token_ids: Sequence[int]) -> bytes:
    """The key that prompts with the same beginning share."""
    return repr(list(token_ids[:_PREFIX_TOKENS])).encode()


def choose(pods: Sequence[PodLoad], key: bytes, tokens: int) -> str | None:
    """The name of the pod for a prompt of `tokens` tokens, or None when there is no pod."""
    if not pods:
        return None
    bound = _LOAD_FACTOR * (sum(pod.outstanding_tokens for pod in pods) + tokens) / len(pods)
    ranked = sorted(pods, key=lambda pod: _weight(pod.name, key), reverse=True)
    fitting = (pod for pod in ranked if pod.outstanding_tokens + tokens <= bound)
    return next(fitting, min(ranked, key=lambda pod: pod.outstanding_tokens)).name


def _weight(name: str, key: bytes) -> bytes:
    return hashlib.blake2b(key, key=name.encode()[:64], digest_size=8).digest()
