-- The permissions that an agent may ask for beyond the required ones: none while the flag is off for it. So switching the flag off
-- only ever takes away.
create function agent_optional_permissions(p_agent agents) returns text[]
  language sql stable
  return case when flag_is_on('ADVANCED_AGENT_PERMISSIONS', p_agent.name) then p_agent.permissions_optional else '{}' end;

create or replace function agents_of_contexts()
  returns table (name text, permission_level text, permissions_required text[], permissions_optional text[], permissions_forbidden text[])
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select a.name, a.permission_level, a.permissions_required, agent_optional_permissions(a), a.permissions_forbidden
  from agents a where a.tenant_id = current_tenant() and a.enabled and 'context_update' = any (a.event_types) order by a.name
$$;
