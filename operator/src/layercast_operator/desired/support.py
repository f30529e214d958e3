"""What the pods need beside themselves: an identity without rights, and the connector's secret."""

import base64
import hashlib
import hmac

from layercast_operator.api.kinds import SECRET, SERVICE_ACCOUNT
from layercast_operator.api.observed import Manifest
from layercast_operator.desired.engine import SECRET_KEY
from layercast_operator.desired.names import Names


def service_account(names: Names) -> Manifest:
    """Engine pods ask the API for nothing: no token, no role."""
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.name,
        "metadata": {"name": names.account, "labels": names.labels()},
        "automountServiceAccountToken": False,
    }


def derive_secret(root: bytes, uid: str) -> str:
    """The connector secret of one resource. Derived, so that nothing has to be read back to keep it stable."""
    return hmac.new(root, f"layercast connector {uid}".encode(), hashlib.sha256).hexdigest()


def connector_secret(names: Names, value: str) -> Manifest:
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.name,
        "metadata": {"name": names.secret, "labels": names.labels()},
        "type": "Opaque",
        "data": {SECRET_KEY: base64.b64encode(value.encode()).decode()},
    }
