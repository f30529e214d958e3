"""Decode's scheduler half: which prompts go to a prefill pod, and what became of each.

One attempt per request, ever: what failed once, or was preempted, is prefilled here. That keeps
`get_num_new_matched_tokens` free of side effects, and a second completion of one request impossible.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Any

from layercast_connector import metrics
from layercast_connector.decode.dispatch import Call, Dispatcher
from layercast_connector.decode.eligibility import describe, local_reason
from layercast_connector.decode.pods import PodTable
from layercast_connector.decode.steps import DecodeStep, Receive, Stop
from layercast_connector.plan.chunks import blocks_for
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import Codec, seal_text
from layercast_connector.settings import PodAddress, Settings, url_host

logger = logging.getLogger(__name__)


@dataclass
class _Remote:
    attempt: bytes
    pod: str
    done: bool = False
    failed: bool = False
    report: m.Report | None = None


@dataclass(frozen=True)
class EngineFacts:
    """What a prefill request says about this engine."""

    served_model: str
    block_size: int
    compatibility: str


class DecodeScheduler:
    """See the module. Called by vLLM's scheduler only, in its thread."""

    def __init__(
        self,
        settings: Settings,
        facts: EngineFacts,
        table: PodTable,
        dispatcher: Dispatcher,
        codec: Codec[Any],
        tally: metrics.Tally,
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._table = table
        self._dispatcher = dispatcher
        self._codec = codec
        self._tally = tally
        self._remote: dict[str, _Remote] = {}
        self._requests_of: dict[bytes, str] = {}
        self._local_reason: dict[str, str] = {}
        self._step = DecodeStep()
        self._outage = False
        self.workers: list[m.Worker] = []
        """By rank; known once vLLM has collected the workers' handshake metadata."""

    def matched_tokens(self, request: Any, computed_tokens: int) -> int:
        """How many prompt tokens a prefill pod would supply beyond those cached here; 0 to prefill here."""
        reason = self._why_local(request, computed_tokens)
        if reason is None:
            self._local_reason.pop(request.request_id, None)
            return int(request.num_prompt_tokens) - computed_tokens
        if request.request_id not in self._remote:
            self._local_reason[request.request_id] = reason
        return 0

    def allocated(self, request: Any, block_ids: list[int], external_tokens: int) -> None:
        """vLLM allocated blocks. With `external_tokens` they wait for remote KV; the prompt is sent now."""
        if external_tokens == 0:
            reason = self._local_reason.pop(request.request_id, None)
            if reason is not None:
                self._tally.count(metrics.LOCAL, reason)
                self._note_outage(reason == "no_prefill_pod")
            return
        attempt = secrets.token_bytes(16)
        first = (request.num_prompt_tokens - external_tokens) // self._facts.block_size
        stop = blocks_for(request.num_prompt_tokens, self._facts.block_size)
        blocks = block_ids[first:stop]  # counted from the front: lookahead blocks lie behind
        self._step.receive.append(Receive(request.request_id, attempt, blocks))
        self._requests_of[attempt] = request.request_id
        pod = self._table.take(request.prompt_token_ids)
        self._remote[request.request_id] = _Remote(attempt, pod[0] if pod else "")
        if pod is None:
            self._step.stop.append(Stop(attempt, "no_prefill_pod", aborted=False))
            return
        self._note_outage(False)
        self._dispatcher.send(self._call(request, attempt, pod[0], pod[1], first, len(blocks)))

    def build_step(self) -> DecodeStep:
        """The news for the workers since the last step."""
        for answer in self._dispatcher.take_answers():
            req_id = self._requests_of.get(answer.attempt)
            if req_id is None:
                continue
            if answer.error is None:
                self._step.answered.append(answer.attempt)
            else:
                self._step.stop.append(Stop(answer.attempt, answer.error, aborted=False))
        step, self._step = self._step, DecodeStep()
        return step

    def heard(self, finished: set[str], reports: dict[str, m.Report], failures: dict[str, str]) -> None:
        """The workers' outcome of a step; `finished` once every rank has finished a request."""
        for req_id, reason in failures.items():
            remote = self._remote.get(req_id)
            if remote is not None and not remote.failed:
                remote.failed = True
                self._count_failure(req_id, reason)
                if req_id not in finished:  # other ranks still wait for bytes that nobody needs any more
                    self._step.stop.append(Stop(remote.attempt, reason, aborted=False))
                    self._dispatcher.cut(remote.attempt)
        for req_id, report in reports.items():
            if req_id in self._remote:
                self._remote[req_id].report = report
        for req_id in finished:
            remote = self._remote.get(req_id)
            if remote is not None and not remote.done:
                self._finish(remote, failed=remote.failed or remote.report is None)

    def finished(self, request: Any) -> dict[str, Any] | None:
        """The request is over, for whatever reason. Returns what to tell the client, if that is wanted."""
        self._local_reason.pop(request.request_id, None)
        remote = self._remote.pop(request.request_id, None)
        if remote is None:
            return {m.PARAMS_KEY: {"remote": False}} if self._settings.report_in_response else None
        if not remote.done:
            self._step.stop.append(Stop(remote.attempt, "aborted", aborted=True))
            self._finish(remote, failed=True)
        return self._response(remote) if self._settings.report_in_response else None

    def close(self) -> None:
        """Cuts all calls."""
        self._dispatcher.close()

    def _note_outage(self, without_pods: bool) -> None:
        """Logs the first prompt that found no prefill pod, and the first that found one again."""
        if without_pods and not self._outage:
            logger.warning("No prefill pod can be used; prompts are prefilled here until one answers")
        elif self._outage and not without_pods:
            logger.info("Prefill pods can be used again")
        self._outage = without_pods

    def _count_failure(self, req_id: str, reason: str) -> None:
        policy = self._settings.on_prefill_failure
        self._tally.count(metrics.FAILED, reason)
        if policy == "recompute":
            self._tally.count(metrics.LOCAL, "failed_once")
        logger.warning("Remote prefill of %s failed (%s); policy: %s", req_id, reason, policy)

    def _why_local(self, request: Any, computed_tokens: int) -> str | None:
        return local_reason(
            describe(
                request,
                computed_tokens,
                min_remote_tokens=self._settings.min_remote_tokens,
                attempted=request.request_id in self._remote,
                no_pod=not self._table.any_ready(),
            )
        )

    def _finish(self, remote: _Remote, *, failed: bool) -> None:
        remote.done = True
        self._requests_of.pop(remote.attempt, None)
        if failed:
            self._dispatcher.cut(remote.attempt)
        else:
            self._tally.count(metrics.REMOTE)

    def _call(self, request: Any, attempt: bytes, pod: str, address: PodAddress, first: int, blocks: int) -> Call:
        facts = self._facts
        message = m.PrefillRequest(
            attempt,
            facts.compatibility,
            self.workers,
            first,
            blocks,
            request.num_prompt_tokens,
        )
        body: dict[str, Any] = {
            "model": facts.served_model,
            "prompt": list(request.prompt_token_ids),
            "max_tokens": 1,
            "temperature": 0,
            "kv_transfer_params": {m.PARAMS_KEY: seal_text(self._codec, message)},
        }
        if request.cache_salt:
            body["cache_salt"] = request.cache_salt
        url = f"http://{url_host(address.host)}:{address.api_port}/v1/completions"
        return Call(attempt, pod, url, request.num_prompt_tokens, body)

    def _response(self, remote: _Remote) -> dict[str, Any]:
        report = remote.report
        if report is None or remote.failed:
            return {m.PARAMS_KEY: {"remote": False, "pod": remote.pod}}
        return {
            m.PARAMS_KEY: {
                "remote": True,
                "pod": remote.pod,
                "layers": report.layers,
                "bytes": report.bytes_sent,
                "exposed_ms": report.exposed * 1000,
            }
        }
