-- Whether a user belongs to a tenant: by a membership that they accepted, or, without an accepted one anywhere, because the tenant is
-- the deployment's default one, which they share then. A membership that was only offered says nothing.
create function belongs(p_tenant uuid, p_user uuid, p_default uuid) returns boolean
  language sql stable
  return exists (select from memberships m where m.tenant_id = p_tenant and m.user_id = p_user and m.accepted_at is not null)
    or (coalesce(p_tenant = p_default, false)
        and not exists (select from memberships m join tenants t on t.id = m.tenant_id
                        where m.user_id = p_user and m.accepted_at is not null and t.state <> 'deleted'));

-- The same of the transaction's tenant and somebody who is there, for its admins, who see no memberships elsewhere. Audited: answers
-- one bit about their own tenant.
create function belongs_here(p_user uuid, p_default uuid) returns boolean
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select current_is_admin() and exists (select from users u where u.id = p_user) and belongs(current_tenant(), p_user, p_default)
$$;

-- As before, and of those only who belong to the tenant. The code before this one names no default tenant: then it tells of members.
drop function agent_sync(text, uuid, bigint, text);
create function agent_sync(p_agent text, p_after uuid, p_most bigint, p_correlation text, p_default uuid default null,
                           out last_user uuid, out contexts bigint, out told bigint)
  language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
  with page as (
    select c.user_id, c.version from user_contexts c
    where c.tenant_id = current_tenant() and current_is_admin() and c.user_id > p_after
      and belongs(c.tenant_id, c.user_id, p_default)
    order by c.user_id limit p_most
  ), wanted as (
    select p.user_id, p.version from page p
    join agents a on a.tenant_id = current_tenant() and a.name = p_agent and agent_wants(a, 'context_update', p.user_id)
  ), replaced as (
    delete from agent_notification_events d using wanted w
    where d.tenant_id = current_tenant() and d.target_agent = p_agent and d.user_id = w.user_id
      and d.event_type = 'context_update' and d.status = 'pending' and d.lease is null and d.duration_ms is null
  ), deliveries as (
    insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, payload, correlation_id)
    select current_tenant(), uuid_v7(), p_agent, w.user_id, 'context_update',
           jsonb_build_object('version', w.version, 'parts', '[]'::jsonb, 'changed_by', 'sync'), p_correlation
    from wanted w
    returning id
  )
  select (select user_id from page order by user_id desc limit 1), (select count(*) from page), (select count(*) from deliveries)
$$;

grant create on schema public to alfred_engine;
alter function belongs_here(uuid, uuid) owner to alfred_engine;
alter function agent_sync(text, uuid, bigint, text, uuid) owner to alfred_engine;
revoke create on schema public from alfred_engine;
revoke all on function belongs(uuid, uuid, uuid) from public;
revoke all on function belongs_here(uuid, uuid) from public;
revoke all on function agent_sync(text, uuid, bigint, text, uuid) from public;
grant execute on function belongs(uuid, uuid, uuid) to alfred_engine;
grant execute on function belongs_here(uuid, uuid) to alfred_app;
grant execute on function agent_sync(text, uuid, bigint, text, uuid) to alfred_app;
