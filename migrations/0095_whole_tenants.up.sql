-- Reading and erasing all that a tenant has, whatever tables there are: the catalogue says which. The number leaves room
-- before it, so that it finds every table of this release; a table of a later one brings its own `whole_tenant` policy,
-- and shared/tests/catalogue.rs asks for it.

-- The owner's functions below are bound by row-level security as everybody is. This policy shows them the rows of one
-- tenant, which they name for the length of their transaction.
do $$
declare
  place record;
begin
  for place in
    select c.oid::regclass as name, case when c.relname = 'tenants' then 'id' else 'tenant_id' end as tenant
    from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
      and a.attname = case when c.relname = 'tenants' then 'id' else 'tenant_id' end and a.attnum > 0 and not a.attisdropped
  loop
    execute format('create policy whole_tenant on %s to %I using (%I = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)',
                   place.name, current_user, place.tenant);
  end loop;
end
$$;

create function tenant_tables() returns table (name text, key text[], hidden text[])
  language sql stable set search_path = pg_catalog, public, pg_temp
as $$
  select c.relname::text,
         array(select k.attname::text from unnest(p.conkey) with ordinality n (attnum, place)
               join pg_attribute k on k.attrelid = c.oid and k.attnum = n.attnum order by n.place),
         -- Hashes and ciphertexts are of no use to whoever takes a tenant elsewhere, and are secrets.
         array(select h.attname::text from pg_attribute h where h.attrelid = c.oid and h.attnum > 0 and not h.attisdropped
               and (h.atttypid = 'bytea'::regtype or h.attname like '%\_enc' or h.attname like '%\_hash' or h.attname like 'sealed\_%'))
  from pg_class c
  join pg_constraint p on p.conrelid = c.oid and p.contype = 'p'
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    and exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
  order by c.relname
$$;
revoke all on function tenant_tables() from public;
grant execute on function tenant_tables() to alfred_app;

-- Some rows of one table of the transaction's tenant, in the order of its key, after the row whose key is given.
-- Audited: for the tenant's admin, in that tenant; table and column names come from the catalogue.
create function tenant_export(p_table text, p_after jsonb, p_limit bigint) returns table (line text, place jsonb)
  language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  found_table record;
  keys text;
begin
  if current_tenant() is null or not current_is_admin() then
    raise exception 'only an admin takes a tenant''s data along' using errcode = 'insufficient_privilege';
  end if;
  select * into found_table from tenant_tables() t where t.name = p_table;
  if not found then
    raise exception 'there is no such table';
  end if;
  perform set_config('app.whole_tenant', current_tenant()::text, true);
  select string_agg(format('%I', k), ', ' order by n) into keys from unnest(found_table.key) with ordinality u (k, n);
  return query execute format(
    'select (to_jsonb(t) - $3)::text, (select jsonb_object_agg(e.key, e.value) from jsonb_each(to_jsonb(t)) e where e.key = any ($4))
     from %1$I t where t.tenant_id = $1 and ($2 is null or (%2$s) > (select %2$s from jsonb_populate_record(null::%1$I, $2)))
     order by %2$s limit $5', p_table, keys)
    using current_tenant(), p_after, found_table.hidden, found_table.key, p_limit;
  perform set_config('app.whole_tenant', '', true);
end
$$;
revoke all on function tenant_export(text, jsonb, bigint) from public;
grant execute on function tenant_export(text, jsonb, bigint) to alfred_app;

-- Erases some rows of a tenant that is being deleted; answers how many, none when nothing is left. The audit log stays.
-- Audited: engine only, and only a tenant that an operator has deleted.
create function tenant_erase(p_tenant uuid, p_limit bigint) returns bigint
  language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  place text;
  erased bigint := 0;
  gone bigint;
begin
  perform set_config('app.whole_tenant', p_tenant::text, true);
  if not exists (select 1 from tenants where id = p_tenant and state in ('deleting', 'deleted')) then
    raise exception 'the tenant is not being deleted';
  end if;
  for place in select t.name from tenant_tables() t where t.name <> 'audit_log' loop
    begin
      execute format(
        'delete from %1$I t using (select o.tableoid as part, o.ctid as spot from %1$I o where o.tenant_id = $1 limit $2) d
         where t.tableoid = d.part and t.ctid = d.spot and t.tenant_id = $1', place)
        using p_tenant, p_limit - erased;
      get diagnostics gone = row_count;
      erased := erased + gone;
    exception when foreign_key_violation then
      null; -- its turn comes when what hangs on it is gone
    end;
    exit when erased >= p_limit;
  end loop;
  perform set_config('app.whole_tenant', '', true);
  return erased;
end
$$;
revoke all on function tenant_erase(uuid, bigint) from public;
grant execute on function tenant_erase(uuid, bigint) to alfred_engine;
