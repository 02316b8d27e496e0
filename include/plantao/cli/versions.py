"""`plantao models promote | rollback | challenge | retire | timeline | diff`: what becomes of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from plantao import runtime
from plantao.cli import output
from plantao.cli.scoring import watched

if TYPE_CHECKING:
    from plantao.release.promotion import Answer

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name, as in [score] of a job file.")]
VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", help="The version's number.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for those who ask later. It is kept for ever.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overrule the gate. That is recorded, and an alert.")]


def promote(
    model: ModelArgument,
    version: VersionArgument,
    why: WhyOption,
    at_most_changed: Annotated[
        float | None, typer.Option(min=0, max=1, help="The largest share of decisions that may change (default: 0.2).")
    ] = None,
    force: ForceOption = False,
    json_: output.JsonOption = False,
) -> None:
    """Let a version be the champion from now on, once it has passed the gate and a trial on the last window."""
    from plantao.release import promotion

    here = runtime.from_environment()
    most = promotion.MOST_CHANGED if at_most_changed is None else at_most_changed
    answer = watched(
        f"trying {model}/{version}",
        lambda: promotion.promote(model, version, why, here, force=force, most_changed=most),
    )
    _say(f"{model}/{version} is the champion now", answer, json_=json_)


def rollback(
    model: ModelArgument,
    why: WhyOption,
    to: Annotated[int | None, typer.Option(help="The version (default: the champion before this one).")] = None,
    force: ForceOption = False,
    json_: output.JsonOption = False,
) -> None:
    """Let the version that was champion before be the champion again."""
    from plantao.release import promotion

    version, answer = promotion.rollback(model, why, runtime.from_environment(), to=to, force=force)
    _say(f"{model}/{version} is the champion again", answer, json_=json_)


def challenge(model: ModelArgument, version: VersionArgument, why: WhyOption) -> None:
    """Let a version be a challenger: it scores the same rows as the champion, into <table>_shadow."""
    from plantao.release import promotion

    promotion.mark(model, version, why, runtime.from_environment(), "challenger")
    typer.echo(f"{model}/{version} is a challenger from the next run on")


def retire(model: ModelArgument, version: VersionArgument, why: WhyOption) -> None:
    """Retire a version: it challenges nobody any more, and cannot become champion."""
    from plantao.release import promotion

    promotion.mark(model, version, why, runtime.from_environment(), "retired")
    typer.echo(f"{model}/{version} is retired")


def timeline(model: ModelArgument, json_: output.JsonOption = False) -> None:
    """Tell what was decided about a model's versions: when, by whom, and why."""
    from plantao.models import registry

    here, lines = runtime.from_environment(), []
    for connection in registry.databases_of(model, here):
        with registry.session(connection, here) as opened:
            lines += [{"connection": connection, **row} for row in registry.events(opened, model)]
    if json_:
        output.as_json(lines)
        return
    columns = ("at", "version", "event", "forced", "who", "why", "findings", "connection")
    rows = [[("; ".join(line[c]) or "-") if c == "findings" else line[c] for c in columns] for line in lines]
    output.table(f"{model}: what was decided", columns, rows)


def diff(
    model: ModelArgument,
    old: Annotated[int, typer.Argument(metavar="A", help="One version.")],
    new: Annotated[int, typer.Argument(metavar="B", help="The other one.")],
    json_: output.JsonOption = False,
) -> None:
    """Show in what two versions differ: contract, environment, metrics, reference, golden rows, last window."""
    from plantao.release.diff import differences

    here = runtime.from_environment()
    lines = watched(f"comparing {model}/{old} with {model}/{new}", lambda: differences(model, old, new, here))
    if json_:
        output.as_json([vars(line) for line in lines])
        return
    columns = ("of", "what", f"{model}/{old}", f"{model}/{new}")
    output.table(f"{model}: {old} and {new}", columns, [[line.of, line.what, line.old, line.new] for line in lines])


def _say(done: str, answer: Answer, *, json_: bool) -> None:
    if json_:
        output.as_json({"done": done, "overruled": answer.reasons, "notes": answer.notes})
        return
    typer.echo(done)
    for reason in answer.reasons:
        typer.echo(f"overruled: {reason}")
    for note in answer.notes:
        typer.echo(note)
