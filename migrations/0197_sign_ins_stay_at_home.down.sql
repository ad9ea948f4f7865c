create or replace function sign_ins_tell() returns trigger
  language plpgsql security definer set search_path = pg_catalog, public, pg_temp
as $$
declare
  happened text := case when tg_op = 'INSERT' then 'user_login' else 'user_logout' end;
  facts jsonb := jsonb_build_object('sign_in', new.id, 'kind', new.kind, 'client', new.client_id);
  place uuid;
  told boolean := false;
begin
  if tg_op = 'UPDATE' then
    facts := facts || jsonb_build_object('because', new.ended_because);
  end if;
  for place in
    select m.tenant_id from memberships m join tenants t on t.id = m.tenant_id
    where m.user_id = new.user_id and m.accepted_at is not null and t.state = 'active'
  loop
    perform user_event(place, new.user_id, happened, facts, new.id::text);
    told := true;
  end loop;
  if not told and new.home_tenant is not null then
    perform user_event(new.home_tenant, new.user_id, happened, facts, new.id::text);
  end if;
  return null;
end
$$;
