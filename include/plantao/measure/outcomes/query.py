"""The SELECTs that bring outcomes to the predictions: from the client's tables, and beside the prediction table.

Pure. On the source's side the columns are named by place, as in `extract.query`:

    k0, k1, …   the key             v            the outcome, a text or (regression) a number
    g0, g1, …   the segments        conflicting  outcomes that contradict each other
    acted       what the client did lag          whole days from the source timestamp to the outcome

They travel into the temporary table OUTCOMES of the target's session, where a join with the predictions makes SCORED.
A NULL is no outcome. Of several outcomes of a key the newest counts when the job says when they arrived; else, and
among several that arrived at the same moment, equal ones count once and others are *conflicting*: nobody knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Composable, Composed, Identifier
from psycopg2.sql import Literal as Value

from plantao.extract.source import INSTANT_TYPES, KEY_TYPES, as_double, instant
from plantao.measure.profile.bins import label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from plantao.config.job import Action, Outcome
    from plantao.config.table_name import Table as Name
    from plantao.extract.source import Source
    from plantao.models.manifest import Output
    from plantao.window import Window

OUTCOMES, SCORED = Identifier("pg_temp", "plantao_outcomes"), Identifier("pg_temp", "plantao_scored")
NUMBERS = ("int2", "int4", "int8", "float4", "float8", "numeric")
# Written out with a point or an exponent otherwise, so that the class 1 would not be the outcome 1.0.
FRACTIONS = ("float4", "float8", "numeric")
# Beyond, the fourth power of an error is no number any more.
LARGEST = 1e70


@dataclass(frozen=True)
class Reading:
    """What is read of the client's tables: rows, their outcomes and what was done with them."""

    source: Source
    outcome_types: Mapping[str, str]
    """The PostgreSQL type of each column of the outcome table."""
    action_types: Mapping[str, str]
    """The same of the action table; empty when the job has none."""
    as_number: bool
    """Whether the outcome is a quantity (regression) and no class."""

    @property
    def outcome(self) -> Outcome:
        """Where the job's outcomes are."""
        assert self.source.job.measure.outcome is not None
        return self.source.job.measure.outcome

    @property
    def action(self) -> Action | None:
        """Where it is written what the client did, if anywhere."""
        return self.source.job.measure.action

    @property
    def segments(self) -> tuple[str, ...]:
        """The source's columns by which the job's metrics are split."""
        return self.source.job.measure.segments

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The columns of OUTCOMES as (name, PostgreSQL type), in the order in which they travel."""
        keys = [(f"k{i}", KEY_TYPES[kind][0]) for i, kind in enumerate(self.source.key_types)]
        return [
            *keys,
            ("v", "double precision" if self.as_number else "text"),
            ("conflicting", "boolean"),
            ("acted", "boolean"),
            ("lag", "integer"),
            *((f"g{i}", "text") for i in range(len(self.segments))),
        ]


def select_all(table: Name) -> Composed:
    """Return the SELECT whose description tells the columns of a table."""
    return SQL("select * from {}").format(Identifier(*table))


def problems(reading: Reading) -> list[str]:
    """Return what is wrong with the columns that are to be read."""
    outcome, action, types = reading.outcome, reading.action, reading.outcome_types
    keys = reading.source.job.extract.key
    found = [f"segment column {name!r} is missing in the source" for name in reading.segments
             if name not in reading.source.types]  # fmt: skip
    needed = [("key", name) for name in outcome.key or keys] + [("outcome", outcome.column)]
    needed += [("arrived_at", outcome.arrived_at)] if outcome.arrived_at else []
    found += [f"{what} column {name!r} is missing in {outcome.table}" for what, name in needed if name not in types]
    kind = types.get(outcome.arrived_at or "")
    if kind is not None and kind not in INSTANT_TYPES:
        found.append(f"arrived_at column {outcome.arrived_at!r} is {kind}; accepted are {', '.join(INSTANT_TYPES)}")
    kind = types.get(outcome.column, "float8")
    if reading.as_number and kind not in NUMBERS:
        found.append(f"outcome column {outcome.column!r} is {kind}; what a regression predicts is a number")
    if action is not None:
        needed = [("key", name) for name in action.key or keys] + [("action", action.column)]
        missing = [(what, name) for what, name in needed if name not in reading.action_types]
        found += [f"{what} column {name!r} is missing in {action.table}" for what, name in missing]
        kind = reading.action_types.get(action.column, "bool")
        if kind != "bool":
            found.append(f"action column {action.column!r} is {kind}; accepted is boolean")
    return found


# --- on the source's side --------------------------------------------------------------------------------------------


def select_outcomes(reading: Reading, window: Window) -> Composed:
    """Return the SELECT of the rows with a timestamp in `window`, each once, with or without an outcome."""
    keys = [SQL("k{}").format(SQL(str(i))) for i in range(len(reading.source.job.extract.key))]
    groups = [SQL("pg_catalog.min(g{0}) as g{0}").format(SQL(str(i))) for i in range(len(reading.segments))]
    return SQL(
        "select {keys}, pg_catalog.min(v) as v, coalesce(pg_catalog.min(v) <> pg_catalog.max(v), false)"
        " as conflicting,"
        " pg_catalog.bool_or(acted) as acted, pg_catalog.min(lag) as lag{groups}"
        " from (\n{rows}\n) as x where place = 1 group by {keys}"
    ).format(
        keys=SQL(", ").join(keys),
        groups=SQL("").join([SQL(", {}").format(group) for group in groups]),
        rows=_joined(reading, [window]),
    )


def select_checks(reading: Reading, windows: Sequence[Window]) -> Composed:
    """Return the SELECT, for each local day in `windows`, of how many outcomes there are and a sum of their hashes."""
    groups = [SQL("g{}").format(SQL(str(i))) for i in range(len(reading.segments))]
    keys = [SQL("k{}").format(SQL(str(i))) for i in range(len(reading.source.job.extract.key))]
    return SQL(
        "select day, pg_catalog.count(v) as outcomes, (pg_catalog.sum(pg_catalog.hashtextextended("
        'row({told})::text collate "C", 0)) % 9007199254740991::numeric)::text'
        " as hash from (\n{rows}\n) as x group by day"
    ).format(
        told=SQL(", ").join([*keys, SQL("v"), SQL("arrived"), SQL("acted"), *groups]),
        rows=_joined(reading, windows),
    )


def _joined(reading: Reading, windows: Sequence[Window]) -> Composed:
    source, outcome, action = reading.source, reading.outcome, reading.action
    keys = source.key_of("s")
    arrived = SQL("null::timestamptz") if outcome.arrived_at is None else _arrived(reading)
    place = SQL("rank() over (partition by {} order by {} desc nulls last)").format(SQL(", ").join(keys), arrived)
    acted = SQL("null::boolean") if action is None else SQL("a.{}").format(Identifier(action.column))
    groups = [
        SQL('s.{}::text collate "C" as g{}').format(Identifier(name), SQL(str(i)))
        for i, name in enumerate(reading.segments)
    ]
    columns = [
        *source.key_columns,
        SQL("({} at time zone {})::date as day").format(source.instant, Value(source.job.timezone)),
        SQL("{} as v").format(_value(reading)),
        SQL("{} as arrived").format(arrived),
        SQL("{} as place").format(SQL("1") if outcome.arrived_at is None else place),
        SQL(
            "case when pg_catalog.isfinite({0}) then pg_catalog.floor("
            "extract(epoch from {0} operator(pg_catalog.-) {1}) / 86400::numeric)::integer end as lag"
        ).format(arrived, source.instant),
        SQL("{} as acted").format(acted),
        *groups,
    ]
    joins = SQL(" left join {} as o on {} and o.{} is not null").format(
        Identifier(*outcome.table), _same_key(reading, "o", outcome.key), Identifier(outcome.column)
    )
    if action is not None:
        joins += SQL(" left join {} as a on {}").format(Identifier(*action.table), _same_key(reading, "a", action.key))
    complete = SQL(" and ").join([SQL("{} is not null").format(key) for key in keys])
    return SQL("select {} from {} as s{} where {} and {}").format(
        SQL(", ").join(columns), source.relation, joins, source.within_any(windows), complete
    )


def _same_key(reading: Reading, name: str, key: Sequence[str] | None) -> Composable:
    pairs = zip(reading.source.key_of("s"), key or reading.source.job.extract.key, strict=True)
    return SQL(" and ").join(
        [SQL("{}.{} operator(pg_catalog.=) {}").format(SQL(name), Identifier(other), own) for own, other in pairs]
    )


def _value(reading: Reading) -> Composable:
    column: Composable = SQL("o.{}").format(Identifier(reading.outcome.column))
    kind = reading.outcome_types[reading.outcome.column]
    if reading.as_number:
        return as_double(column, kind)
    if kind in FRACTIONS:
        column = as_double(column, kind)
    return SQL('{}::text collate "C"').format(column)


def _arrived(reading: Reading) -> Composable:
    name = reading.outcome.arrived_at or ""
    column = SQL("o.{}").format(Identifier(name))
    if reading.outcome_types[name] == "timestamptz":
        return column
    return SQL("({}::timestamp at time zone {})").format(column, Value(reading.source.job.timezone))


# --- on the target's side --------------------------------------------------------------------------------------------


def create_outcomes(reading: Reading) -> Composed:
    """Return the statements that make OUTCOMES anew, empty; the session keeps it until they are run again."""
    columns = [SQL("{} {}").format(Identifier(name), SQL(kind)) for name, kind in reading.columns]
    return SQL("drop table if exists {0}; create temporary table {1} ({2})").format(
        OUTCOMES, Identifier(OUTCOMES.strings[-1]), SQL(", ").join(columns)
    )


def copy_outcomes(reading: Reading) -> Composed:
    """Return the COPY of encoded rows into OUTCOMES."""
    names = SQL(", ").join([Identifier(name) for name, _ in reading.columns])
    return SQL("copy {} ({}) from stdin (format binary)").format(OUTCOMES, names)


def labels(output: Output) -> Iterator[tuple[str, str]]:
    """Yield (an outcome as text, the class it means) for a version's classes; 1 and 0 are also true and false."""
    for value in output.classes:
        name = label(value)
        yield name, name
        if not isinstance(value, str) and value in {0, 1}:
            yield ("true" if value else "false") if name in {"0", "1"} else str(int(value)), name


