"""Untyped data (a spec, a config file) into the typed form, with errors that name the field.

The only place that knows msgspec's error texts. It must never guess: what does not fit is refused.
"""

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of everything that comes from YAML: immutable, camelCase outside, unknown fields ignored."""


class Invalid(ValueError):
    """The data does not fit its type; the message says which field and why."""


def decode(data: Any, kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"{where}: {_readable(str(error))}") from None


def _readable(text: str) -> str:
    """msgspec says "Expected `int` - at `$.prefill.replicas`"; say the field first."""
    what, _, at = text.partition(" - at ")
    field = at.strip("`").removeprefix("$").removeprefix(".")
    return f"{field}: {what}" if field else what
