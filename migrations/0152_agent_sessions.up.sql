-- What agents come in by, and the sessions that they have here.

-- Hashes of 256 random bits each; both are wanted. A new pair takes the place of the old one.
create table agent_credentials (
  tenant_id uuid not null,
  agent text not null,
  api_key_hash bytea not null,
  client_secret_hash bytea not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, agent),
  foreign key (tenant_id, agent) references agents (tenant_id, name) on delete cascade
);

create table agent_sessions (
  tenant_id uuid not null,
  id uuid not null,
  agent_name text not null,
  session_token_hash bytea not null,
  -- What the session asked for and was given; what of it holds is decided at each use.
  permissions text[] not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  -- Right to some seconds.
  last_accessed timestamptz not null default now(),
  ip_address text,
  is_active boolean not null default true,
  primary key (tenant_id, id),
  foreign key (tenant_id, agent_name) references agents (tenant_id, name) on delete cascade
);
create index agent_sessions_by_agent on agent_sessions (tenant_id, agent_name, id);
create index agent_sessions_by_expiry on agent_sessions (expires_at);

do $$
declare place text;
begin
  foreach place in array array['agent_credentials', 'agent_sessions'] loop
    execute format('alter table %I enable row level security', place);
    execute format('alter table %I force row level security', place);
    execute format('create policy %I on %I to alfred_app using (tenant_id = current_tenant() and current_is_admin()) with check (tenant_id = current_tenant() and current_is_admin())', place || '_of_app', place);
    execute format('create policy %I on %I to alfred_engine using (true) with check (true)', place || '_of_engine', place);
    execute format('create policy whole_tenant on %I to %I using (tenant_id = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)', place, current_user);
    execute format('grant select, insert, update, delete on %I to alfred_engine', place);
  end loop;
end $$;
grant select, insert, update on agent_credentials to alfred_app;
-- Admins see sessions and end them; only an agent begins one.
grant select, update (is_active) on agent_sessions to alfred_app;

alter table audit_log drop constraint audit_log_acted_as;
alter table audit_log add constraint audit_log_acted_as check (acted_as in ('admin', 'operator', 'system', 'agent'));
