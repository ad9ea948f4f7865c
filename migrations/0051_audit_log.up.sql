-- What admins and operators did, and who used a secret. Append-only: no role that serves has UPDATE or DELETE.

-- A UUIDv7 by the database's clock, so that rows of all processes sort by time.
create function uuid_v7() returns uuid language sql volatile parallel safe
  return overlay(overlay(replace(gen_random_uuid()::text, '-', '')
    placing lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') from 1 for 12)
    placing '7' from 13 for 1)::uuid;

create table audit_log (
  tenant_id uuid not null,
  id uuid not null default uuid_v7(),
  at timestamptz not null default clock_timestamp(),
  -- Null when a process did it by itself.
  user_id uuid,
  -- As what: admin, operator or system.
  acted_as text not null,
  action text not null,
  target text not null default '',
  details jsonb not null default '{}',
  request_id text,
  primary key (tenant_id, id),
  constraint audit_log_acted_as check (acted_as in ('admin', 'operator', 'system'))
);
alter table audit_log enable row level security;
alter table audit_log force row level security;
create policy audit_log_read_by_app on audit_log for select to alfred_app
  using (tenant_id = current_tenant() and current_is_admin());
create policy audit_log_written_by_app on audit_log for insert to alfred_app
  with check (tenant_id = current_tenant());
create policy audit_log_read_by_engine on audit_log for select to alfred_engine using (true);
create policy audit_log_written_by_engine on audit_log for insert to alfred_engine with check (true);
grant select, insert on audit_log to alfred_app, alfred_engine;
