"""A job as one frozen value.

Pure. The six sections are the six steps of a run, in their order. The grammar is pydantic's, so that
`plantao jobs schema` can print it as JSON Schema ; `job_file` reads a file into it.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints

from plantao.config.field_types import (
    SCHEDULES,
    ColumnName,
    ColumnNames,
    ConnectionName,
    Duration,
    Moment,
    Share,
    TableName,
    TargetName,
    Text,
    accept_schedule,
    accept_timezone,
    localise,
    unique,
)

JOB_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
METRICS = (
    *("roc_auc", "average_precision", "accuracy", "precision", "recall", "f1"),
    *("log_loss", "brier", "calibration", "bias"),
    *("mae", "rmse", "r2", "error_quantiles"),
)
# What is looked at in every run, besides the contract (see `measure.breaks`).
CHECKS = ("row_count", "null_share", "unseen_share", "frozen_column", "range", "score")
# What a prediction row carries besides the source's key. A key column may not have one of these names.
PREDICTION_COLUMNS = (
    "source_timestamp",
    "source_changed_at",
    "prediction",
    "score",
    "scores",
    "model_version",
    "run_id",
    "scored_at",
    "in_control_group",
    "control_salt",
    "control_share",
    "replaced_at",
    "replaced_by_run",
)


class Section(BaseModel):
    """One section of a job file: unknown keys are mistakes and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


# --- the six sections ------------------------------------------------------------------------------------------------


class Extract(Section):
    """Which rows the job reads."""

    connection: ConnectionName = "client_db"
    """An Airflow connection id; outside Airflow the variable AIRFLOW_CONN_<ID> in capitals."""
    table: TableName | None = None
    """The table or view to read. Exactly one of table, query and query_file."""
    query: Text | None = None
    """One SELECT, used as a subquery."""
    query_file: Text | None = None
    """The file of one SELECT, beside the job file."""
    key: ColumnNames
    """The columns that identify a source row."""
    timestamp: ColumnName
    """The column that decides which window a row belongs to."""
    late_rows: Duration = timedelta(days=3)
    """How far back each run looks for rows that were committed late."""
    on_change: Literal["keep", "rescore"] = "keep"
    """What happens to a row that was edited after it was scored."""
    changed_at: ColumnName | None = None
    """The column that moves when a row is edited; needed for "rescore"."""
    reconcile: Literal["daily", "weekly", "monthly", "never"] = "monthly"
    """How often the whole history is compared with the predictions, and what is owed is repaired."""


class ColumnRule(Section):
    """A limit on one column, on top of the contract stored with the model."""

    min: float | None = None
    max: float | None = None
    nullable: bool | None = None
    """Whether a NULL may pass: false sets such rows aside; true lets them reach a model that never saw one."""
    values: tuple[str | int | bool, ...] | None = None
    """The only values that may pass."""


class Validate(Section):
    """When rows are set aside, and when a run stops."""

    at_least_rows: Annotated[int, Field(ge=0)] = 0
    """Fewer rows in a window is worth an alert: the client may have stopped feeding."""
    at_most_rejected: Share = 0.05
    """A larger share of rows set aside stops the run, and nothing becomes visible."""
    keep_rejected_rows: bool = False
    """Whether a reject keeps the whole row, which may hold personal data."""
    block: Annotated[tuple[Literal[CHECKS], ...], AfterValidator(unique)] = ()  # type: ignore[valid-type]
    """Checks that stop the run instead of only raising an alarm: nothing becomes visible until someone decides."""
    columns: dict[ColumnName, ColumnRule] = {}


class Score(Section):
    """Which model scores the rows."""

    model: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    """A name in the model store."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Binary classifiers: the score at and above which the positive class is predicted."""
    parts: Annotated[int, Field(ge=1, le=1000)] | None = None
    """In Airflow, cut each window into so many parts, which any number of workers score."""
    rows_per_part: Annotated[int, Field(ge=1)] | None = None
    """In Airflow, cut each window into parts of about so many rows. At most one of parts and rows_per_part."""

    @property
    def fans_out(self) -> bool:
        """Whether any number of workers share a window."""
        return self.parts is not None or self.rows_per_part is not None


class Load(Section):
    """Where the predictions go."""

    connection: ConnectionName = "client_db"
    """May be another database than the source."""
    table: TargetName


class Outcome(Section):
    """Where it is written what really happened."""

    table: TableName
    key: ColumnNames | None = None
    """The columns that match [extract].key, in its order (default: the same names)."""
    column: ColumnName
    known_after: Duration = timedelta(days=1)
    """How long after a row's timestamp its outcome is expected."""
    mature_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The share of a day's predictions whose outcome must be known before the day is judged."""
    arrived_at: ColumnName | None = None
    """The column that tells when an outcome became known; of several outcomes of a key the newest counts."""


