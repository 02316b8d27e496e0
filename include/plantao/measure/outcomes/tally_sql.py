"""The SQL that adds predictions and outcomes up, to the JSON that `daily_outcomes.state` holds.

Pure. SCORED has one row per prediction: day, version, decision, score, control, share, acted, lag, conflicting, given
(there is an outcome), label (NULL: not known, conflicting or unusable), y (binary: 0 or 1; regression: the outcome) and
the segments g0, g1, …. One scan puts it into cells; everything else is made of the cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Composable, Composed, Identifier
from psycopg2.sql import Literal as Value

from plantao.measure.outcomes.query import LARGEST, OUTCOMES, SCORED, known_classes
from plantao.measure.profile.bins import label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.measure.outcomes.query import Table
    from plantao.models.manifest import Output
    from plantao.window import Window

MISSING, OTHER = "(missing)", "(other)"
MOST_VALUES = 50
LONGEST_VALUE = 100
SMALLEST = "1e-70::float8"
GROUP = SQL("version, day, segment")


def create_scored(
    table: Table, window: Window, outputs: Mapping[int, Output], segments: int, part: tuple[int, int]
) -> Composed:
    """Return the statements that make SCORED anew from the predictions of `window`.

    `outputs` are the versions to be counted, all of one kind; `part` is (number, count): only that share of the keys.
    """
    kind = next(iter(outputs.values())).kind
    groups = [SQL("o.g{}").format(SQL(str(i))) for i in range(segments)]
    of_kind = _numbers() if kind == "regression" else _classes(outputs, scores=kind == "multiclass")
    return SQL(
        "drop table if exists {scored}; create temporary table {name} as select {day} as day,"
        " p.model_version as version, p.score, p.in_control_group as control, {share} as share, o.acted, o.lag,"
        " coalesce(o.conflicting, false) as conflicting, o.v is not null as given, {columns}"
        " from {predictions} as p left join {outcomes} as o on {same_key}{joins}"
        " where {within} and p.model_version = any({versions}) and {block} = {number}"
    ).format(
        scored=SCORED,
        name=Identifier(SCORED.strings[-1]),
        day=table.day,
        # NULL in rows that are older than the control group.
        share=SQL("coalesce(p.control_share, 0)") if table.has_shares else SQL("0::float8"),
        columns=SQL(", ").join([of_kind[0], *groups]),
        predictions=table.name,
        outcomes=OUTCOMES,
        same_key=table.same_key,
        joins=of_kind[1],
        within=table.within(window),
        versions=Value(list(outputs)),
        block=table.block(part[1]) if part[1] > 1 else SQL("0"),
        number=Value(part[0]),
    )


def _classes(outputs: Mapping[int, Output], *, scores: bool) -> tuple[Composable, Composable]:
    columns = SQL(
        "p.prediction::text as decision, case when not o.conflicting then c.label end as label,"
        " case when not o.conflicting then c.positive::integer end as y, least(floor(p.score * 200), 199)::integer"
        " as bin{}"
    ).format(SQL(", p.scores" if scores else ""))
    join = SQL(" left join {} on c.version = p.model_version and c.text = o.v").format(known_classes(outputs))
    return columns, join


def _numbers() -> tuple[Composable, Composable]:
    # NaN is greater than every number in PostgreSQL, so it is kept out too.
    usable = SQL("not o.conflicting and abs(o.v) < {0} and abs(p.score) < {0}").format(Value(LARGEST))
    return SQL("case when {} then o.v end as y").format(usable), SQL("")


# --- segments --------------------------------------------------------------------------------------------------------


def frequent_values(place: int) -> Composed:
    """Return the SELECT of a segment's most frequent values in SCORED, most frequent first."""
    return SQL("select {0} from {1} where length({0}) <= {2} group by 1 order by count(*) desc, 1 limit {3}").format(
        SQL(f"g{place}"), SCORED, Value(LONGEST_VALUE), Value(MOST_VALUES)
    )


def known_values(job: str, column: str) -> Composed:
    """Return the SELECT of a segment's values that were counted before, most frequent first."""
    prefix = f"{column}="
    return SQL(
        "select substr(segment, {place}) from daily_outcomes where job = {job} and starts_with(segment, {prefix})"
        " and substr(segment, {place}) not in ({missing}, {other}) group by 1 order by sum(rows) desc, 1 limit {most}"
    ).format(
        place=Value(len(prefix) + 1), job=Value(job), prefix=Value(prefix), missing=Value(MISSING),
        other=Value(OTHER), most=Value(MOST_VALUES),
    )  # fmt: skip


