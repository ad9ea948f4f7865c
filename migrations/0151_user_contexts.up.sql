-- What is known of users: one document each, all of its versions for a while, and what each agent was last told.

create table user_contexts (
  tenant_id uuid not null,
  user_id uuid not null,
  version bigint not null default 1,
  context_data jsonb not null default '{}',
  created_at timestamptz not null default now(),
  -- Null while nobody changed it.
  updated_at timestamptz,
  primary key (tenant_id, user_id),
  constraint user_contexts_version check (version > 0),
  constraint user_contexts_data check (jsonb_typeof(context_data) = 'object')
);
create index user_contexts_by_age on user_contexts (updated_at);

create table user_context_history (
  tenant_id uuid not null,
  user_id uuid not null,
  version bigint not null,
  context_data jsonb not null,
  changed_parts text[] not null,
  -- user, system, or agent: and its name.
  changed_by text not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, user_id, version)
);
create index user_context_history_by_age on user_context_history (created_at);

-- The version of a user's context that an agent has been told of last.
create table agent_context_versions (
  tenant_id uuid not null,
  agent text not null,
  user_id uuid not null,
  version bigint not null,
  updated_at timestamptz not null default now(),
  primary key (tenant_id, agent, user_id),
  foreign key (tenant_id, agent) references agents (tenant_id, name) on delete cascade
);

alter table user_contexts enable row level security;
alter table user_contexts force row level security;
alter table user_context_history enable row level security;
alter table user_context_history force row level security;
alter table agent_context_versions enable row level security;
alter table agent_context_versions force row level security;
-- A person has their own, and nobody else writes it; an admin reads the tenant's.
create policy user_contexts_of_app on user_contexts to alfred_app
  using (tenant_id = current_tenant() and user_id = current_app_user())
  with check (tenant_id = current_tenant() and user_id = current_app_user());
create policy user_contexts_read_by_admins on user_contexts for select to alfred_app
  using (tenant_id = current_tenant() and current_is_admin());
create policy user_context_history_of_app on user_context_history to alfred_app
  using (tenant_id = current_tenant() and user_id = current_app_user())
  with check (tenant_id = current_tenant() and user_id = current_app_user());
create policy user_context_history_read_by_admins on user_context_history for select to alfred_app
  using (tenant_id = current_tenant() and current_is_admin());
do $$
declare place text;
begin
  foreach place in array array['user_contexts', 'user_context_history', 'agent_context_versions'] loop
    execute format('create policy %I on %I to alfred_engine using (true) with check (true)', place || '_of_engine', place);
    execute format('create policy whole_tenant on %I to %I using (tenant_id = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)', place, current_user);
    execute format('grant select, insert, update, delete on %I to alfred_engine', place);
  end loop;
end $$;
grant select, insert, update on user_contexts to alfred_app;
-- What was stays as it was written.
grant select, insert on user_context_history to alfred_app;

grant create on schema public to alfred_engine;

-- Whether an agent is told of what happens to a user: it is on, wants such events, and its condition holds.
create function agent_wants(p_agent agents, p_type text, p_user uuid) returns boolean
  language sql stable
  return p_agent.enabled and p_type = any (p_agent.event_types)
    and (p_agent.condition is null or agent_condition_holds(p_agent.condition,
          (select c.context_data -> 'preferences' from user_contexts c where c.tenant_id = p_agent.tenant_id and c.user_id = p_user)));

-- As before, and only to agents whose condition holds.
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

-- The agents that want to hear of changes, with what they may see. Audited: the transaction's tenant only; answers names and
-- permissions, no endpoint and no secret.
create function agents_of_contexts()
  returns table (name text, permission_level text, permissions_required text[], permissions_optional text[], permissions_forbidden text[])
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select a.name, a.permission_level, a.permissions_required, a.permissions_optional, a.permissions_forbidden
  from agents a where a.tenant_id = current_tenant() and a.enabled and 'context_update' = any (a.event_types) order by a.name
$$;
alter function agents_of_contexts() owner to alfred_engine;
revoke all on function agents_of_contexts() from public;
grant execute on function agents_of_contexts() to alfred_app;

-- Writes the event of a change of a context, and a delivery of it for each of these agents that wants it. A delivery that
-- waits and that nobody has taken up yet is replaced: the agent hears of the newest version alone, and at the time at which it
-- would have heard of the one before. Audited: about the transaction's own user in its own tenant.
create function user_context_event(p_agents text[], p_data jsonb, p_correlation text) returns bigint
  language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
  with event as (
    insert into authentication_events (tenant_id, event_type, user_id, event_data, correlation_id)
    values (current_tenant(), 'context_update', current_app_user(), p_data, p_correlation) returning id
  ), wanted as (
    select a.name from agents a
    where a.tenant_id = current_tenant() and a.name = any (p_agents) and agent_wants(a, 'context_update', current_app_user())
  ), replaced as (
    delete from agent_notification_events d using wanted w
    where d.tenant_id = current_tenant() and d.target_agent = w.name and d.user_id = current_app_user()
      and d.event_type = 'context_update' and d.status = 'pending' and d.lease is null and d.duration_ms is null
    returning d.target_agent, d.due_at
  ), deliveries as (
    insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, payload, correlation_id, due_at)
    select current_tenant(), event.id, w.name, current_app_user(), 'context_update', p_data, p_correlation,
           coalesce((select min(r.due_at) from replaced r where r.target_agent = w.name), clock_timestamp())
    from event cross join wanted w
    returning id
  )
  select count(*) from deliveries
$$;
alter function user_context_event(text[], jsonb, text) owner to alfred_engine;
revoke all on function user_context_event(text[], jsonb, text) from public;
grant execute on function user_context_event(text[], jsonb, text) to alfred_app;

revoke create on schema public from alfred_engine;
