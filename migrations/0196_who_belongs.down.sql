drop function agent_sync(text, uuid, bigint, text, uuid);
create function agent_sync(p_agent text, p_after uuid, p_most bigint, p_correlation text,
                           out last_user uuid, out contexts bigint, out told bigint)
  language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
  with page as (
    select c.user_id, c.version from user_contexts c
    where c.tenant_id = current_tenant() and current_is_admin() and c.user_id > p_after
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
alter function agent_sync(text, uuid, bigint, text) owner to alfred_engine;
revoke create on schema public from alfred_engine;
revoke all on function agent_sync(text, uuid, bigint, text) from public;
grant execute on function agent_sync(text, uuid, bigint, text) to alfred_app;
drop function belongs_here(uuid, uuid);
drop function belongs(uuid, uuid, uuid);
