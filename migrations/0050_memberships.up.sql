-- Which tenants a person may act in, and what became of a tenant.

alter table tenants
  add column state text not null default 'active',
  add column state_since timestamptz not null default now(),
  -- The tenant's organisation at WorkOS.
  add column external_id text,
  -- How many of its turns may run at once; null is what TENANT_RUNNING_TURNS gave it.
  add column running_turns bigint,
  add constraint tenants_state check (state in ('active', 'suspended', 'deleting', 'deleted')),
  add constraint tenants_external_key unique (external_id),
  add constraint tenants_running_turns check (running_turns between 1 and 100000);

-- An admin may name anybody's address. Until that person has chosen the tenant themselves, the membership does not
-- count when a request leaves the choice open; otherwise anybody could be drawn into another tenant, or out of theirs.
alter table memberships add column accepted_at timestamptz default now();
create index memberships_by_user on memberships (user_id, tenant_id);

grant update (role) on memberships to alfred_app;
grant delete on memberships, api_keys to alfred_app;
grant delete on memberships, api_keys to alfred_engine;

-- alfred_engine needs CREATE on the schema only to be given functions.
grant create on schema public to alfred_engine;

-- The memberships of one person, before any tenant is known. Audited: answers about the user that was asked for only,
-- and whoever calls has proved to be that user.
create function tenancy_of_user(p_user uuid)
  returns table (tenant_id uuid, name text, external_id text, state text, role text, accepted boolean)
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select m.tenant_id, t.name, t.external_id, t.state, m.role, m.accepted_at is not null
  from memberships m join tenants t on t.id = m.tenant_id
  where m.user_id = p_user and t.state <> 'deleted'
  order by m.tenant_id
$$;
alter function tenancy_of_user(uuid) owner to alfred_engine;
revoke all on function tenancy_of_user(uuid) from public;
grant execute on function tenancy_of_user(uuid) to alfred_app;

-- A person chose a tenant that they were asked into. Audited: changes that one membership, and only from null.
create function membership_accept(p_tenant uuid, p_user uuid) returns void
  language sql security definer set search_path = pg_catalog, public, pg_temp
as $$
  update memberships set accepted_at = clock_timestamp()
  where tenant_id = p_tenant and user_id = p_user and accepted_at is null
$$;
alter function membership_accept(uuid, uuid) owner to alfred_engine;
revoke all on function membership_accept(uuid, uuid) from public;
grant execute on function membership_accept(uuid, uuid) to alfred_app;

-- Asks a person into the transaction's tenant by their address; a person who is not known is made. Audited: works on
-- current_tenant() for its admin only, never touches an existing user, and the membership is not an accepted one.
create function membership_invite(p_user uuid, p_email text, p_role text, out invited uuid, out is_new boolean)
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
  if not current_is_admin() then
    raise exception 'only an admin asks people into a tenant' using errcode = 'insufficient_privilege';
  end if;
  insert into users (id, email) values (p_user, p_email) on conflict do nothing;
  select id into invited from users where lower(email) = lower(p_email);
  insert into memberships (tenant_id, user_id, role, accepted_at) values (current_tenant(), invited, p_role, null)
  on conflict (tenant_id, user_id) do nothing;
  is_new := found;
end
$$;
alter function membership_invite(uuid, text, text) owner to alfred_engine;
revoke all on function membership_invite(uuid, text, text) from public;
grant execute on function membership_invite(uuid, text, text) to alfred_app;

-- Makes a person's memberships what their organisations say, in tenants that have an organisation. Audited: the caller
-- has asked the directory about this very user. Keys go with the membership that they rested on.
create function memberships_mirror(p_user uuid, p_organizations text[], p_roles text[]) returns void
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
  -- Two at once would each remove what the other adds.
  perform pg_advisory_xact_lock(hashtextextended('memberships_mirror:' || p_user, 0));
  delete from api_keys k using tenants t
  where k.user_id = p_user and t.id = k.tenant_id and t.external_id is not null and t.external_id <> all (p_organizations);
  delete from memberships m using tenants t
  where m.user_id = p_user and t.id = m.tenant_id and t.external_id is not null and t.external_id <> all (p_organizations);
  insert into memberships (tenant_id, user_id, role)
  select t.id, p_user, o.role
  from unnest(p_organizations, p_roles) o (external_id, role) join tenants t on t.external_id = o.external_id
  where t.state in ('active', 'suspended')
  on conflict (tenant_id, user_id) do update
    set role = excluded.role, accepted_at = coalesce(memberships.accepted_at, excluded.accepted_at)
    where memberships.role <> excluded.role or memberships.accepted_at is null;
end
$$;
alter function memberships_mirror(uuid, text[], text[]) owner to alfred_engine;
revoke all on function memberships_mirror(uuid, text[], text[]) from public;
grant execute on function memberships_mirror(uuid, text[], text[]) to alfred_app;

revoke create on schema public from alfred_engine;
