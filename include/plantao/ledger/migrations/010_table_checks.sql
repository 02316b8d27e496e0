-- What the last look at a prediction table has seen, so that the next one knows whether it has to count.

create table table_checks (
  job              text primary key,
  prediction_table text not null,
  storage          text not null,
  changes          bigint not null,
  checked_at       timestamptz not null default clock_timestamp()
);
comment on table table_checks is 'The signs of each prediction table when it was last held against the daily state.';
comment on column table_checks.storage is 'a hash of its files: another one after the table was made, truncated or rewritten';
comment on column table_checks.changes is 'rows deleted or updated since the server has kept statistics, those of our own runs included';
