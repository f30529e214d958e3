"""The command lines of a control plane, the same for the cluster and for a control plane that stands alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.client import Kubectl, answers_ready, write_kubeconfig
from tests.cluster.pki import ADMIN, Pki, User
from tests.cluster.process import Daemon, Prefix

MANAGER = User("system:kube-controller-manager")
SCHEDULER = User("system:kube-scheduler")


@dataclass(frozen=True)
class Control:
    """Where one control plane keeps its files, and where it listens."""

    folder: Path
    address: str
    port: int
    etcd_port: int
    etcd_peer_port: int
    service_range: str
    service_address: str
    users: Sequence[User] = ()
    apiserver_flags: Sequence[str] = ()
    prefix: Prefix = tuple

    @property
    def pki(self) -> Pki:
        return Pki(self.folder / "pki")

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.kubeconfig(ADMIN))

    def kubeconfig(self, user: User) -> Path:
        return self.folder / f"{user.name.replace(':', '-')}.kubeconfig"

    def prepare(self) -> None:
        """Keys and kubeconfigs; both stay as they are when they are there."""
        users = (ADMIN, MANAGER, SCHEDULER, *self.users)
        names = ["DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc", "DNS:localhost"]
        names += ["DNS:kubernetes.default.svc.cluster.local", f"IP:{self.address}", f"IP:{self.service_address}"]
        self.pki.ensure(server_names=names, users=users)
        for user in users:
            write_kubeconfig(self.kubeconfig(user), server=self.url, pki=self.pki, user=user)

    def daemon(self, name: str, *flags: str | Path) -> Daemon:
        argv = [str(binaries.path(name)), *(str(flag) for flag in flags)]
        return Daemon(name, argv, folder=self.folder / "run", prefix=self.prefix)

    def etcd(self) -> Daemon:
        """Without fsync: what a kill -9 leaves in the page cache is enough here, and a start takes half the time."""
        client, peer = (f"http://127.0.0.1:{port}" for port in (self.etcd_port, self.etcd_peer_port))
        return self.daemon(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def apiserver(self) -> Daemon:
        file = self.pki.file
        return self.daemon(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={self.service_range}",
            f"--tls-cert-file={file('apiserver.crt')}",
            f"--tls-private-key-file={file('apiserver.key')}",
            f"--token-auth-file={file('tokens.csv')}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={file('service-accounts.key')}",
            f"--service-account-signing-key-file={file('service-accounts.key')}",
            f"--kubelet-client-certificate={file('kubelet-client.crt')}",
            f"--kubelet-client-key={file('kubelet-client.key')}",
            # Nodes have no names that resolve.
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged",
            *self.apiserver_flags,
        )

    def manager(self, controllers: Sequence[str] = ("*",)) -> Daemon:
        return self.daemon(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig(MANAGER)}",
            f"--controllers={','.join(controllers)}",
            f"--root-ca-file={self.pki.file('ca.crt')}",
            f"--service-account-private-key-file={self.pki.file('service-accounts.key')}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def scheduler(self) -> Daemon:
        kubeconfig = f"--kubeconfig={self.kubeconfig(SCHEDULER)}"
        return self.daemon("kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0")

    def await_ready(self, apiserver: Daemon) -> None:
        authority = self.pki.file("ca.crt")
        apiserver.ready("kube-apiserver is ready", lambda: answers_ready(self.url, authority))
