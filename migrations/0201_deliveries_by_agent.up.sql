-- What waits for an agent, by time: workers look agent by agent, so that what waits for one that is left alone is passed over in one
-- step, however much it is. It takes the place of the index by time alone.
create index agent_notification_events_by_agent_due on agent_notification_events (tenant_id, target_agent, due_at)
  where status in ('pending', 'retry');
drop index agent_notification_events_due;

-- The agents for whom something waits and who may be told now or, where they are left alone, when. The engine's alone: it names
-- agents of every tenant. Each agent costs a step in the index, whatever waits for it. A paused queue has none.
create function agents_to_tell()
  returns table (tenant_id uuid, name text, accepts_batches boolean, left_alone_until timestamptz)
  language sql stable
as $$
  with recursive waiting as (
    (select d.tenant_id, d.target_agent from agent_notification_events d where d.status in ('pending', 'retry')
     order by d.tenant_id, d.target_agent limit 1)
    union all
    select n.tenant_id, n.target_agent
    from waiting w cross join lateral (
      select d.tenant_id, d.target_agent from agent_notification_events d
      where d.status in ('pending', 'retry') and (d.tenant_id, d.target_agent) > (w.tenant_id, w.target_agent)
      order by d.tenant_id, d.target_agent limit 1) n
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
revoke all on function agents_to_tell() from public;
grant execute on function agents_to_tell() to alfred_engine;
