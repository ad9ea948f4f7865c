-- The event log: append-only, one row per event that a client can see. Ranges of turn_id are days, because a
-- UUIDv7 starts with its millisecond.
create table turn_events (
  tenant_id uuid not null,
  turn_id uuid not null,
  seq bigint not null,
  kind text not null,
  data text not null,
  at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, turn_id, seq)
) partition by range (turn_id);

alter table turn_events enable row level security;
alter table turn_events force row level security;
create policy turn_events_of_app on turn_events to alfred_app
  using (tenant_id = current_tenant()
         and exists (select 1 from turns where turns.tenant_id = turn_events.tenant_id and turns.id = turn_events.turn_id))
  with check (tenant_id = current_tenant());
create policy turn_events_of_engine on turn_events to alfred_engine using (true) with check (true);
grant select, insert on turn_events to alfred_app, alfred_engine;

-- The least UUIDv7 of a day.
create function uuid_day_bound(p_day date) returns uuid language sql immutable parallel safe
  return (lpad(to_hex((extract(epoch from p_day::timestamp at time zone 'UTC') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- Makes the partitions from yesterday to `p_days` ahead. Audited: runs as the owner, takes no names from outside.
create function turn_events_make_partitions(p_days integer) returns bigint
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  today date := (clock_timestamp() at time zone 'UTC')::date;
  day date;
  made bigint := 0;
begin
  if p_days < 1 or p_days > 60 then
    raise exception 'partitions are made for 1 to 60 days ahead, not %', p_days;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('turn_events_partitions', 0));
  for day in select d::date from generate_series(today - 1, today + p_days, interval '1 day') d loop
    if to_regclass('public.turn_events_' || to_char(day, 'YYYYMMDD')) is null then
      execute format('create table public.%I partition of public.turn_events for values from (%L) to (%L)',
                     'turn_events_' || to_char(day, 'YYYYMMDD'), uuid_day_bound(day), uuid_day_bound(day + 1));
      made := made + 1;
    end if;
  end loop;
  return made;
end
$$;

-- Whether every turn that began on that day ended over 24 hours ago. Runs as the engine, which sees all turns.
create function turn_events_day_is_over(p_day date) returns boolean
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select not exists (
    select 1 from turns
    where id >= uuid_day_bound(p_day) and id < uuid_day_bound(p_day + 1)
      and (finished_at is null or finished_at > clock_timestamp() - interval '24 hours'))
$$;
alter function turn_events_day_is_over(date) owner to alfred_engine;
revoke all on function turn_events_day_is_over(date) from public;

-- Drops one partition that is over; answers its name, or null when there is none to drop. A short lock_timeout
-- keeps a waiting DROP from holding up writers; the caller tries again later.
create function turn_events_drop_partition() returns text
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '200ms'
as $$
declare
  today date := (clock_timestamp() at time zone 'UTC')::date;
  part text;
begin
  for part in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'public.turn_events'::regclass and c.relname < 'turn_events_' || to_char(today - 1, 'YYYYMMDD')
    order by c.relname
  loop
    if turn_events_day_is_over(to_date(right(part, 8), 'YYYYMMDD')) then
      execute format('drop table public.%I', part);
      return part;
    end if;
  end loop;
  return null;
end
$$;
do $$ begin execute format('grant execute on function turn_events_day_is_over(date) to %I', current_user); end $$;
revoke all on function turn_events_make_partitions(integer), turn_events_drop_partition() from public;
grant execute on function turn_events_make_partitions(integer), turn_events_drop_partition() to alfred_engine;

select turn_events_make_partitions(7);
