"""What an engine is: the key that keeps different caches apart, and the engines that are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from layercast_connector.compat import compatibility_key, weights_fingerprint
from layercast_connector.engine.facts import engine_facts
from layercast_connector.settings import SettingsError


class FullAttentionSpec:
    block_size = 16
    page_size_bytes = 4096


class MLAAttentionSpec(FullAttentionSpec):
    pass


class SlidingWindowSpec(FullAttentionSpec):
    pass


def group(spec: Any = None, layers: int = 4) -> Any:
    return SimpleNamespace(kv_cache_spec=spec or FullAttentionSpec(), layer_names=[f"l.{n}" for n in range(layers)])


def engine(groups: list[Any] | None = None, **changes: Any) -> tuple[Any, Any]:
    """vLLM's two configurations; `changes` as `part__field`."""
    parts: dict[str, dict[str, Any]] = {
        "parallel": {"pipeline_parallel_size": 1, "tensor_parallel_size": 2, "enable_dbo": False},
        "model": {"model": "org/m", "revision": "r1", "dtype": "bf16", "quantization": None, "served_model_name": "m"},
        "cache": {"cache_dtype": "auto"},
    }
    for name, value in changes.items():
        part, _, field = name.partition("__")
        parts[part][field] = value
    config = SimpleNamespace(**{f"{name}_config": SimpleNamespace(**values) for name, values in parts.items()})
    return config, SimpleNamespace(num_blocks=100, kv_cache_groups=groups or [group()])


def test_an_engine_is_read_from_vllms_configuration() -> None:
    facts = engine_facts(*engine())
    assert (facts.served_model, facts.block_size, facts.num_blocks, facts.tensor_parallel) == ("m", 16, 100, 2)
    assert facts.compatibility == engine_facts(*engine()).compatibility
    assert facts.compatibility.startswith("model=org/m dtype=bf16 block_size=16 tensor_parallel=2 digest=")


@pytest.mark.parametrize(
    ("served", "name"), [(["first", "second"], "first"), ("only", "only"), (None, "org/m")], ids=str
)
def test_the_first_served_name_is_the_one_to_ask_for(served: Any, name: str) -> None:
    assert engine_facts(*engine(model__served_model_name=served)).served_model == name


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(engine(model__revision="r2"), id="revision"),
        pytest.param(engine(model__model="org/n"), id="model"),
        pytest.param(engine(model__dtype="fp16"), id="dtype"),
        pytest.param(engine(model__quantization="awq"), id="quantization"),
        pytest.param(engine(cache__cache_dtype="fp8"), id="KV dtype"),
        pytest.param(engine(parallel__tensor_parallel_size=4), id="tensor parallel size"),
        pytest.param(engine([group(layers=5)]), id="layers"),
        pytest.param(engine([group(MLAAttentionSpec())]), id="kind of attention"),
    ],
)
def test_engines_that_differ_have_different_keys(other: tuple[Any, Any]) -> None:
    assert engine_facts(*other).compatibility != engine_facts(*engine()).compatibility


def test_the_size_of_the_cache_is_not_part_of_the_key() -> None:
    config, cache = engine()
    cache.num_blocks = 7
    assert engine_facts(config, cache).compatibility == engine_facts(*engine()).compatibility


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        pytest.param(engine(parallel__pipeline_parallel_size=2), "--pipeline-parallel-size 1", id="pipeline"),
        pytest.param(engine(parallel__enable_dbo=True), "--enable-dbo", id="dual-batch overlap"),
        pytest.param(engine([group(), group()]), "2 groups", id="several groups"),
        pytest.param(engine([group(SlidingWindowSpec())]), "SlidingWindowSpec", id="sliding windows"),
    ],
)
def test_an_engine_whose_kv_cant_be_streamed_is_refused(refused: tuple[Any, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        engine_facts(*refused)


def test_keys_say_what_people_look_for_and_differ_in_every_fact() -> None:
    one = compatibility_key({"model": "m", "hidden": 1})
    assert one.startswith("model=m ")
    assert one != compatibility_key({"model": "m", "hidden": 2})
    assert one == compatibility_key({"hidden": 1, "model": "m"})
    assert len(compatibility_key({"model": "m" * 5000})) < 1024


def test_local_weights_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a" * 200_000)
    first = weights_fingerprint(str(tmp_path))
    (tmp_path / "README.md").write_text("not a weight")
    assert weights_fingerprint(str(tmp_path)) == first
    weights.write_bytes(b"a" * 199_999 + b"b")
    assert weights_fingerprint(str(tmp_path)) != first


def test_a_model_that_is_not_a_folder_has_no_fingerprint() -> None:
    assert weights_fingerprint("org/model") == ""
