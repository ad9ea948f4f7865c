-- The function of 0040.
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
