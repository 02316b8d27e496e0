-- The flights with the weather at the hour of their scheduled departure.
select
  f.flight_id,
  f.departed_at,
  f.carrier,
  f.origin,
  f.dest,
  f.distance,
  f.dep_hour,
  f.scheduled_minutes,
  w.temp,
  w.wind_speed,
  w.precip,
  w.visib
from public.flights as f
left join public.weather as w
  on w.origin = f.origin and w.observed_at = date_trunc('hour', f.departed_at)
