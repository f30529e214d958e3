"""`spec` of a DisaggregatedLLM, typed and defaulted.

The CRD's schema says what each field means; this is the form that the rest of the operator reads, so
that no other module touches untyped dictionaries. Defaults are those of the schema (a unit test
compares them) for specs that no apiserver has defaulted: `render`, tests. It must never read anything
but the spec, and knows nothing of platforms or children.
"""

from enum import Enum
from typing import Annotated, Any

from msgspec import Meta, field

from layercast_operator.api.decode import Invalid, Struct, decode
from layercast_operator.api.flags import refused_args, refused_env
from layercast_operator.api.model import BadModelUri, parse_model_uri

Quantities = dict[str, int | str]


class Role(Enum):
    PREFILL = "prefill"
    DECODE = "decode"


class LayerSync(Enum):
    RELOCATED = "Relocated"
    SENDER_EVENT = "SenderEvent"
    SENDER_STREAM = "SenderStream"


class OnPrefillFailure(Enum):
    RECOMPUTE = "Recompute"
    FAIL = "Fail"


class KeyRef(Struct, frozen=True):
    """A key of a Secret or ConfigMap of the namespace: handed to pods, never read here."""

    name: str
    key: str


class LocalRef(Struct, frozen=True):
    name: str


class Model(Struct, frozen=True):
    uri: str
    revision: str | None = None
    served_name: str | None = None
    token_secret_ref: KeyRef | None = None


class EnvSource(Struct, frozen=True):
    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None


class EnvVar(Struct, frozen=True):
    name: str
    value: str | None = None
    value_from: EnvSource | None = None


class Engine(Struct, frozen=True):
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    max_model_len: int | None = None
    block_size: int | None = None
    kv_cache_dtype: str | None = None


class Timeouts(Struct, frozen=True):
    """Bounds in seconds; None leaves the connector's default."""

    dispatch_seconds: int | None = None
    first_layer_seconds: int | None = None
    progress_seconds: int | None = None
    done_seconds: int | None = None
    lease_seconds: int | None = None
    transfer_seconds: int | None = None


class Connector(Struct, frozen=True):
    layer_sync: LayerSync = LayerSync.RELOCATED
    lookahead: Annotated[int, Meta(ge=0, le=2)] = 1
    min_remote_tokens: Annotated[int, Meta(ge=1)] = 64
    on_prefill_failure: OnPrefillFailure = OnPrefillFailure.RECOMPUTE
    report_in_response: bool = False
    timeouts: Timeouts = Timeouts()


class Parallelism(Struct, frozen=True):
    tensor: Annotated[int, Meta(ge=1, le=64)] = 1


class Resources(Struct, frozen=True):
    requests: Quantities = field(default_factory=dict)
    limits: Quantities = field(default_factory=dict)


class Scheduling(Struct, frozen=True):
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] | None = None


class RoleSpec(Struct, frozen=True):
    replicas: Annotated[int, Meta(ge=0, le=512)] = 1
    parallelism: Parallelism = Parallelism()
    resources: Resources = field(default_factory=Resources)
    scheduling: Scheduling = field(default_factory=Scheduling)
    engine_args: tuple[str, ...] = ()


class Endpoint(Struct, frozen=True):
    service_type: str = "ClusterIP"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000


class Spec(Struct, frozen=True):
    model: Model
    platform: str
    image: str | None = None
    image_pull_secrets: tuple[LocalRef, ...] = ()
    engine: Engine = field(default_factory=Engine)
    connector: Connector = Connector()
    prefill: RoleSpec = field(default_factory=RoleSpec)
    decode: RoleSpec = field(default_factory=RoleSpec)
    endpoint: Endpoint = Endpoint()

    def role(self, role: Role) -> RoleSpec:
        return self.prefill if role is Role.PREFILL else self.decode


def parse_spec(data: Any) -> Spec:
    """The typed spec, or `Invalid` with every reason that the schema could not catch."""
    spec = decode(data, Spec, "spec")
    problems = [*_model_problems(spec), *_engine_problems(spec), *_shape_problems(spec)]
    if problems:
        raise Invalid("; ".join(problems))
    return spec


def _model_problems(spec: Spec) -> list[str]:
    try:
        parse_model_uri(spec.model.uri)
    except BadModelUri as error:
        return [str(error)]
    if spec.model.uri.startswith("hf://"):
        return []
    only_hub = {"model.revision": spec.model.revision, "model.tokenSecretRef": spec.model.token_secret_ref}
    return [f"{name} works with hf:// only: remove it" for name, value in only_hub.items() if value is not None]


def _engine_problems(spec: Spec) -> list[str]:
    return [
        *refused_args("engine.args", spec.engine.args),
        *refused_args("prefill.engineArgs", spec.prefill.engine_args),
        *refused_args("decode.engineArgs", spec.decode.engine_args),
        *refused_env("engine.env", (entry.name for entry in spec.engine.env)),
    ]


def _shape_problems(spec: Spec) -> list[str]:
    problems = []
    if spec.prefill.parallelism.tensor != spec.decode.parallelism.tensor:
        problems.append(
            "prefill.parallelism.tensor and decode.parallelism.tensor must be equal: "
            "pods of different shape do not exchange KV yet"
        )
    if spec.decode.replicas < 1:
        problems.append("decode.replicas must be at least 1: clients reach the decode pods")
    return problems
