"""Envelope and messages: what goes in comes out, and nothing but `BadMessage` comes of anything else."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import (
    MAX_BYTES,
    BadMessage,
    Codec,
    Drop,
    open_text,
    read_secret,
    seal_text,
)

from tests.connector.unit.builders import ATTEMPT, a_report, prefill_request

SECRET = b"secret"
EVERY = m.ToDecode | m.ToPrefill | m.PrefillRequest | m.StatusRequest | m.Status
CODEC = Codec[Any](SECRET, EVERY)

REGION = m.Region("layer.0", 1, 2**47, 64, 64, 1024)
MESSAGES = [
    prefill_request(),
    m.Hello(1, "key", "prefill-1", 3),
    m.Regions("decode-1", "10.0.0.1:1234", "tails", [REGION]),
    m.Refused("versions differ"),
    m.Ask(ATTEMPT, "decode-1", 3, 17),
    m.Grant(ATTEMPT, 3, 4.0, b"\1\0\0\0"),
    m.Deny(ATTEMPT, "over"),
    m.Cancel(ATTEMPT, "gone"),
    a_report(cells=b"\xff", digest=b"d" * 16, bytes_sent=2**40, exposed=0.25),
    m.StatusRequest(),
    m.Status(1, "prefill-1", "key", 1000, True),
]


def sealed(body: bytes, version: int = m.PROTOCOL_VERSION, secret: bytes = SECRET) -> bytes:
    """A body of any kind under a good HMAC."""
    data = bytes([version]) + body
    return hmac.digest(secret, data, hashlib.sha256) + data


def packed(message: msgspec.Struct, **changes: Any) -> bytes:
    """A message's body with fields changed to what its type may forbid."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(message)) | changes)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: msgspec.Struct) -> None:
    assert CODEC.open(CODEC.seal(message)) == message
    assert open_text(CODEC, seal_text(CODEC, message)) == message


ASK, GRANT, REPORT = MESSAGES[4], MESSAGES[5], MESSAGES[8]


@pytest.mark.parametrize(
    ("data", "drop"),
    [
        pytest.param(b"", Drop.UNAUTHENTICATED, id="nothing"),
        pytest.param(b"x" * 33, Drop.UNAUTHENTICATED, id="an HMAC and no body"),
        pytest.param(sealed(packed(ASK), secret=b"other"), Drop.UNAUTHENTICATED, id="another secret"),
        pytest.param(sealed(packed(ASK))[:-1], Drop.UNAUTHENTICATED, id="a truncated body"),
        pytest.param(sealed(packed(ASK)) + b"x", Drop.UNAUTHENTICATED, id="a longer body"),
        pytest.param(sealed(packed(ASK), version=m.PROTOCOL_VERSION + 1), Drop.VERSION, id="another version"),
        pytest.param(b"x" * (MAX_BYTES + 1), Drop.OVERSIZED, id="too many bytes"),
        pytest.param(sealed(b"\xc1"), Drop.MALFORMED, id="no msgpack"),
        pytest.param(sealed(packed(ASK)[:-1]), Drop.MALFORMED, id="half a message"),
        pytest.param(sealed(packed(ASK) + b"\0"), Drop.MALFORMED, id="a message and more"),
        pytest.param(sealed(packed(ASK, t="shutdown")), Drop.MALFORMED, id="an unknown tag"),
        pytest.param(sealed(packed(ASK, sudo=True)), Drop.MALFORMED, id="an unknown field"),
        pytest.param(sealed(b"\x81\xa1t\xa3ask"), Drop.MALFORMED, id="fields missing"),
        pytest.param(sealed(packed(ASK, attempt=b"short")), Drop.MALFORMED, id="a nonce of another length"),
        pytest.param(sealed(packed(ASK, attempt="x" * 16)), Drop.MALFORMED, id="text for bytes"),
        pytest.param(sealed(packed(ASK, sent_cells=-1)), Drop.MALFORMED, id="a count below zero"),
        pytest.param(sealed(packed(ASK, sent_cells=2**40)), Drop.MALFORMED, id="a count beyond its bound"),
        pytest.param(sealed(packed(ASK, decode_incarnation="x" * 65)), Drop.MALFORMED, id="a long name"),
        pytest.param(sealed(packed(GRANT, lease=86_401.0)), Drop.MALFORMED, id="a lease beyond its bound"),
        pytest.param(sealed(packed(GRANT, lease=math.nan)), Drop.MALFORMED, id="a lease that is no number"),
        pytest.param(sealed(packed(GRANT, lease=math.inf)), Drop.MALFORMED, id="a lease without end"),
        pytest.param(sealed(packed(GRANT, block_ids=b"\0" * (4 * 2**20 + 1))), Drop.MALFORMED, id="too many blocks"),
        pytest.param(sealed(packed(REPORT, exposed=math.nan)), Drop.MALFORMED, id="a time that is no number"),
        pytest.param(sealed(packed(REPORT, cells=b"\0" * (2**20 + 1))), Drop.MALFORMED, id="a bitmap beyond its bound"),
        pytest.param(
            sealed(packed(MESSAGES[0], workers=[{"t": "worker", "address": "http://a:1", "incarnation": "i"}])),
            Drop.MALFORMED,
            id="an address of another kind",
        ),
        pytest.param(sealed(b"\x91" * 10_000 + b"\x90"), Drop.MALFORMED, id="lists in lists"),
    ],
)
def test_is_dropped_for_the_right_reason(data: bytes, drop: Drop) -> None:
    with pytest.raises(BadMessage) as caught:
        CODEC.open(data)
    assert caught.value.drop is drop
    assert str(caught.value).startswith(drop)


