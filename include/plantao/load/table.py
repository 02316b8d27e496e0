"""The prediction table: its columns, and the SQL that makes and fills it.

Pure. One source row has one current prediction, so the source's key is the primary key. When a row is scored again
the old prediction moves to `<table>_history` in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal

from plantao.extract.source import KEY_TYPES
from plantao.job import PREDICTION_COLUMNS
from plantao.job_types import parse_table_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.job import Job
    from plantao.score.manifest import Output

STAGE = Identifier("plantao_stage")
# A table that is older than the setting that asks for one of these gets it, and keeps NULL in the rows it has.
ADDED = ("control_salt", "control_share")
OPTIONAL = ("source_changed_at", *ADDED)


@dataclass(frozen=True)
class PredictionTable:
    """The prediction table of a job: where it is and what each column holds."""

    schema: str
    name: str
    keys: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    """Every column as (name, PostgreSQL type), the key's first, in the order of COPY."""
    probabilities: bool
    """Whether a score is a probability, which the table then insists on."""
    shadow: bool = False
    """Whether it holds the predictions of versions beside the champion: one per row and version, without a history."""

    @property
    def shown(self) -> str:
        """The table as people write it."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> Identifier:
        """The table's quoted name."""
        return Identifier(self.schema, self.name)

    @property
    def history(self) -> Identifier:
        """The quoted name of the table of replaced predictions."""
        return Identifier(self.schema, f"{self.name}_history")

    @property
    def tables(self) -> list[Identifier]:
        """The quoted names of the table and, where it has one, its history."""
        return [self.identifier] if self.shadow else [self.identifier, self.history]

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
    return job.model_copy(update={"load": job.load.model_copy(update={"table": f"{job.load.table}_shadow"})})


def prediction_table(job: Job, key_types: Sequence[str], output: Output, *, shadow: bool = False) -> PredictionTable:
    """Return the prediction table that this job, source and model need."""
    schema, name = parse_table_name(job.load.table)
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
    return PredictionTable(schema, name, job.extract.key, tuple(columns), output.kind != "regression", shadow)


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
    # PostgreSQL would cut a longer name silently, and two cut names could be the same.
    return Identifier(f"{table.name.encode()[: 62 - len(suffix)].decode(errors='ignore')}_{suffix}")


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


def as_found(
    schema: str, name: str, keys: Sequence[str], found: Mapping[str, str], *, shadow: bool = False
) -> PredictionTable:
    """Return an existing prediction table from its columns, name to type."""
    ours = [*keys, *PREDICTION_COLUMNS]
    columns = tuple((column, found[column]) for column in ours if column in found)
    return PredictionTable(schema, name, tuple(keys), columns, probabilities=False, shadow=shadow)


def insert(table: PredictionTable, stage: Identifier) -> Composed:
    """Return the INSERT of the staged rows; sorted, so that two can never deadlock and the index is filled in order."""
    return SQL("insert into {} ({}) select {} from {} order by {}").format(
        table.identifier, table.column_names, table.column_names, stage, table.unique_names
    )


def insert_missing(table: PredictionTable, stage: Identifier) -> Composed:
    """Return the INSERT of the staged rows that have no prediction yet."""
    return SQL("{} on conflict ({}) do nothing").format(insert(table, stage), table.unique_names)


def move_to_history(table: PredictionTable, run_id: int, stage: Identifier) -> Composed:
    """Return the statement that moves the predictions of the staged keys to the history, if the table has one."""
    same = SQL(" and ").join([SQL("p.{0} = n.{0}").format(Identifier(name)) for name in table.unique])
    if table.shadow:
        return SQL("delete from {} as p using {} as n where {}").format(table.identifier, stage, same)
    old = SQL(", ").join([SQL("p.{}").format(Identifier(name)) for name, _ in table.columns])
    return SQL(
        "with old as (delete from {} as p using {} as n where {} returning {})"
        " insert into {} ({}, replaced_at, replaced_by_run) select old.*, now(), {} from old"
    ).format(table.identifier, stage, same, old, table.history, table.column_names, SQL(str(int(run_id))))


def resolve_rejects(table: PredictionTable, job: str, run_id: int) -> Composed:
    """Return the UPDATE that closes the open rejects of the rows that this run has scored."""
    same = SQL(" and ").join(
        [
            SQL("p.{} = (r.key ->> {})::{}").format(Identifier(name), Literal(name), SQL(kind))
            for name, kind in table.columns[: len(table.keys)]
        ]
    )
    return SQL(
        "update rejected_rows as r set resolved_at = now(), resolved_by_run = p.run_id from {} as p"
        " where r.job = {} and r.resolved_at is null and p.run_id = {} and {}"
    ).format(table.identifier, Literal(job), Literal(run_id), same)
