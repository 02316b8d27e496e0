"""What a run is asked to do, and what it answers. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plantao.extract.window import Window
    from plantao.job import Job
    from plantao.ledger import Counts, Role, Trigger


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
    tries_left: int = 0
    """How often Airflow tries it again by itself when it fails in passing."""


@dataclass(frozen=True)
class Report:
    """What a run did."""

    job: str
    run_id: int | None
    status: str
    window: Window
    model: str
    model_version: int
    counts: Counts
    mean_score: float | None
    reject_reasons: dict[str, int]
    seconds: dict[str, float]
    role: Role = "champion"
    note: str | None = None
    """What is worth knowing of how the version was chosen."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, small enough for an XCom."""
        values = asdict(self)
        values["window"] = {"start": self.window.start.isoformat(), "end": self.window.end.isoformat()}
        values |= {f"rows_{name}": count for name, count in values.pop("counts").items()}
        return values
