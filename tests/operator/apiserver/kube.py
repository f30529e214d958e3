"""A small client of the apiserver for tests: plain objects in and out, and waiting by watch instead of by sleeping."""

import base64
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml
from layercast_operator.api import kinds
from layercast_operator.api.kinds import Kind

NAMESPACE = Kind("", "v1", "Namespace", "namespaces")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
_RBAC = ("rbac.authorization.k8s.io", "v1")
ROLE = Kind(*_RBAC, "Role", "roles")
ROLE_BINDING = Kind(*_RBAC, "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind(*_RBAC, "ClusterRole", "clusterroles")
CLUSTER_ROLE_BINDING = Kind(*_RBAC, "ClusterRoleBinding", "clusterrolebindings")
_KINDS = {
    kind.name: kind
    for kind in (
        kinds.RESOURCE,
        *kinds.CHILD_KINDS,
        NAMESPACE,
        LEASE,
        ROLE,
        ROLE_BINDING,
        CLUSTER_ROLE,
        CLUSTER_ROLE_BINDING,
    )
}
USER_AGENT = "layercast-test"
Object = dict[str, Any]


class Refused(Exception):
    """The apiserver said no; the text is its message."""


class Kube:
    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = ssl.create_default_context(cadata=_pem(cluster["certificate-authority-data"]))
        headers = {"Authorization": f"Bearer {user['token']}", "User-Agent": USER_AGENT}
        self.http = httpx.Client(
            base_url=cluster["server"], headers=headers, verify=authority, timeout=60, trust_env=False
        )

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Object:
        content = json.dumps(body) if body is not None else None
        answer = self.http.request(method, path, content=content, headers={"Content-Type": content_type})
        if answer.is_error:
            raise Refused(_message(answer))
        result: Object = answer.json()
        return result

    def create(self, manifest: Object) -> Object:
        kind = _KINDS[manifest["kind"]]
        return self.call("POST", kind.path(manifest["metadata"].get("namespace")), manifest)

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return self.call("GET", kind.path(namespace, name))

    def all(self, kind: Kind, namespace: str) -> list[Object]:
        items: list[Object] = self.call("GET", kind.path(namespace))["items"]
        return items

    def patch(self, kind: Kind, namespace: str, name: str, change: Object, subresource: str = "") -> Object:
        path = kind.path(namespace, name, subresource)
        return self.call("PATCH", f"{path}?fieldManager=somebody", change, "application/merge-patch+json")

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self.call("DELETE", kind.path(namespace, name), {"propagationPolicy": "Background"})

    def wait(
        self, kind: Kind, namespace: str, until: Callable[[list[Object]], bool], what: str, timeout_s: float = 60
    ) -> list[Object]:
        """Follows a kind in a namespace until a condition on all its objects holds; returns them."""
        listing = self.call("GET", kind.path(namespace))
        objects = {item["metadata"]["name"]: item for item in listing["items"]}
        if until(list(objects.values())):
            return list(objects.values())
        version, seconds = listing["metadata"]["resourceVersion"], int(timeout_s)
        query = f"?watch=1&resourceVersion={version}&timeoutSeconds={seconds}"
        timeout = httpx.Timeout(60, read=timeout_s + 10)
        with self.http.stream("GET", kind.path(namespace) + query, timeout=timeout) as stream:
            for line in stream.iter_lines():
                event = json.loads(line)
                name = event["object"]["metadata"]["name"]
                objects.pop(name, None)
                if event["type"] != "DELETED":
                    objects[name] = event["object"]
                if until(list(objects.values())):
                    return list(objects.values())
        names = ", ".join(sorted(objects)) or "nothing"
        raise AssertionError(f"{what}: not within {timeout_s:.0f} s; {kind.plural} are: {names}")


def _message(answer: httpx.Response) -> str:
    if "json" not in answer.headers.get("content-type", ""):
        return answer.text
    message: str = answer.json()["message"]
    return message


def _pem(data: str) -> str:
    return base64.b64decode(data).decode()
