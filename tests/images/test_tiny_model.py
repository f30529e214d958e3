"""The example model: the same bytes each time, and a shape that engines accept."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from examples.tiny_model import VOCAB_SIZE, make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    make_tiny_model(out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_arguments_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path)
    assert contents(model) == contents(tmp_path)


def test_another_seed_gives_other_weights(model: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path, seed=1)
    assert contents(model)["model.safetensors"] != contents(tmp_path)["model.safetensors"]


def test_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, layers=1)
    (tmp_path / "config.json").write_text("mine")
    make_tiny_model(tmp_path, layers=1)
    assert (tmp_path / "config.json").read_text() == "mine"


def test_an_unfinished_folder_is_made_anew(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, layers=1)
    (tmp_path / "layercast-tiny.json").unlink()
    (tmp_path / "config.json").write_text("half")
    make_tiny_model(tmp_path, layers=1)
    assert json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] == 1


def test_the_weights_are_of_the_shape_that_the_config_says(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    weights = load_file(model / "model.safetensors")
    keys = config["num_key_value_heads"] * config["head_dim"]
    assert weights["model.embed_tokens.weight"].shape == (config["vocab_size"], config["hidden_size"])
    assert weights["model.layers.7.self_attn.k_proj.weight"].shape == (keys, config["hidden_size"])
    assert len(weights) == 3 + 9 * config["num_hidden_layers"]


def test_every_user_can_read_the_weights(model: Path) -> None:
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in model.iterdir())


@pytest.mark.parametrize("text", ["How many layers?", "  two  spaces\n\ttab", "naïve, 層 🙂"])
def test_any_text_survives_the_tokenizer(model: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = tokenizer.encode(text).ids
    assert max(ids) < VOCAB_SIZE and tokenizer.decode(ids) == text


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind"):
        make_tiny_model(tmp_path, kind="mystery")
