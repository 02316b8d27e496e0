"""What a job reads, as it is now: the relation, its columns' types, and the conditions that pick rows of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Composable, Identifier
from psycopg2.sql import Literal as Value

from plantao.postgres.pinned import CLOSED_PATH, LOGIN_PATH
from plantao.window import BEGINNING, Window, merged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.config.job import Job

# PostgreSQL types a key may have -> (the key column's type in the prediction table, the cast it travels with).
# All of them go through Arrow without loss, and compare there as they do in PostgreSQL.
KEY_TYPES = {
    "int2": ("smallint", "smallint"),
    "int4": ("integer", "integer"),
    "int8": ("bigint", "bigint"),
    "text": ("text", "text"),
    "varchar": ("character varying", "text"),
    "bpchar": ("text", "text"),
    "uuid": ("uuid", "text"),
    "date": ("date", "date"),
}
# In ranges of keys the values have the key's own type, so that they are in its own order.
KEY_NATIVE = {"bpchar": "bpchar", "varchar": "text"}
INSTANT_TYPES = ("timestamptz", "timestamp", "date")
A_DAY = timedelta(days=1)


def path_of(job: Job) -> str | None:
    """Return the search path for the job's source: closed for a table, the login's own for the job's query."""
    return CLOSED_PATH if job.query is None else LOGIN_PATH


@dataclass(frozen=True)
class KeyRange:
    """A range of keys, the lower edge included, as text; an open range has no edge.

    The range without a lower edge also has the keys with a NULL that is not decided by an earlier column, so that
    adjacent ranges share no row and leave none out.
    """

    lower: tuple[str, ...] | None
    upper: tuple[str, ...] | None


@dataclass(frozen=True)
class Source:
    """What the job reads, as it is now: the relation and the PostgreSQL type of each of its columns."""

    job: Job
    types: Mapping[str, str]
    keys: KeyRange | None = None
    """The part of the keys that is read; None means all of them."""
    version: int | None = None
    """The one version whose predictions count, in a table that holds those of several; None where it holds one's."""

    @property
    def relation(self) -> Composable:
        """The table's quoted name, or the job's query as a subquery."""
        if self.job.query is not None:
            return SQL("(\n{}\n)").format(SQL(self.job.query))
        assert self.job.extract.table is not None
        return Identifier(*self.job.extract.table)

    @property
    def predictions(self) -> Composable:
        """The prediction table's quoted name."""
        return Identifier(*self.job.load.table)

    @property
    def and_of_version(self) -> Composable:
        """The condition, with `and` in front, that a prediction `p` counts; nothing where all of them do."""
        return SQL("") if self.version is None else SQL(" and p.model_version = {}").format(Value(self.version))

    @property
    def key_types(self) -> list[str]:
        """The PostgreSQL type of each key column."""
        return [self.types[name] for name in self.job.extract.key]

    @property
    def key_columns(self) -> list[Composable]:
        """The key columns as k0, k1, …, in the form in which they travel."""
        return self.as_key_columns(self.key_of("s"))

    def key_of(self, relation: str) -> list[Composable]:
        """Return the key's columns in a relation that is known by a short name, such as `s`."""
        return [SQL("{}.{}").format(SQL(relation), Identifier(name)) for name in self.job.extract.key]

    def as_key_columns(self, columns: Sequence[Composable]) -> list[Composable]:
        """Return the key, wherever its columns stand, as k0, k1, …, in the form in which it travels."""
        return [
            SQL("{}::{} as {}").format(column, SQL(KEY_TYPES[kind][1]), Identifier(f"k{i}"))
            for i, (column, kind) in enumerate(zip(columns, self.key_types, strict=True))
        ]

    @property
    def segments(self) -> list[str]:
        """The columns by whose values the job's figures are split, as far as the source has them."""
        return [name for name in self.job.measure.segments if name in self.types]

    @property
    def edits_count(self) -> bool:
        """Whether a row that was edited after scoring is scored again."""
        return self.job.extract.on_change == "rescore"

    @property
    def changed_at(self) -> Composable:
        """The column that moves when a row is edited, as an instant."""
        return self._instant_of(self.job.extract.changed_at or "")

    @property
    def instant(self) -> Composable:
        """The timestamp column as an instant; without a zone of its own it is meant in the job's."""
        return self._instant_of(self.job.extract.timestamp)

    def _instant_of(self, name: str) -> Composable:
        column = SQL("s.{}").format(Identifier(name))
        if self.types[name] == "timestamptz":
            return column
        if self.types[name] == "date":
            column = SQL("{}::timestamp").format(column)
        return SQL("({} at time zone {})").format(column, Value(self.job.timezone))

    def within(self, window: Window) -> Composable:
        """Return the condition that a row's timestamp lies in `window`, so written that an index can serve it."""
        exact = SQL(
            "{instant} operator(pg_catalog.>=) {start} and {instant} operator(pg_catalog.<) {end}{keys}"
        ).format(instant=self.instant, start=instant(window.start), end=instant(window.end), keys=self.and_in_keys)
        kind = self.types[self.job.extract.timestamp]
        if kind == "timestamptz":
            return SQL("({})").format(exact)
        # The exact condition converts the column, which no plain index serves; the wider one in front of it does.
        column = SQL("s.{}").format(Identifier(self.job.extract.timestamp))
        wider = SQL("{column} operator(pg_catalog.>=) {start} and {column} operator(pg_catalog.<) {end}").format(
            column=column,
            start=_wall(window.start, self.job, -A_DAY, kind),
            end=_wall(window.end, self.job, 2 * A_DAY, kind),
        )
        return SQL("({} and {})").format(wider, exact)

    @property
    def and_in_keys(self) -> Composable:
        """The condition, with `and` in front, that a row belongs to the part that is read; nothing for all rows."""
        if self.keys is None:
            return SQL("")
        key = SQL("({})").format(SQL(", ").join(self.key_of("s")))
        conditions: list[Composable] = []
        if self.keys.lower is not None:
            conditions.append(SQL(" and {} operator(pg_catalog.>=) {}").format(key, self._edge(self.keys.lower)))
        if self.keys.upper is not None:
            # "is not true", because a NULL in the key leaves the comparison open, and such a row must be somewhere.
            conditions.append(
                SQL(" and ({} operator(pg_catalog.>=) {}) is not true").format(key, self._edge(self.keys.upper))
            )
        if self.keys.lower is not None and self.keys.upper is not None:
            first = SQL(" and {} operator(pg_catalog.<=) {}").format(
                self.key_of("s")[0], self._edge(self.keys.upper[:1])
            )
            conditions.append(first)  # says nothing new, but an index can serve it
        return SQL("").join(conditions)

    def _edge(self, values: Sequence[str]) -> Composable:
        kinds = [SQL(KEY_NATIVE.get(kind, kind)) for kind in self.key_types]
        typed = [SQL("{}::{}").format(Value(value), kind) for value, kind in zip(values, kinds, strict=False)]
        return SQL("({})").format(SQL(", ").join(typed))

    def within_any(self, windows: Sequence[Window]) -> Composable:
        """Return the condition that a row's timestamp lies in one of `windows`, for an index as `within` is.

        Two conditions with an `or` between them make PostgreSQL read the whole table, where a range is all it takes.
        """
        apart = merged(windows)
        if not apart:
            return SQL("(false)")
        bounds = self.within(Window(apart[0].start, apart[-1].end))
        if len(apart) == 1:
            return bounds
        return SQL("({} and ({}))").format(bounds, SQL(" or ").join([self.within(window) for window in apart]))


