"""Landings over real memory, with the clock in the test's hand, and a writer that can do its part."""

from __future__ import annotations

from typing import Any

import numpy as np
from layercast_connector import metrics
from layercast_connector.decode.landings import Finished, Landings
from layercast_connector.protocol import messages as m
from layercast_connector.sync.device import CpuStream
from layercast_connector.transport import tails as t

from tests.connector.unit.builders import ATTEMPT, INCARNATION, WAITS, Clock, a_report, ask, regions_over, tensors

BLOCKS = np.array([3, 9, 5], np.int64)
WRITER, STRANGER = b"prefill/0", b"other/0"


class Desk:
    """Landings over real memory, with the clock in hand, and a writer that can do its part."""

    def __init__(self, proof: t.Proof = t.Proof.TAILS, stream: Any = None) -> None:
        self.memory = tensors()
        self.source = tensors(blocks=17)
        self.clock = Clock()
        self.tally = metrics.Tally()
        regions = regions_over(self.memory)
        self.landings = Landings(regions, proof, stream or CpuStream(), INCARNATION, WAITS, self.tally, self.clock)

    def register(self, attempt: bytes = ATTEMPT) -> None:
        self.landings.register("request", attempt, BLOCKS)

    def granted(self) -> Desk:
        self.register()
        (answer,) = self.says(ask())
        assert isinstance(answer[1], m.Grant)
        return self

    def says(self, message: m.ToDecode, writer: bytes = WRITER) -> list[tuple[bytes, Any]]:
        return self.landings.on_message(writer, message)

    def write(self, regions: slice = slice(None), blocks: slice = slice(None)) -> None:
        for target, source in list(zip(self.memory, self.source, strict=True))[regions]:
            target[BLOCKS[blocks]] = source[BLOCKS[blocks]]

    def report(self, cells: Any = None, **changes: Any) -> m.Report:
        """What the writer says of `cells`; all of them unless told otherwise."""
        if cells is None:
            cells = np.ones((len(self.memory), BLOCKS.size), np.bool_)
        sent = t.Tails(regions_over(self.source)).read(BLOCKS)
        good = {"ok": True, "reason": "", "cells": t.pack_cells(cells), "digest": t.digest(sent, cells)}
        return a_report(**(good | changes))

    def finished(self) -> list[Finished]:
        self.landings.tick()
        return self.landings.take_finished()

    def dropped(self) -> dict[str, int]:
        prefix = f"{metrics.DROPPED.name}|"
        return {key.removeprefix(prefix): n for key, n in self.tally.take().items() if key.startswith(prefix)}


class Device:
    """A stream and its events: done once idle."""

    idle = False

    def record(self) -> Device:
        return self

    def whole(self) -> Device:
        return self

    def wait(self) -> None:
        raise AssertionError("decode's threads never wait for the device")

    def done(self) -> bool:
        return self.idle
