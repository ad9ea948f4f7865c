create or replace function agents_of_contexts()
  returns table (name text, permission_level text, permissions_required text[], permissions_optional text[], permissions_forbidden text[])
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select a.name, a.permission_level, a.permissions_required, a.permissions_optional, a.permissions_forbidden
  from agents a where a.tenant_id = current_tenant() and a.enabled and 'context_update' = any (a.event_types) order by a.name
$$;
drop function agent_optional_permissions(agents);
