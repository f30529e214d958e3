"""What a user sees: answers over pushed KV, that survive the loss of a prefill pod and of the operator."""

import asyncio
import json
import secrets
from contextlib import suppress

import pytest

from examples.demo.ask import Counters, added, await_remote, prompt_of, serve
from examples.demo.cluster import SYSTEM_NAMESPACE
from examples.demo.resource import Resource
from tests.cluster import wait
from tests.engines.client import Ask, Client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
OPERATOR = "deploy/layercast-operator"


def _ask(tokens: int = 300) -> Ask:
    return Ask(prompt_of(tokens), secrets.token_hex(8), max_tokens=4)


async def test_a_prompt_is_answered_over_kv_that_another_node_pushed(resource: Resource, public: str) -> None:
    nodes = {role: resource.pods(role)[0]["spec"]["nodeName"] for role in ("prefill", "decode")}
    assert nodes["prefill"] != nodes["decode"]
    prefill_pod = f"pod/{resource.pod_name('prefill')}"
    with resource.place.address(resource.namespace, prefill_pod, 8000) as prefill:
        for kind, tokens in (("completion", 700), ("streaming", 3000)):
            served = await serve(resource, public, prefill, kind, _ask(tokens))
            assert served.remote
            assert served.layers == 8
            assert served.bytes_pushed > 0
            assert served.same_as_local


async def test_answers_keep_coming_while_the_prefill_pod_is_replaced(resource: Resource, public: str) -> None:
    kubectl = resource.place.kubectl
    old = resource.pod_name("prefill")
    stop = asyncio.Event()

    async def keep_asking(client: Client) -> int:
        answered = 0
        while not stop.is_set():
            reply = await client.ask(_ask())
            assert len(reply.answers[0].token_ids) == 4
            answered += 1
        return answered

    async with Client(public) as client:
        asking = asyncio.create_task(keep_asking(client))
        await asyncio.to_thread(kubectl, "delete", "pod", old, "-n", resource.namespace, timeout_s=180)
        await asyncio.to_thread(resource.await_ready)
        stop.set()
        assert await asking > 0
    await await_remote(resource, public)
    assert resource.pod_name("prefill") != old


async def test_serving_goes_on_without_the_operator(resource: Resource, public: str) -> None:
    kubectl = resource.place.kubectl
    kubectl("scale", OPERATOR, "-n", SYSTEM_NAMESPACE, "--replicas=0")
    kubectl("rollout", "status", OPERATOR, "-n", SYSTEM_NAMESPACE, "--timeout=60s")
    try:
        before = Counters.now(resource)
        async with Client(public) as client:
            await client.ask_all([_ask() for _ in range(8)], at_once=4)
        assert added(resource, before).remote == 8
    finally:
        kubectl("scale", OPERATOR, "-n", SYSTEM_NAMESPACE, "--replicas=1")
        kubectl("rollout", "status", OPERATOR, "-n", SYSTEM_NAMESPACE, "--timeout=120s", timeout_s=130)
    assert resource.condition("Ready")[0] == "True"


def test_a_deleted_resource_leaves_nothing(resource: Resource) -> None:
    kubectl = resource.place.kubectl
    kubectl("delete", "dllm", resource.name, "-n", resource.namespace, timeout_s=60)
    kinds = "deployments,replicasets,pods,services,endpointslices,serviceaccounts,secrets,configmaps"
    own = ("-l", f"layercast.dev/resource={resource.name}", "-n", resource.namespace)

    def gone() -> bool:
        with suppress(json.JSONDecodeError):
            return not json.loads(kubectl("get", kinds, *own, "-o", "json"))["items"]
        return False

    wait.until("the children are gone", gone, timeout_s=180, blame=lambda: kubectl("get", kinds, *own))
    kubectl("delete", "namespace", resource.namespace, "--timeout=120s", timeout_s=130)
