-- What a comparison of the whole history found; one row each time, also when everything was in order.

create table reconciliations (
  reconciliation_id bigint generated always as identity primary key,
  job               text not null,
  period_start      timestamptz not null,
  period_end        timestamptz not null,
  rows_source       bigint not null check (rows_source >= 0),
  rows_accounted    bigint not null check (rows_accounted >= 0),
  rows_owed         bigint not null check (rows_owed >= 0),
  rows_edited       bigint not null check (rows_edited >= 0),
  rows_gone         bigint not null check (rows_gone >= 0),
  rejects_gone      bigint not null check (rejects_gone >= 0),
  rows_without_time bigint not null check (rows_without_time >= 0),
  rows_repaired     bigint check (rows_repaired >= 0),
  examples          jsonb not null,
  started_at        timestamptz not null,
  finished_at       timestamptz not null default clock_timestamp(),
  constraint period_is_an_interval check (period_start < period_end)
);
create index reconciliations_by_job on reconciliations (job, finished_at);
comment on table reconciliations is 'Comparisons of a job''s whole source with its predictions: what was owed, and what was repaired.';
comment on column reconciliations.rows_accounted is 'rows that are predicted, or set aside with an open reject';
comment on column reconciliations.rows_owed is 'rows of the source without a prediction or an open reject, when it was looked';
comment on column reconciliations.rows_edited is 'rows that were edited since they were predicted (on_change = "rescore")';
comment on column reconciliations.rows_gone is 'predictions whose source row is no longer there';
comment on column reconciliations.rows_without_time is 'source rows whose timestamp is NULL or infinite: no window ever contains them';
comment on column reconciliations.rows_repaired is 'rows scored by the repair; NULL when none was asked for';
