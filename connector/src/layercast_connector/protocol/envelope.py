"""The envelope: one version byte, an HMAC, a bounded msgpack body.

Nothing of ours parses a body whose HMAC is wrong, so without the secret a peer reaches three lines of code.
Both roles get the secret from a mounted file, or neither has one; the HMAC is then over an empty key and only
guards against damage and strangers' protocols, which the documentation says.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from layercast_connector.protocol.messages import PROTOCOL_VERSION

MAX_BYTES = 8 * 2**20
_MAC_BYTES = 32

T = TypeVar("T")


class Drop(enum.StrEnum):
    """Why a message was dropped: the label of `layercast_dropped_messages_total`."""

    OVERSIZED = "oversized"
    VERSION = "version"
    UNAUTHENTICATED = "unauthenticated"
    MALFORMED = "malformed"


class BadMessage(ValueError):
    """A message that must be dropped; `drop` is the counted reason."""

    def __init__(self, drop: Drop, detail: str) -> None:
        super().__init__(f"{drop}: {detail}")
        self.drop = drop


class Codec(Generic[T]):
    """Seals any message and opens those of one union of types.

    Args:
        secret: shared key; empty when none is configured.
        accepts: the union of message types that `open` returns; anything else is malformed.
    """

    def __init__(self, secret: bytes, accepts: object) -> None:
        self._secret = secret
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(accepts)

    def seal(self, message: msgspec.Struct) -> bytes:
        """The bytes to send for `message`."""
        body = bytes([PROTOCOL_VERSION]) + self._encoder.encode(message)
        return self._mac(body) + body

    def open(self, data: bytes) -> T:
        """The message in `data`.

        Raises:
            BadMessage: it is too large, of another version, not ours, or malformed.
        """
        if len(data) > MAX_BYTES:
            raise BadMessage(Drop.OVERSIZED, f"{len(data)} bytes, at most {MAX_BYTES}")
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if len(body) < 2 or not hmac.compare_digest(mac, self._mac(body)):
            raise BadMessage(Drop.UNAUTHENTICATED, "the HMAC does not match; do both sides have the same secret?")
        if body[0] != PROTOCOL_VERSION:
            raise BadMessage(Drop.VERSION, f"version {body[0]}, this side speaks {PROTOCOL_VERSION}")
        try:
            return self._decoder.decode(body[1:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadMessage(Drop.MALFORMED, str(error)[:200]) from None

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, hashlib.sha256)


def seal_text(codec: Codec[T], message: msgspec.Struct) -> str:
    """`message` as text, for `kv_transfer_params`, which travel as JSON."""
    return base64.b64encode(codec.seal(message)).decode()


def open_text(codec: Codec[T], text: object) -> T:
    """The message in what `seal_text` made. Raises `BadMessage` for anything else."""
    if not isinstance(text, str) or len(text) > MAX_BYTES:
        raise BadMessage(Drop.MALFORMED, "not a sealed message")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadMessage(Drop.MALFORMED, "not base64") from None
    return codec.open(data)


def read_secret(path: str | None) -> bytes:
    """The connector secret, without trailing white space; empty if none is configured.

    Raises:
        ValueError: the file is missing or empty (an empty secret would be no secret).
    """
    if path is None:
        return b""
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise ValueError(f"secret_file {path!r} can't be read: {error.strerror}; mount the connector secret") from None
    if not secret:
        raise ValueError(f"secret_file {path!r} is empty; mount the connector secret")
    return secret
