"""The poller and the status port over real sockets: pods that come, go, drain, fall silent or are another model's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import zmq
import zmq.asyncio
from layercast_connector import metrics
from layercast_connector.control import ControlServer, DropLog
from layercast_connector.decode import pods as pods_module
from layercast_connector.decode.pods import PodTable, Poller
from layercast_connector.prefill.scheduler import Load
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import Codec
from layercast_connector.settings import PodAddress, PrefillPods

pytestmark = pytest.mark.timeout(60)
SECRET, KEY = b"shared", "key"
TOKENS = [1, 2, 3]


class Pod:
    """A prefill scheduler's status port."""

    def __init__(self, port: int = 0, key: str = KEY, host: str = "127.0.0.1", secret: bytes = SECRET) -> None:
        self.load = Load(key, "pod-incarnation")
        self._server = ControlServer(
            port, Codec[m.StatusRequest](secret, m.StatusRequest), self.load, DropLog(metrics.Tally())
        )
        self.address = PodAddress(host, 8000, self._server.port)

    def close(self) -> None:
        self._server.close()


class Desk:
    """A table and a poller over a list that the test changes."""

    def __init__(self) -> None:
        self.addresses: list[PodAddress] = []
        self.table = PodTable(KEY)
        self.tally = metrics.Tally()
        where = PrefillPods(static=self.addresses)
        self.poller = Poller(self.table, where, Codec[m.Status](SECRET, m.Status), DropLog(self.tally))
        self.polling = asyncio.get_running_loop().create_task(self.poller.run())

    def ready(self) -> bool:
        return self.table.any_ready()

    def outstanding(self, pod: Pod) -> int:
        known = self.table._pods.get(f"{pod.address.host}:{pod.address.api_port}")
        return known.status.outstanding_tokens if known is not None and known.status is not None else -1


async def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError(f"never came true: {what}")


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods_module, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(pods_module, "_SILENT_SECONDS", 0.5)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    made.polling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await made.polling


@pytest.fixture
def pod(closing: Callable[[Any], Any]) -> Pod:
    made: Pod = closing(Pod())
    return made


async def test_a_pod_that_comes_is_used_and_one_that_goes_is_not(desk: Desk, pod: Pod) -> None:
    assert not desk.ready()
    desk.addresses.append(pod.address)
    await until(desk.ready, "the pod is found")
    desk.addresses.clear()
    await until(lambda: not desk.ready(), "the pod is gone from the list")


async def test_a_pods_load_is_what_its_scheduler_has_before_it(desk: Desk, pod: Pod) -> None:
    desk.addresses.append(pod.address)
    pod.load.add("a", 100)
    pod.load.add("b", 20)
    await until(lambda: desk.outstanding(pod) == 120, "both prompts count")
    pod.load.remove("a")
    pod.load.remove("a")
    await until(lambda: desk.outstanding(pod) == 20, "one is over")


async def test_a_silent_pod_is_not_used_until_it_speaks_again(desk: Desk, pod: Pod) -> None:
    desk.addresses.append(pod.address)
    await until(desk.ready, "the pod is found")
    pod.close()
    await until(lambda: not desk.ready(), "its last answer is old")
    reborn = Pod(port=pod.address.control_port)
    await until(desk.ready, "it is back at the same address")
    reborn.close()


async def test_a_draining_pod_is_not_used(desk: Desk, pod: Pod) -> None:
    desk.addresses.append(pod.address)
    await until(desk.ready, "the pod is found")
    pod.load.draining = True
    await until(lambda: not desk.ready(), "it drains")


async def test_a_pod_of_another_model_is_not_used_and_named_once(
    desk: Desk, closing: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    other = closing(Pod(key="another key"))
    desk.addresses.append(other.address)
    await until(lambda: desk.outstanding(other) == 0, "it has answered")
    await until(lambda: desk.table._pods["127.0.0.1:8000"].seen > 0, "and again")
    assert not desk.ready()
    assert len([record for record in caplog.records if "[another key], we have [key]" in record.message]) == 1


async def test_a_pod_with_another_secret_is_never_used(desk: Desk, closing: Callable[[Any], Any]) -> None:
    other, good = closing(Pod(secret=b"other")), closing(Pod(host="localhost"))
    desk.addresses += [other.address, good.address]
    await until(desk.ready, "the good pod is found")
    assert desk.outstanding(other) == -1


async def test_an_address_that_cant_be_used_stops_nothing(desk: Desk, pod: Pod) -> None:
    desk.addresses += [PodAddress("not a host", 8000, 36000), pod.address]
    await until(desk.ready, "the other pod is found")
    assert not desk.polling.done()


async def test_an_answer_that_comes_too_late_is_not_taken_for_a_sign_of_life(desk: Desk) -> None:
    """A pod that was stopped and goes on answers all that it was asked: none of that is news."""
    context = zmq.asyncio.Context()
    pod = context.socket(zmq.ROUTER)
    pod.setsockopt(zmq.LINGER, 0)
    desk.addresses.append(PodAddress("127.0.0.1", 8000, pod.bind_to_random_port("tcp://127.0.0.1")))
    codec = Codec[m.StatusRequest](SECRET, m.StatusRequest)
    peers = [(await pod.recv_multipart())[0] for _ in range(4)]
    for peer in peers[:3]:
        await pod.send_multipart([peer, codec.seal(m.Status(m.PROTOCOL_VERSION, "i", KEY, 1, False))])
    await pod.recv_multipart()
    assert not desk.ready()
    pod.close()
    context.term()


@pytest.mark.parametrize("error", [socket.gaierror(), UnicodeError("label too long")], ids=["no answer", "no name"])
async def test_a_name_that_doesnt_resolve_for_a_moment_loses_no_pod(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = asyncio.Event()

    async def resolve(*_args: object, **_kwargs: object) -> list[Any]:
        if found.is_set():
            raise error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    table = PodTable(KEY)
    where = PrefillPods(dns="prefill", control_port=pod.address.control_port)
    poller = Poller(table, where, Codec[m.Status](SECRET, m.Status), DropLog(metrics.Tally()))
    polling = asyncio.get_running_loop().create_task(poller.run())
    await until(table.any_ready, "the pod is found by name")
    found.set()
    table.give_back("127.0.0.1:8000", 0, unreachable=True)
    await until(table.any_ready, "it is still asked, and answers")
    polling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await polling
