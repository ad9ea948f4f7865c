-- People's accounts at other services, and how they get them. Tokens are sealed by the vault: tenant, user, provider and
-- workspace stand inside the encrypted envelope. Of connections the engine sees what scheduling needs, and no ciphertext.

create table connections (
  tenant_id uuid not null references tenants (id),
  id uuid not null,
  user_id uuid not null,
  -- The server's name, as in /connect/{server}.
  provider text not null,
  -- The server that the tokens are for, and who issued them: they go nowhere else.
  server_url text not null,
  issuer text not null,
  client_id text not null,
  -- Where tokens are refreshed and revoked, and in which form, as it was said when they were given. JSON.
  endpoints text not null,
  -- Empty where the provider names none.
  workspace_id text not null,
  workspace_name text,
  scope text,
  -- Both null once the provider has refused them.
  access_token_enc text,
  refresh_token_enc text,
  -- The key of FERNET_KEY that sealed them, and whether there is anything to refresh with.
  key_id text generated always as (split_part(coalesce(access_token_enc, refresh_token_enc), '.', 1)) stored,
  refreshable boolean not null generated always as (refresh_token_enc is not null) stored,
  -- Null where the provider does not say.
  expires_at timestamptz,
  status text not null default 'active',
  -- Why it is invalid.
  status_reason text,
  -- The workspace that tools use, of those of this user and provider.
  chosen boolean not null,
  -- Moves when the tokens change, and never otherwise.
  token_version bigint not null default 1,
  refreshed_at timestamptz not null default clock_timestamp(),
  -- Who refreshes it now.
  lease uuid,
  lease_until timestamptz,
  -- The provider was asked, and its answer is not known here.
  sent_at timestamptz,
  -- The provider refused a token that an unknown answer may have replaced: whoever has that answer gets one more lease.
  doubted_at timestamptz,
  failures bigint not null default 0,
  retry_at timestamptz,
  last_error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (tenant_id, id),
  constraint connections_once unique (tenant_id, user_id, provider, workspace_id),
  constraint connections_status check (status in ('active', 'invalid')),
  constraint connections_have_a_token check (status <> 'active' or access_token_enc is not null)
);
create unique index connections_chosen on connections (tenant_id, user_id, provider) where chosen;
create index connections_due on connections (expires_at) where status = 'active' and refreshable;

-- What Alfred is called at other authorization servers where it registered itself (RFC 7591).
create table oauth_registrations (
  tenant_id uuid not null references tenants (id),
  id uuid not null,
  issuer text not null,
  redirect_uri text not null,
  client_id text not null,
  client_secret_enc text,
  key_id text generated always as (split_part(client_secret_enc, '.', 1)) stored,
  auth_method text not null,
  -- Null where it does not end.
  expires_at timestamptz,
  -- The server does not know it any more, or another one took its place; tokens that it got are still refreshed with it.
  retired_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id),
  constraint oauth_registrations_auth_method check (auth_method in ('none', 'client_secret_basic', 'client_secret_post'))
);
create unique index oauth_registrations_current on oauth_registrations (tenant_id, issuer, redirect_uri) where retired_at is null;
create index oauth_registrations_by_client on oauth_registrations (tenant_id, issuer, client_id);

-- People on their way to an authorization server and back: for ten minutes, once, in the browser they left with.
create table oauth_flows (
  tenant_id uuid not null references tenants (id),
  id uuid not null,
  user_id uuid not null,
  state_hash bytea not null,
  browser_hash bytea not null,
  -- The cookie session that it began in; null when a token began it.
  sign_in uuid,
  provider text not null,
  -- What was asked for, and of whom. JSON, no secrets.
  plan text not null,
  verifier_enc text,
  key_id text generated always as (split_part(verifier_enc, '.', 1)) stored,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (tenant_id, id),
  constraint oauth_flows_state unique (tenant_id, state_hash)
);
create index oauth_flows_by_expiry on oauth_flows (expires_at);

