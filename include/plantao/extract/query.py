"""The SELECTs of a run: which rows are owed, and in which form they travel.

Pure. From the job, the source's column types and the windows to SQL that `psycopg2.sql` quotes. The columns of
every SELECT of rows are named by place, so that a name of the client's can never collide with one of ours:

    k0, k1, …   the key            t      the source timestamp, an instant
    late        before the window  c      when the row was last edited (on_change = "rescore")
    f0, f1, …   the features, in the order the model was trained on; of a run, see `packed`

*Already predicted* is decided by key and timestamp. Both sides are bounded by the timestamp, so that a day among ten
million predictions costs a day. A row whose key has a prediction of another timestamp is read; the unique index of the
prediction table then stops it, and it is counted as a conflict (see `load.conflicts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Composable, Composed, Identifier
from psycopg2.sql import Literal as Value

from plantao.extract.source import KEY_NATIVE, KEY_TYPES, Source, as_double, instant
from plantao.window import BEGINNING, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.models.contract import Contract, Kind

SAMPLE = 200_000


@dataclass(frozen=True)
class Predicted:
    """The prediction table as the source's own session sees it, which it does when both are one database.

    Within `bounds` a prediction counts for a row of its timestamp; without, for any row of its key.
    """

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
            SQL("p.{0} operator(pg_catalog.=) s.{0}").format(Identifier(name)) for name in self.source.job.extract.key
        ]
        if self.bounds is not None:
            # Not "=", which would be hashed for every row; this is compared only where the keys are the same.
            same = SQL("not p.source_timestamp operator(pg_catalog.<>) {}").format(self.source.instant)
            conditions += [same, _unseen_range(self.bounds)]
        if self.source.edits_count:
            conditions.append(SQL(about_edits).format(self.source.changed_at))
        return SQL("exists (select from {} as p where {}{})").format(
            self.source.predictions, _all(conditions), self.source.and_of_version
        )


def _unseen_range(bounds: Window) -> Composable:
    """Return the condition that a prediction `p` has a timestamp in `bounds`, whatever the statistics are.

    Predictions newer than the last ANALYZE are outside the histogram. With literal bounds PostgreSQL expects one row of
    them, and joins by a nested loop over all of them. It cannot see the result of a subquery while it plans, so it
    expects 0.5 % of the table; indexes still serve the range.
    """
    return SQL("p.source_timestamp >= (select {}) and p.source_timestamp < (select {})").format(
        instant(bounds.start), instant(bounds.end)
    )


@dataclass(frozen=True)
class Branch:
    """One part of the rows owed: which rows, and whether those before the window count as late."""

    condition: Composable
    may_be_late: bool = True


def select_rows(
    source: Source, window: Window, branches: Sequence[Branch], features: Sequence[Composable] = ()
) -> Composed:
    """Return the SELECT of the rows owed; the branches share no row, and `features` have names already."""

    def branch_select(branch: Branch) -> Composable:
        late = SQL("{} operator(pg_catalog.<) {}").format(source.instant, instant(window.start))
        columns = [
            *source.key_columns,
            SQL("{} as t").format(source.instant),
            SQL("{} as late").format(late if branch.may_be_late else SQL("false")),
            *([SQL("{} as c").format(source.changed_at)] if source.edits_count else []),
            *features,
        ]
        return SQL("select {} from {} as s where {}").format(SQL(", ").join(columns), source.relation, branch.condition)

    return SQL("\nunion all\n").join([branch_select(branch) for branch in branches])


def count_owed(source: Source, window: Window, branches: Sequence[Branch]) -> Composed:
    """Return the SELECT that counts the rows owed."""
    return SQL("select count(*) from (\n{}\n) as x").format(select_rows(source, window, branches))


def select_boundaries(source: Source, window: Window, branches: Sequence[Branch], rows: int, parts: int) -> Composed:
    """Return the SELECT of the keys, as text, at which `rows` owed rows are cut into about `parts` equal parts.

    Beyond SAMPLE rows every n-th key, by its hash, stands for the others: the sizes of the parts need not be exact.
    """
    natural = [
        SQL("k{}::{}").format(SQL(str(i)), SQL(KEY_NATIVE.get(kind, kind))) for i, kind in enumerate(source.key_types)
    ]
    names = [SQL("k{}").format(SQL(str(i))) for i in range(len(natural))]
    return SQL(
        "select {texts} from (select {names}, row_number() over (order by {order}) as place, count(*) over () as total"
        " from (\n{rows}\n) as x where {complete}"
        ' and (pg_catalog.hashtextextended(k0::text collate "C", 0) & 1048575::bigint) % {every}::bigint = 0)'
        " as y where place > 1 and (place - 1) * {parts}::bigint / total > (place - 2) * {parts}::bigint / total"
        " order by {order}"
    ).format(
        texts=SQL(", ").join([SQL("{0}::text as {0}").format(name) for name in names]),
        names=SQL(", ").join(names),
        order=SQL(", ").join(natural),
        rows=select_rows(source, window, branches),
        complete=_all([SQL("{} is not null").format(name) for name in names]),
        every=Value(max(1, rows // SAMPLE)),
        parts=Value(parts),
    )


@dataclass(frozen=True)
class Feature:
    """A column that a model reads, and the form in which it travels."""

    name: str
    type: str
    """Its PostgreSQL type in the source."""
    kind: Kind
    cast: str

    @property
    def column(self) -> Composable:
        """The column with its cast."""
        if self.kind == "float":
            return as_double(SQL("s.{}").format(Identifier(self.name)), self.type)
        return SQL("s.{}{}").format(Identifier(self.name), SQL(self.cast))


@dataclass(frozen=True)
class Features:
    """The columns that several models read, and none of them twice."""

    distinct: tuple[Feature, ...]
    places: tuple[tuple[int, ...], ...]
    """Per model: where in `distinct` its features are, in the order of its contract."""
    segments: tuple[int, ...] = ()
    """Where in `distinct` the segments are, as text."""

    @property
    def named(self) -> list[Composable]:
        """The columns, each with its name: f0, f1 and so on."""
        return [SQL("{} as {}").format(one.column, Identifier(f"f{i}")) for i, one in enumerate(self.distinct)]


def select_features(contracts: Sequence[Contract], types: Mapping[str, str], segments: Sequence[str] = ()) -> Features:
    """Return the columns of one or more models, whose contracts were checked before, and of the job's segments."""
    needed = [
        [Feature(c.name, types[c.name], c.kind, c.cast(types[c.name])) for c in contract.columns]
        for contract in contracts
    ]
    needed.append([Feature(name, types[name], "text", "" if types[name] == "text" else "::text") for name in segments])
    distinct = list(dict.fromkeys(feature for features in needed for feature in features))
    *places, of_segments = (tuple(distinct.index(feature) for feature in features) for features in needed)
    return Features(tuple(distinct), tuple(places), of_segments)


