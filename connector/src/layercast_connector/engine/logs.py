"""Our log lines go where vLLM's go: it sets up its own logger only, and everybody else's lines are lost."""

from __future__ import annotations

import logging

_OURS, _VLLMS = "layercast_connector", "vllm"


def join_vllm_logging() -> None:
    """Hands our package's lines to vLLM's handlers, at vLLM's level. Harmless when called again."""
    ours, theirs = logging.getLogger(_OURS), logging.getLogger(_VLLMS)
    ours.handlers = theirs.handlers
    ours.setLevel(theirs.level)
    ours.propagate = theirs.propagate
