-- What an agent may see and change of users, and whose events it is told of.

alter table agents
  add column permission_level text not null default 'read_only',
  -- Words such as read:preferences; shared::agents::permissions knows them all.
  add column permissions_required text[] not null default '{}',
  add column permissions_optional text[] not null default '{}',
  add column permissions_forbidden text[] not null default '{}',
  -- Over the user's preferences; null is everybody.
  add column condition jsonb,
  add constraint agents_permission_level check (permission_level in ('restricted', 'read_only', 'read_write', 'admin'));

-- Whether a condition holds for these preferences.
create function agent_condition_holds(p_condition jsonb, p_preferences jsonb) returns boolean
  language sql immutable parallel safe
  return case
    when p_condition is null then true
    when p_condition ? 'equals' then coalesce(p_preferences -> (p_condition ->> 'field') = p_condition -> 'equals', false)
    else coalesce(p_preferences -> (p_condition ->> 'field') @> jsonb_build_array(p_condition -> 'contains'), false)
  end;
