"""The prediction table: its columns, and the SQL that makes and fills it.

Pure. One source row has one current prediction, so the source's key is the primary key. When a row is scored again
the old prediction moves to `<table>_history` in the same transaction.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal

from plantao.config.job import PREDICTION_COLUMNS
from plantao.config.table_name import LONGEST
from plantao.extract.source import KEY_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.config.job import Job
    from plantao.config.table_name import Table
    from plantao.models.manifest import Output

STAGE = Identifier("plantao_stage")
# A table that is older than the setting that asks for one of these gets it, and keeps NULL in the rows it has.
ADDED = ("control_salt", "control_share")
OPTIONAL = ("source_changed_at", *ADDED)


@dataclass(frozen=True)
class PredictionTable:
    """The prediction table of a job: where it is and what each column holds."""

    job: str
    """Whose predictions they are."""
    name: Table
    keys: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    """Every column as (name, PostgreSQL type), the key's first, in the order of COPY."""
    timezone: str
    """The job's, which says where a day begins."""
    probabilities: bool
    """Whether a score is a probability, which the table then insists on."""
    shadow: bool = False
    """Whether it holds the predictions of versions beside the champion: one per row and version, without a history."""

    @property
    def identifier(self) -> Identifier:
        """The table's quoted name."""
        return Identifier(*self.name)

    @property
    def history(self) -> Identifier:
        """The quoted name of the table of replaced predictions."""
        return Identifier(*self.name.history)

    @property
    def tables(self) -> list[Identifier]:
        """The quoted names of the table and, where it has one, its history."""
        return [self.identifier] if self.shadow else [self.identifier, self.history]

    @property
    def owned(self) -> Sequence[Table]:
        """Every table that nobody else may write."""
        return [self.name] if self.shadow else self.name.written

    @property
    def column_names(self) -> Composable:
        """The quoted names of all columns, for an INSERT or COPY."""
        return SQL(", ").join([Identifier(name) for name, _ in self.columns])

    @property
    def unique(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        return (*self.keys, "model_version") if self.shadow else self.keys

    @property
    def unique_names(self) -> Composable:
        """The quoted names of the primary key's columns."""
        return SQL(", ").join([Identifier(name) for name in self.unique])

    @property
    def key_names(self) -> Composable:
        """The quoted names of the key columns."""
        return SQL(", ").join([Identifier(name) for name in self.keys])


def shadow_job(job: Job) -> Job:
    """Return the job as it would be for a version beside the champion: its predictions go to another table."""
    return job.model_copy(update={"load": job.load.model_copy(update={"table": job.load.table.shadow})})


def prediction_table(job: Job, key_types: Sequence[str], output: Output, *, shadow: bool = False) -> PredictionTable:
    """Return the prediction table that this job, source and model need."""
    columns = [(key, KEY_TYPES[kind][0]) for key, kind in zip(job.extract.key, key_types, strict=True)]
    columns.append(("source_timestamp", "timestamp with time zone"))
    if job.extract.on_change == "rescore":
        columns.append(("source_changed_at", "timestamp with time zone"))
    columns += [("prediction", output.prediction_type), ("score", "double precision")]
    if output.kind == "multiclass":
        columns.append(("scores", "jsonb"))
    columns += [
        ("model_version", "integer"),
        ("run_id", "bigint"),
        ("scored_at", "timestamp with time zone"),
        ("in_control_group", "boolean"),
    ]
    if job.measure.control_group > 0:
        columns += [("control_salt", "text"), ("control_share", "double precision")]
    return PredictionTable(
        job.name, job.load.table, job.extract.key, tuple(columns), job.timezone, output.kind != "regression", shadow
    )


def create(table: PredictionTable) -> list[Composed]:
    """Return the statements that create the table, its history and their indexes, where they are missing."""

    def definition(name: str, kind: str) -> Composable:
        optional = name in OPTIONAL
        return SQL("{} {}{}").format(Identifier(name), SQL(kind), SQL("" if optional else " not null"))

    columns = SQL(", ").join([definition(*column) for column in table.columns])
    # NaN is greater than every number in PostgreSQL, so a limit from above keeps it out too.
    possible = "score between 0 and 1" if table.probabilities else "abs(score) < 'infinity'"
    statements = [
        SQL("create table if not exists {} ({}, primary key ({}), constraint {} check ({}))").format(
            table.identifier, columns, table.unique_names, Identifier("score_is_possible"), SQL(possible)
        )
    ]
    # BRIN: predictions arrive in the order of their windows, and a btree would cost a quarter of the load.
    for column in ("source_timestamp", "run_id"):
        statements.append(  # noqa: PERF401 - three statements, one after the other
            SQL(
                "create index if not exists {} on {} using brin ({}) with (pages_per_range = 16, autosummarize = on)"
            ).format(_index(table, column), table.identifier, Identifier(column))
        )
    if table.shadow:
        return statements
    return [
        *statements,
        SQL(
            "create table if not exists {} ({}, replaced_at timestamp with time zone not null,"
            " replaced_by_run bigint not null)"
        ).format(table.history, columns),
        SQL("create index if not exists {} on {} ({})").format(
            _index(table, "history_key"), table.history, table.key_names
        ),
    ]


def let_read(table: PredictionTable, role: str) -> Composed:
    """Return the GRANT with which a role may read the table and its history."""
    return SQL("grant select on {} to {}").format(SQL(", ").join(table.tables), Identifier(role))


def hand_over(table: Identifier, role: str) -> Composed:
    """Return the statement that makes a role the owner of a table, so that all its members can work on it."""
    return SQL("alter table {} owner to {}").format(table, Identifier(role))


def _index(table: PredictionTable, suffix: str) -> Identifier:
    name = table.name.name.encode()
    if len(name) + 1 + len(suffix) > LONGEST:
        # PostgreSQL would cut a longer name silently; and of two tables that begin alike each has indexes of its own.
        mark = hashlib.sha256(name).hexdigest()[:8].encode()
        name = name[: LONGEST - len(suffix) - len(mark) - 2].decode(errors="ignore").encode() + b"_" + mark
    return Identifier(f"{name.decode()}_{suffix}")


def mismatches(table: PredictionTable, found: Mapping[str, str]) -> list[str]:
    """Return in what an existing table differs from the one needed; further columns of its own do not matter."""
    problems = []
    for name, kind in table.columns:
        if name not in found:
            if name in ADDED:
                continue
            problems.append(f"column {name!r} is missing")
        elif found[name] != kind and not (name in table.keys and {found[name], kind} <= {"text", "character varying"}):
            problems.append(f"column {name!r} is {found[name]}, needed is {kind}")
    return problems


def add_missing(table: PredictionTable, found: Mapping[str, str]) -> list[Composed]:
    """Return the statements that give an existing table and its history the columns that a new setting asks for."""
    missing = [(name, kind) for name, kind in table.columns if name in ADDED and name not in found]
    statement = "alter table {} add column if not exists {} {}"
    return [SQL(statement).format(each, Identifier(name), SQL(kind)) for each in table.tables for name, kind in missing]


def copy_into(target: Composable, table: PredictionTable) -> Composed:
    """Return the COPY of encoded rows into `target`, which has the table's columns."""
    return SQL("copy {} ({}) from stdin (format binary)").format(target, table.column_names)


def create_stage(table: PredictionTable) -> Composed:
    """Return the statement that makes the session's temporary table for rows that cannot be inserted directly."""
    return SQL("create temporary table {} on commit drop as select {} from {} with no data").format(
        STAGE, table.column_names, table.identifier
    )


def create_part(part: PredictionTable, table: PredictionTable) -> Composed:
    """Return the statement that makes the table of one part. Its rows are counted before anything rests on them."""
    return SQL("drop table if exists {0}; create unlogged table {0} as select {1} from {2} with no data").format(
        part.identifier, table.column_names, table.identifier
    )


def as_found(job: Job, found: Mapping[str, str], *, shadow: bool = False) -> PredictionTable:
    """Return a job's prediction table, which exists, from its columns, name to type."""
    keys = job.extract.key
    ours = [*keys, *PREDICTION_COLUMNS]
    columns = tuple((column, found[column]) for column in ours if column in found)
    return PredictionTable(job.name, job.load.table, keys, columns, job.timezone, False, shadow)


def insert(table: PredictionTable, stage: Identifier) -> Composed:
    """Return the INSERT of the staged rows; sorted, so that two can never deadlock and the index is filled in order."""
    return SQL("insert into {} ({}) select {} from {} order by {}").format(
        table.identifier, table.column_names, table.column_names, stage, table.unique_names
    )


def insert_missing(table: PredictionTable, stage: Identifier) -> Composed:
    """Return the INSERT of the staged rows that have no prediction yet."""
    return SQL("{} on conflict ({}) do nothing").format(insert(table, stage), table.unique_names)


def move_to_history(table: PredictionTable, run_id: int, stage: Identifier) -> Composed:
    """Return the statement that moves the predictions of the staged keys to the history, if the table has one.

    Its one row says how many were moved, how many of them this very run has made, and the local days, other than those
    of the staged rows, that they were on.
    """
    moved = Identifier("of another instant")
    old = SQL(", ").join([SQL("p.{}").format(Identifier(name)) for name, _ in table.columns])
    values = {
        "table": table.identifier, "stage": stage, "same": _same_key(table), "old": old, "moved": moved,
        "run": Literal(run_id), "zone": Literal(table.timezone), "columns": table.column_names,
    }  # fmt: skip
    kept: Composable = SQL("")
    if not table.shadow:
        kept = SQL(
            ", kept as (insert into {history} ({columns}, replaced_at, replaced_by_run)"
            " select {columns}, now(), {run} from old)"
        ).format(history=table.history, **values)
    return SQL(
        "with old as (delete from {table} as p using {stage} as n where {same}"
        " returning {old}, p.source_timestamp <> n.source_timestamp as {moved}){kept}"
        " select count(*), count(*) filter (where run_id = {run}), coalesce(array_agg(distinct"
        " (source_timestamp at time zone {zone})::date) filter (where {moved}), '{{}}') from old"
    ).format(kept=kept, **values)


def compare_unwritten(table: PredictionTable, run_id: int, stage: Identifier) -> Composed:
    """Return the SELECT, of one row, of what stands in the way of staged rows that were not inserted.

    How many staged rows have a prediction of this very run, those that were inserted included; and of how many the
    prediction is of a row with another timestamp.
    """
    return SQL(
        "select count(*) filter (where p.run_id = {run}),"
        " count(*) filter (where p.run_id <> {run} and p.source_timestamp <> n.source_timestamp)"
        " from {table} as p join {stage} as n on {same}"
    ).format(table=table.identifier, stage=stage, same=_same_key(table), run=Literal(run_id))


def select_conflicts(table: PredictionTable, run_id: int, stage: Identifier, limit: int) -> Composed:
    """Return the SELECT of a few staged rows whose prediction is of another timestamp: the key and both timestamps."""
    return SQL(
        "select to_jsonb(k), n.source_timestamp::text, p.source_timestamp::text from {table} as p join {stage} as n"
        " on {same}, lateral (select {key}) as k"
        " where p.run_id <> {run} and p.source_timestamp <> n.source_timestamp order by {key} limit {limit}"
    ).format(
        table=table.identifier,
        stage=stage,
        same=_same_key(table),
        run=Literal(run_id),
        key=SQL(", ").join([SQL("n.{}").format(Identifier(name)) for name in table.keys]),
        limit=Literal(limit),
    )


def _same_key(table: PredictionTable) -> Composed:
    return SQL(" and ").join([SQL("p.{0} = n.{0}").format(Identifier(name)) for name in table.unique])


def resolve_rejects(table: PredictionTable, job: str, run_id: int) -> Composed:
    """Return the UPDATE that closes the open rejects of the rows that this run has scored."""
    same = SQL(" and ").join(
        [
            SQL("p.{} = (r.key ->> {})::{}").format(Identifier(name), Literal(name), SQL(kind))
            for name, kind in table.columns[: len(table.keys)]
        ]
    )
    # A new run is beyond the statistics: as a literal it would stand for one row, and be joined by a nested loop.
    return SQL(
        "update rejected_rows as r set resolved_at = now(), resolved_by_run = p.run_id from {} as p"
        " where r.job = {} and r.resolved_at is null and p.run_id = (select {}::bigint) and {}"
    ).format(table.identifier, Literal(job), Literal(run_id), same)
