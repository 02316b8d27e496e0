"""Two Celery workers share a window, and one is killed in the middle: every row once all the same.

Real Redis, a real Airflow with CeleryExecutor, each worker a process group of its own. The part that is to be under way
when its worker dies is held at its load by a lock, so that the test does not depend on luck.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass

import psutil
import psycopg2
import pytest

import debian_packages
from demo.stack import PARTS
from live_airflow import LiveAirflow, wait_for
from plantao.postgres.session import dsn
from world import JOB, day

pytestmark = pytest.mark.release  # two workers without Celery are in tests/postgres/test_fan_out.py
PARTED = JOB.replace("[load]", "parts = 6\n[load]").replace("[extract]", '[extract]\nreconcile = "never"')
PER_DAY = 3_000
HELD = 3


@dataclass(frozen=True)
class CeleryStack(LiveAirflow):
    """Airflow with two Celery workers instead of the LocalExecutor."""

    @property
    def commands(self) -> dict[str, list[str]]:
        worker = ["celery", "worker", "--skip-serve-logs", "--concurrency", "2", "--celery-hostname"]
        return {**PARTS, "worker-1": [*worker, "one@here"], "worker-2": [*worker, "two@here"]}

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{self.metadata}",
            # A task whose worker has vanished is noticed after seconds instead of minutes, and tried again at once.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        }


@pytest.fixture
def redis(tmp_path):
    """A Redis that listens on a socket only."""
    program = debian_packages.need("redis-server")
    socket = tmp_path / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    for _ in range(100):
        if socket.exists():
            break
        time.sleep(0.05)
    yield socket
    process.terminate()
    process.wait()


@pytest.fixture
def stack(server, tmp_path, redis):
    with CeleryStack.create(server, tmp_path, AIRFLOW__CELERY__BROKER_URL=f"redis+socket://{redis}") as found:
        found.world.ready(PARTED.replace("starts ", "ends = 2013-04-02\nstarts "), days=1, per_day=PER_DAY)
        yield found
        # Nothing runs in them any more, but Celery takes most of a minute to end by itself.
        for name, pid in found.parts.items():
            if name.startswith("worker-"):
                kill_family(pid, os.getpgid(pid))


def test_a_killed_worker_costs_no_row_and_doubles_none(stack):
    world = stack.world
    with contextlib.closing(psycopg2.connect(dsn(world.owner("client_db"), "tests"))) as holder:
        ((ledger,),) = world.sql("select left(ledger_id::text, 8) from plantao.ledger")
        hold = f"plantao.load predictions.plantao_run_1_part_{HELD}_{ledger}"
        holder.cursor().execute("select pg_advisory_lock(hashtextextended(%s, 0))", (hold,))
        holder.commit()
        stack.start()
        running = "select worker from plantao.parts where part = %s and status = 'running'"
        worker = wait_for(lambda: world.sql(running, (HELD,)))[0][0]
        group = os.getpgid(int(worker.split(":")[1]))
        victim = next(name for name, pid in stack.parts.items() if pid in groups_above(int(worker.split(":")[1])))
        assert victim.startswith("worker-")
        kill_family(stack.parts[victim], group)
    wait_for(lambda: world.sql("select 1 from plantao.runs where status = 'succeeded'"))

    ledger = world.sql("select run_id, status, parts, rows_read, rows_scored, rows_rejected from plantao.runs")
    parts = world.sql("select part, status, worker, rows_scored from plantao.parts order by part")
    print(f"\nkilled {victim}, which held part {HELD} as {worker}")
    print("run_id, status, parts, rows_read, rows_scored, rows_rejected:", *ledger)
    print("part, status, worker, rows_scored:", *parts, sep="\n  ")
    assert ledger == [(1, "succeeded", 6, PER_DAY, PER_DAY, 0)]
    assert parts[HELD][2] != worker
    assert victim not in stack.parts
    assert len(world.predictions("id")) == PER_DAY
    undisturbed = world.predictions("id, prediction, score")
    world.sql("delete from predictions.bad_reading")
    world.score(world.job(JOB), day(1))
    assert world.predictions("id, prediction, score") == undisturbed


def groups_above(pid: int) -> set[int]:
    """Return a process and all that it descends from."""
    return {pid, *(parent.pid for parent in psutil.Process(pid).parents())}


def kill_family(pid: int, group: int) -> None:
    """SIGKILL a worker with everything that runs under it."""
    family = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
