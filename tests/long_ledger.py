"""A ledger with years of history, made cheaply: runs of windows that follow one another, and what such runs leave."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from world import JOB, day

if TYPE_CHECKING:
    from plantao.config.job import Job
    from world import World

MINUTES = 5
NEXT = day(2).start
"""Where the history ends: the next window begins here."""
TEXT = JOB.replace('"daily"', '"*/5 * * * *"').replace("starts   = 2013-04-01", "starts = {starts}\nends = {ends}") + (
    '\n[alert]\nchannel = "#on-call"\n'
)

HISTORY = """
set session_replication_role = replica;
insert into plantao.runs (job, model, model_version, window_start, window_end, trigger, status, rows_read, rows_scored,
    rows_rejected, rows_already_scored, rows_late, rows_rescored, rows_conflicting, started_at, finished_at, seconds,
    profile, code_version, environment, airflow_run, worker, error_kind, error)
  select 'bad_reading', 'bad_reading', 1, w, w + interval '5 minutes', 'schedule', s, n, n, 0 * n, 0 * n, 0 * n, 0 * n,
    0 * n, w + interval '6 minutes', w + interval '7 minutes', '{{"score": 0.1}}',
    '{{"rows": 20, "missing": {{}}}}', 'x',
    '{{"python": "3.11"}}', 'bad_reading/' || i, 'here:1',
    case s when 'failed' then 'transient' end,
    case s when 'failed' then 'the server was away' end
  from (select i, timestamptz '{end}' - i * interval '5 minutes' as w, s,
    case s when 'empty' then 0 when 'succeeded' then 20 end as n
    from generate_series({runs}, 1, -1) as i, unnest(case when i % 100 = 50 then array['failed', 'succeeded']
      when i % 10 = 0 then array['empty'] else array['succeeded'] end) as s) as x;
insert into plantao.digests (job, kind, notifications, created_at, sent_at, destination, channel, message_ts)
  select 'bad_reading', 'page', 1, finished_at, finished_at, 'slack', '#on-call', '1.' || run_id
  from plantao.runs where status = 'failed';
insert into plantao.alerts (raised_at, job, kind, fingerprint, message, next_step, run_id, sent_at, route,
    page_id, digest_id)
  select r.finished_at, r.job, 'failed', 'failed ' || r.job || ' ' || r.run_id, 'm', 'n', r.run_id, r.finished_at,
    'page', d.digest_id, d.digest_id from plantao.runs r join plantao.digests d on d.message_ts = '1.' || r.run_id;
insert into plantao.incidents (job, lane, fingerprint, state, word, since, message, opened_at, closed_at)
  select job, 'break', 'break ' || (run_id % 20), 'closed', 'broken', window_start::date, 'm', finished_at, finished_at
  from plantao.runs where status = 'failed';
insert into plantao.incident_events (incident_id, event, who) select incident_id, e, 'plantao'
  from plantao.incidents, unnest(array['opened', 'closed']) e;
insert into plantao.metrics (job, model_version, role, window_start, window_end, name, value, n, computed_at)
  select job, 1, 'champion', window_start, window_end, name, 0.5, 20, finished_at
  from plantao.runs, unnest(array['rows', 'mean_score']) as name where status = 'succeeded';
insert into plantao.log_events (at, level, event, job, run_id)
  select finished_at, 'info', e, job, run_id from plantao.runs, unnest(array['run started', 'run finished']) e;
insert into plantao.rejected_rows (job, key, source_timestamp, reason, run_id, resolved_at, resolved_by_run)
  select job, jsonb_build_array(run_id), window_start, 'null_feature', run_id, finished_at, run_id
  from plantao.runs where run_id % 10 = 5;
set session_replication_role = origin;
"""
# As the migration that made the table fills it.
COVERAGE = """
insert into plantao.coverage (job, done)
  select job, range_agg(plantao.covered_by(window_start, window_end, started_at)) from plantao.runs
  where role = 'champion' and status in ('succeeded', 'empty') group by job
  on conflict (job) do update set done = excluded.done
"""


def long_job(world: World, runs: int) -> Job:
    """Declare a job of 5-minute windows whose history of `runs` windows ends at NEXT."""
    starts, ends = NEXT - timedelta(minutes=MINUTES * runs), NEXT + timedelta(minutes=MINUTES)
    return world.job(TEXT.format(starts=starts.isoformat(), ends=ends.isoformat()))


def fill(world: World, runs: int) -> None:
    """Give the ledger a history of so many windows: one in ten without rows, one in a hundred failed at first."""
    world.results(HISTORY.format(end=NEXT.isoformat(), runs=runs))
    if world.results("select to_regclass('plantao.coverage') is not null") == [(True,)]:
        world.results(COVERAGE)


def analyze(world: World) -> None:
    """Let the server know its tables, as autovacuum does sooner or later."""
    tables = "runs alerts digests incidents incident_events metrics log_events rejected_rows"
    with world.connect(world.home_of_results) as connection:
        connection.cursor().execute("; ".join(f"analyze plantao.{table}" for table in tables.split()))
