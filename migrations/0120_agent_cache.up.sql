-- Answers of tools that only read. A row belongs to a person, to a tenant, or to the whole deployment (`global`: what a
-- server without any credential says to everybody, kept under the nil tenant). Content is only ever the app's to read,
-- under the policy that also keeps one person's rows from another.
create table agent_cache (
  tenant_id uuid not null,
  scope text not null,
  -- Whose it is: a user, the tenant itself, or nil for the deployment.
  owner_id uuid not null,
  cache_key text not null,
  server text not null,
  tool text not null,
  content text not null,
  content_hash text not null,
  -- Of its place when the read began: a row of an older generation is as good as gone.
  generation bigint not null,
  read_at timestamptz not null,
  expires_at timestamptz not null,
  hit_count bigint not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  last_accessed timestamptz not null default clock_timestamp(),
  primary key (tenant_id, scope, owner_id, cache_key),
  constraint agent_cache_scope check (scope in ('user', 'tenant', 'global')),
  constraint agent_cache_global_has_no_tenant
    check ((scope = 'global') = (tenant_id = '00000000-0000-0000-0000-000000000000'::uuid))
);
create index agent_cache_by_expiry on agent_cache (expires_at);
create index agent_cache_by_place on agent_cache (tenant_id, scope, owner_id, server, generation);

-- One row a place that was written to: its number goes up with every write, before and after it.
create table agent_cache_generations (
  tenant_id uuid not null,
  scope text not null,
  owner_id uuid not null,
  server text not null,
  generation bigint not null,
  -- A write is under way until then at the latest: nothing is kept meanwhile.
  writing_until timestamptz not null,
  primary key (tenant_id, scope, owner_id, server)
);

-- Who is fetching what is not in the cache. A row whose time is up belongs to nobody.
create table agent_cache_flights (
  tenant_id uuid not null,
  scope text not null,
  owner_id uuid not null,
  cache_key text not null,
  holder uuid not null,
  generation bigint not null,
  expires_at timestamptz not null,
  primary key (tenant_id, scope, owner_id, cache_key)
) with (fillfactor = 50);
create index agent_cache_flights_by_expiry on agent_cache_flights (expires_at);

-- What the cache was asked, by day: written in batches.
create table agent_cache_days (
  tenant_id uuid not null,
  day timestamptz not null,
  server text not null,
  tool text not null,
  hits bigint not null default 0,
  misses bigint not null default 0,
  refreshes bigint not null default 0,
  passed_by bigint not null default 0,
  primary key (tenant_id, day, server, tool)
);

do $$
declare
  place text;
begin
  foreach place in array array['agent_cache', 'agent_cache_generations', 'agent_cache_flights'] loop
    execute format('alter table %I enable row level security', place);
    execute format('alter table %I force row level security', place);
    execute format(
      'create policy %I on %I to alfred_app
       using ((tenant_id = current_tenant() and (scope = ''tenant'' or (scope = ''user'' and owner_id = current_app_user())))
              or (scope = ''global'' and tenant_id = ''00000000-0000-0000-0000-000000000000''::uuid))
       with check ((tenant_id = current_tenant() and (scope = ''tenant'' or (scope = ''user'' and owner_id = current_app_user())))
              or (scope = ''global'' and tenant_id = ''00000000-0000-0000-0000-000000000000''::uuid))',
      place || '_of_app', place);
    execute format('create policy %I on %I to alfred_engine using (true) with check (true)', place || '_of_engine', place);
    execute format('create policy whole_tenant on %I to current_user
       using (tenant_id = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)', place);
  end loop;
end
$$;
alter table agent_cache_days enable row level security;
alter table agent_cache_days force row level security;
create policy agent_cache_days_of_engine on agent_cache_days to alfred_engine using (true) with check (true);
create policy whole_tenant on agent_cache_days to current_user
  using (tenant_id = nullif(current_setting('app.whole_tenant', true), '')::uuid) with check (false);

grant select, insert, update, delete on agent_cache, agent_cache_generations, agent_cache_flights to alfred_app;
-- The engine counts hits, removes what is over and tells admins how much there is; it never reads an answer.
grant select (tenant_id, scope, owner_id, cache_key, server, tool, generation, expires_at, hit_count, last_accessed),
      update (hit_count, last_accessed), delete on agent_cache to alfred_engine;
grant select on agent_cache_generations to alfred_engine;
grant select (tenant_id, scope, owner_id, cache_key, expires_at), delete on agent_cache_flights to alfred_engine;
grant select, insert, update, delete on agent_cache_days to alfred_engine;
