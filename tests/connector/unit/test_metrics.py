"""Counts: from threads to snapshots, and snapshots to sums."""

from __future__ import annotations

import logging
import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layercast_connector import metrics
from layercast_connector.control import DropLog
from layercast_connector.protocol.envelope import BadMessage, Drop

COUNTS = st.dictionaries(st.sampled_from(["a|", "a|x", "b|"]), st.integers(0, 99))
SNAPSHOTS = st.builds(
    lambda counts, seen: counts | ({"h": seen} if seen else {}), COUNTS, st.lists(st.integers(0, 9), max_size=4)
)


def test_a_snapshot_holds_what_came_since_the_last() -> None:
    tally = metrics.Tally()
    tally.count(metrics.REMOTE)
    tally.count(metrics.LOCAL, "short", 2)
    tally.observe(metrics.EXPOSED, 0.5)
    first = tally.take()
    assert first == {
        "layercast_remote_prefills|": 1,
        "layercast_local_prefills|short": 2,
        "layercast_exposed_seconds": [0.5],
    }
    assert tally.take() == {}
    assert pickle.loads(pickle.dumps(first)) == first


@settings(deadline=None)
@given(SNAPSHOTS, SNAPSHOTS, SNAPSHOTS)
def test_ranks_add_up_in_any_order_and_stay_as_they_are(left: dict, middle: dict, right: dict) -> None:
    before = [dict(left), dict(middle)]
    one = metrics.merge(metrics.merge(left, middle), right)
    other = metrics.merge(left, metrics.merge(middle, right))
    assert one == other
    assert [left, middle] == before
    assert metrics.merge({}, left) == left


def test_no_count_is_lost_between_threads() -> None:
    tally = metrics.Tally()
    taken: list[int] = []

    def count() -> None:
        for _ in range(2000):
            tally.count(metrics.DROPPED, "x")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += tally.take().values()
    taken += tally.take().values()
    assert sum(taken) == 8000


def test_the_log_line_has_one_number_a_series() -> None:
    data = {"a|": 3, "b|why": 2, "h": [0.25, 1.5], "empty": []}
    assert metrics.summary(data) == {"a": 3.0, "b|why": 2.0, "h": 1.5, "empty": 0.0}


def test_series_have_names_of_their_own_and_a_help() -> None:
    series = [*metrics.COUNTERS, *metrics.HISTOGRAMS]
    assert len({one.name for one in series}) == len(series)
    assert all(one.name.startswith("layercast_") and one.help for one in series)
    assert all(list(one.buckets) == sorted(one.buckets) and one.buckets for one in metrics.HISTOGRAMS)


def test_the_first_drop_of_each_reason_is_logged_and_all_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    tally = metrics.Tally()
    log = DropLog(tally)
    with caplog.at_level(logging.WARNING):
        for drop in [Drop.MALFORMED, Drop.MALFORMED, Drop.VERSION, Drop.MALFORMED]:
            log.dropped(BadMessage(drop, "detail"))
    assert len(caplog.records) == 2
    assert tally.take() == {"layercast_dropped_messages|malformed": 3, "layercast_dropped_messages|version": 1}