@dataclass(frozen=True)
class Table:
    """A prediction table, as the tally needs to know it."""

    name: Identifier
    keys: tuple[str, ...]
    timezone: str
    has_shares: bool = False
    """Whether each prediction says by which share the control group was drawn."""

    @property
    def same_key(self) -> Composable:
        """The condition that a prediction `p` and an outcome `o` belong to the same row."""
        pairs = enumerate(self.keys)
        return SQL(" and ").join([SQL("p.{} = o.k{}").format(Identifier(key), SQL(str(i))) for i, key in pairs])

    @property
    def day(self) -> Composable:
        """The local day of a prediction `p`."""
        return SQL("(p.source_timestamp at time zone {})::date").format(Value(self.timezone))

    def within(self, window: Window) -> Composable:
        """Return the condition that a prediction `p` belongs to a row of `window`."""
        start, end = instant(window.start), instant(window.end)
        return SQL("p.source_timestamp >= {} and p.source_timestamp < {}").format(start, end)

    def block(self, count: int) -> Composable:
        """Return the number, from 0 to `count` - 1, of the block that a prediction `p` belongs to by its key."""
        key = SQL(", ").join([SQL("p.{}").format(Identifier(name)) for name in self.keys])
        # A seed of its own: the blocks must not fall together with anybody's partitions.
        return SQL(
            '((pg_catalog.hashtextextended(row({})::text collate "C", 5) & 1048575::bigint) % {}::bigint)'
        ).format(key, Value(count))


def count_predictions(table: Table, condition: Composable) -> Composed:
    """Return the SELECT of (day, version, rows, newest run) over the predictions for which `condition` holds."""
    return SQL(
        "select {} as day, p.model_version, count(*), max(p.run_id) from {} as p where {} group by 1, 2 order by 1, 2"
    ).format(table.day, table.name, condition)


def known_classes(outputs: Mapping[int, Output]) -> Composable:
    """Return the relation of (version, outcome as text, class, whether it is the positive one)."""
    rows = [
        SQL("({}, {}, {}, {})").format(Value(version), Value(text), Value(name), Value(name == positive))
        for version, output in outputs.items()
        for positive in [label(output.positive)]
        for text, name in labels(output)
    ]
    return SQL("(values {}) as c (version, text, label, positive)").format(SQL(", ").join(rows))
