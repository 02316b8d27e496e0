"""The SELECTs of a reconciliation: two sides of any length, compared slice by slice.

Pure. Each side is folded into one line per slice of time: how many rows, and the XOR of a hash of their keys and
timestamps (and of their edit times, when edits count). Slices whose two lines are equal hold the same rows; only of the
others are the keys fetched. PostgreSQL's hash functions with a seed are the same from version to version in practice;
were they not, every slice would differ and be compared key by key: slower, and just as right.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from psycopg2.sql import SQL, Composable, Composed, Identifier
from psycopg2.sql import Literal as Value

from plantao.extract.query import both, unnest
from plantao.extract.source import KEY_TYPES, Source, instant
from plantao.window import BEGINNING, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

SLICES = 2_000
ROWS_AT_ONCE = 500_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WHOLE_NUMBERS = {"int2", "int4", "int8"}


@dataclass(frozen=True)
class Piece:
    """Some slices whose two sides differ: few enough rows to compare their keys in memory."""

    starts: tuple[int, ...]
    """Where the slices start, in microseconds since 1970."""
    share: tuple[int, int] = (0, 1)
    """Which share of the keys, by their hash: number `i` of `n`, for a slice that alone has too many rows."""


@dataclass(frozen=True)
class Sides:
    """The two sides of a job's comparison over a period, each a relation with the columns k0, k1, …, t, c, h."""

    source: Source
    period: Window
    width: timedelta
    ledger: str
    """The schema of the ledger."""

    @property
    def there(self) -> Composable:
        """The rows of the source."""
        edit = self.source.changed_at if self.source.edits_count else None
        return SQL("select {}, {} as t, {} as c, {} as h from {} as s where {}").format(
            SQL(", ").join(self.source.key_columns),
            self.source.instant,
            edit or SQL("null::timestamptz"),
            self._hash(self.source.key_of("s"), self.source.instant, edit),
            self.source.relation,
            both(
                self.source.within(self.period),
                SQL("{} operator(pg_catalog.>) timestamptz '-infinity'").format(self.source.instant),
            ),
        )

    @property
    def here(self) -> Composable:
        """The rows that are accounted for: predicted, or set aside and still open."""
        job = self.source.job
        predicted, rejected = self.source.key_of("p"), self._rejected
        edit = SQL("p.source_changed_at") if self.source.edits_count else None
        bounds = SQL("{0} >= {1} and {0} < {2} and {0} > '-infinity'")
        start, end = instant(self.period.start), instant(self.period.end)
        return SQL(
            "select {}, p.source_timestamp as t, {} as c, {} as h from {} as p where {}\nunion all\n"
            "select {}, r.source_timestamp, null::timestamptz, {} from {} as r"
            " where r.job = {} and r.resolved_at is null and {}"
        ).format(
            SQL(", ").join(self.source.as_key_columns(predicted)),
            edit or SQL("null::timestamptz"),
            self._hash(predicted, SQL("p.source_timestamp"), edit),
            Identifier(*job.load.table),
            bounds.format(SQL("p.source_timestamp"), start, end),
            SQL(", ").join(self.source.as_key_columns(rejected)),
            self._hash(rejected, SQL("r.source_timestamp"), None),
            Identifier(self.ledger, "rejected_rows"),
            Value(job.name),
            bounds.format(SQL("r.source_timestamp"), start, end),
        )

    def fold(self, side: Composable) -> Composed:
        """Return the SELECT of one line per slice: its start, the number of rows, their digest."""
        return SQL(
            "select {} as slice, count(*) as rows, pg_catalog.bit_xor(h) as digest from (\n{}\n) as x group by 1"
        ).format(self._slice, side)

    def rows(self, side: Composable, piece: Piece) -> Composed:
        """Return the SELECT of the keys, instants and edit times of a piece."""
        columns = [Identifier(f"k{i}") for i in range(len(self.source.job.extract.key))]
        number, of = piece.share
        # A list of constants is looked up in a hash table; a join with it could be a nested loop over all rows.
        return SQL(
            "select {}, t, c from (\n{}\n) as x where {} = any ({}::timestamptz[])"
            " and (h & 1048575::bigint) % {}::bigint = {}::bigint"
        ).format(
            SQL(", ").join(columns),
            side,
            self._slice,
            Value([moment(start).isoformat() for start in piece.starts]),
            Value(of),
            Value(number),
        )

    def open_rejects_of(self, keys: Sequence[Sequence[object]]) -> Composed:
        """Return the SELECT of the open rejects that exist for `keys` (one sequence per key column)."""
        job = self.source.job
        rejected = self._rejected
        return SQL(
            "select {} from {} as r where r.job = {} and r.resolved_at is null and ({}) operator(pg_catalog.=) any ({})"
        ).format(
            SQL(", ").join(self.source.as_key_columns(rejected)),
            Identifier(self.ledger, "rejected_rows"),
            Value(job.name),
            SQL(", ").join(rejected),
            unnest(self.source, keys),
        )

    @property
    def _rejected(self) -> list[Composable]:
        return [
            SQL("(r.key ->> {})::{}").format(Value(name), SQL(KEY_TYPES[kind][0]))
            for name, kind in zip(self.source.job.extract.key, self.source.key_types, strict=True)
        ]

    @property
    def without_time(self) -> Composed:
        """The SELECT that counts the rows without a finite timestamp, which belong to no window."""
        return SQL("select count(*) from {0} as s where {1} is null or not pg_catalog.isfinite({1})").format(
            self.source.relation, self.source.instant
        )

    @property
    def _slice(self) -> Composable:
        # Without months an interval has one length, whatever the calendar says.
        width = SQL("interval '1 microsecond' operator(pg_catalog.*) {}::double precision").format(
            Value(self.width // timedelta(microseconds=1))
        )
        # What is older than Python's calendar is in one slice with its first year.
        return SQL("pg_catalog.date_bin({}, greatest(t, '0002-01-01Z'), timestamptz 'epoch')").format(width)

    def _hash(self, columns: Sequence[Composable], moment: Composable, edit: Composable | None) -> Composable:
        """Return the hash of a key and a timestamp, each column's being the seed of the next one's."""
        found: Composable = SQL("pg_catalog.hashfloat8extended(pg_catalog.date_part('epoch', {}), 0)").format(moment)
        for column, kind in zip(columns, self.source.key_types, strict=True):
            if kind in WHOLE_NUMBERS:
                hashed = SQL("pg_catalog.hashint8extended({}::bigint, {})").format(column, found)
            else:
                hashed = SQL('pg_catalog.hashtextextended({}::text collate "C", {})').format(column, found)
            found = SQL("coalesce({}, 0)").format(hashed)
        if edit is not None:
            found = SQL("coalesce(pg_catalog.hashfloat8extended(pg_catalog.date_part('epoch', {0}), {1}), {1})").format(
                edit, found
            )
        return found


def slice_width(start: datetime, end: datetime) -> timedelta:
    """Return how long a slice is: about SLICES of them between the first and the last row, whole seconds each."""
    return timedelta(seconds=max(1, -(-int((end - start).total_seconds()) // SLICES)))


def differing(there: pa.Table, here: pa.Table) -> list[Piece]:
    """Return the slices whose lines differ, in pieces of about ROWS_AT_ONCE rows, in the order of time."""
    both_sides = there.join(here, keys="slice", join_type="full outer", left_suffix="_there", right_suffix="_here")
    rows = pc.fill_null(pc.max_element_wise(both_sides["rows_there"], both_sides["rows_here"]), 0)
    same = pc.and_(
        pc.equal(pc.fill_null(both_sides["rows_there"], 0), pc.fill_null(both_sides["rows_here"], 0)),
        pc.equal(pc.fill_null(both_sides["digest_there"], 0), pc.fill_null(both_sides["digest_here"], 0)),
    )
    lines = pa.table({"slice": both_sides["slice"].cast(pa.int64()), "rows": rows}).filter(pc.invert(same))
    pieces: list[Piece] = []
    waiting: list[int] = []
    waiting_rows = 0
    for line in lines.sort_by("slice").to_pylist():
        if waiting and waiting_rows + line["rows"] > ROWS_AT_ONCE:
            pieces.append(Piece(tuple(waiting)))
            waiting, waiting_rows = [], 0
        parts = -(-line["rows"] // ROWS_AT_ONCE)
        if parts > 1:
            pieces += [Piece((line["slice"],), (number, parts)) for number in range(parts)]
            continue
        waiting.append(line["slice"])
        waiting_rows += line["rows"]
    if waiting:
        pieces.append(Piece(tuple(waiting)))
    return pieces


def moment(microseconds: int) -> datetime:
    """Return an instant from microseconds since 1970, as near as Python's calendar comes to it."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return BEGINNING if microseconds < 0 else datetime.max.replace(tzinfo=UTC)
