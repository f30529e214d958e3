"""The dispatcher against a real HTTP server: many calls, one thread, and every way in which one can end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from layercast_connector.decode.dispatch import Answer, Call, Dispatcher
from layercast_connector.decode.pods import PodTable
from layercast_connector.protocol import messages as m
from layercast_connector.settings import PodAddress

from tests.connector.component.rig import until

pytestmark = pytest.mark.timeout(60)
POD = PodAddress("127.0.0.1", 8000, 36000)
NAME = "127.0.0.1:8000"
TOKENS = list(range(10))


class Server:
    """A prefill pod's API. `answer` decides on each request; `gone` counts connections that clients closed."""

    def __init__(self, answer: Callable[[web.Request], Any]) -> None:
        self._answer = answer
        self.seen: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.gone = 0
        self.release: asyncio.Event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=20)

    async def _start(self) -> str:
        self.release = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/completions", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/completions"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers)
        self.seen.append(await request.json())
        try:
            response: web.StreamResponse = await self._answer(request)
            return response
        except asyncio.CancelledError:
            self.gone += 1
            raise

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self.release.set)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=20)
        self._loop.close()


class NoPoller:
    """Instead of the poller: the table is the test's."""

    async def run(self) -> None:
        await asyncio.Event().wait()


class Desk:
    """A dispatcher, the table that it gives prompts back to, and the answers so far."""

    def __init__(self, api_key: str = "", connect_timeout: float = 10.0) -> None:
        self.table = PodTable("key")
        self.table.set_addresses([POD])
        self.table.answered(NAME, m.Status(m.PROTOCOL_VERSION, "pod", "key", 0, False))
        self.dispatcher = Dispatcher(self.table, NoPoller(), connect_timeout, api_key)  # type: ignore[arg-type]
        self.answers: list[Answer] = []

    def send(self, url: str, number: int = 0) -> bytes:
        attempt = number.to_bytes(16, "big")
        assert self.table.take(TOKENS) is not None
        self.dispatcher.send(Call(attempt, NAME, url, len(TOKENS), {"prompt": TOKENS, "number": number}))
        return attempt

    def outstanding(self) -> int:
        return self.table._pods[NAME].sent_tokens

    def wait_for(self, answers: int) -> list[str | None]:
        def all_here() -> bool:
            self.answers += self.dispatcher.take_answers()
            return len(self.answers) >= answers

        until(all_here, f"{answers} answers")
        return [answer.error for answer in self.answers]


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.dispatcher.close()


async def ok(_request: web.Request) -> web.Response:
    return web.json_response({"choices": []})


async def broken(_request: web.Request) -> web.Response:
    return web.Response(status=503, text="overloaded")


async def hangs(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def drops(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.fixture
def serve(closing: Callable[[Any], Any]) -> Callable[..., Server]:
    return lambda answer: closing(Server(answer))


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        pytest.param(ok, None, id="an answer"),
        pytest.param(broken, "http_503", id="an error"),
        pytest.param(drops, "unreachable", id="a connection that ends in mid-air"),
    ],
)
def test_a_call_ends_as_the_pod_ends_it(
    desk: Desk, serve: Callable[..., Server], behaviour: Any, error: str | None
) -> None:
    desk.send(serve(behaviour).url)
    assert desk.wait_for(1) == [error]
    assert desk.outstanding() == 0
    assert desk.table.any_ready() is (error != "unreachable")


def test_a_pod_that_refuses_connections_is_skipped_until_it_answers_a_poll(desk: Desk) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        desk.send(f"http://127.0.0.1:{unused.getsockname()[1]}/v1/completions")
        assert desk.wait_for(1) == ["unreachable"]
    assert not desk.table.any_ready()
    desk.table.answered(NAME, m.Status(m.PROTOCOL_VERSION, "pod", "key", 0, False))
    assert desk.table.any_ready()


def test_a_pod_that_hangs_on_connect_is_given_up() -> None:
    """A listener whose queue is full takes no connection and refuses none."""
    desk = Desk(connect_timeout=0.3)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        desk.send(f"http://127.0.0.1:{full.getsockname()[1]}/v1/completions")
        assert desk.wait_for(1) == ["unreachable"]
    desk.dispatcher.close()


def test_sixty_four_calls_are_under_way_at_once_on_one_thread(serve: Callable[..., Server]) -> None:
    async def wait(_request: web.Request) -> web.Response:
        await server.release.wait()
        return web.json_response({})

    server = serve(wait)
    before = threading.active_count()
    desk = Desk()
    for number in range(64):
        desk.send(server.url, number)
    until(lambda: len(server.seen) == 64, "all calls are with the pod")
    assert threading.active_count() == before + 1
    assert desk.outstanding() == 64 * len(TOKENS)
    server.let_go()
    assert desk.wait_for(64) == [None] * 64
    assert {answer.attempt for answer in desk.answers} == {number.to_bytes(16, "big") for number in range(64)}
    assert desk.outstanding() == 0
    desk.dispatcher.close()


def test_a_cut_closes_the_connection_and_the_tokens_come_back(desk: Desk, serve: Callable[..., Server]) -> None:
    server = serve(hangs)
    attempt = desk.send(server.url)
    until(lambda: server.seen, "the call is with the pod")
    desk.dispatcher.cut(attempt)
    until(lambda: server.gone == 1, "the pod sees the connection close")
    until(lambda: desk.outstanding() == 0, "the tokens come back")


def test_a_cut_before_the_call_has_begun_gives_the_tokens_back(desk: Desk, serve: Callable[..., Server]) -> None:
    server = serve(ok)
    busy, go = threading.Event(), threading.Event()
    desk.dispatcher._loop.call_soon_threadsafe(lambda: (busy.set(), go.wait(20)))
    assert busy.wait(timeout=20)
    desk.dispatcher.cut(desk.send(server.url))
    go.set()
    until(lambda: desk.outstanding() == 0, "the tokens come back")
    assert not server.seen


def test_a_cut_of_an_ended_or_unknown_call_is_nothing(desk: Desk, serve: Callable[..., Server]) -> None:
    attempt = desk.send(serve(ok).url)
    assert desk.wait_for(1) == [None]
    desk.dispatcher.cut(attempt)
    desk.dispatcher.cut(b"unknown".ljust(16))
    assert desk.dispatcher.take_answers() == []


def test_what_is_sent_is_the_body_with_the_key(serve: Callable[..., Server]) -> None:
    server = serve(ok)
    desk = Desk(api_key="topsecret")
    desk.send(server.url, 7)
    assert desk.wait_for(1) == [None]
    assert server.seen == [{"prompt": TOKENS, "number": 7}]
    assert server.headers[0]["Authorization"] == "Bearer topsecret"
    desk.dispatcher.close()


def test_closing_cuts_what_is_under_way_and_ends_the_thread(serve: Callable[..., Server]) -> None:
    server = serve(hangs)
    before = set(threading.enumerate())
    desk = Desk()
    desk.send(server.url)
    until(lambda: server.seen, "the call is with the pod")
    desk.dispatcher.close()
    until(lambda: server.gone == 1, "the pod sees the connection close")
    assert set(threading.enumerate()) <= before
