"""What stands between a version and being the champion, and the way back.

Promotion asks the whole gate first, against the live source of every job that uses the model: hash, environment and
golden rows, the contract, and a dry run on the last window beside the champion. What is found is written down with the
decision, whether it was obeyed or overruled.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from plantao.errors import GateClosed, PlantaoError, UsageError
from plantao.models import registry
from plantao.models.registry import Decision
from plantao.release.comparison import Difference, compare, last_window
from plantao.score import loader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plantao.config.job import Job
    from plantao.models.registry import Registered
    from plantao.runtime import Place
    from plantao.score.loader import Verified

Result = TypeVar("Result")

MOST_CHANGED = 0.2
"""The largest share of decisions that a promotion may change, unless told otherwise."""


@dataclass
class Answer:
    """What the gate had to say: why not, and what is worth knowing anyway."""

    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def promote(  # noqa: PLR0913 - a decision, and how strict it is
    model: str, version: int, why: str, place: Place, *, force: bool = False, most_changed: float = MOST_CHANGED
) -> Answer:
    """Let a version be the champion in every database that knows the model.

    Raises GateClosed with all reasons when the gate says no, unless `force`; then that is recorded, and an alert.
    """
    answer = Answer()
    for connection in registry.databases_of(model, place):
        with registry.session(connection, place) as opened:
            state = registry.state_of(opened, model, version)
            if state in {"champion", "retired"}:
                message = f"model {model}/{version} is {state} in {connection}. Nothing was changed."
                raise UsageError(message, "plantao models list shows the versions")
            chosen, champion = registry.named(opened, model, version), registry.champion(opened, model)
        jobs = [job for job in registry.jobs_of(model, place) if job.load.connection == connection]
        _ask(answer, (champion, chosen), jobs, place, most_changed)
    _refuse(answer, f"{model}/{version}", force=force)
    _decide(model, version, why, answer, place, event="promoted", force=force)
    return answer


def rollback(model: str, why: str, place: Place, *, to: int | None = None, force: bool = False) -> tuple[int, Answer]:
    """Let the version that was champion before be it again, or the one named; return it, and what the gate said.

    The gate asks only for hash, environment and golden rows: the version has scored this source before, and whoever
    rolls back is in a hurry.
    """
    answer = Answer()
    chosen = to
    for connection in registry.databases_of(model, place):
        with registry.session(connection, place) as opened:
            chosen = chosen or registry.before(opened, model)
            registered = registry.named(opened, model, chosen)
        _passed(answer, registered, place)
    assert chosen is not None
    _refuse(answer, f"{model}/{chosen}", force=force)
    _decide(model, chosen, why, answer, place, event="rolled back", force=force)
    return chosen, answer


def mark(model: str, version: int, why: str, place: Place, event: registry.Mark) -> None:
    """Let a version be a challenger, or retire it, in every database that knows the model."""
    for connection in registry.databases_of(model, place):
        with registry.session(connection, place) as opened:
            registry.mark(opened, model, version, event, Decision(getpass.getuser(), why))


def _decide(  # noqa: PLR0913 - a decision
    model: str, version: int, why: str, answer: Answer, place: Place, *, event: registry.Change, force: bool
) -> None:
    forced = force and bool(answer.reasons)
    decision = Decision(getpass.getuser(), why, forced, (*answer.reasons, *answer.notes))
    for connection in registry.databases_of(model, place):
        with registry.session(connection, place) as opened:
            registry.make_champion(opened, model, version, decision, event)


def _refuse(answer: Answer, name: str, *, force: bool) -> None:
    if answer.reasons and not force:
        listed = "".join(f"\n  - {reason}" for reason in answer.reasons)
        message = f"the gate does not let {name} become champion; nothing was changed:{listed}"
        raise GateClosed(message, "mend what is named, or overrule it with --force, which is recorded and alerted")


def _ask(
    answer: Answer, change: tuple[Registered, Registered], jobs: Sequence[Job], place: Place, most_changed: float
) -> None:
    champion, chosen = change
    new = _passed(answer, chosen, place)
    if new is None:
        return
    if not jobs:
        answer.notes.append(f"no job uses {chosen.model}, so nothing was scored on trial")
    old: Verified | None = None
    for job in jobs:
        try:
            old = old or loader.verified(champion, place.settings)
        except PlantaoError as error:
            answer.notes.append(f"the champion {champion.name} cannot be compared: {error.what}")
        difference = _tried(answer, job, old or new, new, place)
        if difference is not None:
            verdict(answer, difference, job, most_changed)


def _passed(answer: Answer, registered: Registered, place: Place) -> Verified | None:
    def ask() -> Verified:
        return loader.verified(registered, place.settings)

    return _asked(answer, ask)


def _tried(answer: Answer, job: Job, old: Verified, new: Verified, place: Place) -> Difference | None:
    def ask() -> Difference | None:
        with registry.session(job.load.connection, place) as opened:
            window = last_window(job, opened)
        if window is None:
            answer.notes.append(f"job {job.name} has no window yet, so nothing was scored on trial")
            return None
        return compare(job, window, old, new, place)

    return _asked(answer, ask)


def _asked(answer: Answer, ask: Callable[[], Result]) -> Result | None:
    try:
        return ask()
    except PlantaoError as error:
        answer.reasons.append(error.what)
        return None


def verdict(answer: Answer, difference: Difference, job: Job, most_changed: float) -> None:
    """Add what a trial has shown: why not, and what is worth knowing."""
    window = difference.window.shown(job.zone)
    rejected, limit = difference.share_rejected, job.validation.at_most_rejected
    if rejected > limit:
        answer.reasons.append(
            f"job {job.name}, {window}: it would set aside {difference.rejected_new} of {difference.rows} rows,"
            f" more than at_most_rejected = {limit:g} allows"
        )
    shown = (
        f"job {job.name}, {window}: {difference.changed} of {difference.both} decisions"
        f" ({difference.share_changed:.1%}) would be others"
    )
    if difference.share_changed > most_changed:
        answer.reasons.append(f"{shown}, more than {most_changed:.0%}")
    else:
        answer.notes.append(shown)
    if not difference.rows:
        answer.notes.append(f"job {job.name}, {window}: there is no row to score on trial")