alter table connections enable row level security;
alter table connections force row level security;
alter table oauth_registrations enable row level security;
alter table oauth_registrations force row level security;
alter table oauth_flows enable row level security;
alter table oauth_flows force row level security;
-- Not even a tenant's admin: these are a person's keys to somewhere else.
create policy connections_of_app on connections to alfred_app
  using (tenant_id = current_tenant() and user_id = current_app_user()) with check (tenant_id = current_tenant() and user_id = current_app_user());
create policy connections_of_engine on connections to alfred_engine using (true) with check (true);
create policy oauth_registrations_of_app on oauth_registrations to alfred_app
  using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());
create policy oauth_registrations_of_engine on oauth_registrations to alfred_engine using (true) with check (true);
create policy oauth_flows_of_app on oauth_flows to alfred_app
  using (tenant_id = current_tenant() and user_id = current_app_user()) with check (tenant_id = current_tenant() and user_id = current_app_user());
create policy oauth_flows_of_engine on oauth_flows to alfred_engine using (true) with check (true);
-- As 0095 makes it for the tables before it.
do $$
declare
  place text;
begin
  foreach place in array array['connections', 'oauth_registrations', 'oauth_flows'] loop
    execute format('create policy whole_tenant on %I to %I using (tenant_id = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)',
                   place, current_user);
  end loop;
end
$$;
grant select, insert, update, delete on connections, oauth_registrations, oauth_flows to alfred_app;
grant select (tenant_id, id, user_id, provider, key_id, refreshable, expires_at, status, token_version, refreshed_at, lease, lease_until,
              sent_at, doubted_at, failures, retry_at) on connections to alfred_engine;
grant select (tenant_id, id, key_id) on oauth_registrations to alfred_engine;
grant select (tenant_id, id, user_id, state_hash, browser_hash, key_id, expires_at) on oauth_flows to alfred_engine;
grant delete on connections, oauth_flows to alfred_engine;

-- Notion's, by the name that its users look for.
create view notion_connections with (security_invoker = true) as
  select tenant_id, user_id, workspace_id, workspace_name, access_token_enc, refresh_token_enc, expires_at, status, created_at, updated_at
  from connections where provider in ('notion', 'notion-self-hosted');
grant select on notion_connections to alfred_app;

grant create on schema public to alfred_engine;

-- Who began a flow, before anybody has shown a credential: whoever comes back may have only the cookie they left with.
-- Audited: one exact state of 256 random bits, with the browser's own secret, while it lives.
create function oauth_flow_owner(p_tenant uuid, p_state bytea, p_browser bytea) returns uuid
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select f.user_id from oauth_flows f
  where f.tenant_id = p_tenant and f.state_hash = p_state and f.browser_hash = p_browser and f.expires_at > clock_timestamp()
$$;
alter function oauth_flow_owner(uuid, bytea, bytea) owner to alfred_engine;
revoke all on function oauth_flow_owner(uuid, bytea, bytea) from public;
grant execute on function oauth_flow_owner(uuid, bytea, bytea) to alfred_app;

-- Forgets the connections of somebody who leaves the tenant. Audited: the tenant's admin only, in that tenant; nothing is
-- read.
create function connections_forget(p_user uuid) returns bigint
  language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  gone bigint;
begin
  if current_tenant() is null or not current_is_admin() then
    raise exception 'only an admin ends somebody''s connections' using errcode = 'insufficient_privilege';
  end if;
  delete from connections c where c.tenant_id = current_tenant() and c.user_id = p_user;
  get diagnostics gone = row_count;
  delete from oauth_flows f where f.tenant_id = current_tenant() and f.user_id = p_user;
  return gone;
end
$$;
alter function connections_forget(uuid) owner to alfred_engine;
revoke all on function connections_forget(uuid) from public;
grant execute on function connections_forget(uuid) to alfred_app;

revoke create on schema public from alfred_engine;
