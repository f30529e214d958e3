"""Nodes in network namespaces on one bridge.

A node has routes to the host, to the other nodes and to their pods, and no default route: there is no way for what a
pod sends anywhere else. The host's rule is there for a privileged pod that makes itself a route.
The host reaches pods and Services through the nodes; their kube-proxy masquerades what comes from outside the pods'
range, so that the answers come back the same way.
"""

import shutil
from pathlib import Path

from tests.cluster.layout import BRIDGE, GUARD_TABLE, HOST_ADDRESS, NODE_RANGE_BITS, NODES, SERVICE_RANGE, Node
from tests.cluster.process import run

NAMESPACES = Path("/run/netns")
UPLINK = "eth0"
GUARD = f"""\
table inet {GUARD_TABLE} {{}}
delete table inet {GUARD_TABLE}
table inet {GUARD_TABLE} {{
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "{BRIDGE}" oifname != "{BRIDGE}" drop
    oifname "{BRIDGE}" iifname != "{BRIDGE}" drop
  }}
}}
"""


def namespace_file(node: Node) -> Path:
    return NAMESPACES / node.name


def enter(node: Node) -> list[str]:
    """A command prefix. Not `ip netns exec`: that mounts a /sys of its own and hides the cgroups."""
    return ["nsenter", f"--net={namespace_file(node)}", "--"]


def link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def ensure_host() -> None:
    run(["nft", "-f", "-"], stdin=GUARD)
    if not link_exists(BRIDGE):
        # Frames between nodes must not pass the host's own firewall, whatever it says.
        bridge = ("type", "bridge", "stp_state", "0", "nf_call_iptables", "0", "nf_call_ip6tables", "0")
        run(["ip", "link", "add", BRIDGE, *bridge])
    run(["ip", "address", "replace", f"{HOST_ADDRESS}/{NODE_RANGE_BITS}", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    run(["ip", "route", "replace", SERVICE_RANGE, "via", NODES[0].address, "dev", BRIDGE])
    for node in NODES:
        run(["ip", "route", "replace", node.pod_range, "via", node.address, "dev", BRIDGE])


def ensure_node(node: Node) -> None:
    """The namespace, its link to the bridge, and its routes. Nothing that is right already is touched."""
    if not namespace_file(node).exists():
        run(["ip", "netns", "add", node.name])
    if not link_exists(node.name):
        run(["ip", "link", "add", node.name, "type", "veth", "peer", "name", UPLINK, "netns", node.name])
    run(["ip", "link", "set", node.name, "master", BRIDGE, "up"])
    inside = ["ip", "-netns", node.name]
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "address", "replace", f"{node.address}/{NODE_RANGE_BITS}", "dev", UPLINK])
    run([*inside, "link", "set", UPLINK, "up"])
    for other in NODES:
        if other != node:
            run([*inside, "route", "replace", other.pod_range, "via", other.address, "dev", UPLINK])
    run([*enter(node), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])


def is_whole(node: Node) -> bool:
    """Whether the namespace and its link are there; a link's end goes with the namespace."""
    return namespace_file(node).exists() and link_exists(node.name)


def remove_node(node: Node) -> None:
    if link_exists(node.name):
        run(["ip", "link", "delete", node.name])
    if namespace_file(node).exists():
        run(["ip", "netns", "delete", node.name])


def remove_host() -> None:
    if link_exists(BRIDGE):
        run(["ip", "link", "delete", BRIDGE])
    if shutil.which("nft") and GUARD_TABLE in run(["nft", "list", "tables"]):
        run(["nft", "delete", "table", "inet", GUARD_TABLE])
    _remove_namespace_mount()


def _remove_namespace_mount() -> None:
    """`ip netns add` mounts its folder onto itself and leaves it so."""
    mounted = f" {NAMESPACES} " in Path("/proc/self/mountinfo").read_text()
    if mounted and not any(NAMESPACES.iterdir()):
        run(["umount", NAMESPACES])
