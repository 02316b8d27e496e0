-- Whose a prediction table is: a mark beside it names its job and this ledger by its id.

create table ledger (
  only_one  boolean primary key default true check (only_one),
  ledger_id uuid not null default gen_random_uuid(),
  made_at   timestamptz not null default now()
);
insert into ledger default values;
comment on table ledger is 'This ledger''s id, which a dump and a copy keep: the marks beside prediction tables name it.';
create trigger a_ledger_stays before update or delete on ledger
  for each row execute function refuse_change('a ledger keeps its id');
