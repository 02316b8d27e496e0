"""The lanes that page are quiet on days without drift, and quick when something is wrong.

The figures behind it come from tests/bench/alarms.py.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import streams

pytestmark = pytest.mark.slow

STREAMS = 200
# The breaks of a stream take longer to judge; a fifth of its production days still makes 4,000 days.
BREAK_DAYS = 20
# Logits with these deviations and means give an AUC of .96 at half positives, and of .76 at a quarter.
MODELS = {"sharp": (4.5, 0.0), "weak": (1.1, -1.3)}


@pytest.mark.parametrize("model", MODELS)
def test_degraded_opens_less_than_once_in_100_days_of_independent_rows(model):
    rng = np.random.default_rng(5)
    metrics = streams.independent_days(rng, STREAMS * len(streams.DAYS), *MODELS[model])
    found = streams.false_episodes(metrics, STREAMS)
    assert found[""] / STREAMS < 1
    assert sum(found[metric] for metric in streams.METRICS) / STREAMS < 1


def test_break_opens_less_than_three_times_in_100_days_of_independent_rows():
    rng = np.random.default_rng(6)
    found = Counter()
    for _ in range(STREAMS):
        found.update(streams.false_breaks(*streams.independent_stream(rng, 6), BREAK_DAYS))
    assert found[""] / STREAMS / BREAK_DAYS * 100 < 3


def test_both_lanes_keep_to_it_on_the_days_of_real_flights_in_random_order():
    rng = np.random.default_rng(7)
    flights = streams.flights()
    degraded, broken = Counter(), Counter()
    for _ in range(STREAMS):
        metrics, columns, scores = flights.stream(rng)
        degraded.update(streams.false_episodes(metrics, 1))
        broken.update(streams.false_breaks(columns, scores, BREAK_DAYS))
    assert degraded[""] / STREAMS < 1
    assert broken[""] / STREAMS / BREAK_DAYS * 100 < 3


def test_a_flip_of_one_label_in_twenty_is_found_within_three_days():
    rng = np.random.default_rng(8)
    metrics = streams.independent_days(rng, 100 * len(streams.DAYS), *MODELS["sharp"], flipped=0.05)
    delays = streams.first_alarms(metrics, 100)
    assert np.median(delays) <= 3


def test_a_column_that_is_null_renamed_frozen_or_rescaled_is_found_on_the_first_day():
    rng = np.random.default_rng(9)
    flights = streams.flights()
    for _ in range(20):
        columns, scores = streams.independent_stream(rng, 9)
        missed, tried = streams.missed_faults(columns, scores, streams.independent_first_day(rng, columns))
        assert (missed, tried) == ([], 27)
        _, columns, scores = flights.stream(rng)
        missed, tried = streams.missed_faults(columns, scores, flights.first_day(rng, columns))
        assert (missed, tried) == ([], 24)
