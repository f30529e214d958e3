"""Owned engine flags are recognised in every spelling that the engine's parser takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layercast_operator.api.flags import (
    OWNED_FAMILIES,
    OWNED_FLAGS,
    SHORT_FLAGS,
    cel_pattern,
    owned_flag,
    refused_args,
    why_owned,
)

OWNED = {
    "the plain flag": ("--port", "port"),
    "the flag with its value": ("--port=1", "port"),
    "underscores for dashes": ("--kv_transfer_config", "kv-transfer-config"),
    "dashes and underscores mixed": ("--kv-transfer_config", "kv-transfer-config"),
    "a sub-key": ("--kv-transfer-config.kv_role", "kv-transfer-config"),
    "a sub-key with its value": ("--kv_transfer_config.kv_role=kv_both", "kv-transfer-config"),
    "an abbreviation": ("--tensor-par", "tensor-parallel-size"),
    "an abbreviation with its value": ("--serv=x", "served-model-name"),
    "a file of flags": ("--config=flags.yaml", "config"),
    "a short flag": ("-tp", "tensor-parallel-size"),
    "a short flag with its value": ("-tp=4", "tensor-parallel-size"),
    "a one-letter flag with its value glued on": ("-n4", "nnodes"),
    "any flag of an owned family": ("--data-parallel-anything-new", "data-parallel-anything-new"),
}


@pytest.mark.parametrize(("arg", "flag"), OWNED.values(), ids=OWNED.keys())
def test_owned(arg: str, flag: str) -> None:
    assert owned_flag(arg) == flag
    assert why_owned(flag)


FREE = {
    "a flag of the engine": "--max-num-seqs",
    "a flag that begins like an owned one": "--model-impl=auto",
    "a flag of one letter more": "--ports",
    "an optimisation level": "-O3",
    "a value": "4",
    "a value that is negative": "-1",
    "a value with an owned word": "port",
    "a lonely dash": "-",
    "the end of options": "--",
}


@pytest.mark.parametrize("arg", FREE.values(), ids=FREE.keys())
def test_free(arg: str) -> None:
    assert owned_flag(arg) is None


def spellings(name: str) -> st.SearchStrategy[str]:
    parts = name.split("-")
    separators = st.lists(st.sampled_from("-_"), min_size=len(parts) - 1, max_size=len(parts) - 1)
    joined = separators.map(lambda between: "--" + "".join(map("".join, zip(parts, [*between, ""], strict=True))))
    return st.tuples(joined, st.sampled_from(["", "=", "=1", ".sub", ".sub=1"])).map("".join)


@given(arg=st.sampled_from(sorted(OWNED_FLAGS)).flatmap(spellings))
def test_every_spelling_of_every_owned_flag_is_caught_here_and_by_the_schema(arg: str) -> None:
    assert owned_flag(arg)
    assert re.match(cel_pattern(), arg)


@given(arg=st.text())
def test_what_the_schema_refuses_is_refused_here_too(arg: str) -> None:
    if re.match(cel_pattern(), arg):
        assert owned_flag(arg)


@pytest.mark.parametrize("arg", [*(f"-{short}" for short in SHORT_FLAGS), *(f"--{name}x" for name in OWNED_FAMILIES)])
def test_the_schema_catches_short_flags_and_families(arg: str) -> None:
    assert re.match(cel_pattern(), arg)


def test_the_sentence_names_the_place_the_argument_and_the_way_out() -> None:
    (sentence,) = refused_args("engine.args", ["--max-num-seqs=4", "--block_size=16"])
    assert sentence == "engine.args: remove '--block_size=16': set engine.blockSize instead: both roles must agree"
