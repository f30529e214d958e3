"""`make demo`: from nothing to answered prompts, with the proof that their KV was streamed."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from examples.demo.ask import Served, await_remote, chat_of, prompt_of, serve
from examples.demo.cluster import ROOT, Place, load_images, open_place
from examples.demo.resource import Resource
from tests.cluster.errors import ClusterError
from tests.engines.client import Ask, AskChat

NAMESPACE, NAME, PORT = "layercast-demo", "tiny", 8000
MANIFEST = ROOT / "examples" / "tiny-cpu.yaml"
_times: list[tuple[str, float]] = []


@contextmanager
def step(name: str) -> Iterator[None]:
    """Says what happens and how long it took."""
    print(f"\n=== {name}", flush=True)
    start = time.monotonic()
    yield
    _times.append((name, time.monotonic() - start))
    print(f"    {_times[-1][1]:.1f} s", flush=True)


def prepare(place: Place) -> Resource:
    """Images, chart, resource, Ready."""
    with step("Images: build what changed, load it"):
        digests = load_images(place)
    with step("helm install layercast charts/layercast"):
        place.install_chart(f"podAnnotations.image={digests['operator']}")
    resource = Resource(place, NAMESPACE, NAME)
    with step("kubectl apply -f examples/tiny-cpu.yaml, and wait until Ready"):
        resource.apply(MANIFEST)
        resource.use_image(digests["engine-cpu"])
        resource.await_ready(lambda line: print(f"    {line}", flush=True))
    return resource


async def ask_all(resource: Resource) -> list[Served]:
    """Prompts of 40, 700 and 3,000 tokens, as completion, chat and stream."""
    place = resource.place
    prefill_pod = f"pod/{resource.pod_name('prefill')}"
    with (
        place.address(NAMESPACE, f"svc/{NAME}", PORT) as public,
        place.address(NAMESPACE, prefill_pod, 8000) as prefill,
    ):
        await await_remote(resource, public)
        asks: list[tuple[str, Ask | AskChat]] = [
            ("completion", Ask(prompt_of(40), secrets.token_hex(8), max_tokens=8)),
            ("chat", AskChat(chat_of(600), secrets.token_hex(8), max_tokens=8)),
            ("completion", Ask(prompt_of(700), secrets.token_hex(8), max_tokens=8)),
            ("streaming", Ask(prompt_of(3000), secrets.token_hex(8), max_tokens=8)),
        ]
        return [await serve(resource, public, prefill, kind, ask) for kind, ask in asks]


def show(served: list[Served]) -> None:
    """A line of evidence and the answer, per prompt."""
    for one in served:
        answer = one.reply.answers[0]
        where = "prefill pod" if one.remote else "decode pod"
        print(f"  {one.kind}, {one.reply.prompt_tokens} prompt tokens, prefilled on the {where}")
        print(f"    TTFT {one.ttft * 1000:.0f} ms; pushed {one.layers} layers, {one.bytes_pushed:,} bytes; "
              f"exposed after the last layer {one.exposed * 1000:.2f} ms")  # fmt: skip
        print(f"    tokens equal to a local prefill: {'yes' if one.same_as_local else 'NO'}; answer: {answer.text!r}")


def verdict(served: list[Served]) -> list[str]:
    """What is wrong with the answers, if anything."""
    wrong = [f"{one.kind} of {one.reply.prompt_tokens} tokens differs" for one in served if not one.same_as_local]
    return wrong + [
        f"{one.kind} of {one.reply.prompt_tokens} tokens was not prefilled remotely"
        for one in served
        if not (one.remote and one.layers and one.bytes_pushed)
    ]


def next_commands(place: Place) -> None:
    """What to try now."""
    config = "" if not place.local else "export KUBECONFIG=$(.venv/bin/python -m tests.cluster kubeconfig)\n  "
    print(f"""
Try next:
  {config}kubectl get dllm -n {NAMESPACE}
  kubectl describe dllm {NAME} -n {NAMESPACE}
  kubectl -n {NAMESPACE} port-forward svc/{NAME} 8080:{PORT} &
  curl localhost:8080/v1/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{NAME}", "prompt": "Once upon a time", "max_tokens": 16}}'
  make demo-down""")


def _ask_or_explain(resource: Resource) -> list[Served]:
    try:
        return asyncio.run(ask_all(resource))
    except (httpx.HTTPError, RuntimeError) as error:
        raise ClusterError(f"a prompt was not answered: {error!r}\n{resource.reasons()}") from error


def main() -> int:
    argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__).parse_args()
    start = time.monotonic()
    try:
        with step("A Kubernetes cluster"):
            place = open_place()
        resource = prepare(place)
        with step("Prompts through the public Service"):
            served = _ask_or_explain(resource)
            show(served)
    except ClusterError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    wrong = verdict(served)
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    print(
        "\nWhere the time went: "
        + ", ".join(f"{name.split(':')[0].split(',')[0]} {took:.0f} s" for name, took in _times)
    )
    print(f"Total {time.monotonic() - start:.0f} s")
    next_commands(place)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
