"""The digest that shows whether a rejected row, or what decides about it, has changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from plantao.config.job_file import parse
from plantao.extract.timestamps import FROM_2000, MICROSECONDS
from plantao.score.accounted import Accounted, digests, judge_of
from world import JOB

INFINITE = -(2**63) + FROM_2000 * MICROSECONDS
MANIFEST = SimpleNamespace(name="m", version=1, sha256="0" * 64)
ROW: dict[str, Any] = {"k0": 1, "t": 5, "c": None, "number": 0.5, "text": b"a", "moment": 7, "flag": True}
TYPES = {
    "k0": pa.int64(), "t": pa.timestamp("us", "UTC"), "c": pa.timestamp("us", "UTC"), "number": pa.float64(),
    "text": pa.string(), "moment": pa.timestamp("us"), "flag": pa.bool_(),
}  # fmt: skip


def digest(judge: bytes = b"", **changed: Any) -> str:
    row = {**ROW, **changed}
    arrays = {
        name: pa.array([row[name]], pa.binary()).view(kind) if kind == pa.string() else pa.array([row[name]]).cast(kind)
        for name, kind in TYPES.items()
    }
    batch = pa.RecordBatch.from_arrays([arrays[name] for name in ("k0", "t", "c")], ["k0", "t", "c"])
    (found,) = digests(batch, [arrays[name] for name in ("number", "text", "moment", "flag")], judge)
    return found


@pytest.mark.parametrize(
    "changed",
    [
        {"k0": 2}, {"t": 6}, {"c": 5}, {"number": None}, {"number": float("nan")}, {"number": float("inf")},
        {"number": 0.5000000000000001}, {"text": b"b"}, {"text": None}, {"text": b"\xff"}, {"moment": INFINITE},
        {"flag": None},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_changes_in_a_row_changes_its_digest(changed):
    assert digest(**changed) == digest(**changed) != digest()


def test_another_version_and_another_rule_change_every_digest():
    def judge(text: str = JOB, **manifest: Any) -> bytes:
        return judge_of(parse("bad_reading", text, read_query=str), SimpleNamespace(**{**vars(MANIFEST), **manifest}))

    assert judge() == judge(JOB + "[validate]\nat_least_rows = 7\n")
    others = [judge(version=2), judge(sha256="1" * 64), judge(JOB + "[validate.columns.x]\nmax = 1\n")]
    assert len({judge(), *others}) == len({digest(one) for one in [judge(), *others]}) == 4


def test_only_late_rows_with_the_timestamp_of_an_open_reject_are_looked_at():
    moments = pa.array([5, 6, 5, 7]).cast(pa.timestamp("us", "UTC"))
    batch = pa.RecordBatch.from_arrays([moments, pa.array([True, True, False, True])], ["t", "late"])
    assert list(Accounted(frozenset({"x"}), pa.array([5, 7])).may_hold(batch)) == [0, 3]
    assert not len(Accounted().may_hold(batch))
