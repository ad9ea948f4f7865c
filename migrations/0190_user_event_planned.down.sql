-- As 0151 wrote it.
create or replace function user_event(p_tenant uuid, p_user uuid, p_type text, p_data jsonb, p_correlation text) returns bigint
  language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
  with event as (
    insert into authentication_events (tenant_id, event_type, user_id, event_data, correlation_id)
    values (p_tenant, p_type, p_user, p_data, p_correlation) returning id
  ), deliveries as (
    insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, payload, correlation_id)
    select p_tenant, event.id, a.name, p_user, p_type, p_data, p_correlation
    from event cross join agents a
    where a.tenant_id = p_tenant and agent_wants(a, p_type, p_user)
    returning id
  )
  select count(*) from deliveries
$$;
