-- An invitation is for whoever shows its code, and no longer for whoever has its address: anybody can register with any
-- address, and nothing is granted by one that nobody has checked. Until the code was shown, the membership is that of a
-- user of its own whom nobody can sign in as and who takes up nobody's address.

-- While the invitation is open: whom it was sent to, the hash of its code, and when the code ends.
alter table memberships
  add column invited_email text,
  add column invitation_hash bytea,
  add column invitation_expires_at timestamptz;
-- Looked up before the tenant is known.
create index memberships_by_invitation on memberships (invitation_hash) where invitation_hash is not null;
create unique index memberships_invited_key on memberships (tenant_id, lower(invited_email));

-- alfred_engine needs CREATE on the schema only to be given functions.
grant create on schema public to alfred_engine;

-- A person chose a tenant that they were asked into. Audited: changes that one membership, only from null, and only where
-- somebody whom we trust has checked that the address is the person's.
create or replace function membership_accept(p_tenant uuid, p_user uuid) returns void
  language sql security definer set search_path = pg_catalog, public, pg_temp
as $$
  update memberships
  set accepted_at = clock_timestamp(), invited_email = null, invitation_hash = null, invitation_expires_at = null
  where tenant_id = p_tenant and user_id = p_user and accepted_at is null
    and exists (select from users u where u.id = p_user and u.email_verified)
$$;

-- Asks a person into the transaction's tenant. Audited: works on current_tenant() for its admin only, never touches an
-- existing user, and the membership is not an accepted one. Who has the address is not told: only a user whose address
-- was checked is found by it, everybody else by the code. The function of three arguments is that of the release before.
create function membership_invite(p_user uuid, p_email text, p_role text, p_hash bytea, p_expires_at timestamptz,
                                  out invited uuid, out is_new boolean)
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
  if not current_is_admin() then
    raise exception 'only an admin asks people into a tenant' using errcode = 'insufficient_privilege';
  end if;
  is_new := not exists (
    select from memberships m join users u on u.id = m.user_id
    where m.tenant_id = current_tenant() and lower(p_email) in (lower(u.email), lower(m.invited_email)));
  if not is_new then
    return;
  end if;
  select id into invited from users where lower(email) = lower(p_email) and email_verified;
  if invited is null then
    insert into users (id) values (p_user);
    invited := p_user;
  end if;
  insert into memberships (tenant_id, user_id, role, accepted_at, invited_email, invitation_hash, invitation_expires_at)
  values (current_tenant(), invited, p_role, null, p_email, p_hash, p_expires_at)
  on conflict do nothing;
  is_new := found;
end
$$;
alter function membership_invite(uuid, text, text, bytea, timestamptz) owner to alfred_engine;
revoke all on function membership_invite(uuid, text, text, bytea, timestamptz) from public;
grant execute on function membership_invite(uuid, text, text, bytea, timestamptz) to alfred_app;

revoke create on schema public from alfred_engine;
