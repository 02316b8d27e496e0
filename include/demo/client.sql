-- The client's database, as a client would have it. Filled by demo.client_data.
drop schema if exists demo cascade;
drop view if exists public.arrivals;
drop table if exists public.flights, public.weather;

create table public.flights (
  flight_id         bigint primary key,
  departed_at       timestamptz not null,
  carrier           text not null,
  flight_number     integer not null,
  tailnum           text,
  origin            text not null,
  dest              text not null,
  distance          integer not null,
  dep_hour          smallint not null,
  day_of_week       smallint not null,
  scheduled_minutes integer not null,
  plane_year        smallint,
  plane_seats       smallint,
  updated_at        timestamptz not null default now()
);
comment on table public.flights is 'One row per flight, written when it enters the schedule.';
comment on column public.flights.departed_at is 'scheduled departure; the actual one is not known beforehand';
comment on column public.flights.scheduled_minutes is 'from scheduled departure to scheduled arrival, by the clocks at both ends';
create index flights_by_departure on public.flights (departed_at);
create index flights_by_update on public.flights (updated_at);

create table public.weather (
  origin      text not null,
  observed_at timestamptz not null,
  temp        double precision,
  humid       double precision,
  wind_speed  double precision,
  wind_gust   double precision,
  precip      double precision,
  pressure    double precision,
  visib       double precision,
  primary key (origin, observed_at)
);
comment on table public.weather is 'Hourly observations at the three airports.';

create schema demo;
create table demo.clock (now timestamptz not null);
insert into demo.clock values ('2013-04-01 00:00 America/New_York');
comment on table demo.clock is 'The demo''s present. `python -m demo clock 2013-05-01` moves it.';

create table demo.landings (
  flight_id       bigint primary key,
  landed_at       timestamptz not null,
  arrival_minutes double precision not null
);
create view public.arrivals as
  select flight_id, landed_at, arrival_minutes, arrival_minutes > 15 as late
  from demo.landings where landed_at <= (select now from demo.clock);
comment on view public.arrivals is 'What really happened; a flight appears when it has landed, a cancelled one never.';
