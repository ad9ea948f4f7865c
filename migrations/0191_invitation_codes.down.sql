drop function membership_invite(uuid, text, text, bytea, timestamptz);
create or replace function membership_accept(p_tenant uuid, p_user uuid) returns void
  language sql security definer set search_path = pg_catalog, public, pg_temp
as $$
  update memberships set accepted_at = clock_timestamp()
  where tenant_id = p_tenant and user_id = p_user and accepted_at is null
$$;
drop index memberships_invited_key;
drop index memberships_by_invitation;
alter table memberships drop column invitation_expires_at, drop column invitation_hash, drop column invited_email;