class Action(Section):
    """Where it is written what the client really did with a prediction."""

    table: TableName
    key: ColumnNames | None = None
    """The columns that match [extract].key, in its order (default: the same names)."""
    column: ColumnName
    """A boolean: whether the client acted."""


class Worth(Section):
    """What one decision is worth to the business when this is what really happened."""

    prediction: bool | int | str
    outcome: bool | int | str
    value: float


class Objective(Section):
    """The business metric. Exactly one of sql and values."""

    name: Text
    sql: Text | None = None
    """One SELECT that gives one number, over the rows of `scored`: the predictions joined with their outcomes."""
    values: Annotated[tuple[Worth, ...], Field(min_length=1)] | None = None
    """What each pair of decision and outcome is worth; pairs that are not listed are worth 0."""


class Measure(Section):
    """How the job is judged."""

    outcome: Outcome | None = None
    objective: Objective | None = None
    metrics: Annotated[tuple[Literal[METRICS], ...], AfterValidator(unique)] = ()  # type: ignore[valid-type]
    segments: Annotated[tuple[ColumnName, ...], AfterValidator(unique)] = ()
    """Columns by whose values the metrics are split."""
    control_group: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of keys, by a stable hash, marked so that the model's own effect can be told apart."""
    action: Action | None = None


class Degraded(Section):
    """A limit of the owner's own: the metric beyond it in `runs` of the last `of` runs."""

    metric: Literal[*METRICS, "objective"]  # type: ignore[valid-type]
    below: float | None = None
    above: float | None = None
    runs: Annotated[int, Field(ge=1)] = 1
    of: Annotated[int, Field(ge=1)] | None = None


class Alert(Section):
    """Who is told, where, and when."""

    channel: Annotated[str, StringConstraints(pattern=r"^[#@]?[\w.\-]{1,80}$")] | None = None
    digest: Literal["minutely", "hourly", "daily"] = "hourly"
    language: Literal["en", "pt"] = "en"
    late_after: Duration = timedelta(hours=6)
    """No successful run this long after a window closed is an alert."""
    remind: Duration = timedelta(days=1)
    """An incident that stays open, and that nobody has acknowledged, is told again this often."""
    redact: bool = True
    """Nothing of a row but its key leaves: values that a message quotes are left out."""
    degraded: tuple[Degraded, ...] = ()
    effect_margin: Annotated[float, Field(ge=0)] = 0.02
    """A loss worse than the reference by this share, or an AUC lower by it, is *degraded*; less is *watch*."""


class Job(Section):
    """A declared scoring job: one file."""

    description: str = ""
    owner: str = ""
    schedule: Annotated[str, AfterValidator(accept_schedule)] = "on demand"
    """"daily", "weekly" (from Monday), "monthly", a cron expression of five fields, or "on demand"."""
    timezone: Annotated[str, AfterValidator(accept_timezone)] = "UTC"
    starts: Moment | None = None
    """The first window starts here; windows that were missed are caught up."""
    ends: Moment | None = None
    """No window is due after this: for a job that is retired, or a demo."""
    extract: Extract
    validation: Annotated[Validate, Field(alias="validate")] = Validate()
    score: Score
    load: Load
    measure: Measure = Measure()
    alert: Alert = Alert()

    _name: str = PrivateAttr(default="")
    _query: str | None = PrivateAttr(default=None)

    def named(self, name: str, query: str | None) -> Self:
        """Return the job once it knows its name and the text of its query; called by who has read the file."""
        self._name, self._query = name, query
        return self

    @property
    def name(self) -> str:
        """The job's name, which is its file's."""
        return self._name

    @property
    def query(self) -> str | None:
        """The source's SELECT when the job has one, wherever it was written; None for a plain table."""
        return self._query

    @property
    def cron(self) -> str | None:
        """The schedule as a cron expression in the job's time zone; None on demand."""
        return SCHEDULES.get(self.schedule, None if self.schedule == "on demand" else self.schedule)

    @property
    def zone(self) -> ZoneInfo:
        """The job's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def starts_at(self) -> datetime | None:
        """The instant before which no window is due, in UTC."""
        return None if self.starts is None else localise(self.starts, self.zone)

    @property
    def ends_at(self) -> datetime | None:
        """The instant after which no window is due, in UTC."""
        return None if self.ends is None else localise(self.ends, self.zone)
