-- A ledger of many years: `plantao prune` moves old attempts to an archive and deletes what no promise needs.

-- A migration that adds a column to runs adds it here too, at the same place.
create table runs_archive (like runs);
alter table runs_archive add primary key (run_id);
create index archived_by_window on runs_archive (job, window_start, window_end);
create index archived_by_version on runs_archive (job, model_version) where status = 'succeeded';
create index archived_by_time on runs_archive using gist (
  int8range(hashtextextended(job || ' ' || role, 0), hashtextextended(job || ' ' || role, 0), '[]'),
  tstzrange(window_start, window_end));
comment on table runs_archive is 'Attempts of past years, moved here by `plantao prune`. They never change.';
create trigger archived_attempts_stay before update or delete on runs_archive
  for each row execute function refuse_change('an archived attempt never changes');
create trigger archive_is_kept before truncate on runs_archive
  for each statement execute function refuse_change('the ledger is only ever added to');

-- What asks for an attempt by its number or for a window of any age reads both.
create view all_runs as select * from runs union all select * from runs_archive;
comment on view all_runs is 'Every attempt there ever was, the archived ones too.';

create table prunes (
  prune_id      bigint generated always as identity primary key,
  job           text,
  before        timestamptz not null,
  runs          bigint not null default 0,
  parts         bigint not null default 0,
  log_events    bigint not null default 0,
  rejected_rows bigint not null default 0,
  who           text not null default session_user,
  started_at    timestamptz not null default clock_timestamp(),
  finished_at   timestamptz
);
comment on table prunes is 'What `plantao prune` moved to the archive (runs) and deleted (all else), counted in the same transactions.';
comment on column prunes.job is 'the one job that was asked for; NULL for all';
comment on column prunes.finished_at is 'NULL when it was interrupted; running it again goes on';

-- An attempt leaves the table for the archive only. Names its schema: the session may have another path.
create function keep_attempt() returns trigger language plpgsql as $$
declare is_archived boolean;
begin
  execute format('select exists (select from %I.runs_archive where run_id = $1)', tg_table_schema)
    into is_archived using old.run_id;
  if not is_archived then
    raise exception 'DELETE on runs: the ledger is only ever added to' using errcode = 'integrity_constraint_violation';
  end if;
  return old;
end $$;
drop trigger attempts_are_kept on runs;
create trigger attempts_are_kept before delete on runs for each row execute function keep_attempt();

-- A challenger's attempt may stay while the champion's that it stands beside is in the archive.
alter table runs drop constraint runs_beside_fkey;
create index rejects_by_resolution on rejected_rows (resolved_at) where resolved_at is not null;
