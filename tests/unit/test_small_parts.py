"""Keys, spool, control group, profile, summary, log, rights: small parts with one promise each."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from plantao import log
from plantao.errors import DatabaseUnavailable, DiskFull
from plantao.extract import keys
from plantao.extract.spool import Spool
from plantao.ledger.grants import grants
from plantao.load import copy_format
from plantao.load.copy_format import Fixed
from plantao.measure.data_quality import Scored, summarise
from plantao.score.control_group import control_group
from plantao.window import Window
from world import JOB

BIG = 2**53 + 1


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_compared_exactly_and_a_null_equals_nothing():
    rows = pa.table({"k0": pa.array([BIG, BIG + 1, None], pa.int64()), "k1": ["a", "a", "a"], "t": [1, 2, 3]})
    known = pa.table({"k0": pa.array([BIG, None], pa.int64()), "k1": ["a", "a"]})
    assert sorted(keys.without(rows, known)["t"].to_pylist()) == [2, 3]
    assert keys.also_in(rows, known)["t"].to_pylist() == [1]


def test_an_edit_makes_a_key_unknown_but_no_edit_time_equals_no_edit_time():
    stamp = pa.timestamp("us", "UTC")
    rows = pa.table({"k0": [1, 2, 3], "c": pa.array([10, 20, None], stamp)})
    known = pa.table({"k0": [1, 2, 3], "c": pa.array([10, 21, None], stamp)})
    assert keys.without(rows, known, ["c"])["k0"].to_pylist() == [2]


def test_only_complete_keys_are_asked_for_by_value():
    rows = pa.table({"k0": pa.array([1, None, 3]), "k1": ["a", "b", None], "t": [1, 2, 3]})
    assert keys.values(rows) == [[1], ["a"]]


def test_key_columns_are_ordered_by_number():
    rows = pa.table({f"k{i}": [i] for i in range(11)} | {"kind": [0]})
    assert keys.key_names(rows) == [f"k{i}" for i in range(11)]


# --- spool -----------------------------------------------------------------------------------------------------------


def batch(first: int, rows: int = 100) -> pa.RecordBatch:
    return pa.record_batch({"x": np.arange(first, first + rows), "t": [f"text {i}" for i in range(rows)]})


@pytest.mark.parametrize("memory", [0, 3_000, 1 << 20])
def test_batches_come_out_as_they_went_in_through_memory_or_file(memory):
    spool = Spool(memory)
    given = [batch(i * 100) for i in range(20)]
    for one in given:
        assert spool.put(one)
    spool.close()
    assert list(spool.batches(1)) == given
    assert (spool.spilled_bytes > 0) == (memory < 1 << 20)
    spool.abandon()


def test_a_slow_taker_never_makes_the_reader_wait():
    spool, done = Spool(1_000), threading.Event()

    def read():
        for i in range(200):
            spool.put(batch(i))
        spool.close()
        done.set()

    threading.Thread(target=read).start()
    assert done.wait(20)
    assert sum(len(one) for one in spool.batches(1)) == 20_000
    spool.abandon()


def test_an_incomplete_read_is_an_error_after_what_was_read():
    spool = Spool()
    spool.put(batch(0))
    spool.close(ConnectionError("cut"))
    taken = spool.batches(1)
    next(taken)
    with pytest.raises(ConnectionError, match="cut"):
        next(taken)


def test_a_reader_that_falls_silent_is_noticed():
    with pytest.raises(DatabaseUnavailable, match="sent no row"):
        next(Spool().batches(0.05))


def test_a_reader_learns_that_nobody_wants_more():
    spool = Spool(0)
    assert spool.put(batch(0))
    spool.abandon()
    assert not spool.put(batch(0))
    spool.close()


def test_a_disk_that_takes_only_a_part_at_a_time_gets_the_rest_too(monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, at: write(file, content[:100], at))
    spool = Spool(0)
    given = [batch(i) for i in range(3)]
    for one in given:
        spool.put(one)
    spool.close()
    assert list(spool.batches(1)) == given
    spool.abandon()


def test_a_batch_that_is_taken_leaves_its_room_to_the_next(monkeypatch):
    ends, write = [], os.pwrite

    def noted(file, content, at):
        ends.append(at + len(content))
        return write(file, content, at)

    monkeypatch.setattr(os, "pwrite", noted)
    spool = Spool(0)
    given = [batch(i, 30_000 - i) for i in range(50)]
    taken, out = [], spool.batches(1)
    for i, one in enumerate(given):
        spool.put(one)
        if i > 2:
            taken.append(next(out))
    spool.close()
    assert taken + list(out) == given
    assert spool.spilled_bytes > 40 * given[0].nbytes
    assert max(ends) < 8 * given[0].nbytes
    spool.abandon()


def test_a_slow_disk_keeps_neither_the_reader_nor_the_taker_waiting(monkeypatch):
    write, may_write = os.pwrite, threading.Event()
    monkeypatch.setattr(os, "pwrite", lambda *given: may_write.wait(20) and write(*given))
    spool, given = Spool(0), [batch(i) for i in range(3)]
    spool.put(given[0])
    assert next(spool.batches(1)) == given[0]
    assert not may_write.is_set()
    may_write.set()
    spool.put(given[1])
    spool.put(given[2])
    spool.close()
    assert list(spool.batches(1)) == given[1:]
    spool.abandon()


def test_a_full_disk_stops_the_reader_and_loses_nothing_that_was_read(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    spool = Spool(0)
    spool.put(batch(0))
    with pytest.raises(DiskFull, match="No space left") as stopped:
        spool.put(batch(1))
    spool.close(stopped.value)
    out = spool.batches(1)
    assert [next(out), next(out)] == [batch(0), batch(1)]
    with pytest.raises(DiskFull):
        next(out)
    spool.abandon()


def test_the_spools_file_has_no_name_that_could_be_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spool = Spool(0)
    spool.put(batch(0))
    assert list(tmp_path.iterdir()) == []
    spool.close()
    spool.abandon()


# --- the binary format -----------------------------------------------------------------------------------------------


def test_a_known_row_has_the_bytes_of_the_manual():
    columns = [
        copy_format.column("integer", pa.array([1])),
        copy_format.column("text", pa.array(["hé"])),
        Fixed(np.array([0], ">i8"), np.array([False])),
    ]
    assert copy_format.encode(columns).getvalue() == (
        b"PGCOPY\n\xff\r\n\x00" + bytes(8)
        + b"\x00\x03" + b"\x00\x00\x00\x04\x00\x00\x00\x01" + b"\x00\x00\x00\x03h\xc3\xa9" + b"\xff\xff\xff\xff"
        + b"\xff\xff"
    )  # fmt: skip


# --- the control group -----------------------------------------------------------------------------------------------


def test_the_control_group_is_the_same_for_ever():
    marked = control_group([pa.array(range(20))], 0.3, "flight_delay")
    assert np.flatnonzero(marked).tolist() == [0, 1, 2, 3, 9, 13, 15]
    assert not control_group([pa.array(range(20))], 0, "flight_delay").any()


def test_the_control_group_has_its_share_and_differs_between_jobs():
    one = control_group([pa.array(range(20_000))], 0.1, "one")
    two = control_group([pa.array(range(20_000))], 0.1, "two")
    assert 0.09 < one.mean() < 0.11
    assert 0.005 < (one & two).mean() < 0.015


def test_the_parts_of_a_key_do_not_run_together():
    numbers = [str(i) for i in range(100)]
    apart = control_group([pa.array(numbers), pa.array(["0"] * 100)], 0.5, "j")
    together = control_group([pa.array([f"{i}0" for i in numbers]), pa.array([""] * 100)], 0.5, "j")
    assert apart.tolist() != together.tolist()


# --- measure ---------------------------------------------------------------------------------------------------------


WINDOW = Window(datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 4, 2, tzinfo=UTC))


def test_the_figures_of_a_window_are_kept_apart_by_version_and_added_up_over_runs():
    profiles = [(1, {"rows": 10, "missing": {"x": 1}}), (1, {"rows": 30, "missing": {"x": 3}})]
    found = summarise(WINDOW, [Scored(1, 40, 2, 0.25), Scored(2, 10, 0, 0.5)], 50, profiles)
    values = {(m.model_version, m.name, m.column): (m.value, m.n) for m in found}
    assert values == {
        (1, "rows", ""): (40, 40),
        (1, "late_rows", ""): (2, 40),
        (1, "mean_score", ""): (0.25, 40),
        (2, "rows", ""): (10, 10),
        (2, "late_rows", ""): (0, 10),
        (2, "mean_score", ""): (0.5, 10),
        (1, "null_share", "x"): (0.1, 40),
        (2, "rejected_share", ""): (0.5, 100),
    }
    assert summarise(WINDOW, [], 0, []) == []


# --- log -------------------------------------------------------------------------------------------------------------


def test_an_event_is_a_constant_sentence_and_its_fields(monkeypatch):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("of this test alone")
    logger.setLevel(log.INFO)
    logger.addHandler(handler)
    monkeypatch.setattr(log, "logger", logger)
    log.event("score finished", {"job": "a", "run": None, "seconds": 1.23456, "window": "one .. two"})
    assert said == ['score finished: job=a seconds=1.235 window="one .. two"']


def test_a_stopwatch_adds_up():
    watch = log.Stopwatch()
    for _ in range(2):
        with watch.step("score"):
            time.sleep(0.01)
    assert watch.seconds["score"] >= 0.02


# --- rights ----------------------------------------------------------------------------------------------------------


def test_the_rights_name_every_source_and_target_and_no_write_at_the_source(tmp_path):
    from plantao.config.job_file import parse

    one = parse("one", JOB, read_query=lambda _: "")
    two = parse("two", JOB.replace('table     = "public.readings"', 'query = "select 1"'), read_query=lambda _: "")
    text = grants([one, two], ["client_db"], "plantao")["client_db"]
    assert 'grant select on "public"."readings" to plantao_scorer;' in text
    assert "grant plantao_scorer SELECT on every table that the query names" in text
    assert not [line for line in text.splitlines() if "readings" in line and ("insert" in line or "update" in line)]


def test_the_rights_of_another_database_are_printed_for_that_one():
    from plantao.config.job_file import parse

    apart = JOB.replace("[load]", '[load]\nconnection = "results_db"')
    texts = grants([parse("one", apart, read_query=str)], ["results_db"], "plantao")
    assert texts.keys() == {"client_db", "results_db"}
    assert "readings" in texts["client_db"]
    assert '"predictions"' not in texts["client_db"]
    assert '"readings"' not in texts["results_db"]
    assert '"plantao".runs' in texts["results_db"]
