"""Job files: TOML text in, a `Job` out, or all mistakes of the file at once.

Only `read_folder` and `read_file` touch the disk. The complaints are written here and not by pydantic, because
a person has to act on them: `file, [section] key: what was found; what is accepted`.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import tomllib
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from plantao.config import job
from plantao.config.field_types import localise
from plantao.config.job import JOB_NAME, PREDICTION_COLUMNS, Extract, Job
from plantao.errors import JobFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from plantao.config.table_name import Table


SECTIONS = {"extract", "validate", "score", "load", "measure", "alert"}


def read_folder(folder: Path) -> dict[str, Job | JobFileError]:
    """Read every job file of `folder`, each alone, so that a broken one harms no other.

    Returns the jobs by name, in alphabetical order; in the place of a broken one stands its error. Of jobs that share a
    table each is broken, since no file says whose the table is.
    """
    found: dict[str, Job | JobFileError] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            found[path.stem] = read_file(path)
        except JobFileError as error:
            found[path.stem] = error
    jobs = [job for job in found.values() if isinstance(job, Job)]
    shared = shared_tables(jobs, lambda job: job.load.connection)
    return found | {name: JobFileError(f"{name}.toml", complaints) for name, complaints in shared.items()}


def read_job(folder: Path, name: str) -> Job:
    """Read the job called `name`. Raises UsageError, with the nearest name, when there is none.

    The other files are read too, since no two jobs may write one table.
    """
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.toml"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known) or 'none'}."
        message = f"no job is called {name!r} in {folder}. {hint}"
        raise UsageError(message)
    found = read_folder(folder)[name]
    if isinstance(found, JobFileError):
        raise found
    return found


def shared_tables(jobs: Sequence[Job], database: Callable[[Job], object]) -> dict[str, list[str]]:
    """Return what is wrong with jobs that write a table of another's, by name.

    `database` names the database of a job's predictions; two jobs write one table only where it is the same.
    """
    writers: dict[tuple[object, Table], list[str]] = {}
    for one in jobs:
        for table in one.load.table.written:
            writers.setdefault((database(one), table), []).append(one.name)
    found: dict[str, list[str]] = {}
    for one in jobs:
        for table in one.load.table.written:
            others = [name for name in writers[database(one), table] if name != one.name]
            if others and one.name not in found:
                beside = "" if table == one.load.table else f", and {table} belongs to it"
                writes = f"job {others[0]} writes" if len(others) == 1 else f"jobs {', '.join(others)} write"
                where = _address(f"{one.name}.toml", ["load", "table"])
                said = (
                    f"found {str(one.load.table)!r}{beside}, which {writes} too; accepted is a table of the job's own"
                )
                found[one.name] = [f"{where}: {said}"]
    return found


def read_file(path: Path) -> Job:
    """Read one job file, and the file that its `query_file` names. Raises JobFileError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError(path.name, [f"{path.name}: {error}"]) from error
    return parse(path.stem, text, read_query=lambda file: (path.parent / file).read_text(encoding="utf-8"))


