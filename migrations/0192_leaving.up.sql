-- Leaving a tenant. Only admins delete memberships; a member who leaves goes through a function.

-- alfred_engine needs CREATE on the schema only to be given functions.
grant create on schema public to alfred_engine;

-- The transaction's user leaves the transaction's tenant, with their keys and connections there. Audited: works on
-- current_tenant() and current_app_user() alone, and a tenant keeps an admin. Answers left, last_admin or no_member.
create function membership_leave() returns text
  language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  own text;
begin
  -- Two admins who leave at once must not both find the other.
  perform from memberships m
  where m.tenant_id = current_tenant() and (m.user_id = current_app_user() or m.role = 'admin')
  order by m.user_id for no key update;
  select m.role into own from memberships m
  where m.tenant_id = current_tenant() and m.user_id = current_app_user() and m.accepted_at is not null;
  if own is null then
    return 'no_member';
  end if;
  if own = 'admin' and not exists (
    select from memberships m
    where m.tenant_id = current_tenant() and m.user_id <> current_app_user() and m.role = 'admin' and m.accepted_at is not null)
  then
    return 'last_admin';
  end if;
  delete from api_keys k where k.tenant_id = current_tenant() and k.user_id = current_app_user();
  delete from connections c where c.tenant_id = current_tenant() and c.user_id = current_app_user();
  delete from oauth_flows f where f.tenant_id = current_tenant() and f.user_id = current_app_user();
  delete from memberships m where m.tenant_id = current_tenant() and m.user_id = current_app_user();
  return 'left';
end
$$;
alter function membership_leave() owner to alfred_engine;
revoke all on function membership_leave() from public;
grant execute on function membership_leave() to alfred_app;

revoke create on schema public from alfred_engine;
