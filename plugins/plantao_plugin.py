"""What Airflow loads of Plantão: the timetable of jobs and the listeners."""

from plantao.airflow.plugin import PlantaoPlugin

__all__ = ["PlantaoPlugin"]