def parse(name: str, text: str, *, read_query: Callable[[str], str]) -> Job:
    """Read the job file `name`.toml from its `text`.

    `read_query` is given the value of `query_file` and returns that file's text; an OSError from it becomes one
    of the complaints. Raises JobFileError with every mistake of the file.
    """
    file = f"{name}.toml"
    complaints = []
    if not JOB_NAME.fullmatch(name):
        complaints.append(
            f"{file}: found the name {name!r}; accepted are small letters, digits and underscores, at most 40, "
            f"starting with a letter (it becomes the name of the DAG)"
        )
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise JobFileError(file, [*complaints, f"{file}: not TOML: {error}"]) from error
    job = None
    try:
        job = Job.model_validate(content)
    except ValidationError as error:
        complaints += [_complaint(file, problem) for problem in error.errors(include_url=False)]
    complaints += [f"{_address(file, path)}: {message}" for path, message in _between_keys(content)]
    query = _section(content, "extract").get("query")
    query_file = _section(content, "extract").get("query_file")
    if isinstance(query_file, str):
        try:
            query = read_query(query_file)
        except (OSError, UnicodeDecodeError) as error:
            complaints.append(f"{file}, [extract] query_file: {error}; accepted is a file beside the job file")
    if isinstance(query, str):
        complaints += [f"{file}, [extract] {line}" for line in _query_complaints(query)]
    if (
        job is not None
        and job.extract.connection == job.load.connection
        and job.extract.table in job.load.table.written
    ):
        found = f"found {str(job.load.table)!r}, which would change what the job reads, {job.extract.table}"
        complaints.append(f"{_address(file, ['load', 'table'])}: {found}; accepted is another table")
    if job is None or complaints:
        raise JobFileError(file, complaints)
    return job.named(name, None if query is None else query.strip().rstrip(";").rstrip())


