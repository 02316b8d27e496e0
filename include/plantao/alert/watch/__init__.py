"""Speaks, from outside Airflow, for what is late, gone, stuck or silent."""
