-- What delivery needs: which message an alert went out with, what became of each message, and the story of each incident.

create table digests (
  digest_id      bigint generated always as identity primary key,
  job            text not null,
  kind           text not null check (kind in ('page', 'digest', 'daily')),
  interval_start timestamptz,
  interval_end   timestamptz,
  notifications  integer not null default 0 check (notifications >= 0),
  thread_ts      text,
  channel        text,
  created_at     timestamptz not null default clock_timestamp(),
  tries          integer not null default 0,
  next_try_at    timestamptz,
  waits_for      text check (waits_for in ('slack', 'channel', 'message')),
  last_error     text,
  claimed_by     text,
  claimed_until  timestamptz,
  in_doubt       boolean not null default false,
  possible_repeat boolean not null default false,
  logged_at      timestamptz,
  sent_at        timestamptz,
  destination    text check (destination in ('slack', 'webhook', 'log')),
  message_ts     text,
  picture        text check (picture in ('waiting', 'sent', 'refused')),
  constraint sent_means_acknowledged check ((sent_at is null) = (destination is null)),
  constraint a_digest_has_an_interval check (
    kind = 'page' or coalesce(interval_start < interval_end, false))
);
create unique index one_digest_per_interval on digests (job, kind, interval_start) where kind <> 'page';
create index digests_waiting on digests (digest_id) where sent_at is null;
create index digests_by_job on digests (job, digest_id desc);
comment on table digests is 'The messages: pages at once, digests of an interval, daily ones. sent_at only after the acknowledgement.';
comment on column digests.job is 'empty for what concerns no single job';
comment on column digests.waits_for is 'why it waits: Slack does not answer or refuses the token; it refuses the channel; or this message';
comment on column digests.in_doubt is 'a try has begun whose answer is not known: Slack may have it';
comment on column digests.possible_repeat is 'a try of which nobody knows the answer came before the one that was acknowledged';
comment on column digests.logged_at is 'when it went to the log instead, because it was refused; it is still tried';

alter table alerts add column incident_id bigint;
alter table alerts add column route text check (route in ('page', 'counted', 'held'));
alter table alerts add column page_id bigint references digests;
alter table alerts add column digest_id bigint references digests;
alter table alerts add constraint a_page_has_its_message check (coalesce(route = 'page', false) = (page_id is not null));
comment on column alerts.route is 'page: at once; counted: in the digest only; held: it flaps, and is told when it stays';
comment on column alerts.page_id is 'the message that told it at once';
comment on column alerts.digest_id is 'the digest that counted it';
create index alerts_unrouted on alerts (alert_id) where route is null or route = 'held';
create index alerts_uncounted on alerts (job, raised_at) where digest_id is null;
create index alerts_by_page on alerts (page_id) where page_id is not null;
create index alerts_by_digest on alerts (digest_id) where digest_id is not null;

create trigger alerts_stay before update on alerts for each row when (
  (old.raised_at, old.job, old.kind, old.fingerprint, old.message, old.next_step, old.run_id, old.incident_id)
    is distinct from
  (new.raised_at, new.job, new.kind, new.fingerprint, new.message, new.next_step, new.run_id, new.incident_id))
  execute function refuse_change('what an alert says never changes');

create table incident_events (
  event_id    bigint generated always as identity primary key,
  incident_id bigint not null references incidents,
  event       text not null check (event in ('opened', 'worsened', 'reminded', 'silenced', 'acknowledged', 'closed')),
  at          timestamptz not null default clock_timestamp(),
  who         text not null,
  note        text not null default ''
);
create index incident_events_by_incident on incident_events (incident_id, event_id);
create trigger incident_events_stay before update or delete on incident_events
  for each row execute function refuse_change('what happened to an incident stays written');
comment on table incident_events is 'The story of each incident: what changed, when, and by whom.';

alter table incidents drop constraint incidents_lane_check;
alter table incidents add constraint incidents_lane_check
  check (lane in ('break', 'degraded', 'drift', 'missing', 'late', 'watch', 'delivery'));
alter table incidents add column silenced_until timestamptz;
alter table incidents add column acknowledged_at timestamptz;
alter table incidents add column acknowledged_by text;
alter table incidents add column thread_ts text;
alter table incidents add column reminded_at timestamptz;
alter table incidents add constraint acknowledged_by_somebody check ((acknowledged_at is null) = (acknowledged_by is null));
comment on column incidents.thread_ts is 'the message that told it first, whose thread holds what followed';
