"""Memory of a bounded number of things: what peers may ask about again must not grow without end."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remember(table: OrderedDict[K, V], key: K, value: V, limit: int) -> tuple[K, V] | None:
    """Adds an entry and forgets the oldest one above `limit`, which it returns. A known key keeps its age."""
    table[key] = value
    return table.popitem(last=False) if len(table) > limit else None
