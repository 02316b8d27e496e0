"""Job files: TOML text in, a `Job` out, or all mistakes of the file at once.

Only `read_folder` and `read_file` touch the disk. The complaints are written here and not by pydantic, because
a person has to act on them: `file, [section] key: what was found; what is accepted`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from plantao.errors import JobFileError, UsageError
from plantao.job import JOB_NAME, PREDICTION_COLUMNS, Extract, Job
from plantao.job_types import localise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

SECTIONS = {"extract", "validate", "score", "load", "measure", "alert"}


def read_folder(folder: Path) -> dict[str, Job | JobFileError]:
    """Read every job file of `folder`, each alone, so that a broken one harms no other.

    Returns the jobs by name, in alphabetical order; in the place of a broken one stands its error.
    """
    jobs: dict[str, Job | JobFileError] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            jobs[path.stem] = read_file(path)
        except JobFileError as error:
            jobs[path.stem] = error
    return jobs


def read_job(folder: Path, name: str) -> Job:
    """Read the job called `name`. Raises UsageError, with the nearest name, when there is none."""
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.toml"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known) or 'none'}."
        message = f"no job is called {name!r} in {folder}. {hint}"
        raise UsageError(message)
    return read_file(path)


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
