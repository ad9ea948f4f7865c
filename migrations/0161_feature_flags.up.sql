-- What operators switch on for everybody, for nobody, or for a part of all users. Not tenant data.
create table feature_flags (
  name text primary key,
  enabled boolean not null default true,
  -- Of all users, those whose hash falls below.
  percent bigint not null default 100,
  updated_at timestamptz not null default now(),
  updated_by uuid,
  constraint feature_flags_percent check (percent between 0 and 100)
);
insert into feature_flags (name) values
  ('ADVANCED_AGENT_PERMISSIONS'), ('AGENT_PERFORMANCE_MONITORING'), ('CIRCUIT_BREAKER_ENABLED'), ('MCP_AGENT_NOTIFICATIONS');
alter table feature_flags enable row level security;
alter table feature_flags force row level security;
create policy feature_flags_of_engine on feature_flags to alfred_engine using (true) with check (true);
grant select, insert, update, delete on feature_flags to alfred_engine;

-- Where a subject (a user, an agent) stands among all, 0 to 9999: always at the same place for the same flag, so that whoever has
-- a feature keeps it while the percentage grows. shared::flags computes the same.
create function flag_place(p_flag text, p_subject text) returns bigint
  language sql immutable strict parallel safe
  return ('x' || substr(encode(sha256(convert_to(p_flag || ':' || p_subject, 'UTF8')), 'hex'), 1, 8))::bit(32)::bigint % 10000;

-- Whether a flag is on for a subject. A flag that nobody knows is on. Audited: answers one bit that operators decide.
create function flag_is_on(p_flag text, p_subject text) returns boolean
  language sql stable security definer set search_path = pg_catalog, public, pg_temp
as $$
  select coalesce((select f.enabled and flag_place(p_flag, p_subject) < f.percent * 100 from feature_flags f where f.name = p_flag), true)
$$;

-- Agents are not told of users for whom telling them is off.
create function agent_notification_events_wanted() returns trigger
  language plpgsql set search_path = pg_catalog, public, pg_temp
as $$
begin
  return case when flag_is_on('MCP_AGENT_NOTIFICATIONS', new.user_id::text) then new end;
end
$$;

grant create on schema public to alfred_engine;
alter function flag_is_on(text, text) owner to alfred_engine;
alter function agent_notification_events_wanted() owner to alfred_engine;
revoke create on schema public from alfred_engine;
revoke all on function flag_is_on(text, text) from public;
grant execute on function flag_is_on(text, text) to alfred_app;
create trigger agent_notification_events_wanted before insert on agent_notification_events
  for each row execute function agent_notification_events_wanted();
