"""The operator's calls to the API: server-side apply, delete, status, lists.

The only module, beside the lease, that imports the Kubernetes client. Each call is bounded in time, and
every failure becomes one of three: try again later (`Unavailable`), the API refused what was sent
(`Rejected`), or the object is not what it was (`Changed`). It decides nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient

from layercast_operator.api.kinds import MANAGED_SELECTOR, OPERATOR_NAME, RESOURCE, Kind
from layercast_operator.api.observed import Manifest
from layercast_operator.engine.metrics import Metrics
from layercast_operator.engine.projection import ObjectId

_APPLY = "application/apply-patch+yaml"
_JSON = "application/json"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 500


class ApiFailure(Exception):
    """A call did not do what it was for."""


class Unavailable(ApiFailure):
    """The API did not answer in time, or asked to come back later."""


class Rejected(ApiFailure):
    """The API refuses this request, and will again: the message says why."""


class Changed(ApiFailure):
    """The object is gone, or another than the one that was meant."""


class Api:
    def __init__(self, client: ApiClient, metrics: Metrics, timeout_s: float = 10.0) -> None:
        self._client = client
        self._metrics = metrics
        self._timeout_s = timeout_s

    async def get(self, id: ObjectId) -> Manifest | None:
        try:
            return await self._call("GET", id.kind.path(id.namespace, id.name))
        except Changed:
            return None

    async def apply(self, id: ObjectId, manifest: Manifest) -> Manifest:
        """Server-side apply: takes what is in the manifest, leaves other managers' fields alone."""
        self._metrics.writes.labels("apply", id.kind.name).inc()
        return await self._call("PATCH", _apply_path(id), manifest, content_type=_APPLY)

    async def apply_status(self, id: ObjectId, uid: str, status: dict[str, Any]) -> Manifest:
        self._metrics.writes.labels("status", id.kind.name).inc()
        manifest = {
            "apiVersion": id.kind.api_version,
            "kind": id.kind.name,
            "metadata": {"name": id.name, "namespace": id.namespace, "uid": uid},
            "status": status,
        }
        return await self._call("PATCH", _apply_path(id, "status"), manifest, content_type=_APPLY)

    async def delete(self, id: ObjectId, uid: str) -> None:
        """Deletes this very object, never one that has taken its name since."""
        self._metrics.writes.labels("delete", id.kind.name).inc()
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", id.kind.path(id.namespace, id.name), options)
        except Changed:
            return  # somebody was faster

    async def objects(self, kind: Kind, namespace: str | None) -> AsyncIterator[Manifest]:
        """All objects of a kind that the operator looks at."""
        async for item in self._pages(kind, namespace, _JSON):
            yield item

    async def uids(self, kind: Kind, namespace: str | None) -> AsyncIterator[str]:
        """Their uids, from lists of metadata only."""
        async for item in self._pages(kind, namespace, _METADATA_LIST):
            yield item["metadata"]["uid"]

    async def _pages(self, kind: Kind, namespace: str | None, accept: str) -> AsyncIterator[Manifest]:
        query = {"limit": str(_PAGE)}
        if kind is not RESOURCE:
            query["labelSelector"] = MANAGED_SELECTOR
        while True:
            page = await self._call("GET", f"{kind.path(namespace)}?{urlencode(query)}", accept=accept)
            for item in page["items"] or []:  # null when there are none
                yield item
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def _call(
        self, method: str, path: str, body: Manifest | None = None, *, content_type: str = _JSON, accept: str = _JSON
    ) -> Manifest:
        headers = {"Accept": accept, "Content-Type": content_type}
        request = await self._client.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.call_api(*request, _request_timeout=self._timeout_s)
                text = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{method} {path}: {type(error).__name__} {error}") from error
        if 200 <= answer.status < 300:
            result: Manifest = json.loads(text)
            return result
        raise _failure(answer.status, _reason(text))


def _apply_path(id: ObjectId, subresource: str = "") -> str:
    query = urlencode({"fieldManager": OPERATOR_NAME, "force": "true"})
    return f"{id.kind.path(id.namespace, id.name, subresource)}?{query}"


def _failure(status: int, message: str) -> ApiFailure:
    if status in (404, 409):
        return Changed(message)
    if status == 429 or status >= 500 or status == 401:
        return Unavailable(f"{status}: {message}")
    return Rejected(message)


def _reason(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200].decode(errors="replace")
