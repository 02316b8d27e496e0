"""DAGs, tasks, timetable, pools and listener: the only place that imports Airflow.

Three lines in a DAG folder make a DAG of every job file:

    from plantao.airflow import scoring_dags

    globals().update(scoring_dags("include/jobs"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plantao.airflow.dags import scoring_dags

__all__ = ["scoring_dags"]


def __getattr__(name: str) -> Any:
    """Import the DAG factory only where it is used: a listener in the scheduler needs none of it."""
    if name == "scoring_dags":
        from plantao.airflow.dags import scoring_dags

        return scoring_dags
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
