"""Builds the halves from settings, facts and vLLM's tensors."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Any

from layercast_connector import metrics
from layercast_connector.control import ControlServer, DropLog
from layercast_connector.decode.dispatch import Dispatcher
from layercast_connector.decode.pods import PodTable, Poller
from layercast_connector.decode.scheduler import DecodeScheduler, EngineFacts
from layercast_connector.decode.worker import DecodeWorker
from layercast_connector.engine.facts import Engine
from layercast_connector.parts import WorkerParts
from layercast_connector.plan.regions import order_layers, regions_of
from layercast_connector.prefill.scheduler import Load, PrefillScheduler
from layercast_connector.prefill.worker import PrefillWorker
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import Codec, read_secret
from layercast_connector.settings import Settings, SettingsError
from layercast_connector.sync.device import stream_for
from layercast_connector.transport.mooncake import MooncakeTransport

logger = logging.getLogger(__name__)


def decode_scheduler(settings: Settings, engine: Engine, tally: metrics.Tally) -> DecodeScheduler:
    """Decode's scheduler half, with its poller and dispatcher running."""
    secret = read_secret(settings.secret_file)
    table = PodTable(engine.compatibility)
    poller = Poller(table, settings.prefill_pods, Codec[m.Status](secret, m.Status), DropLog(tally))
    dispatcher = Dispatcher(table, poller, settings.timeouts.dispatch, _api_key(settings))
    facts = EngineFacts(engine.served_model, engine.block_size, engine.compatibility)
    return DecodeScheduler(settings, facts, table, dispatcher, Codec[Any](secret, Any), tally)


def prefill_scheduler(
    settings: Settings, engine: Engine, tally: metrics.Tally
) -> tuple[PrefillScheduler, ControlServer[m.StatusRequest]]:
    """Prefill's scheduler half, and the server that tells decode how it is."""
    secret = read_secret(settings.secret_file)
    drops = DropLog(tally)
    load = Load(engine.compatibility, new_incarnation())
    server = ControlServer(settings.control_port, Codec[m.StatusRequest](secret, m.StatusRequest), load, drops)
    codec = Codec[m.PrefillRequest](secret, m.PrefillRequest)
    scheduler = PrefillScheduler(
        engine.compatibility, engine.block_size, codec, load, drops, tensor_parallel=engine.tensor_parallel
    )
    return scheduler, server


def decode_worker(settings: Settings, engine: Engine, kv_caches: dict[str, Any], tally: metrics.Tally) -> DecodeWorker:
    """Decode's worker half: its memory registered, its control port open."""
    return DecodeWorker(_parts(settings, engine, kv_caches, tally))


def prefill_worker(
    settings: Settings, engine: Engine, kv_caches: dict[str, Any], tally: metrics.Tally
) -> PrefillWorker:
    """Prefill's worker half."""
    return PrefillWorker(_parts(settings, engine, kv_caches, tally))


def new_incarnation() -> str:
    """A name for this process's life; peers never take a restarted one for the old."""
    return secrets.token_hex(8)


def _parts(settings: Settings, engine: Engine, kv_caches: dict[str, Any], tally: metrics.Tally) -> WorkerParts:
    layers = order_layers(kv_caches)
    device = layers[0].tensors[0].device.type
    if settings.protocol == "tcp" and device != "cpu":
        raise SettingsError(
            f"protocol 'tcp' needs the KV cache in host memory, this one is on {device!r}; set 'ascend'"
        )
    transport = MooncakeTransport(settings.advertise_host, settings.protocol, settings.timeouts.transfer)
    regions = regions_of(layers, engine.num_blocks)
    logger.info("Layercast %s worker: %d layers, %d regions", settings.role, len(layers), len(regions))
    return WorkerParts(
        settings,
        _rank(),
        regions,
        transport,
        stream_for(device),
        engine.compatibility,
        new_incarnation(),
        read_secret(settings.secret_file),
        tally,
    )


def _rank() -> int:
    from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

    return int(get_tensor_model_parallel_rank())


def _api_key(settings: Settings) -> str:
    return Path(settings.api_key_file).read_text().strip() if settings.api_key_file else ""
