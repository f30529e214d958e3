"""Schema files for kubeconform, from the OpenAPI v3 documents of a real apiserver: its kinds and our own.

The documents are JSON schemas but for one thing: they say nothing of unknown fields, which the apiserver drops. Here
they are refused.
"""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.chart.helm import Object
from tests.cluster import binaries
from tests.cluster.controlplane import ControlPlane

# kubeconform calls the core group "v1", like its version.
_LOCATION = "{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json"
_OPEN = ("additionalProperties", "x-kubernetes-preserve-unknown-fields")


class Schemas:
    """A folder that gets the schemas of the kinds that are asked about."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self._control_plane = control_plane
        self._folder = folder
        self._documents: dict[str, Object] = {}

    def complaints(self, objects: Iterable[Object]) -> list[str]:
        """What kubeconform says against the objects; it must know all of their kinds."""
        documents = list(objects)
        for each in documents:
            self._write(each["apiVersion"], each["kind"])
        command = [str(binaries.path("kubeconform")), "-strict", "-output=json", "-verbose"]
        done = subprocess.run(
            [*command, f"-schema-location={self._folder}/{_LOCATION}"],
            input="\n---\n".join(json.dumps(each) for each in documents),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        verdicts = json.loads(done.stdout)["resources"]
        assert len(verdicts) == len(documents), done.stderr
        return [f"{each['kind']} {each['name']}: {each['msg']}" for each in verdicts if each["status"] != "statusValid"]

    def _write(self, api_version: str, kind: str) -> None:
        group, _, version = api_version.rpartition("/")
        path = self._folder / f"{group or version}_{version}_{kind.lower()}.json"
        if path.exists():
            return
        document = self._document(api_version)
        path.write_text(
            json.dumps({"$ref": f"#/components/schemas/{_name(document, group, version, kind)}"} | document)
        )

    def _document(self, api_version: str) -> Object:
        if api_version not in self._documents:
            root = "apis" if "/" in api_version else "api"
            told = json.loads(self._control_plane.kubectl("get", "--raw", f"/openapi/v3/{root}/{api_version}"))
            self._documents[api_version] = {"components": _closed(told["components"])}
        return self._documents[api_version]


def _name(document: Object, group: str, version: str, kind: str) -> str:
    wanted = {"group": group, "version": version, "kind": kind}
    for name, schema in document["components"]["schemas"].items():
        if schema.get("x-kubernetes-group-version-kind") == [wanted]:
            return str(name)
    raise KeyError(f"the apiserver has no {wanted}")


def _closed(schema: Any) -> Any:
    """Refuses fields that an object with named fields doesn't name."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed |= {} if any(schema.get(key) for key in _OPEN) else {"additionalProperties": False}
    return closed
