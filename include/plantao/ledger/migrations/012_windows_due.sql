-- The view status means the windows that the schedule draws, as the command line and the watchdog do. SQL cannot read a
-- cron expression, so each run writes down where the ticks are.

alter table jobs add column first_window tstzrange;
alter table jobs add column last_end timestamptz;
alter table runs add column next_window tstzrange;
comment on column jobs.first_window is 'the first window of the schedule at or after `starts`';
comment on column jobs.last_end is 'the last tick of the schedule until `ends`; NULL without `ends`';
comment on column runs.next_window is 'the window of the schedule that contains the end of this one';

create or replace view status as
with covered as (
  -- a run cannot have seen a row of a time after its start
  select job, range_agg(tstzrange(window_start, greatest(window_start, least(window_end, started_at)))) as done
  from runs where status in ('succeeded', 'empty') and role = 'champion' group by job
), last_good as (
  select distinct on (job) * from runs where status in ('succeeded', 'empty') and role = 'champion'
  order by job, least(window_end, started_at) desc, run_id desc
), troubled as (
  select job, count(*) as open_incidents, bool_or(word = 'broken') as is_broken, bool_or(word = 'degraded') as is_degraded
  from incidents where state = 'open' and word in ('broken', 'degraded', 'watch', 'missing') group by job
), last_attempt as (
  select distinct on (job) job, status, error from runs where role = 'champion' order by job, run_id desc
), expected as (
  select j.*, c.done,
    coalesce(lower(j.first_window), j.starts) as begins,
    least(now(), coalesce(j.last_end, j.ends, 'infinity')) as horizon,
    -- the first window that lies wholly or partly after all that is done
    coalesce(case when g.window_end <= g.started_at then lower(g.next_window) end, upper(c.done)) as next_start,
    greatest(
      coalesce(upper(j.first_window), j.starts + j.period),
      coalesce(case when g.window_end <= g.started_at then upper(g.next_window) end, upper(c.done) + j.period)
    ) as next_end
  from jobs j left join covered c using (job) left join last_good g using (job)
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
  g.window_start as last_window_start,
  g.window_end   as last_window_end,
  g.finished_at  as last_success_at,
  g.rows_scored  as last_rows_scored,
  g.model_version,
  case
    when a.status = 'running' then 'running'
    when a.status = 'failed' then 'failing'
    when g.run_id is null then 'waiting'
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
left join last_good g using (job)
left join last_attempt a using (job)
left join troubled t using (job);
