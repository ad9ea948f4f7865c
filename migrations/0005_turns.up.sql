create table turns (
  tenant_id uuid not null,
  id uuid not null,
  conversation_id bigint not null,
  session_id uuid not null,
  user_id uuid not null,
  turn_no bigint not null,
  state text not null,
  -- Head of the tenant's line: the slot it holds, its claim order (-slot) and when it may be claimed.
  slot bigint,
  priority bigint not null default 0,
  ready_at timestamptz,
  -- Who runs it. A lease that is set while nobody runs the turn marks one that was taken from somebody.
  lease uuid,
  process_id uuid,
  attempts bigint not null default 0,
  max_attempts bigint not null default 3,
  takeovers bigint not null default 0,
  takeovers_total bigint not null default 0,
  cancel_requested_at timestamptz,
  cancel_reason text,
  force_refresh boolean not null default false,
  request_id text not null,
  retry_of uuid,
  -- Filled at the end.
  reply text,
  error jsonb,
  model text,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  session_tokens bigint,
  warnings jsonb not null default '[]',
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  primary key (tenant_id, id),
  constraint turns_number_key unique (tenant_id, conversation_id, turn_no),
  foreign key (tenant_id, conversation_id) references conversations (tenant_id, id),
  constraint turns_state check (state in ('queued', 'waiting', 'ready', 'running', 'awaiting_approval',
                                          'succeeded', 'failed', 'cancelled', 'dead')),
  constraint turns_finished_when_terminal check ((state in ('succeeded', 'failed', 'cancelled', 'dead')) = (finished_at is not null)),
  constraint turns_slot_when_admitted check ((slot is not null) = (state in ('ready', 'running'))),
  constraint turns_running_has_lease check (state <> 'running' or (lease is not null and process_id is not null)),
  constraint turns_error_when_failed check ((error is not null) = (state in ('failed', 'dead')))
) with (fillfactor = 70);

-- One turn at a time per conversation, as a constraint.
create unique index turns_one_active on turns (tenant_id, conversation_id)
  where state in ('waiting', 'ready', 'running', 'awaiting_approval');
create index turns_claim on turns (priority desc, ready_at) where state = 'ready';
create index turns_line on turns (tenant_id, conversation_id, turn_no) where state = 'queued';
create index turns_waiting on turns (tenant_id, created_at) where state = 'waiting';
create index turns_running on turns (process_id) where state = 'running';
create index turns_parked on turns (created_at) where state = 'awaiting_approval';
create index turns_finished on turns (finished_at) where finished_at is not null;

-- The journal of a turn: what a new worker needs to go on. One row a model reply (call_id '') or tool result.
create table turn_steps (
  tenant_id uuid not null,
  turn_id uuid not null,
  step bigint not null,
  call_id text not null default '',
  kind text not null,
  -- Model: the reply as we read it. Tool: name and arguments.
  view text not null,
  -- Model: the provider's own blocks, byte for byte. Tool: the result as the model sees it.
  content text,
  provider text,
  is_error boolean not null default false,
  elapsed_ms bigint,
  -- Id of the last event that belongs to this step.
  event_seq bigint,
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  primary key (tenant_id, turn_id, step, call_id),
  constraint turn_steps_kind check (kind in ('model', 'tool'))
);

-- Every call to a model that was sent, whether or not its reply was used: the money is spent.
create table model_calls (
  tenant_id uuid not null,
  id uuid not null,
  turn_id uuid not null,
  user_id uuid not null,
  provider text not null,
  model text not null,
  sent_at timestamptz not null default clock_timestamp(),
  settled_at timestamptz,
  outcome text,
  estimated boolean not null default false,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  cache_read_tokens bigint not null default 0,
  cache_write_tokens bigint not null default 0,
  cost_micros bigint not null default 0,
  primary key (tenant_id, id)
);
create index model_calls_by_turn on model_calls (tenant_id, turn_id);
create index model_calls_by_day on model_calls (tenant_id, sent_at);

-- Days whose calls are no longer kept one by one.
create table usage_days (
  tenant_id uuid not null,
  user_id uuid not null,
  day timestamptz not null,
  provider text not null,
  model text not null,
  calls bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cache_read_tokens bigint not null,
  cache_write_tokens bigint not null,
  cost_micros bigint not null,
  primary key (tenant_id, user_id, day, provider, model)
);

create table approvals (
  tenant_id uuid not null,
  turn_id uuid not null,
  call_id text not null,
  tool text not null,
  -- The arguments that were shown: the decision binds these.
  arguments text not null,
  requested_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  decision text,
  reason text,
  decided_by uuid,
  decided_at timestamptz,
  primary key (tenant_id, turn_id, call_id),
  constraint approvals_decision check (decision in ('approve', 'deny', 'expired')),
  constraint approvals_decided check ((decision is null) = (decided_at is null))
);
create index approvals_open on approvals (expires_at) where decision is null;

create table tenant_slots (
  tenant_id uuid not null,
  n bigint not null,
  turn_id uuid,
  primary key (tenant_id, n)
) with (fillfactor = 50);

create table idempotency_keys (
  tenant_id uuid not null,
  user_id uuid not null,
  route text not null,
  key text not null,
  body_hash bytea not null,
  turn_id uuid not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, user_id, route, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

do $$
declare
  t text;
begin
  foreach t in array array['turns', 'model_calls', 'usage_days', 'idempotency_keys'] loop
    execute format('alter table %I enable row level security', t);
    execute format('alter table %I force row level security', t);
    execute format($p$create policy %I on %I to alfred_app
      using (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))
      with check (tenant_id = current_tenant() and (user_id = current_app_user() or current_is_admin()))$p$, t || '_of_app', t);
    execute format('create policy %I on %I to alfred_engine using (true) with check (true)', t || '_of_engine', t);
  end loop;
  -- Rows of a turn carry no user; they are visible with their turn.
  foreach t in array array['turn_steps', 'approvals'] loop
    execute format('alter table %I enable row level security', t);
    execute format('alter table %I force row level security', t);
    execute format($p$create policy %1$I on %2$I to alfred_app
      using (tenant_id = current_tenant()
             and exists (select 1 from turns where turns.tenant_id = %2$I.tenant_id and turns.id = %2$I.turn_id))
      with check (tenant_id = current_tenant())$p$, t || '_of_app', t);
    execute format('create policy %I on %I to alfred_engine using (true) with check (true)', t || '_of_engine', t);
  end loop;
end
$$;
alter table tenant_slots enable row level security;
alter table tenant_slots force row level security;
create policy tenant_slots_of_app on tenant_slots to alfred_app using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());
create policy tenant_slots_of_engine on tenant_slots to alfred_engine using (true) with check (true);

grant select, insert, update on turns, turn_steps, model_calls, approvals to alfred_app;
grant select on usage_days to alfred_app;
grant select, insert on idempotency_keys to alfred_app;
grant select, update on tenant_slots to alfred_app;
grant select, update, delete on turns, turn_steps, approvals, tenant_slots, idempotency_keys to alfred_engine;
grant insert on tenant_slots to alfred_engine;
grant select, insert, update, delete on model_calls, usage_days to alfred_engine;
