-- As before, and its steps ask for an order that only the index of what waits has. Another index, of all that an agent was ever told,
-- begins with the same columns; without statistics, or with those of a large backlog, the planner may take that one and read
-- every delivery of an agent to find one that waits.
create or replace function agents_to_tell()
  returns table (tenant_id uuid, name text, accepts_batches boolean, left_alone_until timestamptz)
  language sql stable
as $$
  with recursive waiting as (
    (select d.tenant_id, d.target_agent from agent_notification_events d where d.status in ('pending', 'retry')
     order by d.tenant_id, d.target_agent, d.due_at limit 1)
    union all
    select n.tenant_id, n.target_agent
    from waiting w cross join lateral (
      select d.tenant_id, d.target_agent from agent_notification_events d
      where d.status in ('pending', 'retry') and (d.tenant_id, d.target_agent) > (w.tenant_id, w.target_agent)
      order by d.tenant_id, d.target_agent, d.due_at limit 1) n
  )
  select a.tenant_id, a.name, a.accepts_batches,
         case when b.open_until is not null and flag_is_on('CIRCUIT_BREAKER_ENABLED', a.name)
              then greatest(b.open_until, b.probing_until) end
  from waiting w
  join agents a on a.tenant_id = w.tenant_id and a.name = w.target_agent and a.enabled
  join tenants t on t.id = a.tenant_id and t.state = 'active'
  left join agent_breakers b on b.tenant_id = a.tenant_id and b.agent = a.name
  where not exists (select from queues q where q.name = 'agent-deliveries' and q.paused_at is not null)
$$;
