"""The harness itself, without engines: a wrong harness proves anything."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.client import Answer, Reply
from tests.engines.compare import TOLERANCE, difference, differences
from tests.engines.env import ROOT
from tests.engines.metrics import parse
from tests.engines.process import Process
from tests.engines.prompts import BLOCK, LONGEST, make_plan
from tests.engines.wait import WaitTimeout, until
from tests.ports import free_ports

ANSWER = Answer((5, 6), (-1.0, -2.0), "ab", "length")
REPLY = Reply((ANSWER,), prompt_tokens=7, cached_tokens=0, transfer={})
TWO_SLEEPERS = ["sh", "-c", "sleep 1000 & sleep 1000"]


def moved(by: float) -> Reply:
    return replace(REPLY, answers=(replace(ANSWER, logprobs=(-1.0, -2.0 + by)),))


def members(group: int) -> list[int]:
    """The live processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize(
    ("got", "differs"),
    [
        pytest.param(moved(0), False, id="the same"),
        pytest.param(moved(TOLERANCE / 2), False, id="noise"),
        pytest.param(moved(2 * TOLERANCE), True, id="a log-probability too far away"),
        pytest.param(moved(math.nan), True, id="not a number"),
        pytest.param(replace(REPLY, answers=(replace(ANSWER, token_ids=(5, 7)),)), True, id="another token"),
        pytest.param(replace(REPLY, answers=(ANSWER, ANSWER)), True, id="one choice more"),
        pytest.param(replace(REPLY, answers=(replace(ANSWER, logprobs=()),)), True, id="no log-probabilities"),
    ],
)
def test_compare_notices(got: Reply, differs: bool) -> None:
    assert bool(differences([("case", REPLY, got)])) is differs
    assert (difference("case", REPLY, got).worst > TOLERANCE) is differs


def test_metrics_are_summed_over_labels_and_subtracted() -> None:
    first = parse('# TYPE a counter\na_total{engine="0",reason="x"} 1\na_total{engine="0",reason="y"} 2\n')
    second = parse('# TYPE a counter\na_total{engine="0",reason="x"} 4\na_total{engine="1",reason="x"} 1\n')
    assert (first.total("a_total"), first.total("a_total", reason="y"), first.total("b_total")) == (3, 2, 0)
    assert second.since(first).by("a_total", "reason") == {"x": 4}


def test_the_plan_has_200_prompts_and_is_the_same_every_time() -> None:
    plan = make_plan("salt")
    assert plan == make_plan("salt")
    lengths = [len(case.ask.prompt) for case in plan.cases()]
    assert (len(lengths), min(lengths), max(lengths)) == (200, 1, LONGEST)
    assert {length % BLOCK for length in lengths} == set(range(BLOCK))
    for case in plan.cases():
        assert case.decode_cached % BLOCK == case.prefill_cached % BLOCK == 0
        assert case.decode_cached < len(case.ask.prompt)


def test_consecutive_ports_are_free() -> None:
    assert free_ports(3) != free_ports(3)


def test_a_killed_owner_leaves_no_process_behind(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.engines.process import Process\n"
        f"process = Process({TWO_SLEEPERS!r}, env=dict(os.environ), log=Path({str(tmp_path / 'log')!r}))\n"
        "print(process.group, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        group = int(owner.stdout.readline())
        until("both run", lambda: len(members(group)) >= 2, within=10)
        owner.kill()
    until("all are gone", lambda: not members(group), within=10)


def test_kill_and_stop_end_the_whole_group_even_when_it_is_paused(tmp_path: Path) -> None:
    for end in (Process.kill, Process.stop):
        process = Process(TWO_SLEEPERS, env=dict(os.environ), log=tmp_path / "log")
        until("both run", lambda group=process.group: len(members(group)) >= 2, within=10)  # type: ignore[misc]
        if end is Process.kill:
            process.pause()
        end(process)
        assert not members(process.group)
        assert not process.running()


def test_a_command_that_ends_takes_its_children_along(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "sleep 1000 & echo bye"], env=dict(os.environ), log=tmp_path / "log")
    until("it ended", lambda: not process.running(), within=10)
    assert (members(process.group), process.returncode(), process.log_tail()) == ([], 0, "bye")


def test_a_command_that_is_not_there_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-command"):
        Process(["no-such-command"], env=dict(os.environ), log=tmp_path / "log")


def test_waiting_is_bounded() -> None:
    with pytest.raises(WaitTimeout, match="pigs fly"):
        until("pigs fly", lambda: False, within=0.01, interval=0.001)


def test_pausing_stops_and_resuming_continues(tmp_path: Path) -> None:
    process = Process(["sleep", "1000"], env=dict(os.environ), log=tmp_path / "log")
    state = Path(f"/proc/{process.group}/stat")
    process.pause()
    until("it is stopped", lambda: state.read_text().rpartition(")")[2].split()[0] == "T", within=10)
    process.resume()
    until("it goes on", lambda: state.read_text().rpartition(")")[2].split()[0] == "S", within=10)
    os.killpg(process.group, signal.SIGKILL)
    until("the guard noticed", lambda: not process.running(), within=10)
    process.kill()
