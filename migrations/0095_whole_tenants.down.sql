drop function tenant_erase(uuid, bigint);
drop function tenant_export(text, jsonb, bigint);
drop function tenant_tables();
do $$
declare
  place record;
begin
  for place in select p.polrelid::regclass as name from pg_policy p where p.polname = 'whole_tenant' loop
    execute format('drop policy whole_tenant on %s', place.name);
  end loop;
end
$$;