def select_keys(source: Source, condition: Composable) -> Composed:
    """Return the SELECT of only the keys (and edit times) of the rows that `condition` picks."""
    columns = [*source.key_columns, SQL("{} as t").format(source.instant)]
    if source.edits_count:
        columns.append(SQL("{} as c").format(source.changed_at))
    return SQL("select {} from {} as s where {}").format(SQL(", ").join(columns), source.relation, condition)


def select_predicted_keys(source: Source, window: Window) -> Composed:
    """Return the SELECT, for the target, of the keys that are predicted with a timestamp in `window`."""
    return _from_predictions(source, _predicted_in(window))


def _predicted_in(window: Window) -> Composable:
    return SQL("p.source_timestamp >= {} and p.source_timestamp < {}").format(
        instant(window.start), instant(window.end)
    )


def select_predictions_of(source: Source, keys: Sequence[Sequence[Any]]) -> Composed:
    """Return the SELECT, for the target, of the predictions that exist for `keys` (one sequence per key column)."""
    return _from_predictions(
        source, SQL("({}) in ({})").format(SQL(", ").join(source.key_of("p")), unnest(source, keys))
    )


def count_answers(source: Source, window: Window) -> Composed:
    """Return the SELECT, for the target, of how many predictions (n) each version (v) has in `window`."""
    statement = "select p.model_version as v, count(*) as n from {} as p where {} group by 1 order by 1"
    return SQL(statement).format(source.predictions, _predicted_in(window))


def select_answers(source: Source, window: Window, slice_: tuple[int, int]) -> Composed:
    """Return the SELECT, for the target, of the predictions with a timestamp in `window`, and what they say."""
    # A table has `scores` only when the model has several classes.
    several = SQL("to_jsonb(p) ->> 'scores' as every")
    columns = [SQL("p.model_version as v"), SQL("p.prediction as d"), SQL("p.score as s"), several]
    return SQL("select {} from {} as p where {} and {}").format(
        SQL(", ").join([*source.as_key_columns(source.key_of("p")), *columns]),
        source.predictions,
        _predicted_in(window),
        slice_of(source, "p", *slice_),
    )


