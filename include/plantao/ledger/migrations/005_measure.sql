-- What the scored rows looked like and what came of them, day by day, as sums that add up; and the conditions that are
-- watched. A day is a local day of the job's time zone, by the source's timestamp.

create table daily_state (
  job               text not null,
  model_version     integer not null,
  reference_version integer not null check (reference_version > 0),
  role              text not null check (role in ('champion', 'challenger')),
  day               date not null,
  segment           text not null default '',
  column_name       text not null default '',
  rows              bigint not null check (rows >= 0),
  state             jsonb not null,
  primary key (job, role, day, model_version, reference_version, segment, column_name)
);
comment on table daily_state is 'Counts and sums over the scored rows of a day, in the bins of the reference; any period is a sum of its days.';
comment on column daily_state.segment is 'empty: all rows; else column=value of a segment the job names';
comment on column daily_state.column_name is 'a feature; empty: the score and the decision';

create table stale_days (
  job   text not null,
  role  text not null check (role in ('champion', 'challenger')),
  day   date not null,
  since timestamptz not null default clock_timestamp(),
  why   text not null,
  primary key (job, role, day)
);
comment on table stale_days is 'Days whose state does not follow from a sum (a row was scored again); the next measurement counts them anew.';

create table daily_outcomes (
  job           text not null,
  model_version integer not null,
  role          text not null check (role in ('champion', 'challenger')),
  day           date not null,
  segment       text not null default '',
  rows          bigint not null check (rows >= 0),
  labelled      bigint not null check (labelled between 0 and rows),
  state         jsonb not null,
  measured_at   timestamptz not null default clock_timestamp(),
  primary key (job, role, day, model_version, segment)
);
comment on table daily_outcomes is 'Predictions held against what really happened, per day of prediction, as sums that add up.';
comment on column daily_outcomes.labelled is 'predictions whose outcome is known; labelled / rows is the maturity of the day';
comment on column daily_outcomes.segment is 'empty: all; column=value; @control, @treated: the control group and the others; @acted, @not_acted: what the client did';

create table reference_versions (
  job               text not null,
  model_version     integer not null,
  reference_version integer not null check (reference_version > 1),
  reference         jsonb not null,
  from_day          date not null,
  until_day         date not null,
  who               text not null,
  why               text not null check (why <> ''),
  created_at        timestamptz not null default clock_timestamp(),
  primary key (job, model_version, reference_version)
);
comment on table reference_versions is 'Baselines that were drawn anew from production. Version 1 is the one stored with the model.';
create trigger baselines_stay before update or delete on reference_versions
  for each row execute function refuse_change('a baseline is only ever followed by another one');

create table incidents (
  incident_id   bigint generated always as identity primary key,
  job           text not null,
  lane          text not null check (lane in ('break', 'degraded', 'drift', 'missing', 'late', 'watch')),
  fingerprint   text not null,
  model_version integer,
  state         text not null default 'open' check (state in ('open', 'closed')),
  word          text not null,
  severity      double precision,
  since         date not null,
  message       text not null,
  details       jsonb not null default '{}',
  opened_at     timestamptz not null default clock_timestamp(),
  worsened_at   timestamptz,
  closed_at     timestamptz,
  constraint closed_iff_it_has_an_end check ((state = 'closed') = (closed_at is not null))
);
create unique index one_open_incident_per_condition on incidents (job, fingerprint) where state = 'open';
create index incidents_by_job on incidents (job, incident_id desc);
comment on table incidents is 'Conditions that were noticed, from opening to recovery: each notifies when it opens, worsens and closes.';
comment on column incidents.word is 'in one word: broken, degraded, watch, drifting, improved, missing, late, or what the watchdog saw';
comment on column incidents.since is 'the first day on which the condition held';

alter table metrics add column status text not null default 'ok'
  check (status in ('ok', 'not_enough', 'undefined', 'failed', 'no_rows', 'no_labels', 'provisional'));
alter table metrics add column detectable double precision;
comment on column metrics.detectable is 'the smallest change that the rules can find within a week, in the unit of the value';
comment on column metrics.maturity is 'the share of the predictions whose outcome was known';
create or replace view metrics_latest as
  select distinct on (job, model_version, window_start, window_end, name, column_name, segment, role) *
  from metrics
  order by job, model_version, window_start, window_end, name, column_name, segment, role, metric_id desc;

alter table parts add column states jsonb;
comment on column parts.states is 'what the rows of the part looked like, day by day, until it is published';

-- How things stand: also whether the model is still what it was. Drift alone is no trouble.
create or replace view status as
with covered as (
  select job, range_agg(tstzrange(window_start, window_end)) as done, max(window_end) as until
  from runs where status in ('succeeded', 'empty') and role = 'champion' group by job
), last_good as (
  select distinct on (job) * from runs where status in ('succeeded', 'empty') and role = 'champion'
  order by job, window_end desc, run_id desc
), troubled as (
  select job, count(*) as open_incidents, bool_or(word = 'broken') as is_broken, bool_or(word = 'degraded') as is_degraded
  from incidents where state = 'open' and word in ('broken', 'degraded', 'watch', 'missing') group by job
), last_attempt as (
  select distinct on (job) job, status, error from runs where role = 'champion' order by job, run_id desc
), expected as (
  select j.*, c.done, c.until, least(now(), coalesce(j.ends, 'infinity')) as horizon
  from jobs j left join covered c using (job)
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
    when e.period is not null and e.until + e.period <= e.horizon and e.until + e.period + e.late_after < now() then 'late'
    when t.is_broken then 'broken'
    when t.is_degraded then 'degraded'
    else 'fine'
  end as health,
  -- the time that no success covers: gaps, and what lies behind by more than one window
  case when e.period is not null then
    tstzmultirange(tstzrange(e.starts, greatest(e.starts,
      case when e.until + e.period <= e.horizon or e.until is null then e.horizon else e.until end)))
      - coalesce(e.done, '{}')
  end as owed,
  case when a.status = 'failed' then a.error end as last_error,
  e.prediction_table,
  e.description,
  e.owner,
  coalesce(t.open_incidents, 0) as open_incidents
from expected e
left join last_good g using (job)
left join last_attempt a using (job)
left join troubled t using (job);

-- As in 004, but by the clock: now() is when a transaction began to wait for its turn to decide.
create or replace view model_states as
  select m.model, m.version,
    case when t.version is not null then 'champion'
         when e.event in ('challenger', 'retired') then e.event
         else 'registered' end as state,
    t.live_from
  from models m
  left join model_timeline t on t.model = m.model and t.version = m.version
    and t.live_from <= clock_timestamp() and (t.live_until is null or clock_timestamp() < t.live_until)
  left join lateral (
    select event from model_events e where e.model = m.model and e.version = m.version order by event_id desc limit 1
  ) e on true;

-- Challengers of a window that is cut into parts: each has an attempt beside the champion's, with the same parts.
alter table runs add column beside bigint references runs;
comment on column runs.beside is 'the champion''s attempt whose parts this challenger scores; NULL for one that is in no parts';
create index runs_beside on runs (beside) where beside is not null;
alter table parts add column taken integer not null default 0;
comment on column parts.taken is 'how often somebody has begun to score it; only the last one may write. A challenger''s part has the number of the champion''s with which it was scored';
