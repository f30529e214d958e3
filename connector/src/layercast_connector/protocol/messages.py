"""What prefill and decode say to each other, as types.

The conversation of one attempt (a `PrefillRequest` travels inside the HTTP call that decode makes; the rest
goes over one ZMQ connection from each prefill worker to the decode worker it writes to):

    decode scheduler ──PrefillRequest──▶ prefill scheduler          (HTTP, signed)
    prefill worker   ──Hello──▶ decode worker ──Regions | Refused──▶ (once per peer)
    prefill worker   ──Ask──▶   decode worker ──Grant | Deny──▶      (again before the lease ends)
    decode worker    ──Cancel──▶ prefill worker                      (stop writing, then report)
    prefill worker   ──Report──▶ decode worker                       (exactly one outcome per attempt)

A request names no memory: the blocks to write come with the grant, from the worker that owns them, and the
addresses come with the handshake. Nothing that arrives over HTTP can point a write anywhere.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

PROTOCOL_VERSION = 1
PARAMS_KEY = "layercast"
"""Our key in vLLM's `kv_transfer_params`."""

# Bounds keep a hostile or broken peer from making us allocate: a message outside them is malformed.
Attempt = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Incarnation = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
BlockIds = Annotated[bytes, msgspec.Meta(max_length=4 * 2**20)]  # little-endian uint32 each
Address = Annotated[str, msgspec.Meta(pattern=r"^tcp://[^\s]{1,255}:[0-9]{1,5}$")]


class _Message(msgspec.Struct, frozen=True, tag_field="t", forbid_unknown_fields=True, array_like=False):
    """Base of all messages; decoding checks every type and bound."""


class Worker(_Message, frozen=True, tag="worker"):
    """A decode worker's control address, and its incarnation: a restarted worker is another one."""

    address: Address
    incarnation: Incarnation


class PrefillRequest(_Message, frozen=True, tag="prefill"):
    """Decode asks a prefill engine to compute a prompt and to offer its KV under `attempt`."""

    attempt: Attempt
    compatibility: Text
    workers: Annotated[list[Worker], msgspec.Meta(min_length=1, max_length=1024)]
    """The decode workers, by tensor-parallel rank."""
    first_block: Count
    """Index in the prompt of the first block that decode lacks."""
    num_blocks: Annotated[int, msgspec.Meta(ge=1, le=2**20)]
    prompt_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class Region(_Message, frozen=True, tag="region"):
    """One registered tensor of the KV cache: block b starts at `base + b * stride` and has `block_bytes` bytes."""

    layer: Text
    part: Count
    base: Annotated[int, msgspec.Meta(ge=0)]
    stride: Annotated[int, msgspec.Meta(ge=1)]
    block_bytes: Annotated[int, msgspec.Meta(ge=1)]
    num_blocks: Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class Hello(_Message, frozen=True, tag="hello"):
    """First message of a prefill worker to a decode worker."""

    version: Count
    compatibility: Text
    incarnation: Incarnation
    rank: Count


class Regions(_Message, frozen=True, tag="regions"):
    """The decode worker's memory, as its transport knows it; valid for this incarnation only."""

    incarnation: Incarnation
    session: Text
    """Name under which the transport reaches this worker (Mooncake: `host:rpc_port`)."""
    proof: Text
    """How arrival is proven: see `layercast_connector.decode.arrival`."""
    regions: Annotated[list[Region], msgspec.Meta(min_length=1, max_length=4096)]


class Refused(_Message, frozen=True, tag="refused"):
    """The handshake failed; `reason` names both sides' values."""

    reason: Text


class Ask(_Message, frozen=True, tag="ask"):
    """Prefill asks for a grant, or for a longer one; `sent_cells` is progress, for the waits."""

    attempt: Attempt
    decode_incarnation: Incarnation
    number: Count
    """Counts this attempt's asks; the grant names the one that it answers."""
    sent_cells: Count


class Grant(_Message, frozen=True, tag="grant"):
    """Prefill may write these blocks for `lease` seconds, counted from when it sent the `Ask` of that number.

    Asks aren't always answered one by one: decode keeps only the latest while it can't grant yet.
    """

    attempt: Attempt
    number: Count
    lease: Seconds
    block_ids: BlockIds


class Deny(_Message, frozen=True, tag="deny"):
    """The attempt is unknown, over or cancelled: nothing may be written for it."""

    attempt: Attempt
    reason: Text


class Cancel(_Message, frozen=True, tag="cancel"):
    """Stop writing for this attempt and report what was written."""

    attempt: Attempt
    reason: Text


class Report(_Message, frozen=True, tag="report"):
    """How the attempt ended on this prefill worker. Nothing more is written for it after this.

    `cells` is a bitmap (`numpy.packbits`) over (region, block) in row-major order of what was handed to the
    transport, and `digest` covers those cells' tails: decode uses both to prove that every byte has arrived.
    """

    attempt: Attempt
    ok: bool
    quiesced: bool
    """Every write that was started has returned without an error."""
    reason: Text
    cells: Annotated[bytes, msgspec.Meta(max_length=2**20)]
    digest: Annotated[bytes, msgspec.Meta(max_length=64)]
    layers: Count
    bytes_sent: Annotated[int, msgspec.Meta(ge=0)]
    exposed: Seconds
    """Seconds between the last layer's event and the return of the last write."""


class StatusRequest(_Message, frozen=True, tag="status?"):
    """Decode asks a prefill scheduler how it is."""


class Status(_Message, frozen=True, tag="status"):
    """A prefill scheduler's answer: enough to choose a pod."""

    version: Count
    incarnation: Incarnation
    compatibility: Text
    outstanding_tokens: Count
    draining: bool


ToDecode = Hello | Ask | Report
ToPrefill = Regions | Refused | Grant | Deny | Cancel
