-- What a tenant's requests are signed with, and the host names that stand for a tenant.

create table tenant_header_secrets (
  tenant_id uuid not null references tenants (id),
  id uuid not null,
  -- Sealed by the vault: the tenant and this id stand inside the encrypted envelope.
  secret_enc text not null,
  created_at timestamptz not null default now(),
  -- When somebody who signs was given it; until then the one before stays good.
  delivered_at timestamptz,
  -- Null while it is good without an end.
  expires_at timestamptz,
  primary key (tenant_id, id)
);
create table tenant_hosts (
  tenant_id uuid not null references tenants (id),
  host text not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, host),
  constraint tenant_hosts_lower_case check (host = lower(host) and host <> '')
);
-- A host stands for one tenant. Names of hosts are public, and only operators write them.
create unique index tenant_hosts_host_key on tenant_hosts (host);

alter table tenant_header_secrets enable row level security;
alter table tenant_header_secrets force row level security;
alter table tenant_hosts enable row level security;
alter table tenant_hosts force row level security;
create policy tenant_header_secrets_of_app on tenant_header_secrets to alfred_app
  using (tenant_id = current_tenant() and current_is_admin()) with check (tenant_id = current_tenant() and current_is_admin());
create policy tenant_header_secrets_of_engine on tenant_header_secrets to alfred_engine using (true) with check (true);
create policy tenant_hosts_of_app on tenant_hosts to alfred_app
  using (tenant_id = current_tenant() and current_is_admin()) with check (tenant_id = current_tenant() and current_is_admin());
create policy tenant_hosts_of_engine on tenant_hosts to alfred_engine using (true) with check (true);
grant select, insert, update, delete on tenant_header_secrets to alfred_app, alfred_engine;
grant select on tenant_hosts to alfred_app;
grant select, insert, update, delete on tenant_hosts to alfred_engine;

grant create on schema public to alfred_engine;

-- A tenant's live secrets, to check a signature with before the tenant is known. Audited: one tenant's, sealed, and
-- noted in the audit log for each secret that the asking process has not had before.
create function tenancy_header_secrets(p_tenant uuid, p_known uuid[]) returns table (id uuid, secret_enc text)
  language sql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
  with live as (
    select s.id, s.secret_enc, s.created_at from tenant_header_secrets s
    where s.tenant_id = p_tenant and (s.expires_at is null or s.expires_at > clock_timestamp())
  ), noted as (
    insert into audit_log (tenant_id, acted_as, action, target)
    select p_tenant, 'system', 'header_secret.loaded', live.id::text from live where live.id <> all (p_known)
  )
  select live.id, live.secret_enc from live order by live.created_at desc
$$;
alter function tenancy_header_secrets(uuid, uuid[]) owner to alfred_engine;
revoke all on function tenancy_header_secrets(uuid, uuid[]) from public;
grant execute on function tenancy_header_secrets(uuid, uuid[]) to alfred_app;

-- The tenant of a host name, before any tenant is known. Audited: one exact name.
create function tenancy_of_host(p_host text) returns uuid
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select h.tenant_id from tenant_hosts h join tenants t on t.id = h.tenant_id
  where h.host = p_host and t.state <> 'deleted'
$$;
alter function tenancy_of_host(text) owner to alfred_engine;
revoke all on function tenancy_of_host(text) from public;
grant execute on function tenancy_of_host(text) to alfred_app;

revoke create on schema public from alfred_engine;
