-- Remote MCP servers: which there are, what of their tools was approved, and how they are.
-- Rows of the nil tenant are the deployment's: every tenant reads them, and only the engine's role writes them.

create table mcp_servers (
  tenant_id uuid not null,
  name text not null,
  definition jsonb not null,
  -- Sealed by the vault: tenant, name and address stand inside the encrypted envelope.
  bearer_enc text,
  -- What it is good for: the server's name and the place of its address.
  bearer_for text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (tenant_id, name),
  constraint mcp_servers_bearer_for check ((bearer_enc is null) = (bearer_for is null))
);

-- Tools as they were approved: what changed since is held back.
create table mcp_tools (
  tenant_id uuid not null,
  server text not null,
  tool text not null,
  fingerprint text not null,
  definition jsonb not null,
  approved_at timestamptz not null default now(),
  -- Null when it was the first that was seen of it.
  approved_by uuid,
  primary key (tenant_id, server, tool)
);

-- What a tool was last seen to have become.
create table mcp_tool_changes (
  tenant_id uuid not null,
  server text not null,
  tool text not null,
  fingerprint text not null,
  definition jsonb not null,
  seen_at timestamptz not null default now(),
  primary key (tenant_id, server, tool)
);

create table mcp_server_health (
  tenant_id uuid not null,
  name text not null,
  checked_at timestamptz not null default now(),
  is_well boolean not null,
  latency_ms bigint not null,
  -- A sentence, or the protocol's version when it is well.
  detail text not null,
  -- Since when it has been as it is.
  since timestamptz not null default now(),
  primary key (tenant_id, name)
);

do $$
declare
  place text;
begin
  foreach place in array array['mcp_servers', 'mcp_tools', 'mcp_tool_changes', 'mcp_server_health'] loop
    execute format('alter table %I enable row level security', place);
    execute format('alter table %I force row level security', place);
    execute format('create policy whole_tenant on %I to %I using (tenant_id = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)', place, current_user);
    execute format('create policy %I on %I to alfred_engine using (true) with check (true)', place || '_of_engine', place);
  end loop;
end
$$;

create policy mcp_servers_read_by_app on mcp_servers for select to alfred_app
  using (tenant_id = current_tenant() or tenant_id = '00000000-0000-0000-0000-000000000000');
create policy mcp_servers_written_by_app on mcp_servers to alfred_app
  using (tenant_id = current_tenant() and current_is_admin()) with check (tenant_id = current_tenant() and current_is_admin());
-- Whoever first sees a tool pins it; only an admin changes a pin.
create policy mcp_tools_read_by_app on mcp_tools for select to alfred_app using (tenant_id = current_tenant());
create policy mcp_tools_pinned_by_app on mcp_tools for insert to alfred_app with check (tenant_id = current_tenant());
create policy mcp_tools_changed_by_app on mcp_tools for update to alfred_app
  using (tenant_id = current_tenant() and current_is_admin()) with check (tenant_id = current_tenant() and current_is_admin());
create policy mcp_tools_dropped_by_app on mcp_tools for delete to alfred_app
  using (tenant_id = current_tenant() and current_is_admin());
create policy mcp_tool_changes_of_app on mcp_tool_changes to alfred_app
  using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());
create policy mcp_server_health_of_app on mcp_server_health for select to alfred_app
  using (tenant_id = current_tenant() or tenant_id = '00000000-0000-0000-0000-000000000000');

grant select, insert, update, delete on mcp_servers, mcp_tools, mcp_tool_changes to alfred_app;
grant select on mcp_server_health to alfred_app;
grant select, insert, update, delete on mcp_servers, mcp_server_health to alfred_engine;
grant delete, select on mcp_tools, mcp_tool_changes to alfred_engine;