def _section(content: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return the section at `path` of a file that may be wrong anywhere; an empty one where there is none."""
    for part in path:
        content = content.get(part, {})
        if not isinstance(content, dict):
            return {}
    return content


def _between_keys(content: Mapping[str, Any]) -> Iterator[tuple[list[str], str]]:
    """Find the mistakes that lie between two keys, as (path, complaint).

    It looks at the raw file, because pydantic compares keys only after each of them was right by itself, and
    then a person would need one round more.
    """
    yield from _between_keys_of_extract(_section(content, "extract"))
    yield from _between_dates(content)
    for name, rule in _section(content, "validate", "columns").items():
        low, high = (rule.get("min"), rule.get("max")) if isinstance(rule, dict) else (None, None)
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
            yield (
                ["validate", "columns", name, "min"],
                f"found {low}, which is above max {high}; accepted is min <= max",
            )
    key = _section(content, "extract").get("key")
    outcome_key = _section(content, "measure", "outcome").get("key")
    if isinstance(outcome_key, list) and isinstance(key, list) and len(outcome_key) != len(key):
        message = f"found {len(outcome_key)} columns; accepted is one for each of the {len(key)} in [extract] key"
        yield ["measure", "outcome", "key"], message
    score = _section(content, "score")
    if "parts" in score and "rows_per_part" in score:
        yield ["score", "parts"], "found parts and rows_per_part; accepted is at most one of them"
    yield from _between_keys_of_limits(_section(content, "alert").get("degraded"))


def _between_keys_of_extract(extract: Mapping[str, Any]) -> Iterator[tuple[list[str], str]]:
    kinds = ("table", "query", "query_file")
    sources = [name for name in kinds if name in extract]
    unknown = [name for name in extract if name not in Extract.model_fields]
    misspelt = any(difflib.get_close_matches(name, kinds, cutoff=0.5) for name in unknown)
    if extract and (len(sources) > 1 or (not sources and not misspelt)):
        found = f"found {' and '.join(sources)}" if sources else "missing"
        yield ["extract", "table"], f"{found}; accepted is exactly one of table, query, query_file"
    if extract.get("on_change") == "rescore" and "changed_at" not in extract:
        message = 'missing; on_change = "rescore" needs the column that moves when a row is edited'
        yield ["extract", "changed_at"], message
    key = extract.get("key")
    for name in key if isinstance(key, list) else []:
        if name in PREDICTION_COLUMNS:
            message = f"found {name!r}, a column of every prediction table; accepted is another name, given in a query"
            yield ["extract", "key"], message


def _between_dates(content: Mapping[str, Any]) -> Iterator[tuple[list[str], str]]:
    schedule, starts, ends = (content.get(name) for name in ("schedule", "starts", "ends"))
    if isinstance(schedule, str) and schedule != "on demand" and starts is None:
        yield ["starts"], f"missing; schedule = {schedule!r} needs the date of the first window"
    if isinstance(starts, date) and isinstance(ends, date) and localise(ends, UTC) <= localise(starts, UTC):
        yield ["ends"], f"found {ends}, which is not after starts {starts}; accepted is a later date"


def _between_keys_of_limits(limits: object) -> Iterator[tuple[list[str], str]]:
    for place, limit in enumerate(limits if isinstance(limits, list) else []):
        if not isinstance(limit, dict):
            continue
        path = ["alert", "degraded", str(place)]
        if ("below" in limit) == ("above" in limit):
            yield [*path, "below"], "accepted is exactly one of below and above"
        runs, of = limit.get("runs", 1), limit.get("of")
        if isinstance(runs, int) and isinstance(of, int) and of < runs:
            yield [*path, "of"], f"found {of}, fewer than runs = {runs}; accepted is of >= runs"


def _query_complaints(query: str) -> Iterator[str]:
    """Find what would be clear only much later. PostgreSQL itself refuses a second statement at every run."""
    bare = re.sub(r"--[^\n]*|/\*.*?\*/", " ", query, flags=re.DOTALL).strip()
    first = bare.split(None, 1)[0].lower() if bare else "nothing"
    if first not in {"select", "with", "values", "table"}:
        yield f"query: found a statement that starts with {first!r}; accepted is one SELECT"


def _complaint(file: str, problem: ErrorDetails) -> str:
    """Say one mistake as `file, [section] key: what was found; what is accepted`."""
    path = [str(part) for part in problem["loc"]]
    kind, found = problem["type"], problem["input"]
    if kind == "value_error":
        return f"{_address(file, path)}: found {_shown(found)}; accepted is {problem['ctx']['error']}"
    if kind == "extra_forbidden":
        return f"{_address(file, path)}: found an unknown key; {_nearest(path)}"
    if kind == "missing":
        return f"{_address(file, path)}: missing; {'a section' if len(path) == 1 else 'a value'} is required here"
    return f"{_address(file, path)}: found {_shown(found)}; accepted is {_accepted(problem)}"


def _address(file: str, path: list[str]) -> str:
    """Return `file, [section] key`; the sections are written as TOML writes them."""
    if len(path) == 1:
        return f"{file}, [{path[0]}]" if path[0] in SECTIONS else f"{file}, {path[0]}"
    return f"{file}, [{'.'.join(path[:-1])}] {path[-1]}"


def _fields_at(path: list[str]) -> list[str]:
    """Return the keys that are accepted beside the last part of `path`."""
    model: type[BaseModel] = Job
    for part in path[:-1]:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None:  # the name of a column, or a place in a list: the model stays the one found before
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _nearest(path: list[str]) -> str:
    known = _fields_at(path)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"accepted are {', '.join(known)}"


def _accepted(problem: ErrorDetails) -> str:
    """Turn pydantic's sentence ("Input should be …") into the second half of ours."""
    context = problem.get("ctx", {})
    if problem["type"] == "literal_error":
        return str(context["expected"])
    if problem["type"] == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    message = re.sub(r"^(Input|Value|String|Tuple) should (be |have )?", "", problem["msg"])
    return message.replace("a valid dictionary or instance of ", "a section for ")


def _shown(value: object) -> str:
    text = repr(str(value)) if isinstance(value, (date, datetime, timedelta)) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors."""
    schema = job.Job.model_json_schema(by_alias=True)
    for name, texts in _docstrings(inspect.getsource(job)).items():
        properties = (schema if name == "Job" else schema["$defs"].get(name, {})).get("properties", {})
        for field, text in texts.items():
            key = getattr(job, name).model_fields[field].alias or field
            properties[key]["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _docstrings(source: str) -> dict[str, dict[str, str]]:
    """Return the text below each annotated name, by class."""
    return {
        part.name: {
            one.target.id: inspect.cleandoc(below.value.value)
            for one, below in pairwise(part.body)
            if isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        }
        for part in ast.parse(source).body
        if isinstance(part, ast.ClassDef)
    }
