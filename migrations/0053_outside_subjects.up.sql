-- By which name WorkOS knows a user, for their keys as well as for their tokens.
grant create on schema public to alfred_engine;
-- Audited: one name of the user who has just proved to be that user.
create function tenancy_outside_subject(p_user uuid) returns text
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select subject from outside_identities where user_id = p_user order by created_at desc, issuer limit 1
$$;
alter function tenancy_outside_subject(uuid) owner to alfred_engine;
revoke all on function tenancy_outside_subject(uuid) from public;
grant execute on function tenancy_outside_subject(uuid) to alfred_app;
revoke create on schema public from alfred_engine;