def as_double(column: Composable, kind: str) -> Composable:
    """Return a number as a double. PostgreSQL raises for a numeric beyond its range; here it is 0, or infinite."""
    if kind != "numeric":
        return column if kind == "float8" else SQL("{}::double precision").format(column)
    return SQL(
        "case when pg_catalog.abs({0}) operator(pg_catalog.<) numeric '2.5e-324' then double precision '0'"
        " when pg_catalog.abs({0}) operator(pg_catalog.<=) numeric '1.7976931348623158e308'"
        " or {0} operator(pg_catalog.=) numeric 'NaN' then {0}::double precision"
        " when {0} operator(pg_catalog.>) numeric '0' then double precision 'Infinity'"
        " when {0} is not null then double precision '-Infinity' end"
    ).format(column)


def instant(moment: datetime) -> Composable:
    """Return a moment as SQL; the beginning of time is minus infinity."""
    text = "-infinity" if moment <= BEGINNING else moment.astimezone(UTC).isoformat()
    return SQL("{}::timestamptz").format(Value(text))


def _wall(moment: datetime, job: Job, margin: timedelta, kind: str) -> Composable:
    if moment - BEGINNING <= A_DAY:
        text = "-infinity"
    else:
        local = moment.astimezone(job.zone).replace(tzinfo=None) + margin
        text = local.date().isoformat() if kind == "date" else local.isoformat()
    return SQL("{}::{}").format(Value(text), SQL(kind))


def missing_columns(job: Job, types: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the columns the job itself needs: its key, its timestamp, when a row was edited."""
    problems = []
    for name in job.extract.key:
        if name not in types:
            problems.append(f"key column {name!r} is missing")
        elif types[name] not in KEY_TYPES:
            accepted = ", ".join(sorted(KEY_TYPES))
            problems.append(f"key column {name!r} is {types[name]}; accepted are {accepted} (cast it in a query)")
    times = [("timestamp", job.extract.timestamp)]
    if job.extract.changed_at is not None:
        times.append(("changed_at", job.extract.changed_at))
    for role, name in times:
        if name not in types:
            problems.append(f"{role} column {name!r} is missing")
        elif types[name] not in INSTANT_TYPES:
            problems.append(f"{role} column {name!r} is {types[name]}; accepted are {', '.join(INSTANT_TYPES)}")
    return problems
