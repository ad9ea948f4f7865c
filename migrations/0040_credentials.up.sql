-- What the several kinds of credentials need of users and API keys.

-- A user of an outside issuer may have no address that we trust.
alter table users alter column email drop not null;
-- Whether somebody whom we trust has checked the address. Anybody can register with any address.
alter table users add column email_verified boolean not null default false;

alter table api_keys add column name text not null default '';
-- Null is all of them: keys from before scopes, and the development key.
alter table api_keys add column scopes text[];
-- Right to some seconds; written in batches.
alter table api_keys add column last_used_at timestamptz;
alter table api_keys add constraint api_keys_scopes
  check (scopes is null or (scopes <@ array['read', 'write', 'chat', 'admin'] and array_position(scopes, null) is null));
-- In the shared default tenant, people without any membership have keys too; who may act in the tenant is decided at
-- each request.
alter table api_keys drop constraint api_keys_tenant_id_user_id_fkey;
alter table api_keys add constraint api_keys_tenant_id_fkey foreign key (tenant_id) references tenants (id);
alter table api_keys add constraint api_keys_user_id_fkey foreign key (user_id) references users (id);
create index api_keys_by_user on api_keys (tenant_id, user_id, id);

-- People make and revoke their own keys; an admin may revoke those of the tenant. `operator` is not among the columns.
drop policy api_keys_of_app on api_keys;
create policy api_keys_of_app on api_keys to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()));
grant insert (tenant_id, id, user_id, key_hash, name, scopes, expires_at) on api_keys to alfred_app;
grant update (revoked_at) on api_keys to alfred_app;

-- As before, and answers what the key is and may; without a membership the role is null.
drop function identity_by_key_hash(bytea);
create function identity_by_key_hash(p_hash bytea)
  returns table (key_id uuid, tenant_id uuid, user_id uuid, role text, operator boolean, scopes text[], email text,
                 email_verified boolean, timezone text)
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select k.id, k.tenant_id, k.user_id, m.role, k.operator, k.scopes, u.email, u.email_verified, u.timezone
  from api_keys k
  left join memberships m on m.tenant_id = k.tenant_id and m.user_id = k.user_id
  join users u on u.id = k.user_id
  where k.key_hash = p_hash
    and k.revoked_at is null
    and (k.expires_at is null or k.expires_at > now())
$$;
grant create on schema public to alfred_engine;
alter function identity_by_key_hash(bytea) owner to alfred_engine;
revoke create on schema public from alfred_engine;
revoke all on function identity_by_key_hash(bytea) from public;
grant execute on function identity_by_key_hash(bytea) to alfred_app;
