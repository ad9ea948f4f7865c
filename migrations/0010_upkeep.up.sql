-- Upkeep that stays cheap when tables are large.

-- As before, but by the partial indexes of unfinished and of finished turns: a scan of thirty days of turns for every
-- partition would run into the statement time-out, and no partition would ever be dropped.
create or replace function turn_events_day_is_over(p_day date) returns boolean
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select not exists (select 1 from turns where state = 'queued' and id >= uuid_day_bound(p_day) and id < uuid_day_bound(p_day + 1))
     and not exists (select 1 from turns where state = 'waiting' and id >= uuid_day_bound(p_day) and id < uuid_day_bound(p_day + 1))
     and not exists (select 1 from turns where state = 'ready' and id >= uuid_day_bound(p_day) and id < uuid_day_bound(p_day + 1))
     and not exists (select 1 from turns where state = 'running' and id >= uuid_day_bound(p_day) and id < uuid_day_bound(p_day + 1))
     and not exists (select 1 from turns where state = 'awaiting_approval' and id >= uuid_day_bound(p_day) and id < uuid_day_bound(p_day + 1))
     and not exists (select 1 from turns where finished_at > clock_timestamp() - interval '24 hours'
                     and id >= uuid_day_bound(p_day) and id < uuid_day_bound(p_day + 1))
$$;

-- A new partition locks the whole log for a moment; whoever waits for that lock holds up everybody behind. The next
-- tick tries again, and there are days of time.
alter function turn_events_make_partitions(integer) set lock_timeout = '1s';

-- A table whose rows are all gone has no tuples either, but has been measured: only those that were never measured, or
-- were when they were empty, are.
create or replace function tables_measure() returns bigint
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '200ms'
as $$
declare
  unmeasured regclass;
  measured bigint := 0;
begin
  for unmeasured in
    select c.oid::regclass from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
      and (c.reltuples < 0 or (c.reltuples = 0 and c.relpages = 0))
      and pg_get_userbyid(c.relowner) = current_user and pg_relation_size(c.oid) > 0
    order by c.oid
  loop
    begin
      execute format('analyze %s', unmeasured);
      measured := measured + 1;
    exception when lock_not_available then
      null; -- autovacuum is at it
    end;
  end loop;
  return measured;
end
$$;
