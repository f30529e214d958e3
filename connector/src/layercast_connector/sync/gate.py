"""When a layer may be read for transfer.

Invariant: `release` is called for a layer either after that layer's event completed, or together with the event,
and then the sender waits on it before it reads a byte. `save_kv_layer` by itself makes nothing visible (with the
`relocated` strategy), which closes the race that the review of vllm-ascend PR #4478 named: there the layer was
handed over in `save_kv_layer`, and the wait in the next layer's hook came too late to hold the sender back.

Hooks aren't uniform: full graphs skip them, some attention kinds save without a name or not at all. So the end of a
step accounts for every layer: what no hook staged is staged there, behind everything that the step queued.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from layercast_connector.sync.device import Event, Stream

Release = Callable[[int, Event | None], None]
"""(layer index, event that the sender must still wait on, or None) → the layer is the sender's."""


class Strategy(enum.StrEnum):
    """Who waits for a layer, and where."""

    RELOCATED = "relocated"
    SENDER_EVENT = "sender_event"
    SENDER_STREAM = "sender_stream"


class GateError(RuntimeError):
    """Hooks were called in an order that can't be made safe; the step's requests must fail."""


class LayerGate:
    """Stages layers as the model saves them and releases each to the sender once that is safe.

    Args:
        layers: names in model order.
        stream: the model's compute stream.
        release: called once per layer and step, in the model thread.
        strategy: `relocated` waits in the hook of a later layer; `sender_event` hands each layer over with its
            event; `sender_stream` has the sender wait for the whole stream (before PR #4478; for comparison).
        lookahead: how many more layers the host may queue before it waits, `relocated` only.
    """

    def __init__(
        self, layers: Sequence[str], stream: Stream, release: Release, strategy: Strategy, lookahead: int
    ) -> None:
        self._index = {name: index for index, name in enumerate(layers)}
        self._stream = stream
        self._release = release
        self._strategy = strategy
        self._lookahead = lookahead
        self._staged: dict[int, Event] = {}
        self._released: set[int] = set()
        self._active = False

    def begin(self) -> None:
        """A step that pushes something starts; without this the hooks do nothing."""
        self._staged.clear()
        self._released.clear()
        self._active = True

    def stage(self, layer: str) -> None:
        """`save_kv_layer`: the layer's KV write is queued on the stream.

        Whatever the strategy, one layer stays here until the step ends. With the last one a push is complete and
        reported, and then it would be too late to say that a layer was saved again.

        Raises:
            GateError: the layer was already released in this step (a second micro-batch wrote to it).
        """
        index = self._index.get(layer)
        if not self._active or index is None:
            return
        if index in self._released:
            raise GateError(f"layer {layer} was saved again after it was handed to the sender")
        event = self._stream.whole() if self._strategy is Strategy.SENDER_STREAM else self._stream.record()
        last = len(self._released) == len(self._index) - 1
        if last or self._strategy is Strategy.RELOCATED:
            self._staged[index] = event
        else:
            self._hand_over(index, event)

    def reach(self, layer: str) -> None:
        """`wait_for_layer_load`: the model is about to queue this layer; earlier ones are waited for and released."""
        index = self._index.get(layer)
        if not self._active or index is None or self._strategy is not Strategy.RELOCATED:
            return
        for earlier in [staged for staged in self._staged if staged < index - self._lookahead]:
            self._staged[earlier].wait()
            self._hand_over(earlier, None)

    def end(self) -> None:
        """`wait_for_save`: releases the tail with its events, and accounts for layers that no hook staged."""
        if not self._active:
            return
        for index in self._index.values():
            if index not in self._released and index not in self._staged:
                self._staged[index] = self._stream.record()
        for index in sorted(self._staged):
            self._hand_over(index, self._staged[index])
        self._active = False

    def _hand_over(self, index: int, event: Event | None) -> None:
        self._staged.pop(index, None)
        self._released.add(index)
        self._release(index, event)
