"""What a run is asked to do, and what it answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plantao.config.job import Job
    from plantao.ledger.runs import Trigger
    from plantao.window import Window


@dataclass(frozen=True)
class Request:
    """What a run is asked to do."""

    job: Job
    window: Window
    trigger: Trigger = "manual"
    airflow_run: str | None = None
    model_version: int | None = None
    rescore: bool = False
    dry_run: bool = False
    accept_checks: bool = False
    """Whether somebody has decided that rows may become visible although a check that blocks has failed."""
    accept_conflicts: bool = False
    """Whether somebody has decided that rows replace the predictions of other rows with their keys."""
    tries_left: int = 0
    """How often Airflow tries it again by itself when it fails in passing."""
