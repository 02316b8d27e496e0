"""The plugin: makes the timetable and the listeners known to Airflow."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from plantao.airflow.listener import TellFailures
from plantao.airflow.pools import MakePools
from plantao.airflow.timetable import JobTimetable


class PlantaoPlugin(AirflowPlugin):
    """Registers the timetable of jobs, the pools of connections and the alerts of what only Airflow sees fail."""

    name = "plantao"
    timetables = [JobTimetable]  # noqa: RUF012 - Airflow's own declaration
    listeners = [MakePools(), TellFailures()]  # noqa: RUF012
