-- A window too large for one worker is cut into parts, which any number of workers score; one publish makes them visible.

alter table runs add column parts integer check (parts > 0);
comment on column runs.parts is 'into how many parts the window was cut; NULL when one process did it all';

create table parts (
  run_id        bigint not null references runs,
  part          integer not null check (part >= 0),
  lower_key     jsonb,
  upper_key     jsonb,
  replaces      boolean not null default false,
  status        text not null default 'waiting' check (status in ('waiting', 'running', 'staged')),
  worker        text,
  rows_read           bigint,
  rows_scored         bigint,
  rows_rejected       bigint,
  rows_already_scored bigint,
  rows_late           bigint,
  rejects       jsonb,
  profile       jsonb,
  seconds       jsonb,
  changed_at    timestamptz not null default clock_timestamp(),
  primary key (run_id, part),
  constraint staged_parts_balance check (status <> 'staged'
    or coalesce(rows_read = rows_scored + rows_rejected + rows_already_scored, false))
);
comment on table parts is 'The parts of a run that was fanned out: the range of keys of each, and where its rows went.';
