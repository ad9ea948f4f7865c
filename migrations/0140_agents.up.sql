-- Agents, what they are told of users, and how telling them goes.
--
-- An event and its deliveries are written in the transaction of what they tell of: sign-ins by a trigger, so that no way of
-- signing in or out can forget it. Whom an event goes to is decided then; what an agent may see is read when it is told.

create table agents (
  tenant_id uuid not null references tenants (id),
  name text not null,
  endpoint text not null,
  capabilities text[] not null default '{}',
  event_types text[] not null default '{user_login,user_logout,context_update}',
  enabled boolean not null default true,
  -- Why deliveries stopped by themselves: the agent answered that it is gone.
  disabled_because text,
  -- From the environment: its endpoint follows the environment at each start.
  configured boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (tenant_id, name),
  constraint agents_name check (name ~ '^[a-z][a-z0-9_]{0,62}$')
);

-- What deliveries are signed with. Two are good while one replaces the other.
create table agent_secrets (
  tenant_id uuid not null,
  agent text not null,
  id uuid not null,
  -- Sealed by the vault: tenant, agent and id stand inside the encrypted envelope.
  secret_enc text not null,
  created_at timestamptz not null default now(),
  -- Null while it is the newest.
  expires_at timestamptz,
  primary key (tenant_id, agent, id),
  foreign key (tenant_id, agent) references agents (tenant_id, name) on delete cascade
);

-- One breaker an agent, shared by all workers. There is a row from an agent's first failure on.
create table agent_breakers (
  tenant_id uuid not null,
  agent text not null,
  failures bigint not null default 0,
  -- Nothing is sent before this moment; after it, one probe at a time.
  open_until timestamptz,
  probing_until timestamptz,
  updated_at timestamptz not null default now(),
  primary key (tenant_id, agent),
  foreign key (tenant_id, agent) references agents (tenant_id, name) on delete cascade
);

create table agent_health (
  tenant_id uuid not null,
  agent text not null,
  id uuid not null default uuid_v7(),
  at timestamptz not null default clock_timestamp(),
  healthy boolean not null,
  status bigint,
  duration_ms bigint not null,
  error text,
  primary key (tenant_id, agent, id),
  foreign key (tenant_id, agent) references agents (tenant_id, name) on delete cascade
);

create table authentication_events (
  tenant_id uuid not null,
  id uuid not null default uuid_v7(),
  event_type text not null,
  user_id uuid not null,
  event_data jsonb not null default '{}',
  correlation_id text,
  created_at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, id),
  constraint authentication_events_type check (event_type in ('user_login', 'user_logout', 'context_update'))
);
create index authentication_events_by_age on authentication_events (created_at);
create index authentication_events_by_user on authentication_events (tenant_id, user_id, id);

create table agent_notification_events (
  tenant_id uuid not null,
  id uuid not null default uuid_v7(),
  event_id uuid not null,
  target_agent text not null,
  user_id uuid not null,
  event_type text not null,
  payload jsonb not null default '{}',
  status text not null default 'pending',
  error_message text,
  retry_count bigint not null default 0,
  max_retries bigint not null default 3,
  correlation_id text,
  created_at timestamptz not null default clock_timestamp(),
  processed_at timestamptz,
  -- Deliveries to one agent about one user go out in this order.
  seq bigint generated always as identity,
  due_at timestamptz not null default clock_timestamp(),
  -- It is dead a day after this: when it was written, or replayed.
  alive_since timestamptz not null default clock_timestamp(),
  leased_until timestamptz,
  lease uuid,
  response_status bigint,
  response_body text,
  duration_ms bigint,
  primary key (tenant_id, id),
  constraint agent_notification_events_status check (status in ('pending', 'delivered', 'retry', 'failed')),
  constraint agent_notification_events_body check (length(response_body) <= 8192)
);
-- What is still to be told: small, whatever the history's size.
create index agent_notification_events_due on agent_notification_events (due_at) where status in ('pending', 'retry');
create index agent_notification_events_line on agent_notification_events (tenant_id, target_agent, user_id, seq)
  where status in ('pending', 'retry');
