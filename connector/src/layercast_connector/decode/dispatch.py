"""Sends prompts to prefill pods: one asyncio loop in one thread, however many are under way.

The HTTP answer itself is worthless here (the KV comes by another way); what counts is whether it came, failed, or
must be cut off because the request is gone. Outcomes are collected for the scheduler half to take.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from layercast_connector.decode.pods import PodTable, Poller

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One prompt for one pod. `body` is the JSON of the completion request."""

    attempt: bytes
    pod: str
    url: str
    prompt_tokens: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """How a call ended: `error` is None if prefill answered."""

    attempt: bytes
    error: str | None


class Dispatcher:
    """Runs the poller and the calls.

    Args:
        table: pods are given back here when their call ends.
        poller: runs as long as this does.
        connect_timeout: seconds to reach a pod.
        api_key: bearer token of the prefill pods' API, or empty.
    """

    def __init__(self, table: PodTable, poller: Poller, connect_timeout: float, api_key: str = "") -> None:
        self._table = table
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._calls: dict[bytes, concurrent.futures.Future[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="layercast-dispatch", daemon=True)
        self._thread.start()
        self._polling = self._submit(poller.run())

    def send(self, call: Call) -> None:
        """Starts a call; its answer comes from `take_answers`."""
        with self._lock:  # the call's own end waits for this lock, so it can't be forgotten before it is known
            self._calls[call.attempt] = self._submit(self._run(call))

    def cut(self, attempt: bytes) -> None:
        """Closes the connection of a call that is still under way, which makes prefill abort the request."""
        with self._lock:
            future = self._calls.pop(attempt, None)
        if future is not None:
            future.cancel()

    def take_answers(self) -> list[Answer]:
        """Calls that ended since the last time."""
        with self._lock:
            answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        """Cuts all calls and ends the thread."""
        self._submit(self._shutdown()).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _run(self, call: Call) -> None:
        error: str | None = "cancelled"
        unreachable = False
        try:
            error = await self._post(call)
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            error, unreachable = "unreachable", True
            logger.warning("Prefill pod %s didn't take a prompt: %s", call.pod, failure or type(failure).__name__)
        finally:
            self._table.give_back(call.pod, call.prompt_tokens, unreachable=unreachable)
            with self._lock:
                self._answers.append(Answer(call.attempt, error))
                self._calls.pop(call.attempt, None)

    async def _post(self, call: Call) -> str | None:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, headers=self._headers)
        headers = {"Content-Type": "application/json"}
        async with self._session.post(call.url, data=msgspec.json.encode(call.body), headers=headers) as response:
            if response.status == 200:
                await response.read()
                return None
            text = (await response.text())[:300]
        logger.warning("Prefill pod %s answered %d: %s", call.pod, response.status, text)
        return f"http_{response.status}"

    async def _shutdown(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
