"""The decode side in a process of its own: real memory, the connector's decode worker, Mooncake. Talks JSON lines."""

from __future__ import annotations

import sys
import time

import msgspec
import numpy as np
import numpy.typing as npt
from layercast_connector import metrics
from layercast_connector.decode.steps import DecodeStep, Receive
from layercast_connector.decode.worker import DecodeWorker
from layercast_connector.parts import WorkerParts
from layercast_connector.settings import parse_settings
from layercast_connector.sync.device import CpuStream
from layercast_connector.transport.mooncake import MooncakeTransport

from bench.overlap.memory import Blocks, Layers, allocate
from bench.overlap.scenario import MARKER, Expect, Landed, Shape, value_of
from tests.ports import free_ports

COMPATIBILITY = "bench"


def build(shape: Shape) -> tuple[DecodeWorker, Layers]:
    """A decode worker over fresh memory."""
    layers, regions = allocate(shape)
    # A layer that was read too early is not the one that prefill reports: its proof never comes, so don't wait long.
    waits = {"done": 1.0, "lease": 2.0, "transfer": 1}
    extra = {"role": "decode", "prefill_pods": {"dns": "none"}, "control_port": free_ports(2), "timeouts": waits}
    settings = parse_settings(extra)
    transport = MooncakeTransport("127.0.0.1", "tcp", settings.timeouts.transfer)
    parts = WorkerParts(
        settings, 0, regions, transport, CpuStream(), COMPATIBILITY, "receiver", b"", metrics.Tally()
    )  # fmt: skip
    return DecodeWorker(parts), layers


def land(worker: DecodeWorker, layers: Layers, expect: Expect) -> Landed:
    """Registers the attempts, waits until all have ended, and looks at the data."""
    pairs = zip(expect.attempts, expect.blocks, strict=True)
    receive = [Receive(attempt, bytes.fromhex(attempt), blocks) for attempt, blocks in pairs]
    worker.start_step(DecodeStep(receive=receive))
    print("ready", flush=True)
    open_attempts, failed = set(expect.attempts), ""
    while open_attempts:
        outcome = worker.finish_step(0.05)
        failed = failed or next(iter(outcome.failures.values()), "")
        open_attempts -= outcome.finished
    at = time.monotonic()
    blocks = np.concatenate([np.array(ids) for ids in expect.blocks])
    return Landed(at, sum(_early(layer, blocks, index, expect) for index, layer in enumerate(layers)), failed)


def _early(layer: npt.NDArray[np.uint8], blocks: Blocks, index: int, expect: Expect) -> bool:
    """Whether a layer holds anything but its own value; wipes it for the next run."""
    early = not bool((layer[blocks] == value_of(expect.first_value, index)).all())
    layer[blocks] = MARKER - 1
    return early


def main() -> None:
    shape = msgspec.json.decode(sys.argv[1], type=Shape)
    worker, layers = build(shape)
    print(msgspec.json.encode(worker.place).decode(), flush=True)
    for line in sys.stdin:
        landed = land(worker, layers, msgspec.json.decode(line, type=Expect))
        print(msgspec.json.encode(landed).decode(), flush=True)
    worker.close()


if __name__ == "__main__":
    main()
