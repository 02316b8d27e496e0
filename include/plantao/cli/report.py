"""`plantao report`."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path  # noqa: TC003 - Typer reads it
from typing import Annotated

import typer

from plantao import runtime
from plantao.alert.chart import SCALE, WIDTH
from plantao.cli.scoring import JobArgument  # noqa: TC001 - Typer reads it
from plantao.config.job_file import read_job
from plantao.errors import UsageError
from plantao.ledger import session


def report(
    job: JobArgument,
    out: Annotated[Path, typer.Option(help="The file of the page.")],
    start: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="First day; by default 120 days before the last.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="The day after the last one; by default the newest.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Also write the pictures as PNG into this folder.")] = None,
) -> None:
    """Write how the model is doing to one page that opens anywhere, without a network."""
    # These draw and measure; no other command should wait for them.
    from plantao.report.chart import style
    from plantao.report.charts import PICTURES
    from plantao.report.page import page
    from plantao.report.read import read_report

    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    first, until = _date(start), _date(end)
    if first and until and first >= until:
        message = f"a period must start before it ends, not {first} and {until}."
        raise UsageError(message)
    with session.session(declared, here, f"plantao/{job}/report") as connection:
        data = read_report(connection, declared, first, until and until - timedelta(days=1))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(data), encoding="utf-8")
    typer.echo(f"{out}: {data.job}, {data.first} .. {data.last}")
    if png is None:
        return
    png.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        picture = draw(data, WIDTH)
        if picture is not None:
            (png / f"{name}.png").write_bytes(style.png(picture, SCALE))
            typer.echo(str(png / f"{name}.png"))


def _date(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is no date."
        raise UsageError(message, "write it as 2026-03-31") from None
