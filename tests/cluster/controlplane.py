"""A control plane without nodes, for tests that need a real apiserver and nothing else. No root needed.

    with ControlPlane(controllers=GARBAGE_COLLECTION) as control_plane:
        control_plane.kubectl("apply", "-f", "crd.yaml")
        with control_plane.paused_apiserver():
            ...

It can be stopped, killed, paused and started again while etcd keeps the data.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from tests.cluster import binaries
from tests.cluster.control import Control
from tests.cluster.errors import ClusterError
from tests.cluster.process import Daemon
from tests.ports import free_ports

GARBAGE_COLLECTION = ("garbage-collector-controller", "namespace-controller")
SERVICE_RANGE, SERVICE_ADDRESS = "10.0.0.0/24", "10.0.0.1"
FOLDER_PREFIX = "lc-controlplane-"
ATTEMPTS = 3


class ControlPlane:
    """etcd and kube-apiserver on free loopback ports, in a temporary folder that goes with them.

    Without controllers nobody makes service accounts, so the admission that wants a pod to have one is off; with
    `serviceaccount-controller` (or "*") among them it is on.
    """

    def __init__(self, controllers: Sequence[str] = (), *, apiserver_flags: Sequence[str] = ()) -> None:
        self._controllers = tuple(controllers)
        self._flags = (*apiserver_flags, *self._admission_flags())
        self._control: Control | None = None
        self._etcd: Daemon | None = None
        self._apiserver: Daemon | None = None
        self._manager: Daemon | None = None

    def _admission_flags(self) -> tuple[str, ...]:
        makes_accounts = {"*", "serviceaccount-controller"} & set(self._controllers)
        return () if makes_accounts else ("--disable-admission-plugins=ServiceAccount",)

    def __enter__(self) -> "ControlPlane":
        binaries.ensure(
            ["etcd", "kube-apiserver", "kubectl", *(["kube-controller-manager"] if self._controllers else [])]
        )
        _remove_orphans()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start()
                return self
            except ClusterError as error:
                self.close()
                # A port that was free a moment ago may have been taken since.
                if attempt == ATTEMPTS or "address already in use" not in str(error):
                    raise
            except BaseException:
                self.close()
                raise
        raise AssertionError("unreachable")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        port = free_ports(3)
        self._control = control = Control(
            folder=Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-")),
            address="127.0.0.1",
            port=port,
            etcd_port=port + 1,
            etcd_peer_port=port + 2,
            service_range=SERVICE_RANGE,
            service_address=SERVICE_ADDRESS,
            # The reconciler refuses to publish a loopback address as the `kubernetes` Service's endpoint.
            apiserver_flags=("--endpoint-reconciler-type=none", *self._flags),
        )
        control.prepare()
        self._etcd = control.etcd()
        self._etcd.start()
        self._apiserver = control.apiserver()
        self.start_apiserver()
        if self._controllers:
            self._manager = control.manager(self._controllers)
            self._manager.start()

    def close(self) -> None:
        """Ends every process and removes the folder. etcd goes last, or the others would wait for it."""
        with ExitStack() as stack:
            if self._control is not None:
                stack.callback(shutil.rmtree, self._control.folder, ignore_errors=True)
            for daemon in (self._etcd, self._apiserver, self._manager):
                if daemon is not None:
                    stack.callback(daemon.kill)
        self._control = self._etcd = self._apiserver = self._manager = None

    @property
    def control(self) -> Control:
        if self._control is None:
            raise ClusterError("this control plane does not run: use it as a context manager")
        return self._control

    @property
    def kubeconfig(self) -> Path:
        """An administrator's kubeconfig."""
        return self.control.kubectl.kubeconfig

    @property
    def url(self) -> str:
        return self.control.url

    def kubectl(self, *args: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """kubectl's stdout; raises ClusterError with its stderr."""
        return self.control.kubectl(*args, stdin=stdin, timeout_s=timeout_s)

    @property
    def apiserver(self) -> Daemon:
        if self._apiserver is None:
            raise ClusterError("this control plane does not run: use it as a context manager")
        return self._apiserver

    def start_apiserver(self) -> None:
        """Starts it at its old address with etcd's data, and waits until it is ready."""
        self.apiserver.start()
        self.control.await_ready(self.apiserver)

    def stop_apiserver(self) -> None:
        """SIGTERM: it closes its connections in order."""
        self.apiserver.stop()

    def kill_apiserver(self) -> None:
        """SIGKILL: connections are reset, new ones refused."""
        self.apiserver.kill()

    def restart_apiserver(self) -> None:
        self.kill_apiserver()
        self.start_apiserver()

    def pause_apiserver(self) -> None:
        """SIGSTOP: connections stay open, the kernel still accepts new ones, and nothing answers."""
        self.apiserver.signal(signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        self.apiserver.signal(signal.SIGCONT)

    @contextmanager
    def paused_apiserver(self) -> Iterator[None]:
        self.pause_apiserver()
        try:
            yield
        finally:
            self.resume_apiserver()


def _remove_orphans() -> None:
    """Ends what a test process that was killed has left: a folder's name says whose it was."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*-*"):
        owner = int(folder.name.removeprefix(FOLDER_PREFIX).split("-")[0])
        if Path(f"/proc/{owner}").exists():
            continue
        for pid_file in folder.glob("run/*.pid"):
            with suppress(OSError, ValueError):
                _kill_if_of(folder, int(pid_file.read_text()))
        shutil.rmtree(folder, ignore_errors=True)


def _kill_if_of(folder: Path, pid: int) -> None:
    if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
        os.kill(pid, signal.SIGKILL)