def segments_of(values: Mapping[str, Sequence[str]], *, arms: bool, actions: bool) -> Composed:
    """Return the array of the segments that a row of SCORED belongs to; a NULL in it is none.

    `values` are, for each segment column in its order, the values that are counted on their own.
    """
    parts: list[Composable] = [SQL("''")]
    for i, (column, listed) in enumerate(values.items()):
        parts.append(
            SQL("{0} || case when {1} is null then {2} when {1} = any({3}::text[]) then {1} else {4} end").format(
                Value(f"{column}="), SQL(f"g{i}"), Value(MISSING), Value(list(listed)), Value(OTHER)
            )
        )
    if arms:
        parts.append(SQL("case when share > 0 then case when control then '@control' else '@treated' end end"))
    if actions:
        parts.append(SQL("case when acted then '@acted' when not acted then '@not_acted' end"))
    return SQL("array[{}]::text[]").format(SQL(", ").join(parts))


# --- sums ------------------------------------------------------------------------------------------------------------


def select_states(outputs: Mapping[int, Output], segments: Composable, *, lags: bool) -> Composed:
    """Return the SELECT of (version, day, segment, rows, labelled, state) over SCORED."""
    kind = next(iter(outputs.values())).kind
    rows = SQL("select t.*, e.segment from {} as t cross join lateral unnest({}) as e (segment)").format(
        SCORED, segments
    )
    rows = SQL("x as not materialized ({} where e.segment is not null)").format(rows)
    tables, fields, last = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}[kind](outputs)
    entries = [SQL("'kind', {}::text").format(Value(kind)), *fields]
    entries += [SQL("'conflicting', sum(conflicting)"), SQL("'unusable', sum(unusable)")]
    total = SQL("select {}, sum(n)::bigint as rows, sum(labelled)::bigint as labelled, jsonb_build_object({}) || {}"
                " as state from cells group by {}").format(GROUP, SQL(", ").join(entries), ASSIGNED, GROUP)  # fmt: skip
    joined = [*last]
    if lags:
        tables = [*tables, *_counts("lags", SQL("lag::text"), SQL("x where y is not null and lag is not null"))]
        joined.append("lags")
    state = SQL(" || ").join([SQL("t.state"), *(
        SQL("jsonb_build_object({}, coalesce({}.o, '{{}}'::jsonb))").format(Value(name), Identifier(name))
        for name in joined)])  # fmt: skip
    return SQL("with {}, total as ({}) select {}, t.rows, t.labelled, {} from total as t {}").format(
        SQL(", ").join([rows, *tables]), total, GROUP, state,
        SQL(" ").join([SQL("left join {} using ({})").format(Identifier(name), GROUP) for name in joined]),
    )  # fmt: skip


# How many control rows are to be expected of rows drawn each by its own share, and the variance of that.
ASSIGNED = SQL(
    "case when segment in ('@control', '@treated') then jsonb_build_object('assigned',"
    " jsonb_build_array(sum(expected), sum(variance))) else '{}'::jsonb end"
)


def _counts(name: str, by: Composable, of: Composable, count: str = "count(*)") -> list[Composable]:
    """Return the relation of an object of counts by `by`, for each group."""
    inner = SQL("select {}, {} as b, {} as n from {} group by 1, 2, 3, 4")
    return [
        SQL("{} as (select {}, jsonb_object_agg(b, n) as o from ({}) as c group by {})").format(
            Identifier(name), GROUP, inner.format(GROUP, by, SQL(count), of), GROUP
        )
    ]


def _cells(by: Sequence[str], squared: Mapping[str, str], plain: Mapping[str, str] | None = None) -> Composable:
    """Return the relation of the cells.

    `by` are expressions that may end in "as name". Of the `squared` ones the sum of squares is kept too. All of them
    are NULL where the outcome is not known.
    """
    added = [f"coalesce(sum({one}), 0) as {name}" for name, one in {**squared, **(plain or {})}.items()]
    added += [f"coalesce(sum({_square(one)}), 0) as {name}2" for name, one in squared.items()]
    return SQL(
        "cells as (select {}, {}, count(*) as n, count(y) as labelled, count(*) filter (where conflicting) as"
        " conflicting, count(*) filter (where given and not conflicting and y is null) as unusable, sum(share) as"
        " expected, sum(share * (1 - share)) as variance, {} from x"
        " group by {}, {})"
    ).format(GROUP, SQL(", ".join(by)), SQL(", ".join(added)), GROUP,
             SQL(", ".join(one.split(" as ")[-1] for one in by)))  # fmt: skip


