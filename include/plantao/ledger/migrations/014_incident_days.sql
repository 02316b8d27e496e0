-- An incident closes on a day of the data as it opens on one; the clock's time stays beside it.

alter table incidents add column until date;
alter table incidents add constraint until_follows_since check (until is null or (state = 'closed' and until >= since));
comment on column incidents.since is 'the first day of the data on which the condition held';
comment on column incidents.until is
  'the day of the data that closed it; NULL while it is open, and where a condition is one of the clock and not of data';
comment on column incidents.opened_at is 'when that was noticed, by the clock';
comment on column incidents.closed_at is 'when that was noticed, by the clock';
