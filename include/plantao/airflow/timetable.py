"""The timetable of a job: windows between two ticks of its cron, none of them scheduled after the job's end.

A DAG's own `end_date` would not do: Airflow then also leaves the tasks of a manual run or a backfill after that date
standing for ever, without a word.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import pendulum
from airflow.timetables.base import DataInterval
from airflow.timetables.interval import CronDataIntervalTimetable

from plantao.window import Schedule

if TYPE_CHECKING:
    from airflow.timetables.base import DagRunInfo, TimeRestriction


class JobTimetable(CronDataIntervalTimetable):
    """Contiguous data intervals of a cron expression in a time zone, until `ends`."""

    def __init__(self, cron: str, timezone: Any, ends: datetime | None = None) -> None:
        super().__init__(cron, timezone=timezone)
        self.ends = ends

    def serialize(self) -> dict[str, Any]:
        """Return what Airflow keeps of the timetable in its database."""
        return {**super().serialize(), "ends": self.ends and self.ends.isoformat()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> JobTimetable:
        """Return the timetable that `serialize` described."""
        base = cast("CronDataIntervalTimetable", CronDataIntervalTimetable.deserialize(data))
        ends = datetime.fromisoformat(data["ends"]) if data.get("ends") else None
        return cls(base._expression, base._timezone, ends)  # noqa: SLF001 - the class keeps them nowhere else

    def infer_manual_data_interval(self, *, run_after: datetime) -> DataInterval:
        """Return the newest window that has ended and is due, for a run triggered without one."""
        window = Schedule(self._expression, self._timezone).last_complete(run_after, self.ends)
        return DataInterval(pendulum.instance(window.start), pendulum.instance(window.end))

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next window to schedule. A backfill, which brings a last date of its own, may go beyond `ends`."""
        info = super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
        if info is None or info.data_interval is None or self.ends is None or restriction.latest is not None:
            return info
        return info if info.data_interval.end <= self.ends else None
