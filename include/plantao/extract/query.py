"""The SELECTs of a run: which rows are owed, and in which form they travel.

Pure: from the job, the source's column types and the windows to SQL that `psycopg2.sql` quotes. The columns of
every SELECT of rows are named by place, so that a name of the client's can never collide with one of ours:

    k0, k1, …   the key            t      the source timestamp, an instant
    late        before the window  c      when the row was last edited (on_change = "rescore")
    f0, f1, …   the features, in the order the model was trained on

*Already predicted* is decided by key. Both sides are bounded by the timestamp, so that a day among ten million
predictions costs a day. A row whose timestamp has moved out of these bounds since it was predicted is read
again; the primary key of the prediction table then says so, and it is counted as already scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Composable, Composed, Identifier
from psycopg2.sql import Literal as Value

from plantao.extract.window import BEGINNING, Window
from plantao.job_types import parse_table_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.job import Job
    from plantao.validate.contract import Contract

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
INSTANT_TYPES = ("timestamptz", "timestamp", "date")
A_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Source:
    """What the job reads, as it is now: the relation and the PostgreSQL type of each of its columns."""

    job: Job
    types: Mapping[str, str]

    @property
    def relation(self) -> Composable:
        """The table's quoted name, or the job's query as a subquery."""
        if self.job.query is not None:
            return SQL("(\n{}\n)").format(SQL(self.job.query))
        return Identifier(*parse_table_name(self.job.extract.table or ""))

    @property
    def key_types(self) -> list[str]:
        """The PostgreSQL type of each key column."""
        return [self.types[name] for name in self.job.extract.key]

    @property
    def key_columns(self) -> list[Composable]:
        """The key columns as k0, k1, …, in the form in which they travel."""
        return [
            SQL("s.{}::{} as {}").format(Identifier(name), SQL(KEY_TYPES[kind][1]), Identifier(f"k{i}"))
            for i, (name, kind) in enumerate(zip(self.job.extract.key, self.key_types, strict=True))
        ]

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
        exact = SQL("{instant} >= {start} and {instant} < {end}").format(
            instant=self.instant, start=_instant(window.start), end=_instant(window.end)
        )
        kind = self.types[self.job.extract.timestamp]
        if kind == "timestamptz":
            return SQL("({})").format(exact)
        # The exact condition converts the column, which no plain index serves; the wider one in front of it does.
        column = SQL("s.{}").format(Identifier(self.job.extract.timestamp))
        wider = SQL("{column} >= {start} and {column} < {end}").format(
            column=column,
            start=_wall(window.start, self.job, -A_DAY, kind),
            end=_wall(window.end, self.job, 2 * A_DAY, kind),
        )
        return SQL("({} and {})").format(wider, exact)

    def within_any(self, windows: Sequence[Window]) -> Composable:
        """Return the condition that a row's timestamp lies in one of `windows`."""
        return SQL("({})").format(SQL(" or ").join([self.within(window) for window in windows] or [SQL("false")]))


def _instant(moment: datetime) -> Composable:
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


@dataclass(frozen=True)
class Predicted:
    """The prediction table as the source's own session sees it, which it does when both are one database."""

    source: Source
    bounds: Window | None = None

    @property
    def exists(self) -> Composable:
        """The condition that the row `s` has a prediction (of the same edit, when edits count)."""
        return self._exists("p.source_changed_at is not distinct from {}")

    @property
    def exists_of_another_edit(self) -> Composable:
        """The condition that the row `s` was edited since it was predicted."""
        return self._exists("p.source_changed_at is distinct from {}")

    def _exists(self, about_edits: str) -> Composable:
        conditions: list[Composable] = [
            SQL("p.{0} = s.{0}").format(Identifier(name)) for name in self.source.job.extract.key
        ]
        if self.bounds is not None:
            start, end = _instant(self.bounds.start), _instant(self.bounds.end)
            conditions.append(SQL("p.source_timestamp >= {} and p.source_timestamp < {}").format(start, end))
        if self.source.edits_count:
            conditions.append(SQL(about_edits).format(self.source.changed_at))
        table = Identifier(*parse_table_name(self.source.job.load.table))
        return SQL("exists (select from {} as p where {})").format(table, _all(conditions))


@dataclass(frozen=True)
class Branch:
    """One part of the rows owed: which rows, and whether those before the window count as late."""

    condition: Composable
    may_be_late: bool = True


def select_rows(
    source: Source, window: Window, branches: Sequence[Branch], features: Sequence[Composable] = ()
) -> Composed:
    """Return the SELECT of the rows owed; the branches share no row."""

    def branch_select(branch: Branch) -> Composable:
        late = SQL("{} < {}").format(source.instant, _instant(window.start))
        columns = [
            *source.key_columns,
            SQL("{} as t").format(source.instant),
            SQL("{} as late").format(late if branch.may_be_late else SQL("false")),
            *([SQL("{} as c").format(source.changed_at)] if source.edits_count else []),
            *(SQL("{} as {}").format(feature, Identifier(f"f{i}")) for i, feature in enumerate(features)),
        ]
        return SQL("select {} from {} as s where {}").format(SQL(", ").join(columns), source.relation, branch.condition)

    return SQL("\nunion all\n").join([branch_select(branch) for branch in branches])


def select_features(contract: Contract, types: Mapping[str, str]) -> list[Composable]:
    """Return the model's columns in the form in which they travel; the contract was checked before."""
    return [SQL("s.{}{}").format(Identifier(c.name), SQL(c.cast(types[c.name]))) for c in contract.columns]


def select_keys(source: Source, condition: Composable) -> Composed:
    """Return the SELECT of only the keys (and edit times) of the rows that `condition` picks."""
    columns = [*source.key_columns, SQL("{} as t").format(source.instant)]
    if source.edits_count:
        columns.append(SQL("{} as c").format(source.changed_at))
    return SQL("select {} from {} as s where {}").format(SQL(", ").join(columns), source.relation, condition)


