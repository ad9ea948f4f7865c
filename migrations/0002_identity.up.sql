create table tenants (
  id uuid primary key,
  name text not null,
  -- Overrides the built-in system prompt of the workspace domain when set.
  system_prompt text,
  created_at timestamptz not null default now(),
  constraint tenants_name_not_empty check (name <> '')
);

create table users (
  id uuid primary key,
  number bigint generated always as identity unique,
  email text not null,
  timezone text not null default 'UTC',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create unique index users_email_key on users (lower(email));

create table memberships (
  tenant_id uuid not null references tenants (id),
  user_id uuid not null references users (id),
  role text not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, user_id),
  constraint memberships_role check (role in ('member', 'admin'))
);

create table api_keys (
  tenant_id uuid not null,
  id uuid not null,
  user_id uuid not null,
  key_hash bytea not null,
  operator boolean not null default false,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  primary key (tenant_id, id),
  foreign key (tenant_id, user_id) references memberships (tenant_id, user_id)
);
-- A hash of 256 random bits; it is looked up before the tenant is known, so it cannot start with one.
create unique index api_keys_hash_key on api_keys (key_hash);

create table tool_policies (
  tenant_id uuid not null references tenants (id),
  tool text not null,
  policy text not null,
  updated_at timestamptz not null default now(),
  primary key (tenant_id, tool),
  constraint tool_policies_policy check (policy in ('allow', 'ask', 'deny'))
);

alter table users enable row level security;
alter table users force row level security;
alter table tenants enable row level security;
alter table tenants force row level security;
alter table memberships enable row level security;
alter table memberships force row level security;
alter table api_keys enable row level security;
alter table api_keys force row level security;
alter table tool_policies enable row level security;
alter table tool_policies force row level security;

create policy tenants_of_app on tenants to alfred_app using (id = current_tenant()) with check (id = current_tenant() and current_is_admin());
create policy tenants_of_engine on tenants to alfred_engine using (true) with check (true);
-- A person sees their own row; an admin those of the tenant's members. Users belong to no tenant.
create policy users_of_app on users for select to alfred_app
  using (id = current_app_user()
         or (current_is_admin() and exists (select 1 from memberships m where m.tenant_id = current_tenant() and m.user_id = users.id)));
create policy users_of_engine on users to alfred_engine using (true) with check (true);
create policy memberships_of_app on memberships to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and current_is_admin());
create policy memberships_of_engine on memberships to alfred_engine using (true) with check (true);
create policy api_keys_of_app on api_keys to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and current_is_admin());
create policy api_keys_of_engine on api_keys to alfred_engine using (true) with check (true);
create policy tool_policies_of_app on tool_policies to alfred_app
  using (tenant_id = current_tenant()) with check (tenant_id = current_tenant() and current_is_admin());
create policy tool_policies_of_engine on tool_policies to alfred_engine using (true) with check (true);

grant select, update on tenants to alfred_app;
grant select on users, memberships, api_keys to alfred_app;
grant select, insert, update, delete on tool_policies to alfred_app;
grant select, insert, update on tenants, users, memberships, api_keys to alfred_engine;

-- Who a key belongs to, before any tenant is known. Audited: answers one row for the exact hash of a live key.
create function identity_by_key_hash(p_hash bytea)
  returns table (tenant_id uuid, user_id uuid, role text, operator boolean, timezone text)
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select k.tenant_id, k.user_id, m.role, k.operator, u.timezone
  from api_keys k
  join memberships m on m.tenant_id = k.tenant_id and m.user_id = k.user_id
  join users u on u.id = k.user_id
  where k.key_hash = p_hash
    and k.revoked_at is null
    and (k.expires_at is null or k.expires_at > now())
$$;
alter function identity_by_key_hash(bytea) owner to alfred_engine;
revoke all on function identity_by_key_hash(bytea) from public;
grant execute on function identity_by_key_hash(bytea) to alfred_app;
