"""One Airflow DAG per job file in include/jobs."""

from plantao.airflow import scoring_dags
from plantao.config import settings

globals().update(scoring_dags(settings.read().jobs))
