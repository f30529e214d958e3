"""The kinds that the operator deals with, and the labels that mark what is its own.

One row per kind: adding a child kind starts here (and in the chart's RBAC). Names only: no behaviour.
"""

from dataclasses import dataclass

GROUP = "layercast.dev"
VERSION = "v1alpha1"
OPERATOR_NAME = "layercast-operator"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_RESOURCE = "layercast.dev/resource"
LABEL_ROLE = "layercast.dev/role"
LABEL_REVISION = "layercast.dev/revision"
LABEL_SERVES = "layercast.dev/serves"  # on the public Service: the revision that it points to
MANAGED_SELECTOR = f"{LABEL_MANAGED_BY}={OPERATOR_NAME}"


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    name: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (f"{root}{scope}/{self.plural}", name, subresource) if part)


RESOURCE = Kind(GROUP, VERSION, "DisaggregatedLLM", "disaggregatedllms")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
SECRET = Kind("", "v1", "Secret", "secrets")
SERVICE = Kind("", "v1", "Service", "services")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
REVISION_RECORD = Kind("apps", "v1", "ControllerRevision", "controllerrevisions")

# In the order in which they are applied: what pods need comes before the pods.
CHILD_KINDS = (SERVICE_ACCOUNT, SECRET, REVISION_RECORD, SERVICE, DEPLOYMENT)
