-- Rows whose key has a prediction of another source timestamp, and the incidents that predictions themselves raise.

alter table runs add column rows_conflicting bigint;
alter table runs add constraint conflicts_are_counted
  check (rows_conflicting is null or coalesce(rows_conflicting between 0 and rows_already_scored, false));
comment on column runs.rows_conflicting is
  'of those already scored: rows whose key has a prediction of another source timestamp; NULL before they were counted';

alter table reconciliations add column rows_conflicting bigint check (rows_conflicting >= 0);
comment on column reconciliations.rows_conflicting is 'rows whose key has a prediction of another source timestamp';

alter table incidents drop constraint incidents_lane_check;
alter table incidents add constraint incidents_lane_check
  check (lane in ('break', 'degraded', 'drift', 'missing', 'late', 'watch', 'delivery', 'integrity'));
