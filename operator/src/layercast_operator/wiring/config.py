"""The operator's configuration: one YAML file (the chart's ConfigMap), typed, refused with a clear message.

    platforms:            # presets by name, see presets/preset.py
      CPU: {...}
    namespaces: []        # empty: the whole cluster
    rootSecretFile: PATH  # at least 32 bytes; connector secrets derive from it
    leaderElection: {leaseSeconds: 15, renewSeconds: 10, periodSeconds: 2}
    http: {host: "", port: 8080}
    workers: 8
    resyncSeconds: 300
    callTimeoutSeconds: 10
    logLevel: INFO

Where this process runs is not configuration but environment: POD_NAME and POD_NAMESPACE.
"""

import os
import socket
import uuid
from pathlib import Path
from typing import Annotated

import yaml
from msgspec import Meta, field

from layercast_operator.api.decode import Invalid, Struct, decode
from layercast_operator.api.kinds import OPERATOR_NAME
from layercast_operator.engine.lease import LeaseSettings
from layercast_operator.presets.preset import Preset

_ROOT_SECRET_BYTES = 32
Seconds = Annotated[float, Meta(gt=0)]


class LeaderElection(Struct, frozen=True):
    lease_seconds: Seconds = 15
    renew_seconds: Seconds = 10
    period_seconds: Seconds = 2


class Http(Struct, frozen=True):
    host: str = ""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    platforms: dict[str, Preset]
    root_secret_file: str
    namespaces: tuple[str, ...] = ()
    leader_election: LeaderElection = LeaderElection()
    http: Http = field(default_factory=Http)
    workers: Annotated[int, Meta(ge=1, le=64)] = 8
    resync_seconds: Seconds = 300
    call_timeout_seconds: Seconds = 10
    log_level: str = "INFO"


class BadConfig(ValueError):
    """The operator can't start like this; the message says what to change."""


def load_config(path: Path) -> Config:
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BadConfig(f"{path}: {error}") from error
    try:
        config = decode(data, Config, str(path))
    except Invalid as error:
        raise BadConfig(str(error)) from None
    election = config.leader_election
    if not election.period_seconds < election.renew_seconds < election.lease_seconds:
        raise BadConfig(f"{path}: leaderElection needs periodSeconds < renewSeconds < leaseSeconds")
    return config


def read_root_secret(config: Config) -> bytes:
    path = Path(config.root_secret_file)
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise BadConfig(f"rootSecretFile: {error}") from error
    if len(secret) < _ROOT_SECRET_BYTES:
        raise BadConfig(f"rootSecretFile: {path} holds {len(secret)} bytes; {_ROOT_SECRET_BYTES} are the least")
    return secret


def lease_settings(config: Config) -> LeaseSettings:
    election = config.leader_election
    # A restarted container keeps its pod's name, so it need not wait for its own lease.
    identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    return LeaseSettings(
        name=OPERATOR_NAME,
        namespace=os.environ.get("POD_NAMESPACE", "default"),
        identity=identity,
        duration_s=election.lease_seconds,
        deadline_s=election.renew_seconds,
        period_s=election.period_seconds,
    )
