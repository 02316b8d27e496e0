-- Plantão's own tables, beside the predictions, so that a run's rows and its ledger entry commit together.
-- Applied by `plantao init`, once, with the search path set to the ledger's schema.
-- The constraints are the last guard: what Python promises, these refuse to see broken.

create table jobs (
  job               text primary key,
  description       text not null default '',
  owner             text not null default '',
  schedule          text not null,
  timezone          text not null,
  starts            timestamptz,
  ends              timestamptz,
  period            interval,
  late_after        interval not null,
  prediction_table  text not null,
  updated_at        timestamptz not null default now()
);
comment on table jobs is 'The jobs that have run against this database, as their files last said; for the view status.';

create table models (
  model        text not null,
  version      integer not null check (version > 0),
  sha256       text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  uri          text not null,
  created_at   timestamptz not null,
  created_by   text not null,
  registered_at timestamptz not null default now(),
  environment  jsonb not null,
  contract     jsonb not null,
  reference    jsonb not null,
  metrics      jsonb not null default '{}',
  primary key (model, version)
);
comment on table models is 'Registered model versions. The sha256 here is the authority: other bytes are not opened.';

create table model_timeline (
  entry_id    bigint generated always as identity primary key,
  model       text not null,
  version     integer not null,
  live_from   timestamptz not null,
  live_until  timestamptz,
  who         text not null,
  why         text not null,
  constraint timeline_names_a_version foreign key (model, version) references models,
  constraint timeline_interval check (live_until is null or live_from < live_until),
  -- gist compares ranges without an extension, so the name goes in as a range of one hash
  constraint one_champion_at_a_time exclude using gist (
    int8range(hashtextextended(model, 0), hashtextextended(model, 0), '[]') with &&,
    tstzrange(live_from, live_until) with &&)
);
comment on table model_timeline is 'Which version was champion when. No two versions of a model are live at once.';

create table runs (
  run_id        bigint generated always as identity primary key,
  job           text not null,
  model         text not null,
  model_version integer,
  role          text not null default 'champion' check (role in ('champion', 'challenger')),
  window_start  timestamptz not null,
  window_end    timestamptz not null,
  trigger       text not null check (trigger in ('schedule', 'backfill', 'manual', 'request', 'asset')),
  status        text not null default 'running' check (status in ('running', 'succeeded', 'failed', 'empty')),
  rows_read           bigint,
  rows_scored         bigint,
  rows_rejected       bigint,
  rows_already_scored bigint,
  rows_late           bigint,
  rows_rescored       bigint,
  started_at    timestamptz not null default clock_timestamp(),
  finished_at   timestamptz,
  seconds       jsonb,
  profile       jsonb,
  code_version  text not null,
  environment   jsonb not null,
  source_snapshot text,
  airflow_run   text,
  worker        text not null,
  error_kind    text check (error_kind in ('permanent', 'transient')),
  error         text,
  constraint window_is_an_interval check (window_start < window_end),
  constraint finished_iff_not_running check ((status = 'running') = (finished_at is null)),
  -- coalesce, because a CHECK that is NULL passes
  constraint books_balance check (status not in ('succeeded', 'empty')
    or coalesce(rows_read = rows_scored + rows_rejected + rows_already_scored, false)),
  constraint parts_are_counted check (status not in ('succeeded', 'empty')
    or coalesce(least(rows_scored, rows_rejected, rows_already_scored, rows_rescored, rows_late) >= 0
      and rows_late <= rows_scored + rows_rejected and rows_rescored <= rows_scored, false)),
  constraint empty_means_no_rows check (status not in ('succeeded', 'empty')
    or coalesce((rows_read = 0) = (status = 'empty'), false)),
  constraint success_names_its_model check (status <> 'succeeded' or model_version is not null),
  constraint failure_has_a_reason check ((status = 'failed') = coalesce(length(error) > 0, false)),
  constraint one_live_attempt_per_window exclude using gist (
    int8range(hashtextextended(job || ' ' || role, 0), hashtextextended(job || ' ' || role, 0), '[]') with &&,
    tstzrange(window_start, window_end) with &&) where (status = 'running')
);
create index runs_by_window on runs (job, window_start, window_end);
comment on table runs is 'The ledger: one row per attempt to score a window. A finished attempt never changes.';
comment on column runs.rows_read is 'rows of the window, plus late and edited ones = scored + rejected + already scored';
comment on column runs.rows_late is 'of those scored or rejected: rows of earlier windows that were committed late';
comment on column runs.rows_rescored is 'of those scored: rows whose earlier prediction went to the history';
comment on column runs.profile is 'what the scored rows looked like: gaps per column, sum of scores';

