-- Signs of life of everything that has to be alive, and the log.

create table heartbeats (
  component text primary key,
  host      text not null,
  at        timestamptz not null default clock_timestamp(),
  details   jsonb not null default '{}'
);
comment on table heartbeats is 'The last sign of life of each component: what the watchdog looks at, and what looks at the watchdog.';
comment on column heartbeats.component is
  'watchdog, digest, "airflow scheduler" as the watchdog sees it, "job NAME" for its last success, "file NAME" for its job file';

create table log_events (
  event_id bigint generated always as identity primary key,
  at       timestamptz not null,
  level    text not null check (level in ('debug', 'info', 'warning', 'error', 'fatal')),
  event    text not null,
  job      text,
  run_id   bigint,
  step     text,
  fields   jsonb not null default '{}'
);
create index log_events_by_run on log_events (run_id, event_id) where run_id is not null;
create index log_events_by_time on log_events using brin (at);
comment on table log_events is 'One event per step and per decision. The sentence is constant; the fields hold the figures.';

create index alerts_by_run on alerts (run_id) where run_id is not null;
create index alerts_by_fingerprint on alerts (fingerprint, raised_at);
