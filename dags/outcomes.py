"""The Airflow DAG that measures, every day, the days whose outcomes have come or changed since."""

from plantao.airflow.service_dags import outcomes_dags
from plantao.config import settings

globals().update(outcomes_dags(settings.read().jobs))