create table rejected_rows (
  reject_id        bigint generated always as identity primary key,
  job              text not null,
  key              jsonb not null,
  copy             integer not null default 1 check (copy > 0),
  source_timestamp timestamptz not null,
  reason           text not null check (reason in ('null_key', 'duplicate_key', 'null_feature', 'not_finite',
                     'out_of_range', 'unknown_category', 'model_error', 'bad_output')),
  column_name      text,
  detail           text,
  run_id           bigint not null,
  "row"            jsonb,
  first_seen_at    timestamptz not null default now(),
  last_seen_at     timestamptz not null default now(),
  resolved_at      timestamptz,
  resolved_by_run  bigint,
  constraint resolved_by_a_run check ((resolved_at is null) = (resolved_by_run is null))
);
-- One open entry per source row. Rows without a usable key are told apart by their timestamp and a number.
create unique index one_open_reject_per_row on rejected_rows
  (job, key, copy, (case when reason = 'null_key' then source_timestamp else '-infinity' end))
  where resolved_at is null;
create index rejected_rows_by_time on rejected_rows (job, source_timestamp);
comment on table rejected_rows is 'Rows that could not be scored, and why. resolved_at says when a later run scored the row.';

create table metrics (
  metric_id     bigint generated always as identity primary key,
  job           text not null,
  model_version integer not null,
  window_start  timestamptz not null,
  window_end    timestamptz not null,
  name          text not null,
  column_name   text not null default '',
  segment       text not null default '',
  value         double precision,
  lower         double precision,
  upper         double precision,
  n             bigint not null check (n >= 0),
  maturity      double precision check (maturity between 0 and 1),
  computed_at   timestamptz not null default clock_timestamp()
);
create index metrics_by_window on metrics (job, window_start, name, column_name, segment, model_version, metric_id desc);
comment on table metrics is 'Every measurement, with the earlier values of the same thing; metrics_latest has the newest.';

create view metrics_latest as
  select distinct on (job, model_version, window_start, window_end, name, column_name, segment) *
  from metrics
  order by job, model_version, window_start, window_end, name, column_name, segment, metric_id desc;

-- A finished attempt is evidence.
create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% on %: %', tg_op, tg_table_name, tg_argv[0] using errcode = 'integrity_constraint_violation';
end $$;
create trigger finished_attempts_stay before update on runs
  for each row when (old.status <> 'running') execute function refuse_change('a finished attempt never changes');
create trigger attempts_are_kept before delete on runs
  for each row execute function refuse_change('the ledger is only ever added to');
create trigger ledger_is_kept before truncate on runs
  for each statement execute function refuse_change('the ledger is only ever added to');
create trigger versions_stay before update or delete on models
  for each row execute function refuse_change('a registered version never changes');

-- What the client looks at to know how things stand.
create view status as
with covered as (
  select job, range_agg(tstzrange(window_start, window_end)) as done, max(window_end) as until
  from runs where status in ('succeeded', 'empty') and role = 'champion' group by job
), last_good as (
  select distinct on (job) * from runs where status in ('succeeded', 'empty') and role = 'champion'
  order by job, window_end desc, run_id desc
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
  e.owner
from expected e
left join last_good g using (job)
left join last_attempt a using (job);
