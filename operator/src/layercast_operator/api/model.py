"""Where a model comes from: the URI of `spec.model.uri`, parsed once.

The CRD's CEL rule refuses most bad URIs before they are stored; this is the same rule for what reached
the operator by another way (an older CRD, `render`), with the same message. It must never touch the
network or a disk: whether the model exists is the engine's to find out.
"""

import re
from dataclasses import dataclass
from enum import Enum

URI_HELP = (
    "model.uri must be hf://ORG/NAME, pvc://CLAIM/PATH, file:///PATH (a path on the node) "
    "or image:///PATH (a path inside the engine image), without '..'"
)
URI_PATTERN = (
    r"^(hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+"
    r"|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^\s]*)?"
    r"|file:///[^\s]+"
    r"|image:///[^\s]+)$"
)


class Scheme(Enum):
    HUGGING_FACE = "hf"
    CLAIM = "pvc"
    NODE_PATH = "file"
    IMAGE_PATH = "image"


@dataclass(frozen=True)
class ModelSource:
    scheme: Scheme
    claim: str = ""  # pvc only
    path: str = ""  # org/name, path inside the claim (relative), or absolute path


class BadModelUri(ValueError):
    """The URI names no model source that this version knows."""


def parse_model_uri(uri: str) -> ModelSource:
    if not re.match(URI_PATTERN, uri) or ".." in uri.split("/"):
        raise BadModelUri(f"{URI_HELP}; got {uri!r}")
    scheme, rest = uri.split("://", 1)
    if scheme == Scheme.CLAIM.value:
        claim, _, path = rest.partition("/")
        return ModelSource(Scheme.CLAIM, claim=claim, path=path.strip("/"))
    return ModelSource(Scheme(scheme), path=rest)