def slice_of(source: Source, relation: str, number: int, of: int) -> Composable:
    """Return the condition that a row is in one of `of` slices, by the hash of its key; the same in any database."""
    if of == 1:
        return SQL("true")
    first, kind = source.key_of(relation)[0], KEY_TYPES[source.key_types[0]][1]
    return SQL(
        '(pg_catalog.hashtextextended(({}::{})::text collate "C", 0) & 1048575::bigint) % {}::bigint = {}::bigint'
    ).format(first, SQL(kind), Value(of), Value(number))


def _from_predictions(source: Source, condition: Composable) -> Composed:
    columns = [*source.as_key_columns(source.key_of("p")), SQL("p.source_timestamp as t")]
    if source.edits_count:
        columns.append(SQL("p.source_changed_at as c"))
    return SQL("select {} from {} as p where {}{}").format(
        SQL(", ").join(columns), source.predictions, condition, source.and_of_version
    )


def has_one_of(source: Source, keys: Sequence[Sequence[Any]]) -> Composable:
    """Return the condition that a row's key is among `keys`, or has a NULL and so cannot be compared."""
    key = source.key_of("s")
    incomplete = SQL(" or ").join([SQL("{} is null").format(column) for column in key])
    return SQL("(({}) operator(pg_catalog.=) any ({}) or {})").format(
        SQL(", ").join(key), unnest(source, keys), incomplete
    )


def unnest(source: Source, keys: Sequence[Sequence[Any]]) -> Composable:
    """Return the SELECT of given keys (one sequence per key column) as rows."""
    arrays = [
        SQL("{}::{}[]").format(Value(list(column)), SQL(KEY_TYPES[kind][0]))
        for column, kind in zip(keys, source.key_types, strict=True)
    ]
    # Of several arrays it is a form of SQL, which no function can stand in front of, and which allows no schema.
    function = SQL("pg_catalog.unnest" if len(arrays) == 1 else "unnest")
    return SQL("select * from {}({})").format(function, SQL(", ").join(arrays))


def count_rows(source: Source, conditions: Sequence[Composable]) -> Composed:
    """Return the SELECT that counts the rows for which all `conditions` hold."""
    return SQL("select count(*) from {} as s where {}").format(source.relation, _all(conditions))


def has_no_time(source: Source) -> Composable:
    """Return the condition that a row has no finite timestamp, and so belongs to no window; an index can serve it."""
    column, kind = Identifier(source.job.extract.timestamp), source.types[source.job.extract.timestamp]
    return SQL("(s.{0} is null or s.{0} operator(pg_catalog.=) any ('{{infinity,-infinity}}'::{1}[]))").format(
        column, SQL(kind)
    )


def lock_rows(source: Source, condition: Composable) -> Composed:
    """Return a SELECT that reads no row, and locks every relation that the rows for which `condition` holds lie in."""
    return SQL("select 1 from {} as s where {} limit 0").format(source.relation, condition)


def select_oldest(source: Source, window: Window) -> Composed:
    """Return the SELECT of the first finite timestamp in `window`."""
    return SQL(
        "select pg_catalog.min({0}) from {1} as s where {2} and {0} operator(pg_catalog.>) timestamptz '-infinity'"
    ).format(source.instant, source.relation, source.within(window))


def select_duplicate_keys(source: Source, conditions: Sequence[Composable]) -> Composed:
    """Return the SELECT of the keys that more than one row has of those that `conditions`, which share none, pick."""
    complete = [SQL("{} is not null").format(column) for column in source.key_of("s")]
    columns, one = SQL(", ").join(source.key_columns), SQL("select {} from {} as s where {}")
    rows = [one.format(columns, source.relation, _all([condition, *complete])) for condition in conditions]
    names = SQL(", ").join([SQL("k{}").format(SQL(str(i))) for i in range(len(complete))])
    every = SQL("\nunion all\n").join(rows)
    return SQL("select {0} from (\n{1}\n) as x group by {0} having count(*) > 1").format(names, every)


def edited_before(source: Source, window: Window, ranges: Sequence[Window]) -> Composable:
    """Return the condition for rows of earlier windows that were edited about the time of `window`.

    `ranges` are those the run reads anyway. Each edit is met by the run whose window saw it happen, and by the
    runs within the job's `late_rows` after it, since an edit can be committed late like any other row.
    """
    late_rows = source.job.extract.late_rows
    since = window.start - late_rows if window.start - BEGINNING > late_rows else BEGINNING
    return _all(
        [
            SQL("{0} operator(pg_catalog.>=) {1} and {0} operator(pg_catalog.<) {2}").format(
                source.changed_at, instant(since), instant(window.end)
            ),
            SQL("{} operator(pg_catalog.<) {}{}").format(source.instant, instant(window.start), source.and_in_keys),
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
