"""What a platform means: image, accelerator, environment, mounts, ports.

Presets are data (the chart's values, through the operator's config file); this module gives them their
type and nothing else. Platform names must never be compared in code: a new platform is a new entry in
the values.
"""

from typing import Any

from msgspec import field

from layercast_operator.api.decode import Struct
from layercast_operator.api.spec import Resources, Role


class Accelerator(Struct, frozen=True):
    """The extended resource that a pod asks for, one per tensor parallel rank."""

    resource_name: str


class HostFile(Struct, frozen=True):
    """A file or folder of the node that the engine needs, mounted read-only at the same path.

    `root` is a folder that every node has, so that the mount itself never fails and the preflight can say
    what is missing; `path` is relative to it.
    """

    root: str
    path: str

    @property
    def full_path(self) -> str:
        return f"{self.root}/{self.path}"


class Ports(Struct, frozen=True):
    http: int
    control: int


class HostPorts(Struct, frozen=True):
    """Ports by role, so that roles can share a node's network."""

    prefill: Ports = Ports(http=8100, control=36500)
    decode: Ports = Ports(http=8000, control=36000)


POD_PORTS = Ports(http=8000, control=36000)


class Preset(Struct, frozen=True):
    image: str
    mooncake_protocol: str
    image_pull_policy: str = "IfNotPresent"
    sources: tuple[str, ...] = ()  # shell files to source before the engine starts; all must exist
    preload: tuple[str, ...] = ()  # candidates for LD_PRELOAD: the first that exists
    accelerator: Accelerator | None = None
    env: dict[str, str] = field(default_factory=dict)
    pod_ip_env: tuple[str, ...] = field(default=(), name="podIPEnv")
    engine_args: tuple[str, ...] = ()
    host_files: tuple[HostFile, ...] = ()
    resources: Resources = field(default_factory=Resources)
    shared_memory: str = "1Gi"  # size of /dev/shm
    startup_seconds: int = 900  # how long loading a model may take
    security_context: dict[str, Any] = field(default_factory=dict)
    host_network: bool = False
    host_ports: HostPorts = HostPorts()

    def ports(self, role: Role) -> Ports:
        if not self.host_network:
            return POD_PORTS
        return self.host_ports.prefill if role is Role.PREFILL else self.host_ports.decode
