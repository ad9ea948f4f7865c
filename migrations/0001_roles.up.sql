-- The three roles. `owner` is whoever runs this file; `alfred_app` serves requests under row-level security;
-- `alfred_engine` schedules across tenants and has no right on items. Both may exist already as login roles.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['alfred_app', 'alfred_engine'] loop
    if not exists (select 1 from pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin nosuperuser nobypassrls', wanted);
      exception when duplicate_object or unique_violation then
        null; -- another database of this cluster was migrated at the same moment
      end;
    end if;
    if not pg_has_role(current_user, wanted, 'member') then
      execute format('grant %I to %I', wanted, current_user);
    end if;
  end loop;
end
$$;

revoke create on schema public from public;
grant usage on schema public to alfred_app, alfred_engine;
-- Ownership of a function can only be given to a role that may create in its schema.
grant create on schema public to alfred_engine;

-- The identity of the current transaction, set by TenantTx as its first statement; null outside of one.
create function current_tenant() returns uuid language sql stable parallel safe
  return nullif(current_setting('app.tenant_id', true), '')::uuid;
create function current_app_user() returns uuid language sql stable parallel safe
  return nullif(current_setting('app.user_id', true), '')::uuid;
create function current_is_admin() returns boolean language sql stable parallel safe
  return coalesce(current_setting('app.role', true), '') = 'admin';
