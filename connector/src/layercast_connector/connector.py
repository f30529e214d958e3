"""The face that vLLM sees: thin delegations to the halves, and nothing else.

vLLM makes one of these in EngineCore (scheduler half) and one in each worker (worker half). The role in
`kv_connector_extra_config` says whether the engine prefills or decodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
)

from layercast_connector import metrics
from layercast_connector.decode.scheduler import DecodeScheduler
from layercast_connector.decode.steps import DecodeStep
from layercast_connector.decode.worker import DecodeWorker
from layercast_connector.engine import build, facts
from layercast_connector.engine.logs import join_vllm_logging
from layercast_connector.engine.stats import LayercastPromMetrics, LayercastStats
from layercast_connector.prefill.scheduler import PrefillScheduler
from layercast_connector.prefill.steps import PrefillStep
from layercast_connector.prefill.worker import PrefillWorker
from layercast_connector.protocol import messages as m
from layercast_connector.settings import parse_settings

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_IDLE_PATIENCE_S = 0.002
"""vLLM runs step after step while a request only waits for a transfer. Without tokens to compute such a step waits
here for news, this long at most, instead of burning the cores that the other side may need."""


@dataclass
class LayercastMetadata(KVConnectorMetadata):
    """Scheduler half → worker half, with each step."""

    step: DecodeStep | PrefillStep


@dataclass
class LayercastHandshake(KVConnectorHandshakeMetadata):
    """A decode worker's place, for the scheduler half to put into prefill requests."""

    worker: m.Worker


@dataclass
class LayercastOutcome(KVConnectorWorkerMetadata):
    """Worker half → scheduler half: how attempts ended."""

    reports: dict[str, m.Report] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        """The outcome over two ranks."""
        assert isinstance(other, LayercastOutcome)
        return LayercastOutcome(self.reports | other.reports, self.failures | other.failures)


