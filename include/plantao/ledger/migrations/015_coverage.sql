-- What a run, a view, the watchdog and a digest ask must not cost more with every year: the time that is done is kept,
-- and every other question about runs has an index.

create table coverage (
  job        text primary key,
  done       tstzmultirange not null,
  changed_at timestamptz not null default clock_timestamp()
);
comment on table coverage is 'The time that successes of each job have covered. Written in the transaction of the success.';

-- A run cannot have seen a row of a time after its start.
create function covered_by(window_start timestamptz, window_end timestamptz, started_at timestamptz) returns tstzrange
  language sql immutable as 'select tstzrange($1, greatest($1, least($2, $3)))';

insert into coverage (job, done)
  select job, range_agg(covered_by(window_start, window_end, started_at)) from runs
  where role = 'champion' and status in ('succeeded', 'empty') group by job;

-- By the database itself, so that there is no success without it. Names its schema: the session may have another path.
create function cover() returns trigger language plpgsql as $$
begin
  execute format('insert into %1$I.coverage as c (job, done)'
    ' values ($1, tstzmultirange(%1$I.covered_by($2, $3, $4)))'
    ' on conflict (job) do update set done = c.done + excluded.done, changed_at = clock_timestamp()'
    ' where not c.done @> excluded.done', tg_table_schema)
    using new.job, new.window_start, new.window_end, new.started_at;
  return null;
end $$;
create trigger successes_cover after insert or update of status on runs for each row
  when (new.role = 'champion' and new.status in ('succeeded', 'empty')) execute function cover();

create index runs_by_job on runs (job, run_id);
create index runs_by_start on runs (job, started_at);
create index runs_by_finish on runs (job, finished_at);
create index runs_running on runs (job) where status = 'running';
create index runs_by_airflow_run on runs (airflow_run) where airflow_run is not null;
create index runs_by_time on runs using gist (
  int8range(hashtextextended(job || ' ' || role, 0), hashtextextended(job || ' ' || role, 0), '[]'),
  tstzrange(window_start, window_end));
create index successes_by_end on runs (job, least(window_end, started_at), run_id)
  where role = 'champion' and status in ('succeeded', 'empty');
create index successes_by_run on runs (job, role, run_id) where status in ('succeeded', 'empty');
create index scored_by_run on runs (job, role, run_id) where status = 'succeeded';
create index scored_by_version on runs (job, model_version) where status = 'succeeded';
create index alerts_by_time on alerts (raised_at);
create index digests_by_end on digests (job, kind, interval_end) where kind <> 'page';
create index digests_with_picture on digests (digest_id) where picture = 'waiting';

create or replace view status as
with troubled as (
  select job, count(*) as open_incidents, bool_or(word = 'broken') as is_broken, bool_or(word = 'degraded') as is_degraded
  from incidents where state = 'open' and word in ('broken', 'degraded', 'watch', 'missing') group by job
), expected as (
  select j.*, c.done, g.run_id, g.window_start, g.window_end, g.finished_at, g.rows_scored, g.model_version,
    coalesce(lower(j.first_window), j.starts) as begins,
    least(now(), coalesce(j.last_end, j.ends, 'infinity')) as horizon,
    -- the first window that lies wholly or partly after all that is done
    coalesce(case when g.window_end <= g.started_at then lower(g.next_window) end, upper(c.done)) as next_start,
    greatest(
      coalesce(upper(j.first_window), j.starts + j.period),
      coalesce(case when g.window_end <= g.started_at then upper(g.next_window) end, upper(c.done) + j.period)
    ) as next_end
  from jobs j
  left join coverage c using (job)
  left join lateral (
    select * from runs r where r.job = j.job and r.role = 'champion' and r.status in ('succeeded', 'empty')
    order by least(r.window_end, r.started_at) desc, r.run_id desc limit 1
  ) g on true
), owing as (
  -- the time of windows that have ended and that no success covers
  select e.*,
    case when e.period is not null then
      tstzmultirange(tstzrange(e.begins, greatest(e.begins,
        case
          when e.next_end <= e.horizon then e.horizon
          when e.next_start is null then e.begins
          else least(e.next_start, e.horizon)
        end)))
        - coalesce(e.done, '{}')
    end as owed
  from expected e
)
select
  e.job,
  e.window_start as last_window_start,
  e.window_end   as last_window_end,
  e.finished_at  as last_success_at,
  e.rows_scored  as last_rows_scored,
  e.model_version,
  case
    when a.status = 'running' then 'running'
    when a.status = 'failed' then 'failing'
    when e.run_id is null then 'waiting'
    when e.next_end <= e.horizon and e.next_end + e.late_after < now() then 'late'
    when lower(e.owed) + e.period + e.late_after < now() then 'late'  -- a gap, whatever came after it
    when t.is_broken then 'broken'
    when t.is_degraded then 'degraded'
    else 'fine'
  end as health,
  e.owed,
  case when a.status = 'failed' then a.error end as last_error,
  e.prediction_table,
  e.description,
  e.owner,
  coalesce(t.open_incidents, 0) as open_incidents
from owing e
left join lateral (
  select r.status, r.error from runs r where r.job = e.job and r.role = 'champion' order by r.run_id desc limit 1
) a on true
left join troubled t using (job);
