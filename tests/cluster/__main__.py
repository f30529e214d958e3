"""The command line: `python -m tests.cluster --help`."""

import argparse
import os
import sys
from pathlib import Path

from tests.cluster import binaries, debs, lifecycle
from tests.cluster.errors import ClusterError
from tests.cluster.layout import MAX_NODES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="A real Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tools", help="build what is not in the cache; prints the cache's folder")
    commands.add_parser("debs", help="install the Debian packages that are missing")
    up = commands.add_parser("up", help="make sure of a running cluster")
    up.add_argument("--nodes", type=int, choices=range(1, MAX_NODES + 1), default=1)
    commands.add_parser("down", help="remove the cluster, whatever state it is in")
    load = commands.add_parser("load", help="import OCI archives on the nodes")
    load.add_argument("archives", type=Path, nargs="+", metavar="IMAGE.oci.tar")
    load.add_argument("--node", action="append", default=[], metavar="NAME", help="only on this one; may be repeated")
    commands.add_parser("images", help="what is loaded on which node")
    commands.add_parser("kubeconfig", help="print the kubeconfig's path")
    commands.add_parser("status", help="what runs, and where its log is; fails unless all of it does")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "tools":
            print(binaries.ensure())
        case "debs":
            debs.install()
        case "up":
            lifecycle.up(arguments.nodes)
        case "down":
            lifecycle.down()
        case "load":
            lifecycle.load(arguments.archives, arguments.node)
        case "images":
            lifecycle.images()
        case "kubeconfig":
            print(lifecycle.kubeconfig())
        case "status":
            return 0 if lifecycle.status() else 1
    return 0


def main() -> int:
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{debs.SYSTEM_PATH}"  # a root without a login may lack them
    try:
        return _run(_parser().parse_args())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