class LayercastConnector(KVConnectorBase_V1):
    """Streams the KV cache from prefill to decode, layer by layer, while the prefill still computes."""

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        join_vllm_logging()
        transfer = vllm_config.kv_transfer_config
        self._settings = parse_settings(transfer.kv_connector_extra_config, transfer.kv_load_failure_policy)
        self._tally = metrics.Tally()
        self._engine = facts.engine_facts(vllm_config, kv_cache_config)
        self._decode_scheduler: DecodeScheduler | None = None
        self._prefill_scheduler: PrefillScheduler | None = None
        self._decode_worker: DecodeWorker | None = None
        self._prefill_worker: PrefillWorker | None = None
        self._closers: list[Any] = []
        self._outcome = LayercastOutcome()
        self._bad_blocks: set[int] = set()
        self._patience = 0.0
        if role is KVConnectorRole.SCHEDULER:
            self._build_scheduler()

    def _build_scheduler(self) -> None:
        if self._settings.role == "decode":
            self._decode_scheduler = build.decode_scheduler(self._settings, self._engine, self._tally)
            self._closers.append(self._decode_scheduler)
        else:
            self._prefill_scheduler, server = build.prefill_scheduler(self._settings, self._engine, self._tally)
            self._closers.append(server)

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """Prefill needs its hooks called between layers; decode keeps full graphs."""
        return extra_config.get("role") == "prefill"

    # Scheduler half.

    def on_new_request(self, request: Any) -> None:
        """See `PrefillScheduler.added`."""
        if self._prefill_scheduler is not None:
            self._prefill_scheduler.added(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """See `DecodeScheduler.matched_tokens`."""
        if self._decode_scheduler is None:
            return 0, False
        tokens = self._decode_scheduler.matched_tokens(request, num_computed_tokens)
        return tokens, tokens > 0

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """See `DecodeScheduler.allocated`."""
        if self._decode_scheduler is not None:
            self._decode_scheduler.allocated(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        """The step's news for the worker half."""
        if self._decode_scheduler is not None:
            return LayercastMetadata(self._decode_scheduler.build_step())
        assert self._prefill_scheduler is not None
        return LayercastMetadata(self._prefill_scheduler.build_step(scheduler_output))

    def update_connector_output(self, connector_output: Any) -> None:
        """See `DecodeScheduler.heard`."""
        if self._decode_scheduler is not None:
            outcome = connector_output.kv_connector_worker_meta or LayercastOutcome()
            finished = connector_output.finished_recving or set()
            self._decode_scheduler.heard(finished, outcome.reports, outcome.failures)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """See `DecodeScheduler.finished` and `PrefillScheduler.finished`."""
        if self._decode_scheduler is not None:
            return False, self._decode_scheduler.finished(request)
        assert self._prefill_scheduler is not None
        return self._prefill_scheduler.finished(request), None

    def set_xfer_handshake_metadata(self, metadata: dict[int, KVConnectorHandshakeMetadata]) -> None:
        """The decode workers' places, by rank."""
        if self._decode_scheduler is not None:
            self._decode_scheduler.workers = [metadata[rank].worker for rank in sorted(metadata)]

    # Worker half.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """The KV cache exists: registers its memory and opens for business."""
        self._kv_caches = kv_caches  # keeps alive the memory that the transfer engine and the tails point into
        if self._settings.role == "decode":
            self._decode_worker = build.decode_worker(self._settings, self._engine, kv_caches, self._tally)
            self._closers.append(self._decode_worker)
        else:
            self._prefill_worker = build.prefill_worker(self._settings, self._engine, kv_caches, self._tally)
            self._closers.append(self._prefill_worker)

    def get_handshake_metadata(self) -> KVConnectorHandshakeMetadata | None:
        """Where prefill reaches this decode worker."""
        return LayercastHandshake(self._decode_worker.place) if self._decode_worker is not None else None

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """See `PrefillWorker.preempt`."""
        assert isinstance(kv_connector_metadata, LayercastMetadata)
        if self._prefill_worker is not None and isinstance(kv_connector_metadata.step, PrefillStep):
            self._prefill_worker.preempt(kv_connector_metadata.step)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """The step begins."""
        self._patience = _IDLE_PATIENCE_S if forward_context.attn_metadata is None else 0.0
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, LayercastMetadata)
        if self._decode_worker is not None and isinstance(metadata.step, DecodeStep):
            self._decode_worker.start_step(metadata.step)
        elif self._prefill_worker is not None and isinstance(metadata.step, PrefillStep):
            self._prefill_worker.start_step(metadata.step)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """The relocated sync: earlier layers are waited for and released here."""
        if self._prefill_worker is not None:
            self._prefill_worker.reach_layer(layer_name)

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """The layer is staged; nothing is visible to the sender yet."""
        if self._prefill_worker is not None:
            self._prefill_worker.save_layer(layer_name)

    def wait_for_save(self) -> None:
        """The tail is released, and every layer accounted for."""
        if self._prefill_worker is not None:
            self._prefill_worker.end_step()

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Requests whose blocks prefill may free, or whose KV decode has (or will never get)."""
        if self._prefill_worker is not None:
            return self._prefill_worker.take_finished(finished_req_ids, self._patience) or None, None
        if self._decode_worker is None:
            return None, None
        outcome = self._decode_worker.finish_step(self._patience)
        self._outcome = LayercastOutcome(outcome.reports, outcome.failures)
        self._bad_blocks = outcome.bad_blocks
        return None, outcome.finished or None

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Blocks of the failed requests that the last `get_finished` named."""
        bad, self._bad_blocks = self._bad_blocks, set()
        return bad

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        """How attempts ended in this step."""
        outcome, self._outcome = self._outcome, LayercastOutcome()
        return outcome if outcome.reports or outcome.failures else None

    # Both halves.

    def get_kv_connector_stats(self) -> LayercastStats:
        """Counts since the last step. Never None: without the workers' stats vLLM drops the scheduler's."""
        return LayercastStats(data=self._tally.take())

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> LayercastStats:
        """Stats from their data, on the other side of a process boundary."""
        return LayercastStats(data=data or {})

    @classmethod
    def build_prom_metrics(
        cls, vllm_config: Any, metric_types: Any, labelnames: list[str], per_engine_labelvalues: dict[int, list[object]]
    ) -> LayercastPromMetrics:
        """Our series on `/metrics`."""
        return LayercastPromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    def shutdown(self) -> None:
        """Ends all threads and sockets."""
        for closer in self._closers:
            closer.close()
        self._closers.clear()
