"""The real helm, with folders of its own, and what it renders as plain objects."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import binaries
from tests.cluster.client import environment

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/layercast"
RELEASE, NAMESPACE = "layercast", "layercast-system"
CRD_NAME = "disaggregatedllms.layercast.dev"
TIMEOUT_S = 120

Object = dict[str, Any]


class HelmRefused(Exception):
    """helm said no; the text is what it said."""


@dataclass(frozen=True)
class Manifests:
    """Objects in the order in which helm has them."""

    objects: tuple[Object, ...]

    @classmethod
    def parse(cls, text: str) -> "Manifests":
        return cls(tuple(each for each in yaml.safe_load_all(text) if each))

    def of(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str) -> Object:
        found = self.of(kind)
        assert len(found) == 1, f"{len(found)} of kind {kind}"
        return found[0]

    def config(self) -> Object:
        content: Object = yaml.safe_load(self.one("ConfigMap")["data"]["config.yaml"])
        return content

    def pod(self) -> Object:
        template: Object = self.one("Deployment")["spec"]["template"]
        return template


class Helm:
    """Without a kubeconfig it can only render."""

    def __init__(self, folder: Path, kubeconfig: Path | None = None) -> None:
        self._environment = {**environment(), "KUBECONFIG": str(kubeconfig or folder / "none")}
        for variable in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"):
            self._environment[variable] = str(folder / variable.lower())
        self._rendered: dict[str, str] = {}

    def __call__(self, *args: str, values: Mapping[str, Any] | None = None) -> str:
        """helm's stdout; `values` come from stdin where a command takes them."""
        stdin = None if values is None else yaml.safe_dump(dict(values))
        from_stdin: Iterable[str] = () if values is None else ("--values=-",)
        command = [str(binaries.path("helm")), *args, *from_stdin]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, env=self._environment, timeout=TIMEOUT_S
        )
        if done.returncode != 0:
            raise HelmRefused(f"{done.stderr}{done.stdout}")
        return done.stdout

    def lint(self, values: Mapping[str, Any]) -> str:
        return self("lint", "--strict", *_kube_version(), str(CHART), values=values)

    def template(
        self, values: Mapping[str, Any] | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE
    ) -> Manifests:
        """Rendered once for the same question."""
        key = json.dumps([values or {}, release, namespace], sort_keys=True)
        if key not in self._rendered:
            args = ["template", release, str(CHART), f"--namespace={namespace}", *_kube_version()]
            self._rendered[key] = self(*args, values=values or {})
        return Manifests.parse(self._rendered[key])


def _kube_version() -> list[str]:
    """helm can't know it without a cluster: the one that the tests run."""
    return ["--kube-version", binaries.TOOLS["kube-apiserver"].version()]