def test_a_message_of_another_direction_is_malformed() -> None:
    with pytest.raises(BadMessage) as caught:
        Codec[m.ToDecode](SECRET, m.ToDecode).open(CODEC.seal(m.Cancel(ATTEMPT, "")))
    assert caught.value.drop is Drop.MALFORMED


@pytest.mark.parametrize(
    ("text", "drop"),
    [
        pytest.param(None, Drop.MALFORMED, id="nothing"),
        pytest.param(b"AAAA", Drop.MALFORMED, id="bytes"),
        pytest.param({"a": 1}, Drop.MALFORMED, id="a dict"),
        pytest.param("AAA", Drop.MALFORMED, id="base64 cut short"),
        pytest.param("Ä" * 8, Drop.MALFORMED, id="no ASCII"),
        pytest.param("A A A A ", Drop.MALFORMED, id="blanks"),
        pytest.param("A" * (MAX_BYTES + 4), Drop.MALFORMED, id="too long"),
        pytest.param("AAAA", Drop.UNAUTHENTICATED, id="base64 of something"),
    ],
)
def test_text_that_seal_text_didnt_make_is_dropped(text: object, drop: Drop) -> None:
    with pytest.raises(BadMessage) as caught:
        open_text(CODEC, text)
    assert caught.value.drop is drop


def opens_or_drops(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        CODEC.open(data)


@given(st.binary(max_size=200))
@settings(max_examples=800, deadline=None)
def test_bytes_of_any_kind_are_messages_or_dropped(data: bytes) -> None:
    opens_or_drops(data)
    opens_or_drops(sealed(data))


@pytest.mark.parametrize("seed", range(4))
def test_five_thousand_mutated_messages_are_messages_or_dropped(seed: int) -> None:
    """Bytes replaced, left out and put in: under a good HMAC, so that they reach the decoder, and under none."""
    rng = random.Random(seed)
    bodies = [msgspec.msgpack.encode(message) for message in MESSAGES]
    for _ in range(5000):
        body = bytearray(rng.choice(bodies))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(body) + 1)
            body[at : at + rng.choice((0, 1, 1, 4))] = rng.randbytes(rng.choice((0, 1, 1, 2)))
        opens_or_drops(sealed(bytes(body)))
        opens_or_drops(CODEC.seal(MESSAGES[3])[:40] + body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(MESSAGES), st.data())
@settings(max_examples=300, deadline=None)
def test_fields_of_any_value_are_messages_or_dropped(message: msgspec.Struct, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from([*message.__struct_fields__, "t"]), max_size=2))
    opens_or_drops(sealed(packed(message, **{name: data.draw(JSON) for name in names})))


@given(st.text(max_size=60))
@example("=")
@settings(max_examples=200, deadline=None)
def test_text_of_any_kind_is_a_message_or_dropped(text: str) -> None:
    with pytest.raises(BadMessage):
        open_text(CODEC, text)


def test_no_secret_configured_is_an_empty_one() -> None:
    assert read_secret(None) == b""


def test_white_space_around_the_secret_doesnt_count(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b" s3cret\n")
    assert read_secret(str(tmp_path / "secret")) == b"s3cret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "can't be read: No such file.*mount the connector secret", id="missing"),
        pytest.param(b"", "is empty; mount the connector secret", id="empty"),
        pytest.param(b" \n", "is empty", id="blank"),
    ],
)
def test_a_secret_file_without_a_secret_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_secret(str(file))
    with pytest.raises(ValueError, match="can't be read"):
        read_secret(str(tmp_path))
