create or replace view queue_jobs as
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
do $$
declare part text;
begin
  foreach part in array array['queue_turns', 'queue_deliveries', 'queue_items', 'queue_tickets'] loop
    execute format('drop view %I', part || '_of_tenant');
    execute format('drop view %I', part);
  end loop;
end $$;
create index turns_failed on turns (tenant_id, id) where state in ('failed', 'dead');
drop index turns_not_well;
drop index apalis.alfred_jobs_not_done;
drop index apalis.alfred_jobs_of_tenants;
create or replace function ticket_body(p_body bytea) returns jsonb
  language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
  return convert_from(p_body, 'UTF8')::jsonb;
exception when others then
  return null;
end
$$;
