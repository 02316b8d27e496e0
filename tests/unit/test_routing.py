"""Which alerts go out at once: what a hundred thousand of them cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from plantao.alert.routing import Raised, routes

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_a_hundred_thousand_about_one_matter_cost_a_hundred_thousand_steps():
    waiting = [Raised(n, NOON, "j", "failed", f"error {n}") for n in range(100_000)]
    found = routes(waiting[50_000:], waiting[:50_000], {"j": timedelta(days=1)}, NOON)  # minutes, if it were quadratic
    assert set(found.values()) == {"page"}
    assert len(found) == 50_000


def test_of_a_flood_that_says_the_same_the_first_goes_out_and_the_others_count():
    waiting = [Raised(n, NOON + timedelta(seconds=n), "j", "failed", "error") for n in range(1000)]
    found = routes(waiting, [], {"j": timedelta(days=1)}, NOON + timedelta(hours=1))
    assert [number for number, route in found.items() if route == "page"] == [0]
