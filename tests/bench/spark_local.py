"""Spark on one machine, local[2], as its users score a table: JDBC in, pandas in the middle, JDBC out."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import psutil
from ground import sql
from ways import predictions_of, usual_query, usual_table


def prepared(fitted):
    """Return Spark on this machine, local[2], in its warm second run: JDBC in, pandas in the middle, JDBC out."""
    # Spark's workers are processes of their own, and unpickle what is defined in this folder.
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(Path(__file__).parent)}
    from pyspark.sql import SparkSession

    warnings.simplefilter("ignore")
    settings = {
        "spark.jars": jdbc_driver(),
        "spark.driver.memory": "3g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    }
    session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    url = f"jdbc:postgresql://127.0.0.1:{os.environ['PGPORT']}/client?reWriteBatchedInserts=true"
    options = {"user": "postgres", "driver": "org.postgresql.Driver", "fetchsize": "10000", "batchsize": "10000"}
    shared = session.sparkContext.broadcast(fitted)
    schema = (
        "id long, source_timestamp timestamp, prediction boolean, score double, model_version int, run_id long,"
        " scored_at timestamp, in_control_group boolean"
    )

    def predict(frames):
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            for frame in frames:
                yield predictions_of(frame, shared.value)

    def score_all():
        rows = sql("select max(id) + 1 from public.rows")[0][0]
        ranges = {"column": "id", "lowerBound": 0, "upperBound": rows, "numPartitions": 4}
        frame = session.read.jdbc(url, f"({usual_query()}) as r", properties=options, **ranges)
        frame.mapInPandas(predict, schema).write.jdbc(url, "public.usual", mode="append", properties=options)
        return used_by_all_processes()

    usual_table()
    score_all()
    usual_table()
    before = used_by_all_processes()["cpu"]
    return lambda: (found := score_all()) | {"cpu": found["cpu"] - before}


def used_by_all_processes() -> dict[str, float]:
    """Return the CPU seconds and the megabytes of this process and its children: Spark's JVM, and its workers."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    times = [process.cpu_times() for process in processes]
    return {
        "cpu": sum(t.user + t.system + t.children_user + t.children_system for t in times),
        "memory": sum(process.memory_info().rss for process in processes) / 2**20,
    }


def jdbc_driver() -> str | None:
    """Return the file of PostgreSQL's JDBC driver, as PGJDBC or Debian's package libpostgresql-jdbc-java names it."""
    path = os.environ.get("PGJDBC", "/usr/share/java/postgresql.jar")
    return path if Path(path).exists() else None
