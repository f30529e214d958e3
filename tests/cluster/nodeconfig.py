"""The configuration files of a node's daemons: what a bare machine needs and the defaults don't give."""

import json
from pathlib import Path
from typing import Any

from tests.cluster import files
from tests.cluster.layout import CNI_PLUGINS, DNS_ADDRESS, PAUSE_IMAGE, POD_RANGE, Node
from tests.cluster.pki import Pki

CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = [{disabled}]

[grpc]
address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without CAP_SYS_RESOURCE a lower score is refused, and runc dies of it.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{folder}/cni-config"
"""
UNUSED_SNAPSHOTTERS = ("aufs", "btrfs", "devmapper", "zfs")


def write(node: Node, pki: Pki, *, cgroup_root: str, proxy_kubeconfig: Path) -> None:
    files.write(node.folder / "containerd.toml", _containerd(node))
    files.write(node.folder / "resolv.conf", "")  # or pods would search the host's domains
    files.write(node.folder / "cni-config" / "10-lc.conflist", _json(_pod_network(node)))
    files.write(node.folder / "kubelet.json", _json(_kubelet(node, pki, cgroup_root)))
    files.write(node.folder / "kube-proxy.json", _json(_proxy(node, proxy_kubeconfig)))


def _json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"


def _containerd(node: Node) -> str:
    plugins = next((folder for folder in CNI_PLUGINS if (folder / "ptp").exists()), CNI_PLUGINS[0])
    return CONTAINERD.format(
        folder=node.folder,
        socket=node.containerd_socket,
        pause=PAUSE_IMAGE,
        cni_plugins=plugins,
        disabled=", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in UNUSED_SNAPSHOTTERS),
    )


def _pod_network(node: Node) -> dict[str, Any]:
    """Point to point and not a bridge: all that pods say to each other is routed, so connection tracking sees the
    answers of a Service whose pod is on the same node, without a kernel module for bridges."""
    ranges = [[{"subnet": node.pod_range}]]
    addresses = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "lc", "plugins": [plugin]}


def _kubelet(node: Node, pki: Pki, cgroup_root: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_root,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(node.folder / "resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.file("ca.crt"))},
        },
        "authorization": {"mode": "Webhook"},
        # An image that is collected can't be pulled again: never collect, not even when the disk runs full.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%")
        | {"imagefs.inodesFree": "0%", "memory.available": "100Mi"},
    }


def _proxy(node: Node, kubeconfig: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": node.name,
        # Decides what is masqueraded: what comes from outside the pods' range, so also what the host asks.
        "clusterCIDR": POD_RANGE,
        "detectLocalMode": "ClusterCIDR",
        "oomScoreAdj": 0,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # Zeroes leave the machine's own settings alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
