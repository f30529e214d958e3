"""Cluster DNS: CoreDNS as a process of the host, on the bridge's address.

Not a pod, so that it stays where it is when a node is drained or cut off. It forwards nothing: a name outside the
cluster is answered at once as one that does not exist.
"""

import random
import socket
import struct
from contextlib import suppress
from pathlib import Path

from tests.cluster import files
from tests.cluster.control import Control
from tests.cluster.layout import DNS_ADDRESS
from tests.cluster.pki import User
from tests.cluster.process import Daemon

DOMAIN = "cluster.local"
USER = User("system:coredns")
COREFILE = """\
{domain} in-addr.arpa ip6.arpa {{
    bind {address}
    errors
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig} layercast
        ttl 1
    }}
}}
. {{
    bind {address}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
READS = [
    {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]
RBAC = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": USER.name},
        "rules": READS,
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": USER.name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": USER.name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER.name}],
    },
]


def corefile(control: Control) -> Path:
    return control.folder / "Corefile"


def daemon(control: Control) -> Daemon:
    return control.daemon("coredns", "-conf", corefile(control))


def write_config(control: Control) -> None:
    content = COREFILE.format(address=DNS_ADDRESS, domain=DOMAIN, kubeconfig=control.kubeconfig(USER))
    files.write(corefile(control), content)


def answers(name: str = f"kubernetes.default.svc.{DOMAIN}") -> bool:
    """Whether the cluster's DNS knows an address of this name."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    number = random.randrange(1 << 16)
    recursion_desired, address_record, internet = 0x0100, 1, 1
    query = struct.pack("!6H", number, recursion_desired, 1, 0, 0, 0) + question
    query += struct.pack("!2H", address_record, internet)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, suppress(OSError):
        client.settimeout(1)
        client.sendto(query, (DNS_ADDRESS, 53))
        answer_number, _, _, count, _, _ = struct.unpack("!6H", client.recv(4096)[:12])
        return bool(answer_number == number and count > 0)
    return False
