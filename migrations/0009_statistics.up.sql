-- Statistics for tables that have none yet. While a table was never analysed, Postgres guesses that a wide one has so
-- few rows that any index which begins with tenant_id is as good as its primary key, prepares that as the generic plan,
-- and reads all of a tenant's turns to find one. Autovacuum sets that right within a minute or two of the first rows;
-- the sweeper does within seconds. Audited: takes nothing from outside, touches tables of our schema only.
create function tables_measure() returns bigint
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
revoke all on function tables_measure() from public;
grant execute on function tables_measure() to alfred_engine;
