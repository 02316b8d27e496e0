"""Draw a new baseline from production: what is normal now, when the old reference has become a matter of the past.

The rows of the source since a day, with the predictions that were made of them, become a reference in the same form as
the one that was stored with the model; how good the model was on each day comes from the tallies of its outcomes. The
days since then are counted anew in the new bins. Baselines are numbered and kept, each with who drew it and why.
"""

from __future__ import annotations

import getpass
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import text

from plantao import log
from plantao.errors import SourceRefused, TargetRefused, UsageError
from plantao.extract import query, read
from plantao.ledger import session
from plantao.load.table import shadow_job
from plantao.measure import records
from plantao.measure.detect.findings import REFERENCE_DAYS
from plantao.measure.outcomes.maturity import day_is_mature
from plantao.measure.outcomes.tally import Tally, merged
from plantao.measure.profile import replay
from plantao.measure.profile.bins import SCORE_BINS, labels
from plantao.measure.reference import Days, performance_of, reference_profile
from plantao.models import registry
from plantao.postgres import driver_errors
from plantao.postgres.locks import DATABASE, take_lock
from plantao.score.predict import raw_of, to_frame
from plantao.window import of_days

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.models.manifest import Manifest, Output
    from plantao.runtime import Place
    from plantao.window import Window

MOST_ROWS = 200_000


@dataclass(frozen=True)
class Rebased:
    """The new baseline of a job."""

    job: str
    model_version: int
    reference_version: int
    from_day: date
    until_day: date
    rows: int
    days: int
    mature_days: int

    @property
    def notes(self) -> list[str]:
        """What the new baseline cannot do yet."""
        notes = []
        if self.days < REFERENCE_DAYS:
            notes.append(f"{self.days} days: drift is judged from {REFERENCE_DAYS} days on")
        if self.mature_days < REFERENCE_DAYS:
            notes.append(f"{self.mature_days} mature days: degradation is judged from {REFERENCE_DAYS} on")
        return notes


def rebase(job: Job, place: Place, since: date, why: str) -> Rebased:
    """Draw the baseline of the champion anew from the days since `since`, and return what it rests on.

    Raises UsageError when there is nothing to draw it from.
    """
    with session.session(job, place, f"plantao/{job.name}/rebase") as connection:
        version = registry.champion(connection, job.score.model).version
        until = records.last_day(connection, job)
        if until is None or until < since:
            message = f"job {job.name} has no predictions since {since}."
            raise UsageError(message, "score these days first (plantao backfill), or take an earlier day")
        manifest = records.manifests(job, place, [version]).get(version)
        if manifest is None:
            message = f"the store has no manifest of {job.score.model}/{version}."
            raise UsageError(message, "plantao models verify")
        rows = _rows(connection, job, place, of_days(since, until, job.zone), manifest)
        if not rows.num_rows:
            message = f"version {version}, the champion, has no predictions of {job.name} since {since}."
            raise UsageError(message, "let it score for some weeks first")
        profile = _profile(rows, manifest, job)
        tallied = records.tallies(connection, job, "champion", since, until).get(version, {})
        mature = _with_outcomes(profile, job, manifest.output, tallied, session.now(connection))
        with driver_errors.explained("measure", TargetRefused, "writing the baseline"), connection.begin():
            number = _write(connection, job, version, profile, (since, until), why)
    found = Rebased(job.name, version, number, since, until, rows.num_rows, profile["days"]["count"], mature)
    log.event("baseline drawn anew", {**vars(found), "why": why})
    return found


def _rows(connection: Connection, job: Job, place: Place, window: Window, manifest: Manifest) -> pa.Table:
    """Return the rows of a window that the version has scored, with its answers; of many rows a sample by key."""
    with (
        driver_errors.explained("measure", SourceRefused, "reading the rows again"),
        replay.opened(job, place, connection) as both_sides,
    ):
        source = read.source_of(job, both_sides.snapshot, connection)
        features = query.select_features([manifest.contract], source.types)
        of = replay.slices(sum(both_sides.versions(source, window).values()), MOST_ROWS) or 1
        batches = both_sides.rows(source, window, features.named, (0, of))
        scored = [rows.filter(pc.equal(rows.column("v"), manifest.version)) for rows in batches]
        return pa.concat_tables(scored) if scored else pa.table({})


def _profile(rows: pa.Table, manifest: Manifest, job: Job) -> dict[str, Any]:
    contract, output = manifest.contract, manifest.output
    frame = to_frame([replay.column(rows, f"f{place}") for place in range(len(contract.columns))], contract)
    days = Days(rows.column("t").to_pandas(), job.zone, threshold=job.score.threshold)
    given = replay.answers_of(rows, output)
    scores = raw_of(given.score, output) if given.scores is None else given.scores
    return reference_profile(frame, contract, scores, output, days)


def _with_outcomes(
    profile: dict[str, Any], job: Job, output: Output, tallied: Mapping[date, Mapping[str, Tally]], now: Any
) -> int:
    """Add to a profile how good the model was on each mature day, and how its scores are calibrated."""
    outcome = job.measure.outcome
    if outcome is None:
        return 0
    mature = {
        day: of_day[""]
        for day, of_day in sorted(tallied.items())
        if "" in of_day and day_is_mature(outcome, day, job.zone, of_day[""], now)
    }
    profile["days"]["performance"] = [performance_of(day, tally, output) for day, tally in mature.items()]
    if mature and output.kind != "regression":
        profile["calibration"] = _calibration(merged(mature.values()), output)
    return len(mature)


def _calibration(tally: Tally, output: Output) -> dict[str, Any]:
    """Return, for each class that is counted, how many rows each score bin had and how many were of the class."""
    counted = labels([output.positive]) if output.kind == "binary" else labels(output.classes)
    found = {}
    for name in counted:
        n, positives = [0] * SCORE_BINS, [0] * SCORE_BINS
        bins = tally.state["bins"] if output.kind == "binary" else tally.state["bins"].get(name, {})
        for place, cell in bins.items():
            pairs = list(cell.values()) if output.kind == "binary" else [cell]
            n[int(place)] += sum(int(pair[0] + pair[1]) for pair in pairs)
            positives[int(place)] += sum(int(pair[1]) for pair in pairs)
        found[name] = {"n": n, "positives": positives}
    return found


def _write(  # noqa: PLR0913, PLR0917 - what a baseline is known by
    connection: Connection, job: Job, version: int, profile: Mapping[str, Any], days: tuple[date, date], why: str
) -> int:
    values = {"job": job.name, "version": version, "from": days[0], "until": days[1], "who": getpass.getuser()}
    # A run makes its rows visible before, and its days are found below; or after, and finds this baseline itself.
    for one in (job, shadow_job(job)):
        take_lock(connection, f"plantao.load {one.load.table}", DATABASE)
    insert = text(
        "insert into reference_versions (job, model_version, reference_version, reference, from_day, until_day, who,"
        " why) select :job, :version, coalesce(max(reference_version), 1) + 1, cast(:reference as jsonb), :from,"
        " :until, :who, :why from reference_versions where job = :job and model_version = :version"
        " returning reference_version"
    )
    given = {**values, "reference": json.dumps(profile), "why": why}
    number: int = connection.execute(insert, given).scalar_one()
    stale = text(
        "insert into stale_days (job, role, day, why) select distinct :job, role, day, :reason from daily_state"
        " where job = :job and model_version = :version and day >= :from on conflict (job, role, day) do nothing"
    )
    connection.execute(stale, {**values, "reason": f"baseline {number} has bins of its own"})
    return number
