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
