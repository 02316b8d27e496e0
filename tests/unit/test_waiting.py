"""A wait ends, and what is late is not thrown away under the feet of who still works with it."""

from __future__ import annotations

import threading

import pytest

from plantao.postgres.timeout import NotInTimeError, in_time


def raises(error):
    raise error


def test_what_comes_in_time_is_returned_or_raised_and_nothing_is_late():
    late = []
    assert in_time(10, lambda: 7, lambda: late.append(1)) == 7
    for error in (KeyError, TimeoutError):
        with pytest.raises(error):
            in_time(10, lambda error=error: raises(error), lambda: late.append(1))
    assert late == []


@pytest.mark.parametrize("fails", [False, True])
def test_what_does_not_come_back_is_left_and_tidied_up_when_it_does(fails):
    go_on, tidied = threading.Event(), threading.Event()

    def call():
        go_on.wait(30)
        if fails:
            raise ValueError

    with pytest.raises(NotInTimeError):
        in_time(0.05, call, tidied.set)
    assert not tidied.is_set()
    go_on.set()
    assert tidied.wait(30)
