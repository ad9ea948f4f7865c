-- What admins see of the queues, and what they decide about them.
--
-- Jobs stay where they live: turns, deliveries, items to embed, tickets. A view makes them look alike. How many there were is
-- counted when they have ended, and how many there are is measured from time to time, so that looking costs the same however
-- long a line is.

-- Not tenant data: what operators decided.
create table queues (
  name text primary key,
  paused_at timestamptz,
  paused_by uuid,
  paused_because text,
  constraint queues_paused check ((paused_by is null) = (paused_at is null))
);
insert into queues (name) values ('agent-deliveries'), ('chat-turns'), ('connection-refresh'), ('embeddings'), ('maintenance');

-- How far counting has come, when the lines were measured, and how long that took.
create table queue_clock (
  only_one boolean primary key default true,
  counted_until timestamptz not null default clock_timestamp() - interval '30 days',
  measured_at timestamptz,
  measured_ms bigint not null default 0,
  constraint queue_clock_only_one check (only_one)
);
insert into queue_clock default values;

-- The last firing of each schedule.
create table schedule_runs (
  task text primary key,
  queue text not null,
  started_at timestamptz not null,
  finished_at timestamptz not null,
  error text
);

-- Jobs that ended, by minute and by day, and by how long they waited and ran. The nil tenant is the deployment.
create table queue_counts (
  tenant_id uuid not null,
  queue text not null,
  span text not null,
  at timestamptz not null,
  status text not null,
  wait_class bigint not null,
  run_class bigint not null,
  jobs bigint not null,
  wait_ms bigint not null,
  run_ms bigint not null,
  primary key (tenant_id, queue, span, at, status, wait_class, run_class),
  constraint queue_counts_span check (span in ('minute', 'day'))
);
create index queue_counts_by_time on queue_counts (span, at);

-- Jobs that have not ended, as they were when they were last measured.
create table queue_levels (
  tenant_id uuid not null,
  queue text not null,
  level text not null,
  jobs bigint not null,
  oldest_at timestamptz,
  primary key (tenant_id, queue, level),
  constraint queue_levels_level check (level in ('due', 'delayed', 'running', 'parked'))
);

-- Dead jobs that somebody has dealt with.
create table queue_discards (
  tenant_id uuid not null,
  queue text not null,
  id uuid not null,
  at timestamptz not null default clock_timestamp(),
  by_user uuid not null,
  primary key (tenant_id, queue, id)
);
create index queue_discards_by_age on queue_discards (at);

create index turns_failed on turns (tenant_id, id) where state in ('failed', 'dead');
create index agent_notification_events_processed on agent_notification_events (processed_at) where processed_at is not null;

