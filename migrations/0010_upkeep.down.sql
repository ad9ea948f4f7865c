-- The functions as they were.
create or replace function turn_events_day_is_over(p_day date) returns boolean
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select not exists (
    select 1 from turns
    where id >= uuid_day_bound(p_day) and id < uuid_day_bound(p_day + 1)
      and (finished_at is null or finished_at > clock_timestamp() - interval '24 hours'))
$$;

alter function turn_events_make_partitions(integer) reset lock_timeout;

create or replace function tables_measure() returns bigint
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '200ms'
as $$
declare
  unmeasured regclass;
  measured bigint := 0;
begin
  for unmeasured in
    select c.oid::regclass from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.reltuples <= 0
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