def select_predicted_keys(source: Source, window: Window) -> Composed:
    """Return the SELECT, for the target, of the keys that are predicted with a timestamp in `window`."""
    condition = SQL("p.source_timestamp >= {} and p.source_timestamp < {}")
    return _from_predictions(source, condition.format(_instant(window.start), _instant(window.end)))


def select_predictions_of(source: Source, keys: Sequence[Sequence[Any]]) -> Composed:
    """Return the SELECT, for the target, of the predictions that exist for `keys` (one sequence per key column)."""
    columns = SQL(", ").join([SQL("p.{}").format(Identifier(name)) for name in source.job.extract.key])
    return _from_predictions(source, SQL("({}) in ({})").format(columns, unnest(source, keys)))


def _from_predictions(source: Source, condition: Composable) -> Composed:
    columns: list[Composable] = [
        SQL("p.{}::{} as {}").format(Identifier(name), SQL(KEY_TYPES[kind][1]), Identifier(f"k{i}"))
        for i, (name, kind) in enumerate(zip(source.job.extract.key, source.key_types, strict=True))
    ]
    if source.edits_count:
        columns.append(SQL("p.source_changed_at as c"))
    table = Identifier(*parse_table_name(source.job.load.table))
    return SQL("select {} from {} as p where {}").format(SQL(", ").join(columns), table, condition)


def has_one_of(source: Source, keys: Sequence[Sequence[Any]]) -> Composable:
    """Return the condition that a row's key is among `keys`, or has a NULL and so cannot be compared."""
    columns = SQL(", ").join([SQL("s.{}").format(Identifier(name)) for name in source.job.extract.key])
    incomplete = SQL(" or ").join([SQL("s.{} is null").format(Identifier(name)) for name in source.job.extract.key])
    return SQL("(({}) in ({}) or {})").format(columns, unnest(source, keys), incomplete)


def unnest(source: Source, keys: Sequence[Sequence[Any]]) -> Composable:
    """Return the SELECT of given keys (one sequence per key column) as rows."""
    arrays = [
        SQL("{}::{}[]").format(Value(list(column)), SQL(KEY_TYPES[kind][0]))
        for column, kind in zip(keys, source.key_types, strict=True)
    ]
    return SQL("select * from unnest({})").format(SQL(", ").join(arrays))


def count_rows(source: Source, conditions: Sequence[Composable]) -> Composed:
    """Return the SELECT that counts the rows for which all `conditions` hold."""
    return SQL("select count(*) from {} as s where {}").format(source.relation, _all(conditions))


def select_oldest(source: Source, window: Window) -> Composed:
    """Return the SELECT of the first finite timestamp in `window`."""
    return SQL("select min({0}) from {1} as s where {2} and {0} > '-infinity'").format(
        source.instant, source.relation, source.within(window)
    )


def is_unique(source: Source) -> Composed:
    """Return the SELECT that tells whether the source itself guarantees that a key identifies one row."""
    if source.job.query is not None:
        return Composed([SQL("select false")])
    schema, table = parse_table_name(source.job.extract.table or "")
    return SQL(
        "select exists (select from pg_catalog.pg_index i"
        " where i.indrelid = format('%I.%I', {schema}::text, {table}::text)::regclass"
        " and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null"
        " and (select array_agg(a.attname::text) from pg_catalog.pg_attribute a where a.attrelid = i.indrelid"
        " and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])) <@ {key}::text[])"
    ).format(schema=Value(schema), table=Value(table), key=Value(list(source.job.extract.key)))


def can_read_predictions(source: Source) -> Composed:
    """Return the SELECT that tells whether this session may read the prediction table."""
    schema, table = parse_table_name(source.job.load.table)
    return SQL(
        "select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = {} and c.relname = {} and has_schema_privilege(n.oid, 'usage')"
        " and has_table_privilege(c.oid, 'select'))"
    ).format(Value(schema), Value(table))


def select_duplicate_keys(source: Source, condition: Composable) -> Composed:
    """Return the SELECT of the keys that more than one of the rows has."""
    complete = [SQL("s.{} is not null").format(Identifier(name)) for name in source.job.extract.key]
    places = SQL(", ").join([SQL(str(i + 1)) for i in range(len(source.job.extract.key))])
    return SQL("select {} from {} as s where {} group by {} having count(*) > 1").format(
        SQL(", ").join(source.key_columns), source.relation, _all([condition, *complete]), places
    )


def edited_before(source: Source, window: Window, ranges: Sequence[Window]) -> Composable:
    """Return the condition for rows of earlier windows that were edited about the time of `window`.

    `ranges` are those the run reads anyway. Each edit is met by the run whose window saw it happen, and by the
    runs within the job's `late_rows` after it, since an edit can be committed late like any other row.
    """
    late_rows = source.job.extract.late_rows
    since = window.start - late_rows if window.start - BEGINNING > late_rows else BEGINNING
    return _all(
        [
            SQL("{0} >= {1} and {0} < {2}").format(source.changed_at, _instant(since), _instant(window.end)),
            SQL("{} < {}").format(source.instant, _instant(window.start)),
            SQL("not {}").format(source.within_any(ranges)),
        ]
    )


def both(*conditions: Composable) -> Composable:
    """Return the condition that all of `conditions` hold."""
    return _all(conditions)


def no(condition: Composable) -> Composable:
    """Return the condition that `condition` does not hold."""
    return SQL("not {}").format(condition)


def _all(conditions: Sequence[Composable]) -> Composable:
    return SQL("({})").format(SQL(" and ").join(conditions))
