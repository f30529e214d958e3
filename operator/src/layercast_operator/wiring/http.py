"""Health and metrics over HTTP. Answers as long as the event loop turns; anything worse ends the process."""

import asyncio

from aiohttp import web

from layercast_operator.api.observed import Key
from layercast_operator.engine.metrics import Metrics
from layercast_operator.engine.queue import WorkQueue
from layercast_operator.wiring.config import Http


def application(metrics: Metrics, queue: WorkQueue[Key], leading: asyncio.Event) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def render(_: web.Request) -> web.Response:
        metrics.queue_depth.set(len(queue))
        metrics.leader.set(leading.is_set())
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", render)])
    return app


async def serve(app: web.Application, settings: Http) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, settings.host or None, settings.port).start()
    return runner
