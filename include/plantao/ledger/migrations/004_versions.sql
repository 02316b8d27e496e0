-- What became of each model version, challengers beside the champion, and alerts that commit with the fact they report.

create table model_events (
  event_id  bigint generated always as identity primary key,
  model     text not null,
  version   integer not null,
  event     text not null check (event in ('registered', 'promoted', 'rolled back', 'challenger', 'retired')),
  at        timestamptz not null default clock_timestamp(),
  who       text not null,
  why       text not null check (why <> ''),
  forced    boolean not null default false,
  findings  jsonb not null default '[]',
  constraint event_names_a_version foreign key (model, version) references models
);
create index model_events_by_version on model_events (model, version, event_id);
comment on table model_events is 'What was decided about each version: by whom, when, why, and what the gate had found.';
create trigger events_stay before update or delete on model_events
  for each row execute function refuse_change('what was decided stays written');

insert into model_events (model, version, event, at, who, why)
  select model, version, 'registered', registered_at, created_by, 'registered before events were kept' from models
  order by registered_at;

-- The last word about each version; a champion is a champion whatever was said before.
create view model_states as
  select m.model, m.version,
    case when t.version is not null then 'champion'
         when e.event in ('challenger', 'retired') then e.event
         else 'registered' end as state,
    t.live_from
  from models m
  left join model_timeline t on t.model = m.model and t.version = m.version
    and t.live_from <= now() and (t.live_until is null or now() < t.live_until)
  left join lateral (
    select event from model_events e where e.model = m.model and e.version = m.version order by event_id desc limit 1
  ) e on true;
comment on view model_states is 'Each version: champion, challenger, retired, or only registered.';

-- One live attempt per window and role; challengers stand beside each other, each with its own.
alter table runs drop constraint one_live_attempt_per_window;
alter table runs add constraint challenger_names_its_version check (role = 'champion' or model_version is not null);
alter table runs add constraint one_live_attempt_per_window exclude using gist (
  int8range(
    hashtextextended(job || ' ' || role || case role when 'challenger' then ' ' || model_version else '' end, 0),
    hashtextextended(job || ' ' || role || case role when 'challenger' then ' ' || model_version else '' end, 0),
    '[]') with &&,
  tstzrange(window_start, window_end) with &&) where (status = 'running');
alter table runs add column note text;
comment on column runs.note is 'what is worth knowing of how the model version was chosen';

alter table metrics add column role text not null default 'champion' check (role in ('champion', 'challenger'));
create or replace view metrics_latest as
  select distinct on (job, model_version, window_start, window_end, name, column_name, segment, role) *
  from metrics
  order by job, model_version, window_start, window_end, name, column_name, segment, role, metric_id desc;

create table alerts (
  alert_id    bigint generated always as identity primary key,
  raised_at   timestamptz not null default clock_timestamp(),
  job         text,
  kind        text not null,
  fingerprint text not null,
  message     text not null,
  next_step   text not null,
  run_id      bigint,
  sent_at     timestamptz
);
create index alerts_waiting on alerts (alert_id) where sent_at is null;
comment on table alerts is 'The outbox: each alert commits in the transaction of the fact it reports, and waits here until it is sent.';