def _square(one: str) -> str:
    """Return the square of a number; one so small that its square would be none is 0, or PostgreSQL refuses it."""
    return f"(case when abs({one}) <= {SMALLEST} then 0 else {one} end) ^ 2"


def _pairs(*names: str) -> Composable:
    pairs = ", ".join(f"'{name}', jsonb_build_array(sum({name}), sum({name}2))" for name in names)
    return SQL("'sums', jsonb_build_object({})").format(SQL(pairs))


Parts = tuple[list[Composable], list[Composable], list[str]]
CLIPPED = "greatest(least({}, 0.999999999999999::float8), 1e-15::float8)"


def _binary(_: Mapping[int, Output]) -> Parts:
    p = CLIPPED.format("score")
    sums = {
        "log_loss": f"-case y when 1 then ln({p}) when 0 then ln(1 - {p}) end",
        "squared_error": _square("score - y"),
        "residual": "score - y",
    }
    plain = {
        "ones": "y",
        "negative": "case y when 0 then score end",
        "positive": "case y when 1 then score end",
    }
    by_bin = SQL(
        "by_bin as (select {0}, bin, jsonb_object_agg(decision, jsonb_build_array(labelled - ones, ones, negative,"
        " positive)) as o from cells where labelled > 0 group by {0}, bin),"
        " bins as (select {0}, jsonb_object_agg(bin, o) as o from by_bin group by {0})"
    ).format(GROUP)
    cells = _cells(["bin", "decision"], sums, plain)
    decided = _counts("decided", SQL("decision"), SQL("cells"), "sum(n)")
    return [cells, by_bin, *decided], [_pairs("log_loss", "squared_error", "residual")], ["decided", "bins"]


def _multiclass(outputs: Mapping[int, Output]) -> Parts:
    classes = SQL("(values {}) as k (of_version, class)").format(SQL(", ").join(
        [SQL("({}, {})").format(Value(version), Value(label(one)))
         for version, output in outputs.items() for one in output.classes]))  # fmt: skip
    p = CLIPPED.format("(scores ->> label)::float8")
    apart = _square("value::float8 - (key = label)::integer")
    squares = f"(select sum({apart}) from jsonb_each_text(scores))"
    sums = {"log_loss": f"case when y is not null then -ln({p}) end",
            "squared_error": f"case when y is not null then {squares} end"}  # fmt: skip
    confusion = SQL(
        "by_decision as (select {0}, decision, jsonb_object_agg(label, n) as o from cells where label is not null"
        " group by {0}, decision),"
        " confusion as (select {0}, jsonb_object_agg(decision, o) as o from by_decision group by {0})"
    ).format(GROUP)
    bins = SQL(
        "spread as (select {0}, class, least(floor((scores ->> class)::float8 * 200), 199)::integer as b,"
        " jsonb_build_array(count(*) filter (where label <> class), count(*) filter (where label = class)) as o"
        " from x join {1} on of_version = version where label is not null group by 1, 2, 3, 4, 5),"
        " by_class as (select {0}, class, jsonb_object_agg(b, o) as o from spread group by {0}, class),"
        " bins as (select {0}, jsonb_object_agg(class, o) as o from by_class group by {0})"
    ).format(GROUP, classes)
    decided = _counts("decided", SQL("decision"), SQL("cells"), "sum(n)")
    tables = [_cells(["decision", "label"], sums), confusion, bins, *decided]
    return tables, [_pairs("log_loss", "squared_error")], ["decided", "confusion", "bins"]


def _regression(_: Mapping[int, Output]) -> Parts:
    sums = {"absolute_error": "abs(score - y)", "squared_error": _square("score - y"), "residual": "score - y",
            "outcome": "y"}  # fmt: skip
    size = (
        "case when score = y then 'zero' else ceil(ln(nullif(abs(score - y), 0)) / ln(1.02::float8))::integer::text end"
    )
    cells = _cells([f"{size} as size"], sums)
    errors = _counts("errors", SQL("size"), SQL("cells where size is not null"), "sum(n)")
    return [cells, *errors], [_pairs(*sums)], ["errors"]
