-- So that a run that looks back for late rows knows the rejects that are as they were.

alter table rejected_rows add column digest text;
comment on column rejected_rows.digest is
  'a hash of the row, the model version and the rules: a run that looks back skips the row while it stays the same; NULL for rows that every run judges again';
