"""The Airflow DAG that sends, every minute, what waits in the outbox."""

from plantao.airflow.service_dags import alerts_dag

alerts = alerts_dag()