do $$
declare place text;
begin
  foreach place in array array['queues', 'queue_clock', 'schedule_runs', 'queue_counts', 'queue_levels', 'queue_discards'] loop
    execute format('alter table %I enable row level security', place);
    execute format('alter table %I force row level security', place);
    execute format('create policy %I on %I to alfred_engine using (true) with check (true)', place || '_of_engine', place);
    execute format('grant select, insert, update, delete on %I to alfred_engine', place);
  end loop;
  foreach place in array array['queue_counts', 'queue_levels', 'queue_discards'] loop
    execute format('create policy %I on %I to alfred_app using (tenant_id = current_tenant() and current_is_admin()) with check (tenant_id = current_tenant() and current_is_admin())', place || '_of_app', place);
    execute format('create policy whole_tenant on %I to %I using (tenant_id = nullif(current_setting(''app.whole_tenant'', true), '''')::uuid) with check (false)', place, current_user);
    execute format('grant select on %I to alfred_app', place);
  end loop;
end $$;
grant insert, delete on queue_discards to alfred_app;

-- A ticket's id as a uuid: the same bits, the same order. None for what is no ULID.
create function ulid_uuid(p_ulid text) returns uuid
  language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
  bits text := '';
begin
  if p_ulid !~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$' then
    return null;
  end if;
  for place in 1..26 loop
    bits := bits || (strpos('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(p_ulid, place, 1)) - 1)::bit(5)::text;
  end loop;
  bits := substr(bits, 3);
  return (lpad(to_hex(substr(bits, 1, 32)::bit(32)::bigint), 8, '0') || lpad(to_hex(substr(bits, 33, 32)::bit(32)::bigint), 8, '0')
       || lpad(to_hex(substr(bits, 65, 32)::bit(32)::bigint), 8, '0') || lpad(to_hex(substr(bits, 97, 32)::bit(32)::bigint), 8, '0'))::uuid;
end
$$;

-- What a ticket says; nothing where it cannot be read.
create function ticket_body(p_body bytea) returns jsonb
  language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
  return convert_from(p_body, 'UTF8')::jsonb;
exception when others then
  return null;
end
$$;

create index alfred_jobs_shown on apalis.jobs (job_type, public.ulid_uuid(id)) where job_type in ('connection-refresh', 'maintenance');

-- Every job of every queue, whatever it is made of. What only one queue has is its subject: a conversation, an agent, an item's
-- kind, a connection. Every column has the same type in every part: otherwise Postgres makes the whole list before it looks
-- for what was asked.
create view queue_jobs as
  select 'chat-turns'::text as queue, t.tenant_id, t.id, 'turn'::text as kind, t.state,
         case when t.state in ('queued', 'waiting', 'ready') then 'queued' else t.state end as status,
         t.user_id, t.conversation_id::text as subject, t.created_at, coalesce(t.ready_at, t.created_at) as due_at, t.started_at,
         t.finished_at, t.attempts + (t.started_at is not null and t.state not in ('queued', 'waiting', 'ready', 'dead'))::int as attempts,
         t.max_attempts, t.error ->> 'error' as error_code, t.error ->> 'message' as error, t.process_id::text as worker
  from turns t
  union all
  select 'agent-deliveries'::text, d.tenant_id, d.id, d.event_type, d.status,
         case when d.status in ('pending', 'retry') and d.leased_until > clock_timestamp() then 'running'
              when d.status in ('pending', 'retry') then 'queued' when d.status = 'delivered' then 'succeeded' else 'dead' end,
         d.user_id, d.target_agent, d.created_at, d.due_at,
         case when d.processed_at is not null then d.processed_at - coalesce(d.duration_ms, 0) * interval '1 millisecond' end,
         d.processed_at, d.retry_count + (d.status in ('delivered', 'failed'))::int, d.max_retries + 1, d.response_status::text,
         d.error_message, null::text
  from agent_notification_events d
  union all
  select 'embeddings'::text, e.tenant_id, e.uid, 'item'::text, 'listed'::text, 'queued'::text, e.user_id, e.kind, e.due_at, e.due_at,
         null::timestamptz, null::timestamptz, e.attempts, null::bigint, null::text, null::text, null::text
  from embedding_outbox e
  union all
  select j.job_type, (ticket_body(j.job) ->> 'tenant')::uuid, ulid_uuid(j.id),
         case when ticket_body(j.job) ? 'connection' then 'connection' when ticket_body(j.job) ? 'compact' then 'compaction'
              else coalesce(ticket_body(j.job) ->> 'task', 'ticket') end,
         j.status,
         case when j.status = 'Done' then 'succeeded' when j.status in ('Queued', 'Running') then 'running'
              when j.status = 'Pending' or (j.status = 'Failed' and j.attempts < j.max_attempts) then 'queued'
              when j.last_result ->> 'Err' like 'cancelled by %' then 'cancelled' else 'failed' end,
         (ticket_body(j.job) ->> 'user')::uuid, coalesce(ticket_body(j.job) ->> 'connection', ticket_body(j.job) ->> 'compact'), j.run_at,
         j.run_at, j.lock_at, j.done_at, j.attempts::bigint, j.max_attempts::bigint, null::text, j.last_result ->> 'Err', j.lock_by
  from apalis.jobs j where j.job_type in ('connection-refresh', 'maintenance');

-- The same, of the transaction's tenant and for its admins only: whoever reads it needs no right on what jobs are made of.
create view queue_jobs_of_tenant as
  select * from queue_jobs where tenant_id = current_tenant() and current_is_admin();

grant create on schema public to alfred_engine;
alter view queue_jobs owner to alfred_engine;
alter view queue_jobs_of_tenant owner to alfred_engine;
revoke create on schema public from alfred_engine;
grant select on queue_jobs_of_tenant to alfred_app;
