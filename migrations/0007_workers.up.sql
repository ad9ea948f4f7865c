-- One row a worker process, judged by the database's clock. Not tenant data.
create table workers (
  id uuid primary key,
  host text not null,
  pid bigint not null,
  started_at timestamptz not null default clock_timestamp(),
  seen_at timestamptz not null default clock_timestamp(),
  dead_at timestamptz
) with (fillfactor = 50);
grant select, insert, update, delete on workers to alfred_engine;

-- Gives a tenant its slots. Audited: engine only.
create function tenant_slots_resize(p_tenant uuid, p_slots bigint) returns void
  language sql security definer set search_path = pg_catalog, public, pg_temp
as $$
  insert into tenant_slots (tenant_id, n)
  select p_tenant, n from generate_series(1, p_slots) n
  on conflict (tenant_id, n) do nothing;
  delete from tenant_slots where tenant_id = p_tenant and n > p_slots and turn_id is null;
$$;
alter function tenant_slots_resize(uuid, bigint) owner to alfred_engine;
revoke all on function tenant_slots_resize(uuid, bigint) from public;

-- What follows when a turn leaves the head of its conversation: the conversation's next turn is promoted, and the
-- slot goes to the tenant's oldest waiting turn or is freed. The caller holds the conversation's row and has moved
-- the turn out of the active states. Crosses users within the tenant of the transaction, hence a definer function
-- (audited: works on current_tenant() only). Answers the turn that became ready, if any, and whether the slot was freed.
create function turns_hand_over(p_conversation bigint, p_slot bigint, out ready_turn uuid, out ready_conversation bigint, out freed boolean)
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  tenant uuid := current_tenant();
begin
  freed := false;
  update turns set state = 'waiting'
  where tenant_id = tenant and state = 'queued'
    and id = (select id from turns where tenant_id = tenant and conversation_id = p_conversation and state = 'queued'
              order by turn_no limit 1)
    and not exists (select 1 from turns where tenant_id = tenant and conversation_id = p_conversation
                    and state in ('waiting', 'ready', 'running', 'awaiting_approval'));
  if p_slot is null then
    return;
  end if;
  update turns set state = 'ready', slot = p_slot, priority = -p_slot, ready_at = clock_timestamp()
  where tenant_id = tenant and state = 'waiting'
    and id = (select id from turns where tenant_id = tenant and state = 'waiting' order by created_at limit 1 for update skip locked)
  returning id, conversation_id into ready_turn, ready_conversation;
  update tenant_slots set turn_id = ready_turn where tenant_id = tenant and n = p_slot;
  freed := ready_turn is null;
end
$$;
alter function turns_hand_over(bigint, bigint) owner to alfred_engine;
revoke all on function turns_hand_over(bigint, bigint) from public;
grant execute on function turns_hand_over(bigint, bigint) to alfred_app;

-- The second look: gives free slots of the transaction's tenant to its oldest waiting turns. Whoever found no slot
-- and whoever freed one calls it once more after its own commit.
create function turns_admit_waiting() returns setof uuid
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  tenant uuid := current_tenant();
  free_slot bigint;
  head uuid;
begin
  loop
    if not exists (select 1 from turns where tenant_id = tenant and state = 'waiting') then
      return;
    end if;
    select n into free_slot from tenant_slots where tenant_id = tenant and turn_id is null order by n limit 1 for update skip locked;
    if free_slot is null then
      return;
    end if;
    update turns set state = 'ready', slot = free_slot, priority = -free_slot, ready_at = clock_timestamp()
    where tenant_id = tenant and state = 'waiting'
      and id = (select id from turns where tenant_id = tenant and state = 'waiting' order by created_at limit 1 for update skip locked)
    returning id into head;
    if head is null then
      return;
    end if;
    update tenant_slots set turn_id = head where tenant_id = tenant and n = free_slot;
    return next head;
  end loop;
end
$$;
alter function turns_admit_waiting() owner to alfred_engine;
revoke all on function turns_admit_waiting() from public;
grant execute on function turns_admit_waiting() to alfred_app;
