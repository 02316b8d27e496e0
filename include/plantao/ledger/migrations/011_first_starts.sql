-- From when a job has owed windows, whatever its file says later.

alter table jobs add column first_starts timestamptz;
update jobs set first_starts = starts;
comment on column jobs.first_starts is 'the earliest `starts` that the job file ever had';
