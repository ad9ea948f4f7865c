-- Keys of users without a membership, and users without an address, have no place in the former schema: the keys go,
-- and the users get an address that can receive nothing.
drop function identity_by_key_hash(bytea);
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
grant create on schema public to alfred_engine;
alter function identity_by_key_hash(bytea) owner to alfred_engine;
revoke create on schema public from alfred_engine;
revoke all on function identity_by_key_hash(bytea) from public;
grant execute on function identity_by_key_hash(bytea) to alfred_app;

revoke insert (tenant_id, id, user_id, key_hash, name, scopes, expires_at), update (revoked_at) on api_keys from alfred_app;
drop policy api_keys_of_app on api_keys;
create policy api_keys_of_app on api_keys to alfred_app
  using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
  with check (tenant_id = current_tenant() and current_is_admin());
drop index api_keys_by_user;
alter table api_keys drop constraint api_keys_user_id_fkey;
alter table api_keys drop constraint api_keys_tenant_id_fkey;
delete from api_keys k
  where not exists (select 1 from memberships m where m.tenant_id = k.tenant_id and m.user_id = k.user_id);
alter table api_keys add constraint api_keys_tenant_id_user_id_fkey
  foreign key (tenant_id, user_id) references memberships (tenant_id, user_id);
alter table api_keys drop constraint api_keys_scopes;
alter table api_keys drop column last_used_at, drop column scopes, drop column name;
alter table users drop column email_verified;
update users set email = id || '@unknown.invalid' where email is null;
alter table users alter column email set not null;