create index agent_notification_events_by_agent on agent_notification_events (tenant_id, target_agent, id);
create index agent_notification_events_failed on agent_notification_events (tenant_id, processed_at) where status = 'failed';
create index agent_notification_events_by_age on agent_notification_events (created_at);

-- Where a person acts who belongs to no tenant: the deployment's default one when they signed in.
alter table sign_ins add column home_tenant uuid;

do $$
declare place text;
begin
  foreach place in array array['agents', 'agent_secrets', 'agent_breakers', 'agent_health', 'authentication_events', 'agent_notification_events'] loop
    execute format('alter table %I enable row level security', place);
    execute format('alter table %I force row level security', place);
    execute format('create policy %I on %I to alfred_app using (tenant_id = current_tenant() and current_is_admin()) with check (tenant_id = current_tenant() and current_is_admin())', place || '_of_app', place);
    execute format('create policy %I on %I to alfred_engine using (true) with check (true)', place || '_of_engine', place);
    execute format('create policy whole_tenant on %I to %I using (tenant_id = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)', place, current_user);
    execute format('grant select, insert, update, delete on %I to alfred_app, alfred_engine', place);
  end loop;
end $$;
-- What happened stays as it was written.
revoke update, delete on authentication_events from alfred_app;
-- A user's own changes are told by the function below, not by writing here.
revoke insert on authentication_events, agent_notification_events from alfred_app;

grant create on schema public to alfred_engine;

-- Writes an event, and a delivery of it for each agent of the tenant that wants such events. Audited: writes only what it is
-- handed, into the tenant that it is handed, and answers nothing but how many agents will be told.
create function user_event(p_tenant uuid, p_user uuid, p_type text, p_data jsonb, p_correlation text) returns bigint
  language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
  with event as (
    insert into authentication_events (tenant_id, event_type, user_id, event_data, correlation_id)
    values (p_tenant, p_type, p_user, p_data, p_correlation) returning id
  ), deliveries as (
    insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, payload, correlation_id)
    select p_tenant, event.id, a.name, p_user, p_type, p_data, p_correlation
    from event cross join agents a
    where a.tenant_id = p_tenant and a.enabled and p_type = any (a.event_types)
    returning id
  )
  select count(*) from deliveries
$$;
alter function user_event(uuid, uuid, text, jsonb, text) owner to alfred_engine;
revoke all on function user_event(uuid, uuid, text, jsonb, text) from public;

-- Tells of a sign-in's beginning and end in the tenants of its user.
create function sign_ins_tell() returns trigger
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  happened text := case when tg_op = 'INSERT' then 'user_login' else 'user_logout' end;
  facts jsonb := jsonb_build_object('sign_in', new.id, 'kind', new.kind, 'client', new.client_id);
  place uuid;
  told boolean := false;
begin
  if tg_op = 'UPDATE' then
    facts := facts || jsonb_build_object('because', new.ended_because);
  end if;
  for place in
    select m.tenant_id from memberships m join tenants t on t.id = m.tenant_id
    where m.user_id = new.user_id and m.accepted_at is not null and t.state = 'active'
  loop
    perform user_event(place, new.user_id, happened, facts, new.id::text);
    told := true;
  end loop;
  if not told and new.home_tenant is not null then
    perform user_event(new.home_tenant, new.user_id, happened, facts, new.id::text);
  end if;
  return null;
end
$$;
alter function sign_ins_tell() owner to alfred_engine;
revoke all on function sign_ins_tell() from public;
create trigger sign_ins_tell_begin after insert on sign_ins for each row execute function sign_ins_tell();
create trigger sign_ins_tell_end after update of ended_at on sign_ins for each row
  when (old.ended_at is null and new.ended_at is not null) execute function sign_ins_tell();

revoke create on schema public from alfred_engine;
