"""The compatibility key: two engines exchange KV only if theirs are equal.

It covers everything that gives a KV block its meaning. During a rollout engines of two revisions run side by side;
the key is what keeps their caches apart, so when in doubt a fact belongs in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from layercast_connector.protocol.messages import PROTOCOL_VERSION

_EDGE_BYTES = 64 * 1024


def compatibility_key(facts: Mapping[str, object]) -> str:
    """A readable key: the facts that people look for, then a digest over all of them.

    Args:
        facts: JSON-able values; `model`, `dtype`, `block_size` and `tensor_parallel` are shown in clear.
    """
    everything = {**facts, "protocol": PROTOCOL_VERSION}
    digest = hashlib.blake2b(json.dumps(everything, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()
    shown = " ".join(f"{name}={everything.get(name)}" for name in ("model", "dtype", "block_size", "tensor_parallel"))
    return f"{shown[:400]} digest={digest}"


def weights_fingerprint(model: str) -> str:
    """A digest for local weights, which have no revision: names, sizes and both ends of each weight file.

    Empty for a model that isn't a local folder: its id and revision name it.
    """
    folder = Path(model)
    if not folder.is_dir():
        return ""
    digest = hashlib.blake2b(digest_size=12)
    for file in sorted(folder.glob("*")):
        if file.suffix in {".safetensors", ".bin", ".json"} and file.is_file():
            digest.update(f"{file.name}:{file.stat().st_size}:".encode())
            digest.update(_edges(file))
    return digest.hexdigest()


def _edges(file: Path) -> bytes:
    with file.open("rb") as stream:
        head = stream.read(_EDGE_BYTES)
        stream.seek(max(0, file.stat().st_size - _EDGE_BYTES))
        return head + stream.read(_EDGE_BYTES)
