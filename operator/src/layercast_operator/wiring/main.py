"""The process: puts the parts together, runs them, and ends when any of them does.

Restarting is the answer to everything that can't be mended here (a lost lease, a watch that kopf gives
up): it is cheap, and serving pods don't notice.
"""

import argparse
import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import kopf
from kubernetes.aio import config as client_config
from kubernetes.aio.client import ApiClient, Configuration

from layercast_operator.api.kinds import OPERATOR_NAME
from layercast_operator.api.observed import Key
from layercast_operator.engine.apply import Api
from layercast_operator.engine.lease import LeadershipLost, Lease
from layercast_operator.engine.metrics import Metrics
from layercast_operator.engine.queue import WorkQueue
from layercast_operator.engine.reconcile import Reconciler
from layercast_operator.engine.store import Store
from layercast_operator.engine.sweep import Sweeper
from layercast_operator.engine.workers import Workers
from layercast_operator.wiring import handlers, http
from layercast_operator.wiring.config import BadConfig, Config, lease_settings, load_config, read_root_secret
from layercast_operator.wiring.logs import set_up_logs

_log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="layercast-operator", description="Operator of DisaggregatedLLM resources.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file; see docs/operator.md")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(arguments.config)
        root_secret = read_root_secret(config)
    except BadConfig as error:
        sys.exit(f"layercast-operator: {error}")
    set_up_logs(config.log_level)
    try:
        asyncio.run(run(config, root_secret))
    except* LeadershipLost as lost:
        _log.error("ending: %s", lost.exceptions[0])
        sys.exit(1)
    except* Exception as failed:
        for each in failed.exceptions:
            _log.critical("ending after an error", exc_info=each)
        sys.exit(1)


@dataclass(frozen=True)
class Parts:
    """Everything that runs in the process."""

    metrics: Metrics
    queue: WorkQueue[Key]
    store: Store
    sweeper: Sweeper
    workers: Workers
    lease: Lease


def assemble(config: Config, root_secret: bytes, client: ApiClient) -> Parts:
    metrics, queue, store = Metrics(), WorkQueue[Key](), Store()
    api = Api(client, metrics, config.call_timeout_seconds)
    reconciler = Reconciler(api, store, config.platforms, root_secret, lambda: datetime.now(UTC))
    return Parts(
        metrics=metrics,
        queue=queue,
        store=store,
        sweeper=Sweeper(api, store, queue, config.namespaces, metrics, config.resync_seconds),
        workers=Workers(queue, reconciler, metrics, config.workers),
        lease=Lease(client, lease_settings(config)),
    )


async def run(config: Config, root_secret: bytes) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await _client())
        parts = assemble(config, root_secret, client)
        stack.push_async_callback(parts.lease.release)
        leading = asyncio.Event()
        server = await http.serve(http.application(parts.metrics, parts.queue, leading), config.http)
        stack.push_async_callback(server.cleanup)
        await parts.sweeper.prime()
        await _run_until_the_first_ends(parts, config, leading)


async def _run_until_the_first_ends(parts: Parts, config: Config, leading: asyncio.Event) -> None:
    # At its end kopf waits for every task that was made after its start, so it is started last.
    async with asyncio.TaskGroup() as group:
        others = [
            group.create_task(parts.lease.run(leading), name="lease"),
            group.create_task(parts.sweeper.run(), name="sweeper"),
            *parts.workers.start(group, leading),
        ]
        await _watch(parts, config)
        for task in others:
            task.cancel()


async def _watch(parts: Parts, config: Config) -> None:
    namespaced = bool(config.namespaces)
    await kopf.operator(
        registry=handlers.registry(parts.store, parts.queue, parts.sweeper),
        settings=handlers.settings(namespaced),
        clusterwide=not namespaced,
        namespaces=config.namespaces,
    )


async def _client() -> ApiClient:
    configuration = Configuration()
    configuration.retries = False  # retries are the queue's
    try:
        client_config.load_incluster_config(configuration)
    except client_config.ConfigException:
        await client_config.load_kube_config(client_configuration=configuration, persist_config=False)
    client = ApiClient(configuration)
    client.user_agent = OPERATOR_NAME
    return client


if __name__ == "__main__":
    main()
