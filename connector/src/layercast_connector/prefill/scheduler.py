"""Prefill's scheduler half: turns each scheduled chunk into the block range that it completes."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from layercast_connector.control import DropLog
from layercast_connector.plan.chunks import blocks_for, chunk_range
from layercast_connector.prefill.steps import Chunk, NewPush, PrefillStep
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import BadMessage, Codec, open_text
from layercast_connector.recent import remember

logger = logging.getLogger(__name__)

_REMEMBERED = 65_536
"""How many attempts are kept, to begin none twice: more than can be under way."""


@dataclass
class _Push:
    request: m.PrefillRequest
    next_block: int
    block_ids: list[int] = field(default_factory=list)
    announced: bool = False
    complete: bool = False


class Load:
    """Prompt tokens that this engine still has before it; the status server's thread reads it."""

    def __init__(self, compatibility: str, incarnation: str) -> None:
        self._compatibility = compatibility
        self._incarnation = incarnation
        self._lock = threading.Lock()
        self._tokens: dict[str, int] = {}
        self.draining = False

    def add(self, req_id: str, tokens: int) -> None:
        """A request came."""
        with self._lock:
            self._tokens[req_id] = tokens

    def remove(self, req_id: str) -> None:
        """A request is over."""
        with self._lock:
            self._tokens.pop(req_id, None)

    # The handler of the status port.

    def on_message(self, peer: bytes, _message: m.StatusRequest) -> list[tuple[bytes, m.Status]]:
        """Answers a decode engine."""
        with self._lock:
            tokens = sum(self._tokens.values())
        status = m.Status(m.PROTOCOL_VERSION, self._incarnation, self._compatibility, tokens, self.draining)
        return [(peer, status)]

    def tick(self) -> list[tuple[bytes, m.Status]]:
        """Nothing is driven by time."""
        return []

    def wait_seconds(self) -> float:
        """Only messages matter."""
        return 0.5


class PrefillScheduler:
    """See the module. Called by vLLM's scheduler only, in its thread.

    Args:
        compatibility: this engine's key; a request with another is not pushed.
        block_size: tokens per KV block.
        codec: opens what decode put into `kv_transfer_params`.
        load: shared with the status server.
        drops: counts what couldn't be opened.
        tensor_parallel: how many ranks push; decode must name a worker for each.
    """

    def __init__(
        self,
        compatibility: str,
        block_size: int,
        codec: Codec[m.PrefillRequest],
        load: Load,
        drops: DropLog,
        *,
        tensor_parallel: int,
    ) -> None:
        self._compatibility = compatibility
        self._tensor_parallel = tensor_parallel
        self._block_size = block_size
        self._codec = codec
        self._load = load
        self._drops = drops
        self._pushes: dict[str, _Push] = {}
        self._aborted: list[bytes] = []
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def added(self, request: Any) -> None:
        """vLLM accepted a request. Forged or foreign transfer parameters make it an ordinary one: nothing is pushed."""
        self._load.add(request.request_id, request.num_prompt_tokens)
        params = request.kv_transfer_params
        if not isinstance(params, dict) or m.PARAMS_KEY not in params:
            return
        try:
            push = open_text(self._codec, params[m.PARAMS_KEY])
        except BadMessage as error:
            self._drops.dropped(error)
            return
        misfit = self._misfit(push, request.num_prompt_tokens)
        if misfit is not None:
            logger.warning("Not pushing %s: %s", request.request_id, misfit)
            return
        remember(self._seen, push.attempt, None, _REMEMBERED)
        self._pushes[request.request_id] = _Push(push, push.first_block)

    def _misfit(self, push: m.PrefillRequest, prompt_tokens: int) -> str | None:
        """Why this push can't be done for a prompt of that length, or None."""
        if push.compatibility != self._compatibility:
            return f"decode has [{push.compatibility}], we have [{self._compatibility}]"
        blocks = blocks_for(prompt_tokens, self._block_size)
        if push.prompt_tokens != prompt_tokens or push.first_block + push.num_blocks != blocks:
            return f"decode asks for other blocks than those of a prompt of {prompt_tokens} tokens"
        if len(push.workers) != self._tensor_parallel:
            return f"decode has {len(push.workers)} ranks, we have {self._tensor_parallel}"
        if push.attempt in self._seen:
            return "this attempt was begun before (a proxy may have repeated the request)"
        return None

    def build_step(self, output: Any) -> PrefillStep:
        """The pushes of the step that vLLM just scheduled (its `SchedulerOutput`)."""
        step = PrefillStep(aborted=self._aborted)
        self._aborted = []
        if not self._pushes:
            return step
        for req_id in output.preempted_req_ids or ():
            self._preempt(req_id, step)
        for new in output.scheduled_new_reqs:
            push = self._pushes.get(new.req_id)
            if push is not None:
                push.block_ids = list(new.block_ids[0])
                self._schedule(new.req_id, push, new.num_computed_tokens, output, step)
        self._cached(output, step)
        return step

    def finished(self, request: Any) -> bool:
        """The request is over. Returns whether its blocks must stay until the worker half has finished with them."""
        self._load.remove(request.request_id)
        push = self._pushes.pop(request.request_id, None)
        if push is None or not push.announced:
            return False
        if not push.complete:
            self._aborted.append(push.request.attempt)
        return True

    def _cached(self, output: Any, step: PrefillStep) -> None:
        cached = output.scheduled_cached_reqs
        for index, req_id in enumerate(cached.req_ids):
            push = self._pushes.get(req_id)
            if push is None:
                continue
            new_blocks = cached.new_block_ids[index]
            if req_id in cached.resumed_req_ids:
                push.block_ids = []
            if new_blocks is not None:
                push.block_ids.extend(new_blocks[0])
            self._schedule(req_id, push, cached.num_computed_tokens[index], output, step)

    def _preempt(self, req_id: str, step: PrefillStep) -> None:
        push = self._pushes.get(req_id)
        if push is not None and push.announced:
            step.preempted.append(push.request.attempt)

    def _schedule(self, req_id: str, push: _Push, computed: int, output: Any, step: PrefillStep) -> None:
        if push.complete:
            return
        if not push.announced:
            push.announced = True
            step.new.append(NewPush(req_id, push.request))
        after = computed + output.num_scheduled_tokens[req_id]
        end = push.request.first_block + push.request.num_blocks
        blocks = chunk_range(push.next_block, after, push.request.prompt_tokens, self._block_size, end)
        push.next_block, push.complete = blocks.stop, blocks.last
        if blocks.start < blocks.stop:
            ids = push.block_ids[blocks.start : blocks.stop]
            step.chunks.append(Chunk(push.request.attempt, blocks.start, ids, blocks.last))
