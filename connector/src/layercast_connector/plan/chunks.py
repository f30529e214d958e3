"""Which blocks of a prompt a scheduled chunk completes.

A block is pushed once, in the step that computes its last prompt token: earlier its bytes would change again. The
prompt's last block may stay partly filled; it goes with the last chunk.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChunkRange:
    """Blocks `start` (inclusive) to `stop` (exclusive), as indices in the prompt; `last` ends the push."""

    start: int
    stop: int
    last: bool


def chunk_range(pushed: int, computed_tokens: int, prompt_tokens: int, block_size: int, end_block: int) -> ChunkRange:
    """The blocks to push in the step after which `computed_tokens` of the prompt are computed.

    Args:
        pushed: index of the first block that was not pushed yet (at first: the first one that decode lacks).
        computed_tokens: prompt tokens computed when the step ends, prefix-cache hits included.
        prompt_tokens: length of the prompt.
        block_size: tokens per block.
        end_block: index after the last block that decode asked for.

    Returns:
        A range that may be empty: a chunk can end within the block in which it began, and a prefix that decode
        has already needs no push.
    """
    if computed_tokens >= prompt_tokens:
        return ChunkRange(min(pushed, end_block), end_block, True)
    complete = min(computed_tokens // block_size, end_block)
    return ChunkRange(pushed, max(pushed, complete), False)


def blocks_for(tokens: int, block_size: int) -> int:
    """How many blocks hold `tokens` tokens."""
    return -(-tokens // block_size)
