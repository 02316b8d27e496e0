"""The plugins: they load, and do what the DAGs rest on."""

from __future__ import annotations

from datetime import UTC, datetime

import pendulum
import pytest


@pytest.fixture
def timetable(airflow_home):
    from airflow.plugins_manager import get_timetables_plugins

    return next(cls for name, cls in get_timetables_plugins().items() if name.endswith("JobTimetable"))


def test_every_plugin_loads(airflow_home):
    # Airflow only logs a plugin that fails, and then the DAGs that need it fail too.
    from airflow import plugins_manager

    plugins, errors = plugins_manager._get_plugins()
    assert errors == {}
    assert [plugin.name for plugin in plugins if plugin.name == "plantao"] == ["plantao"]


def runs(timetable, latest=None):
    from airflow.timetables.base import TimeRestriction

    restriction = TimeRestriction(pendulum.datetime(2013, 4, 1), latest, catchup=True)
    last, found = None, []
    while len(found) < 10:
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        if info is None:
            break
        last = info.data_interval
        found.append((last.start.day, last.end.day))
    return found


def test_no_window_is_scheduled_after_the_jobs_end(timetable):
    assert runs(timetable("0 0 * * *", "UTC", datetime(2013, 4, 4, tzinfo=UTC))) == [(1, 2), (2, 3), (3, 4)]
    assert len(runs(timetable("0 0 * * *", "UTC", None))) == 10


def test_a_window_that_the_jobs_end_cuts_is_not_scheduled(timetable):
    assert runs(timetable("0 0 * * *", "UTC", datetime(2013, 4, 3, 12, tzinfo=UTC))) == [(1, 2), (2, 3)]


def test_a_backfill_may_go_beyond_the_jobs_end(timetable):
    latest = pendulum.datetime(2013, 4, 6)
    assert runs(timetable("0 0 * * *", "UTC", datetime(2013, 4, 3, tzinfo=UTC)), latest)[-1] == (6, 7)


def test_the_pool_of_a_connection_is_made_when_it_is_first_needed(airflow_home):
    import airflow.settings as airflow_settings
    from airflow.models.pool import Pool
    from airflow.plugins_manager import _get_plugins
    from sqlalchemy import select, update

    listener = next(p for p in _get_plugins()[0] if p.name == "plantao").listeners[0]
    module = __import__(type(listener).__module__, fromlist=["x"])

    class Run:
        dag_id, run_id = "no_such_dag", "no_such_run"

    listener.on_dag_run_running(Run, "")
    with airflow_settings.engine.begin() as connection:
        assert set(connection.scalars(select(Pool.pool))) == {"default_pool"}
    module.make_pools({"client_db", "default_pool"})
    with airflow_settings.engine.begin() as connection:
        assert connection.scalar(select(Pool.slots).where(Pool.pool == "client_db")) == module.SLOTS
        connection.execute(update(Pool).where(Pool.pool == "client_db").values(slots=9))
    module.make_pools({"client_db"})
    with airflow_settings.engine.begin() as connection:
        assert connection.scalar(select(Pool.slots).where(Pool.pool == "client_db")) == 9
